"""Rewards, redemptions and vouchers over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response
from sqlalchemy.orm import Session

from app import idempotency
from app.clients import Caller, keyed, needs
from app.edge import READING, WRITING, Db, IfMatch, Now, StrictRoute, revision_in
from app.errors import CursorInvalid, NotFound, PreconditionFailed, PreconditionRequired, ProblemBody, answers
from app.idempotency import Attempt, Reply
from app.paging import Cursor, Limit, decode, link_next, page
from app.programs import NoTerms
from app.redemptions import catalogue
from app.redemptions.models import RewardRow
from app.redemptions.rules import Judgement, RewardRetired
from app.redemptions.schemas import ChoiceOut, ChoicePage, Offer, RewardChange, RewardIn, RewardOut, RewardPage

router = APIRouter(prefix="/v1", tags=["rewards"], route_class=StrictRoute)

_KEYED = (*WRITING, *idempotency.REFUSALS)
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
    after = None if cursor is None else decode(cursor, UUID)[0]
    judged = database.read(lambda session: catalogue.options(session, caller.program, member_id, now, after, limit + 1))
    found = page(judged, limit, lambda judgement: [str(judgement.reward.id)])
    link_next(request, response, found.next)
    return ChoicePage(items=[_choice(judgement) for judgement in found.rows], next=found.next)


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


def _choice(judgement: Judgement) -> ChoiceOut:
    reward = judgement.reward
    return ChoiceOut(
        id=reward.id,
        code=reward.code,
        name=reward.offer.name,
        points=judgement.points,
        item=reward.offer.item,
        currency=reward.currency,
        possible=not judgement.refusals,
        refusals=[ProblemBody(**refusal.body()) for refusal in judgement.refusals],
    )
