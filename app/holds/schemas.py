"""The wire of holds."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.holds.rules import Status
from app.ledger import BalanceOut, ExpiringOut, PlannedEntries
from app.members import MemberRef
from app.wire import Answer, Points, Request, Stamp, Text


class HoldIn(Request):
    """Points to hold for a spend that is to come."""

    member: MemberRef
    points: Points
    minutes: Annotated[
        int | None, Field(ge=1, le=527_040, description="How long; `holds.default_minutes` of the terms without it")
    ] = None
    reference: Annotated[
        Text | None, Field(description="Your own number of what they are held for; never changes, so no person's name")
    ] = None


class CaptureIn(Request):
    """How much of a hold to spend."""

    points: Annotated[Points | None, Field(description="All of them without it; the rest is free again")] = None


class HoldOut(Answer):
    """A hold as it stands. `captured` of its points were spent; one whose time is up is `expired`."""

    id: Annotated[UUID | None, Field(description="null: a dry run")]
    member_id: UUID
    points: int
    captured: int
    status: Status
    reference: str | None
    ends_at: Stamp
    ended_at: Stamp | None
    recorded_at: Stamp


class HoldDone(HoldOut):
    """A hold after something was done to it, and the member's balance as of `balance_at`."""

    dry_run: bool
    balance: BalanceOut
    balance_at: Stamp
    expiring_next: ExpiringOut | None
    entries: PlannedEntries


class HeldLotOut(Answer):
    """Points of one lot that a hold reserves, or reserved, and how many of them were spent."""

    lot_id: UUID
    points: int
    captured: int
    expires_at: Annotated[Stamp | None, Field(description="When the lot expires; held points do so when freed")]


class HoldRead(HoldOut):
    """A hold, the lots behind it, and the member's balance as of `balance_at`."""

    lots: list[HeldLotOut]
    balance: BalanceOut
    balance_at: Stamp


class HoldPage(Answer):
    items: list[HoldOut]
    next: str | None
