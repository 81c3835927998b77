"""The wire of points, wherever a balance is answered."""

from datetime import UTC, tzinfo

from app.ledger.rules import Account
from app.wire import Answer, Stamp


class ExpiringOut(Answer):
    points: int
    at: Stamp


class BalanceOut(Answer):
    """Points. `available` can be spent now; `held` are reserved for a spend; `pending` are not available yet; `debt` is
    owed and will be taken from the next points. The balance is available + held + pending - debt."""

    available: int
    held: int
    pending: int
    debt: int


def balance_out(account: Account) -> BalanceOut:
    return BalanceOut(available=account.available, held=account.held, pending=account.pending, debt=account.debt)


def expiring_out(account: Account, zone: tzinfo | None = None) -> ExpiringOut | None:
    """What expires next, with the offset of `zone` (UTC for None)."""
    first = account.expiring_next
    return None if first is None else ExpiringOut(points=first.points, at=first.at.astimezone(zone or UTC))
