"""Who is in one household with whom."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, aliased

from app import db
from app.members.models import PoolMember


@dataclass(frozen=True, slots=True)
class Housemate:
    """Somebody else in a member's household, and since when both are in it."""

    id: UUID
    since: datetime


def households(session: Session, member_ids: Collection[UUID]) -> dict[UUID, list[Housemate]]:
    """By member, those who are in their household now."""
    found: dict[UUID, list[Housemate]] = {}
    for row in db.found(session, _together, ids=sorted(member_ids)):
        found.setdefault(row.member_id, []).append(Housemate(row.other_id, max(row.joined_at, row.other_at)))
    return found


def _together(engine: str) -> Select[*tuple[Any, ...]]:
    other = aliased(PoolMember)
    rows = select(
        PoolMember.member_id, PoolMember.joined_at, other.member_id.label("other_id"), other.joined_at.label("other_at")
    ).join(other, (other.pool_id == PoolMember.pool_id) & (other.member_id != PoolMember.member_id))
    mine = db.one_of(engine, PoolMember.member_id.expression, "ids")
    return rows.where(mine).order_by(PoolMember.member_id, other.member_id)
