"""Read cards, and what was put on them."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session, aliased

from app import db
from app.programs import Timeline
from app.stamps.models import Stamp, StampCardRow
from app.stamps.rules import Card, Stamping

_CARD = (
    StampCardRow.id,
    StampCardRow.member_id,
    StampCardRow.code,
    StampCardRow.number,
    StampCardRow.terms_id,
    StampCardRow.size,
    StampCardRow.head_start,
    StampCardRow.head_start_points,
    StampCardRow.stamps,
    StampCardRow.begun_by,
    StampCardRow.begun_at,
    StampCardRow.ends_at,
    StampCardRow.stamped_at,
    StampCardRow.full_at,
)
"""The columns of a `Card`, in its order."""


def has_cards(terms: Timeline) -> bool:
    """Whether a programme has stamp cards, had them, or will."""
    return any(version.terms.stamp_cards for version in terms.versions)


def last_cards(session: Session, member_ids: Collection[UUID]) -> list[Card]:
    """The last card of each code of some members."""
    return [Card(*row) for row in db.found(session, _last, ids=sorted(member_ids))]


def _last(engine: str) -> Select[*tuple[Any, ...]]:
    later = aliased(StampCardRow)
    next_ = and_(
        later.member_id == StampCardRow.member_id,
        later.code == StampCardRow.code,
        later.number == StampCardRow.number + 1,
    )
    mine = db.one_of(engine, StampCardRow.member_id.expression, "ids")
    return select(*_CARD).where(mine, ~select(later.id).where(next_).exists())


def stampings(session: Session, terms: Timeline, documents: Collection[UUID]) -> dict[UUID, list[Stamping]]:
    """By purchase or claim, the stamps it put on cards. It never changes. No statement without stamp cards."""
    if not documents or not has_cards(terms):
        return {}
    found: dict[UUID, list[Stamping]] = {}
    for document_id, *columns in db.found(session, _put, ids=sorted(documents)):
        found.setdefault(document_id, []).append(Stamping(*columns))
    return found


def _put(engine: str) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, Stamp.document_id.expression, "ids")
    columns = (Stamp.document_id, Stamp.id, Stamp.member_id, Stamp.card_id)
    rows = select(*columns, StampCardRow.code, Stamp.stamps, Stamp.points)
    rows = rows.join(StampCardRow, StampCardRow.id == Stamp.card_id)
    return rows.where(mine, Stamp.of_id.is_(None)).order_by(Stamp.id)


def put_on(session: Session, card_ids: Collection[UUID]) -> dict[UUID, list[UUID]]:
    """By card, the ids of what purchases put on it."""
    found: dict[UUID, list[UUID]] = {id_: [] for id_ in card_ids}
    for card_id, id_ in db.found(session, _on, ids=sorted(card_ids)) if card_ids else ():
        found[card_id].append(id_)
    return found


def _on(engine: str) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, Stamp.card_id.expression, "ids")
    return select(Stamp.card_id, Stamp.id).where(mine, Stamp.of_id.is_(None)).order_by(Stamp.id)


def filled(session: Session, member_id: UUID) -> Mapping[str, int]:
    """How many cards of each code a member has filled."""
    rows = select(StampCardRow.code, func.count()).where(
        StampCardRow.member_id == member_id, StampCardRow.full_at.is_not(None)
    )
    return dict(session.execute(rows.group_by(StampCardRow.code)).all())
