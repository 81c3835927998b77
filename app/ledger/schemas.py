"""The wire of points, wherever a balance is answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from pydantic import Field

from app.edge import Now
from app.errors import Finding, InvalidRequest
from app.ledger.models import Lot, PointEntry
from app.ledger.queries import Ladder
from app.ledger.rules import Account, Kind
from app.paging import decode, page
from app.wire import Answer, Stamp, WireInstant


@dataclass(frozen=True, slots=True)
class Past:
    """Which past is asked for: how it was as of one instant, as known at another."""

    as_of: datetime
    known_at: datetime


def _past(
    now: Now,
    as_of: Annotated[WireInstant | None, Query(description="How it was then; now without it")] = None,
    known_at: Annotated[WireInstant | None, Query(description="What had been recorded by then; all without it")] = None,
) -> Past | None:
    """The past that a request asks for; None for the present. InvalidRequest for the future."""
    given = {"as_of": as_of, "known_at": known_at}
    ahead = [name for name, instant in given.items() if instant is not None and instant > now]
    if ahead:
        raise InvalidRequest(findings=[Finding(name, "in_future", "later than the service's clock") for name in ahead])
    if as_of is None and known_at is None:
        return None
    return Past((as_of or now).astimezone(UTC), (known_at or now).astimezone(UTC))


AskedPast = Annotated[Past | None, Depends(_past)]


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


class StandingOut(Answer):
    """A member's balance as of `at`, what expires next, and counters that never fall by spending."""

    member_id: UUID
    at: Stamp
    balance: BalanceOut
    qualifying: int
    lifetime: int
    expiring_next: ExpiringOut | None


def standing_out(account: Account, at: datetime) -> StandingOut:
    return StandingOut(
        member_id=account.member_id,
        at=at,
        balance=balance_out(account),
        qualifying=account.qualifying,
        lifetime=account.lifetime,
        expiring_next=expiring_out(account),
    )


class EntryOut(Answer):
    """One movement: by how much each figure changed. `points` is the change of the balance (available + held + pending
    - debt), `balance_after` the balance. `document_id` is what caused it: a transaction, the claim of one, a
    redemption, a hold, an adjustment, a transfer; what time alone caused is its own document."""

    id: UUID
    number: int
    kind: Kind
    points: int
    available: int
    held: int
    pending: int
    debt: int
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
    held: Annotated[int, Field(description="The part of `remaining` that is reserved")]
    pending: bool
    available_from: Annotated[Stamp | None, Field(description="null: when an event comes")]
    expires_at: Stamp | None
    lapses: Annotated[bool, Field(description="Whether they go when the member is inactive for long")]
    document_id: UUID
    source_lot_id: Annotated[UUID | None, Field(description="The lot the points were in before")]
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
    """Lots, and when open points expire: the steps and `stay` sum to available + held +
    pending."""

    items: list[LotOut]


class BookedLotPage(_Laddered):
    """Lots with the money behind them, and when open points expire: the steps and `stay` sum to available +
    held + pending."""

    items: list[BookedLotOut]


L = TypeVar("L", LotPage, BookedLotPage)


def lot_page(form: type[L], rows: Sequence[Lot], ladder: Ladder, limit: int) -> L:
    """A page of `rows`, which were asked for with `limit + 1`, without or with the money."""
    found = page(rows, limit, lambda row: [str(row.id)])
    return form.model_validate({"items": found.rows, "next": found.next, "expiring": ladder.steps, "stay": ladder.stay})


def lot_cursor(cursor: str | None) -> UUID | None:
    """The id of the lot a page begins after. CursorInvalid if it is not one of ours."""
    return None if cursor is None else decode(cursor, UUID)[0]
