"""Reads of balances, entries and lots."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from app import db
from app.ledger.models import Lot, PointAccount, PointEntry
from app.ledger.rules import Expiring, Standing


def standings(session: Session, member_ids: Iterable[UUID], now: datetime) -> dict[UUID, Standing]:
    """Each member's standing at `now`, read without locking."""
    return load_standings(session, accounts_of(session, member_ids), now)


def accounts_of(session: Session, member_ids: Iterable[UUID]) -> Select[PointAccount]:
    """The accounts of some members, in the one order everybody locks them."""
    mine = db.any_of(session, PointAccount.member_id.expression, sorted(set(member_ids)))
    return select(PointAccount).where(mine).order_by(PointAccount.member_id)


def load_standings(session: Session, accounts: Select[PointAccount], now: datetime) -> dict[UUID, Standing]:
    """The standings of `accounts` at `now`; two statements, whatever their number."""
    rows = session.scalars(accounts.execution_options(populate_existing=True)).all()
    expiry = {row.member_id: row for row in _expiry(session, [row.member_id for row in rows], now)}
    return {row.member_id: _standing(row, expiry.get(row.member_id)) for row in rows}


def _standing(row: PointAccount, expiry: Row[UUID, int, datetime | None, int] | None) -> Standing:
    _, due, next_at, next_points = expiry or (None, 0, None, 0)
    return Standing(
        row.member_id,
        row.available,
        row.held,
        row.pending,
        row.debt,
        row.qualifying,
        row.lifetime,
        row.last_entry,
        row.next_due_at,
        int(due),
        Expiring(int(next_points), next_at) if next_at is not None else None,
    )


def _expiry(
    session: Session, member_ids: Sequence[UUID], now: datetime
) -> Sequence[Row[UUID, int, datetime | None, int]]:
    """Per account with lots that expire: what is due at `now`, the next expiry after it, and how many points then."""
    open_lot = (Lot.member_id == PointAccount.member_id) & (Lot.remaining > 0)
    points = func.coalesce(func.sum(Lot.remaining), 0)
    due = select(points).where(open_lot, Lot.expires_at <= now).scalar_subquery()
    next_at = select(func.min(Lot.expires_at)).where(open_lot, Lot.expires_at > now).scalar_subquery()
    first = (
        select(PointAccount.member_id, due.label("due"), next_at.label("next_at"))
        .where(db.any_of(session, PointAccount.member_id.expression, member_ids), PointAccount.next_due_at.is_not(None))
        .subquery()
    )
    next_points = (
        select(points)
        .where(Lot.member_id == first.c.member_id, Lot.remaining > 0, Lot.expires_at == first.c.next_at)
        .scalar_subquery()
    )
    return session.execute(select(first.c.member_id, first.c.due, first.c.next_at, next_points)).all()


def entries(session: Session, member_id: UUID, before: int | None, limit: int) -> Sequence[PointEntry]:
    """A member's entries, newest first, from the one before number `before`; at most `limit`."""
    rows = select(PointEntry).where(PointEntry.member_id == member_id)
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
    """When a member's points expire, soonest first, after `now`; `stay` never do."""

    steps: list[Expiring]
    stay: int


def expiry_ladder(session: Session, member_id: UUID, now: datetime) -> Ladder:
    """All open points of a member by the instant they expire; they sum to the available balance."""
    rows = session.execute(
        select(Lot.expires_at, func.sum(Lot.remaining))
        .where(Lot.member_id == member_id, Lot.remaining > 0, Lot.expires_at.is_(None) | (Lot.expires_at > now))
        .group_by(Lot.expires_at)
        .order_by(Lot.expires_at)
    ).all()
    return Ladder(
        [Expiring(int(points), at) for at, points in rows if at is not None],
        sum(int(points) for at, points in rows if at is None),
    )
