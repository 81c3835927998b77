"""The wire of transfers and pools."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.ledger import BalanceOut, ExpiringOut, PlannedEntries
from app.members import MemberRef, Status
from app.wire import Answer, Points, Request, Stamp, Token


class TransferIn(Request):
    """Points that one member gives another."""

    giver: Annotated[MemberRef, Field(alias="from")]
    receiver: Annotated[MemberRef, Field(alias="to")]
    points: Points
    note: Annotated[
        Token | None,
        Field(description="What it is for, as a code of yours: it is kept for ever", examples=["birthday"]),
    ] = None


class TransferOut(Answer):
    """Points that went from one member to another; with `pool_id` for a spend of their pool, without as a gift."""

    id: Annotated[UUID | None, Field(description="null: a dry run")]
    from_member_id: UUID
    to_member_id: UUID
    points: int
    note: str | None
    pool_id: UUID | None
    occurred_at: Stamp
    recorded_at: Stamp


class TransferDone(TransferOut):
    """A transfer, and the giver's balance as of `balance_at`; nothing of the receiver's, but to keys that may read
    members (`members:read`) the `entries` of a dry run."""

    dry_run: bool
    balance: BalanceOut
    balance_at: Stamp
    expiring_next: ExpiringOut | None
    entries: PlannedEntries


class TransferPage(Answer):
    items: list[TransferOut]
    next: str | None


class PoolIn(Request):
    """A new pool, with nobody in it."""

    name: Annotated[
        Token | None, Field(description="A code of yours; not the family's name", examples=["household_4711"])
    ] = None


class JoinIn(Request):
    """Who joins a pool."""

    member: MemberRef


class DrawIn(Request):
    """Who is to have how many points available."""

    member: MemberRef
    points: Points


class PoolMemberOut(Answer):
    """Who is in a pool, and their points. The others can draw on them if `may_spend`."""

    member_id: UUID
    joined_at: Stamp
    status: Status
    may_spend: bool
    balance: BalanceOut


class PoolOut(Answer):
    """A pool: who is in it, their balances and the sum of these, as of `at`."""

    id: UUID
    name: str | None
    created_at: Stamp
    members: list[PoolMemberOut]
    balance: BalanceOut
    at: Stamp


class DrawOut(Answer):
    """What was collected for a member, from whom, and the member's balance as of `balance_at`. For keys that may read
    members (`members:read`), the `entries` of a dry run are the others' too."""

    pool_id: UUID
    member_id: UUID
    dry_run: bool
    collected: int
    transfers: list[TransferOut]
    balance: BalanceOut
    balance_at: Stamp
    expiring_next: ExpiringOut | None
    entries: PlannedEntries
