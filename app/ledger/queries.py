"""Reads of accounts, entries, lots and holds."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    FromClause,
    Row,
    Select,
    String,
    and_,
    case,
    func,
    select,
    union_all,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session, aliased

from app import db
from app.ledger.models import CoverRow, Hold, HoldLot, Lot, LotReturnRow, LotUse, PointAccount, PointEntry
from app.ledger.returning import GrantedLot, Reversed, SpentPart, last_first
from app.ledger.rules import (
    MOST_POINTS,
    NO_LOTS,
    Account,
    Cover,
    Effect,
    Expiring,
    LotReturn,
    Need,
    OpenHold,
    OpenLot,
    Use,
    settle,
)

# --- accounts -------------------------------------------------------------------------------------------------------


def account_rows(session: Session, member_ids: Iterable[UUID], *, lock: bool = False) -> Sequence[Row[Any]]:
    """The accounts of some members, in the one order everybody locks them."""
    found: Sequence[Row[Any]] = db.found(session, _accounts, lock, ids=sorted(set(member_ids)))
    return found


def _accounts(engine: str, lock: bool) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, PointAccount.member_id.expression, "ids")
    rows = select(*PointAccount.__table__.c).where(mine).order_by(PointAccount.member_id)
    return rows.with_for_update(key_share=True) if lock else rows


def load_accounts(
    session: Session,
    rows: Sequence[Any],
    now: datetime,
    zone: tzinfo,
    lots: Collection[UUID],
    needs: Mapping[UUID, Need],
    until: datetime | None = None,
) -> dict[UUID, Account]:
    """Accounts, of which these are the `rows`, at `now`, settled; those among `lots`, and those to which something has
    happened, with all open lots; others with those they need.

    `until` as in `settle`. The number of statements does not depend on how many they are.
    """
    ids = [row.member_id for row in rows]
    needed = set(lots) | {row.member_id for row in rows if row.next_due_at is not None and row.next_due_at <= now}
    # an activity moves a lapse, and with it the order in which lots are used: then all of them are needed
    needed |= {row.member_id for row in rows if row.lapses_at is not None and needs.get(row.member_id, NO_LOTS).points}
    limited = {id_: needs[id_] for id_ in ids if id_ not in needed and needs.get(id_, NO_LOTS) != NO_LOTS}
    enough, others = _enough_lots(session, limited)
    open_lots = _open_lots(session, [id_ for id_ in ids if id_ in needed]) | enough
    read = needed | limited.keys()
    open_holds = _open_holds(session, [row.member_id for row in rows if row.held and row.member_id in read])
    known = needed | others.keys()
    partial = [row.member_id for row in rows if row.member_id not in known and row.next_due_at is not None]
    expiring = {row.member_id: row for row in _first_expiry(session, partial)}
    covers = _covers(session, [row.member_id for row in rows if row.debt])
    loaded = {}
    for row in rows:
        complete = row.member_id in needed
        their = others.get(row.member_id) or _of_all(expiring.get(row.member_id), row.next_due_at)
        theirs = open_lots.get(row.member_id, {})
        account = Account(
            member_id=row.member_id,
            program_id=row.program_id,
            available=row.available,
            held=row.held,
            pending=row.pending,
            debt=row.debt,
            qualifying=row.qualifying,
            lifetime=row.lifetime,
            last_entry=row.last_entry,
            next_due_at=row.next_due_at,
            lapses_at=row.lapses_at,
            asked=None if complete else limited.get(row.member_id, NO_LOTS),
            lots=theirs,
            holds=open_holds.get(row.member_id, {}),
            loaded=theirs,
            first_expiring=None if complete else their.expiring,
            lapsing=0 if complete else their.lapsing,
            others_due_at=None if complete else their.due_at,
            covers=covers.get(row.member_id),
        )
        loaded[row.member_id] = settle(account, now, zone, until=until)
    return loaded


@dataclass(frozen=True, slots=True)
class _Others:
    """Of an account's lots that are not loaded: as in `Account`, `due_at` is when the next thing happens to them."""

    expiring: Expiring | None
    lapsing: int
    due_at: datetime | None


def _of_all(row: Any, due_at: datetime | None) -> _Others:
    """Where none is loaded; `row` is what `_first_expiry` answers, None: nothing is due."""
    if row is None:
        return _Others(None, 0, due_at)
    return _Others(_expiring(row.ends_at, row.points), int(row.lapsing), due_at)


def _expiring(at: datetime | None, points: int) -> Expiring | None:
    return None if at is None else Expiring(int(points), at)


OPEN_LOT: tuple[Any, ...] = (
    Lot.id,
    Lot.remaining,
    Lot.held,
    Lot.pending,
    Lot.available_from,
    Lot.expires_at,
    Lot.lapses,
    Lot.cohort_id,
    Lot.currency,
    Lot.funding,
    Lot.document_id,
    Lot.occurred_at,
    Lot.granted,
)
"""The columns of an `OpenLot`, in its order."""


def _open_lots(session: Session, member_ids: Sequence[UUID]) -> dict[UUID, dict[UUID, OpenLot]]:
    found: dict[UUID, dict[UUID, OpenLot]] = defaultdict(dict)
    if member_ids:
        for member_id, *lot in db.found(session, _open, ids=member_ids):
            found[member_id][lot[0]] = OpenLot(*lot)
    return dict(found)


def with_lots(session: Session, accounts: Mapping[UUID, Account]) -> dict[UUID, Account]:
    """Accounts as they were claimed, with all their open lots and holds."""
    missing = [id_ for id_, account in accounts.items() if account.asked is not None]
    lots = _open_lots(session, missing)
    holds = _open_holds(session, [id_ for id_ in missing if accounts[id_].held])
    whole = {"asked": None, "first_expiring": None, "lapsing": 0, "others_due_at": None}
    return dict(accounts) | {
        id_: accounts[id_].but(lots=lots.get(id_, {}), loaded=lots.get(id_, {}), holds=holds.get(id_, {}), **whole)
        for id_ in missing
    }


def _enough_lots(
    session: Session, needs: Mapping[UUID, Need]
) -> tuple[dict[UUID, dict[UUID, OpenLot]], dict[UUID, _Others]]:
    """The open lots that accounts need, and what there is to know of the others where there are any of the former."""
    found: dict[UUID, dict[UUID, OpenLot]] = defaultdict(dict)
    others: dict[UUID, _Others] = {}
    if needs:
        given = db.rows_of(
            session, _NEEDED, [(id_, min(need.points, MOST_POINTS)) for id_, need in sorted(needs.items())]
        )
        documents = sorted({id_ for need in needs.values() for id_ in need.documents})
        for row in db.found(session, _enough, documents=documents, **given):
            member_id, ends_at, points, lapsing, lapses_at, available_from, *lot = row
            found[member_id][lot[0]] = OpenLot(*lot)
            due = [at for at in (ends_at, lapses_at, available_from) if at is not None]
            others[member_id] = _Others(_expiring(ends_at, points), int(lapsing or 0), min(due, default=None))
    return dict(found), others


_NEEDED = (("member_id", Lot.id.type), ("points", Lot.remaining.type))


def _enough(engine: str) -> Select[*tuple[Any, ...]]:
    """Beside each lot that is needed, of its account's others: the next end that one has of its own, of how many free
    points; how many lapse, and when; and when the next pending ones become available."""
    needs = db.given(engine, _NEEDED)
    can_be_spent = ~Lot.pending & (Lot.remaining > Lot.held)
    in_turn = (expiry().nulls_last(), Lot.occurred_at, Lot.id)
    points = func.sum(case((can_be_spent, Lot.remaining - Lot.held), else_=0))
    before = func.coalesce(points.over(partition_by=Lot.member_id, order_by=in_turn, rows=(None, -1)), 0)
    needed = (can_be_spent & (before < needs.c.points)) | db.one_of(engine, Lot.document_id.expression, "documents")
    lots = (
        select(Lot.member_id, *OPEN_LOT, PointAccount.lapses_at, needed.label("needed"))
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .join(needs, needs.c.member_id == Lot.member_id)
        .where(Lot.remaining > 0)
        .subquery()
    )

    def of_others(part: Any, among: FromClause, *where: ColumnElement[bool]) -> ColumnElement[Any]:
        free = ~among.c.needed & (among.c.remaining > among.c.held)
        return case((and_(free, *where), part))

    def in_all(part: ColumnElement[Any], name: str) -> ColumnElement[Any]:
        return part.over(partition_by=lots.c.member_id).label(name)  # type: ignore[no-any-return]  # a function

    free = lots.c.remaining - lots.c.held
    known = select(
        lots,
        in_all(func.min(of_others(lots.c.expires_at, lots, ~lots.c.lapses)), "ends_at"),
        in_all(func.sum(of_others(free, lots, lots.c.lapses)), "lapsing"),
        in_all(func.min(of_others(lots.c.lapses_at, lots, lots.c.lapses)), "lapse"),
        in_all(func.min(of_others(lots.c.available_from, lots, lots.c.pending)), "next_from"),
    ).subquery()
    ending = of_others(known.c.remaining - known.c.held, known, ~known.c.lapses, known.c.expires_at == known.c.ends_at)
    rows = select(known, func.sum(ending).over(partition_by=known.c.member_id).label("points")).subquery()
    others = [rows.c[name] for name in ("ends_at", "points", "lapsing", "lapse", "next_from")]
    return select(rows.c.member_id, *others, *(rows.c[column.key] for column in OPEN_LOT)).where(rows.c.needed)


def _open(engine: str) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, Lot.member_id.expression, "ids")
    return select(Lot.member_id, *OPEN_LOT).where(mine, Lot.remaining > 0)


def _open_holds(session: Session, member_ids: Sequence[UUID]) -> dict[UUID, dict[UUID, OpenHold]]:
    if not member_ids:
        return {}
    rows = db.found(session, _held, ids=member_ids)
    parts: dict[tuple[UUID, UUID, int, datetime | None], list[tuple[UUID, int]]] = defaultdict(list)
    for member_id, hold_id, points, ends_at, lot_id, reserved in rows:
        parts[member_id, hold_id, points, ends_at].append((lot_id, reserved))
    found: dict[UUID, dict[UUID, OpenHold]] = defaultdict(dict)
    for (member_id, hold_id, points, ends_at), reserved_parts in parts.items():
        found[member_id][hold_id] = OpenHold(hold_id, points, ends_at, tuple(reserved_parts))
    return dict(found)


def _held(engine: str) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, Hold.member_id.expression, "ids")
    return (
        select(Hold.member_id, Hold.id, Hold.points, Hold.ends_at, HoldLot.lot_id, HoldLot.points)
        .join(HoldLot, (HoldLot.member_id == Hold.member_id) & (HoldLot.hold_id == Hold.id))
        .where(mine, Hold.status == "open")
        .order_by(Hold.id, HoldLot.lot_id)
    )


def with_covers(session: Session, accounts: Mapping[UUID, Account]) -> dict[UUID, Account]:
    """Claimed accounts with what returns and their voids need to know besides: what stands in for whose points."""
    found = _covers(session, sorted(id_ for id_, account in accounts.items() if account.covers is None))
    return {id_: account.but(covers=found.get(id_, account.covers)) for id_, account in accounts.items()}


def _covers(session: Session, member_ids: Sequence[UUID]) -> dict[UUID, tuple[Cover, ...]]:
    """What stands in for points of each member's lots, oldest first."""
    if not member_ids:
        return {}
    rows = db.found(session, _cover_sums, ids=member_ids)
    lots = _lots_by_id(session, member_ids, {id_ for row in rows for id_ in (row.lot_id, row.by_lot_id) if id_})
    found: dict[UUID, dict[Any, Cover]] = {member_id: {} for member_id in member_ids}
    for member_id, of, by, effect, forgiven, points in rows:
        each = Cover(_named(lots, of), _named(lots, by), cast("Effect", effect), int(points), forgiven)
        before = found[member_id].get(each.key)
        found[member_id][each.key] = each if before is None else replace(before, points=before.points + each.points)
    return {id_: tuple(each for each in covers.values() if each.points) for id_, covers in found.items()}


def _cover_sums(engine: str) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, CoverRow.member_id.expression, "ids")
    whom = (CoverRow.member_id, CoverRow.lot_id, CoverRow.by_lot_id, CoverRow.effect, CoverRow.forgiven)
    rows = select(*whom, func.sum(CoverRow.points)).where(mine).group_by(*whom)
    return rows.order_by(func.min(sql_cast(CoverRow.id, String)))


def _lots_by_id(session: Session, member_ids: Sequence[UUID], ids: Collection[UUID]) -> dict[UUID, OpenLot]:
    if not ids:
        return {}
    chosen = (
        db.any_of(session, Lot.member_id.expression, member_ids),
        db.any_of(session, Lot.id.expression, sorted(ids)),
    )
    return {lot.id: lot for lot in (OpenLot(*row) for row in session.execute(select(*OPEN_LOT).where(*chosen)))}


def _named(lots: Mapping[UUID, OpenLot], id_: UUID | None) -> OpenLot | None:
    return None if id_ is None else lots[id_]


def _first_expiry(session: Session, member_ids: Sequence[UUID]) -> Any:
    """Per account: the next end that free points of it have of their own, and how many they are; and how many lapse."""
    return db.found(session, _first_expiries, ids=member_ids) if member_ids else ()


def _first_expiries(engine: str) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, PointAccount.member_id.expression, "ids")
    # "> 0" too, though it follows: the index has only lots that are open
    open_, free = Lot.remaining > 0, Lot.remaining > Lot.held
    theirs = (Lot.member_id == PointAccount.member_id) & open_ & free & ~Lot.lapses
    ends_at = select(func.min(Lot.expires_at)).where(theirs).correlate(PointAccount).scalar_subquery()
    first = select(PointAccount.member_id, ends_at.label("ends_at")).where(mine).cte("first")
    first = first.prefix_with("MATERIALIZED")  # else it is looked for again beside each lot

    def sum_of(*which: ColumnElement[bool]) -> ColumnElement[int]:
        points = select(func.coalesce(func.sum(Lot.remaining - Lot.held), 0))
        return points.where(Lot.member_id == first.c.member_id, open_, free, *which).scalar_subquery()

    points = sum_of(~Lot.lapses, Lot.expires_at == first.c.ends_at).label("points")
    return select(first.c.member_id, first.c.ends_at, points, sum_of(Lot.lapses.expression).label("lapsing"))


def expiry() -> ColumnElement[datetime | None]:
    """When a lot's points are gone, beside its account."""
    return case((Lot.lapses, PointAccount.lapses_at), else_=Lot.expires_at)


# --- what members and partners read ---------------------------------------------------------------------------------


def entries(
    session: Session, member_id: UUID, before: int | None, limit: int, among: ColumnElement[bool] | None = None
) -> Sequence[PointEntry]:
    """A member's entries, newest first, from the one before number `before`; at most `limit`. All, or those `among`."""
    rows = select(PointEntry).where(PointEntry.member_id == member_id)
    if among is not None:
        rows = rows.where(among)
    if before is not None:
        rows = rows.where(PointEntry.number < before)
    return session.scalars(rows.order_by(PointEntry.number.desc()).limit(limit)).all()


def lots(session: Session, member_id: UUID, after: UUID | None, limit: int) -> Sequence[Lot]:
    """A member's lots in the order they were written, spent and expired ones too, from the one after `after`."""
    rows = select(Lot).where(Lot.member_id == member_id)
    if after is not None:
        rows = rows.where(Lot.id > after)
    return session.scalars(rows.order_by(Lot.id).limit(limit)).all()


@dataclass(frozen=True, slots=True)
class Ladder:
    """When a member's points expire, soonest first; `stay` never do. They sum to available + held + pending."""

    steps: list[Expiring]
    stay: int


def expiry_ladder(account: Account) -> Ladder:
    """All open points of an account that was loaded with its lots, by the instant they expire."""
    return ladder((account.expiry_of(lot), lot.remaining) for lot in account.lots.values())


def ladder(points: Iterable[tuple[datetime | None, int]]) -> Ladder:
    """Some points, each with the instant they expire (None: they stay), as a ladder."""
    steps: dict[datetime | None, int] = defaultdict(int)
    for expires_at, part in points:
        steps[expires_at] += part
    stay = steps.pop(None, 0)
    return Ladder([Expiring(part, at) for at, part in sorted(steps.items()) if at and part], stay)


@dataclass(frozen=True, slots=True)
class Payment:
    """Points a lot paid towards a document."""

    lot_id: UUID
    points: int


def payments(session: Session, document_id: UUID) -> list[Payment]:
    """Which lots paid for a document, net of what came back to them; not for debt that its points paid."""
    rows = session.execute(
        select(LotUse.lot_id, func.sum(LotUse.points))
        .join(PointEntry, (PointEntry.member_id == LotUse.member_id) & (PointEntry.id == LotUse.entry_id))
        .where(PointEntry.document_id == document_id, PointEntry.kind != "debt_payment", LotUse.effect == "used")
        .group_by(LotUse.lot_id)
        .order_by(LotUse.lot_id)
    )
    return [Payment(lot_id, int(points)) for lot_id, points in rows if points]


@dataclass(frozen=True, slots=True)
class HeldLot:
    """Points of a lot that a hold reserves, or reserved, and how many of them its capture spent."""

    lot_id: UUID
    points: int
    captured: int
    expires_at: datetime | None


def held_lots(session: Session, member_id: UUID, hold_id: UUID) -> list[HeldLot]:
    """The lots behind a member's hold."""
    spent = (
        select(LotUse.lot_id, LotUse.points)
        .join(PointEntry, (PointEntry.member_id == LotUse.member_id) & (PointEntry.id == LotUse.entry_id))
        .where(LotUse.member_id == member_id, PointEntry.document_id == hold_id, PointEntry.kind == "capture")
        .subquery()
    )
    rows = session.execute(
        select(HoldLot.lot_id, HoldLot.points, func.coalesce(spent.c.points, 0), Lot.expires_at)
        .join(Lot, (Lot.member_id == HoldLot.member_id) & (Lot.id == HoldLot.lot_id))
        .outerjoin(spent, spent.c.lot_id == HoldLot.lot_id)
        .where(HoldLot.member_id == member_id, HoldLot.hold_id == hold_id)
        .order_by(HoldLot.lot_id)
    )
    return [HeldLot(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class EndedWaiting:
    """What has become of a document's points that were pending until an event."""

    activated: int
    cancelled: int
    """By hand, or because the event did not come in time."""


def ended_waiting(session: Session, account: Account, document_id: UUID) -> EndedWaiting:
    """Of the lots that a document granted to be pending until an event. Read it after claiming the account."""
    mine = (PointEntry.member_id == account.member_id) & (PointEntry.document_id == document_id)
    activated = session.scalar(select(func.sum(PointEntry.available)).where(mine, PointEntry.kind == "activation"))
    waited = (Lot.member_id == account.member_id) & (Lot.document_id == document_id) & Lot.available_from.is_(None)
    cancelled = session.scalar(
        select(func.sum(LotUse.points))
        .join(Lot, (Lot.member_id == LotUse.member_id) & (Lot.id == LotUse.lot_id))
        .where(waited, LotUse.effect == "expired")
    )
    due = [  # and is not written yet
        use.points
        for _, _, use in account.rows.uses
        if use.lot.document_id == document_id and use.lot.available_from is None and use.effect == "expired"
    ]
    return EndedWaiting(int(activated or 0), int(cancelled or 0) + sum(due))


# --- what a return needs to know ------------------------------------------------------------------------------------


def granted_lots(session: Session, document_ids: Sequence[UUID]) -> dict[UUID, list[GrantedLot]]:
    """The lots that documents granted, with all that has become of them. Read it after claiming the accounts."""
    if not document_ids:
        return {}
    gone = {(row.member_id, row.document_id): row for row in db.found(session, _gone, ids=document_ids)}
    found: dict[UUID, list[GrantedLot]] = defaultdict(list)
    for member_id, *row in db.found(session, _granted, ids=document_ids):
        lot, figures = OpenLot(*row[: len(OPEN_LOT)]), [int(value) for value in row[len(OPEN_LOT) :]]
        allocated, residue, expected, *returned, of_used, of_expired = figures
        whole = gone.get((member_id, lot.document_id))
        used, expired = (0, 0) if whole is None else (int(whole.used), int(whole.expired))
        parts = (used - of_used, expired - of_expired, *returned)
        found[lot.document_id].append(GrantedLot(lot, lot.granted, allocated, residue, expected, *parts))
    return dict(found)


def _granted(engine: str) -> Select[*tuple[Any, ...]]:
    """Lots by the documents that granted them, and what returns took back of each."""
    sums = ("points", "allocated", "residue", "expected", "of_used", "of_expired")
    past = [func.coalesce(func.sum(getattr(LotReturnRow, name)), 0) for name in sums]
    theirs = (LotReturnRow.member_id == Lot.member_id) & (LotReturnRow.lot_id == Lot.id)
    mine = db.one_of(engine, Lot.document_id.expression, "ids") & Lot.source_lot_id.is_(None)
    facts: tuple[Any, ...] = (Lot.member_id, *OPEN_LOT, Lot.allocated, Lot.residue, Lot.expected)
    rows = select(*facts, *past).outerjoin(LotReturnRow, theirs).where(mine).group_by(Lot.member_id, Lot.id)
    return rows.order_by(Lot.document_id, Lot.id)


def _gone(engine: str) -> Select[*tuple[Any, ...]]:
    """By member and document: how many points of the lots it granted, and of those they live on in at that member, are
    used or expired."""

    def points(effect: Effect) -> ColumnElement[int]:
        return func.coalesce(func.sum(LotUse.points).filter(LotUse.effect == effect), 0).label(effect)

    return (
        select(Lot.member_id, Lot.document_id, points("used"), points("expired"))
        .join(LotUse, (LotUse.member_id == Lot.member_id) & (LotUse.lot_id == Lot.id))
        .where(db.one_of(engine, Lot.document_id.expression, "ids"))
        .group_by(Lot.member_id, Lot.document_id)
    )


def expired_part(session: Session, account: Account, lot_id: UUID) -> tuple[OpenLot, int] | None:
    """A lot of a claimed account as it is now, and how many of its points have expired and stayed so.

    None if the member has no such lot. What returns took back of expired points is gone for good.
    """
    mine = (Lot.member_id == account.member_id) & (Lot.id == lot_id)
    row = session.execute(select(*OPEN_LOT).where(mine)).one_or_none()
    if row is None:
        return None
    of_lot = (LotUse.member_id == account.member_id) & (LotUse.lot_id == lot_id)
    written = session.scalar(select(func.sum(LotUse.points)).where(of_lot, LotUse.effect == "expired")) or 0
    returned = (LotReturnRow.member_id == account.member_id) & (LotReturnRow.lot_id == lot_id)
    taken_back = session.scalar(select(func.sum(LotReturnRow.of_expired)).where(returned)) or 0
    uses = [use for _, _, use in account.rows.uses if use.lot.id == lot_id and use.effect == "expired"]
    expired = int(written) - int(taken_back) + sum(use.points for use in uses)
    return account.lots.get(lot_id, OpenLot(*row)), expired


def spent_parts(session: Session, purchases: Mapping[UUID, UUID]) -> dict[UUID, list[SpentPart]]:
    """Per purchase: which lots it spent, and what of them has not come back yet, the lot that expires last first.

    `purchases` names the purchase of each document: itself, and those of its returns. Read it after claiming.
    """
    if not purchases:
        return {}
    alike = aliased(Lot)  # all that was granted with it, and what that lives on in at this member
    same = (alike.member_id == Lot.member_id) & (alike.document_id == Lot.document_id)
    mine = (LotUse.member_id == alike.member_id) & (LotUse.lot_id == alike.id)
    used = select(func.sum(LotUse.points)).join(alike, mine).where(LotUse.effect == "used")
    theirs = (LotReturnRow.member_id == alike.member_id) & (LotReturnRow.lot_id == alike.id)
    of_used = select(func.sum(LotReturnRow.of_used)).join(alike, theirs)
    counted = [func.coalesce(each.where(same).correlate(Lot).scalar_subquery(), 0) for each in (used, of_used)]
    spent = _spent(db.any_of(session, PointEntry.document_id.expression, sorted(purchases))).subquery()
    here = (Lot.member_id == spent.c.member_id) & (Lot.id == spent.c.lot_id)
    rows = session.execute(select(spent.c.document_id, spent.c.points, *counted, *OPEN_LOT).join(Lot, here))
    parts: dict[tuple[UUID, UUID], SpentPart] = {}
    for document_id, points, in_all, taken_back, *columns in rows:
        lot, key = OpenLot(*columns), (purchases[document_id], columns[0])
        before = parts[key].points if key in parts else 0
        parts[key] = SpentPart(lot, before + int(points), int(in_all) - int(taken_back))
    found: dict[UUID, list[SpentPart]] = defaultdict(list)
    for (purchase_id, _), part in sorted(parts.items(), key=lambda item: last_first(item[1].lot)):
        found[purchase_id].append(part)
    return dict(found)


def used_points(session: Session, accounts: Iterable[Account]) -> dict[UUID, int]:
    """By document, what of the points it granted counts as used that claimed accounts still have open lots of."""
    documents = sorted({lot.document_id for account in accounts for lot in account.lots.values()})
    if not documents:
        return {}
    taken_back = select(Lot.document_id, func.sum(LotReturnRow.of_used))
    theirs = (LotReturnRow.member_id == Lot.member_id) & (LotReturnRow.lot_id == Lot.id)
    mine = db.any_of(session, Lot.document_id.expression, documents)
    back = dict(session.execute(taken_back.join(LotReturnRow, theirs).where(mine).group_by(Lot.document_id)).all())
    rows = db.found(session, _gone, ids=documents)
    return {row.document_id: int(row.used) - int(back.get(row.document_id, 0)) for row in rows}


def _spent(chosen: ColumnElement[bool]) -> CompoundSelect[Any]:
    """What entries of the `chosen` documents spent of lots, or gave back. What was given back to a lot that stood in
    for another came back to the other; what was spent again, and is owed, is of the lot it had come back to."""
    kinds = PointEntry.kind.in_(("redemption", "restoration"))

    def part(model: type[LotUse | CoverRow], lot_id: Any, points: Any, *where: ColumnElement[bool]) -> Any:
        same = (model.member_id == PointEntry.member_id) & (model.entry_id == PointEntry.id)
        columns = PointEntry.document_id, model.member_id, lot_id.label("lot_id"), points.label("points")
        return select(*columns).join(model, same).where(chosen, kinds, *where)

    return union_all(
        part(LotUse, LotUse.lot_id, LotUse.points, LotUse.effect.in_(("used", "returned"))),
        part(CoverRow, CoverRow.lot_id, CoverRow.points),
        part(CoverRow, CoverRow.by_lot_id, -CoverRow.points, CoverRow.by_lot_id.is_not(None)),
    )


def reversals(session: Session, document_ids: Sequence[UUID]) -> dict[UUID, Reversed]:
    """What returns did to accounts, to be undone by their voids. Read it after claiming the accounts."""
    if not document_ids:
        return {}
    chosen = db.any_of(session, PointEntry.document_id.expression, document_ids)
    taking, giving = chosen & (PointEntry.kind == "reversal"), chosen & (PointEntry.kind == "restoration")
    qualifying: dict[UUID, int] = defaultdict(int)  # a return with a concession takes back twice
    for document_id, points in session.execute(select(PointEntry.document_id, PointEntry.qualifying).where(taking)):
        qualifying[document_id] -= points
    uses, returns, covers = (_by_document(session, model, taking) for model in (LotUse, LotReturnRow, CoverRow))
    back, relieved = (_by_document(session, model, giving) for model in (LotUse, CoverRow))
    last = heirs(session, {each.lot.document_id for theirs in returns.values() for each in theirs})
    found = {}
    for document_id in document_ids:
        gone = {use.lot.id for use in back[document_id] if use.effect == "expired"}
        restored = [use.lot for use in back[document_id]] + [each.of for each in relieved[document_id] if each.of]
        found[document_id] = Reversed(
            uses=uses[document_id],
            returns=returns[document_id],
            covers=covers[document_id],
            qualifying=qualifying[document_id],
            heirs={each.lot.document_id: last[each.lot.document_id] for each in returns[document_id]},
            stayed=[use for use in back[document_id] if use.lot.id in gone],
            settled=[each for each in relieved[document_id] if each.forgiven],
            restored=restored[0] if restored else None,
        )
    return found


def heirs(session: Session, document_ids: Collection[UUID]) -> dict[UUID, OpenLot]:
    """By document, the last of the lots that carry on what it granted. Those of one document belong to one member."""
    if not document_ids:
        return {}
    alike = db.any_of(session, Lot.document_id.expression, sorted(document_ids))
    rows = session.execute(select(*OPEN_LOT).where(alike).order_by(Lot.id))
    return {lot.document_id: lot for lot in (OpenLot(*columns) for columns in rows)}


def _by_document(session: Session, model: Any, chosen: ColumnElement[bool]) -> dict[UUID, list[Any]]:
    """What the `chosen` entries made of the kind that `model` keeps, as values, by the entry's document."""
    same = (model.member_id == PointEntry.member_id) & (model.entry_id == PointEntry.id)
    rows = session.execute(
        select(PointEntry.document_id, model).join(PointEntry, same).where(chosen).order_by(model.id)
    )
    found = [(document_id, row) for document_id, row in rows]
    ids = {id_ for _, row in found for id_ in (row.lot_id, getattr(row, "by_lot_id", None)) if id_}
    lots = _lots_by_id(session, sorted({row.member_id for _, row in found}), ids)
    values: dict[UUID, list[Any]] = defaultdict(list)
    for document_id, row in found:
        values[document_id].append(_value(row, lots))
    return values


def _value(row: LotUse | LotReturnRow | CoverRow, lots: Mapping[UUID, OpenLot]) -> Use | LotReturn | Cover:
    if isinstance(row, CoverRow):
        of, by = _named(lots, row.lot_id), _named(lots, row.by_lot_id)
        return Cover(of, by, cast("Effect", row.effect), row.points, row.forgiven)
    of = lots[row.lot_id]
    if isinstance(row, LotUse):
        return Use(of, row.points, cast("Effect", row.effect))
    parts = (row.points, row.allocated, row.residue, row.expected, row.of_used, row.of_expired)
    return LotReturn(of, row.entry_id, *parts)
