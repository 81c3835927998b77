"""What was: accounts as of one instant, as known at another, from lots, entries and their uses alone.

An entry counts as of `as_of` if it happened by then, or was recorded by then (a till's clock may be ahead); it was
known at `known_at` if it and all before it were recorded by then, so that nothing is known without what it rests on.
What was due by `as_of` has happened, written down or not. Nothing is read that ever changes: the answer for a pair of
instants is the same for ever, as soon as the requests that were under way at `known_at` have ended.

The number of SQL statements depends neither on how many members are asked for nor on how many pasts of theirs. Sums
stay in the database: what is read of a member is what was open, however long their history.
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
    (accounts,) = as_of_each(session, member_ids, [past], zone)
    return accounts


def as_of_each(
    session: Session, member_ids: Collection[UUID], pasts: Sequence[Past], zone: tzinfo
) -> list[dict[UUID, Account]]:
    """What `as_of` answers, for each of some pasts, which are read together."""
    instants = {f"known_at_{which}": past.known_at for which, past in enumerate(pasts)} | _as_of(pasts)
    rows = db.found(session, _figures, len(pasts), ids=list(member_ids), **instants)
    asked = [(row[0], *(row[2 + _WIDTH * which] for which in range(len(pasts)))) for row in rows]
    holds = _holds(session, pasts, asked)
    lots = _lots(session, pasts, asked, holds)
    accounts = [[_account(row, which, lots[which], holds[which]) for row in rows] for which in range(len(pasts))]
    lacking = {account.member_id for theirs in accounts for account in theirs if _lacking(account)}
    if lacking:
        lots = _lots(session, pasts, [each for each in asked if each[0] in lacking], holds, used_up=True)
        accounts = [
            [account.but(lots=lots[which].get(account.member_id, account.lots)) for account in theirs]
            for which, theirs in enumerate(accounts)
        ]
    return [
        {account.member_id: settle(due(_evened(account)), past.as_of, zone) for account in theirs}
        for past, theirs in zip(pasts, accounts, strict=True)
    ]


def counted(member_id: UUID, past: Past) -> ColumnElement[bool]:
    """Which entries of a member count in a past. What was due is among them once written."""
    entry = aliased(PointEntry)
    unknown = select(func.min(entry.number)).where(entry.member_id == member_id, entry.recorded_at > past.known_at)
    known = PointEntry.number < func.coalesce(unknown.scalar_subquery(), MOST_POINTS)
    return and_(PointEntry.member_id == member_id, known, _happened(PointEntry, past.as_of))


def movements(
    session: Session, opening: Mapping[UUID, Account], closing: Mapping[UUID, Account]
) -> dict[UUID, list[Mapping[str, Any]]]:
    """The entries, by column, that lead from accounts of `as_of` to later ones of the same members.

    Both are as known at their own instants. What was due by then and is not written down is among them: it is the same
    whenever that is done, and has the same number.
    """
    spans = [(id_, opening[id_].last_entry, _written(account)) for id_, account in closing.items()]
    given = db.rows_of(session, _SPAN, [span for span in spans if span[1] < span[2]])
    found: dict[UUID, list[Mapping[str, Any]]] = {id_: [] for id_ in closing}
    for row in db.found(session, _entries, **given):
        found[row[0]].append(dict(zip(_ENTRY, row, strict=True)))
    for id_, account in closing.items():
        found[id_] += [entry for entry in account.rows.entries if entry["number"] > opening[id_].last_entry]
    return found


def _written(account: Account) -> int:
    """The number of the last entry that is written down."""
    return account.last_entry - len(account.rows.entries)


_SPAN = (("member_id", PointEntry.member_id.type), ("after", PointEntry.number.type), ("last", PointEntry.number.type))
_ENTRY = tuple(PointEntry.__table__.c.keys())


def _entries(engine: str) -> Select[*tuple[Any, ...]]:
    span, entry = db.given(engine, _SPAN), PointEntry.__table__.c
    within = and_(entry.member_id == span.c.member_id, entry.number > span.c.after, entry.number <= span.c.last)
    return select(*entry).join(span, within).order_by(entry.member_id, entry.number)


# --- which entries, and what they come to ---------------------------------------------------------------------------

_WIDTH = 2 + len(BALANCES)


def _figures(engine: str, pasts: int) -> Select[*tuple[Any, ...]]:
    """Of each member: the programme; then, of each past, the number of the last known entry, the balances, and when
    the account lapses."""
    each = range(pasts)
    unknown = [
        func.min(PointEntry.number)
        .filter(PointEntry.recorded_at > _instant(f"known_at_{which}"))
        .over(partition_by=PointEntry.member_id)
        .label(f"unknown_{which}")
        for which in each
    ]
    mine = db.one_of(engine, PointEntry.member_id.expression, "ids")
    entry = select(*PointEntry.__table__.c, *unknown).where(mine).subquery()
    columns: list[Any] = []
    for which in each:
        first = entry.c[f"unknown_{which}"]
        known = or_(first.is_(None), entry.c.number < first)
        counts = and_(known, _happened(entry.c, _instant(f"as_of_{which}")))
        columns.append(func.coalesce(func.max(entry.c.number).filter(known), 0))
        columns += [_whole(func.sum(entry.c[name]).filter(counts)) for name in BALANCES]
        columns.append(func.max(entry.c.lapses_at).filter(counts))
    account = PointAccount.member_id.expression
    return (
        select(account, PointAccount.program_id, *columns)
        .outerjoin(entry, entry.c.member_id == account)
        .where(db.one_of(engine, account, "ids"))
        .group_by(account)
    )


def _whole(total: ColumnElement[Any]) -> ColumnElement[int]:
    """A sum as the 64-bit number it is; PostgreSQL's are decimals."""
    return cast(func.coalesce(total, 0), BigInteger)


def _instant(name: str) -> ColumnElement[datetime]:
    return bindparam(name, type_=PointEntry.recorded_at.type)


def _happened(entry: Any, as_of: Any) -> ColumnElement[bool]:
    return or_(entry.occurred_at <= as_of, entry.recorded_at <= as_of)


def _asked(pasts: int) -> tuple[tuple[str, Any], ...]:
    """The columns of the members that are asked for: with the number of the last entry that is known in each past."""
    lasts = ((f"last_{which}", PointEntry.number.type) for which in range(pasts))
    return (("member_id", PointEntry.member_id.type), *lasts)


def _counts(entry: Any, asked: FromClause, which: int) -> ColumnElement[bool]:
    """Whether an entry, of a member who is asked for, counts in a past."""
    return and_(entry.number <= asked.c[f"last_{which}"], _happened(entry, _instant(f"as_of_{which}")))


def _as_of(pasts: Sequence[Past]) -> dict[str, datetime]:
    return {f"as_of_{which}": past.as_of for which, past in enumerate(pasts)}


# --- lots and holds as those left them ------------------------------------------------------------------------------

Asked = Sequence[tuple[Any, ...]]
Holds = list[dict[UUID, dict[UUID, OpenHold]]]
Lots = list[dict[UUID, dict[UUID, OpenLot]]]
"""Of each past, of each member, by id."""


def _holds(session: Session, pasts: Sequence[Past], asked: Asked) -> Holds:
    """The holds that had begun and not ended."""
    found: Holds = [defaultdict(dict) for _ in pasts]
    rows = db.found(session, _holds_of, len(pasts), **db.rows_of(session, _asked(len(pasts)), asked), **_as_of(pasts))
    for member_id, id_, points, ends_at, lot_id, reserved, *open_ in rows:
        for which in (which for which, is_open in enumerate(open_) if is_open):
            hold = found[which][member_id].get(id_, OpenHold(id_, points, ends_at, ()))
            found[which][member_id][id_] = replace(hold, parts=(*hold.parts, (lot_id, reserved)))
    return found


def _holds_of(engine: str, pasts: int) -> Select[*tuple[Any, ...]]:
    """A row per hold and lot. The entries that end a hold name it as their document."""
    asked, ending = db.given(engine, _asked(pasts)), aliased(PointEntry)
    ends = and_(
        ending.member_id == Hold.member_id,
        ending.document_id == Hold.id,
        or_(ending.kind == "capture", ending.kind == "release"),  # a list would be one parameter more for each
    )
    open_ = [
        and_(
            _counts(PointEntry, asked, which),
            ~exists(select(ending.id).where(ends, _counts(ending, asked, which)).correlate(asked, Hold)),
        )
        for which in range(pasts)
    ]
    return (
        select(Hold.member_id, Hold.id, Hold.points, Hold.ends_at, HoldLot.lot_id, HoldLot.points, *open_)
        .join(asked, Hold.member_id == asked.c.member_id)
        .join(HoldLot, and_(HoldLot.member_id == Hold.member_id, HoldLot.hold_id == Hold.id))
        .join(PointEntry, and_(PointEntry.member_id == Hold.member_id, PointEntry.id == Hold.entry_id))
        .where(or_(*open_))
        .order_by(Hold.id, HoldLot.lot_id)
    )


def _lots(session: Session, pasts: Sequence[Past], asked: Asked, holds: Holds, *, used_up: bool = False) -> Lots:
    """The lots that had been granted and had points left, or with those that are `used_up`. Held points are there,
    whatever came later."""
    held = [_held(each) for each in holds]
    reserved = sorted({lot_id for each in held for lot_id in each})
    given = db.rows_of(session, _asked(len(pasts)), asked) | _as_of(pasts)
    if not used_up:
        given["held"] = reserved
    found: Lots = [defaultdict(dict) for _ in pasts]
    for row in db.found(session, _lots_of, len(pasts), used_up, **given):
        member_id, id_, facts, states = row[0], row[1], row[2 : 2 + len(_FACTS)], row[2 + len(_FACTS) :]
        for which in range(len(pasts)):
            remaining, pending = states[2 * which], states[2 * which + 1]
            if remaining is not None:
                part = held[which].get(id_, 0)
                found[which][member_id][id_] = OpenLot(id_, max(remaining, part), part, pending, *facts)
    return found


_FACTS = OPEN_LOT[4:]
"""What never changes of an `OpenLot`."""


def _held(holds: Mapping[UUID, Mapping[UUID, OpenHold]]) -> dict[UUID, int]:
    """How many points of which lots are held."""
    held: dict[UUID, int] = defaultdict(int)
    for theirs in holds.values():
        for hold in theirs.values():
            for lot_id, points in hold.parts:
                held[lot_id] += points
    return held


def _lots_of(engine: str, pasts: int, used_up: bool) -> Select[*tuple[Any, ...]]:
    """A row per lot: the facts; then, of each past, what remained (null if it had not been granted), and whether it
    was pending."""
    asked, each = db.given(engine, _asked(pasts)), range(pasts)
    used = _used(asked, pasts)
    remaining = [
        case((_counts(PointEntry, asked, which), Lot.granted - func.coalesce(used.c[f"used_{which}"], 0)))
        for which in each
    ]
    states = [state for which in each for state in (remaining[which], _pending(asked, which))]
    rows = (
        select(Lot.member_id, Lot.id, *_FACTS, *states)
        .join(asked, Lot.member_id == asked.c.member_id)
        .join(PointEntry, and_(PointEntry.member_id == Lot.member_id, PointEntry.id == Lot.entry_id))
        .outerjoin(used, and_(used.c.member_id == Lot.member_id, used.c.lot_id == Lot.id))
        .order_by(Lot.id)
    )
    if used_up:
        return rows
    return rows.where(or_(*(left != 0 for left in remaining), db.one_of(engine, Lot.id.expression, "held")))


def _used(asked: FromClause, pasts: int) -> FromClause:
    """How many points of each lot were taken, in each past."""
    taking = aliased(PointEntry)
    sums = [
        _whole(func.sum(LotUse.points).filter(_counts(taking, asked, which))).label(f"used_{which}")
        for which in range(pasts)
    ]
    return (
        select(LotUse.member_id, LotUse.lot_id, *sums)
        .join(asked, LotUse.member_id == asked.c.member_id)
        .join(taking, and_(taking.member_id == LotUse.member_id, taking.id == LotUse.entry_id))
        .group_by(LotUse.member_id, LotUse.lot_id)
        .subquery()
    )


def _pending(asked: FromClause, which: int) -> ColumnElement[bool]:
    """Whether a lot that `PointEntry` granted is pending still. What an event activates goes on in another lot."""
    later = aliased(PointEntry)
    activation = and_(
        later.member_id == Lot.member_id,
        later.number > PointEntry.number,
        later.kind == "activation",
        later.occurred_at >= Lot.available_from,
        _counts(later, asked, which),
    )
    return case(
        (Lot.available_from.is_(None), true()),
        (Lot.available_from <= Lot.recorded_at, false()),
        else_=~exists(select(later.id).where(activation).correlate(asked, Lot, PointEntry)),
    )


# --- accounts -------------------------------------------------------------------------------------------------------


def _account(
    row: Sequence[Any],
    which: int,
    lots: Mapping[UUID, Mapping[UUID, OpenLot]],
    holds: Mapping[UUID, Mapping[UUID, OpenHold]],
) -> Account:
    member_id, program_id = row[:2]
    last, *sums, lapses_at = row[2 + _WIDTH * which : 2 + _WIDTH * (which + 1)]
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


def _lacking(account: Account) -> int:
    """How many points the lots have less than the balance."""
    return max(0, account.balance - sum(lot.remaining for lot in account.lots.values()))


def _evened(account: Account) -> Account:
    """The account with lots and figures that fit each other; its balance stays."""
    balance = account.balance
    debt = sum(lot.remaining for lot in account.lots.values()) - balance
    open_ = [lot for lot in in_turn(account, account.lots.values()) if not lot.pending]
    surplus = max(0, debt - max(0, account.debt))
    changed = {use.lot.id: -use.points for use in pick(open_, surplus, "used")}
    lacking = _lacking(account)
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
