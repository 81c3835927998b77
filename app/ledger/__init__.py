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
    Standing,
    TooManyPoints,
    accrue,
    new_standing,
)
from app.ledger.schemas import (
    BalanceOut,
    BookedLotPage,
    EntryPage,
    ExpiringOut,
    LotPage,
    StandingOut,
    balance_out,
    entry_cursor,
    entry_page,
    expiring_out,
    lot_cursor,
    lot_page,
    standing_out,
)
from app.ledger.service import claim, open_accounts, write

__all__ = [
    "MOST_GRANTED",
    "MOST_POINTS",
    "Accrual",
    "BalanceOut",
    "BookedLotPage",
    "EntryPage",
    "Expiring",
    "ExpiringOut",
    "Granted",
    "Ladder",
    "LotPage",
    "Standing",
    "StandingOut",
    "TooManyPoints",
    "accrue",
    "balance_out",
    "claim",
    "entries",
    "entry_cursor",
    "entry_page",
    "expiring_out",
    "expiry_ladder",
    "lot_cursor",
    "lot_page",
    "lots",
    "new_standing",
    "open_accounts",
    "standing_out",
    "standings",
    "write",
]
