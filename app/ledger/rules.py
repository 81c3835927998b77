"""How a balance changes. Pure: a standing and a movement in, the next standing and the rows to write out."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from app.errors import Problem
from app.ids import new_id

MOST_POINTS = 2**53 - 1
"""The largest balance; every reader of JSON keeps it exactly."""


MOST_GRANTED = 10**10
"""The largest lot: what a batch of 500 expects to be used, in millionths of a point, still is a 64-bit number."""


class TooManyPoints(Problem):
    """The points would pass the largest number that all parties can hold exactly (2^53 - 1; 10^10 at once)."""

    status, code, title, final = 422, "too_many_points", "That is more points than an account can hold", True


class InsufficientPoints(Problem):
    """Fewer points can be spent than this takes; `missing` says how many more it needs."""

    status, code, title, final = 422, "insufficient_points", "There are not enough points", True


@dataclass(frozen=True, slots=True)
class Expiring:
    """Points that expire together, and the instant from which they are gone."""

    points: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """A member's account at one instant, points. What is due has happened: `due` is subtracted from what can be spent.

    `booked` counts available points as last written down; `due` is the part of it that has expired since.
    """

    member_id: UUID
    booked: int
    held: int
    pending: int
    debt: int
    qualifying: int
    lifetime: int
    last_entry: int
    next_due_at: datetime | None
    due: int
    expiring_next: Expiring | None

    @property
    def available(self) -> int:
        return self.booked - self.due


def new_standing(member_id: UUID) -> Standing:
    """An account without a movement."""
    return Standing(member_id, 0, 0, 0, 0, 0, 0, 0, None, 0, None)


@dataclass(frozen=True, slots=True)
class Accrual:
    """Points to grant as one lot, with the money deferred for them.

    `allocated` is in minor units of `currency`, `residue` in millionths of one (`accounting.Allocation`).
    `document_id` is what granted them: a transaction, or the claim of one.
    """

    member_id: UUID
    points: int
    document_id: UUID
    cohort_id: UUID
    currency: str
    allocated: int
    residue: int
    expected: int
    """Millionths of a point expected to be used."""
    occurred_at: datetime
    recorded_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Granted:
    """The rows an accrual means: one lot and the entry that made it."""

    lot: dict[str, Any]
    entry: dict[str, Any]


def accrue(standing: Standing, accrual: Accrual) -> tuple[Standing, Granted]:
    """The standing after `accrual` (1 to `MOST_GRANTED` points), and its rows. TooManyPoints beyond
    `MOST_POINTS` in all."""
    booked = standing.booked + accrual.points
    if booked > MOST_POINTS or standing.lifetime + accrual.points > MOST_POINTS:
        raise TooManyPoints
    number = standing.last_entry + 1
    entry_id, lot_id = new_id(), new_id()
    times = {"occurred_at": accrual.occurred_at, "recorded_at": accrual.recorded_at}
    entry = {
        "member_id": accrual.member_id,
        "id": entry_id,
        "number": number,
        "kind": "accrual",
        "points": accrual.points,
        "balance_after": booked,
        "document_id": accrual.document_id,
        **times,
    }
    lot = {
        "member_id": accrual.member_id,
        "id": lot_id,
        "entry_id": entry_id,
        "granted": accrual.points,
        "remaining": accrual.points,
        "available_from": accrual.occurred_at,
        "expires_at": accrual.expires_at,
        "cohort_id": accrual.cohort_id,
        "currency": accrual.currency,
        "allocated": accrual.allocated,
        "residue": accrual.residue,
        "expected": accrual.expected,
        "document_id": accrual.document_id,
        **times,
    }
    after = replace(
        standing,
        booked=booked,
        qualifying=standing.qualifying + accrual.points,
        lifetime=standing.lifetime + accrual.points,
        last_entry=number,
        **_expiry_after(standing, accrual),
    )
    return after, Granted(lot, entry)


def _expiry_after(standing: Standing, accrual: Accrual) -> dict[str, Any]:
    at, first = accrual.expires_at, standing.expiring_next
    if at is None:
        return {}
    earliest = at if standing.next_due_at is None else min(standing.next_due_at, at)
    if at <= accrual.recorded_at:  # a late upload whose points have expired before they arrived
        return {"next_due_at": earliest, "due": standing.due + accrual.points}
    if first is None or at < first.at:
        first = Expiring(accrual.points, at)
    elif at == first.at:
        first = Expiring(first.points + accrual.points, at)
    return {"next_due_at": earliest, "expiring_next": first}
