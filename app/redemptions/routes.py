"""Rewards, redemptions and vouchers over HTTP."""

import json
from datetime import datetime
from functools import partial
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from app import idempotency
from app.accounting import PostingOut
from app.clients import Caller, keyed, needs
from app.edge import READING, WRITING, Db, DryRun, IfMatch, Now, StrictRoute, Writes, revision_in
from app.errors import CursorInvalid, NotFound, PreconditionFailed, PreconditionRequired, answers
from app.idempotency import Attempt, IdempotencyKeyMissing, Reply
from app.ledger import InsufficientPoints, balance_out, planned_entries
from app.members import IdentifierInvalid, MemberMayNotSpend, UnknownMember
from app.paging import Cursor, Limit, decode, link_next, page
from app.programs import NoTerms
from app.redemptions import catalogue, rules, service, vouchers
from app.redemptions.choices import choice_cursor, choice_page
from app.redemptions.codes import code_of
from app.redemptions.models import RewardRow, VoucherRow
from app.redemptions.rules import Receipt, RewardRetired
from app.redemptions.schemas import (
    BurnIn,
    ChoicePage,
    Offer,
    PaidBy,
    RedemptionDone,
    RedemptionIn,
    RedemptionOut,
    RedemptionPage,
    RedemptionRow,
    RewardBrief,
    RewardChange,
    RewardIn,
    RewardOut,
    RewardPage,
    VoucherIssued,
    VoucherOut,
)
from app.redemptions.service import Redeemed
from app.redemptions.vouchers import Burning
from app.wire import Money

router = APIRouter(prefix="/v1", tags=["rewards"], route_class=StrictRoute)

_KEYED = (*WRITING, *idempotency.REFUSALS)
_REDEEMING = (
    NoTerms,
    UnknownMember,
    IdentifierInvalid,
    catalogue.UnknownReward,
    rules.RewardRetired,
    rules.RewardUnavailable,
    rules.RewardBlackedOut,
    MemberMayNotSpend,
    rules.RewardNotForTier,
    rules.RewardLimitReached,
    rules.RewardOutOfStock,
    InsufficientPoints,
)
_ENDING = (NotFound, NoTerms, rules.RedemptionFulfilled, rules.RedemptionCancelled)


async def _pepper(request: Request) -> bytes:
    return request.app.state.pepper  # type: ignore[no-any-return]  # app.state is untyped


Pepper = Annotated[bytes, Depends(_pepper)]
"""The secret that codes of vouchers are made with."""

_MUG = {
    "code": "mug",
    "name": "Enamel mug",
    "points": 1000,
    "supplier": {"type": "own", "cost": 350},
    "currency": "USD",
    "supply": 200,
    "blackout_dates": ["12-24", "2026-12-31"],
    "limits": {"per_month": 2},
}
_VOUCHER = {
    "code": "five-off",
    "name": "5.00 off",
    "points": 500,
    "item": {"kind": "voucher", "value": 500, "valid_days": 90},
    "currency": "USD",
}
_RECEIPT = {"source": "store-330", "external_id": "31198570044"}
_EXAMPLES = {
    "at a till": {"value": {"member": {"card": "900"}, "reward": {"code": "mug"}, "immediate": True}},
    "an order": {"value": {"member": {"card": "900"}, "reward": {"code": "mug"}, "quantity": 2}},
}


# --- the catalogue --------------------------------------------------------------------------------------------------


@router.post(
    "/rewards",
    status_code=201,
    response_model=RewardOut,
    responses=answers(*_KEYED, NoTerms, catalogue.RewardExists),
    summary="Add a reward",
)
def add_reward(
    body: Annotated[RewardIn, Body(openapi_examples={"goods": {"value": _MUG}, "voucher": {"value": _VOUCHER}})],
    caller: Annotated[Caller, needs("rewards:write")],
    attempt: Annotated[Attempt, keyed("rewards:write")],
    database: Db,
    now: Now,
) -> Response:
    """Goods or vouchers, ours or a partner's. Money in the currency of the programme's terms."""

    def act(session: Session) -> Reply:
        row = catalogue.add(session, caller.program, body, now)
        return Reply(201, _reward(row, caller).model_dump_json().encode())

    response = idempotency.carry_out(database, attempt, now, act)
    if response.status_code == 201:
        response.headers["ETag"] = '"1"'
    return response


@router.get("/rewards", responses=answers(*READING, CursorInvalid), summary="List rewards")
def list_rewards(
    caller: Annotated[Caller, needs("rewards:read")],
    database: Db,
    request: Request,
    response: Response,
    retired: Annotated[bool, Query(description="The retired ones instead of those in force")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> RewardPage:
    """Those in force, whether or not they can be had today."""
    after = None if cursor is None else decode(cursor, UUID)[0]
    rows = database.read(lambda session: catalogue.rewards(session, caller.program, after, limit + 1, retired=retired))
    found = page(rows, limit, lambda row: [str(row.id)])
    link_next(request, response, found.next)
    return RewardPage(items=[_reward(row, caller) for row in found.rows], next=found.next)


@router.get("/rewards/{reward_id}", responses=answers(*READING, NotFound), summary="Read a reward")
def read_reward(
    reward_id: UUID, caller: Annotated[Caller, needs("rewards:read")], database: Db, response: Response
) -> RewardOut:
    """The `ETag` is for changing it."""
    row = database.read(lambda session: catalogue.find(session, caller.program, reward_id))
    response.headers["ETag"] = f'"{row.revision}"'
    return _reward(row, caller)


@router.put(
    "/rewards/{reward_id}",
    responses=answers(
        *WRITING, NotFound, NoTerms, PreconditionRequired, PreconditionFailed, RewardRetired, catalogue.SupplyTooSmall
    ),
    summary="Replace a reward",
)
def change_reward(
    reward_id: UUID,
    body: Annotated[
        RewardChange, Body(openapi_examples={"goods": {"value": {k: v for k, v in _MUG.items() if k != "code"}}})
    ],
    caller: Annotated[Caller, needs("rewards:write")],
    database: Db,
    now: Now,
    response: Response,
    if_match: IfMatch = None,
) -> RewardOut:
    """All but its code. What was ordered before keeps its price and cost. Safe to repeat, by `If-Match`."""
    revision = revision_in(if_match)
    row = database.write(lambda session: catalogue.change(session, caller.program, reward_id, revision, body, now))
    response.headers["ETag"] = f'"{row.revision}"'
    return _reward(row, caller)


@router.post(
    "/rewards/{reward_id}/retirement",
    response_model=RewardOut,
    responses=answers(*_KEYED, NotFound),
    summary="Retire a reward",
)
def retire_reward(
    reward_id: UUID,
    caller: Annotated[Caller, needs("rewards:write")],
    attempt: Annotated[Attempt, keyed("rewards:write")],
    database: Db,
    now: Now,
) -> Response:
    """For good. Open orders can still be fulfilled or cancelled; retiring it again changes nothing."""

    def act(session: Session) -> Reply:
        row = catalogue.retire(session, caller.program, reward_id, now)
        return Reply(200, _reward(row, caller).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act)


@router.get(
    "/members/{member_id}/rewards",
    responses=answers(*READING, NotFound, NoTerms, CursorInvalid),
    summary="List the rewards a member can have",
)
def list_choices(
    member_id: UUID,
    caller: Annotated[Caller, needs("redemptions:read")],
    database: Db,
    now: Now,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ChoicePage:
    """Every reward in force: whether the member can have a piece now, and every reason why not."""
    after = choice_cursor(cursor)
    judged = database.read(lambda session: catalogue.options(session, caller.program, member_id, now, after, limit + 1))
    answer = choice_page(judged, limit)
    link_next(request, response, answer.next)
    return answer


# --- redemptions ----------------------------------------------------------------------------------------------------


@router.post(
    "/redemptions",
    status_code=201,
    response_model=RedemptionDone,
    responses=answers(*_KEYED, IdempotencyKeyMissing, *_REDEEMING)
    | {200: {"model": RedemptionDone, "description": "A dry run"}},
    summary="Redeem points for a reward",
)
async def redeem(
    body: Annotated[RedemptionIn, Body(openapi_examples=_EXAMPLES)],
    caller: Annotated[Caller, needs("redemptions:write")],
    attempt: Annotated[Attempt, keyed("redemptions:write", required=True)],
    writes: Writes,
    pepper: Pepper,
    dry_run: DryRun = False,
) -> Response:
    """Orders it, which reserves the points and protects them from expiry; `immediate` hands it over as well.

    Points that expire soonest pay first. A refusal says what is missing, and `errors` names every reason.
    """
    reply = partial(_reply, status=201, dry_run=dry_run)
    members = body.member.given()
    answer = await writes.each(
        service.redeem, caller.program, attempt, body, reply, members=members, dry_run=dry_run, pepper=pepper
    )
    return answer if dry_run else _with_codes(answer, pepper)


@router.get("/redemptions", responses=answers(*READING, CursorInvalid), summary="List redemptions")
def list_redemptions(
    caller: Annotated[Caller, needs("redemptions:read")],
    database: Db,
    request: Request,
    response: Response,
    member_id: Annotated[UUID | None, Query(description="Of this member only")] = None,
    status: Annotated[
        Literal["ordered", "fulfilled", "cancelled"] | None, Query(description="`ordered`: what is to be handed over")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> RedemptionPage:
    """Oldest first."""
    after = None if cursor is None else decode(cursor, UUID)[0]
    rows = database.read(
        lambda session: service.redemptions(session, caller.program, member_id, status, after, limit + 1)
    )
    found = page(rows, limit, lambda row: [str(row.id)])
    link_next(request, response, found.next)
    return RedemptionPage(items=[RedemptionRow.model_validate(row) for row in found.rows], next=found.next)


@router.get("/redemptions/{redemption_id}", responses=answers(*READING, NotFound, NoTerms), summary="Read a redemption")
def read_redemption(
    redemption_id: UUID, caller: Annotated[Caller, needs("redemptions:read")], database: Db, now: Now
) -> RedemptionOut:
    """Which lots paid, or are reserved; its vouchers without their codes; what its fulfilment posted."""
    return database.read(lambda session: _redemption(service.read(session, caller.program, redemption_id, now)))


@router.post(
    "/redemptions/{redemption_id}/fulfilment",
    response_model=RedemptionDone,
    responses=answers(*_KEYED, IdempotencyKeyMissing, *_ENDING),
    summary="Fulfil a redemption",
)
async def fulfil(
    redemption_id: UUID,
    caller: Annotated[Caller, needs("redemptions:write")],
    attempt: Annotated[Attempt, keyed("redemptions:write", required=True)],
    writes: Writes,
    pepper: Pepper,
    dry_run: DryRun = False,
) -> Response:
    """Hands over what was ordered: the points count as used, the cost is posted, vouchers are issued."""
    reply = partial(_reply, status=200, dry_run=dry_run)
    keys = [redemption_id]
    answer = await writes.each(
        service.fulfil, caller.program, attempt, redemption_id, reply, keys=keys, dry_run=dry_run, pepper=pepper
    )
    return answer if dry_run else _with_codes(answer, pepper)


@router.post(
    "/redemptions/{redemption_id}/cancellation",
    response_model=RedemptionDone,
    responses=answers(*_KEYED, IdempotencyKeyMissing, *_ENDING),
    summary="Cancel a redemption",
)
async def cancel(
    redemption_id: UUID,
    caller: Annotated[Caller, needs("redemptions:write")],
    attempt: Annotated[Attempt, keyed("redemptions:write", required=True)],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """Gives back points, pieces and the member's share. Points that would have expired meanwhile expire now."""
    reply = partial(_reply, status=200, dry_run=dry_run)
    keys = [redemption_id]
    return await writes.each(service.cancel, caller.program, attempt, redemption_id, reply, keys=keys, dry_run=dry_run)


def _reply(_asked: object, redeemed: Redeemed, now: datetime, *, status: int, dry_run: bool) -> Reply:
    """What is kept for retries has no codes of vouchers: they are added on the way out."""
    answer = RedemptionDone(
        **dict(_redemption(redeemed, dry_run=dry_run, new=status == 201)),
        dry_run=dry_run,
        balance=balance_out(redeemed.account),
        balance_at=now,
        entries=planned_entries(redeemed.account) if dry_run else None,
    )
    return Reply(200 if dry_run else status, answer.model_dump_json().encode())


def _with_codes(response: Response, pepper: bytes) -> Response:
    answer = json.loads(bytes(response.body))
    if not answer.get("vouchers"):
        return response
    for voucher in answer["vouchers"]:
        voucher["code"] = code_of(UUID(voucher["id"]), pepper)
    body = json.dumps(answer, ensure_ascii=False).encode()
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(body, response.status_code, headers | {"Cache-Control": "no-store"})


# --- vouchers -------------------------------------------------------------------------------------------------------


@router.get("/vouchers/{code}", responses=answers(*READING, NotFound), summary="Look a voucher up")
def read_voucher(
    code: str, caller: Annotated[Caller, needs("redemptions:read")], database: Db, now: Now, pepper: Pepper
) -> VoucherOut:
    """As somebody typed it: capitals, hyphens and blanks do not matter, O is 0, I and L are 1."""
    return _voucher(database.read(lambda session: vouchers.find(session, caller.program, code, pepper)), now)


@router.post(
    "/vouchers/{code}/burn",
    response_model=VoucherOut,
    responses=answers(*_KEYED, NotFound, rules.VoucherBurnt, rules.VoucherCancelled, rules.VoucherExpired),
    summary="Burn a voucher",
)
async def burn_voucher(
    code: str,
    body: Annotated[BurnIn, Body(openapi_examples={"receipt": {"value": _RECEIPT}})],
    caller: Annotated[Caller, needs("redemptions:write")],
    attempt: Annotated[Attempt, keyed("redemptions:write")],
    writes: Writes,
    pepper: Pepper,
) -> Response:
    """Uses it on a receipt, once. The same receipt again gets the same answer, for ever."""
    burning = Burning(code, Receipt(body.source, body.external_id))
    return await writes.each(vouchers.burn, caller.program, attempt, burning, _burnt, keys=[code], pepper=pepper)


@router.post(
    "/vouchers/{code}/cancellation",
    response_model=VoucherOut,
    responses=answers(*_KEYED, NotFound, rules.VoucherBurnt),
    summary="Cancel a voucher",
)
def cancel_voucher(
    code: str,
    caller: Annotated[Caller, needs("rewards:write")],
    attempt: Annotated[Attempt, keyed("rewards:write")],
    database: Db,
    now: Now,
    pepper: Pepper,
) -> Response:
    """One that was stolen or sent astray. Its points stay spent; cancelling it again changes nothing."""

    def act(session: Session) -> Reply:
        voucher = vouchers.cancel(session, caller.program, code, now, pepper)
        return Reply(200, _voucher(voucher, now).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act)


# --- answers --------------------------------------------------------------------------------------------------------


def _reward(row: RewardRow, caller: Caller) -> RewardOut:
    offer = Offer.model_validate(row.offer)
    shown = {name: getattr(offer, name) for name in Offer.model_fields}
    if "rewards:write" not in caller.scopes:
        shown["supplier"] = None
    return RewardOut(
        id=row.id,
        code=row.code,
        currency=row.currency,
        supply=row.supply,
        taken=row.taken,
        left=None if row.supply is None else row.supply - row.taken,
        created_at=row.created_at,
        retired_at=row.retired_at,
        **shown,
    )


def _redemption(redeemed: Redeemed, *, dry_run: bool = False, new: bool = False) -> RedemptionOut:
    row, reward = redeemed.redemption, redeemed.reward
    return RedemptionOut(
        id=None if dry_run and new else row.id,
        status=row.status,
        member_id=row.member_id,
        reward=RewardBrief(id=reward.id, code=reward.code, name=reward.offer["name"]),
        quantity=row.quantity,
        points=row.points,
        ordered_at=row.ordered_at,
        ended_at=row.ended_at,
        paid_by=[PaidBy.model_validate(payment) for payment in redeemed.paid_by],
        vouchers=[_issued(voucher, dry_run=dry_run) for voucher in redeemed.vouchers],
        postings=[PostingOut.model_validate(posting) for posting in redeemed.postings],
    )


def _issued(row: VoucherRow, *, dry_run: bool) -> VoucherIssued:
    return VoucherIssued(
        id=None if dry_run else row.id,
        code=None,
        value=Money(amount=row.value, currency=row.currency),
        issued_at=row.issued_at,
        expires_at=row.expires_at,
        status=row.status,
    )


def _burnt(_burning: Burning, row: VoucherRow, now: datetime) -> Reply:
    return Reply(200, _voucher(row, now).model_dump_json().encode())


def _voucher(row: VoucherRow, now: datetime) -> VoucherOut:
    return VoucherOut(
        id=row.id,
        valid=row.status == "issued" and now < row.expires_at,
        status=row.status,
        value=Money(amount=row.value, currency=row.currency),
        issued_at=row.issued_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        source=row.source,
        external_id=row.external_id,
    )
