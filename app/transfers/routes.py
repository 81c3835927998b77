"""Transfers and pools over HTTP."""

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Request, Response
from sqlalchemy.orm import Session

from app import idempotency
from app.clients import Caller, keyed, needs
from app.edge import READING, WRITING, Db, DryRun, Now, StrictRoute, Writes
from app.errors import CursorInvalid, NotFound, OutcomeUnknown, answers
from app.idempotency import Attempt, IdempotencyKeyMissing, Reply
from app.ledger import (
    Account,
    BalanceOut,
    InsufficientPoints,
    PlannedEntries,
    TooManyPoints,
    balance_out,
    expiring_out,
    planned_entries,
)
from app.members import GATES, IdentifierInvalid, MemberClosed, MemberMayNotEarn, MemberMayNotSpend, UnknownMember
from app.paging import Cursor, Limit, decode, link_next, page
from app.programs import NoTerms
from app.transfers import pools, rules, service
from app.transfers.models import Transfer
from app.transfers.pools import Drawing, Drawn, Pooled
from app.transfers.schemas import (
    DrawIn,
    DrawOut,
    JoinIn,
    PoolIn,
    PoolMemberOut,
    PoolOut,
    TransferDone,
    TransferIn,
    TransferOut,
    TransferPage,
)
from app.transfers.service import Asked, Given

router = APIRouter(prefix="/v1", tags=["transfers"], route_class=StrictRoute)


_KEYED = (*WRITING, *idempotency.REFUSALS)
_NAMING = (NoTerms, IdentifierInvalid, UnknownMember)
_DONE_200: dict[int | str, dict[str, Any]] = {200: {"model": TransferDone, "description": "A dry run"}}
_GIFT = {"from": {"card": "900"}, "to": {"card": "901"}, "points": 100, "note": "birthday"}


# --- transfers ------------------------------------------------------------------------------------------------------


@router.post(
    "/transfers",
    status_code=201,
    response_model=TransferDone,
    responses=answers(
        *_KEYED,
        IdempotencyKeyMissing,
        *_NAMING,
        rules.TransferNotOffered,
        rules.TransferToSelf,
        rules.TransferBelowMinimum,
        rules.TransferAboveLimit,
        MemberMayNotSpend,
        MemberMayNotEarn,
        InsufficientPoints,
        TooManyPoints,
    )
    | _DONE_200,
    summary="Give points to another member",
)
async def create_transfer(
    body: Annotated[TransferIn, Body(openapi_examples={"a gift": {"value": _GIFT}})],
    caller: Annotated[Caller, needs("transfers:write")],
    attempt: Annotated[Attempt, keyed("transfers:write", required=True)],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """Within the limits of the terms. The points keep the day they expire on; they pay the receiver's debt first."""
    asked, reply = Asked(caller.client_id, body), partial(_given, trying=caller if dry_run else None)
    members = [*body.giver.given(), *body.receiver.given()]
    return await writes.each(service.give, caller.program, attempt, asked, reply, members=members, dry_run=dry_run)


@router.get("/transfers/{transfer_id}", responses=answers(*READING, NotFound), summary="Read a transfer")
def read_transfer(transfer_id: UUID, caller: Annotated[Caller, needs("transfers:read")], database: Db) -> TransferOut:
    """A gift, or a part of a pool's draw. It never changes."""
    return _transfer(database.read(lambda session: service.find(session, caller.program, transfer_id)))


@router.get(
    "/members/{member_id}/transfers",
    responses=answers(*READING, NotFound, CursorInvalid),
    summary="List a member's transfers",
)
def list_transfers(
    member_id: UUID,
    caller: Annotated[Caller, needs("transfers:read")],
    database: Db,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> TransferPage:
    """Given and received, oldest first."""
    after = None if cursor is None else decode(cursor, UUID)[0]
    rows = database.read(lambda session: service.transfers(session, caller.program, member_id, after, limit + 1))
    found = page(rows, limit, lambda row: [str(row.id)])
    link_next(request, response, found.next)
    return TransferPage(items=[_transfer(row) for row in found.rows], next=found.next)


def _planned(caller: Caller, account: Account, others: Iterable[Account]) -> PlannedEntries:
    """The entries that a dry run would make: of the others, only for those who may read members' entries."""
    shown = [account, *others] if "members:read" in caller.scopes else [account]
    return [entry for each in shown for entry in planned_entries(each)]


def _given(_asked: Asked, given: Given, now: datetime, *, trying: Caller | None) -> Reply:
    """`trying`: whose dry run it is, who is told the entries that it would make."""
    answer = TransferDone(
        **_transfer(given.transfer, trying is not None).model_dump(),
        dry_run=trying is not None,
        balance=balance_out(given.giver),
        balance_at=now,
        expiring_next=expiring_out(given.giver),
        entries=None if trying is None else _planned(trying, given.giver, [given.receiver]),
    )
    return Reply(201 if trying is None else 200, answer.model_dump_json().encode())


def _transfer(made: Transfer, dry_run: bool = False) -> TransferOut:
    out = TransferOut.model_validate(made)
    return out.model_copy(update={"id": None}) if dry_run else out


# --- pools ----------------------------------------------------------------------------------------------------------


@router.post(
    "/pools",
    status_code=201,
    response_model=PoolOut,
    responses=answers(*_KEYED, IdempotencyKeyMissing, NoTerms, rules.PoolNotOffered),
    summary="Make a pool",
)
def create_pool(
    body: Annotated[PoolIn, Body(openapi_examples={"a household": {"value": {"name": "household_4711"}}})],
    caller: Annotated[Caller, needs("pools:write")],
    attempt: Annotated[Attempt, keyed("pools:write", required=True)],
    database: Db,
    now: Now,
) -> Response:
    """Of a household, with nobody in it yet."""

    def act(session: Session) -> Reply:
        pooled = pools.create(session, caller.program, body.name, now)
        return Reply(201, _pool(pooled, now).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act)


@router.get("/pools/{pool_id}", responses=answers(*READING, NotFound), summary="Read a pool")
def read_pool(pool_id: UUID, caller: Annotated[Caller, needs("pools:read")], database: Db, now: Now) -> PoolOut:
    """Who is in it, with their balances, and the sum of these."""
    return _pool(database.read(lambda session: pools.read(session, caller.program, pool_id, now)), now)


@router.get("/members/{member_id}/pool", responses=answers(*READING, NotFound), summary="Find a member's pool")
def read_pool_of_member(
    member_id: UUID, caller: Annotated[Caller, needs("pools:read")], database: Db, now: Now
) -> PoolOut:
    """404 if they are in none."""
    return _pool(database.read(lambda session: pools.of_member(session, caller.program, member_id, now)), now)


@router.post(
    "/pools/{pool_id}/members",
    response_model=PoolOut,
    responses=answers(
        *_KEYED, NotFound, *_NAMING, rules.PoolNotOffered, MemberClosed, rules.PoolFull, rules.AlreadyInPool
    ),
    summary="Join a pool",
)
def join_pool(
    pool_id: UUID,
    body: Annotated[JoinIn, Body(openapi_examples={"by card": {"value": {"member": {"card": "900"}}}})],
    caller: Annotated[Caller, needs("pools:write")],
    attempt: Annotated[Attempt, keyed("pools:write")],
    database: Db,
    now: Now,
) -> Response:
    """Joining again changes nothing. A member is in one pool at most."""

    def act(session: Session) -> Reply:
        pooled = pools.join(session, caller.program, pool_id, body.member, now)
        return Reply(200, _pool(pooled, now).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act)


@router.delete(
    "/pools/{pool_id}/members/{member_id}",
    status_code=204,
    response_class=Response,
    responses=answers(*READING, OutcomeUnknown, NotFound),
    summary="Leave a pool",
)
def leave_pool(
    pool_id: UUID, member_id: UUID, caller: Annotated[Caller, needs("pools:write")], database: Db, now: Now
) -> Response:
    """The member takes their points along: they were theirs all the time."""
    database.write(lambda session: pools.leave(session, caller.program, pool_id, member_id, now))
    return Response(status_code=204)


@router.post(
    "/pools/{pool_id}/draws",
    response_model=DrawOut,
    responses=answers(
        *_KEYED,
        IdempotencyKeyMissing,
        NotFound,
        *_NAMING,
        rules.PoolNotOffered,
        rules.NotInPool,
        MemberMayNotSpend,
        InsufficientPoints,
        TooManyPoints,
    ),
    summary="Draw on a pool",
)
async def draw_on_pool(
    pool_id: UUID,
    body: Annotated[
        DrawIn, Body(openapi_examples={"for a spend": {"value": {"member": {"card": "900"}, "points": 500}}})
    ],
    caller: Annotated[Caller, needs("pools:draw")],
    attempt: Annotated[Attempt, keyed("pools:draw", required=True)],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """Collects what the member lacks to have `points` available from the others, all or nothing: the soonest-expiring
    first, whosever they are. Spend them next. What a gift may come to is no limit here."""
    drawing, reply = Drawing(caller.client_id, pool_id, body), partial(_drawn, trying=caller if dry_run else None)
    keys, members = [pool_id], body.member.given()
    return await writes.each(
        pools.draw, caller.program, attempt, drawing, reply, keys=keys, members=members, dry_run=dry_run
    )


def _drawn(drawing: Drawing, drawn: Drawn, now: datetime, *, trying: Caller | None) -> Reply:
    """`trying` as in `_given`."""
    made, account = drawn.transfers, drawn.account
    answer = DrawOut(
        pool_id=drawing.pool_id,
        member_id=account.member_id,
        dry_run=trying is not None,
        collected=sum(each.points for each in made),
        transfers=[_transfer(each, trying is not None) for each in made],
        balance=balance_out(account),
        balance_at=now,
        expiring_next=expiring_out(account),
        entries=None if trying is None else _planned(trying, account, drawn.others),
    )
    return Reply(200, answer.model_dump_json().encode())


def _pool(pooled: Pooled, now: datetime) -> PoolOut:
    found = [
        PoolMemberOut(
            member_id=row.member_id,
            joined_at=row.joined_at,
            status=status,
            may_spend=GATES[status].spend,
            balance=balance_out(account),
        )
        for row, account, status in pooled.members
    ]
    return PoolOut(
        id=pooled.pool.id,
        name=pooled.pool.name,
        created_at=pooled.pool.created_at,
        members=found,
        balance=_sum(member.balance for member in found),
        at=now,
    )


def _sum(balances: Iterable[BalanceOut]) -> BalanceOut:
    parts = list(balances)
    return BalanceOut(**{name: sum(getattr(part, name) for part in parts) for name in BalanceOut.model_fields})
