"""Campaigns over HTTP: what they have given, to a member and in all. What they are is in the terms."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request, Response

from app.campaigns import queries
from app.campaigns.queries import Summary
from app.campaigns.schemas import BonusPage, CampaignList, CampaignOut, bonus_cursor, bonus_page
from app.clients import Caller, needs
from app.edge import READING, Db, Now, StrictRoute
from app.errors import CursorInvalid, NotFound, answers
from app.paging import Cursor, Limit, link_next

router = APIRouter(prefix="/v1", tags=["campaigns"], route_class=StrictRoute)


@router.get("/campaigns", responses=answers(*READING), summary="List campaigns")
def list_campaigns(caller: Annotated[Caller, needs("programs:read")], database: Db, now: Now) -> CampaignList:
    """Of the terms in force and of those before them, by code, with what each has given and what its budget leaves."""
    found = database.read(lambda session: queries.summaries(session, caller.program, now))
    return CampaignList(items=[_summary(each) for each in found])


@router.get(
    "/members/{member_id}/bonuses", responses=answers(*READING, NotFound, CursorInvalid), summary="List bonuses"
)
def list_bonuses(
    member_id: UUID,
    caller: Annotated[Caller, needs("members:read")],
    database: Db,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> BonusPage:
    """What campaigns gave a member, and on which occasions, oldest first."""
    after = bonus_cursor(cursor)
    rows = database.read(lambda session: queries.granted(session, caller.program, member_id, after, limit + 1))
    answer = bonus_page(rows, limit)
    link_next(request, response, answer.next)
    return answer


def _summary(summary: Summary) -> CampaignOut:
    campaign = summary.campaign
    return CampaignOut(
        code=campaign.code,
        name=campaign.name,
        type=campaign.occasion.type,
        in_force=summary.in_force,
        first_day=campaign.first_day,
        last_day=campaign.last_day,
        points=campaign.points,
        budget=campaign.budget,
        given=summary.points,
        grants=summary.grants,
        left=None if campaign.budget is None else max(0, campaign.budget - summary.points),
    )
