"""Transactions: what a till posts, and what it earns.

Owns purchases, their natural keys, and the claims by which a guest's purchase gets its points later. `record` takes
any number of purchases and answers an outcome for each, in order; one batch runs the same number of SQL statements
whatever its size. A purchase is recorded at most once per (source, external id, type), for ever.
"""

from app.transactions.claims import claim
from app.transactions.concessions import Order, by_id, by_key, concede, conceded, find_order
from app.transactions.return_rules import cost_of
from app.transactions.rules import CurrencyMismatch, Purchase, act_of
from app.transactions.schemas import ExternalId, PostingOut, PurchaseIn, Source, TransactionOut
from app.transactions.service import Recorded, record

__all__ = [
    "CurrencyMismatch",
    "ExternalId",
    "Order",
    "PostingOut",
    "Purchase",
    "PurchaseIn",
    "Recorded",
    "Source",
    "TransactionOut",
    "act_of",
    "by_id",
    "by_key",
    "claim",
    "concede",
    "conceded",
    "cost_of",
    "find_order",
    "record",
]
