"""The wire of clubs. Amounts are minor units of the currency beside them."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import RowMapping

from app.accounting import PostingOut
from app.clubs.rules import Belonging, EndedWhy, Membership, Why
from app.ledger import BalanceOut, PlannedEntries
from app.paging import page
from app.programs import Club, Terms
from app.tiers import BenefitOut, benefits_out
from app.wire import Answer, ExternalId, Money, Request, Source, Stamp, Token


class ReceiptIn(Request):
    """The receipt on which the fee was paid."""

    source: Source
    external_id: ExternalId


class JoiningIn(Request):
    """A club with a fee is joined with the receipt of it; one by a promise without."""

    receipt: ReceiptIn | None = None


class LeavingIn(Request):
    """Why the member leaves; whether what is left of the fee is paid back, and the points that came with it are taken
    back and paid back, too, or kept."""

    reason: Annotated[Token, Field(description="Why, as a short word of yours", examples=["moved_away"])]
    refund: bool = False
    points: Literal["take_back", "keep"] = "take_back"


class MembershipOut(Answer):
    """A membership of a club: what brought it, for which time, and how it ended. `follows_id`: the one it renews.

    Of a promise: `promised`, and how much was `spent` of that. Of a fee: the receipt; of it, net of `tax`, `deferred`
    is the membership's part, of which so much was `recognised` and `refunded`; `points` came with it."""

    id: UUID | None
    club: str
    why: Why
    document_id: UUID | None
    follows_id: UUID | None
    begins_at: Stamp
    until_at: Annotated[Stamp | None, Field(description="The end that was agreed; null: for good")]
    ends_at: Annotated[Stamp | None, Field(description="The end as it is now")]
    ended_why: EndedWhy | None
    ended_at: Annotated[Stamp | None, Field(description="When the end was written down")]
    ended_reason: str | None
    promised: int | None
    spent: int
    source: str | None
    external_id: str | None
    currency: str
    fee: int
    tax: int
    deferred: int
    points: int
    recognised: int
    refunded: int
    recorded_at: Stamp


class MembershipPage(Answer):
    """The latest recorded first."""

    items: list[MembershipOut]
    next: str | None


class PromiseOut(Answer):
    """What a member has promised to buy by an instant, and what is missing."""

    promised: int
    spent: int
    missing: int
    by: Stamp


class FeeOut(Answer):
    """A fee with its tax, and how much of the membership's part is still to be earned."""

    fee: int
    left: int


class BelongingOut(Answer):
    """A club that a member belongs to: since when without a gap, and until when as it is now; null: for good.

    `household`: by the membership of somebody else in their pool. What is promised, paid and to come is then theirs to
    read.
    """

    code: str
    name: str
    since: Stamp
    until: Stamp | None
    why: Why
    household: bool
    benefits: list[BenefitOut]
    currency: str
    promise: PromiseOut | None
    fee: FeeOut | None


class BroughtOut(Answer):
    """A club that a purchase has brought its member, from then on; until when as it is now, null: for good."""

    code: str
    name: str
    until: Stamp | None


class BelongingList(Answer):
    """The clubs of a member at an instant, by code."""

    member_id: UUID
    at: Stamp
    items: list[BelongingOut]


class JoinedOut(MembershipOut):
    """A membership, what selling it posted, and the member's balance at `balance_at`. A dry run has no ids."""

    name: str
    duplicate: Annotated[bool, Field(description="The receipt was known")]
    dry_run: bool
    balance: BalanceOut
    balance_at: Stamp
    entries: PlannedEntries
    postings: list[PostingOut]


class LeftOut(Answer):
    """The memberships that ended, the one that stood and the one that was to follow; what is to be paid back, with tax;
    the points that were taken back; and what that posted."""

    memberships: list[MembershipOut]
    refund: Money
    taken_back: int
    dry_run: bool
    balance: BalanceOut
    balance_at: Stamp
    entries: PlannedEntries
    postings: list[PostingOut]


def facts_of(membership: Membership) -> dict[str, Any]:
    """A membership, as it is told."""
    return {name: getattr(membership, name) for name in MembershipOut.model_fields}


def membership_page(rows: Sequence[RowMapping], limit: int) -> MembershipPage:
    found = page(rows, limit, lambda row: [str(row["id"])])
    items = [MembershipOut(**{name: row[name] for name in MembershipOut.model_fields}) for row in found.rows]
    return MembershipPage(items=items, next=found.next)


def brought_out(brought: Iterable[Membership], terms: Terms) -> list[BroughtOut]:
    names = {club.code: club.name for club in terms.clubs}
    return [BroughtOut(code=each.club, name=names[each.club], until=each.ends_at) for each in brought]


def belonging_out(belonging: Belonging, club: Club, left: int) -> BelongingOut:
    """`left`: what of the fee is still to be earned."""
    by = belonging.by
    own = not belonging.household
    promise = fee = None
    if own and by.promised is not None and by.until_at is not None:
        missing = max(0, by.promised - by.spent)
        promise = PromiseOut(promised=by.promised, spent=by.spent, missing=missing, by=by.until_at)
    if own and by.why == "fee":
        fee = FeeOut(fee=by.fee, left=left)
    return BelongingOut(
        code=club.code,
        name=club.name,
        since=belonging.since,
        until=belonging.until,
        why=by.why,
        household=belonging.household,
        benefits=benefits_out(club.benefits),
        currency=by.currency,
        promise=promise,
        fee=fee,
    )
