"""Statements of a month: what there was, what came and went, what is left, and when that expires.

A statement says what was known when its month ended: `closing` is the account as of the month's last instant (a
microsecond before the next begins), as known at that instant, and `opening` is the same of the month before. So the
closing of a month is the opening of the next, whatever is recorded later: that is a movement, marked `late`, of the
month it is recorded in. What was due by the end has happened in it, written down or not. A statement is final an hour
after its month, when no request of that month is under way any more; from then on it comes to the same figures for
ever.
"""

from collections.abc import Iterator, Mapping, Sequence
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
    month = _month(timeline, now.astimezone(timeline.zone_at(now)).date().replace(day=1))
    while month.ends_at > since:
        if month.begins_at <= now:  # a zone that moved at the turn of a month
            yield month
        month = _month(timeline, (month.first_day - timedelta(days=1)).replace(day=1))


def _month(timeline: Timeline, first_day: date) -> Month:
    following = (first_day + timedelta(days=31)).replace(day=1)
    return Month(first_day, programs.month_begins(first_day, timeline), programs.month_begins(following, timeline))


def statement(session: Session, program_id: UUID, member_id: UUID, name: str, now: datetime) -> Statement:
    """The statement of the month `name` (`2026-11`), provisional while that runs. NotFound if there is none."""
    found = [month for month in months(session, program_id, member_id, now) if month.name == name]
    if not found:
        raise NotFound
    month = found[0]
    zone = programs.zone_at(session, program_id, month.begins_at)
    before, at = month.begins_at - _MOMENT, min(month.ends_at - _MOMENT, now)
    opening = ledger.as_of(session, member_id, before, before, zone)
    closing = ledger.as_of(session, member_id, at, at, zone)
    program = session.get_one(programs.Program, program_id)
    return Statement(
        program_name=program.name,
        member_id=member_id,
        member_name=members.read(session, program_id, member_id).profile.name,
        month=month,
        zone=zone,
        at=at,
        provisional=month.provisional(now),
        opening=opening,
        movements=[
            Movement(entry, entry["occurred_at"] < month.begins_at)
            for entry in ledger.movements(session, opening, closing)
        ],
        closing=closing,
        ladder=ledger.expiry_ladder(closing),
    )
