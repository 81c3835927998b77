"""Members over HTTP: enrol, look up, change; balance, entries, lots."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app import idempotency, ledger
from app.clients import Caller, keyed, needs
from app.edge import READING, WRITING, Db, IfMatch, Now, Reads, StrictRoute, revision_in
from app.errors import (
    CursorInvalid,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    PreconditionRequired,
    Problem,
    answers,
)
from app.idempotency import Attempt, IdempotencyKeyMissing, Reply
from app.members import service
from app.members.rules import (
    GATES,
    Identifier,
    IdentifierInvalid,
    IdentifierTaken,
    LastIdentifier,
    MemberClosed,
    ReferralToSelf,
    UnknownMember,
)
from app.members.schemas import (
    IdentifierIn,
    LookupOut,
    MemberBrief,
    MemberChange,
    MemberIn,
    MemberOut,
    MemberRef,
    ReferralOut,
    Value,
    identifier_at,
    lookup_query,
)
from app.members.service import LookedUp
from app.paging import Cursor, Limit, link_next
from app.programs import look, zone_at

router = APIRouter(prefix="/v1/members", tags=["members"], route_class=StrictRoute)

_EXAMPLE = {"by card": {"value": {"identifiers": [{"kind": "card", "value": "900"}], "profile": {"language": "en"}}}}
_EXAMPLE_PHONE = {"kind": "phone", "value": "+14155550100"}
_KEYED = (*WRITING, *idempotency.REFUSALS)


@router.post(
    "",
    status_code=201,
    response_model=MemberBrief,
    responses=answers(
        *_KEYED,
        IdempotencyKeyMissing,
        IdentifierInvalid,
        IdentifierTaken,
        UnknownMember,
        ReferralToSelf,
        MemberClosed,
    ),
    summary="Enrol a member",
)
def enrol(
    body: Annotated[MemberIn, Body(openapi_examples=_EXAMPLE)],
    caller: Annotated[Caller, needs("members:write")],
    attempt: Annotated[Attempt, keyed("members:write", required=True)],
    database: Db,
    now: Now,
) -> Response:
    """Under at least one identifier; `referred_by` says who brought them. Answers no personal data: read the member for
    that."""

    def act(session: Session) -> Reply:
        identifiers = [
            _normalised(session, caller.program, item, now, f"#/identifiers/{place}/value")
            for place, item in enumerate(body.identifiers)
        ]
        member_id = service.enrol(session, caller.program, identifiers, now, body.profile.model_dump())
        if body.referred_by is not None:
            region = service.phone_region(session, caller.program, now)
            named = {"referred_by": body.referred_by}
            (referrer_id,) = service.named(session, caller.program, named, region)
            service.refer_new(session, caller.program, member_id, referrer_id, now)
        return Reply(201, _brief(service.read(session, caller.program, member_id)).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act)


@router.get("/lookup", responses=answers(*READING, NotFound, IdentifierInvalid), summary="Find a member at the till")
async def look_up(
    reference: Annotated[MemberRef, Depends(lookup_query)],
    caller: Annotated[Caller, needs("members:lookup")],
    reads: Reads,
) -> LookupOut:
    """By card, phone, e-mail or partner id. Answers no personal data."""
    program_id = caller.program

    def read(session: Session, references: Sequence[MemberRef], now: datetime) -> Sequence[LookedUp | Problem]:
        return service.look_up(session, program_id, references, now)

    found = await reads.ask((service.look_up, program_id), read, reference)
    return LookupOut(
        id=found.member_id,
        status=found.status,
        may_earn=GATES[found.status].earn,
        may_spend=GATES[found.status].spend,
        balance=ledger.balance_out(found.account),
        expiring_next=ledger.expiring_out(found.account),
    )


@router.get("/{member_id}", responses=answers(*READING, NotFound), summary="Read a member")
def read_member(
    member_id: UUID, caller: Annotated[Caller, needs("members:read")], database: Db, response: Response
) -> MemberOut:
    """With personal data. The `ETag` is for changing it."""
    enrolled = database.read(lambda session: service.read(session, caller.program, member_id))
    response.headers["ETag"] = f'"{enrolled.member.revision}"'
    return _member(enrolled)


@router.patch(
    "/{member_id}",
    responses=answers(*WRITING, NotFound, PreconditionRequired, PreconditionFailed, MemberClosed),
    summary="Change a member",
)
def change_member(
    member_id: UUID,
    body: Annotated[MemberChange, Body(openapi_examples={"suspend": {"value": {"status": "suspended"}}})],
    caller: Annotated[Caller, needs("members:write")],
    database: Db,
    now: Now,
    response: Response,
    if_match: IfMatch = None,
) -> MemberOut:
    """Status and profile; what is absent stays. Statuses gate earning and spending separately."""
    revision = revision_in(if_match)
    profile = None if body.profile is None else body.profile.model_dump(exclude_unset=True)
    changed = database.write(
        lambda session: service.change(
            session, caller.program, member_id, revision, now, status=body.status, profile=profile
        )
    )
    response.headers["ETag"] = f'"{changed.member.revision}"'
    return _member(changed)


@router.post(
    "/{member_id}/identifiers",
    response_model=MemberBrief,
    responses=answers(*_KEYED, NotFound, IdentifierInvalid, IdentifierTaken),
    summary="Add an identifier",
)
def add_identifier(
    member_id: UUID,
    body: Annotated[IdentifierIn, Body(openapi_examples={"phone": {"value": _EXAMPLE_PHONE}})],
    caller: Annotated[Caller, needs("members:write")],
    attempt: Annotated[Attempt, keyed("members:write")],
    database: Db,
    now: Now,
) -> Response:
    """Adding one the member already has changes nothing. Answers no personal data."""

    def act(session: Session) -> Reply:
        identifier = _normalised(session, caller.program, body, now)
        enrolled = service.add_identifier(session, caller.program, member_id, identifier)
        return Reply(200, _brief(enrolled).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act)


@router.delete(
    "/{member_id}/identifiers/{kind}/{value:path}",
    status_code=204,
    response_class=Response,
    responses=answers(*READING, OutcomeUnknown, NotFound, IdentifierInvalid, LastIdentifier),
    summary="Remove an identifier",
)
def remove_identifier(
    member_id: UUID,
    kind: Literal["card", "phone", "email", "partner"],
    value: Value,
    caller: Annotated[Caller, needs("members:write")],
    database: Db,
    now: Now,
) -> Response:
    """A lost card, an old address. The last one stays."""

    def act(session: Session) -> None:
        identifier = _normalised(session, caller.program, IdentifierIn(kind=kind, value=value), now, "value")
        service.remove_identifier(session, caller.program, member_id, identifier)

    database.write(act)
    return Response(status_code=204)


@router.get("/{member_id}/referrer", responses=answers(*READING, NotFound), summary="Read who brought a member")
def read_referrer(member_id: UUID, caller: Annotated[Caller, needs("members:read")], database: Db) -> ReferralOut:
    found = database.read(lambda session: service.referral(session, caller.program, member_id))
    return ReferralOut.model_validate(found)


@router.get("/{member_id}/balance", responses=answers(*READING, NotFound), summary="Read a balance")
async def read_balance(
    member_id: UUID,
    caller: Annotated[Caller, needs("members:read")],
    past: ledger.AskedPast,
    database: Db,
    reads: Reads,
    now: Now,
) -> ledger.StandingOut:
    """Points that have expired are gone from it, whether or not a job has written that down. A past one comes from the
    entries alone and is the same whenever it is asked for."""
    program_id = caller.program
    if past is not None:
        return await run_in_threadpool(database.read, partial(_past_standing, program_id, member_id, past, now))

    def read(session: Session, ids: Sequence[UUID], at: datetime) -> list[ledger.StandingOut | Problem]:
        found = service.standings(session, program_id, ids, at)
        return [each if isinstance(each, Problem) else ledger.standing_out(each, at) for each in found]

    return await reads.ask((service.standings, program_id), read, member_id)


def _past_standing(
    program_id: UUID, member_id: UUID, past: ledger.Past, now: datetime, session: Session
) -> ledger.StandingOut:
    service.read(session, program_id, member_id)
    account = ledger.as_of(session, [member_id], past, zone_at(session, program_id, now))[member_id]
    return ledger.standing_out(account, past.as_of)


@router.get("/{member_id}/entries", responses=answers(*READING, NotFound, CursorInvalid), summary="List entries")
def list_entries(
    member_id: UUID,
    caller: Annotated[Caller, needs("members:read")],
    past: ledger.AskedPast,
    database: Db,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ledger.EntryPage:
    """Every movement, newest first, numbered without gaps. Of a past: those that count in its balance, less what was
    due then and written down later."""
    before = ledger.entry_cursor(cursor)

    def read(session: Session) -> ledger.EntryPage:
        service.read(session, caller.program, member_id)
        among = None if past is None else ledger.counted(member_id, past)
        return ledger.entry_page(ledger.entries(session, member_id, before, limit + 1, among), limit)

    answer = database.read(read)
    link_next(request, response, answer.next)
    return answer


@router.get("/{member_id}/lots", responses=answers(*READING, NotFound, CursorInvalid), summary="List lots")
def list_lots(
    member_id: UUID,
    caller: Annotated[Caller, needs("members:read")],
    database: Db,
    now: Now,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ledger.BookedLotPage:
    """Points as they were earned, spent ones too, and when the open ones expire."""
    after = ledger.lot_cursor(cursor)

    def read(session: Session) -> ledger.BookedLotPage:
        service.read(session, caller.program, member_id)
        account = look(session, caller.program, [member_id], now, [member_id])[member_id]
        rows = ledger.lots(session, member_id, after, limit + 1)
        return ledger.lot_page(ledger.BookedLotPage, rows, account, limit)

    answer = database.read(read)
    link_next(request, response, answer.next)
    return answer


def _brief(enrolled: service.Enrolled) -> MemberBrief:
    return MemberBrief.model_validate(_facts(enrolled))


def _member(enrolled: service.Enrolled) -> MemberOut:
    personal = {
        "identifiers": [{"kind": has.kind, "value": has.value} for has in enrolled.identifiers],
        "profile": enrolled.profile,
    }
    return MemberOut.model_validate(_facts(enrolled) | personal)


def _facts(enrolled: service.Enrolled) -> dict[str, Any]:
    member, gates = enrolled.member, GATES[enrolled.member.status]
    return {
        "id": member.id,
        "status": member.status,
        "may_earn": gates.earn,
        "may_spend": gates.spend,
        "enrolled_at": member.enrolled_at,
    }


def _normalised(
    session: Session, program_id: UUID, item: IdentifierIn, now: datetime, pointer: str = "#/value"
) -> Identifier:
    return identifier_at(pointer, item.kind, item.value, service.phone_region(session, program_id, now))
