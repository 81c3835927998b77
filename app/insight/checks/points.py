"""Points: accounts, lots, entries, holds, transfers. Each is what the rows beneath it come to."""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import aliased

from app.insight.checks.parts import differing, off, within, zero
from app.ledger.models import CoverRow, Hold, HoldLot, Lot, LotReturnRow, LotUse, PointAccount, PointEntry
from app.ledger.rules import BALANCES
from app.transfers.models import Transfer


def accounts_are_sums_of_entries(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Each figure of an account is the sum of what its entries changed; `actual` counts the figures that are not."""
    sums = [func.sum(getattr(PointEntry, name)).label(name) for name in BALANCES]
    entries = select(PointEntry.member_id, *sums).group_by(PointEntry.member_id).subquery()
    wrong = [zero(entries.c[name]) != getattr(PointAccount, name) for name in BALANCES]
    return (
        off(PointAccount.member_id, wrong)
        .outerjoin(entries, entries.c.member_id == PointAccount.member_id)
        .where(within(PointAccount.program_id, program_id))
    )


def balance_is_sum_of_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What is available, held and pending is what the lots have left; `actual` counts the figures that are not."""
    free = case((Lot.pending, 0), else_=Lot.remaining - Lot.held)
    lots = select(
        Lot.member_id,
        func.sum(free).label("available"),
        func.sum(Lot.held).label("held"),
        func.sum(case((Lot.pending, Lot.remaining), else_=0)).label("pending"),
    ).group_by(Lot.member_id)
    sums = lots.subquery()
    wrong = [zero(sums.c[name]) != getattr(PointAccount, name) for name in ("available", "held", "pending")]
    return (
        off(PointAccount.member_id, wrong)
        .outerjoin(sums, sums.c.member_id == PointAccount.member_id)
        .where(within(PointAccount.program_id, program_id))
    )


def lots_are_what_uses_left(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What remains of a lot is what was granted less what entries took from it."""
    taken = select(LotUse.member_id, LotUse.lot_id, func.sum(LotUse.points).label("points"))
    uses = taken.group_by(LotUse.member_id, LotUse.lot_id).subquery()
    return (
        differing(Lot.id, Lot.granted - zero(uses.c.points), Lot.remaining)
        .outerjoin(uses, and_(uses.c.member_id == Lot.member_id, uses.c.lot_id == Lot.id))
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(within(PointAccount.program_id, program_id))
    )


def held_points_are_of_open_holds(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What is held of a lot is what open holds reserve of it."""
    reserved = (
        select(HoldLot.member_id, HoldLot.lot_id, func.sum(HoldLot.points).label("points"))
        .join(Hold, and_(Hold.member_id == HoldLot.member_id, Hold.id == HoldLot.hold_id))
        .where(Hold.status == "open")
        .group_by(HoldLot.member_id, HoldLot.lot_id)
        .subquery()
    )
    return (
        differing(Lot.id, zero(reserved.c.points), Lot.held)
        .outerjoin(reserved, and_(reserved.c.member_id == Lot.member_id, reserved.c.lot_id == Lot.id))
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(within(PointAccount.program_id, program_id))
    )


def moved_points_live_on(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Points that left a lot for another are in lots that name it as their source; between members too."""
    gone = (
        select(LotUse.lot_id, func.sum(LotUse.points).label("points"))
        .where(LotUse.effect == "moved")
        .group_by(LotUse.lot_id)
        .subquery()
    )
    arrived = aliased(Lot)
    there = select(arrived.source_lot_id.label("lot_id"), func.sum(arrived.granted).label("points"))
    found = there.where(arrived.source_lot_id.is_not(None)).group_by(arrived.source_lot_id).subquery()
    return (
        differing(Lot.id, zero(gone.c.points), zero(found.c.points))
        .outerjoin(gone, gone.c.lot_id == Lot.id)
        .outerjoin(found, found.c.lot_id == Lot.id)
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(within(PointAccount.program_id, program_id))
    )


def returns_are_within_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Returns never take back more of a lot than was granted, in points and in money."""
    names = ("points", "allocated", "expected", "of_used", "of_expired")
    sums = [func.sum(getattr(LotReturnRow, name)).label(name) for name in names]
    returned = select(LotReturnRow.member_id, LotReturnRow.lot_id, *sums)
    back = returned.group_by(LotReturnRow.member_id, LotReturnRow.lot_id).subquery()
    most = {"points": Lot.granted, "allocated": Lot.allocated, "expected": Lot.expected}
    wrong = [or_(back.c[name] < 0, back.c[name] > whole) for name, whole in most.items()]
    wrong += [or_(back.c[name] < 0, back.c[name] > back.c.points) for name in ("of_used", "of_expired")]
    return (
        off(Lot.id, wrong)
        .join(back, and_(back.c.member_id == Lot.member_id, back.c.lot_id == Lot.id))
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(within(PointAccount.program_id, program_id))
    )


def debt_is_owed_for_something(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """An account's debt is what stands in, without a lot, for points that returns could not take."""
    sums = select(CoverRow.member_id, func.sum(CoverRow.points).label("points")).where(
        CoverRow.by_lot_id.is_(None), CoverRow.forgiven.is_(False)
    )
    debts = sums.group_by(CoverRow.member_id).subquery()
    return (
        differing(PointAccount.member_id, zero(debts.c.points), PointAccount.debt)
        .outerjoin(debts, debts.c.member_id == PointAccount.member_id)
        .where(within(PointAccount.program_id, program_id))
    )


def lots_stand_in_once(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a lot stands in with, for points that returns could not take, is among what was used of it or returned."""
    covers = (
        select(CoverRow.member_id, CoverRow.by_lot_id, CoverRow.effect, func.sum(CoverRow.points).label("points"))
        .where(CoverRow.by_lot_id.is_not(None))
        .group_by(CoverRow.member_id, CoverRow.by_lot_id, CoverRow.effect)
        .subquery()
    )
    uses = (
        select(LotUse.member_id, LotUse.lot_id, LotUse.effect, func.sum(LotUse.points).label("points"))
        .where(LotUse.points > 0)  # forgiven points that come back count as returned less than once
        .group_by(LotUse.member_id, LotUse.lot_id, LotUse.effect)
        .subquery()
    )
    same = and_(uses.c.lot_id == covers.c.by_lot_id, uses.c.effect == covers.c.effect)
    return (
        off(covers.c.by_lot_id, [covers.c.points < 0, covers.c.points > zero(uses.c.points)])
        .outerjoin(uses, and_(uses.c.member_id == covers.c.member_id, same))
        .join(PointAccount, PointAccount.member_id == covers.c.member_id)
        .where(within(PointAccount.program_id, program_id))
    )


def entries_are_numbered_without_gaps(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """An account's entries are numbered 1 to its last entry."""
    grouped = select(
        PointEntry.member_id,
        case((func.count() == func.max(PointEntry.number), func.count()), else_=-1).label("numbered"),
    ).group_by(PointEntry.member_id)
    entries = grouped.subquery()
    return (
        differing(PointAccount.member_id, zero(entries.c.numbered), PointAccount.last_entry)
        .outerjoin(entries, entries.c.member_id == PointAccount.member_id)
        .where(within(PointAccount.program_id, program_id))
    )


def entries_carry_the_running_balance(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Each entry's balance is the sum of the entries up to it."""
    running = func.sum(PointEntry.points).over(partition_by=PointEntry.member_id, order_by=PointEntry.number)
    entries = (
        select(PointEntry.id, running.label("running"), PointEntry.balance_after)
        .join(PointAccount, PointAccount.member_id == PointEntry.member_id)
        .where(within(PointAccount.program_id, program_id))
        .subquery()
    )
    return differing(entries.c.id, entries.c.running, entries.c.balance_after)


def entries_move_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What an entry changed of available, held and pending points is what it granted less what it took from lots."""
    granted = (
        select(Lot.member_id, Lot.entry_id, func.sum(Lot.granted).label("points"))
        .group_by(Lot.member_id, Lot.entry_id)
        .subquery()
    )
    taken = (
        select(LotUse.member_id, LotUse.entry_id, func.sum(LotUse.points).label("points"))
        .group_by(LotUse.member_id, LotUse.entry_id)
        .subquery()
    )
    changed = PointEntry.available + PointEntry.held + PointEntry.pending
    return (
        differing(PointEntry.id, zero(granted.c.points) - zero(taken.c.points), changed)
        .outerjoin(granted, and_(granted.c.member_id == PointEntry.member_id, granted.c.entry_id == PointEntry.id))
        .outerjoin(taken, and_(taken.c.member_id == PointEntry.member_id, taken.c.entry_id == PointEntry.id))
        .join(PointAccount, PointAccount.member_id == PointEntry.member_id)
        .where(within(PointAccount.program_id, program_id))
    )


def next_due_is_known(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """An account looks again before anything happens by itself: a lot expires or becomes available, a hold ends.

    Sooner is no mistake: an activity moves the lapse of lots that are not loaded with it.
    """

    def part(model: Any, at: Any, where: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
        return select(model.member_id.label("member_id"), at.label("at")).where(where, at.is_not(None))

    free = Lot.remaining > Lot.held
    lapse = select(Lot.member_id.label("member_id"), PointAccount.lapses_at.label("at")).join(
        PointAccount, PointAccount.member_id == Lot.member_id
    )
    parts = union_all(
        part(Lot, Lot.expires_at, free),
        part(Lot, Lot.available_from, and_(free, Lot.pending)),
        part(Hold, Hold.ends_at, Hold.status == "open"),
        lapse.where(free, Lot.lapses, PointAccount.lapses_at.is_not(None)),
    ).subquery()
    first = select(parts.c.member_id, func.min(parts.c.at).label("at")).group_by(parts.c.member_id).subquery()
    return (
        differing(PointAccount.member_id, first.c.at, PointAccount.next_due_at)
        .join(first, first.c.member_id == PointAccount.member_id)
        .where(
            or_(PointAccount.next_due_at.is_(None), PointAccount.next_due_at > first.c.at),
            within(PointAccount.program_id, program_id),
        )
    )


def transfers_conserve_points(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a transfer took from one account it gave to another."""
    moved = (
        select(PointEntry.document_id, func.sum(PointEntry.points).label("points"))
        .join(PointAccount, PointAccount.member_id == PointEntry.member_id)
        .where(PointEntry.kind.in_(("transfer_out", "transfer_in")), within(PointAccount.program_id, program_id))
        .group_by(PointEntry.document_id)
        .subquery()
    )
    return differing(moved.c.document_id, literal(0), moved.c.points)


def transfers_moved_their_points(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a transfer says went from one member to the other is what their entries moved."""
    sides = union_all(
        select(
            Transfer.id,
            Transfer.program_id,
            Transfer.from_member_id.label("member_id"),
            (-Transfer.points).label("points"),
        ),
        select(Transfer.id, Transfer.program_id, Transfer.to_member_id, Transfer.points),
    ).subquery()
    moved = (
        select(PointEntry.document_id, PointEntry.member_id, func.sum(PointEntry.points).label("points"))
        .where(PointEntry.kind.in_(("transfer_out", "transfer_in")))
        .group_by(PointEntry.document_id, PointEntry.member_id)
        .subquery()
    )
    return (
        differing(sides.c.id, sides.c.points, zero(moved.c.points))
        .outerjoin(moved, and_(moved.c.document_id == sides.c.id, moved.c.member_id == sides.c.member_id))
        .where(within(sides.c.program_id, program_id))
    )
