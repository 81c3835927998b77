"""The edge: what every request passes on its way in, and how every refusal leaves. Pure ASGI, no feature knowledge.

In order: limits (requests under way, size and time of the body), strict JSON, then the route; refusals of any kind
become problem+json here and nowhere else.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from typing import Annotated, Any

import structlog
from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.coalesce import Reader
from app.db import Database
from app.direct import Handler, handler_of
from app.errors import (
    MEDIA_TYPE,
    BodyTimeout,
    BodyTooLarge,
    Busy,
    ContentLengthInvalid,
    Finding,
    Forbidden,
    InternalError,
    InvalidJson,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    PreconditionRequired,
    Problem,
    Unauthenticated,
    UnsupportedMediaType,
    finding,
)
from app.idempotency import Writer

# Dependencies are coroutines even where nothing is awaited: FastAPI runs plain functions in a thread each.


async def _database(request: Request) -> Database:
    return request.app.state.database  # type: ignore[no-any-return]  # app.state is untyped


async def _now(request: Request) -> datetime:
    return request.app.state.clock()  # type: ignore[no-any-return]  # app.state is untyped


async def _writer(request: Request) -> Writer:
    return request.app.state.writer  # type: ignore[no-any-return]  # app.state is untyped


async def _reader(request: Request) -> Reader:
    return request.app.state.reader  # type: ignore[no-any-return]  # app.state is untyped


Db = Annotated[Database, Depends(_database)]
Writes = Annotated[Writer, Depends(_writer)]
"""Carries out the writes that are gathered; a route that takes it is a coroutine."""
Reads = Annotated[Reader, Depends(_reader)]
"""Answers the reads that are gathered, likewise."""
Now = Annotated[datetime, Depends(_now)]
"""The instant of the request, by the service's clock."""

IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="The `ETag` of what you have")]
DryRun = Annotated[bool, Query(description="Answers the same, with the entries it would make, and writes nothing")]

IfMatch = Annotated[str | None, Header(alias="If-Match", description="The `ETag` of what you read")]

READING = (Unauthenticated, Forbidden, InvalidRequest, Busy)
"""What any route may refuse with."""
ASKING = (*READING, InvalidJson, ContentLengthInvalid, BodyTooLarge, BodyTimeout, UnsupportedMediaType)
"""What any route with a body may refuse with."""
WRITING = (*ASKING, OutcomeUnknown)
"""What any route that writes may refuse with."""

DEFAULT_BODY_BYTES = 64 * 1024
DEEPEST = 32
"""How deeply a body may nest; what we take nests less than ten deep."""

_DRAIN_SECONDS = 10.0


# --- strict JSON ----------------------------------------------------------------------------------------------------


def parse_json(body: bytes) -> Any:
    """`body` as a JSON value. InvalidJson for what is not UTF-8, repeats a key, is not finite, or cannot be stored."""
    try:
        value = _DECODER.decode(body.decode("utf-8"))
        if b"\\ud" in body.lower():  # an escaped surrogate; alone it is not a character and no database takes it
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        if body.count(b"{") + body.count(b"[") >= DEEPEST:  # else it cannot be that deep
            _check_depth(value, DEEPEST)
    except RecursionError:
        raise InvalidJson("the document is nested too deeply") from None
    except UnicodeError:
        raise InvalidJson("the document is not valid UTF-8, or holds half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise InvalidJson(f"{error.msg} at character {error.pos}") from None
    except ValueError as error:
        raise InvalidJson(str(error) if isinstance(error, _Refused) else "a number is too long") from None
    return value


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise RecursionError
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(child, dict | list):
            _check_depth(child, left - 1)


class _Refused(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Refused("an object repeats a key")
    return value


def _refuse_constant(_name: str) -> Any:
    raise _Refused("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _Refused("a number is out of range")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite)


class StrictRequest(Request):
    """A request whose body is parsed by `parse_json`, once."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route that takes JSON bodies only, strictly. Every router with a body uses it.

    `handle_directly` is what `Direct` may call instead of it; None if only FastAPI can solve its dependencies.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        handle = handler_of(self)
        self.handle_directly = None if handle is None else self._strictly(handle)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self._strictly(super().get_route_handler())

    def _strictly(self, handle: Handler) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        expects_body = self.body_field is not None

        async def strictly(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if expects_body and await strict.body():
                media_type = strict.headers.get("content-type", "").split(";")[0].strip().lower()
                if media_type != "application/json":
                    raise UnsupportedMediaType
                await strict.json()  # here, so that a refusal keeps its own code
            return await handle(strict)

        return strictly


# --- refusals -------------------------------------------------------------------------------------------------------


def problem_response(problem: Problem, request_id: str | None) -> Response:
    """`problem` as an HTTP answer."""
    headers = {"Cache-Control": "no-store"}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = json.dumps(problem.body() | {"request_id": request_id}, ensure_ascii=False)
    return Response(body, problem.status, headers, MEDIA_TYPE)


def findings_of(error: RequestValidationError) -> list[Finding]:
    """Pydantic's errors as findings. The input is never echoed."""
    found = []
    for item in error.errors():
        location = list(item["loc"])
        if location and location[0] == "body":
            found.append(finding(location[1:], item["type"], item["msg"]))
        else:
            found.append(Finding(".".join(str(step) for step in location[1:]), item["type"], item["msg"]))
    return found


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return InvalidRequest(findings=findings_of(error))
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        return NotFound() if error.status_code == 404 else MethodNotAllowed()
    return InternalError()


async def answer_problem(request: Request, error: Exception) -> Response:
    problem = _problem_of(error)
    request.scope.setdefault("state", {})["problem"] = problem.code
    response = problem_response(problem, request.scope["state"].get("request_id"))
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})  # a 405 names the methods there are
    return response


def handle_problems(app: FastAPI) -> None:
    """Makes every refusal of `app` leave as problem+json."""
    for kind in (Problem, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer_problem)


def revision_in(if_match: str | None) -> int:
    """The revision an `If-Match` header names. PreconditionRequired without one, PreconditionFailed if not of ours."""
    if if_match is None:
        raise PreconditionRequired
    tag = if_match.removeprefix("W/").strip('"')
    if not (tag.isascii() and tag.isdigit() and len(tag) < 10):
        raise PreconditionFailed
    return int(tag)


def weak_tag(content: bytes) -> str:
    """The weak entity tag (RFC 9110, 8.8.3) of an answer that says `content`."""
    return f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'


def has_tag(if_none_match: str | None, tag: str) -> bool:
    """Whether an `If-None-Match` header names `tag`, or `*`. Compared weakly, as it says there (13.1.2)."""
    given = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    return "*" in given or tag.removeprefix("W/") in given


# --- limits ---------------------------------------------------------------------------------------------------------


class Edge:
    """ASGI middleware: bounds requests under way and the size and time of bodies; nothing escapes it unanswered."""

    def __init__(
        self,
        app: ASGIApp,
        max_concurrency: int,
        body_seconds: float,
        body_bytes: Mapping[str, int],
    ):
        """`body_bytes` gives the largest body of paths that take more than `DEFAULT_BODY_BYTES`."""
        self._app = app
        self._max_concurrency = max_concurrency
        self._body_seconds = body_seconds
        self._body_bytes = body_bytes
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        self._under_way += 1
        try:
            if self._under_way > self._max_concurrency:
                raise Busy
            await self._route(scope, await self._limited(scope, receive), watched)
        except Problem as problem:
            await self._refuse(problem, scope, receive, send)
        except Exception:
            structlog.get_logger().exception("unhandled")
            if started:
                raise
            await self._refuse(InternalError(), scope, receive, send)
        finally:
            self._under_way -= 1

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        """HEAD is answered as GET (RFC 9110, 9.3.2); the ASGI server leaves the body out."""
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        inner: Scope = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, send)
        finally:
            scope["route"] = inner.get("route")  # for the metrics

    async def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Reads the whole body, within the limits, and answers a `receive` that replays it."""
        limit = self._body_bytes.get(scope["path"], DEFAULT_BODY_BYTES)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit():
            raise ContentLengthInvalid
        if int(declared[:20]) > limit:
            raise BodyTooLarge
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        break
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise BodyTooLarge
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise BodyTimeout from None
        return _replay(bytes(body), receive)

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        state["problem"] = problem.code
        response = problem_response(problem, state.get("request_id"))
        response.headers["Connection"] = "close"
        if not isinstance(problem, BodyTooLarge):
            await response(scope, receive, send)
            return
        # Closing while the client still sends would reset the connection and destroy this answer on its way: send it,
        # then read and drop the rest for a while.
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _drain(receive: Callable[[], Awaitable[Message]]) -> None:
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    except TimeoutError:
        return
