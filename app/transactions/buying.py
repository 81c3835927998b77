"""What members have bought: for whoever gives them something for it, or for staying away, or asks who brought them."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, Select, func, select
from sqlalchemy.orm import Session, aliased

from app import db, ledger, members
from app.campaigns import Bought
from app.errors import NotFound
from app.members import MemberRef, MemberReferral
from app.transactions.customers import customers
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


def kept_purchases(session: Session, member_ids: Collection[UUID]) -> dict[UUID, list[Bought]]:
    """What these members have bought, claimed purchases too, and what is left of each after returns; oldest first."""
    theirs = db.any_of(session, Transaction.member_id.expression, sorted(member_ids))
    claimed = db.any_of(session, TransactionClaim.member_id.expression, sorted(member_ids))
    back = aliased(Transaction)
    returned = select(func.sum(back.total)).where(back.purchase_id == Transaction.id).scalar_subquery()
    figures = (Transaction.id, Transaction.occurred_at, Transaction.total, returned)
    own = select(Transaction.member_id, *figures).where(Transaction.type == "purchase", theirs)
    later = select(TransactionClaim.member_id, *figures).join(
        TransactionClaim, TransactionClaim.transaction_id == Transaction.id
    )
    rows = [*session.execute(own), *session.execute(later.where(claimed))]
    found: dict[UUID, list[Bought]] = {member_id: [] for member_id in member_ids}
    for member_id, _, at, total, came_back in sorted(rows, key=lambda row: (row[2], row[1])):
        found[member_id].append(Bought(at, total - int(came_back or 0)))
    return found


def refer(session: Session, program_id: UUID, member_id: UUID, referrer: MemberRef, now: datetime) -> MemberReferral:
    """Notes down who brought a member, before the member's first purchase. IdentifierInvalid, UnknownMember, and the
    refusals of `members.refer`."""
    if members.status_in(session, program_id, member_id) is None:
        raise NotFound
    (referrer_id,) = members.named(
        session, program_id, {"referrer": referrer}, members.phone_region(session, program_id, now)
    )
    ledger.lock(session, [member_id])  # purchases take their turn
    bought = customers(session, [member_id])[member_id].bought
    return members.refer(session, program_id, member_id, referrer_id, now, bought=bought)


def _latest(rows: Select[Any]) -> ScalarSelect[Any]:
    return rows.order_by(Transaction.occurred_at.desc()).limit(1).scalar_subquery()


def _not_voided() -> ColumnElement[bool]:
    void = aliased(Transaction)
    return ~select(void.id).where(void.type == "void", void.original_id == Transaction.id).exists()
