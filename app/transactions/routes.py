"""Transactions over HTTP."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Body, Query, Response
from sqlalchemy.orm import Session

from app import idempotency
from app.clients import Caller, keyed, needs
from app.db import Database
from app.edge import READING, WRITING, Db, Now, StrictRoute
from app.errors import InternalError, InvalidRequest, NotFound, Problem, ProblemBody, answers
from app.idempotency import Attempt, IdempotencyInProgress, Reply
from app.ledger import TooManyPoints, balance_out, expiring_out
from app.members import IdentifierInvalid, MemberMayNotEarn, UnknownMember
from app.programs import NoTerms
from app.transactions import rules, service
from app.transactions.rules import Purchase
from app.transactions.schemas import (
    BatchIn,
    BatchItem,
    BatchOut,
    ClaimIn,
    ClaimOut,
    ClaimRead,
    ExternalId,
    LineShare,
    Malformed,
    PointsOut,
    PostingOut,
    PurchaseIn,
    ReasonOut,
    Source,
    TransactionMember,
    TransactionOut,
    TransactionRead,
    TransactionType,
    purchase_of,
)
from app.transactions.service import Outcome, Recorded

router = APIRouter(prefix="/v1/transactions", tags=["transactions"], route_class=StrictRoute)

DryRun = Annotated[bool, Query(description="Answers the same and writes nothing")]

_KEYED = (*WRITING, *idempotency.REFUSALS)
_REFUSALS = (
    NoTerms,
    UnknownMember,
    IdentifierInvalid,
    MemberMayNotEarn,
    TooManyPoints,
    rules.StoreNotAllowed,
    rules.TransactionConflict,
    rules.CurrencyMismatch,
    rules.NegativeLine,
    rules.SumsDoNotMatch,
    rules.OccurredInFuture,
    rules.OccurredTooLongAgo,
    rules.PurchaseTooLarge,
    rules.PointsTenderUnsupported,
)
_PURCHASE = {
    "type": "purchase",
    "source": "store-330",
    "external_id": "31198570044",
    "occurred_at": "2026-11-01T11:53:26-04:00",
    "member": {"card": "900"},
    "store": "330",
    "terminal": "4",
    "cashier": "17",
    "channel": "pos",
    "currency": "USD",
    "lines": [
        {
            "line": 1,
            "product": "1095275",
            "department": "PASTRY",
            "category": "ROLLS",
            "quantity": "1",
            "amount": 550,
            "discount": 50,
        }
    ],
    "tenders": [{"type": "cash", "amount": 500}],
    "total": 500,
}


@router.post(
    "",
    status_code=201,
    response_model=TransactionOut,
    responses=answers(*_KEYED, *_REFUSALS)
    | {200: {"model": TransactionOut, "description": "Known already, or a dry run"}},
    summary="Post a purchase",
)
def record(
    body: Annotated[PurchaseIn, Body(openapi_examples={"five dollars of rolls": {"value": _PURCHASE}})],
    caller: Annotated[Caller, needs("transactions:write")],
    attempt: Annotated[Attempt, keyed("transactions:write")],
    database: Db,
    now: Now,
    dry_run: DryRun = False,
) -> Response:
    """Late, out of order, or again: the same purchase earns once, under the terms of its `occurred_at`."""
    if not caller.sees_store(body.store):
        raise rules.StoreNotAllowed

    def act(session: Session) -> Reply:
        outcome = service.record(session, caller.program, [purchase_of(body)], now, dry_run=dry_run)[0]
        if isinstance(outcome, Problem):
            raise outcome
        return Reply(_status(outcome, dry_run), _out(outcome, now, dry_run).model_dump_json().encode())

    if dry_run:
        return database.read(act).response()
    return _repeatable(database, attempt, now, act)


@router.post("/batch", response_model=BatchOut, responses=answers(*_KEYED), summary="Post many purchases")
def record_batch(
    body: Annotated[BatchIn, Body(openapi_examples={"one": {"value": {"transactions": [_PURCHASE]}}})],
    caller: Annotated[Caller, needs("transactions:write")],
    attempt: Annotated[Attempt, keyed("transactions:write")],
    database: Db,
    now: Now,
    dry_run: DryRun = False,
) -> Response:
    """At most 500, one result per item in order, each independent of the others."""

    judged = [_admit(item, caller) for item in body.transactions]
    purchases = [item for item in judged if isinstance(item, Purchase)]

    def reply(outcomes: Sequence[Outcome]) -> Reply:
        recorded = iter(outcomes)
        whole = [next(recorded) if isinstance(item, Purchase) else item for item in judged]
        items = [_item(*item, now, dry_run, attempt.request_id) for item in enumerate(whole)]
        return Reply(200, BatchOut(results=items).model_dump_json().encode())

    begun = False

    def act(session: Session) -> Reply:
        nonlocal begun
        begun = True
        return reply(service.record(session, caller.program, purchases, now, dry_run=dry_run))

    if dry_run:
        return database.read(act).response()
    try:
        return _repeatable(database, attempt, now, act)
    except Exception as error:
        if not begun or (isinstance(error, Problem) and not isinstance(error, IdempotencyInProgress)):
            raise
        structlog.get_logger().warning("a batch failed as a whole and runs item by item", exc_info=True)
    apart = [_alone(database, caller.program, purchase, now) for purchase in purchases]
    if any(isinstance(outcome, Problem) and outcome.passing for outcome in apart):
        return reply(apart).response()  # not kept: sent again, the items that failed get their chance
    return _repeatable(database, attempt, now, lambda _session: reply(apart))


def _alone(database: Database, program_id: UUID, purchase: Purchase, now: datetime) -> Outcome:
    """One item of a batch that failed as a whole, so that only the guilty one is refused."""
    try:
        return database.write(lambda session: service.record(session, program_id, [purchase], now)[0], repeatable=True)
    except Problem as problem:
        return problem
    except Exception:
        structlog.get_logger().exception("item of a batch")
        return InternalError()


def _repeatable(database: Database, attempt: Attempt, now: datetime, act: Callable[[Session], Reply]) -> Response:
    """Natural keys make a second run harmless, with or without an `Idempotency-Key`."""
    reply = database.write(
        lambda session: idempotency.once(session, attempt, now, lambda: act(session)), repeatable=True
    )
    return reply.response()


def _admit(item: PurchaseIn | Malformed, caller: Caller) -> Purchase | Problem:
    if isinstance(item, Malformed):
        return InvalidRequest(findings=item.findings)
    return purchase_of(item) if caller.sees_store(item.store) else rules.StoreNotAllowed()


@router.get(
    "/{source}/{external_id:path}",
    responses=answers(*READING, NotFound),
    summary="Read a transaction by its natural key",
)
def read_transaction(
    source: Source,
    external_id: ExternalId,
    caller: Annotated[Caller, needs("transactions:read")],
    database: Db,
    kind: Annotated[TransactionType, Query(description="The transaction's `type`")] = "purchase",
) -> TransactionRead:
    """What the till sent, what it earned and why, what it posted, and who claimed it if it was a guest's."""
    found = database.read(lambda session: service.find(session, caller.program, (source, external_id, kind)))
    row, claim = found.recorded.row, found.claim
    if not caller.sees_store(row["store"]):
        raise NotFound
    return TransactionRead(
        id=row["id"],
        type=row["type"],
        source=row["source"],
        external_id=row["external_id"],
        member_id=row["member_id"],
        terms_version=found.recorded.version.number,
        occurred_at=_local(row["occurred_at"], found.recorded),
        recorded_at=row["recorded_at"],
        points=_points(row["points"], row["claimable"], row["reasons"]),
        content=row["content"],
        shares=[LineShare(**share) for share in row["shares"]],
        postings=_postings(found.recorded.postings),
        claim=None if claim is None else ClaimRead.model_validate(claim),
    )


@router.post(
    "/{transaction_id}/claim",
    status_code=201,
    response_model=ClaimOut,
    responses=answers(
        *_KEYED,
        NotFound,
        UnknownMember,
        IdentifierInvalid,
        MemberMayNotEarn,
        TooManyPoints,
        rules.TransactionHasMember,
        rules.TransactionClaimed,
    )
    | {200: {"model": ClaimOut, "description": "Claimed by this member already, or a dry run"}},
    summary="Claim a guest's purchase",
)
def claim(
    transaction_id: UUID,
    body: Annotated[ClaimIn, Body(openapi_examples={"by card": {"value": {"member": {"card": "900"}}}})],
    caller: Annotated[Caller, needs("transactions:write")],
    attempt: Annotated[Attempt, keyed("transactions:write")],
    database: Db,
    now: Now,
    dry_run: DryRun = False,
) -> Response:
    """Gives its points to a member, under the terms of the purchase's `occurred_at`."""

    def act(session: Session) -> Reply:
        claimed = service.claim(
            session, caller.program, transaction_id, body.member, now, stores=caller.stores, dry_run=dry_run
        )
        answer = ClaimOut(
            id=None if dry_run and not claimed.duplicate else claimed.claim["id"],
            transaction_id=transaction_id,
            duplicate=claimed.duplicate,
            dry_run=dry_run,
            recorded_at=claimed.claim["recorded_at"],
            member=TransactionMember(
                id=None if dry_run and claimed.enrolled else claimed.standing.member_id, enrolled=claimed.enrolled
            ),
            points=_points(claimed.claim["points"], 0, claimed.reasons),
            balance=balance_out(claimed.standing),
            balance_at=now,
            expiring_next=expiring_out(claimed.standing, claimed.version.terms.zone),
            postings=_postings(claimed.postings),
        )
        return Reply(200 if dry_run or claimed.duplicate else 201, answer.model_dump_json().encode())

    return database.read(act).response() if dry_run else _repeatable(database, attempt, now, act)


# --- answers --------------------------------------------------------------------------------------------------------


def _status(recorded: Recorded, dry_run: bool) -> int:
    return 200 if dry_run or recorded.duplicate else 201


def _item(position: int, outcome: Outcome, now: datetime, dry_run: bool, request_id: str | None) -> BatchItem:
    if isinstance(outcome, Recorded):
        answer = _out(outcome, now, dry_run)
        return BatchItem(index=position, status=_status(outcome, dry_run), transaction=answer)
    placed = [found.under(f"/transactions/{position}") for found in outcome.findings]
    problem = ProblemBody(**type(outcome)(outcome.detail, findings=placed).body(), request_id=request_id)
    return BatchItem(index=position, status=outcome.status, problem=problem)


def _out(recorded: Recorded, now: datetime, dry_run: bool) -> TransactionOut:
    row, standing = recorded.row, recorded.standing
    imagined = dry_run and not recorded.duplicate
    member = None
    if row["member_id"] is not None:
        unknown = imagined and row["enrolled"]
        member = TransactionMember(id=None if unknown else row["member_id"], enrolled=row["enrolled"])
    return TransactionOut(
        id=None if imagined else row["id"],
        type=row["type"],
        source=row["source"],
        external_id=row["external_id"],
        duplicate=recorded.duplicate,
        dry_run=dry_run,
        occurred_at=_local(row["occurred_at"], recorded),
        recorded_at=row["recorded_at"],
        member=member,
        points=_points(row["points"], row["claimable"], row["reasons"]),
        balance=None if standing is None else balance_out(standing),
        balance_at=now,
        expiring_next=None if standing is None else expiring_out(standing, recorded.version.terms.zone),
        postings=_postings(recorded.postings),
    )


def _points(earned: int, claimable: int, reasons: Sequence[service.Fields]) -> PointsOut:
    explained = [ReasonOut(**reason) for reason in reasons]
    return PointsOut(earned=earned, pending=0, qualifying=earned, claimable=claimable, reasons=explained)


def _postings(postings: Sequence[Any]) -> list[PostingOut]:
    return [PostingOut.model_validate(posting) for posting in postings]


def _local(instant: datetime, recorded: Recorded) -> datetime:
    """The instant as the programme's clocks show it."""
    return instant.astimezone(recorded.version.terms.zone)
