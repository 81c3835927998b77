"""Adjustments over HTTP: for people of staff."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response
from sqlalchemy.orm import Session

from app import idempotency
from app.accounting import PostingOut
from app.adjustments import rules, service
from app.adjustments.rules import Asked
from app.adjustments.schemas import (
    AdjustmentIn,
    AdjustmentOut,
    AdjustmentPage,
    AdjustmentRead,
    AdjustmentStatus,
    ExtensionIn,
    ReinstatementIn,
    RejectionIn,
    WriteOffIn,
)
from app.adjustments.service import Adjusted, Fields, Wanted
from app.clients import Caller, NoPerson, OwnAccount, keyed, needs
from app.db import Database
from app.edge import READING, WRITING, Db, DryRun, Now, StrictRoute, Writes
from app.errors import CursorInvalid, NotFound, Problem, answers
from app.idempotency import Attempt, IdempotencyKeyMissing, Reply
from app.ledger import InsufficientPoints, PlannedEntries, TooManyPoints, balance_out, expiring_out, planned_entries
from app.members import IdentifierInvalid, MemberClosed, UnknownMember
from app.paging import Cursor, Limit, decode, link_next, page
from app.programs import NoTerms
from app.transactions import CurrencyMismatch

router = APIRouter(tags=["adjustments"], route_class=StrictRoute)


_WRITE, _APPROVE, _READ = "adjustments:write", "adjustments:approve", "adjustments:read"
_ANY = (*WRITING, *idempotency.REFUSALS, IdempotencyKeyMissing, NoPerson, OwnAccount)
_GRANT = (
    NoTerms,
    MemberClosed,
    TooManyPoints,
    InsufficientPoints,
    CurrencyMismatch,
    rules.UnknownOrder,
    rules.ConsentMissing,
    rules.NothingToConcede,
)
_LOT = (NotFound, NoTerms, MemberClosed, TooManyPoints, rules.ExpiryNotLater)
_ENDING = (NotFound, rules.SamePerson, rules.AdjustmentEnded)
_EXAMPLES: dict[str, Any] = {
    "a kindness": {
        "value": {"member": {"card": "900"}, "points": 200, "class": "goodwill", "reason": "long_queue"},
    },
    "an order that failed": {
        "value": {
            "member": {"card": "900"},
            "points": 500,
            "class": "concession",
            "reason": "late_delivery",
            "order": {"source": "store-330", "external_id": "31198570044"},
            "consent": "2026-11-03T09:12:00-05:00",
        }
    },
    "too many were given": {
        "value": {"member": {"card": "900"}, "points": -50, "class": "correction", "reason": "counted_twice"},
    },
}
_WRITE_OFF: dict[str, Any] = {"all of it": {"value": {"reason": "uncollectable"}}}
_EXTENSION: dict[str, Any] = {
    "a year more": {"value": {"expires_at": "2028-01-01T00:00:00-05:00", "reason": "illness"}}
}
_REINSTATEMENT: dict[str, Any] = {
    "all of them": {"value": {"expires_at": "2027-03-01T00:00:00-05:00", "reason": "we_were_closed"}}
}
_REJECTION: dict[str, Any] = {"too much": {"value": {"reason": "too_much"}}}


def _responses(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    return answers(*_ANY, *problems) | {
        200: {"model": AdjustmentOut, "description": "A dry run"},
        202: {"model": AdjustmentOut, "description": "It waits for a second person"},
    }


@router.post(
    "/v1/adjustments",
    status_code=201,
    response_model=AdjustmentOut,
    responses=_responses(*_GRANT, UnknownMember, IdentifierInvalid),
    summary="Give points without a purchase, or correct them",
)
async def adjust(
    body: Annotated[AdjustmentIn, Body(openapi_examples=_EXAMPLES)],
    caller: Annotated[Caller, needs(_WRITE)],
    attempt: Annotated[Attempt, keyed(_WRITE, required=True)],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """At once, under the terms of now; above the limit that the terms give the person's role it waits for a second
    person. A concession takes the points' value off the price of its order and goes back with it; all other classes
    are marketing."""
    reply = partial(_reply, dry_run=dry_run)
    members = body.member.given()
    return await writes.each(
        service.adjust, caller.program, attempt, (caller, body), reply, members=members, dry_run=dry_run
    )


@router.post(
    "/v1/members/{member_id}/debt/write-off",
    status_code=201,
    response_model=AdjustmentOut,
    responses=_responses(NotFound, NoTerms, rules.NothingToWriteOff),
    summary="Forgive points that a member owes",
)
async def write_off_debt(
    member_id: UUID,
    body: Annotated[WriteOffIn, Body(openapi_examples=_WRITE_OFF)],
    caller: Annotated[Caller, needs(_WRITE)],
    attempt: Annotated[Attempt, keyed(_WRITE, required=True)],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """An adjustment of class `debt_write_off`, with the same limits and approval."""
    asked = Asked("debt_write_off", member_id, body.points, body.reason, body.note)
    reply = partial(_reply, dry_run=dry_run)
    item, members = Wanted(caller, asked), [("id", str(member_id))]
    return await writes.each(service.request, caller.program, attempt, item, reply, members=members, dry_run=dry_run)


@router.post(
    "/v1/members/{member_id}/lots/{lot_id}/extension",
    status_code=201,
    response_model=AdjustmentOut,
    responses=_responses(*_LOT, rules.NothingToExtend),
    summary="Let points of a lot live longer",
)
def extend_lot(
    member_id: UUID,
    lot_id: UUID,
    body: Annotated[ExtensionIn, Body(openapi_examples=_EXTENSION)],
    caller: Annotated[Caller, needs(_WRITE)],
    attempt: Annotated[Attempt, keyed(_WRITE, required=True)],
    database: Db,
    now: Now,
    dry_run: DryRun = False,
) -> Response:
    """What of the lot is neither used nor held moves to a new one. An adjustment of class `extension`; no points are
    given, so it never waits."""
    asked = Asked("extension", member_id, None, body.reason, body.note, lot_id=lot_id, expires_at=body.expires_at)
    return _carry_out(database, attempt, caller, asked, now, dry_run=dry_run)


@router.post(
    "/v1/members/{member_id}/lots/{lot_id}/reinstatement",
    status_code=201,
    response_model=AdjustmentOut,
    responses=_responses(*_LOT, rules.NothingToReinstate),
    summary="Give expired points of a lot back",
)
def reinstate_lot(
    member_id: UUID,
    lot_id: UUID,
    body: Annotated[ReinstatementIn, Body(openapi_examples=_REINSTATEMENT)],
    caller: Annotated[Caller, needs(_WRITE)],
    attempt: Annotated[Attempt, keyed(_WRITE, required=True)],
    database: Db,
    now: Now,
    dry_run: DryRun = False,
) -> Response:
    """They live on in a new lot. An adjustment of class `reinstatement`, with the same limits and approval."""
    asked = Asked(
        "reinstatement", member_id, body.points, body.reason, body.note, lot_id=lot_id, expires_at=body.expires_at
    )
    return _carry_out(database, attempt, caller, asked, now, dry_run=dry_run)


@router.post(
    "/v1/adjustments/{adjustment_id}/approval",
    response_model=AdjustmentOut,
    responses=answers(
        *_ANY,
        *_GRANT,
        *_ENDING,
        rules.NothingToWriteOff,
        rules.NothingToReinstate,
        rules.ExpiryNotLater,
    ),
    summary="Approve an adjustment",
)
def approve(
    adjustment_id: UUID,
    caller: Annotated[Caller, needs(_APPROVE)],
    attempt: Annotated[Attempt, keyed(_APPROVE, required=True)],
    database: Db,
    now: Now,
    dry_run: DryRun = False,
) -> Response:
    """By another person than the one who asked, whatever the key. It is applied now, under the terms of now; what
    cannot be done any more is refused and goes on waiting."""
    return _request(
        database,
        attempt,
        now,
        lambda session: service.approve(session, caller, adjustment_id, now, dry_run=dry_run),
        dry_run=dry_run,
    )


@router.post(
    "/v1/adjustments/{adjustment_id}/rejection",
    response_model=AdjustmentOut,
    responses=answers(*_ANY, *_ENDING),
    summary="Reject an adjustment",
)
def reject(
    adjustment_id: UUID,
    body: Annotated[RejectionIn, Body(openapi_examples=_REJECTION)],
    caller: Annotated[Caller, needs(_APPROVE)],
    attempt: Annotated[Attempt, keyed(_APPROVE, required=True)],
    database: Db,
    now: Now,
) -> Response:
    """By another person than the one who asked."""
    return _request(
        database,
        attempt,
        now,
        lambda session: service.reject(session, caller, adjustment_id, body.reason, now),
        dry_run=False,
    )


@router.get("/v1/adjustments", responses=answers(*READING, CursorInvalid), summary="List adjustments")
def list_adjustments(
    caller: Annotated[Caller, needs(_READ)],
    database: Db,
    request: Request,
    response: Response,
    member_id: Annotated[UUID | None, Query()] = None,
    status: Annotated[AdjustmentStatus | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> AdjustmentPage:
    """In the order they were asked for; `status=waiting` is what a second person has to look at."""
    after = None if cursor is None else decode(cursor, UUID)[0]
    rows = database.read(lambda session: service.listed(session, caller.program, member_id, status, after, limit + 1))
    found = page(rows, limit, lambda row: [str(row["id"])])
    link_next(request, response, found.next)
    return AdjustmentPage(items=[AdjustmentRead(**_facts(row)) for row in found.rows], next=found.next)


@router.get("/v1/adjustments/{adjustment_id}", responses=answers(*READING, NotFound), summary="Read an adjustment")
def read_adjustment(
    adjustment_id: UUID, caller: Annotated[Caller, needs(_READ)], database: Db, now: Now
) -> AdjustmentOut:
    """What was asked for, by whom, how it ended, and what it posted."""
    return _out(database.read(lambda session: service.find(session, caller.program, adjustment_id, now)), now)


# --- how ------------------------------------------------------------------------------------------------------------


def _carry_out(
    database: Database, attempt: Attempt, caller: Caller, asked: Asked, now: datetime, *, dry_run: bool
) -> Response:
    """What is asked of one lot."""

    def act(session: Session) -> Adjusted | Problem:
        return service.request(session, caller.program, [Wanted(caller, asked)], now, dry_run=dry_run)[0]

    return _request(database, attempt, now, act, dry_run=dry_run)


def _request(
    database: Database, attempt: Attempt, now: datetime, act: Callable[[Session], Adjusted | Problem], *, dry_run: bool
) -> Response:
    def reply(session: Session) -> Reply:
        done = act(session)
        return idempotency.raised(done if isinstance(done, Problem) else _reply(None, done, now, dry_run=dry_run))

    return idempotency.carry_out(database, attempt, now, reply, dry_run=dry_run)


def _reply(_asked: object, adjusted: Adjusted, now: datetime, *, dry_run: bool) -> Reply:
    answer = _out(adjusted, now, dry_run=dry_run)
    return Reply(_status(adjusted.row, dry_run), answer.model_dump_json(by_alias=True).encode())


def _status(row: Fields, dry_run: bool) -> int:
    if row["status"] == "waiting" and not dry_run:
        return 202
    return 201 if not row["needs_approval"] and not dry_run else 200


def _out(adjusted: Adjusted, now: datetime, *, dry_run: bool = False) -> AdjustmentOut:
    return AdjustmentOut(
        **_facts(adjusted.row),
        dry_run=dry_run,
        balance=balance_out(adjusted.account),
        balance_at=now,
        expiring_next=expiring_out(adjusted.account),
        entries=_planned(adjusted) if dry_run else None,
        postings=[PostingOut.model_validate(posting) for posting in adjusted.postings],
    )


def _planned(adjusted: Adjusted) -> PlannedEntries:
    """What waits makes no entries yet."""
    return [] if adjusted.row["status"] == "waiting" else planned_entries(adjusted.account)


def _facts(row: Fields) -> dict[str, Any]:
    same = AdjustmentRead.model_fields.keys() - {"class_", "requested_by", "ended_by"}
    persons = {"requested_by": row["requested_person"], "ended_by": row["ended_person"]}
    return {name: row[name] for name in same} | persons | {"class_": row["class"]}
