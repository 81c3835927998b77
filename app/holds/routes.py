"""Holds over HTTP."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response
from sqlalchemy.orm import Session

from app import idempotency
from app.clients import Caller, keyed, needs
from app.edge import READING, WRITING, Db, DryRun, Now, StrictRoute
from app.errors import CursorInvalid, NotFound, answers
from app.holds import queries, service
from app.holds.queries import Chosen
from app.holds.rules import HoldTooLong, Status
from app.holds.schemas import CaptureIn, HeldLotOut, HoldDone, HoldIn, HoldOut, HoldPage, HoldRead
from app.holds.service import Standing
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
def create_hold(
    body: Annotated[HoldIn, Body(openapi_examples={"for two hours": {"value": _HOLD}})],
    caller: Annotated[Caller, needs("holds:write")],
    attempt: Annotated[Attempt, keyed("holds:write", required=True)],
    database: Db,
    now: Now,
    dry_run: DryRun = False,
) -> Response:
    """Reserves them for one spend: until then nobody else can spend them, and they do not expire."""

    def act(session: Session) -> Reply:
        done = service.hold(session, caller.program, caller.client_id, body, now, dry_run=dry_run)
        return Reply(200 if dry_run else 201, _done(done, now, dry_run, new=True))

    return idempotency.carry_out(database, attempt, now, act, dry_run=dry_run)


@router.post(
    "/{hold_id}/capture",
    response_model=HoldDone,
    responses=answers(*_KEYED, NotFound, NoTerms, MemberMayNotSpend, HoldEnded, CaptureAboveHold),
    summary="Capture a hold",
)
def capture_hold(
    hold_id: UUID,
    caller: Annotated[Caller, needs("holds:write")],
    attempt: Annotated[Attempt, keyed("holds:write", required=True)],
    database: Db,
    now: Now,
    body: Annotated[
        CaptureIn, Body(openapi_examples={"all": {"value": {}}, "a part": {"value": {"points": 300}}})
    ] = _ALL,
    dry_run: DryRun = False,
) -> Response:
    """Spends all or a part of what is held; the rest is free again. A hold ends once."""

    def act(session: Session) -> Reply:
        done = service.capture(session, caller.program, hold_id, body.points, now, dry_run=dry_run)
        return Reply(200, _done(done, now, dry_run))

    return idempotency.carry_out(database, attempt, now, act, dry_run=dry_run)


@router.post(
    "/{hold_id}/release",
    response_model=HoldDone,
    responses=answers(*_KEYED, NotFound, NoTerms, HoldEnded),
    summary="Release a hold",
)
def release_hold(
    hold_id: UUID,
    caller: Annotated[Caller, needs("holds:write")],
    attempt: Annotated[Attempt, keyed("holds:write", required=True)],
    database: Db,
    now: Now,
    dry_run: DryRun = False,
) -> Response:
    """Frees what is held. Points whose time has passed meanwhile expire now."""

    def act(session: Session) -> Reply:
        done = service.release(session, caller.program, hold_id, now, dry_run=dry_run)
        return Reply(200, _done(done, now, dry_run))

    return idempotency.carry_out(database, attempt, now, act, dry_run=dry_run)


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
        **asdict(found.standing.hold),
        lots=[HeldLotOut.model_validate(lot) for lot in found.lots],
        balance=balance_out(found.standing.account),
        balance_at=now,
    )


def _done(done: Standing, now: datetime, dry_run: bool, *, new: bool = False) -> bytes:
    """`new`: a hold that a dry run would make has no id."""
    facts = asdict(done.hold) | ({"id": None} if dry_run and new else {})
    answer = HoldDone(
        **facts,
        dry_run=dry_run,
        balance=balance_out(done.account),
        balance_at=now,
        expiring_next=expiring_out(done.account),
        entries=planned_entries(done.account) if dry_run else None,
    )
    return answer.model_dump_json().encode()
