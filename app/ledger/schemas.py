"""The wire of points, wherever a balance is answered."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Literal, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from pydantic import Field

from app.edge import Now
from app.errors import Finding, InvalidRequest
from app.ledger.history import Past
from app.ledger.models import Lot, PointEntry
from app.ledger.queries import expiry_ladder
from app.ledger.rules import Account, Effect, Kind, OpenLot
from app.paging import decode, page
from app.wire import Answer, Stamp, WireInstant


async def _past(
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


LotEffect = Literal[Effect, "granted", "held"]


class PlannedLot(Answer):
    """What an entry would do to one lot. `points` is the lot's change, negative when they are taken from it. The effect
    says what became of them: `used`, `expired`, `returned` (as if never granted), `moved` to another lot; when they
    come back, which of these is undone. `granted`: the lot is new. `held`: they are reserved and stay in the lot;
    `points` is how many."""

    lot_id: Annotated[UUID | None, Field(description="null: the lot would be new")]
    points: int
    effect: LotEffect
    expires_at: Annotated[Stamp | None, Field(description="When the lot expires, or lapses as things are; null: never")]


class PlannedEntry(Answer):
    """An entry that a dry run would make, as in the list of a member's entries; what is new has no id yet. Less what is
    `held`, the changes of its `lots` sum to available + held + pending."""

    member_id: Annotated[UUID | None, Field(description="null: a member who would be enrolled")]
    kind: Kind
    points: int
    available: int
    held: int
    pending: int
    debt: int
    balance_after: int
    occurred_at: Stamp
    lots: list[PlannedLot]


PlannedEntries = Annotated[
    list[PlannedEntry] | None,
    Field(
        description="What a dry run would write into the ledger, what was due before included; null: it is no dry run"
    ),
]
"""The ledger's part of an answer to what can be a dry run."""


def planned_entries(account: Account, *, after: int = 0, enrolled: bool = False) -> list[PlannedEntry]:
    """What was decided for `account` and is not written, from the entry after number `after` on.

    `enrolled`: the dry run would make them a member, who has no id yet.
    """
    entries = [entry for entry in account.rows.entries if entry["number"] > after]
    lots = _planned_lots(account, {entry["id"] for entry in entries})
    names = ("kind", "points", "available", "held", "pending", "debt", "balance_after")
    return [
        PlannedEntry(
            member_id=None if enrolled else account.member_id,
            **{name: entry[name] for name in names},
            occurred_at=entry["occurred_at"].astimezone(UTC),
            lots=lots[entry["id"]],
        )
        for entry in entries
    ]


def _planned_lots(account: Account, entry_ids: set[UUID]) -> dict[UUID, list[PlannedLot]]:
    """By entry: what it does to which lots."""
    new = {row["id"] for row in account.rows.lots}
    planned: dict[UUID, list[PlannedLot]] = defaultdict(list)
    for entry_id, lot, points, effect in _lot_changes(account):
        if entry_id in entry_ids:
            lot_id, expiry = None if lot.id in new else lot.id, account.expiry_of(lot)
            expires_at = None if expiry is None else expiry.astimezone(UTC)
            planned[entry_id].append(PlannedLot(lot_id=lot_id, points=points, effect=effect, expires_at=expires_at))
    return planned


def _lot_changes(account: Account) -> Iterable[tuple[UUID, OpenLot, int, LotEffect]]:
    for entry_id, _, use in account.rows.uses:
        yield entry_id, use.lot, -use.points, use.effect
    for row in account.rows.lots:
        yield row["entry_id"], account.lots[row["id"]], row["granted"], "granted"
    for row in account.rows.holds:
        for lot_id, points in row["parts"]:
            yield row["entry_id"], account.lots[lot_id], points, "held"


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


def lot_page(form: type[L], rows: Sequence[Lot], account: Account, limit: int) -> L:
    """A page of `rows`, which were asked for with `limit + 1`, without or with the money.

    They are shown as `account` has them, which was loaded with its lots: what is due has happened to them.
    """
    found, ladder = page(rows, limit, lambda row: [str(row.id)]), expiry_ladder(account)
    answer = form.model_validate(
        {"items": found.rows, "next": found.next, "expiring": ladder.steps, "stay": ladder.stay}
    )
    return answer.model_copy(update={"items": [_as_it_is(item, account) for item in answer.items]})


def _as_it_is(item: LotOut, account: Account) -> LotOut:
    lot = account.lots.get(item.id)
    if lot is None:  # all of it is gone
        return item
    return item.model_copy(update={"remaining": lot.remaining, "held": lot.held, "pending": lot.pending})


def lot_cursor(cursor: str | None) -> UUID | None:
    """The id of the lot a page begins after. CursorInvalid if it is not one of ours."""
    return None if cursor is None else decode(cursor, UUID)[0]
