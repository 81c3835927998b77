"""Events that pending points wait for: `shipped`, a stay completed; or that nothing came of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import ledger, outbox, programs
from app.errors import Problem, finding, or_problem
from app.ledger import Account, Act
from app.programs import PendingEvent, Terms, Timeline
from app.transactions.returns import Fields, claims_of
from app.transactions.rules import tier_of
from app.transactions.service import purchases, shown

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
class Reported:
    """What has happened to a purchase, by somebody who sees these `stores` (None: all)."""

    transaction_id: UUID
    event: str
    stores: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Happened:
    """Points that an event made available or cancelled, when it first came, and the account now. `new`: what happened
    just now, for the outbox."""

    available: int
    cancelled: int
    account: Account
    new: outbox.Event | None = None

    @property
    def duplicate(self) -> bool:
        return self.new is None


@dataclass(frozen=True, slots=True)
class _Meant:
    """The purchase that something has happened to, what granted its points (the purchase or its claim), to whom, and
    in which tier."""

    row: Fields
    terms: Terms
    event: str
    document_id: UUID
    member_id: UUID
    tier: str | None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the decisions of a batch rest on; `accounts` follow them as they fall."""

    now: datetime
    accounts: dict[UUID, Account]


def happen(
    session: Session, program_id: UUID, reported: Sequence[Reported], now: datetime, *, dry_run: bool = False
) -> list[Happened | Problem]:
    """Activates the points of purchases that wait for an event, or cancels them if that is `CANCELLED`.

    They expire when they would have if they had been available from the purchase on: waiting gives no longer life. The
    same event again changes nothing. Each may be refused: NotFound, EventUnknown, PurchaseUnclaimed, PointsCancelled,
    PointsActivated. A `dry_run` locks and writes nothing.
    """
    rows = purchases(session, program_id, [each.transaction_id for each in reported])
    timeline = programs.timeline(session, program_id)
    claims = claims_of(session, rows.values())
    meant = [or_problem(_meant, rows, timeline, claims, each) for each in reported]
    member_ids = {each.member_id for each in meant if not isinstance(each, Problem)}
    get = programs.look if dry_run else programs.claim
    loaded = _Loaded(now, get(session, program_id, member_ids, now, member_ids))
    outcomes = [each if isinstance(each, Problem) else or_problem(_happen, loaded, each, session) for each in meant]
    if not dry_run:
        done = [each for each in outcomes if isinstance(each, Happened) and not each.duplicate]
        changed = sorted({each.account.member_id for each in done})
        ledger.write(session, [loaded.accounts[member_id] for member_id in changed], now)
        outbox.put(session, [each.new for each in done if each.new is not None], now)
    return outcomes


def _meant(rows: Mapping[UUID, Fields], timeline: Timeline, claims: Mapping[UUID, Any], reported: Reported) -> _Meant:
    row = shown(rows, reported.transaction_id, reported.stores)
    terms = next(version.terms for version in timeline.versions if version.id == row["terms_id"])
    if not isinstance(terms.pending, PendingEvent) or reported.event not in (terms.pending.event, CANCELLED):
        raise EventUnknown(findings=[finding(("event",), "event_unknown", "not what the purchase's terms wait for")])
    if row["member_id"] is not None:
        return _Meant(row, terms, reported.event, row["id"], row["member_id"], tier_of(row["facts"]))
    claim = claims.get(row["id"])
    if claim is None:
        raise PurchaseUnclaimed
    return _Meant(row, terms, reported.event, claim.id, claim.member_id, tier_of(claim.facts))


def _happen(loaded: _Loaded, meant: _Meant, session: Session) -> Happened:
    account, now = loaded.accounts[meant.member_id], loaded.now
    waiting = sum(lot.free for lot in ledger.awaiting(account, meant.document_id))
    if not waiting:
        return _again(session, account, meant)
    program_id, cancels = meant.row["program_id"], meant.event == CANCELLED
    act = Act(program_id, meant.document_id, now, now, meant.terms.zone)
    account = ledger.cancel(account, meant.document_id, act) if cancels else _activated(account, meant, act)
    loaded.accounts[meant.member_id] = account
    payload = {"transaction_id": str(meant.row["id"]), "points": waiting}
    topic = "points.cancelled" if cancels else "points.activated"
    new = outbox.Event(program_id, topic, meant.member_id, payload)
    return Happened(0 if cancels else waiting, waiting if cancels else 0, account, new)


def _activated(account: Account, meant: _Meant, act: Act) -> Account:
    until = programs.expires_at(meant.row["occurred_at"], meant.terms, meant.tier)
    return ledger.activate(account, [act.document_id], act, until, lapses=programs.lapses(meant.terms))


def _again(session: Session, account: Account, meant: _Meant) -> Happened:
    """What has become of points that wait no more: the answer of the first time, or why it is too late. That is read
    for each by itself: few come twice."""
    past = ledger.ended_waiting(session, account, meant.document_id)
    just_now = [
        entry["available"]
        for entry in account.rows.entries
        if (entry["kind"], entry["document_id"]) == ("activation", meant.document_id)
    ]
    activated = past.activated + sum(just_now)
    if meant.event == CANCELLED and activated:
        raise PointsActivated
    if meant.event != CANCELLED and past.cancelled and not activated:
        raise PointsCancelled
    return Happened(activated, past.cancelled if meant.event == CANCELLED else 0, account)
