"""What members read, and the tokens they read it with."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Header, Path, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app import campaigns, clubs, ledger, members, redemptions, stamps, tiers
from app.clients import TOKEN_LIFE, Caller, MemberCaller, member_token, needs, public, sign_token, signing_key
from app.coalesce import Read
from app.db import Database
from app.edge import ASKING, READING, Db, IfNoneMatch, Now, Reads, StrictRoute, has_tag, weak_tag
from app.errors import Busy, CursorInvalid, InvalidRequest, NotFound, Problem, Unauthenticated, answers
from app.members import GATES, IdentifierInvalid, MemberClosed, UnknownMember
from app.paging import Cursor, Limit, decode, link_next, page
from app.programs import NoTerms, look, zone_at
from app.wallet import printing, service
from app.wallet.schemas import (
    JwkOut,
    JwkSetOut,
    MeOut,
    MonthList,
    StatementOut,
    StatementPage,
    TokenIn,
    TokenOut,
    month_list,
    statement_out,
    statement_page,
)
from app.wallet.statements import months, recipients, statement, statements

tokens = APIRouter(tags=["mobile"], route_class=StrictRoute)
router = APIRouter(prefix="/v1/me", tags=["mobile"], route_class=StrictRoute)
partners = APIRouter(prefix="/v1", tags=["members"])

_SUFFIX = ".html"
_PAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}

_CURRENT: dict[int | str, dict[str, Any]] = {304: {"description": "What you have is current"}}

_MONTH = "[1-9][0-9]{3}-(0[1-9]|1[0-2])"
MonthName = Annotated[str, Path(pattern=f"^{_MONTH}$", examples=["2026-11"])]
MonthOrPage = Annotated[str, Path(pattern=rf"^{_MONTH}(\.html)?$", examples=["2026-11"])]
Accept = Annotated[str, Header(description="`text/html` for a page to print")]

_EXAMPLE = {"by card": {"value": {"member": {"card": "900"}}}}
_PRIVATE = "private, no-cache"
_REFUSALS = (Unauthenticated, InvalidRequest, Busy)


@tokens.post(
    "/v1/oauth/token",
    responses=answers(*ASKING, IdentifierInvalid, UnknownMember, MemberClosed),
    summary="Get a member's token",
)
def create_token(
    body: Annotated[TokenIn, Body(openapi_examples=_EXAMPLE)],
    caller: Annotated[Caller, needs("tokens:write")],
    database: Db,
    now: Now,
    request: Request,
    response: Response,
) -> TokenOut:
    """For a partner's back end, which has made sure who its user is and hands the token to their phone. It is good for
    15 minutes and for reading `/v1/me/...`; nothing is stored, and each request makes a new one."""
    member = database.read(lambda session: service.member_for_token(session, caller.program, body.member, now))
    response.headers["Cache-Control"] = "no-store"
    key = signing_key(request.app.state.pepper)
    text = sign_token(key, member, caller.client_id, now)
    return TokenOut(access_token=text, expires_in=int(TOKEN_LIFE.total_seconds()))


@tokens.get("/.well-known/jwks.json", dependencies=[public()], summary="Keys that tokens are signed with")
def read_keys(request: Request, response: Response) -> JwkSetOut:
    """For gateways that check tokens themselves. Whether a member has been closed since is checked here only."""
    response.headers["Cache-Control"] = "public, max-age=300"
    return JwkSetOut(keys=[JwkOut.model_validate(signing_key(request.app.state.pepper).public_jwk())])


def _me(member: Annotated[MemberCaller, member_token()], database: Db, response: Response) -> MemberCaller:
    database.read(lambda session: service.check_member(session, member))
    response.headers["Cache-Control"] = _PRIVATE
    return member


def me() -> Any:
    """Marks a route's `MemberCaller`: the member who calls. Unauthenticated without a good token, or once closed.

    The answer is marked as theirs alone: no cache may give it to anybody else, or again without asking."""
    return Depends(_me)


@router.get("", responses=answers(*_REFUSALS), summary="Read your membership")
def read_me(member: Annotated[MemberCaller, me()], database: Db) -> MeOut:
    """Status, what it permits, and your profile."""
    enrolled = database.read(lambda session: members.read(session, member.program_id, member.member_id))
    status = enrolled.member.status
    return MeOut.model_validate(
        {
            "id": member.member_id,
            "status": status,
            "may_earn": GATES[status].earn,
            "may_spend": GATES[status].spend,
            "profile": enrolled.profile,
        }
    )


@router.get(
    "/balance",
    response_model=ledger.StandingOut,
    responses=answers(*_REFUSALS) | _CURRENT,
    summary="Read your balance",
)
async def read_my_balance(
    member: Annotated[MemberCaller, member_token()],
    database: Db,
    reads: Reads,
    now: Now,
    past: ledger.AskedPast,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """As of now, unless another instant is asked for: what has expired is gone from it. The `ETag` is of all the answer
    says but `at`, so it changes with a movement and with the clock alike; send it as `If-None-Match`, and 304 means
    that nothing did."""
    if past is None:
        answer = await reads.ask((service.balances, member.program_id), _standings(member.program_id), member.member_id)
    else:
        answer = await run_in_threadpool(database.read, partial(_past_standing, member, past, now))
    return _tagged(answer, if_none_match)


def _tagged(
    answer: ledger.StandingOut | tiers.StandingOut | clubs.BelongingList, if_none_match: str | None
) -> Response:
    """304 to who has the same already, but for the instant it is of."""
    tag = weak_tag(answer.model_dump_json(exclude={"at"}).encode())
    headers = {"ETag": tag, "Cache-Control": _PRIVATE}
    if has_tag(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(answer.model_dump_json(), headers=headers, media_type="application/json")


def _standings(program_id: UUID) -> Read[UUID, ledger.StandingOut]:
    """What members of a programme are answered who ask for their balance now."""

    def read(session: Session, ids: Sequence[UUID], at: datetime) -> list[ledger.StandingOut | Problem]:
        found = service.balances(session, program_id, ids, at)
        return [each if isinstance(each, Problem) else ledger.standing_out(each, at) for each in found]

    return read


def _past_standing(member: MemberCaller, past: ledger.Past, now: datetime, session: Session) -> ledger.StandingOut:
    service.check_member(session, member)
    zone = zone_at(session, member.program_id, now)
    account = ledger.as_of(session, [member.member_id], past, zone)[member.member_id]
    return ledger.standing_out(account, past.as_of)


@router.get(
    "/tier",
    response_model=tiers.StandingOut,
    responses=answers(*_REFUSALS) | _CURRENT,
    summary="Read your tier",
)
async def read_my_tier(
    member: Annotated[MemberCaller, member_token()], reads: Reads, if_none_match: IfNoneMatch = None
) -> Response:
    """As of now: which tier, since and until when, what is missing to keep it and for the next. With an `ETag` like the
    balance's."""
    lane = (service.tiers_of, member.program_id)
    return _tagged(await reads.ask(lane, partial(_tiers, member.program_id), member.member_id), if_none_match)


def _tiers(program_id: UUID, session: Session, ids: Sequence[UUID], at: datetime) -> list[tiers.StandingOut | Problem]:
    return service.tiers_of(session, program_id, ids, at)


@router.get(
    "/clubs",
    response_model=clubs.BelongingList,
    responses=answers(*_REFUSALS) | _CURRENT,
    summary="Read your clubs",
)
async def read_my_clubs(
    member: Annotated[MemberCaller, member_token()], reads: Reads, if_none_match: IfNoneMatch = None
) -> Response:
    """As of now: which clubs, since and until when, what they are good for, and what is missing of a promise. With an
    `ETag` like the balance's."""
    lane = (service.clubs_of, member.program_id)
    return _tagged(await reads.ask(lane, partial(_clubs, member.program_id), member.member_id), if_none_match)


def _clubs(
    program_id: UUID, session: Session, ids: Sequence[UUID], at: datetime
) -> list[clubs.BelongingList | Problem]:
    return service.clubs_of(session, program_id, ids, at)


@router.get("/cards", responses=answers(*_REFUSALS), summary="Read your stamp cards")
def read_my_cards(member: Annotated[MemberCaller, me()], database: Db, now: Now) -> stamps.CardList:
    """How many stamps of how many, until when, and how many cards you have filled."""
    return database.read(lambda session: stamps.cards_of(session, member.program_id, member.member_id, now))


@router.get("/ledger", responses=answers(*_REFUSALS, CursorInvalid), summary="List your entries")
def list_my_entries(
    member: Annotated[MemberCaller, me()],
    database: Db,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ledger.EntryPage:
    """Every movement, newest first, numbered without gaps."""
    before = ledger.entry_cursor(cursor)
    rows = database.read(lambda session: ledger.entries(session, member.member_id, before, limit + 1))
    answer = ledger.entry_page(rows, limit)
    link_next(request, response, answer.next)
    return answer


@router.get(
    "/rewards",
    responses=answers(*_REFUSALS, CursorInvalid, NoTerms),
    summary="List the rewards you can have, and why not the others",
)
def list_my_rewards(
    member: Annotated[MemberCaller, me()],
    database: Db,
    now: Now,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> redemptions.ChoicePage:
    """Every reward in force: whether you can have a piece now, and every reason why not, with the points missing."""
    after = redemptions.choice_cursor(cursor)

    def read(session: Session) -> redemptions.ChoicePage:
        judged = redemptions.options(session, member.program_id, member.member_id, now, after, limit + 1)
        return redemptions.choice_page(judged, limit)

    answer = database.read(read)
    link_next(request, response, answer.next)
    return answer


@router.get("/bonuses", responses=answers(*_REFUSALS, CursorInvalid), summary="List your bonuses")
def list_my_bonuses(
    member: Annotated[MemberCaller, me()],
    database: Db,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> campaigns.BonusPage:
    """Points you were given without a purchase, and on which occasions, oldest first."""
    after = campaigns.bonus_cursor(cursor)
    rows = database.read(
        lambda session: campaigns.granted(session, member.program_id, member.member_id, after, limit + 1)
    )
    answer = campaigns.bonus_page(rows, limit)
    link_next(request, response, answer.next)
    return answer


@router.get("/lots", responses=answers(*_REFUSALS, CursorInvalid), summary="List your lots")
def list_my_lots(
    member: Annotated[MemberCaller, me()],
    database: Db,
    now: Now,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ledger.LotPage:
    """Points as they were earned, spent ones too, and when the open ones expire."""
    after = ledger.lot_cursor(cursor)

    def read(session: Session) -> ledger.LotPage:
        rows = ledger.lots(session, member.member_id, after, limit + 1)
        return ledger.lot_page(ledger.LotPage, rows, _account(session, member, now), limit)

    answer = database.read(read)
    link_next(request, response, answer.next)
    return answer


# --- statements -----------------------------------------------------------------------------------------------------


def _wants_page(name: str, accept: str) -> bool:
    """Whether a statement is asked for as HTML: by its suffix, or by a browser, which names that and no JSON."""
    named = {part.split(";")[0].strip().lower() for part in accept.split(",")}
    return name.endswith(_SUFFIX) or ("text/html" in named and "application/json" not in named)


def _statement(
    database: Database, program_id: UUID, member_id: UUID, name: str, now: datetime, accept: str
) -> Response:
    month = name.removesuffix(_SUFFIX)
    found = database.read(lambda session: statement(session, program_id, member_id, month, now))
    headers = {"Cache-Control": _PRIVATE, "Vary": "Accept"}
    if _wants_page(name, accept):
        return HTMLResponse(printing.page(found), headers=headers | printing.HEADERS)
    return Response(statement_out(found).model_dump_json(), headers=headers, media_type="application/json")


@router.get("/statements", responses=answers(*_REFUSALS), summary="List your statements")
def list_my_statements(member: Annotated[MemberCaller, me()], database: Db, now: Now) -> MonthList:
    """The months since you joined, the current one first."""
    found = database.read(lambda session: months(session, member.program_id, member.member_id, now))
    return month_list(member.member_id, found, now)


@router.get(
    "/statements/{month}",
    response_model=StatementOut,
    responses=answers(*_REFUSALS, NotFound) | _PAGE,
    summary="Read your statement of a month",
)
def read_my_statement(
    month: MonthOrPage, member: Annotated[MemberCaller, me()], database: Db, now: Now, accept: Accept = ""
) -> Response:
    """What there was, came, went and is left, as known when the month ended; provisional until an hour later. As a page
    to print with `Accept: text/html` or `.html` after the month."""
    return _statement(database, member.program_id, member.member_id, month, now, accept)


@partners.get(
    "/members/{member_id}/statements/{month}",
    response_model=StatementOut,
    responses=answers(*READING, NotFound) | _PAGE,
    summary="Read a statement",
)
def read_statement(
    member_id: UUID,
    month: MonthOrPage,
    caller: Annotated[Caller, needs("members:read")],
    database: Db,
    now: Now,
    accept: Accept = "",
) -> Response:
    """Of a month since the member joined, as known when it ended; provisional until an hour later. As a page to print
    with `Accept: text/html` or `.html` after the month."""
    return _statement(database, caller.program, member_id, month, now, accept)


@partners.get(
    "/statements/{month}",
    response_model=StatementPage,
    responses=answers(*READING, NotFound, CursorInvalid),
    summary="List the statements of a month",
)
def list_statements(
    month: MonthName,
    caller: Annotated[Caller, needs("members:read")],
    database: Db,
    now: Now,
    request: Request,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Of all members who had joined by its end, closed ones too, by id; each is what reading that one answers."""
    after = None if cursor is None else decode(cursor, UUID)[0]

    def read(session: Session) -> StatementPage:
        ids = recipients(session, caller.program, month, now, after, limit + 1)
        found = page(ids, limit, lambda id_: [str(id_)])
        return statement_page(statements(session, caller.program, found.rows, month, now), found.next)

    answer = database.read(read)
    response = Response(answer.model_dump_json(), headers={"Cache-Control": _PRIVATE}, media_type="application/json")
    link_next(request, response, answer.next)
    return response


def _account(session: Session, member: MemberCaller, now: datetime) -> ledger.Account:
    """The member's account with its lots."""
    ids = [member.member_id]
    return look(session, member.program_id, ids, now, ids)[member.member_id]
