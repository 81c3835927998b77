"""What was: accounts as of one instant, as known at another, from lots, entries and their uses alone.

An entry counts as of `at` if it happened by then, or was recorded by then (a till's clock may be ahead); it was known
at `known_at` if it and all before it were recorded by then, so that nothing is known without what it rests on. What was
due by `at` has happened, written down or not. Nothing is read that ever changes: the answer for a pair of instants is
the same for ever, as soon as the requests that were under way at `known_at` have ended.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session, aliased

from app.ledger.models import Hold, HoldLot, Lot, LotUse, PointAccount, PointEntry
from app.ledger.queries import OPEN_LOT
from app.ledger.rules import BALANCES, Account, OpenHold, OpenLot, due, in_turn, pick, settle


def as_of(session: Session, member_id: UUID, at: datetime, known_at: datetime, zone: tzinfo) -> Account:
    """A member's account as of `at`, as known at `known_at`, complete and settled. It is not there to be written.

    Its figures fit its lots and are never negative. Where a late upload spent points that were granted after `at`, they
    come off the lots there were, and what those lack is debt; debt that was paid before it was owed is not paid yet.
    """
    last = _last_known(session, member_id, known_at)
    chosen = _among(PointEntry, member_id, last, at)
    sums = [func.coalesce(func.sum(getattr(PointEntry, name)), 0) for name in BALANCES]
    *figures, lapses_at = session.execute(select(*sums, func.max(PointEntry.lapses_at)).where(chosen)).one()
    holds = _holds(session, member_id, last, at)
    lots = _lots(session, chosen, holds.values())
    program_id = session.scalars(select(PointAccount.program_id).where(PointAccount.member_id == member_id)).one()
    known: dict[str, Any] = {name: int(figure) for name, figure in zip(BALANCES, figures, strict=True)}
    account = Account(
        member_id,
        program_id,
        **known,
        last_entry=last,
        lapses_at=lapses_at,
        lots=lots,
        holds=holds,
    )
    return settle(due(_evened(account)), at, zone)


def counted(session: Session, member_id: UUID, at: datetime, known_at: datetime) -> ColumnElement[bool]:
    """Which entries of a member count as of `at`, as known at `known_at`. What was due is among them once written."""
    return _among(PointEntry, member_id, _last_known(session, member_id, known_at), at)


def movements(session: Session, opening: Account, closing: Account) -> list[Mapping[str, Any]]:
    """The entries, by column, that lead from one account of `as_of` to a later one of the same member.

    Both are as known at their own instants. What was due by then and is not written down is among them: it is the same
    whenever that is done, and has the same number.
    """
    written = closing.last_entry - len(closing.rows.entries)
    rows = select(*PointEntry.__table__.c).where(
        PointEntry.member_id == closing.member_id,
        PointEntry.number > opening.last_entry,
        PointEntry.number <= written,
    )
    found: list[Mapping[str, Any]] = [dict(row) for row in session.execute(rows.order_by(PointEntry.number)).mappings()]
    return found + [entry for entry in closing.rows.entries if entry["number"] > opening.last_entry]


# --- which entries --------------------------------------------------------------------------------------------------


def _last_known(session: Session, member_id: UUID, known_at: datetime) -> int:
    """The number of the last entry before the first that was recorded after `known_at`."""
    unknown = func.min(case((PointEntry.recorded_at > known_at, PointEntry.number)))
    first, last = session.execute(
        select(unknown, func.max(PointEntry.number)).where(PointEntry.member_id == member_id)
    ).one()
    return int(last or 0) if first is None else int(first) - 1


def _among(entry: Any, member_id: UUID, last: int, at: datetime) -> ColumnElement[bool]:
    happened = (entry.occurred_at <= at) | (entry.recorded_at <= at)
    return and_(entry.member_id == member_id, entry.number <= last, happened)


# --- lots and holds as those left them ------------------------------------------------------------------------------


def _holds(session: Session, member_id: UUID, last: int, at: datetime) -> dict[UUID, OpenHold]:
    """The holds that had begun and not ended. The entries that end a hold name it as their document."""
    ending = aliased(PointEntry)
    ended = (
        select(ending.id)
        .where(_among(ending, member_id, last, at), ending.document_id == Hold.id)
        .where(ending.kind.in_(("capture", "release")))
    )
    rows = session.execute(
        select(Hold.id, Hold.points, Hold.ends_at, HoldLot.lot_id, HoldLot.points)
        .join(HoldLot, (HoldLot.member_id == Hold.member_id) & (HoldLot.hold_id == Hold.id))
        .join(PointEntry, (PointEntry.member_id == Hold.member_id) & (PointEntry.id == Hold.entry_id))
        .where(_among(PointEntry, member_id, last, at), ~ended.exists())
        .order_by(Hold.id, HoldLot.lot_id)
    )
    holds: dict[UUID, OpenHold] = {}
    for id_, points, ends_at, lot_id, reserved in rows:
        hold = holds.get(id_, OpenHold(id_, points, ends_at, ()))
        holds[id_] = replace(hold, parts=(*hold.parts, (lot_id, reserved)))
    return holds


def _lots(session: Session, chosen: ColumnElement[bool], holds: Iterable[OpenHold]) -> dict[UUID, OpenLot]:
    """The lots that had been granted, used-up ones too. Held points are there, whatever came later."""
    held: dict[UUID, int] = defaultdict(int)
    for hold in holds:
        for lot_id, points in hold.parts:
            held[lot_id] += points
    by_entry = (LotUse.member_id == PointEntry.member_id) & (LotUse.entry_id == PointEntry.id)
    uses = select(LotUse.lot_id, func.sum(LotUse.points)).join(PointEntry, by_entry).where(chosen)
    used = {lot_id: int(points) for lot_id, points in session.execute(uses.group_by(LotUse.lot_id))}
    activating = select(PointEntry.number, PointEntry.occurred_at).where(chosen, PointEntry.kind == "activation")
    activations = [(number, at) for number, at in session.execute(activating)]
    granting = (PointEntry.member_id == Lot.member_id) & (PointEntry.id == Lot.entry_id)
    rows = select(*OPEN_LOT, Lot.recorded_at, PointEntry.number).join(PointEntry, granting)
    found = {}
    for *columns, recorded_at, number in session.execute(rows.where(chosen).order_by(Lot.id)):
        lot = OpenLot(*columns)
        found[lot.id] = replace(
            lot,
            remaining=max(lot.granted - used.get(lot.id, 0), held[lot.id]),
            held=held[lot.id],
            pending=_pending(lot.available_from, recorded_at, number, activations),
        )
    return found


def _pending(
    available_from: datetime | None, recorded_at: datetime, number: int, activations: Sequence[tuple[int, datetime]]
) -> bool:
    """Whether a lot granted by the entry `number` is pending still. What an event activates goes on in another lot."""
    if available_from is None:
        return True
    if available_from <= recorded_at:
        return False
    return not any(later > number and at >= available_from for later, at in activations)


def _evened(account: Account) -> Account:
    """The account with lots and figures that fit each other; its balance stays."""
    balance = account.balance
    debt = sum(lot.remaining for lot in account.lots.values()) - balance
    open_ = [lot for lot in in_turn(account, account.lots.values()) if not lot.pending]
    surplus = max(0, debt - max(0, account.debt))
    changed = {use.lot.id: -use.points for use in pick(open_, surplus, "used")}
    lacking = max(0, -debt)
    for lot in reversed(open_):
        part = min(lacking, max(0, lot.granted - lot.remaining))
        if part:
            changed[lot.id] = part
            lacking -= part
    evened = {lot.id: replace(lot, remaining=lot.remaining + changed.get(lot.id, 0)) for lot in account.lots.values()}
    kept = {id_: lot for id_, lot in evened.items() if lot.remaining}
    held = sum(lot.held for lot in kept.values())
    pending = sum(lot.remaining for lot in kept.values() if lot.pending)
    debt = max(0, sum(lot.remaining for lot in kept.values()) - balance)
    return account.but(
        available=balance + debt - held - pending,
        held=held,
        pending=pending,
        debt=debt,
        qualifying=max(0, account.qualifying),
        lifetime=max(0, account.lifetime),
        lots=kept,
    )
