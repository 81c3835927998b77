"""Transactions: what a till posts, and what it earns.

Owns purchases, their natural keys, and the claims by which a guest's purchase gets its points later. `record` takes
any number of purchases and answers an outcome for each, in order; one batch runs the same number of SQL statements
whatever its size. A purchase is recorded at most once per (source, external id, type), for ever.
Returns that wait for their purchase are applied with it; `arrived_returns` and `apply_waiting` find those that
crossed with it, `overdue_returns` and `alarm_waiting` tell of those that wait for too long.
"""

from app.transactions.buying import kept_purchases, last_purchases
from app.transactions.claims import claim
from app.transactions.concessions import Order, by_ids, by_keys, concede, conceded, find_orders, orders
from app.transactions.rules import CurrencyMismatch, Purchase, act_of
from app.transactions.schemas import PurchaseIn, TransactionOut
from app.transactions.service import Recorded, apply_waiting, record
from app.transactions.waiting import alarm as alarm_waiting
from app.transactions.waiting import arrived as arrived_returns
from app.transactions.waiting import overdue as overdue_returns

__all__ = [
    "CurrencyMismatch",
    "Order",
    "Purchase",
    "PurchaseIn",
    "Recorded",
    "TransactionOut",
    "act_of",
    "alarm_waiting",
    "apply_waiting",
    "arrived_returns",
    "by_ids",
    "by_keys",
    "claim",
    "concede",
    "conceded",
    "find_orders",
    "kept_purchases",
    "last_purchases",
    "orders",
    "overdue_returns",
    "record",
]
