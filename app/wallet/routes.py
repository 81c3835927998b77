"""What members read, and the tokens they read it with."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request, Response
from sqlalchemy.orm import Session

from app import ledger, members
from app.clients import TOKEN_LIFE, Caller, MemberCaller, member_token, needs, public, sign_token, signing_key
from app.edge import ASKING, Db, IfNoneMatch, Now, StrictRoute, has_tag, weak_tag
from app.errors import Busy, CursorInvalid, InvalidRequest, Unauthenticated, answers
from app.members import GATES, IdentifierInvalid, MemberClosed, UnknownMember
from app.paging import Cursor, Limit, link_next
from app.programs import zone_at
from app.wallet import service
from app.wallet.schemas import JwkOut, JwkSetOut, MeOut, TokenIn, TokenOut

tokens = APIRouter(tags=["mobile"], route_class=StrictRoute)
router = APIRouter(prefix="/v1/me", tags=["mobile"])

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
    responses=answers(*_REFUSALS) | {304: {"description": "What you have is current"}},
    summary="Read your balance",
)
def read_my_balance(
    member: Annotated[MemberCaller, me()],
    database: Db,
    now: Now,
    past: ledger.AskedPast,
    response: Response,
    if_none_match: IfNoneMatch = None,
) -> ledger.StandingOut | Response:
    """As of now, unless another instant is asked for: what has expired is gone from it. The `ETag` is of all the answer
    says but `at`, so it changes with a movement and with the clock alike; send it as `If-None-Match`, and 304 means
    that nothing did."""
    account = database.read(lambda session: _account(session, member, now, past))
    answer = ledger.standing_out(account, now if past is None else past.as_of)
    tag = weak_tag(answer.model_dump_json(exclude={"at"}).encode())
    if has_tag(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": _PRIVATE})
    response.headers["ETag"] = tag
    return answer


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
        ladder = ledger.expiry_ladder(_account(session, member, now, lots=True))
        return ledger.lot_page(ledger.LotPage, rows, ladder, limit)

    answer = database.read(read)
    link_next(request, response, answer.next)
    return answer


def _account(
    session: Session, member: MemberCaller, now: datetime, past: ledger.Past | None = None, *, lots: bool = False
) -> ledger.Account:
    zone = zone_at(session, member.program_id, now)
    if past is not None:
        return ledger.as_of(session, member.member_id, past.as_of, past.known_at, zone)
    ids = [member.member_id]
    return ledger.look(session, ids, now, zone, ids if lots else ())[member.member_id]
