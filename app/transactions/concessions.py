"""Concessions: points given for purchases that went wrong, as a part of their price (IFRS 15.51).

Whoever gives them finds the orders here and notes them down; returns take them back with it, in proportion.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app import db, ledger, programs
from app.transactions import return_rules, returns
from app.transactions.models import Transaction, TransactionConcession, TransactionKey
from app.transactions.returns import Fields, Returnable


@dataclass(frozen=True, slots=True)
class Order:
    """A purchase that something may be conceded on.

    `key`: its source and external id. `price_left` is what was paid for the goods that the customer still has, in money
    and net of VAT: minor units of `currency`. `member_id` is whose purchase it is; None for a guest's that nobody has
    claimed.
    """

    id: UUID
    key: tuple[str, str]
    member_id: UUID | None
    currency: str
    price_left: int


def by_keys(session: Session, keys: Collection[tuple[str, str]]) -> ColumnElement[bool]:
    """The purchases with these natural keys, for `find_orders`."""
    columns = [TransactionKey.source.expression, TransactionKey.external_id.expression]
    return db.any_row_of(session, columns, sorted(keys))


def by_ids(session: Session, transaction_ids: Collection[UUID]) -> ColumnElement[bool]:
    """The purchases with these ids, for `find_orders`."""
    return db.any_of(session, TransactionKey.transaction_id.expression, sorted(transaction_ids))


def find_orders(session: Session, program_id: UUID, wanted: ColumnElement[bool], *, lock: bool) -> list[Returnable]:
    """Those purchases of the programme that there are. With `lock` the returns of guests' wait until the transaction
    ends; those of members' wait for the account."""
    purchases = (
        select(*Transaction.__table__.c)
        .join(TransactionKey, TransactionKey.transaction_id == Transaction.id)
        .where(TransactionKey.program_id == program_id, TransactionKey.type == "purchase", wanted)
    )
    rows = {
        (row["source"], row["external_id"], row["type"]): row for row in session.execute(purchases).mappings().all()
    }
    return list(returns.load(session, rows, programs.timeline(session, program_id), lock=lock).values())


def orders(session: Session, found: Sequence[Returnable]) -> list[Order]:
    """What `find_orders` has found, with what is left of it. To be called when the members' accounts are claimed."""
    past = returns.past_of(session, found)
    return [_order(known, past[known.purchase["id"]]) for known in found]


def _order(known: Returnable, past: Sequence[Fields]) -> Order:
    row = known.row
    left = return_rules.whole(known.basket, known.version.terms).less(return_rules.before(past).figures)
    return Order(row["id"], (row["source"], row["external_id"]), known.member_id, row["currency"], left.consideration)


def conceded(session: Session, about: Collection[Order]) -> dict[UUID, int]:
    """By order, what has been put aside for concessions on it and not been taken back, minor units.

    To be called when the members' accounts are claimed.
    """
    chosen = db.any_of(session, TransactionConcession.purchase_id.expression, sorted(order.id for order in about))
    given = select(TransactionConcession.document_id, TransactionConcession.purchase_id).where(chosen)
    order_of: dict[UUID, UUID] = dict(session.execute(given).all())
    found = {order.id: 0 for order in about}
    for document_id, lots in ledger.granted_lots(session, sorted(order_of)).items():
        found[order_of[document_id]] += sum(lot.allocated - lot.returned_allocated for lot in lots)
    return found


def concede(session: Session, given: Sequence[tuple[UUID, Order]], now: datetime) -> None:
    """Notes down which documents gave points for which orders, so that returns take them back."""
    rows = [
        {"document_id": document_id, "purchase_id": order.id, "price_left": order.price_left, "recorded_at": now}
        for document_id, order in given
    ]
    db.insert_rows(session, TransactionConcession, rows)
