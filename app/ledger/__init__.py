"""The ledger of points: the only place a balance changes.

Owns accounts, lots, entries and holds. The way of a batch: `claim` the accounts (they are locked until the transaction
ends; what is due has happened to them); decide with pure verbs that take an `Account` and answer the next one
(`accrue`; `spend`, `hold`, `capture`, `release`, `transfer`, `extend`, `activate`, `cancel`; `reverse`, `restore`,
`undo`, `spend_again`, `reinstate`, `write_off`); hand the accounts to `write`, once. Cohorts learn from `write` what
was issued, used, expired and returned; only the journal is left to the caller. A dry run takes the accounts from
`look` and stops before `write`.
"""

from app.ledger.models import Hold, Lot, PointEntry
from app.ledger.queries import (
    Ladder,
    Payment,
    entries,
    expiry_ladder,
    granted_lots,
    lots,
    payments,
    reversals,
    spent_parts,
)
from app.ledger.returning import (
    GrantedLot,
    Reversal,
    Reversed,
    SpentPart,
    reinstate,
    restore,
    reverse,
    spend_again,
    undo,
    write_off,
)
from app.ledger.rules import (
    MOST_GRANTED,
    MOST_POINTS,
    Account,
    Accrual,
    Act,
    Expiring,
    InsufficientPoints,
    OpenLot,
    TooManyPoints,
    accrue,
    settle,
)
from app.ledger.schemas import BalanceOut, ExpiringOut, balance_out, expiring_out
from app.ledger.service import claim, lock, look, open_accounts, write
from app.ledger.spending import (
    CaptureAboveHold,
    HoldEnded,
    activate,
    awaiting,
    cancel,
    capture,
    extend,
    hold,
    release,
    spend,
    transfer,
)

__all__ = [
    "MOST_GRANTED",
    "MOST_POINTS",
    "Account",
    "Accrual",
    "Act",
    "BalanceOut",
    "CaptureAboveHold",
    "Expiring",
    "ExpiringOut",
    "GrantedLot",
    "Hold",
    "HoldEnded",
    "InsufficientPoints",
    "Ladder",
    "Lot",
    "OpenLot",
    "Payment",
    "PointEntry",
    "Reversal",
    "Reversed",
    "SpentPart",
    "TooManyPoints",
    "accrue",
    "activate",
    "awaiting",
    "balance_out",
    "cancel",
    "capture",
    "claim",
    "entries",
    "expiring_out",
    "expiry_ladder",
    "extend",
    "granted_lots",
    "hold",
    "lock",
    "look",
    "lots",
    "open_accounts",
    "payments",
    "reinstate",
    "release",
    "restore",
    "reversals",
    "reverse",
    "settle",
    "spend",
    "spend_again",
    "spent_parts",
    "transfer",
    "undo",
    "write",
    "write_off",
]
