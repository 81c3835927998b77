"""What was: accounts as of one instant, as known at another, from lots, entries and their uses alone.

An entry counts as of `as_of` if it happened by then, or was recorded by then (a till's clock may be ahead); it was
known at `known_at` if it and all before it were recorded by then, so that nothing is known without what it rests on.
What was due by `as_of` has happened, written down or not. Nothing is read that ever changes: the answer for a pair of
instants is the same for ever, as soon as the requests that were under way at `known_at` have ended.

The number of SQL statements does not depend on how many members are asked for. Sums stay in the database: what is read
of a member are the lots and holds that were open, however long their history.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    cast,
    exists,
    false,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.orm import Session, aliased

from app import db
from app.ledger.models import Hold, HoldLot, Lot, LotUse, PointAccount, PointEntry
from app.ledger.queries import OPEN_LOT
from app.ledger.rules import BALANCES, MOST_POINTS, Account, OpenHold, OpenLot, due, in_turn, pick, settle


@dataclass(frozen=True, slots=True)
class Past:
    """Which past is asked for: how it was as of one instant, as known at another."""

    as_of: datetime
    known_at: datetime


def as_of(session: Session, member_ids: Collection[UUID], past: Past, zone: tzinfo) -> dict[UUID, Account]:
    """The members' accounts of a past, complete and settled. They are not there to be written.

    Their figures fit their lots and are never negative. Where a late upload spent points that were granted after
    `as_of`, they come off the lots there were, and what those lack is debt; debt that was paid before it was owed is
    not paid yet. Who has no account is left out.
    """
    rows = db.found(session, _figures, ids=list(member_ids), as_of=past.as_of, known_at=past.known_at)
    given = _given(session, past, [row[:2] for row in rows])
    holds = _holds(session, given)
    lots = _lots(session, given, holds)
    accounts = [_account(row, lots, holds) for row in rows]
    if lacking := [account for account in accounts if _lacks(account)]:
        given = _given(session, past, [(account.member_id, account.last_entry) for account in lacking])
        lots = _lots(session, given, holds, used_up=True)
        accounts = [account.but(lots=lots.get(account.member_id, account.lots)) for account in accounts]
    return {account.member_id: settle(due(_evened(account)), past.as_of, zone) for account in accounts}


def counted(member_id: UUID, past: Past) -> ColumnElement[bool]:
    """Which entries of a member count in a past. What was due is among them once written."""
    entry = aliased(PointEntry)
    unknown = select(func.min(entry.number)).where(entry.member_id == member_id, entry.recorded_at > past.known_at)
    known = PointEntry.number < func.coalesce(unknown.scalar_subquery(), MOST_POINTS)
    return and_(PointEntry.member_id == member_id, known, _happened(PointEntry, past.as_of))


# --- which entries, and what they come to ---------------------------------------------------------------------------


def _figures(engine: str) -> Select[*tuple[Any, ...]]:
    """Of each member: the number of the last known entry, the programme, the balances, and when the account lapses."""
    columns = PointEntry.__table__.c
    names = ("member_id", "number", *BALANCES, "lapses_at", "occurred_at", "recorded_at")
    unknown = func.min(columns.number).filter(columns.recorded_at > instant("known_at"))
    entry = (
        select(*(columns[name] for name in names), unknown.over(partition_by=columns.member_id).label("unknown"))
        .where(db.one_of(engine, columns.member_id, "ids"))
        .subquery()
    )
    counts = _happened(entry.c, instant("as_of"))
    sums = (
        select(
            entry.c.member_id,
            func.max(entry.c.number).label("last"),
            *(whole(func.sum(entry.c[name]).filter(counts)).label(name) for name in BALANCES),
            func.max(entry.c.lapses_at).filter(counts).label("lapses_at"),
        )
        .where(or_(entry.c.unknown.is_(None), entry.c.number < entry.c.unknown))
        .group_by(entry.c.member_id)
        .subquery()
    )
    account = PointAccount.member_id.expression
    figures = (func.coalesce(sums.c[name], 0) for name in BALANCES)
    return (
        select(account, func.coalesce(sums.c.last, 0), PointAccount.program_id, *figures, sums.c.lapses_at)
        .outerjoin(sums, sums.c.member_id == account)
        .where(db.one_of(engine, account, "ids"))
    )


def whole(total: ColumnElement[Any]) -> ColumnElement[int]:
    """A sum as the 64-bit number it is; PostgreSQL's are decimals."""
    return cast(func.coalesce(total, 0), BigInteger)


def instant(name: str) -> ColumnElement[datetime]:
    """The parameter `name` of a statement for `db.found`."""
    return bindparam(name, type_=PointEntry.recorded_at.type)


def _happened(entry: Any, at: Any) -> ColumnElement[bool]:
    return or_(entry.occurred_at <= at, entry.recorded_at <= at)


_ASKED = (("member_id", PointEntry.member_id.type), ("last", PointEntry.number.type))
"""Members that are asked for, each with the number of the last entry that was known."""


def _given(session: Session, past: Past, asked: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """The parameters of the statements below. The ids come twice: an index is looked up by a list, not by a join."""
    return db.rows_of(session, _ASKED, asked) | {"ids": [member_id for member_id, _ in asked], "as_of": past.as_of}


def _counts(entry: Any, asked: FromClause) -> ColumnElement[bool]:
    """Whether an entry, of a member who is asked for, counts."""
    return and_(entry.number <= asked.c.last, _happened(entry, instant("as_of")))


# --- lots and holds as those left them ------------------------------------------------------------------------------

Holds = Mapping[UUID, Mapping[UUID, OpenHold]]
Lots = Mapping[UUID, Mapping[UUID, OpenLot]]
"""Of each member, by id."""


def _holds(session: Session, given: Mapping[str, Any]) -> Holds:
    """The holds that had begun and not ended."""
    found: dict[UUID, dict[UUID, OpenHold]] = defaultdict(dict)
    for member_id, id_, points, ends_at, lot_id, reserved in db.found(session, _holds_of, **given):
        hold = found[member_id].get(id_, OpenHold(id_, points, ends_at, ()))
        found[member_id][id_] = replace(hold, parts=(*hold.parts, (lot_id, reserved)))
    return found


def _holds_of(engine: str) -> Select[*tuple[Any, ...]]:
    """A row per hold and lot. The entries that end a hold name it as their document."""
    asked, ending = db.given(engine, _ASKED), aliased(PointEntry)
    ends = and_(
        ending.member_id == Hold.member_id,
        ending.document_id == Hold.id,
        or_(ending.kind == "capture", ending.kind == "release"),  # a list would be one parameter more for each
    )
    return (
        select(Hold.member_id, Hold.id, Hold.points, Hold.ends_at, HoldLot.lot_id, HoldLot.points)
        .join(asked, Hold.member_id == asked.c.member_id)
        .join(HoldLot, and_(HoldLot.member_id == Hold.member_id, HoldLot.hold_id == Hold.id))
        .join(PointEntry, and_(PointEntry.member_id == Hold.member_id, PointEntry.id == Hold.entry_id))
        .where(db.one_of(engine, Hold.member_id.expression, "ids"), _counts(PointEntry, asked))
        .where(~exists(select(ending.id).where(ends, _counts(ending, asked)).correlate(asked, Hold)))
        .order_by(Hold.id, HoldLot.lot_id)
    )


def _lots(session: Session, given: Mapping[str, Any], holds: Holds, *, used_up: bool = False) -> Lots:
    """The lots that had been granted and had points left, or with those that are `used_up`. Held points are there,
    whatever came later."""
    held: dict[UUID, int] = defaultdict(int)
    for hold in (hold for theirs in holds.values() for hold in theirs.values()):
        for lot_id, points in hold.parts:
            held[lot_id] += points
    reserved = {} if used_up else {"held": sorted(held)}
    found: dict[UUID, dict[UUID, OpenLot]] = defaultdict(dict)
    for member_id, id_, remaining, pending, *facts in db.found(session, _lots_of, used_up, **given, **reserved):
        part = held.get(id_, 0)
        found[member_id][id_] = OpenLot(id_, max(remaining, part), part, pending, *facts)
    return found


def _lots_of(engine: str, used_up: bool) -> Select[*tuple[Any, ...]]:
    """A row per lot: what remained, whether it was pending, and what never changes of an `OpenLot`."""
    asked = db.given(engine, _ASKED)
    used = _used(engine, asked)
    remaining = Lot.granted - func.coalesce(used.c.points, 0)
    rows = (
        select(Lot.member_id, Lot.id, remaining, _pending(asked), *OPEN_LOT[4:])
        .join(asked, Lot.member_id == asked.c.member_id)
        .join(PointEntry, and_(PointEntry.member_id == Lot.member_id, PointEntry.id == Lot.entry_id))
        .outerjoin(used, and_(used.c.member_id == Lot.member_id, used.c.lot_id == Lot.id))
        .where(db.one_of(engine, Lot.member_id.expression, "ids"), _counts(PointEntry, asked))
        .order_by(Lot.id)
    )
    return rows if used_up else rows.where(or_(remaining != 0, db.one_of(engine, Lot.id.expression, "held")))


def _used(engine: str, asked: FromClause) -> FromClause:
    """How many points of each lot had been taken."""
    return (
        select(LotUse.member_id, LotUse.lot_id, whole(func.sum(LotUse.points)).label("points"))
        .join(asked, LotUse.member_id == asked.c.member_id)
        .join(PointEntry, and_(PointEntry.member_id == LotUse.member_id, PointEntry.id == LotUse.entry_id))
        .where(db.one_of(engine, LotUse.member_id.expression, "ids"), _counts(PointEntry, asked))
        .group_by(LotUse.member_id, LotUse.lot_id)
        .subquery()
    )


def _pending(asked: FromClause) -> ColumnElement[bool]:
    """Whether a lot that `PointEntry` granted was pending. What an event activates goes on in another lot."""
    later = aliased(PointEntry)
    activation = and_(
        later.member_id == Lot.member_id,
        later.number > PointEntry.number,
        later.kind == "activation",
        later.occurred_at >= Lot.available_from,
        _counts(later, asked),
    )
    return case(
        (Lot.available_from.is_(None), true()),
        (Lot.available_from <= Lot.recorded_at, false()),
        else_=~exists(select(later.id).where(activation).correlate(asked, Lot, PointEntry)),
    )


# --- accounts -------------------------------------------------------------------------------------------------------


def _account(row: Sequence[Any], lots: Lots, holds: Holds) -> Account:
    member_id, last, program_id, *sums, lapses_at = row
    figures: dict[str, Any] = dict(zip(BALANCES, sums, strict=True))
    return Account(
        member_id,
        program_id,
        **figures,
        last_entry=last,
        lapses_at=lapses_at,
        lots=lots.get(member_id, {}),
        holds=holds.get(member_id, {}),
    )


def _lacks(account: Account) -> bool:
    """Whether the lots have fewer points than the balance."""
    return sum(lot.remaining for lot in account.lots.values()) < account.balance


def _evened(account: Account) -> Account:
    """The account with lots and figures that fit each other; its balance stays."""
    kept = {id_: lot for id_, lot in _evened_lots(account).items() if lot.remaining}
    held = sum(lot.held for lot in kept.values())
    pending = sum(lot.remaining for lot in kept.values() if lot.pending)
    debt = max(0, sum(lot.remaining for lot in kept.values()) - account.balance)
    return account.but(
        available=account.balance + debt - held - pending,
        held=held,
        pending=pending,
        debt=debt,
        qualifying=max(0, account.qualifying),
        lifetime=max(0, account.lifetime),
        lots=kept,
    )


def _evened_lots(account: Account) -> Mapping[UUID, OpenLot]:
    """The account's lots, less what they have beyond balance and debt, or with what they lack."""
    debt = sum(lot.remaining for lot in account.lots.values()) - account.balance
    surplus, lacking = max(0, debt - max(0, account.debt)), max(0, -debt)
    if not (surplus or lacking):
        return account.lots
    open_ = [lot for lot in in_turn(account, account.lots.values()) if not lot.pending]
    changed = {use.lot.id: -use.points for use in pick(open_, surplus, "used")}
    for lot in reversed(open_):
        part = min(lacking, max(0, lot.granted - lot.remaining))
        if part:
            changed[lot.id] = part
            lacking -= part
    return {id_: replace(lot, remaining=lot.remaining + changed.get(id_, 0)) for id_, lot in account.lots.items()}
