"""How a route says who may call it, and the check that every route says so."""

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.params import Depends
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from app import idempotency
from app.clients.rules import SCOPES, Caller, MemberCaller, read_token, signing_key
from app.clients.service import KnownKeys, authenticate
from app.db import Database
from app.errors import Forbidden, Unauthenticated
from app.idempotency import Attempt

_token_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="MemberToken",
    bearerFormat="JWT",
    description="A member's token: `POST /v1/oauth/token`",
)


class _Scoped(HTTPBearer):
    """What depends on a key with a scope. It is its own security scheme, and depends on nothing: FastAPI solves each
    dependency anew wherever it is named."""

    def __init__(self, scope: str):
        if scope not in SCOPES:
            raise ValueError(f"unknown scope {scope}")
        super().__init__(auto_error=False, scheme_name="ApiKey", description="An API key: `loyalty keys create`")
        self.scope = scope

    async def caller(self, request: Request) -> Caller:
        """Who calls. Unauthenticated, Forbidden."""
        caller: Caller | None = getattr(request.state, "caller", None)
        if caller is None:
            request.state.caller = caller = await self._authenticated(request)
        if self.scope not in caller.scopes:
            raise Forbidden(f"the key lacks the scope {self.scope}")
        return caller

    async def _authenticated(self, request: Request) -> Caller:
        credentials = await HTTPBearer.__call__(self, request)
        if credentials is None:
            raise Unauthenticated
        state = request.app.state
        text, pepper, now = credentials.credentials, state.pepper, state.clock()
        known: KnownKeys = state.known_keys
        database: Database = state.database
        read = partial(authenticate, text=text, pepper=pepper, now=now)
        return await known.caller(text, now, partial(run_in_threadpool, database.read, read, brief=True))


class _Needs(_Scoped):
    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]  # whom the key speaks for
        return await self.caller(request)


class _Keyed(_Scoped):
    def __init__(self, scope: str, *, required: bool):
        super().__init__(scope)
        self._required = required

    async def __call__(  # type: ignore[override]  # whom the key speaks for, and for what
        self, request: Request, key: idempotency.Key = None
    ) -> Attempt:
        client_id = (await self.caller(request)).client_id
        return await idempotency.attempt_of(request, client_id, key, required=self._required)


def needs(scope: str) -> Any:
    """Marks a route's `Caller`: a key with `scope`. Unauthenticated or Forbidden for anybody else."""
    return Security(_Needs(scope))


def keyed(scope: str, *, required: bool = False) -> Any:
    """Marks a route's `Attempt`: the caller's `Idempotency-Key` and what it covers."""
    return Security(_Keyed(scope, required=required))


async def _member_token(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_token_bearer)]
) -> MemberCaller:
    state = request.app.state
    token = None if credentials is None else credentials.credentials
    member = None if token is None else read_token(signing_key(state.pepper), token, state.clock())
    if member is None:
        raise Unauthenticated
    return member


def member_token() -> Any:
    """Marks a `MemberCaller`: whom the request's token speaks for. Unauthenticated without a good token.

    What became of the member since is not looked up: clients know no members. Routes take `wallet.me()`, which does, or
    look it up with what they read.
    """
    return Depends(_member_token)


async def _anybody() -> None:
    return None


def public() -> Any:
    """Marks a route that anybody may call."""
    return Depends(_anybody)


_DESCRIPTION = frozenset({"openapi", "swagger_ui_html", "swagger_ui_redirect"})
"""Routes that FastAPI adds by itself, by name: `/openapi.json` and `/docs`, for anybody."""


def check_routes(app: FastAPI) -> None:
    """Refuses (RuntimeError) an application with a route that declares no scope, nor `member_token()`, nor `public()`.

    Routes of any kind: what cannot declare anything (a mounted application, a plain Starlette route) is refused too,
    but for the pages of the API's description.
    """
    undeclared = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if type(route) is Route and route.name in _DESCRIPTION:
            continue
        dependant = getattr(route, "dependant", None)
        if dependant is None or not any(_declares(call) for call in _calls(dependant)):
            methods = sorted(getattr(route, "methods", None) or ())
            undeclared.append(f"{methods or type(route).__name__} {getattr(route, 'path', '')}")
    if undeclared:
        raise RuntimeError(f"routes without a scope: {', '.join(undeclared)}")


def scope_of(route: APIRoute) -> str | None:
    """The scope a route needs; None for a public one, and for one that takes a member's token."""
    return next((call.scope for call in _calls(route.dependant) if isinstance(call, _Scoped)), None)


def takes_token(route: APIRoute) -> bool:
    """Whether a route is called by a member, with a token."""
    return any(call is _member_token for call in _calls(route.dependant))


def _declares(call: Any) -> bool:
    return isinstance(call, _Scoped) or call is _member_token or call is _anybody


def _calls(dependant: Dependant) -> Iterable[Any]:
    for child in dependant.dependencies:
        yield child.call
        yield from _calls(child)
