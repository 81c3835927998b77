"""How points are spent, reserved and moved. Pure: an account in, the next account out.

Lots are used soonest-expiring first, then oldest.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from app.errors import Problem
from app.ids import new_id
from app.ledger.rules import (
    Account,
    Act,
    Effect,
    InsufficientPoints,
    Kind,
    OpenHold,
    OpenLot,
    Use,
    add_rows,
    due,
    end_hold,
    forfeit,
    grant,
    in_turn,
    move,
    pay_debt,
    pick,
    put,
    settle,
    take,
)


class HoldEnded(Problem):
    """The hold was captured or released, or its time was up."""

    status, code, title, final = 409, "hold_ended", "The hold has ended", True


class CaptureAboveHold(Problem):
    """A hold can be captured for at most the points it reserves."""

    status, code, title, final = 422, "capture_above_hold", "The hold reserves fewer points", True


def spendable(account: Account) -> list[OpenLot]:
    """The lots that can be spent, in the order in which they are."""
    return in_turn(account, [lot for lot in account.lots.values() if lot.free and not lot.pending])


def spend(
    account: Account,
    points: int,
    act: Act,
    kind: Kind = "redemption",
    effect: Effect = "used",
    *,
    as_agent: bool = False,
) -> Account:
    """The account after `points` (at least 1) are gone. InsufficientPoints when fewer are available.

    `as_agent`: they pay for a reward that a partner supplies and we only arrange.
    """
    uses = _paid(account, points, effect, as_agent=as_agent)
    account, entry_id = move(account, kind, act, available=-points)
    return take(account, entry_id, act, uses)


def _paid(account: Account, points: int, effect: Effect, *, as_agent: bool = False) -> list[Use]:
    if account.available < points:
        raise InsufficientPoints.by(points - account.available)
    uses = pick(spendable(account), points, effect, as_agent=as_agent)
    assert sum(use.points for use in uses) == points, "claimed without the lots"
    return uses


# --- holds ----------------------------------------------------------------------------------------------------------


def hold(account: Account, hold_id: UUID, points: int, ends_at: datetime | None, act: Act) -> Account:
    """The account with `points` reserved until `ends_at` (None: until somebody ends it). InsufficientPoints."""
    uses = _paid(account, points, "used")
    account, entry_id = move(account, "hold", act, available=-points, held=points)
    account = put(account, [replace(use.lot, held=use.lot.held + use.points) for use in uses])
    reserved = OpenHold(hold_id, points, ends_at, tuple((use.lot.id, use.points) for use in uses))
    row = {
        "member_id": account.member_id,
        "id": hold_id,
        "program_id": act.program_id,
        "entry_id": entry_id,
        "points": points,
        "ends_at": ends_at,
        "occurred_at": act.occurred_at,
        "recorded_at": act.recorded_at,
        "parts": reserved.parts,
    }
    return due(add_rows(account.but(holds={**account.holds, hold_id: reserved}), holds=(row,)))


def capture(account: Account, hold_id: UUID, points: int, act: Act, *, as_agent: bool = False) -> Account:
    """The account after the hold ended with `points` of it spent and the rest free. HoldEnded, CaptureAboveHold.

    Of the lots it reserves the soonest-expiring pay first, as they would without a hold.
    """
    held = _open(account, hold_id)
    if points > held.points:
        raise CaptureAboveHold(f"the hold reserves {held.points} points")
    account = end_hold(account, held, points, "captured", act, as_agent=as_agent)
    return settle(account, act.recorded_at, act.zone, since=act.occurred_at)


def release(account: Account, hold_id: UUID, act: Act) -> Account:
    """The account after the hold ended with nothing spent. HoldEnded. What has expired meanwhile expires now."""
    account = end_hold(account, _open(account, hold_id), 0, "released", act)
    return settle(account, act.recorded_at, act.zone, since=act.occurred_at)


def _open(account: Account, hold_id: UUID) -> OpenHold:
    if hold_id not in account.holds:
        raise HoldEnded
    return account.holds[hold_id]


# --- moves ----------------------------------------------------------------------------------------------------------


def transfer(giver: Account, receiver: Account, points: int, act: Act) -> tuple[Account, Account]:
    """Both accounts after `points` went from one to the other. InsufficientPoints.

    The receiver's lots keep expiry and cohort: what would lapse with the giver's inactivity is gone on that day at the
    receiver too, who may have been inactive for longer. They pay the receiver's debt first, if there is any.
    """
    uses = _paid(giver, points, "moved")
    giver, entry_id = move(giver, "transfer_out", act, available=-points)
    giver = take(giver, entry_id, act, uses)
    receiver, entry_id = move(receiver, "transfer_in", act, available=points)
    arrived = []
    for use in uses:
        expires_at = giver.expiry_of(use.lot)
        lot = moved(use.lot, use.points, document_id=act.document_id, expires_at=expires_at, lapses=False)
        receiver = grant(receiver, entry_id, act, lot, source_lot_id=use.lot.id)
        arrived.append(lot.id)
    return giver, pay_debt(receiver, act, arrived)


def extend(account: Account, lot_id: UUID, expires_at: datetime | None, act: Act) -> Account:
    """The account with the free points of a lot good until `expires_at` instead (None: for ever)."""
    account, entry_id = move(account, "extension", act)
    return _redated(account, entry_id, lot_id, expires_at, act, lapses=False)


def adopt(account: Account, lots: Mapping[UUID, datetime | None], act: Act) -> Account:
    """The account with the free points of some lots that never expired good until an instant each instead.

    None: until the account lapses.
    """
    account, entry_id = move(account, "extension", act)
    for lot_id, expires_at in lots.items():
        account = _redated(account, entry_id, lot_id, expires_at, act, lapses=expires_at is None)
    return account


def _redated(
    account: Account, entry_id: UUID, lot_id: UUID, expires_at: datetime | None, act: Act, *, lapses: bool
) -> Account:
    lot = account.lots[lot_id]
    return carry(account, entry_id, act, lot, moved(lot, lot.free, expires_at=expires_at, lapses=lapses))


def activate(
    account: Account, documents: Collection[UUID], act: Act, expires_at: datetime | None, *, lapses: bool
) -> Account:
    """The account with the points available that were pending until an event of any of `documents`.

    If they lapse and the member has been inactive for so long, they are gone at once.
    """
    waiting = awaiting(account, *documents)
    points = sum(lot.free for lot in waiting)
    account, entry_id = move(account, "activation", act, available=points, pending=-points)
    arrived = []
    for lot in waiting:
        since = act.occurred_at
        fresh = moved(lot, lot.free, pending=False, available_from=since, expires_at=expires_at, lapses=lapses)
        account = carry(account, entry_id, act, lot, fresh)
        arrived.append(fresh.id)
    return settle(pay_debt(account, act, arrived), act.recorded_at, act.zone, since=act.occurred_at)


def cancel(account: Account, document_id: UUID, act: Act) -> Account:
    """The account without the points that were pending until an event of `document_id`."""
    return forfeit(account, "cancellation", "pending", awaiting(account, document_id), act)


def awaiting(account: Account, *documents: UUID) -> Collection[OpenLot]:
    """The lots of some documents that are pending until an event."""
    return [
        lot
        for lot in account.lots.values()
        if lot.pending and lot.free and lot.available_from is None and lot.document_id in documents
    ]


def moved(lot: OpenLot, points: int, **changes: object) -> OpenLot:
    """A new lot that carries on `points` of another one."""
    return replace(lot, id=new_id(), granted=points, remaining=points, held=0, **changes)  # type: ignore[arg-type]  # fields by name


def carry(account: Account, entry_id: UUID, act: Act, lot: OpenLot, fresh: OpenLot) -> Account:
    """The account whose points of `lot` live on in `fresh` (`moved`)."""
    account = take(account, entry_id, act, [Use(lot, fresh.remaining, "moved")])
    return grant(account, entry_id, act, fresh, source_lot_id=lot.id)
