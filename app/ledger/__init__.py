"""The ledger of points: the only place a balance changes.

Owns accounts, lots and entries. The way of a batch: `claim` the accounts (they are locked until the transaction
ends) and get each one's `Standing`; decide with `accrue`, which is pure and answers the standing that follows and the
rows it means; hand all of that to `write`, once. A dry run stops before `write`.
"""

from app.ledger.queries import Ladder, entries, expiry_ladder, lots, standings
from app.ledger.rules import (
    MOST_GRANTED,
    MOST_POINTS,
    Accrual,
    Expiring,
    Granted,
    InsufficientPoints,
    Standing,
    TooManyPoints,
    accrue,
    new_standing,
)
from app.ledger.schemas import BalanceOut, ExpiringOut, balance_out, expiring_out
from app.ledger.service import claim, open_accounts, write

__all__ = [
    "MOST_GRANTED",
    "MOST_POINTS",
    "Accrual",
    "BalanceOut",
    "Expiring",
    "ExpiringOut",
    "Granted",
    "InsufficientPoints",
    "Ladder",
    "Standing",
    "TooManyPoints",
    "accrue",
    "balance_out",
    "claim",
    "entries",
    "expiring_out",
    "expiry_ladder",
    "lots",
    "new_standing",
    "open_accounts",
    "standings",
    "write",
]
