"""Tiers over HTTP: where a member stands, and how they got there."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app import ledger
from app.clients import Caller, needs
from app.edge import READING, Db, Reads, StrictRoute
from app.errors import CursorInvalid, NotFound, Problem, answers
from app.members import read as read_member
from app.paging import Cursor, Limit, decode, link_next
from app.tiers import queries, service
from app.tiers.schemas import StandingOut, TierChangePage, change_page

router = APIRouter(prefix="/v1/members", tags=["tiers"], route_class=StrictRoute)


@router.get("/{member_id}/tier", responses=answers(*READING, NotFound), summary="Read a member's tier")
async def read_tier(
    member_id: UUID,
    caller: Annotated[Caller, needs("members:read")],
    past: ledger.AskedPast,
    database: Db,
    reads: Reads,
) -> StandingOut:
    """By now, whether or not a job has written it down: which tier, since and until when, what is missing to keep it
    and for the next. A past one is found again from what counted; it is the same whenever it is asked for."""
    program_id = caller.program
    if past is not None:
        return await run_in_threadpool(database.read, partial(service.past, program_id, member_id, past))

    def read(session: Session, ids: Sequence[UUID], at: datetime) -> list[StandingOut | Problem]:
        return service.standings(session, program_id, ids, at)

    return await reads.ask((service.standings, program_id), read, member_id)


@router.get(
    "/{member_id}/tier/history", responses=answers(*READING, NotFound, CursorInvalid), summary="List changes of tier"
)
def list_changes(
    member_id: UUID,
    caller: Annotated[Caller, needs("members:read")],
    database: Db,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> TierChangePage:
    """The latest first, each with why. What time changed is listed once it was written down."""
    before = None if cursor is None else decode(cursor, UUID)[0]

    def read(session: Session) -> TierChangePage:
        read_member(session, caller.program, member_id)
        return change_page(queries.changes(session, member_id, before, limit + 1), limit)

    answer = database.read(read)
    link_next(request, response, answer.next)
    return answer
