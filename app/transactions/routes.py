"""Transactions over HTTP."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response
from sqlalchemy.orm import Session

from app import idempotency
from app.accounting import PostingOut
from app.clients import Caller, keyed, needs
from app.clubs import brought_out
from app.edge import READING, WRITING, Db, DryRun, Now, StrictRoute, Writes
from app.errors import (
    CursorInvalid,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Problem,
    ProblemBody,
    answers,
)
from app.idempotency import Attempt, Reply
from app.ledger import (
    Account,
    InsufficientPoints,
    PlannedEntries,
    PlannedEntry,
    TooManyPoints,
    balance_out,
    expiring_out,
    planned_entries,
)
from app.members import (
    AlreadyReferred,
    IdentifierInvalid,
    MemberClosed,
    MemberMayNotEarn,
    MemberMayNotSpend,
    ReferralIn,
    ReferralOut,
    ReferralTooLate,
    ReferralToSelf,
    ReferrerJoinedLater,
    UnknownMember,
)
from app.paging import Cursor, Limit, decode, link_next, page
from app.programs import (
    STAMPS,
    NoTerms,
    OccurredInFuture,
    OccurredTooLongAgo,
    Version,
    available_from,
    explain,
)
from app.stamps import effect_out
from app.tiers import BenefitOut, benefits_out
from app.transactions import buying, claims, events, return_rules, rules, service, uploads, waiting
from app.transactions.claims import Claimed, Wanted
from app.transactions.events import Happened, Reported
from app.transactions.models import TransactionClaim
from app.transactions.return_rules import Return
from app.transactions.returns import Fields
from app.transactions.rules import Purchase
from app.transactions.schemas import (
    BatchIn,
    BatchItem,
    BatchOut,
    ClaimIn,
    ClaimOut,
    ClaimRead,
    EventIn,
    EventOut,
    ExplainedOut,
    LineShare,
    Malformed,
    PointsOut,
    PurchaseIn,
    ReturnIn,
    ReturnOut,
    TierEffectOut,
    TransactionIn,
    TransactionMember,
    TransactionOut,
    TransactionRead,
    TransactionType,
    VoidIn,
    WaitingOut,
    WaitingPage,
    basket_of,
    item_of,
)
from app.transactions.service import Outcome, Recorded
from app.transactions.uploads import keys_of, names_of
from app.transactions.waiting import Waiting
from app.wire import ExternalId, Source

router = APIRouter(prefix="/v1/transactions", tags=["transactions"], route_class=StrictRoute)
referrals = APIRouter(prefix="/v1/members", tags=["members"], route_class=StrictRoute)
"""What depends on whether a member has bought."""


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
    OccurredInFuture,
    OccurredTooLongAgo,
    rules.PurchaseTooLarge,
    rules.PointsTenderRefused,
    InsufficientPoints,
    MemberMayNotSpend,
    return_rules.NothingToReturn,
    return_rules.ReturnTooLarge,
    return_rules.RefundDiffers,
    return_rules.ReceiptNeeded,
    return_rules.AlreadyVoided,
    return_rules.UnknownOriginal,
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
_RETURN = {
    "type": "return",
    "source": "store-330",
    "external_id": "31198570099",
    "occurred_at": "2026-11-03T09:12:00-05:00",
    "original": {"source": "store-330", "external_id": "31198570044"},
    "store": "330",
    "lines": [{"line": 1, "quantity": "1"}],
}
_VOID = {
    "type": "void",
    "source": "store-330",
    "external_id": "31198570100",
    "occurred_at": "2026-11-03T09:13:00-05:00",
    "original": {"source": "store-330", "external_id": "31198570099", "type": "return"},
    "store": "330",
}
_REFERRAL: dict[str, Any] = {"by card": {"value": {"referrer": {"card": "901"}}}}
_EXAMPLES: dict[str, Any] = {
    "five dollars of rolls": {"value": _PURCHASE},
    "they come back": {"value": _RETURN},
    "a mistake: they do not": {"value": _VOID},
}


@router.post(
    "",
    status_code=201,
    response_model=TransactionOut,
    responses=answers(*_KEYED, *_REFUSALS)
    | {
        200: {"model": TransactionOut, "description": "Known already, or a dry run"},
        202: {"model": TransactionOut, "description": "A return that waits for its purchase"},
    },
    summary="Post a purchase, a return or a void",
)
async def record(
    body: Annotated[TransactionIn, Body(openapi_examples=_EXAMPLES)],
    caller: Annotated[Caller, needs("transactions:write")],
    attempt: Annotated[Attempt, keyed("transactions:write")],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """Late, out of order, or again: the same transaction counts once. A purchase earns under the terms of its
    `occurred_at`; a return takes back what its purchase earned, and waits for it if it comes first."""
    if not caller.sees_store(body.store):
        raise rules.StoreNotAllowed
    item = item_of(body)
    if dry_run:
        return await writes.try_out(partial(_record, caller.program, dry_run=True), item)
    lane = ("transactions", caller.program)
    keys = [(caller.program, key) for key in keys_of(item)]
    members = [(caller.program, name) for name in names_of(item)]
    return await writes.carry_out(lane, partial(_record, caller.program), attempt, item, keys, members)


def _record(
    program_id: UUID, session: Session, items: Sequence[Purchase | Return], now: datetime, *, dry_run: bool = False
) -> list[Reply | Problem]:
    outcomes = service.record(session, program_id, items, now, dry_run=dry_run)
    return [
        outcome
        if isinstance(outcome, Problem)
        else Reply(_status(outcome, dry_run), _answer(outcome, now, dry_run, entries).model_dump_json().encode())
        for outcome, entries in zip(outcomes, _planned(outcomes, dry_run), strict=True)
    ]


@router.post("/batch", response_model=BatchOut, responses=answers(*_KEYED), summary="Post many transactions")
def record_batch(
    body: Annotated[BatchIn, Body(openapi_examples={"one": {"value": {"transactions": [_PURCHASE]}}})],
    caller: Annotated[Caller, needs("transactions:write")],
    attempt: Annotated[Attempt, keyed("transactions:write")],
    database: Db,
    now: Now,
    dry_run: DryRun = False,
) -> Response:
    """At most 500, one result per item in order; a refused one does not disturb the others."""

    judged = [_admit(item, caller) for item in body.transactions]
    items = [item for item in judged if isinstance(item, Purchase | Return)]

    def reply(outcomes: Sequence[Outcome]) -> Reply:
        recorded = iter(outcomes)
        whole = [next(recorded) if isinstance(item, Purchase | Return) else item for item in judged]
        told = zip(range(len(whole)), whole, _planned(whole, dry_run), strict=True)
        results = [_item(*each, now, dry_run, attempt.request_id) for each in told]
        return Reply(200, BatchOut(results=results).model_dump_json().encode())

    if dry_run:
        tried = partial(service.record, program_id=caller.program, items=items, now=now, dry_run=True)
        return reply(database.read(tried)).response()
    return uploads.carry_out(database, attempt, caller.program, items, now, reply)


def _admit(item: PurchaseIn | ReturnIn | VoidIn | Malformed, caller: Caller) -> Purchase | Return | Problem:
    if isinstance(item, Malformed):
        return InvalidRequest(findings=item.findings)
    return item_of(item) if caller.sees_store(item.store) else rules.StoreNotAllowed()


@router.get("/waiting", responses=answers(*READING, CursorInvalid), summary="List returns that wait for their purchase")
def list_waiting(
    caller: Annotated[Caller, needs("transactions:read")],
    database: Db,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> WaitingPage:
    """They are applied with their purchase; one that waits for days wants somebody's attention."""
    after = None if cursor is None else decode(cursor, _printable, _printable)
    rows = database.read(lambda session: waiting.listed(session, caller.program, caller.stores, after, limit + 1))
    found = page(rows, limit, lambda row: [row.source, row.external_id])
    link_next(request, response, found.next)
    return WaitingPage(items=[WaitingOut.model_validate(row) for row in found.rows], next=found.next)


@router.delete(
    "/waiting/{source}/{external_id:path}",
    status_code=204,
    response_class=Response,
    responses=answers(*READING, OutcomeUnknown, NotFound, waiting.ReturnNotWaiting),
    summary="Dismiss a return that waits in vain",
)
def dismiss_waiting(
    source: Source,
    external_id: ExternalId,
    caller: Annotated[Caller, needs("transactions:dismiss")],
    database: Db,
    now: Now,
) -> Response:
    """Its purchase will never come, or nothing is left of it. It was not recorded, so nothing else changes."""
    by: dict[str, Any] = {"client_id": caller.client_id, "person": caller.person, "stores": caller.stores}
    database.write(lambda session: waiting.dismiss(session, caller.program, (source, external_id), now, **by))
    return Response(status_code=204)


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
    held = row if claim is None else {**row, "member_id": claim.member_id, **_as_claimed(claim.points, claim.reasons)}
    if not caller.sees_store(row["store"]):
        raise NotFound
    return TransactionRead(
        id=row["id"],
        type=row["type"],
        source=row["source"],
        external_id=row["external_id"],
        member_id=held["member_id"],
        terms_version=found.recorded.version.number,
        occurred_at=_local(row["occurred_at"], found.recorded),
        recorded_at=row["recorded_at"],
        points=_points(held, found.recorded.version),
        returned=_returned(row),
        content=row["content"],
        explanation=_explanation(row, claim, found.recorded.version),
        shares=[LineShare(**share) for share in row["shares"]],
        postings=_postings(found.recorded.postings),
        claim=None if claim is None else ClaimRead.model_validate(claim),
        returns=list(found.returns),
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
        return_rules.NothingToReturn,
    )
    | {200: {"model": ClaimOut, "description": "Claimed by this member already, or a dry run"}},
    summary="Claim a guest's purchase",
)
async def claim(
    transaction_id: UUID,
    body: Annotated[ClaimIn, Body(openapi_examples={"by card": {"value": {"member": {"card": "900"}}}})],
    caller: Annotated[Caller, needs("transactions:write")],
    attempt: Annotated[Attempt, keyed("transactions:write")],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """Gives its points to a member, under the terms of the purchase's `occurred_at`."""
    wanted = Wanted(transaction_id, body.member, caller.stores)
    reply = partial(_claimed, dry_run=dry_run)
    keys, members = [transaction_id], body.member.given()
    return await writes.each(
        claims.claim, caller.program, attempt, wanted, reply, keys=keys, members=members, dry_run=dry_run
    )


@router.post(
    "/{transaction_id}/events",
    response_model=EventOut,
    responses=answers(
        *_KEYED,
        NotFound,
        events.EventUnknown,
        events.PointsCancelled,
        events.PointsActivated,
        events.PurchaseUnclaimed,
    ),
    summary="Say what has happened to a purchase whose points are pending",
)
async def report_event(
    transaction_id: UUID,
    body: Annotated[EventIn, Body(openapi_examples={"shipped": {"value": {"event": "shipped"}}})],
    caller: Annotated[Caller, needs("transactions:write")],
    attempt: Annotated[Attempt, keyed("transactions:write")],
    writes: Writes,
    dry_run: DryRun = False,
) -> Response:
    """The event that the purchase's terms wait for makes its points available, `cancelled` takes them away. They expire
    when they would have without the wait. Again: the same answer, and nothing happens twice."""
    reported = Reported(transaction_id, body.event, caller.stores)
    reply = partial(_happened, dry_run=dry_run)
    keys = [transaction_id]
    return await writes.each(events.happen, caller.program, attempt, reported, reply, keys=keys, dry_run=dry_run)


def _printable(text: str) -> str:
    """A part of a natural key, as a cursor carries it."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError(text)
    return text


# --- answers --------------------------------------------------------------------------------------------------------


def _status(outcome: Recorded | Waiting, dry_run: bool) -> int:
    if dry_run:
        return 200
    if isinstance(outcome, Waiting):
        return 202
    return 200 if outcome.duplicate else 201


def _claimed(wanted: Wanted, claimed: Claimed, now: datetime, *, dry_run: bool) -> Reply:
    answer = ClaimOut(
        id=None if dry_run and not claimed.duplicate else claimed.claim["id"],
        transaction_id=wanted.transaction_id,
        duplicate=claimed.duplicate,
        dry_run=dry_run,
        recorded_at=claimed.claim["recorded_at"],
        member=TransactionMember(
            id=None if dry_run and claimed.enrolled else claimed.account.member_id, enrolled=claimed.enrolled
        ),
        points=_points(
            {**claimed.transaction, **_as_claimed(claimed.claim["points"], claimed.claim["reasons"])}, claimed.version
        ),
        taken_back=claimed.taken_back,
        balance=balance_out(claimed.account),
        balance_at=now,
        expiring_next=expiring_out(claimed.account, claimed.version.terms.zone),
        clubs=brought_out(claimed.brought, claimed.version.terms),
        cards=[effect_out(each) for each in claimed.cards],
        entries=_made_once(claimed.account, claimed.duplicate, dry_run, enrolled=claimed.enrolled),
        postings=_postings(claimed.postings),
    )
    return Reply(200 if dry_run or claimed.duplicate else 201, answer.model_dump_json().encode())


def _as_claimed(points: int, reasons: Any) -> dict[str, Any]:
    """What is other for a guest's purchase since it was claimed."""
    return {"points": points, "claimable": 0} | ({} if reasons is None else {"reasons": reasons})


def _happened(reported: Reported, happened: Happened, now: datetime, *, dry_run: bool) -> Reply:
    answer = EventOut(
        transaction_id=reported.transaction_id,
        event=reported.event,
        duplicate=happened.duplicate,
        dry_run=dry_run,
        available=happened.available,
        cancelled=happened.cancelled,
        balance=balance_out(happened.account),
        balance_at=now,
        entries=_made_once(happened.account, happened.duplicate, dry_run),
    )
    return Reply(200, answer.model_dump_json().encode())


def _made_once(account: Account, duplicate: bool, dry_run: bool, *, enrolled: bool = False) -> PlannedEntries:
    """What a dry run would make, if it had not been made before; None for what was written."""
    if not dry_run:
        return None
    return [] if duplicate else planned_entries(account, enrolled=enrolled)


def _planned(outcomes: Sequence[Outcome], dry_run: bool) -> Sequence[PlannedEntries]:
    """What each outcome of a dry run would make: the entries of its account that none before it told, so that what was
    due is told with the member's first. None for what was written."""
    if not dry_run:
        return [None] * len(outcomes)
    told: dict[UUID, int] = {}
    newcomers: set[UUID] = set()
    return [_entries(outcome, told, newcomers) for outcome in outcomes]


def _entries(outcome: Outcome, told: dict[UUID, int], newcomers: set[UUID]) -> list[PlannedEntry]:
    """`told` and `newcomers` go on from outcome to outcome: each member's last entry, and who has no id yet."""
    if not isinstance(outcome, Recorded) or outcome.duplicate or outcome.account is None:
        return []
    account = outcome.account
    if outcome.row["enrolled"]:
        newcomers.add(account.member_id)
    after = told.get(account.member_id, 0)
    told[account.member_id] = account.last_entry
    return planned_entries(account, after=after, enrolled=account.member_id in newcomers)


def _item(
    position: int, outcome: Outcome, entries: PlannedEntries, now: datetime, dry_run: bool, request_id: str | None
) -> BatchItem:
    if not isinstance(outcome, Problem):
        answer = _answer(outcome, now, dry_run, entries)
        return BatchItem(index=position, status=_status(outcome, dry_run), transaction=answer)
    placed = [found.under(f"/transactions/{position}") for found in outcome.findings]
    problem = ProblemBody(
        **type(outcome)(outcome.detail, findings=placed, extra=outcome.extra).body(), request_id=request_id
    )
    return BatchItem(index=position, status=outcome.status, problem=problem)


def _answer(outcome: Recorded | Waiting, now: datetime, dry_run: bool, entries: PlannedEntries) -> TransactionOut:
    if isinstance(outcome, Waiting):
        return _waits(outcome, now, dry_run, entries)
    return _out(outcome, now, dry_run, entries)


def _out(recorded: Recorded, now: datetime, dry_run: bool, entries: PlannedEntries) -> TransactionOut:
    row, account = recorded.row, recorded.account
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
        waiting=False,
        occurred_at=_local(row["occurred_at"], recorded),
        recorded_at=row["recorded_at"],
        member=member,
        points=_points(row, recorded.version),
        returned=_returned(row),
        balance=None if account is None else balance_out(account),
        balance_at=now,
        expiring_next=None if account is None else expiring_out(account, recorded.version.terms.zone),
        explanation=_explanation(row, None, recorded.version) if imagined else None,
        tier=_tier(recorded),
        discounts=_discounts(recorded),
        clubs=brought_out(recorded.brought, recorded.version.terms),
        cards=[effect_out(each) for each in recorded.cards],
        entries=entries,
        postings=_postings(recorded.postings),
    )


def _tier(recorded: Recorded) -> TierEffectOut | None:
    effect = recorded.tier
    if effect is None:
        return None
    after = recorded.version.terms.tier(effect.after)
    return TierEffectOut(
        before=effect.before,
        after=effect.after,
        earning_multiplier="1" if after is None else after.earning_multiplier,
    )


def _discounts(recorded: Recorded) -> list[BenefitOut]:
    """Of the tier and the clubs that the member was in before."""
    terms, facts = recorded.version.terms, recorded.row["facts"] or {}
    tier = terms.tier(facts.get("tier"))
    clubs = [terms.club(code) for code in facts.get("clubs", ())]
    benefits = [benefit for each in (tier, *clubs) if each is not None for benefit in each.benefits]
    return benefits_out([benefit for benefit in benefits if benefit.discount is not None])


def _waits(outcome: Waiting, now: datetime, dry_run: bool, entries: PlannedEntries) -> TransactionOut:
    item = outcome.item
    return TransactionOut(
        id=None,
        type="return",
        source=item.source,
        external_id=item.external_id,
        duplicate=outcome.duplicate,
        dry_run=dry_run,
        waiting=True,
        occurred_at=item.occurred_at,
        recorded_at=outcome.recorded_at,
        member=None,
        points=PointsOut(earned=0, pending=0, spent=0, qualifying=0, claimable=0, reasons=[]),
        returned=None,
        balance=None,
        balance_at=now,
        expiring_next=None,
        explanation=None,
        tier=None,
        discounts=[],
        clubs=[],
        cards=[],
        entries=entries,
        postings=[],
    )


def _points(row: Fields, version: Version) -> PointsOut:
    """`pending`: of what was earned, what had to wait when it was recorded; stamps do, if only for themselves."""
    earned = row["points"]
    later = available_from(row["occurred_at"], version.terms)
    pending = earned if earned > 0 and (later is None or later > row["recorded_at"]) else 0
    if earned > 0 and not pending:
        pending = sum(reason["points"] for reason in row["reasons"] if reason["rule"].startswith(STAMPS))
    outcome = row["outcome"] or {}
    return PointsOut.model_validate(
        {
            "earned": earned,
            "pending": pending,
            "spent": outcome.get("tendered_points", 0),
            "qualifying": earned + outcome.get("conceded", 0),
            "claimable": row["claimable"],
            "reasons": row["reasons"],
        }
    )


def _explanation(row: Fields, claim: TransactionClaim | None, version: Version) -> list[ExplainedOut]:
    if row["type"] != "purchase":
        return []
    bought = PurchaseIn.model_validate(rules.parsed(row["content"]))
    occasion = rules.occasion_of(bought.occurred_at, bought.store, bought.channel, version.terms)
    if row["member_id"] is not None or claim is not None:
        occasion = rules.remembered(occasion, row["facts"] if claim is None else claim.facts)
    return [ExplainedOut.model_validate(each) for each in explain(basket_of(bought), version.terms, occasion)]


def _returned(row: Fields) -> ReturnOut | None:
    if row["type"] == "purchase":
        return None
    outcome = row["outcome"]
    names = ReturnOut.model_fields.keys() - {"original_id", "refund", "currency"}
    figures = outcome["figures"]
    return ReturnOut(
        original_id=row["original_id"],
        refund=figures["total"] - figures["tendered"] - outcome["withheld_amount"],
        currency=row["currency"],
        **{name: outcome[name] for name in names},
    )


def _postings(postings: Sequence[Any]) -> list[PostingOut]:
    return [PostingOut.model_validate(posting) for posting in postings]


def _local(instant: datetime, recorded: Recorded) -> datetime:
    """The instant as the programme's clocks show it."""
    return instant.astimezone(recorded.version.terms.zone)


# --- who brought a member -------------------------------------------------------------------------------------------


@referrals.put(
    "/{member_id}/referrer",
    response_model=ReferralOut,
    responses=answers(
        *_KEYED,
        NotFound,
        IdentifierInvalid,
        UnknownMember,
        ReferralToSelf,
        AlreadyReferred,
        ReferralTooLate,
        ReferrerJoinedLater,
        MemberClosed,
    ),
    summary="Say who brought a member",
)
def put_referrer(
    member_id: UUID,
    body: Annotated[ReferralIn, Body(openapi_examples=_REFERRAL)],
    caller: Annotated[Caller, needs("members:write")],
    attempt: Annotated[Attempt, keyed("members:write")],
    database: Db,
    now: Now,
) -> Response:
    """Before the member's first purchase, once; the same again changes nothing. Referral campaigns go by it."""

    def act(session: Session) -> Reply:
        known = buying.refer(session, caller.program, member_id, body.referrer, now)
        return Reply(200, ReferralOut.model_validate(known).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act)
