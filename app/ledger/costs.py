"""What the rewards have cost that points of a member bought: when points are forgiven, that much becomes marketing."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from app import accounting, db
from app.ledger.models import CoverRow, Lot, LotUse, PointEntry
from app.ledger.rules import Account, RewardCosts

_PAID = PointEntry.kind.in_(("redemption", "capture"))
_BY_ENTRY = (LotUse.member_id == PointEntry.member_id) & (LotUse.entry_id == PointEntry.id)


def with_costs(
    session: Session, accounts: Mapping[UUID, Account], document_ids: Collection[UUID], chart: accounting.Chart
) -> dict[UUID, Account]:
    """Claimed accounts, which came with their covers, with what `move_costs` needs to know about points that
    `document_ids` granted, and those that returns could not take before."""
    covers = [each for account in accounts.values() for each in account.covers or ()]
    documents = {*document_ids, *(each.of.document_id for each in covers if each.of)}
    if not documents:
        return dict(accounts)
    uses = _uses(session, sorted(documents))
    costs = accounting.reward_costs(session, sorted({paid_for for _, _, paid_for, _ in uses}), chart)
    points = _points_paid(session, sorted(costs))
    moved = _moved(session, sorted(accounts), chart)
    bought: dict[UUID, dict[UUID, list[tuple[UUID, int]]]] = defaultdict(lambda: defaultdict(list))
    for member_id, granted_by, paid_for, part in uses:
        if paid_for in costs:
            bought[member_id][granted_by].append((paid_for, part))
    priced = {id_: (*cost, points[id_]) for id_, cost in costs.items()}
    return {
        id_: account.but(costs=RewardCosts(bought.get(id_, {}), priced, moved.get(id_, {})))
        for id_, account in accounts.items()
    }


def _uses(session: Session, document_ids: Sequence[UUID]) -> list[tuple[UUID, UUID, UUID, int]]:
    """Member, what granted points, what they paid for, and how many; in the order in which they were spent."""
    rows = session.execute(
        select(LotUse.member_id, Lot.document_id, PointEntry.document_id, func.sum(LotUse.points))
        .join(Lot, (LotUse.member_id == Lot.member_id) & (LotUse.lot_id == Lot.id))
        .join(PointEntry, _BY_ENTRY)
        .where(db.any_of(session, Lot.document_id.expression, document_ids), LotUse.effect == "used", _PAID)
        .group_by(LotUse.member_id, Lot.document_id, PointEntry.document_id)
        .order_by(func.min(cast(LotUse.id, String)))
    )
    return [(member_id, granted_by, paid_for, int(points)) for member_id, granted_by, paid_for, points in rows]


def _points_paid(session: Session, document_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many points paid for each document, of whatever lots."""
    if not document_ids:
        return {}
    rows = session.execute(
        select(PointEntry.document_id, func.sum(LotUse.points))
        .join(LotUse, _BY_ENTRY)
        .where(db.any_of(session, PointEntry.document_id.expression, document_ids), LotUse.effect == "used", _PAID)
        .group_by(PointEntry.document_id)
    )
    return {document_id: int(points) for document_id, points in rows}


def _moved(session: Session, member_ids: Sequence[UUID], chart: accounting.Chart) -> dict[UUID, dict[str, int]]:
    """How much has become marketing before, by member and currency."""
    if not member_ids:
        return {}
    rows = session.execute(
        select(CoverRow.member_id, PointEntry.document_id)
        .join(PointEntry, (PointEntry.member_id == CoverRow.member_id) & (PointEntry.id == CoverRow.entry_id))
        .where(db.any_of(session, CoverRow.member_id.expression, member_ids), CoverRow.forgiven)
        .distinct()
    ).all()
    moved: dict[UUID, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    amounts = accounting.written_off(session, sorted({document_id for _, document_id in rows}), chart)
    for member_id, document_id in rows:
        for currency, amount in amounts.get(document_id, {}).items():
            moved[member_id][currency] += amount
    return moved
