"""Transactions: what a till posts, and what it earns.

Owns purchases, their natural keys, and the claims by which a guest's purchase gets its points later. `record` takes
any number of purchases and answers an outcome for each, in order; one batch runs the same number of SQL statements
whatever its size. A purchase is recorded at most once per (source, external id, type), for ever.
"""

from app.transactions.claims import claim
from app.transactions.rules import Purchase
from app.transactions.schemas import PurchaseIn, TransactionOut
from app.transactions.service import Recorded, record

__all__ = ["Purchase", "PurchaseIn", "Recorded", "TransactionOut", "claim", "record"]
