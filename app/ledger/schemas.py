"""The wire of points, wherever a balance is answered."""

from datetime import UTC, tzinfo

from app.ledger.rules import Standing
from app.wire import Answer, Stamp


class ExpiringOut(Answer):
    points: int
    at: Stamp


class BalanceOut(Answer):
    """Points. `available` can be spent now; `held` of them are reserved; `pending` are not available yet; `debt` is
    owed and will be taken from the next points."""

    available: int
    held: int
    pending: int
    debt: int


def balance_out(standing: Standing) -> BalanceOut:
    return BalanceOut(available=standing.available, held=standing.held, pending=standing.pending, debt=standing.debt)


def expiring_out(standing: Standing, zone: tzinfo | None = None) -> ExpiringOut | None:
    """What expires next, with the offset of `zone` (UTC for None)."""
    first = standing.expiring_next
    return None if first is None else ExpiringOut(points=first.points, at=first.at.astimezone(zone or UTC))
