"""Tiers over HTTP: where a member stands, and how they got there."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app import idempotency, ledger
from app.clients import Caller, NoPerson, OwnAccount, keyed, needs
from app.edge import READING, WRITING, Db, Now, Reads, StrictRoute
from app.errors import CursorInvalid, NotFound, Problem, answers
from app.idempotency import Attempt, IdempotencyKeyMissing, Reply
from app.members import read as read_member
from app.paging import Cursor, Limit, decode, link_next
from app.tiers import decisions, queries, service
from app.tiers.schemas import (
    DecidedOut,
    DecisionIn,
    DecisionPage,
    EndingIn,
    StandingOut,
    TierChangePage,
    change_page,
    decided_out,
    decision_page,
)

router = APIRouter(prefix="/v1/members", tags=["tiers"], route_class=StrictRoute)

_WRITE = "tiers:write"
_ANY = (*WRITING, *idempotency.REFUSALS, IdempotencyKeyMissing, NoPerson, OwnAccount, NotFound)
_GIFT = {"kind": "manual", "tier": "gold", "until": "2028-01-01T00:00:00-05:00", "reason": "complaint"}
_EXAMPLES: dict[str, Any] = {
    "a kindness": {"value": _GIFT},
    "by invitation": {"value": _GIFT | {"kind": "invitation", "tier": "black", "reason": "friend_of_the_house"}},
    "as it is": {"value": {"kind": "lock", "until": "2028-01-01T00:00:00-05:00", "reason": "illness"}},
}


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


# --- what staff decide ----------------------------------------------------------------------------------------------


@router.post(
    "/{member_id}/tier/decisions",
    status_code=201,
    response_model=DecidedOut,
    responses=answers(*_ANY, decisions.TierUnknown, decisions.UntilNotLater),
    summary="Give or lock a tier",
)
def decide(
    member_id: UUID,
    body: Annotated[DecisionIn, Body(openapi_examples=_EXAMPLES)],
    caller: Annotated[Caller, needs(_WRITE)],
    attempt: Annotated[Attempt, keyed(_WRITE, required=True)],
    database: Db,
    now: Now,
) -> Response:
    """With a reason and an end. A tier that is given is the least the member has until then; one that is locked is the
    one they have, whatever they buy. When it ends they are where their purchases have put them meanwhile."""

    def act(session: Session) -> Reply:
        done = decisions.decide(session, caller, member_id, body, now)
        return Reply(201, decided_out(*done).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act)


@router.post(
    "/{member_id}/tier/decisions/{decision_id}/ending",
    response_model=DecidedOut,
    responses=answers(*_ANY, decisions.DecisionEnded),
    summary="End what was decided of a tier",
)
def end_decision(
    member_id: UUID,
    decision_id: UUID,
    body: Annotated[EndingIn, Body(openapi_examples={"a mistake": {"value": {"reason": "mistake"}}})],
    caller: Annotated[Caller, needs(_WRITE)],
    attempt: Annotated[Attempt, keyed(_WRITE, required=True)],
    database: Db,
    now: Now,
) -> Response:
    """Before its time, with a reason."""

    def act(session: Session) -> Reply:
        done = decisions.end(session, caller, member_id, decision_id, body.reason, now)
        return Reply(200, decided_out(*done).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act)


@router.get(
    "/{member_id}/tier/decisions",
    responses=answers(*READING, NotFound, CursorInvalid),
    summary="List what was decided of a tier",
)
def list_decisions(
    member_id: UUID,
    caller: Annotated[Caller, needs(_WRITE)],
    database: Db,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> DecisionPage:
    """By whom, why and until when; the latest first."""
    before = None if cursor is None else decode(cursor, UUID)[0]

    def read(session: Session) -> DecisionPage:
        read_member(session, caller.program, member_id)
        return decision_page(queries.decisions(session, member_id, before, limit + 1), limit)

    answer = database.read(read)
    link_next(request, response, answer.next)
    return answer
