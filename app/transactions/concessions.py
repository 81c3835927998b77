"""Concessions: points given for a purchase that went wrong, as a part of its price (IFRS 15.51).

Whoever gives them finds the order here and notes them down; its returns take them back with it, in proportion.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app import db, ledger, programs
from app.transactions import return_rules, returns
from app.transactions.models import Transaction, TransactionConcession, TransactionKey


@dataclass(frozen=True, slots=True)
class Order:
    """A purchase that something may be conceded on.

    `price_left` is what was paid for the goods that the customer still has, in money and net of VAT: minor units of
    `currency`. `member_id` is whose purchase it is; None for a guest's that nobody has claimed.
    """

    id: UUID
    member_id: UUID | None
    currency: str
    price_left: int


def by_key(source: str, external_id: str) -> ColumnElement[bool]:
    """The purchase with this natural key, for `find_order`."""
    return (TransactionKey.source == source) & (TransactionKey.external_id == external_id)


def by_id(transaction_id: UUID) -> ColumnElement[bool]:
    """The purchase with this id, for `find_order`."""
    return TransactionKey.transaction_id == transaction_id


def find_order(session: Session, program_id: UUID, wanted: ColumnElement[bool], *, lock: bool) -> Order | None:
    """A purchase of the programme, if there is one. With `lock` its returns wait until the transaction ends."""
    purchases = (
        select(*Transaction.__table__.c)
        .join(TransactionKey, TransactionKey.transaction_id == Transaction.id)
        .where(TransactionKey.program_id == program_id, TransactionKey.type == "purchase", wanted)
    )
    row = session.execute(purchases).mappings().one_or_none()
    if row is None:
        return None
    key = (row["source"], row["external_id"], row["type"])
    known = returns.load(session, {key: row}, programs.timeline(session, program_id), lock=lock)[key]
    left = return_rules.whole(known.basket, known.version.terms).less(return_rules.before(known.past).figures)
    return Order(row["id"], known.member_id, row["currency"], left.consideration)


def conceded(session: Session, order: Order) -> int:
    """What has been put aside for concessions on an order and not been taken back, minor units.

    To be called when the member's account is claimed.
    """
    given = select(TransactionConcession.document_id).where(TransactionConcession.purchase_id == order.id)
    lots = ledger.granted_lots(session, session.scalars(given).all())
    return sum(lot.allocated - lot.returned_allocated for granted in lots.values() for lot in granted)


def concede(session: Session, order: Order, document_id: UUID, now: datetime) -> None:
    """Notes down that `document_id` gave points for `order`, so that its returns take them back."""
    row = {"document_id": document_id, "purchase_id": order.id, "price_left": order.price_left, "recorded_at": now}
    db.insert_rows(session, TransactionConcession, [row])
