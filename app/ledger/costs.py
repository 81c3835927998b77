"""What points have cost in rewards: when they are forgiven, only a cost that was booked becomes marketing."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from fractions import Fraction
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import accounting, db
from app.ledger.models import Lot, LotUse, PointEntry


def reward_costs(session: Session, document_ids: Collection[UUID], chart: accounting.Chart) -> dict[UUID, Fraction]:
    """By document that granted points: what rewards have cost us per point of these that was used, minor units.

    Points that paid at the till, or for a reward we only broker, have cost nothing here: the till books its goods.
    Documents whose points have cost nothing at all are left out. Read it after claiming the accounts.
    """
    if not document_ids:
        return {}
    paid = (PointEntry.document_id, func.sum(LotUse.points))
    used = (
        select(Lot.document_id, Lot.currency, *paid)
        .join(LotUse, (LotUse.member_id == Lot.member_id) & (LotUse.lot_id == Lot.id))
        .join(PointEntry, (PointEntry.member_id == LotUse.member_id) & (PointEntry.id == LotUse.entry_id))
        .where(db.any_of(session, Lot.document_id.expression, sorted(document_ids)), LotUse.effect == "used")
        .where(PointEntry.kind.in_(("redemption", "capture", "restoration")))
        .group_by(Lot.document_id, Lot.currency, PointEntry.document_id)
    )
    rows = session.execute(used).all()
    costs = accounting.reward_costs(session, sorted({row[2] for row in rows}), chart)
    points = _points_paid(session, sorted({document_id for document_id, _ in costs}))
    cost: defaultdict[UUID, Fraction] = defaultdict(Fraction)
    in_all: Counter[UUID] = Counter()
    for granted_by, currency, paid_for, part in rows:
        in_all[granted_by] += int(part)
        if amount := costs.get((paid_for, currency)):
            cost[granted_by] += Fraction(amount * int(part), points[paid_for])
    return {id_: amount / in_all[id_] for id_, amount in cost.items() if in_all[id_] > 0}


def _points_paid(session: Session, document_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many points paid for each document."""
    if not document_ids:
        return {}
    rows = session.execute(
        select(PointEntry.document_id, func.sum(LotUse.points))
        .join(LotUse, (PointEntry.member_id == LotUse.member_id) & (PointEntry.id == LotUse.entry_id))
        .where(db.any_of(session, PointEntry.document_id.expression, document_ids), LotUse.effect == "used")
        .where(PointEntry.kind.in_(("redemption", "capture")))
        .group_by(PointEntry.document_id)
    )
    return {document_id: int(points) for document_id, points in rows}
