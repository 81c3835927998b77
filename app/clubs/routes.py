"""Clubs over HTTP: join, leave, and which a member belongs to. What they are is in the terms."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Path, Request, Response
from sqlalchemy.orm import Session

from app import idempotency
from app.accounting import PostingOut
from app.clients import Caller, keyed, needs
from app.clubs import queries, rules, service
from app.clubs.joining import Ended, Ending, Joined, Wanted, join, leave
from app.clubs.schemas import (
    BelongingList,
    JoinedOut,
    JoiningIn,
    LeavingIn,
    LeftOut,
    MembershipOut,
    MembershipPage,
    facts_of,
    membership_page,
)
from app.edge import READING, WRITING, Db, DryRun, Now, Reads, StrictRoute, Writes
from app.errors import CursorInvalid, NotFound, Problem, answers
from app.idempotency import Attempt, IdempotencyKeyMissing, Reply
from app.ledger import TooManyPoints, balance_out, planned_entries
from app.members import MemberMayNotEarn
from app.members import read as read_member
from app.paging import Cursor, Limit, decode, link_next
from app.programs import NoTerms
from app.wire import Money

router = APIRouter(prefix="/v1/members", tags=["clubs"], route_class=StrictRoute)

_WRITE = "clubs:write"
_ANY = (*WRITING, *idempotency.REFUSALS, IdempotencyKeyMissing, NotFound)
_AGAIN: dict[int | str, dict[str, Any]] = {200: {"model": JoinedOut, "description": "A known receipt, or a dry run"}}
_NOTHING = JoiningIn()
_JOINING: dict[str, Any] = {
    "by a fee": {"value": {"receipt": {"source": "store-330", "external_id": "31198570046"}}},
    "by a promise": {"value": {}},
}
_LEAVING: dict[str, Any] = {
    "with a refund": {"value": {"reason": "moved_away", "refund": True}},
    "without": {"value": {"reason": "no_longer_wanted"}},
}

ClubCode = Annotated[str, Path(min_length=1, max_length=32, pattern=r"^[a-z0-9_]+$", examples=["friends"])]


@router.get("/{member_id}/clubs", responses=answers(*READING, NotFound), summary="Read a member's clubs")
async def read_clubs(member_id: UUID, caller: Annotated[Caller, needs("members:read")], reads: Reads) -> BelongingList:
    """By now, whether or not a job has written it down: since and until when, what for, what is missing of a promise
    and when that is looked at, and how much of a fee is still to be earned."""
    program_id = caller.program

    def read(session: Session, ids: Sequence[UUID], at: datetime) -> list[BelongingList | Problem]:
        return service.belongings(session, program_id, ids, at)

    return await reads.ask((service.belongings, program_id), read, member_id)


@router.get(
    "/{member_id}/clubs/memberships",
    responses=answers(*READING, NotFound, CursorInvalid),
    summary="List a member's memberships",
)
def list_memberships(
    member_id: UUID,
    caller: Annotated[Caller, needs("members:read")],
    database: Db,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> MembershipPage:
    """Of all clubs, past ones too, the latest recorded first. What time has ended is so once it was written down."""
    before = None if cursor is None else decode(cursor, UUID)[0]

    def read(session: Session) -> MembershipPage:
        read_member(session, caller.program, member_id)
        return membership_page(queries.history(session, member_id, before, limit + 1), limit)

    answer = database.read(read)
    link_next(request, response, answer.next)
    return answer


@router.post(
    "/{member_id}/clubs/{code}",
    status_code=201,
    response_model=JoinedOut,
    responses=answers(
        *_ANY,
        NoTerms,
        rules.ClubUnknown,
        rules.JoinedByBuying,
        rules.ReceiptOfFee,
        rules.AlreadyInClub,
        rules.MembershipConflict,
        MemberMayNotEarn,
        TooManyPoints,
    )
    | _AGAIN,
    summary="Join a club, or renew",
)
async def join_club(
    member_id: UUID,
    code: ClubCode,
    caller: Annotated[Caller, needs(_WRITE)],
    attempt: Annotated[Attempt, keyed(_WRITE, required=True)],
    writes: Writes,
    body: Annotated[JoiningIn, Body(openapi_examples=_JOINING)] = _NOTHING,
    dry_run: DryRun = False,
) -> Response:
    """Now, under the terms in force: by a promise, or with the receipt of the fee. A fee that is paid near the end is
    for the time after it. A receipt pays for one membership, for ever: post it again whenever you are not sure."""
    receipt = None if body.receipt is None else (body.receipt.source, body.receipt.external_id)
    keys = [] if receipt is None else [receipt]
    item, reply = Wanted(member_id, code, receipt), partial(_joined, dry_run=dry_run)
    who = [("id", str(member_id))]
    return await writes.each(join, caller.program, attempt, item, reply, keys=keys, members=who, dry_run=dry_run)


@router.post(
    "/{member_id}/clubs/{code}/leaving",
    response_model=LeftOut,
    responses=answers(*_ANY, rules.NotInClub),
    summary="Leave a club",
)
def leave_club(
    member_id: UUID,
    code: ClubCode,
    body: Annotated[LeavingIn, Body(openapi_examples=_LEAVING)],
    caller: Annotated[Caller, needs(_WRITE)],
    attempt: Annotated[Attempt, keyed(_WRITE, required=True)],
    database: Db,
    now: Now,
    dry_run: DryRun = False,
) -> Response:
    """Ends what was promised or paid for, now, and what was to follow it. With a refund what is not earned yet is paid
    back; without one it is earned at once, for nothing is owed any more. What a purchase has brought goes with the
    purchase only."""
    wanted = Ending(member_id, code, body.reason, body.refund, body.points)

    def act(session: Session) -> Reply:
        done = leave(session, caller.program, wanted, now, dry_run=dry_run)
        return Reply(200, _left(done, now, dry_run=dry_run).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act, dry_run=dry_run)


# --- how ------------------------------------------------------------------------------------------------------------


def _joined(_wanted: object, joined: Joined, now: datetime, *, dry_run: bool) -> Reply:
    unwritten = {"id": None, "document_id": None} if dry_run and not joined.duplicate else {}
    answer = JoinedOut(
        **{**facts_of(joined.membership), **unwritten},
        name=joined.club.name,
        duplicate=joined.duplicate,
        dry_run=dry_run,
        balance=balance_out(joined.account),
        balance_at=now,
        entries=planned_entries(joined.account) if dry_run else None,
        postings=[PostingOut.model_validate(posting) for posting in joined.postings],
    )
    return Reply(200 if joined.duplicate or dry_run else 201, answer.model_dump_json().encode())


def _left(ended: Ended, now: datetime, *, dry_run: bool) -> LeftOut:
    return LeftOut(
        memberships=[MembershipOut(**facts_of(each)) for each in ended.memberships],
        refund=Money(amount=ended.refund, currency=ended.memberships[0].currency),
        taken_back=ended.taken_back,
        dry_run=dry_run,
        balance=balance_out(ended.account),
        balance_at=now,
        entries=planned_entries(ended.account) if dry_run else None,
        postings=[PostingOut.model_validate(posting) for posting in ended.postings],
    )
