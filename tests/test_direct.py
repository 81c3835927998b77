"""The short way to a route answers as FastAPI's own does."""

import inspect
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Cookie, Depends, Header, Query, Response
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient
from pydantic import BaseModel

from app.edge import StrictRoute
from tests.shop import Shop, purchase

SOMEBODY = "0199d3a6-b1f0-7c1e-8a52-000000000000"

REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a dry run": ("POST", "/v1/transactions?dry_run=true", {"json": purchase("r9")}),
    "a value that is none": ("POST", "/v1/transactions?dry_run=perhaps", {"json": purchase("r9")}),
    "no body": ("POST", "/v1/transactions", {}),
    "an empty document": ("POST", "/v1/transactions", {"json": {}}),
    "no object": ("POST", "/v1/transactions", {"json": [1]}),
    "no JSON": ("POST", "/v1/transactions", {"content": "{", "headers": {"Content-Type": "application/json"}}),
    "another type": ("POST", "/v1/transactions", {"content": "a=1", "headers": {"Content-Type": "text/plain"}}),
    "fields of the wrong type": ("POST", "/v1/transactions", {"json": purchase() | {"total": "much", "lines": None}}),
    "a key that will not do": ("POST", "/v1/transactions", {"json": purchase(), "headers": {"Idempotency-Key": "a b"}}),
    "a key that is missing": ("POST", "/v1/holds", {"json": {"member": {"card": "900"}, "points": 1}}),
    "a reward nobody has": (
        "POST",
        "/v1/redemptions",
        {"json": {"member": {"card": "900"}, "reward": {"code": "x"}}, "headers": {"Idempotency-Key": "once"}},
    ),
    "an id that is none": ("GET", "/v1/members/7/balance", {}),
    "nobody's balance": ("GET", f"/v1/members/{SOMEBODY}/balance", {}),
    "the balance": ("GET", "/v1/members/{member}/balance", {}),
    "only its head": ("HEAD", "/v1/members/{member}/balance", {}),
    "a past one": ("GET", "/v1/members/{member}/balance?as_of=2026-01-01T00:00:00Z", {}),
    "an instant that is none": ("GET", "/v1/members/{member}/balance?as_of=yesterday", {}),
    "an instant to come": ("GET", "/v1/members/{member}/balance?as_of=2999-01-01T00:00:00Z", {}),
    "somebody with that card": ("GET", "/v1/members/lookup?card=900", {}),
    "nobody with that card": ("GET", "/v1/members/lookup?card=1", {}),
    "nothing to look up": ("GET", "/v1/members/lookup", {}),
    "a method there is not": ("PUT", "/v1/transactions", {"json": {}}),
    "a path there is not": ("POST", "/v1/transactions/", {"json": purchase()}),
    "no key": ("POST", "/v1/transactions", {"json": purchase(), "headers": {"Authorization": ""}}),
    "a reader's key": ("POST", "/v1/transactions", {"json": purchase(), "headers": {"Authorization": "Bearer x"}}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_both_ways_answer_alike(shop: Shop, name: str) -> None:
    """Behind a prefix of a proxy (`root_path`) requests go FastAPI's way."""
    member = shop.post(purchase()).json()["member"]["id"]
    method, path, options = REQUESTS[name]
    mine = {"Authorization": shop.http.headers["Authorization"]}
    usual = TestClient(shop.app, headers=mine, root_path="/points", raise_server_exceptions=False)
    answers = [http.request(method, path.format(member=member), **options) for http in (shop.http, usual)]
    told = [(answer.status_code, headers_of(answer), body_of(answer)) for answer in answers]
    assert told[0] == told[1]


_CHANGING = ("x-request-id", "content-length", "idempotent-replayed")


def headers_of(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in _CHANGING}


def body_of(answer: Any) -> Any:
    body = answer.json() if answer.content else None
    return {name: value for name, value in body.items() if name != "request_id"} if isinstance(body, dict) else body


def test_what_is_called_most_goes_the_short_way(shop: Shop) -> None:
    routes = [context.original_route for context in iter_route_contexts(shop.app.routes)]
    coroutines = {
        route.path: route
        for route in routes
        if isinstance(route, APIRoute) and inspect.iscoroutinefunction(route.endpoint)
    }
    assert [path for path, route in coroutines.items() if getattr(route, "handle_directly", None) is None] == []
    assert {"/v1/transactions", "/v1/me/balance", "/v1/members/{member_id}/balance"} < coroutines.keys()


class Thing(BaseModel):
    n: int


async def plain() -> int:
    return 1


def in_a_thread() -> int:
    return 1


async def with_a_body(thing: Thing) -> int:
    return thing.n


async def model() -> Thing:
    return Thing(n=1)


async def everything(
    id_: UUID, thing: Annotated[Thing, Body()], one: Annotated[int, Depends(plain)], q: Annotated[int, Query()] = 1
) -> Response:
    return Response(f"{id_} {thing} {one} {q}")


async def cookie(c: Annotated[str, Cookie()]) -> Response:
    return Response(c)


async def tasks(background: BackgroundTasks) -> Response:
    return Response(str(background))


async def some_header(some_header: Annotated[str | None, Header()] = None) -> Response:
    return Response(some_header)


async def threaded(one: Annotated[int, Depends(in_a_thread)]) -> Response:
    return Response(str(one))


async def nested(one: Annotated[int, Depends(with_a_body)]) -> Response:
    return Response(str(one))


async def dictionary() -> dict[str, int]:
    return {}


def plain_function() -> Response:
    return Response()


@pytest.mark.parametrize(
    ("endpoint", "short"),
    [
        (model, True),
        (everything, True),
        (cookie, False),
        (tasks, False),
        (some_header, True),
        (threaded, False),
        (nested, False),
        (dictionary, False),
        (plain_function, False),
    ],
)
def test_what_does_not_fit_goes_fastapis_way(endpoint: Any, short: bool) -> None:
    router = APIRouter(route_class=StrictRoute)
    router.add_api_route("/{id_}" if endpoint is everything else "/", endpoint, methods=["POST"])
    (route,) = router.routes
    assert isinstance(route, StrictRoute)
    assert (route.handle_directly is not None) is short
