"""Hold, capture, release, many at a time: load, decide, write.

The accounts are claimed first, and whether a hold is still open is read after that: so of those who end a hold at the
same moment one does, and the others learn that it has ended. The hold is the document of all its entries.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from app import db, ledger, members, outbox, programs
from app.errors import NotFound, Problem, or_problem
from app.holds import queries, rules
from app.holds.models import HoldRequest
from app.holds.rules import HoldState
from app.holds.schemas import HoldIn
from app.ids import new_id
from app.ledger import Account, Act
from app.members import GATES, MemberMayNotSpend
from app.programs import Terms


@dataclass(frozen=True, slots=True)
class Standing:
    """A hold, and its member's account, at one instant."""

    hold: HoldState
    account: Account


Outcome = Standing | Problem


@dataclass(frozen=True, slots=True)
class Asked:
    """A hold that a client asks for."""

    client_id: UUID
    wanted: HoldIn


@dataclass(frozen=True, slots=True)
class Ending:
    """A hold to capture, `points` of it (None: all)."""

    hold_id: UUID
    points: int | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the decisions rest on; `accounts` follow them as they fall."""

    program_id: UUID
    now: datetime
    terms: Terms
    accounts: dict[UUID, Account]
    statuses: dict[UUID, str]

    def check_status(self, member_id: UUID) -> None:
        if not GATES[self.statuses[member_id]].spend:
            raise MemberMayNotSpend

    def standing(self, state: HoldState, account: Account) -> Standing:
        self.accounts[account.member_id] = account
        return Standing(state, account)


def hold(
    session: Session, program_id: UUID, asked: Sequence[Asked], now: datetime, *, dry_run: bool = False
) -> list[Outcome]:
    """Reserves points of members for a while.

    Each may be refused: HoldTooLong, IdentifierInvalid, UnknownMember, MemberMayNotSpend, InsufficientPoints. Raises
    NoTerms. A `dry_run` locks and writes nothing, here and below.
    """
    terms = programs.terms_at(session, program_id, now)
    bodies = [{"member": each.wanted.member} for each in asked]
    people = members.named_each(session, program_id, bodies, terms.enrolment.phone_region)
    needs = ledger.to_spend(
        (found[0], each.wanted.points)
        for each, found in zip(asked, people, strict=True)
        if not isinstance(found, Problem)
    )
    loaded = _load(session, program_id, needs.keys(), now, terms, dry_run, needs)
    outcomes = [or_problem(_hold, loaded, each.wanted, found) for each, found in zip(asked, people, strict=True)]
    if not dry_run:
        made = [(each, done.hold) for each, done in zip(asked, outcomes, strict=True) if isinstance(done, Standing)]
        with db.together(session):
            _write(session, loaded, outcomes, "hold.created")
            db.insert_rows(session, HoldRequest, [_request(each, state) for each, state in made])
    return outcomes


def _hold(loaded: _Loaded, wanted: HoldIn, found: Sequence[UUID] | Problem) -> Standing:
    ends_at = rules.ends_at(loaded.now, wanted.minutes, loaded.terms)
    if isinstance(found, Problem):
        raise found
    (member_id,) = found
    loaded.check_status(member_id)
    now = loaded.now
    made = HoldState(new_id(), member_id, wanted.points, 0, "open", wanted.reference, ends_at, None, now)
    act = Act(loaded.program_id, made.id, now, now, loaded.terms.zone)
    return loaded.standing(made, ledger.hold(loaded.accounts[member_id], made.id, made.points, ends_at, act))


def _request(asked: Asked, made: HoldState) -> dict[str, object]:
    return {
        "member_id": made.member_id,
        "hold_id": made.id,
        "client_id": asked.client_id,
        "reference": made.reference,
    }


def capture(
    session: Session, program_id: UUID, endings: Sequence[Ending], now: datetime, *, dry_run: bool = False
) -> list[Outcome]:
    """Spends points of holds and frees the rest of each.

    Each may be refused: NotFound, MemberMayNotSpend, HoldEnded, CaptureAboveHold. Raises NoTerms. It is a redemption:
    activity, where the terms say so.
    """
    return _end(session, program_id, endings, now, dry_run, _capture, "hold.captured")


def _capture(loaded: _Loaded, found: HoldState, ending: Ending) -> Standing:
    loaded.check_status(found.member_id)
    captured, now = ending.points or found.points, loaded.now
    lapses_at = programs.lapses_after(now, loaded.terms, "redemption")
    act = Act(loaded.program_id, found.id, now, now, loaded.terms.zone, lapses_at)
    account = ledger.capture(loaded.accounts[found.member_id], found.id, captured, act)
    return loaded.standing(replace(found, status="captured", captured=captured, ended_at=now), account)


def release(
    session: Session, program_id: UUID, hold_ids: Sequence[UUID], now: datetime, *, dry_run: bool = False
) -> list[Outcome]:
    """Frees the points of holds, whatever the members' status; what has expired meanwhile is gone.

    Each may be refused: NotFound, HoldEnded. Raises NoTerms.
    """
    return _end(session, program_id, [Ending(id_) for id_ in hold_ids], now, dry_run, _release, "hold.released")


def _release(loaded: _Loaded, found: HoldState, _ending: Ending) -> Standing:
    act = Act(loaded.program_id, found.id, loaded.now, loaded.now, loaded.terms.zone)
    account = ledger.release(loaded.accounts[found.member_id], found.id, act)
    return loaded.standing(replace(found, status="released", ended_at=loaded.now), account)


def _end(
    session: Session,
    program_id: UUID,
    endings: Sequence[Ending],
    now: datetime,
    dry_run: bool,
    decide: Callable[[_Loaded, HoldState, Ending], Standing],
    topic: str,
) -> list[Outcome]:
    found = queries.find_each(session, program_id, [ending.hold_id for ending in endings], now)
    terms = programs.terms_at(session, program_id, now)
    loaded = _load(session, program_id, {state.member_id for state in found.values()}, now, terms, dry_run)
    outcomes: list[Outcome] = [
        or_problem(decide, loaded, found[ending.hold_id], ending) if ending.hold_id in found else NotFound()
        for ending in endings
    ]
    if not dry_run:
        _write(session, loaded, outcomes, topic)
    return outcomes


def _load(
    session: Session,
    program_id: UUID,
    member_ids: Collection[UUID],
    now: datetime,
    terms: Terms,
    dry_run: bool,
    needs: Mapping[UUID, ledger.Need] | None = None,
) -> _Loaded:
    """With all lots of the members, or those they need."""
    get = programs.look if dry_run else programs.claim
    lots = member_ids if needs is None else ()
    accounts = get(session, program_id, member_ids, now, lots, needs) if member_ids else {}
    statuses = members.statuses(session, member_ids) if member_ids else {}
    return _Loaded(program_id, now, terms, accounts, statuses)


def _write(session: Session, loaded: _Loaded, outcomes: Sequence[Outcome], topic: str) -> None:
    done = [outcome for outcome in outcomes if isinstance(outcome, Standing)]
    changed = {standing.hold.member_id for standing in done}
    with db.together(session):
        ledger.write(session, [loaded.accounts[member_id] for member_id in sorted(changed)], loaded.now)
        outbox.put(session, [_event(loaded.program_id, topic, standing.hold) for standing in done], loaded.now)


def _event(program_id: UUID, topic: str, state: HoldState) -> outbox.Event:
    points = state.captured if state.status == "captured" else state.points
    return outbox.Event(program_id, topic, state.member_id, {"hold_id": str(state.id), "points": points})


# --- read -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A hold with the lots behind it."""

    standing: Standing
    lots: Sequence[ledger.HeldLot]


def read(session: Session, program_id: UUID, hold_id: UUID, now: datetime) -> Found:
    """One hold at `now`, its lots, and the member's balance then. NotFound."""
    found = queries.find(session, program_id, hold_id, now)
    account = programs.look(session, program_id, [found.member_id], now)[found.member_id]
    return Found(Standing(found, account), ledger.held_lots(session, found.member_id, hold_id))
