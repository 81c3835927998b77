"""Record what happened to members outside of purchases, and give what campaigns promise for it, many at a time: load,
decide, write.

An event is recorded once per (source, external id), for ever. Locked in this order: the members' accounts, the budgets
of campaigns.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import accounting, db, members, programs
from app.campaigns import rules, service
from app.campaigns.models import CampaignGrant, MemberEvent
from app.errors import Busy, Problem, finding, or_problem
from app.ids import new_id
from app.ledger import Account
from app.members import MemberRef
from app.programs import NoTerms, Timeline

Key = tuple[str, str]
"""The source of an event and its number there."""


class EventNotAwaited(Problem):
    """No campaign of the terms of then is for this event. Publish terms with one that is, or correct the name."""

    status, code, title, final = 422, "event_not_awaited", "No campaign is for this event", True


class EventConflict(Problem):
    """Another event of this source has this number; `errors` says what differs."""

    status, code, title, final = 409, "event_conflict", "The event's number belongs to another", True


@dataclass(frozen=True, slots=True)
class Report:
    """An event as somebody reports it."""

    source: str
    external_id: str
    event: str
    member: MemberRef
    occurred_at: datetime

    @property
    def key(self) -> Key:
        return self.source, self.external_id


@dataclass(frozen=True, slots=True)
class Reported:
    """An event as it was recorded, what was given for it (campaigns with points), and the member's account."""

    row: Mapping[str, Any]
    bonuses: Sequence[tuple[str, int]]
    account: Account
    duplicate: bool


def report(
    session: Session, program_id: UUID, reports: Sequence[Report], now: datetime, *, dry_run: bool = False
) -> list[Reported | Problem]:
    """Records events, and gives at once what campaigns of the terms of `occurred_at` promise for them.

    The same event again gets the first answer. Each may be refused: NoTerms, OccurredInFuture, OccurredTooLongAgo,
    EventNotAwaited, IdentifierInvalid, UnknownMember, EventConflict. A `dry_run` locks and writes nothing.
    """
    terms = programs.timeline(session, program_id)
    checked = [or_problem(_check, each, terms, now) for each in reports]
    region = _region(terms, now)
    named = members.named_each(session, program_id, [{"member": each.member} for each in reports], region)
    good: dict[Key, tuple[Report, UUID]] = {}
    for each, check, found in zip(reports, checked, named, strict=True):
        if not isinstance(check, Problem) and not isinstance(found, Problem):
            good.setdefault(each.key, (each, found[0]))
    rows: dict[Key, Mapping[str, Any]] = {
        key: _row(program_id, each, member_id, now) for key, (each, member_id) in sorted(good.items())
    }
    concerned = {row["member_id"] for row in rows.values()}
    accounts = (programs.look if dry_run else programs.claim)(session, program_id, concerned, now)
    kept = rows | _found(session, program_id, rows)
    new = [row for key, row in rows.items() if kept[key] is row]
    if not dry_run:
        _record(session, new)
    made = _give(session, program_id, terms, accounts, new, now, dry_run=dry_run)
    given = _given(session, kept.values(), made)

    def outcome(each: Report, check: Problem | None, found: Sequence[UUID] | Problem) -> Reported:
        if isinstance(check, Problem):
            raise check
        if isinstance(found, Problem):
            raise found
        row = kept[each.key]
        _check_same(each, found[0], row)
        duplicate = row is not rows[each.key] or good[each.key][0] is not each
        return Reported(row, given.get((row["member_id"], occasion(row)), ()), accounts[row["member_id"]], duplicate)

    return [or_problem(outcome, *each) for each in zip(reports, checked, named, strict=True)]


def occasion(row: Mapping[str, Any]) -> str:
    """By which grants name an event."""
    return f"{row['source']}/{row['external_id']}"


# --- load -----------------------------------------------------------------------------------------------------------


def _check(each: Report, terms: Timeline, now: datetime) -> None:
    version = terms.at(each.occurred_at)
    if version is None:
        raise NoTerms
    programs.check_time(each.occurred_at, version, now)
    if not rules.awaited(version, each.event):
        raise EventNotAwaited(findings=[finding(("event",), "event_not_awaited", "the terms of then have none for it")])


def _region(terms: Timeline, now: datetime) -> str | None:
    version = terms.at(now)
    return None if version is None else version.terms.enrolment.phone_region


def _row(program_id: UUID, each: Report, member_id: UUID, now: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "program_id": program_id,
        "source": each.source,
        "external_id": each.external_id,
        "event": each.event,
        "member_id": member_id,
        "occurred_at": each.occurred_at,
        "recorded_at": now,
    }


def _found(session: Session, program_id: UUID, keys: Iterable[Key]) -> dict[Key, Mapping[str, Any]]:
    wanted = sorted(keys)
    rows = db.found(session, _events, program_id=program_id, **db.texts(session, wanted)) if wanted else ()
    return {(row.source, row.external_id): row._asdict() for row in rows}


def _events(engine: str) -> Select[*tuple[Any, ...]]:
    ours = MemberEvent.program_id == bindparam("program_id", type_=MemberEvent.id.type)
    columns = (MemberEvent.source.expression, MemberEvent.external_id.expression)
    return select(*MemberEvent.__table__.c).where(ours, db.one_row_of(engine, columns))


def _record(session: Session, rows: Sequence[db.Row]) -> None:
    try:
        db.insert_rows(session, MemberEvent, rows)
    except IntegrityError as error:  # at the same moment another member's was recorded under the number
        raise Busy from error


# --- decide and write -----------------------------------------------------------------------------------------------


def _give(
    session: Session,
    program_id: UUID,
    terms: Timeline,
    accounts: dict[UUID, Account],
    rows: Sequence[Mapping[str, Any]],
    now: datetime,
    *,
    dry_run: bool,
) -> Sequence[Mapping[str, Any]]:
    """Gives what new events are worth; answers the grants."""
    people = {each.id: each for each in members.persons(session, {row["member_id"] for row in rows})} if rows else {}
    dues = [
        due
        for row in rows
        for due in rules.due_for(people[row["member_id"]], terms, row["event"], occasion(row), row["occurred_at"])
    ]
    dues = service.of_tiers(session, terms, dues, now)
    if not dues:
        return []
    codes = {each.window.campaign.code for each in dues}
    spent = (service.look_at_budgets if dry_run else service.claim_budgets)(session, program_id, codes)
    points = {code: row.points for code, row in spent.items()}
    bonuses = rules.decide(dues, service.before(session, {due.member_id for due in dues}), points)
    made = service.grant(program_id, terms, accounts, bonuses, spent, accounting.chart(session, program_id), now)
    if bonuses and not dry_run:
        service.write(session, accounts, made, now)
    return made.rows


def _given(
    session: Session, rows: Iterable[Mapping[str, Any]], made: Sequence[Mapping[str, Any]]
) -> dict[tuple[UUID, str], list[tuple[str, int]]]:
    """By member and occasion, what was given just now, and for events that had been recorded before."""
    keys = sorted(
        {(row["member_id"], occasion(row)) for row in rows} - {(row["member_id"], row["occasion"]) for row in made}
    )
    grants = (CampaignGrant.member_id, CampaignGrant.occasion, CampaignGrant.campaign, CampaignGrant.points)
    found: dict[tuple[UUID, str], list[tuple[str, int]]] = {}
    if keys:
        theirs = db.any_row_of(session, [CampaignGrant.member_id.expression, CampaignGrant.occasion.expression], keys)
        for member_id, key, campaign, points in session.execute(
            select(*grants).where(theirs).order_by(CampaignGrant.id)
        ):
            found.setdefault((member_id, key), []).append((campaign, points))
    for row in made:
        found.setdefault((row["member_id"], row["occasion"]), []).append((row["campaign"], row["points"]))
    return found


def _check_same(each: Report, member_id: UUID, row: Mapping[str, Any]) -> None:
    """EventConflict if an event of this number was another."""
    pairs = {"event": each.event, "member": member_id, "occurred_at": each.occurred_at}
    first = {"event": row["event"], "member": row["member_id"], "occurred_at": row["occurred_at"]}
    differing = [name for name, value in pairs.items() if first[name] != value]
    if differing:
        told = [finding((name,), "differs", "differs from what was recorded") for name in differing]
        raise EventConflict(findings=told)
