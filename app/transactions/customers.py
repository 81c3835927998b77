"""What earning rules may ask about members: their profiles, and whether they have bought before."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from app import db, members
from app.programs import Customer
from app.transactions.models import Transaction, TransactionClaim

_IDS = (("id", Transaction.id.type),)


def customers(session: Session, member_ids: Collection[UUID]) -> dict[UUID, Customer]:
    """These members, as rules see them. To be called when their accounts are claimed."""
    if not member_ids:
        return {}
    wanted = sorted(member_ids)
    profiles = members.customers(session, wanted)
    bought = _bought(session, wanted)
    return {
        id_: Customer(id_ in bought, known.born_on, known.attributes, known.segments)
        for id_ in wanted
        for known in [profiles.get(id_, Customer(False))]
    }


def _bought(session: Session, member_ids: Sequence[UUID]) -> set[UUID]:
    rows = db.found(session, _buyers, **db.rows_of(session, _IDS, [(id_,) for id_ in member_ids]))
    return {row.id for row in rows}


def _buyers(engine: str) -> Select[*tuple[Any, ...]]:
    """One look into an index for each member, however much they have bought."""
    wanted = db.given(engine, _IDS)
    purchase = select(Transaction.id).where(Transaction.member_id == wanted.c.id, Transaction.type == "purchase")
    claim = select(TransactionClaim.id).where(TransactionClaim.member_id == wanted.c.id)
    return select(wanted.c.id).where(or_(purchase.exists(), claim.exists()))
