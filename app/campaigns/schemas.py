"""The wire of campaigns."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from app.campaigns.queries import Granted
from app.ledger import BalanceOut, PlannedEntries
from app.members import MemberRef
from app.paging import decode, page
from app.wire import Answer, ExternalId, Request, Source, Stamp, Token, WireInstant

OccasionType = Literal["sign_up", "birthday", "anniversary", "win_back", "referral", "event"]


class BonusOut(Answer):
    """Points that a campaign gave a member, and on which occasion; `id` is the document of the entry and the posting.

    `occasion`: `sign_up`; the year of a birthday or an anniversary; the day of the last purchase of who stayed away;
    the id of the friend, whom the member brought or is; the source and number of an event.
    """

    id: UUID
    campaign: str
    name: str
    type: OccasionType
    occasion: str
    day: date
    points: int
    terms_version: int
    occurred_at: Stamp
    recorded_at: Stamp


class BonusPage(Answer):
    items: list[BonusOut]
    next: str | None


class MemberEventIn(Request):
    """Something that happened to a member, by the number that its source gave it."""

    source: Source
    external_id: ExternalId
    event: Annotated[Token, Field(description="As campaigns of the terms name it", examples=["review_written"])]
    member: MemberRef
    occurred_at: WireInstant


class GivenOut(Answer):
    """Points that a campaign gave for an event."""

    campaign: str
    points: int


class MemberEventOut(Answer):
    """An event as it was recorded, and what campaigns gave the member for it."""

    id: Annotated[UUID | None, Field(description="null: a dry run")]
    source: str
    external_id: str
    event: str
    member_id: UUID
    occurred_at: Stamp
    recorded_at: Stamp
    duplicate: Annotated[bool, Field(description="Whether it had been recorded before")]
    dry_run: bool
    bonuses: list[GivenOut]
    balance: BalanceOut
    balance_at: Stamp
    entries: PlannedEntries


class CampaignOut(Answer):
    """A campaign as the latest terms have it that know it, and what it has given in all."""

    code: str
    name: str
    type: OccasionType
    in_force: Annotated[bool, Field(description="Whether the terms in force have it; its days may be over")]
    first_day: date | None
    last_day: date | None
    points: int
    budget: int | None
    given: Annotated[int, Field(description="Points")]
    grants: int
    left: Annotated[int | None, Field(description="Of the budget, points; null: there is none")]


class CampaignList(Answer):
    items: list[CampaignOut]


def bonus_page(rows: Sequence[Granted], limit: int) -> BonusPage:
    """A page of `rows`, which were asked for with `limit + 1`."""
    found = page(rows, limit, lambda row: [str(row.grant.id)])
    return BonusPage(items=[_bonus(row) for row in found.rows], next=found.next)


def bonus_cursor(cursor: str | None) -> UUID | None:
    """The id of the bonus a page begins after. CursorInvalid if it is not one of ours."""
    return None if cursor is None else decode(cursor, UUID)[0]


def _bonus(granted: Granted) -> BonusOut:
    grant, campaign = granted.grant, granted.campaign
    return BonusOut(
        id=grant.id,
        campaign=grant.campaign,
        name=campaign.name,
        type=campaign.occasion.type,
        occasion=grant.occasion,
        day=grant.day,
        points=grant.points,
        terms_version=granted.version,
        occurred_at=grant.occurred_at,
        recorded_at=grant.recorded_at,
    )
