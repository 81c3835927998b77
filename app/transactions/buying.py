"""What members have bought, for whoever gives them something for it, or for staying away."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, Select, select
from sqlalchemy.orm import Session, aliased

from app import db
from app.transactions.models import Transaction, TransactionClaim

_IDS = (("id", Transaction.id.type),)


def last_purchases(session: Session, member_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """When each of these members bought last, of those who have: guests' purchases that they claimed are theirs, and
    what was voided did not happen."""
    if not member_ids:
        return {}
    rows = db.found(session, _last, **db.rows_of(session, _IDS, [(id_,) for id_ in sorted(member_ids)]))
    return {row.id: max(each for each in (row.own, row.claimed) if each) for row in rows if row.own or row.claimed}


def _last(engine: str) -> Select[*tuple[Any, ...]]:
    """One look into an index for each member, however much they have bought."""
    wanted = db.given(engine, _IDS)
    at = Transaction.occurred_at
    own = select(at).where(Transaction.member_id == wanted.c.id, Transaction.type == "purchase", _not_voided())
    claimed = select(at).join(TransactionClaim, TransactionClaim.transaction_id == Transaction.id)
    claimed = claimed.where(TransactionClaim.member_id == wanted.c.id, _not_voided())
    return select(wanted.c.id, _latest(own).label("own"), _latest(claimed).label("claimed"))


def _latest(rows: Select[Any]) -> ScalarSelect[Any]:
    return rows.order_by(Transaction.occurred_at.desc()).limit(1).scalar_subquery()


def _not_voided() -> ColumnElement[bool]:
    void = aliased(Transaction)
    return ~select(void.id).where(void.type == "void", void.original_id == Transaction.id).exists()
