"""Statements of a month: what there was, what came and went, what is left, and when that expires.

A statement says what was known when its month ended: `closing` is the account as of the month's last instant (a
microsecond before the next begins), as known at that instant, and `opening` is the same of the month before. So the
closing of a month is the opening of the next, whatever is recorded later: that is a movement, marked `late`, of the
month it is recorded in. What was due by the end has happened in it, written down or not. A statement is final an hour
after its month, when no request of that month is under way any more; from then on it comes to the same figures for
ever.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import ledger, members, programs
from app.errors import NotFound
from app.ledger import Account, Ladder
from app.programs import Timeline

_UNDER_WAY = timedelta(hours=1)
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month of a programme, from its first instant up to that of the next. `first_day` names it."""

    first_day: date
    begins_at: datetime
    ends_at: datetime

    def provisional(self, now: datetime) -> bool:
        """Whether the statement may still change."""
        return now < self.ends_at + _UNDER_WAY

    @property
    def name(self) -> str:
        return f"{self.first_day:%Y-%m}"


@dataclass(frozen=True, slots=True)
class Movement:
    """An entry of a statement; `late`: it happened before the month, and was recorded in it."""

    entry: Mapping[str, Any]
    late: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """A member's month. In each figure, opening plus movements is closing. `at` is the instant of the closing."""

    program_name: str
    member_id: UUID
    member_name: str | None
    month: Month
    zone: tzinfo
    at: datetime
    provisional: bool
    opening: Account
    movements: Sequence[Movement]
    closing: Account
    ladder: Ladder


def months(session: Session, program_id: UUID, member_id: UUID, now: datetime) -> list[Month]:
    """The months a member has statements of, the current one first. NotFound if the programme has no such member."""
    member = members.read(session, program_id, member_id).member
    return list(_months(programs.timeline(session, program_id), member.enrolled_at, now))


def _months(timeline: Timeline, since: datetime, now: datetime) -> Iterator[Month]:
    month = _month(timeline, _current(timeline, now))
    while month.ends_at > since:
        if month.begins_at <= now:  # a zone that moved at the turn of a month
            yield month
        month = _month(timeline, (month.first_day - timedelta(days=1)).replace(day=1))


def _named(timeline: Timeline, name: str, now: datetime) -> Month:
    """The month `name`. NotFound unless it has begun."""
    first_day = date.fromisoformat(f"{name}-01")
    if first_day <= _current(timeline, now):
        month = _month(timeline, first_day)
        if month.begins_at <= now:  # as above
            return month
    raise NotFound


def _current(timeline: Timeline, now: datetime) -> date:
    return now.astimezone(timeline.zone_at(now)).date().replace(day=1)


def _month(timeline: Timeline, first_day: date) -> Month:
    following = (first_day + timedelta(days=31)).replace(day=1)
    return Month(first_day, programs.month_begins(first_day, timeline), programs.month_begins(following, timeline))


def statement(session: Session, program_id: UUID, member_id: UUID, name: str, now: datetime) -> Statement:
    """The statement of the month `name` (`2026-11`), provisional while that runs. NotFound if there is none."""
    found = statements(session, program_id, [member_id], name, now)
    if not found:
        raise NotFound
    return found[0]


def statements(
    session: Session, program_id: UUID, member_ids: Collection[UUID], name: str, now: datetime
) -> list[Statement]:
    """The statements of some members, in the order of their ids; who joined after the month, or another programme, has
    none. NotFound for a month to come. The number of SQL statements does not depend on how many members they are."""
    month = _named(programs.timeline(session, program_id), name, now)
    program = session.get_one(programs.Program, program_id)
    names = members.names(session, program_id, member_ids, month.ends_at)
    zone = programs.zone_at(session, program_id, month.begins_at)
    before, at = month.begins_at - _MOMENT, min(month.ends_at - _MOMENT, now)
    spans = ledger.spans(session, names, before, at, zone)
    return [
        Statement(
            program_name=program.name,
            member_id=member_id,
            member_name=member_name,
            month=month,
            zone=zone,
            at=at,
            provisional=month.provisional(now),
            opening=spans[member_id].opening,
            movements=[Movement(entry, entry["occurred_at"] < month.begins_at) for entry in spans[member_id].movements],
            closing=spans[member_id].closing,
            ladder=spans[member_id].ladder,
        )
        for member_id, member_name in names.items()
    ]


def recipients(
    session: Session, program_id: UUID, name: str, now: datetime, after: UUID | None, limit: int
) -> Sequence[UUID]:
    """The members who have a statement of the month, by id, from the one after `after`; at most `limit`. NotFound for
    one to come, and for one that was over before there was the programme."""
    month = _named(programs.timeline(session, program_id), name, now)
    if month.ends_at <= session.get_one(programs.Program, program_id).created_at:
        raise NotFound
    return members.joined(session, program_id, month.ends_at, after, limit)
