"""The short way to a route: a coroutine that answers a response, or one of our models, is found and called directly.

FastAPI declares such routes as all others, and its functions check their parameters and bodies. Left out is what they
have no use for: exit stacks, a cache of dependencies, a check of our own answers, one router asked after the other; a
third of the event loop's time per purchase (decision 12). Whatever does not fit goes the usual way.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_body_to_args, request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Problem

Handler = Callable[[Request], Awaitable[Response]]
"""What a route does with a request, all of it."""


# --- arguments ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A parameter of a path, a query or a header. Left out, it has its `default`, unless it is `required`."""

    field: Any
    alias: str
    default: Any
    required: bool


@dataclass(frozen=True)
class _Call:
    """A function with what it wants: the results of other calls, by name, the request, parameters."""

    call: Callable[..., Awaitable[Any]]
    name: str | None
    before: Sequence["_Call"]
    request: Sequence[str]
    path: Sequence[_Parameter]
    query: Sequence[_Parameter]
    headers: Sequence[_Parameter]

    @cached_property
    def wants_more(self) -> bool:
        """Than the request."""
        return bool(self.before or self.path or self.query or self.headers)


_REQUEST = ("request_param_name", "http_connection_param_name")
_KNOWN = {*_REQUEST, "path_params", "query_params", "header_params", "dependencies", "name", "call"}
_INDIFFERENT = {"body_params", "path", "use_cache", "scope", "own_oauth_scopes", "parent_oauth_scopes"}


def _call_of(dependant: Dependant) -> _Call | None:
    """None if it wants something else, or is no coroutine."""
    others = (getattr(dependant, name) for name in Dependant.__slots__ if name not in _KNOWN | _INDIFFERENT)
    before = [_call_of(child) for child in dependant.dependencies]
    whole = None not in before and not any(child.body_params for child in dependant.dependencies)
    call = dependant.call
    if call is None or any(others) or not whole or not _is_coroutine(call):
        return None
    path, query, headers = (
        [_parameter(field) for field in fields]
        for fields in (dependant.path_params, dependant.query_params, dependant.header_params)
    )
    request = [name for each in _REQUEST if (name := getattr(dependant, each))]
    return _Call(call, dependant.name, before, request, path, query, headers)  # type: ignore[arg-type]  # whole


def _is_coroutine(call: Any) -> bool:
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004  # whether it is one is the question


def _parameter(field: Any) -> _Parameter:
    default = field.default
    simple = default is None or isinstance(default, bool | int | str)
    return _Parameter(field, field.alias, default, field.field_info.is_required() or not simple)


async def _arguments(call: _Call, request: Request, errors: list[Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for each in call.before:
        found = len(errors)
        given = await _arguments(each, request, errors) if each.wants_more else dict.fromkeys(each.request, request)
        if len(errors) == found:
            result = await each.call(**given)
            if each.name is not None:
                values[each.name] = result
    for part in call.path:  # always there, and one text
        values[part.field.name], wrong = part.field.validate(request.path_params[part.alias], loc=("path", part.alias))
        errors += wrong
    if call.query:
        _read(call.query, request.query_params, values, errors)
    if call.headers:
        _read(call.headers, request.headers, values, errors)
    for name in call.request:
        values[name] = request
    return values


def _read(
    parameters: Sequence[_Parameter], received: Mapping[str, Any], values: dict[str, Any], errors: list[Any]
) -> None:
    for each in parameters:
        if not each.required and each.alias not in received:
            values[each.field.name] = each.default
        else:
            found, wrong = request_params_to_args([each.field], received)
            values |= found
            errors += wrong


def handler_of(route: APIRoute) -> Handler | None:
    """What `route` does, if it can be done directly: its body, if it has one, has been read as JSON before."""
    call = _call_of(route.dependant)
    answers = inspect.signature(route.endpoint).return_annotation
    if call is None or not (inspect.isclass(answers) and issubclass(answers, Response | BaseModel)):
        return None
    body_params, status = route.dependant.body_params, route.status_code or 200

    async def handle(request: Request) -> Response:
        errors: list[Any] = []
        values = await _arguments(call, request, errors)
        if body_params:
            body = await request.json() if await request.body() else PydanticUndefined
            found, wrong = await request_body_to_args(body_params, body, embed_body_fields=False)
            values |= found
            errors += wrong
        if errors:
            raise RequestValidationError(errors)
        answer: Response | BaseModel = await call.call(**values)
        if isinstance(answer, Response):
            return answer
        return Response(answer.model_dump_json(), status, media_type="application/json")

    return handle


# --- the way there --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """One route for one method: where it is, and its handler if it has one of the short kind."""

    pattern: re.Pattern[str]
    route: Any
    handle: Handler | None


class Direct:
    """ASGI middleware, innermost: takes requests for routes with a handler of their own straight to it.

    Routes are compared in the application's order, only those that begin alike; the first that fits is the one.
    """

    def __init__(self, app: ASGIApp, answer_problem: Callable[[Request, Exception], Awaitable[Response]]):
        self._app, self._answer_problem = app, answer_problem
        self._places: dict[tuple[str, str], list[_Place]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._find(scope) if scope["type"] == "http" and not scope.get("root_path") else None
        if found is None:
            await self._app(scope, receive, send)
            return
        place, path_params = found
        assert place.handle is not None
        scope["route"], scope["path_params"] = place.route, path_params
        request = Request(scope, receive)
        try:
            response = await place.handle(request)
        except (Problem, RequestValidationError, HTTPException) as error:
            response = await self._answer_problem(request, error)
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[_Place, dict[str, str]] | None:
        if self._places is None:
            self._places = _places(scope["app"])
        path = scope["path"]
        for place in self._places.get((scope["method"], _beginning(path)), ()):
            if match := place.pattern.match(path):
                return None if place.handle is None else (place, match.groupdict())
        return None


def _places(app: FastAPI) -> dict[tuple[str, str], list[_Place]]:
    """The application's routes, by method and the beginning of their paths."""
    places: dict[tuple[str, str], list[_Place]] = {}
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        if isinstance(route, APIRoute):
            handle = getattr(route, "handle_directly", None)
            for method in route.methods or ():
                place = _Place(route.path_regex, route, handle)
                places.setdefault((method, _beginning(route.path)), []).append(place)
    return places


def _beginning(path: str) -> str:
    """The first two steps of a path: no route has a parameter there."""
    return "/".join(path.split("/", 3)[:3])
