"""Campaigns over HTTP: what they have given, to a member and in all. What they are is in the terms."""

from datetime import datetime
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Request, Response

from app import idempotency
from app.campaigns import queries, reports
from app.campaigns.queries import Summary
from app.campaigns.reports import Report, Reported
from app.campaigns.schemas import (
    BonusPage,
    CampaignList,
    CampaignOut,
    GivenOut,
    MemberEventIn,
    MemberEventOut,
    bonus_cursor,
    bonus_page,
)
from app.clients import Caller, keyed, needs
from app.edge import READING, WRITING, Db, DryRun, Now, StrictRoute, Writes
from app.errors import CursorInvalid, NotFound, answers
from app.idempotency import Attempt, Reply
from app.ledger import TooManyPoints, balance_out, planned_entries
from app.members import IdentifierInvalid, UnknownMember
from app.paging import Cursor, Limit, link_next
from app.programs import NoTerms, OccurredInFuture, OccurredTooLongAgo

router = APIRouter(prefix="/v1", tags=["campaigns"], route_class=StrictRoute)


_REVIEW = {"source": "app", "external_id": "review-8841", "event": "review_written", "member": {"card": "900"}}
_EXAMPLE = {"a review": {"value": _REVIEW | {"occurred_at": "2026-11-22T09:00:00-05:00"}}}


@router.post(
    "/events",
    status_code=201,
    response_model=MemberEventOut,
    responses=answers(
        *WRITING,
        *idempotency.REFUSALS,
        NoTerms,
        OccurredInFuture,
        OccurredTooLongAgo,
        IdentifierInvalid,
        UnknownMember,
        TooManyPoints,
        reports.EventNotAwaited,
        reports.EventConflict,
    )
    | {200: {"model": MemberEventOut, "description": "Recorded before, or a dry run"}},
    summary="Report what happened to a member",
)
async def report_member_event(
    body: Annotated[MemberEventIn, Body(openapi_examples=_EXAMPLE)],
    caller: Annotated[Caller, needs("events:write")],
    attempt: Annotated[Attempt, keyed("events:write")],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """Campaigns that are for it give their points at once. The same number of the same source again gets the first
    answer, whatever key it comes with."""
    reported = Report(body.source, body.external_id, body.event, body.member, body.occurred_at)
    reply = partial(_reported, dry_run=dry_run)
    keys, members = [reported.key], body.member.given()
    return await writes.each(
        reports.report, caller.program, attempt, reported, reply, keys=keys, members=members, dry_run=dry_run
    )


_KEPT = ("source", "external_id", "event", "member_id", "occurred_at", "recorded_at")


def _reported(_report: Report, reported: Reported, now: datetime, *, dry_run: bool) -> Reply:
    row, planned = reported.row, None
    if dry_run:
        planned = [] if reported.duplicate else planned_entries(reported.account)
    answer = MemberEventOut(
        id=None if dry_run and not reported.duplicate else row["id"],
        **{name: row[name] for name in _KEPT},
        duplicate=reported.duplicate,
        dry_run=dry_run,
        bonuses=[GivenOut(campaign=campaign, points=points) for campaign, points in reported.bonuses],
        balance=balance_out(reported.account),
        balance_at=now,
        entries=planned,
    )
    return Reply(200 if dry_run or reported.duplicate else 201, answer.model_dump_json().encode())


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
