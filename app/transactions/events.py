"""Events that pending points wait for: `shipped`, a stay completed; or that nothing came of it."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ledger, outbox, programs
from app.errors import NotFound, Problem, finding
from app.ledger import Account, Act
from app.programs import PendingEvent, Terms
from app.transactions.models import Transaction, TransactionClaim
from app.transactions.returns import Fields

CANCELLED = "cancelled"
"""The event that takes pending points away. Terms may not mean anything else by it."""


class EventUnknown(Problem):
    """The points wait for the event that the purchase's terms name (`pending.event`), or for `cancelled`."""

    status, code, title, final = 422, "event_unknown", "No points wait for this event", True


class PointsCancelled(Problem):
    """The points were cancelled: the event came too late by the terms, or after `cancelled`. Staff can adjust."""

    status, code, title, final = 409, "points_cancelled", "The points were cancelled", True


class PointsActivated(Problem):
    """The points are available: the event has come. Post a return or a void of the purchase to take them back."""

    status, code, title, final = 409, "points_activated", "The points are available already", True


class PurchaseUnclaimed(Problem):
    """A guest's purchase has no points yet. Post the event again once the purchase has been claimed."""

    status, code, title, final = 409, "purchase_unclaimed", "Nobody has claimed the purchase", True


@dataclass(frozen=True, slots=True)
class Happened:
    """Points that an event made available or cancelled, when it first came, and the account now."""

    available: int
    cancelled: int
    duplicate: bool
    account: Account


def happen(
    session: Session,
    program_id: UUID,
    transaction_id: UUID,
    event: str,
    now: datetime,
    *,
    stores: Collection[str] | None = None,
    dry_run: bool = False,
) -> Happened:
    """Activates the points of a purchase that wait for `event`, or cancels them if it is `CANCELLED`.

    They expire when they would have if they had been available from the purchase on: waiting gives no longer life.
    The same event again changes nothing. NotFound (also for a store that is not among `stores`), EventUnknown,
    PointsCancelled, PointsActivated, PurchaseUnclaimed.
    """
    row = _purchase(session, program_id, transaction_id, stores)
    timeline = programs.timeline(session, program_id)
    terms = next(version.terms for version in timeline.versions if version.id == row["terms_id"])
    if not isinstance(terms.pending, PendingEvent) or event not in (terms.pending.event, CANCELLED):
        raise EventUnknown(findings=[finding(("event",), "event_unknown", "not what the purchase's terms wait for")])
    document_id, member_id = _owner(session, row)
    zone = timeline.zone_at(now)
    claimed = (ledger.look if dry_run else ledger.claim)(session, [member_id], now, zone, [member_id])
    account = claimed[member_id]
    act = Act(program_id, document_id, now, now, terms.zone)
    waiting = sum(lot.free for lot in ledger.awaiting(account, document_id))
    if not waiting:
        happened = _again(session, account, document_id, event)
    elif event == CANCELLED:
        happened = Happened(0, waiting, False, ledger.cancel(account, document_id, act))
    else:
        happened = Happened(waiting, 0, False, _activated(account, row, terms, act))
    if waiting and not dry_run:
        ledger.write(session, [happened.account], now)
        payload = {"transaction_id": str(transaction_id), "points": waiting}
        topic = "points.cancelled" if event == CANCELLED else "points.activated"
        outbox.put(session, [outbox.Event(program_id, topic, member_id, payload)], now)
    return happened


def _activated(account: Account, row: Fields, terms: Terms, act: Act) -> Account:
    until = programs.expires_at(row["occurred_at"], terms)
    return ledger.activate(account, act.document_id, act, until, lapses=programs.lapses(terms))


def _again(session: Session, account: Account, document_id: UUID, event: str) -> Happened:
    """What has become of points that wait no more: the answer of the first time, or why it is too late."""
    past = ledger.ended_waiting(session, account, document_id)
    if event == CANCELLED and past.activated:
        raise PointsActivated
    if event != CANCELLED and past.cancelled and not past.activated:
        raise PointsCancelled
    return Happened(past.activated, past.cancelled if event == CANCELLED else 0, True, account)


def _purchase(session: Session, program_id: UUID, transaction_id: UUID, stores: Collection[str] | None) -> Fields:
    row = session.execute(select(*Transaction.__table__.c).where(Transaction.id == transaction_id)).mappings().first()
    if row is None or row["program_id"] != program_id or row["type"] != "purchase":
        raise NotFound
    if stores is not None and row["store"] not in stores:
        raise NotFound
    return row


def _owner(session: Session, row: Fields) -> tuple[UUID, UUID]:
    """What granted the points, the purchase or its claim, and to whom. PurchaseUnclaimed."""
    if row["member_id"] is not None:
        return row["id"], row["member_id"]
    claims = select(TransactionClaim).where(TransactionClaim.transaction_id == row["id"])
    claim = session.scalars(claims).one_or_none()
    if claim is None:
        raise PurchaseUnclaimed
    return claim.id, claim.member_id
