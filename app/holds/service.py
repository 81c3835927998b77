"""Hold, capture, release: load, decide, write.

The account is claimed first, and whether the hold is still open is read after that: so of those who end a hold at the
same moment one does, and the others learn that it has ended. The hold is the document of all its entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from app import db, ledger, members, outbox, programs
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


def hold(
    session: Session, program_id: UUID, client_id: UUID, wanted: HoldIn, now: datetime, *, dry_run: bool = False
) -> Standing:
    """Reserves points of a member for a while.

    NoTerms, HoldTooLong, IdentifierInvalid, UnknownMember, MemberMayNotSpend, InsufficientPoints. A `dry_run` locks and
    writes nothing, here and below.
    """
    terms = programs.terms_at(session, program_id, now)
    ends_at = rules.ends_at(now, wanted.minutes, terms)
    (member_id,) = members.named(session, program_id, {"member": wanted.member}, terms.enrolment.phone_region)
    account = _account(session, member_id, now, terms, dry_run)
    _check_status(session, member_id)
    made = HoldState(new_id(), member_id, wanted.points, 0, "open", wanted.reference, ends_at, None, now)
    act = Act(program_id, made.id, now, now, terms.zone)
    account = ledger.hold(account, made.id, made.points, ends_at, act)
    if not dry_run:
        ledger.write(session, [account], now)
        request = {
            "member_id": member_id,
            "hold_id": made.id,
            "client_id": client_id,
            "reference": made.reference,
        }
        db.insert_rows(session, HoldRequest, [request])
        _tell(session, program_id, "hold.created", made, made.points, now)
    return Standing(made, account)


def capture(
    session: Session, program_id: UUID, hold_id: UUID, points: int | None, now: datetime, *, dry_run: bool = False
) -> Standing:
    """Spends `points` of a hold (None: all) and frees the rest.

    NotFound, MemberMayNotSpend, HoldEnded, CaptureAboveHold. It is a redemption: activity, where the terms say so.
    """
    found = queries.find(session, program_id, hold_id, now)
    terms = programs.terms_at(session, program_id, now)
    account = _account(session, found.member_id, now, terms, dry_run)
    _check_status(session, found.member_id)
    captured = points or found.points
    lapses_at = programs.lapses_after(now, terms, "redemption")
    act = Act(program_id, hold_id, now, now, terms.zone, lapses_at)
    account = ledger.capture(account, hold_id, captured, act)
    if not dry_run:
        ledger.write(session, [account], now)
        _tell(session, program_id, "hold.captured", found, captured, now)
    return Standing(replace(found, status="captured", captured=captured, ended_at=now), account)


def release(session: Session, program_id: UUID, hold_id: UUID, now: datetime, *, dry_run: bool = False) -> Standing:
    """Frees the points of a hold, whatever the member's status; what has expired meanwhile is gone. NotFound,
    HoldEnded."""
    found = queries.find(session, program_id, hold_id, now)
    terms = programs.terms_at(session, program_id, now)
    account = _account(session, found.member_id, now, terms, dry_run)
    account = ledger.release(account, hold_id, Act(program_id, hold_id, now, now, terms.zone))
    if not dry_run:
        ledger.write(session, [account], now)
        _tell(session, program_id, "hold.released", found, found.points, now)
    return Standing(replace(found, status="released", ended_at=now), account)


def _account(session: Session, member_id: UUID, now: datetime, terms: Terms, dry_run: bool) -> Account:
    get = ledger.look if dry_run else ledger.claim
    return get(session, [member_id], now, terms.zone, [member_id])[member_id]


def _check_status(session: Session, member_id: UUID) -> None:
    if not GATES[members.statuses(session, [member_id])[member_id]].spend:
        raise MemberMayNotSpend


def _tell(session: Session, program_id: UUID, topic: str, made: HoldState, points: int, now: datetime) -> None:
    payload = {"hold_id": str(made.id), "points": points}
    outbox.put(session, [outbox.Event(program_id, topic, made.member_id, payload)], now)


# --- read -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A hold with the lots behind it."""

    standing: Standing
    lots: Sequence[ledger.HeldLot]


def read(session: Session, program_id: UUID, hold_id: UUID, now: datetime) -> Found:
    """One hold at `now`, its lots, and the member's balance then. NotFound."""
    found = queries.find(session, program_id, hold_id, now)
    zone = programs.zone_at(session, program_id, now)
    account = ledger.look(session, [found.member_id], now, zone)[found.member_id]
    return Found(Standing(found, account), ledger.held_lots(session, found.member_id, hold_id))
