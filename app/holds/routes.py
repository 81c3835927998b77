"""Holds over HTTP."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response

from app import idempotency
from app.clients import Caller, keyed, needs
from app.edge import READING, WRITING, Db, DryRun, Now, StrictRoute, Writes
from app.errors import CursorInvalid, NotFound, answers
from app.holds import queries, service
from app.holds.queries import Chosen
from app.holds.rules import HoldTooLong, Status
from app.holds.schemas import CaptureIn, HeldLotOut, HoldDone, HoldIn, HoldOut, HoldPage, HoldRead
from app.holds.service import Asked, Ending, Standing
from app.idempotency import Attempt, IdempotencyKeyMissing, Reply
from app.ledger import CaptureAboveHold, HoldEnded, InsufficientPoints, balance_out, expiring_out, planned_entries
from app.members import IdentifierInvalid, MemberMayNotSpend, UnknownMember
from app.paging import Cursor, Limit, decode, link_next, page
from app.programs import NoTerms

router = APIRouter(prefix="/v1/holds", tags=["holds"], route_class=StrictRoute)


_KEYED = (*WRITING, *idempotency.REFUSALS, IdempotencyKeyMissing)
_DONE_200: dict[int | str, dict[str, Any]] = {200: {"model": HoldDone, "description": "A dry run"}}
_HOLD = {"member": {"card": "900"}, "points": 500, "minutes": 120, "reference": "booking-4711"}
_ALL = CaptureIn()


@router.post(
    "",
    status_code=201,
    response_model=HoldDone,
    responses=answers(
        *_KEYED, NoTerms, HoldTooLong, IdentifierInvalid, UnknownMember, MemberMayNotSpend, InsufficientPoints
    )
    | _DONE_200,
    summary="Hold points",
)
async def create_hold(
    body: Annotated[HoldIn, Body(openapi_examples={"for two hours": {"value": _HOLD}})],
    caller: Annotated[Caller, needs("holds:write")],
    attempt: Annotated[Attempt, keyed("holds:write", required=True)],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """Reserves them for one spend: until then nobody else can spend them, and they do not expire."""
    item, reply = Asked(caller.client_id, body), partial(_reply, dry_run=dry_run, new=True)
    members = body.member.given()
    return await writes.each(service.hold, caller.program, attempt, item, reply, members=members, dry_run=dry_run)


@router.post(
    "/{hold_id}/capture",
    response_model=HoldDone,
    responses=answers(*_KEYED, NotFound, NoTerms, MemberMayNotSpend, HoldEnded, CaptureAboveHold),
    summary="Capture a hold",
)
async def capture_hold(
    hold_id: UUID,
    caller: Annotated[Caller, needs("holds:write")],
    attempt: Annotated[Attempt, keyed("holds:write", required=True)],
    writes: Writes,
    body: Annotated[
        CaptureIn, Body(openapi_examples={"all": {"value": {}}, "a part": {"value": {"points": 300}}})
    ] = _ALL,
    dry_run: DryRun = False,
) -> Response:
    """Spends all or a part of what is held; the rest is free again. A hold ends once."""
    item, reply = Ending(hold_id, body.points), partial(_reply, dry_run=dry_run)
    return await writes.each(service.capture, caller.program, attempt, item, reply, keys=[hold_id], dry_run=dry_run)


@router.post(
    "/{hold_id}/release",
    response_model=HoldDone,
    responses=answers(*_KEYED, NotFound, NoTerms, HoldEnded),
    summary="Release a hold",
)
async def release_hold(
    hold_id: UUID,
    caller: Annotated[Caller, needs("holds:write")],
    attempt: Annotated[Attempt, keyed("holds:write", required=True)],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """Frees what is held. Points whose time has passed meanwhile expire now."""
    reply = partial(_reply, dry_run=dry_run)
    return await writes.each(service.release, caller.program, attempt, hold_id, reply, keys=[hold_id], dry_run=dry_run)


@router.get("", responses=answers(*READING, CursorInvalid), summary="List holds")
def list_holds(
    caller: Annotated[Caller, needs("holds:read")],
    database: Db,
    now: Now,
    request: Request,
    response: Response,
    member_id: Annotated[UUID | None, Query(description="Of one member")] = None,
    status: Annotated[Status | None, Query(description="As they stand now")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> HoldPage:
    """Those that were asked for here, oldest first."""
    after = None if cursor is None else decode(cursor, UUID)[0]
    rows = database.read(
        lambda session: queries.holds(session, caller.program, Chosen(member_id, status), after, limit + 1, now)
    )
    found = page(rows, limit, lambda row: [str(row.id)])
    link_next(request, response, found.next)
    return HoldPage(items=[HoldOut.model_validate(row) for row in found.rows], next=found.next)


@router.get("/{hold_id}", responses=answers(*READING, NotFound), summary="Read a hold")
def read_hold(hold_id: UUID, caller: Annotated[Caller, needs("holds:read")], database: Db, now: Now) -> HoldRead:
    """With the lots it reserves, or reserved, and what each of them paid. Once its time is up it has ended."""
    found = database.read(lambda session: service.read(session, caller.program, hold_id, now))
    return HoldRead(
        **found.standing.hold.facts,
        lots=[HeldLotOut.model_validate(lot) for lot in found.lots],
        balance=balance_out(found.standing.account),
        balance_at=now,
    )


def _reply(_asked: object, done: Standing, now: datetime, *, dry_run: bool, new: bool = False) -> Reply:
    """`new`: the hold was made just now; one that a dry run would make has no id."""
    facts = done.hold.facts | ({"id": None} if dry_run and new else {})
    answer = HoldDone(
        **facts,
        dry_run=dry_run,
        balance=balance_out(done.account),
        balance_at=now,
        expiring_next=expiring_out(done.account),
        entries=planned_entries(done.account) if dry_run else None,
    )
    return Reply(201 if new and not dry_run else 200, answer.model_dump_json().encode())
