"""The wire of points, wherever a balance is answered."""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Annotated, TypeVar
from uuid import UUID

from pydantic import Field

from app.ledger.models import Lot, PointEntry
from app.ledger.queries import Ladder
from app.ledger.rules import Standing
from app.paging import decode, page
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


class StandingOut(Answer):
    """A member's balance as of `at`, what expires next, and counters that never fall by spending."""

    member_id: UUID
    at: Stamp
    balance: BalanceOut
    qualifying: int
    lifetime: int
    expiring_next: ExpiringOut | None


def standing_out(standing: Standing, at: datetime) -> StandingOut:
    return StandingOut(
        member_id=standing.member_id,
        at=at,
        balance=balance_out(standing),
        qualifying=standing.qualifying,
        lifetime=standing.lifetime,
        expiring_next=expiring_out(standing),
    )


class EntryOut(Answer):
    """One movement. `document_id` is the transaction, or the claim of one, it came from."""

    id: UUID
    number: int
    kind: str
    points: int
    balance_after: int
    document_id: UUID
    occurred_at: Stamp
    recorded_at: Stamp


class EntryPage(Answer):
    items: list[EntryOut]
    next: str | None


def entry_page(rows: Sequence[PointEntry], limit: int) -> EntryPage:
    """A page of `rows`, which were asked for with `limit + 1`."""
    found = page(rows, limit, lambda row: [row.number])
    return EntryPage(items=[EntryOut.model_validate(row) for row in found.rows], next=found.next)


def entry_cursor(cursor: str | None) -> int | None:
    """The number of the entry a page begins before. CursorInvalid if it is not one of ours."""
    return None if cursor is None else decode(cursor, _number)[0]


def _number(text: str) -> int:
    number = int(text)
    if not 0 < number < 2**53:
        raise ValueError(text)
    return number


class LotOut(Answer):
    """Points earned together, as the member sees them."""

    id: UUID
    granted: int
    remaining: int
    available_from: Stamp
    expires_at: Stamp | None
    document_id: UUID
    occurred_at: Stamp
    recorded_at: Stamp


class BookedLotOut(LotOut):
    """Points earned together, and the money behind them. `allocated` is what was deferred for them, in minor units;
    `allocated_exact` the share before rounding, as a decimal of minor units."""

    currency: str
    allocated: int
    allocated_exact: Annotated[str, Field(examples=["197.368421"])]
    cohort_id: UUID


class _Laddered(Answer):
    next: str | None
    expiring: list[ExpiringOut]
    stay: int


class LotPage(_Laddered):
    """Lots, and when open points expire: the steps and `stay` sum to the available balance."""

    items: list[LotOut]


class BookedLotPage(_Laddered):
    """Lots with the money behind them, and when open points expire: the steps and `stay` sum to the available
    balance."""

    items: list[BookedLotOut]


L = TypeVar("L", LotPage, BookedLotPage)


def lot_page(form: type[L], rows: Sequence[Lot], ladder: Ladder, limit: int) -> L:
    """A page of `rows`, which were asked for with `limit + 1`, without or with the money."""
    found = page(rows, limit, lambda row: [str(row.id)])
    return form.model_validate({"items": found.rows, "next": found.next, "expiring": ladder.steps, "stay": ladder.stay})


def lot_cursor(cursor: str | None) -> UUID | None:
    """The id of the lot a page begins after. CursorInvalid if it is not one of ours."""
    return None if cursor is None else decode(cursor, UUID)[0]
