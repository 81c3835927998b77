"""Who may do what: every route, tried as everybody it is not for. And keys: on the wire, at rest, in logs."""

import asyncio
import hashlib
import hmac
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4
from zlib import crc32

import pytest
from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError, create_model
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from starlette.routing import WebSocketRoute

from app import clients, main, telemetry, wire
from app.clients import KINDS, SCOPES, TooManyKeys, check_routes, needs, public, scope_of, takes_token
from app.clients.models import ApiKey, Client
from app.clients.rules import new_secret, read_secret
from app.clients.service import KnownKeys
from app.db import Base
from app.errors import Unauthenticated
from app.insight import prove
from app.main import create_app
from tests.conftest import Engines, settings_for
from tests.shop import PEPPER, TERMS, Shop, TestClock, make_key, make_program, open_shop, purchase, returned

ROUTES: dict[str, APIRoute] = {
    f"{method} {context.path}": context.original_route
    for context in iter_route_contexts(create_app(settings_for("sqlite:///unused.db")).routes)
    if isinstance(context.original_route, APIRoute)
    for method in sorted(context.original_route.methods or ())
}
"""Every route of the service."""

CLOSED = {name: scope for name, route in ROUTES.items() if (scope := scope_of(route)) is not None}
OPEN = [name for name, route in ROUTES.items() if scope_of(route) is None and not takes_token(route)]


@dataclass(frozen=True, slots=True)
class Call:
    """A request to a route that succeeds for staff: `path` may name the objects of `made`."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    elsewhere: int = 404
    """What the staff of another programme are answered."""


_KEY = {"Idempotency-Key": "k"}
_EVENT = {
    "source": "app",
    "external_id": "review-1",
    "event": "review_written",
    "member": {"card": "900"},
    "occurred_at": "2026-11-22T12:00:00Z",
}
_TERMS = "/v1/programs/{program}/terms"
_LOT = "/v1/members/{other}/lots/{lot}"
_LATER: dict[str, Any] = {"expires_at": "2029-01-01T00:00:00Z", "reason": "illness"}
_GOODWILL: dict[str, Any] = {"member": {"card": "900"}, "points": 5, "class": "goodwill", "reason": "long_queue"}
_LOCK: dict[str, Any] = {"kind": "lock", "until": "2030-01-01T00:00:00Z", "reason": "illness"}
_MUG: dict[str, Any] = {"name": "Enamel mug", "points": 100, "currency": "USD"}
_VOUCHER = _MUG | {"code": "five-off", "item": {"kind": "voucher", "value": 500, "valid_days": 90}}
_RECEIPT = {"source": "store-1", "external_id": "r77"}

_REVIEWS = {"type": "event", "event": "review_written"}
GENEROUS = TERMS | {
    "campaigns": [{"code": "reviews", "name": "Reviews", "occasion": _REVIEWS, "points": 5}],
    "transfers": {},
    "pools": {},
    "tiers": {"levels": [{"code": "gold", "name": "Gold", "qualification": {"spend": 1_000_000}}]},
    "clubs": [
        {"code": "friends", "name": "Friends", "joining": {"type": "promise", "spend": 1, "months": 12}},
        {"code": "regulars", "name": "Regulars", "joining": {"type": "promise", "spend": 1, "months": 12}},
    ],
    "pending": {"mode": "event", "event": "shipped", "cancel_after_days": 30},
}
"""Terms with something for every route."""

CALLS: dict[str, Call] = {
    "POST /v1/transactions": Call("POST", "/v1/transactions", purchase("new"), elsewhere=201),
    "POST /v1/transactions/batch": Call(
        "POST", "/v1/transactions/batch", {"transactions": [purchase("new")]}, elsewhere=200
    ),
    "GET /v1/transactions/waiting": Call("GET", "/v1/transactions/waiting", elsewhere=200),
    "DELETE /v1/transactions/waiting/{source}/{external_id:path}": Call(
        "DELETE", "/v1/transactions/waiting/store-1/early"
    ),
    "GET /v1/transactions/{source}/{external_id:path}": Call("GET", "/v1/transactions/store-1/r1"),
    "POST /v1/transactions/{transaction_id}/claim": Call(
        "POST", "/v1/transactions/{guest}/claim", {"member": {"card": "900"}}
    ),
    "POST /v1/transactions/{transaction_id}/events": Call(
        "POST", "/v1/transactions/{pending}/events", {"event": "shipped"}
    ),
    "POST /v1/members": Call(
        "POST", "/v1/members", {"identifiers": [{"kind": "card", "value": "901"}]}, _KEY, elsewhere=201
    ),
    "GET /v1/members/lookup": Call("GET", "/v1/members/lookup?card=900"),
    "GET /v1/members/{member_id}": Call("GET", "/v1/members/{member}"),
    "PATCH /v1/members/{member_id}": Call(
        "PATCH", "/v1/members/{debtor}", {"status": "suspended"}, {"If-Match": '"1"'}
    ),
    "POST /v1/members/{member_id}/identifiers": Call(
        "POST", "/v1/members/{member}/identifiers", {"kind": "partner", "value": "p2"}
    ),
    "DELETE /v1/members/{member_id}/identifiers/{kind}/{value:path}": Call(
        "DELETE", "/v1/members/{member}/identifiers/partner/p1"
    ),
    "GET /v1/members/{member_id}/balance": Call("GET", "/v1/members/{member}/balance"),
    "GET /v1/members/{member_id}/entries": Call("GET", "/v1/members/{member}/entries"),
    "GET /v1/members/{member_id}/lots": Call("GET", "/v1/members/{member}/lots"),
    "GET /v1/members/{member_id}/tier": Call("GET", "/v1/members/{member}/tier"),
    "POST /v1/members/{member_id}/tier/decisions": Call(
        "POST",
        "/v1/members/{member}/tier/decisions",
        _LOCK,
        _KEY,
    ),
    "POST /v1/members/{member_id}/tier/decisions/{decision_id}/ending": Call(
        "POST", "/v1/members/{member}/tier/decisions/{locked}/ending", {"reason": "mistake"}, _KEY
    ),
    "GET /v1/members/{member_id}/tier/decisions": Call("GET", "/v1/members/{member}/tier/decisions"),
    "GET /v1/members/{member_id}/tier/history": Call("GET", "/v1/members/{member}/tier/history"),
    "GET /v1/members/{member_id}/clubs": Call("GET", "/v1/members/{member}/clubs"),
    "GET /v1/members/{member_id}/clubs/memberships": Call("GET", "/v1/members/{member}/clubs/memberships"),
    "POST /v1/members/{member_id}/clubs/{code}": Call("POST", "/v1/members/{member}/clubs/friends", {}, _KEY),
    "POST /v1/members/{member_id}/clubs/{code}/leaving": Call(
        "POST", "/v1/members/{member}/clubs/regulars/leaving", {"reason": "moved_away"}, _KEY
    ),
    "GET /v1/members/{member_id}/cards": Call("GET", "/v1/members/{member}/cards"),
    "GET /v1/members/{member_id}/bonuses": Call("GET", "/v1/members/{member}/bonuses"),
    "GET /v1/members/{member_id}/referrer": Call("GET", "/v1/members/{friend}/referrer"),
    "PUT /v1/members/{member_id}/referrer": Call(
        "PUT", "/v1/members/{friend}/referrer", {"referrer": {"card": "900"}}, elsewhere=404
    ),
    "GET /v1/campaigns": Call("GET", "/v1/campaigns", elsewhere=200),
    "GET /v1/members/{member_id}/statements/{month}": Call("GET", "/v1/members/{member}/statements/2026-11"),
    "GET /v1/statements/{month}": Call("GET", "/v1/statements/2026-11", elsewhere=200),
    "POST /v1/oauth/token": Call("POST", "/v1/oauth/token", {"member": {"card": "900"}}, elsewhere=422),
    "POST /v1/adjustments": Call("POST", "/v1/adjustments", _GOODWILL, _KEY, elsewhere=422),
    "GET /v1/adjustments": Call("GET", "/v1/adjustments", elsewhere=200),
    "GET /v1/adjustments/{adjustment_id}": Call("GET", "/v1/adjustments/{asked}"),
    "POST /v1/adjustments/{adjustment_id}/approval": Call("POST", "/v1/adjustments/{asked}/approval", None, _KEY),
    "POST /v1/adjustments/{adjustment_id}/rejection": Call("POST", "/v1/adjustments/{too_much}/rejection", {}, _KEY),
    "POST /v1/members/{member_id}/debt/write-off": Call(
        "POST", "/v1/members/{debtor}/debt/write-off", {"reason": "uncollectable"}, _KEY
    ),
    "POST /v1/members/{member_id}/lots/{lot_id}/extension": Call("POST", f"{_LOT}/extension", _LATER, _KEY),
    "POST /v1/members/{member_id}/lots/{lot_id}/reinstatement": Call("POST", f"{_LOT}/reinstatement", _LATER, _KEY),
    "POST /v1/rewards": Call("POST", "/v1/rewards", _MUG | {"code": "new"}, elsewhere=201),
    "GET /v1/rewards": Call("GET", "/v1/rewards", elsewhere=200),
    "GET /v1/rewards/{reward_id}": Call("GET", "/v1/rewards/{mug}"),
    "PUT /v1/rewards/{reward_id}": Call("PUT", "/v1/rewards/{mug}", _MUG, {"If-Match": '"1"'}),
    "POST /v1/rewards/{reward_id}/retirement": Call("POST", "/v1/rewards/{old_mug}/retirement"),
    "GET /v1/members/{member_id}/rewards": Call("GET", "/v1/members/{member}/rewards"),
    "POST /v1/redemptions": Call(
        "POST", "/v1/redemptions", {"member": {"card": "900"}, "reward": {"code": "mug"}}, _KEY, elsewhere=422
    ),
    "GET /v1/redemptions": Call("GET", "/v1/redemptions", elsewhere=200),
    "GET /v1/redemptions/{redemption_id}": Call("GET", "/v1/redemptions/{order}"),
    "POST /v1/redemptions/{redemption_id}/fulfilment": Call("POST", "/v1/redemptions/{order}/fulfilment", None, _KEY),
    "POST /v1/redemptions/{redemption_id}/cancellation": Call(
        "POST", "/v1/redemptions/{regretted}/cancellation", None, _KEY
    ),
    "GET /v1/vouchers/{code}": Call("GET", "/v1/vouchers/{voucher}"),
    "POST /v1/vouchers/{code}/burn": Call("POST", "/v1/vouchers/{voucher}/burn", _RECEIPT),
    "POST /v1/vouchers/{code}/cancellation": Call("POST", "/v1/vouchers/{stolen}/cancellation"),
    "POST /v1/holds": Call("POST", "/v1/holds", {"member": {"card": "900"}, "points": 5}, _KEY, elsewhere=422),
    "GET /v1/holds": Call("GET", "/v1/holds", elsewhere=200),
    "GET /v1/holds/{hold_id}": Call("GET", "/v1/holds/{hold}"),
    "POST /v1/holds/{hold_id}/capture": Call("POST", "/v1/holds/{hold}/capture", {}, _KEY),
    "POST /v1/holds/{hold_id}/release": Call("POST", "/v1/holds/{unused}/release", None, _KEY),
    "POST /v1/events": Call("POST", "/v1/events", _EVENT, _KEY, elsewhere=422),
    "POST /v1/transfers": Call(
        "POST", "/v1/transfers", {"from": {"card": "900"}, "to": {"card": "903"}, "points": 5}, _KEY, elsewhere=422
    ),
    "GET /v1/transfers/{transfer_id}": Call("GET", "/v1/transfers/{gift}"),
    "GET /v1/members/{member_id}/transfers": Call("GET", "/v1/members/{member}/transfers"),
    "POST /v1/pools": Call("POST", "/v1/pools", {"name": "household_2"}, _KEY, elsewhere=422),
    "GET /v1/pools/{pool_id}": Call("GET", "/v1/pools/{pool}"),
    "GET /v1/members/{member_id}/pool": Call("GET", "/v1/members/{member}/pool"),
    "POST /v1/pools/{pool_id}/members": Call("POST", "/v1/pools/{pool}/members", {"member": {"card": "902"}}),
    "DELETE /v1/pools/{pool_id}/members/{member_id}": Call("DELETE", "/v1/pools/{pool}/members/{other}"),
    "POST /v1/pools/{pool_id}/draws": Call(
        "POST", "/v1/pools/{pool}/draws", {"member": {"card": "900"}, "points": 5}, _KEY
    ),
    "POST /v1/programs": Call("POST", "/v1/programs", {"code": "third", "name": "Third"}, elsewhere=403),
    "GET /v1/programs": Call("GET", "/v1/programs", elsewhere=200),
    "GET /v1/programs/{program_id}": Call("GET", "/v1/programs/{program}"),
    "GET /v1/programs/{program_id}/budgets": Call("GET", "/v1/programs/{program}/budgets"),
    "POST /v1/programs/{program_id}/terms": Call("POST", _TERMS, TERMS),
    "GET /v1/programs/{program_id}/terms": Call("GET", _TERMS),
    "GET /v1/programs/{program_id}/terms/{version}": Call("GET", f"{_TERMS}/1"),
    "PUT /v1/programs/{program_id}/terms/{version}": Call("PUT", f"{_TERMS}/3", TERMS, {"If-Match": '"1"'}),
    "POST /v1/programs/{program_id}/terms/{version}/publish": Call("POST", f"{_TERMS}/3/publish", {}),
    "POST /v1/programs/{program_id}/terms/{version}/retirement": Call("POST", f"{_TERMS}/4/retirement"),
    "GET /v1/programs/{program_id}/terms/{version}/diff/{other}": Call("GET", f"{_TERMS}/1/diff/2"),
    "GET /v1/programs/{program_id}/terms/{version}/replay": Call(
        "GET", f"{_TERMS}/1/replay?from=2026-11-01T00:00:00Z&to=2026-11-22T00:00:00Z"
    ),
    "GET /v1/accounting/accounts": Call("GET", "/v1/accounting/accounts", elsewhere=200),
    "GET /v1/accounting/journal": Call("GET", "/v1/accounting/journal?document_id={purchase}", elsewhere=200),
    "GET /v1/accounting/trial-balance": Call("GET", "/v1/accounting/trial-balance", elsewhere=200),
    "GET /v1/accounting/cohorts": Call("GET", "/v1/accounting/cohorts", elsewhere=200),
    "POST /v1/accounting/recognitions": Call("POST", "/v1/accounting/recognitions", None, elsewhere=200),
    "GET /v1/proof": Call("GET", "/v1/proof", elsewhere=200),
}
"""A good request to each route that needs a key. A new route fails the first test below until it is here."""


def test_every_route_is_tried() -> None:
    """So that no route is added without the questions of this file being asked of it."""
    assert CALLS.keys() == CLOSED.keys()
    assert OPEN == ["GET /.well-known/jwks.json", "GET /livez", "GET /readyz", "GET /metrics", "GET /problems/{code}"]


@dataclass(frozen=True, slots=True)
class Made:
    """A shop with something of everything, and the ids of it."""

    shop: Shop
    ids: dict[str, str]

    def call(self, http: TestClient, route: str) -> Any:
        call = CALLS[route]
        return http.request(call.method, call.path.format(**self.ids), json=call.body, headers=call.headers)

    def key(self, kind: clients.Kind = "staff", **options: Any) -> TestClient:
        """A caller with a key of a new client of this programme."""
        clock, program_id = self.shop.clock, options.pop("program_id", self.shop.program_id)
        write = self.shop.database.write
        return self.shop.client(write(lambda session: make_key(session, kind, clock(), program_id, **options)))

    def another_programme(self, code: str) -> UUID:
        return self.shop.database.write(lambda session: make_program(session, TERMS, self.shop.clock(), code))


@pytest.fixture
def made(shop: Shop) -> Made:
    """Card 900 has points and spends them, 902 owes some, 903 had some corrected away; 900 and 903 are a household."""
    made = Made(shop, {"program": str(shop.program_id)})
    _buy_and_enrol(made)
    for terms in (GENEROUS, TERMS, TERMS):
        shop.http.post(f"/v1/programs/{shop.program_id}/terms", json=terms)
    shop.http.post(f"/v1/programs/{shop.program_id}/terms/2/publish", json={})
    shop.clock.forward(seconds=1)
    made.ids["pending"] = shop.post(purchase("pending", occurred_at=shop.clock().isoformat())).json()["id"]
    _redeem(made)
    _hold_and_share(made)
    _adjust(made)
    return made


def act(http: TestClient, path: str, body: Any = None) -> Any:
    """What a POST answers that must succeed."""
    response = http.post(path, json=body, headers={"Idempotency-Key": uuid4().hex})
    assert response.status_code in (200, 201, 202), response.text
    return response.json()


def _buy_and_enrol(made: Made) -> None:
    shop = made.shop
    bought, guest = shop.post(purchase("r1", 100_000)).json(), shop.post(purchase("guest", member=None)).json()
    debtor, other = (shop.post(purchase(card, member={"card": card})).json()["member"]["id"] for card in ("902", "903"))
    member = bought["member"]["id"]
    act(shop.http, f"/v1/members/{member}/identifiers", {"kind": "partner", "value": "p1"})
    (lot,) = shop.get(f"/v1/members/{other}/lots")["items"]
    friend = {"identifiers": [{"kind": "card", "value": "904"}], "referred_by": {"card": "900"}}
    made.ids["friend"] = act(shop.http, "/v1/members", friend)["id"]
    assert shop.post(returned("early", "never")).status_code == 202
    made.ids.update(member=member, debtor=debtor, other=other)
    made.ids.update(purchase=bought["id"], guest=guest["id"], lot=lot["id"])


def _redeem(made: Made) -> None:
    """An order to hand over and one to cancel; a voucher to burn and a stolen one."""
    http = made.shop.http
    wanted = {"member": {"card": "900"}, "reward": {"code": "mug"}}
    made.ids["mug"] = act(http, "/v1/rewards", _MUG | {"code": "mug"})["id"]
    made.ids["old_mug"] = act(http, "/v1/rewards", _MUG | {"code": "old"})["id"]
    made.ids["order"], made.ids["regretted"] = (act(http, "/v1/redemptions", wanted)["id"] for _ in range(2))
    act(http, "/v1/rewards", _VOUCHER)
    two = {"member": {"card": "900"}, "reward": {"code": "five-off"}, "quantity": 2, "immediate": True}
    made.ids["voucher"], made.ids["stolen"] = (
        voucher["code"] for voucher in act(http, "/v1/redemptions", two)["vouchers"]
    )


def _hold_and_share(made: Made) -> None:
    """A hold to capture and one to release; points that were spent and whose purchase came back; a gift; a pool."""
    shop, http = made.shop, made.shop.http
    five = {"member": {"card": "900"}, "points": 5}
    made.ids["hold"], made.ids["unused"] = (act(http, "/v1/holds", five)["id"] for _ in range(2))
    spent = act(http, "/v1/holds", {"member": {"card": "902"}, "points": 10})
    act(http, f"/v1/holds/{spent['id']}/capture", {})
    assert shop.post(returned("b1", "902")).json()["balance"]["debt"] == 10
    made.ids["pool"] = act(http, "/v1/pools", {"name": "household_1"})["id"]
    for card in ("900", "903"):
        act(http, f"/v1/pools/{made.ids['pool']}/members", {"member": {"card": card}})
    gift = {"from": {"card": "900"}, "to": {"card": "903"}, "points": 5}
    made.ids["gift"] = act(http, "/v1/transfers", gift)["id"]


def _adjust(made: Made) -> None:
    """Ann took points from card 903, and asks for more than she may give alone, twice."""
    ann = made.key(person="ann")
    act(ann, "/v1/adjustments", _GOODWILL | {"member": {"card": "903"}, "points": -2, "class": "correction"})
    large = _GOODWILL | {"points": 5000}
    made.ids["locked"] = act(ann, f"/v1/members/{made.ids['member']}/tier/decisions", _LOCK)["id"]
    act(ann, f"/v1/members/{made.ids['member']}/clubs/regulars", {})
    made.ids["asked"], made.ids["too_much"] = (act(ann, "/v1/adjustments", large)["id"] for _ in range(2))


def check_problem(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_nobody_comes_in(made: Made, subtests: pytest.Subtests) -> None:
    """Without a key, or with one that is malformed, unknown, expired or revoked: 401, which says nothing of why."""
    shop, good = made.shop, made.shop.keys["staff"]
    expiring = made.key(expires_at=shop.clock() + timedelta(minutes=1))
    revoked = made.key()
    shop.database.write(lambda session: clients.revoke_key(session, public_id_of(revoked), shop.clock()))
    shop.clock.forward(minutes=1)
    nobodies = [
        TestClient(shop.app),
        *(TestClient(shop.app, headers={"Authorization": value}) for value in (good, f"Basic {good}", "Bearer", "")),
        *(shop.client(value) for value in ("x", good[:-1], good + "0", good.upper(), new_secret("staff").text)),
        expiring,
        revoked,
    ]
    for route in CLOSED:
        with subtests.test(route=route):
            bodies = set()
            for http in nobodies:
                response = made.call(http, route)
                check_problem(response, 401, "unauthenticated")
                assert response.headers["WWW-Authenticate"] == "Bearer"
                bodies.add(json.dumps(response.json() | {"request_id": None}))
            assert len(bodies) == 1


def public_id_of(http: TestClient) -> str:
    return http.headers["Authorization"].split("_")[2]


def test_the_scope_decides(made: Made, subtests: pytest.Subtests) -> None:
    """All scopes but the one are not enough; the one alone is."""
    for route, scope in CLOSED.items():
        with subtests.test(route=route):
            check_problem(made.call(made.key(scopes=SCOPES.keys() - {scope}), route), 403, "forbidden")
            program_id = None if scope == "programs:create" else made.shop.program_id
            response = made.call(made.key(scopes={scope}, program_id=program_id), route)
            assert response.status_code in (200, 201, 204), response.text


def test_another_programme_sees_nothing_of_this_one(made: Made, subtests: pytest.Subtests) -> None:
    """Its objects do not exist for them; lists are their own. What they post lands in their programme."""
    shop = made.shop
    before = shop.get("/v1/accounting/journal"), shop.get(f"/v1/members/{made.ids['member']}")
    for number, route in enumerate(CLOSED):
        with subtests.test(route=route):
            stranger = made.key(program_id=made.another_programme(f"p{number}"))
            response = made.call(stranger, route)
            assert response.status_code == CALLS[route].elsewhere, response.text
            assert not any(id_ in response.text for id_ in made.ids.values())
    assert (shop.get("/v1/accounting/journal"), shop.get(f"/v1/members/{made.ids['member']}")) == before
    assert shop.database.read(prove).holds, "everybody's books"


def test_what_a_kind_of_key_may_do(made: Made) -> None:
    """The scopes of its kind open exactly their routes. No kind of key creates programmes."""
    for kind in KINDS:
        http = made.key(kind)
        for route, scope in CLOSED.items():
            response = made.call(http, route)
            assert (response.status_code != 403) == (scope in KINDS[kind]), (kind, route, response.text)
    assert all("programs:create" not in scopes for scopes in KINDS.values())


def test_the_installation_s_own_key_belongs_to_no_programme(made: Made) -> None:
    """Though it may read all programmes, it has no members, purchases or books."""
    key = made.key(program_id=None, scopes=SCOPES)
    for route in CLOSED:
        expected = (200, 201) if "/v1/programs" in route else (403,)
        response = made.call(key, route)
        assert response.status_code in expected, (route, response.text)


def test_anybody_may_ask(shop: Shop) -> None:
    for route in OPEN:
        method, path = route.format(code="busy").split()
        assert TestClient(shop.app).request(method, path).status_code == 200


# --- stores ---------------------------------------------------------------------------------------------------------


def test_a_terminal_acts_for_its_stores(made: Made) -> None:
    """Posting for another store is forbidden, and so is posting for none."""
    terminal = made.key("terminal", stores=["2", "3"])
    for store in ("1", None):
        response = terminal.post("/v1/transactions", json=purchase("new", store=store))
        check_problem(response, 403, "store_not_allowed")
    bodies = [purchase("a", store="2"), purchase("b", store="1"), purchase("c", store=None), purchase("d", store="3")]
    results = terminal.post("/v1/transactions/batch", json={"transactions": bodies}).json()["results"]
    assert [result["status"] for result in results] == [201, 403, 403, 201]
    assert results[1]["problem"]["code"] == "store_not_allowed"
    made.shop.prove()


def test_a_terminal_sees_its_stores(made: Made) -> None:
    """Another store's purchases do not exist for it, nor do those without a store."""
    shop, terminal = made.shop, made.key("terminal", stores=["2"])
    ours = shop.post(purchase("ours", store="2", member=None)).json()["id"]
    none = shop.post(purchase("none", store=None, member=None)).json()["id"]
    for external_id in ("r1", "guest", "none", "never"):
        check_problem(terminal.get(f"/v1/transactions/store-1/{external_id}"), 404, "not_found")
    for transaction_id in (made.ids["guest"], none):
        for dry_run in (True, False):
            path = f"/v1/transactions/{transaction_id}/claim"
            response = terminal.post(path, json={"member": {"card": "900"}}, params={"dry_run": dry_run})
            check_problem(response, 404, "not_found")
    assert terminal.get("/v1/transactions/store-1/ours").status_code == 200
    claim = terminal.post(f"/v1/transactions/{ours}/claim", json={"member": {"card": "900"}})
    assert claim.status_code == 201, claim.text
    shop.prove()


# --- at start-up ----------------------------------------------------------------------------------------------------


def test_a_route_without_a_scope_fails_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deny by default: the service does not come up with a route that forgot to say who may call it."""
    forgetful = APIRouter(prefix="/v1")
    forgetful.add_api_route("/forgotten", lambda: None, methods=["GET"])
    monkeypatch.setattr(main, "ROUTERS", (*main.ROUTERS, forgetful))
    monkeypatch.setattr(main, "_routes", main._routes.__wrapped__)
    with pytest.raises(RuntimeError, match=r"routes without a scope: \['GET'\] .*/forgotten"):
        create_app(settings_for("sqlite:///unused.db"))


def test_check_routes_finds_each_and_only_those() -> None:
    """Also inside nested routers, where a dependency of the outer one counts for the inner."""
    app, outer, inner = FastAPI(), APIRouter(prefix="/outer"), APIRouter(prefix="/inner")
    for router, name in ((outer, "a"), (inner, "b")):
        router.add_api_route(f"/{name}", lambda: None)
    inner.add_api_route("/c", lambda: None, dependencies=[public()])
    inner.add_api_route("/d", lambda: None, dependencies=[needs("members:read")])
    outer.include_router(inner)
    app.include_router(outer)
    with pytest.raises(RuntimeError) as refused:
        check_routes(app)
    assert [path in str(refused.value) for path in ("/a", "/b", "/c", "/d")] == [True, True, False, False]


def _plain(_request: Request) -> Response:
    return Response()


async def _socket(_websocket: WebSocket) -> None:
    return None


ROUTES_OF_OTHER_KINDS: dict[str, Callable[[FastAPI], object]] = {
    "a mounted application": lambda app: app.mount("/odd", FastAPI()),
    "one mounted under a known name": lambda app: app.mount("/odd", FastAPI(), name="openapi"),
    "a plain route": lambda app: app.add_route("/odd", _plain),
    "a socket": lambda app: app.router.routes.append(WebSocketRoute("/odd", _socket)),
    "a socket of FastAPI's": lambda app: app.add_api_websocket_route("/odd", _socket),
}


@pytest.mark.parametrize("add", ROUTES_OF_OTHER_KINDS.values(), ids=ROUTES_OF_OTHER_KINDS)
def test_check_routes_looks_at_every_kind(add: Callable[[FastAPI], object]) -> None:
    """The pages of the description, which FastAPI adds by itself, are all that may say nothing."""
    app = FastAPI(redoc_url=None)
    check_routes(app)
    add(app)
    with pytest.raises(RuntimeError, match="/odd"):
        check_routes(app)


def test_an_unknown_scope_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="unknown scope members:raed"):
        needs("members:raed")


# --- keys -----------------------------------------------------------------------------------------------------------


def test_two_live_keys_at_most(shop: Shop) -> None:
    """The one in use and its successor. Expired and revoked ones do not count."""

    def make(session: Session, **options: Any) -> clients.NewKey:
        return clients.create_key(session, client_id, PEPPER.encode(), shop.clock(), **options)

    write = shop.database.write
    client_id = write(
        lambda session: clients.create_client(session, "terminal", "till", shop.clock(), program_id=shop.program_id)
    )
    first = write(make)
    write(lambda session: make(session, expires_at=shop.clock() + timedelta(days=1)))
    with pytest.raises(TooManyKeys):
        write(make)
    shop.clock.forward(days=1)
    third = write(make)
    with pytest.raises(TooManyKeys):
        write(make)
    assert write(lambda session: clients.revoke_key(session, first.public_id, shop.clock()))
    assert not write(lambda session: clients.revoke_key(session, first.public_id, shop.clock()))
    fourth = write(make)
    alive = [shop.client(key.text).get("/v1/members/lookup?card=1").status_code for key in (first, third, fourth)]
    assert alive == [401, 404, 404]


@given(
    kind=st.sampled_from(sorted(KINDS)), position=st.integers(0, 200), other=st.sampled_from("0123456789abcdefxyz_A ")
)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_a_damaged_key_is_no_key(kind: str, position: int, other: str) -> None:
    """The checksum finds any one wrong character, without asking the database."""
    good = new_secret(kind)
    assert read_secret(good.text) == good
    place = position % len(good.text)
    damaged = good.text[:place] + other + good.text[place + 1 :]
    assert read_secret(damaged) == (good if damaged == good.text else None)
    assert read_secret(good.text + other) is None
    assert read_secret(good.text[:-1]) is None


def test_another_secret_under_a_known_id(shop: Shop) -> None:
    """A well-formed key with somebody's public id and the wrong secret is nobody's."""
    theirs, mine = read_secret(shop.keys["staff"]), new_secret("staff")
    assert theirs is not None
    text_ = mine.text.replace(mine.public_id, theirs.public_id)
    forged = text_[:-8] + f"{crc32(text_[:-9].encode()):08x}"
    assert read_secret(forged) is not None
    check_problem(shop.client(forged).get("/v1/programs"), 401, "unauthenticated")


def test_only_a_keyed_hash_of_a_key_is_stored(shop: Shop) -> None:
    """Whoever reads the database cannot call the service, and without the pepper cannot even check a guess."""
    with shop.database.engine.connect() as connection:
        stored = connection.execute(select(ApiKey.public_id, ApiKey.secret_hash)).all()
    hashes = {row.public_id: row.secret_hash for row in stored}
    everything = dump(shop)
    for key in shop.keys.values():
        _, _, public_id, secret, _ = key.split("_")
        assert hashes[public_id] == hmac.new(PEPPER.encode(), secret.encode(), hashlib.sha256).hexdigest()
        assert secret not in everything
        assert hashlib.sha256(secret.encode()).hexdigest() not in everything
    assert PEPPER not in everything
    assert len(set(hashes.values())) == len(shop.keys)


def dump(shop: Shop) -> str:
    """Every value of every table, as text."""
    with shop.database.engine.connect() as connection:
        rows = [row for table in Base.metadata.tables.values() for row in connection.execute(select(table))]
    return "\n".join(str(value) for row in rows for value in row)


def test_the_pepper_is_needed(shop: Shop) -> None:
    """With another pepper, every key is wrong."""
    shop.app.state.pepper = b"another pepper of more than 32 characters"
    check_problem(shop.http.get("/v1/programs"), 401, "unauthenticated")


def test_a_client_keeps_its_stores_and_programme(shop: Shop) -> None:
    """What a key may do hangs on the client, so a successor can do no more."""
    with shop.database.engine.connect() as connection:
        programmes = set(connection.execute(select(Client.program_id)).scalars())
    assert programmes == {shop.program_id, None}


# --- logs -----------------------------------------------------------------------------------------------------------


CARD, PHONE, EMAIL, NAME = "CANARYCARD5318", "+14155550199", "canary.5318@example.com", "Canary Mustermann"


@contextmanager
def logged() -> Iterator[Callable[[], str]]:
    """All that the service logs at level debug, as it would write it to standard error."""
    lines = io.StringIO()

    def written() -> str:
        telemetry.LINES.flush()
        return lines.getvalue()

    try:
        with redirect_stderr(lines):
            telemetry.configure_logging("debug")
            yield written
            telemetry.LINES.flush()
    finally:
        telemetry.configure_logging("error")


def check_no_canary(shop: Shop, words: str) -> None:
    secrets = [key.split("_")[3] for key in shop.keys.values()]
    for canary in (CARD, PHONE, PHONE[2:], EMAIL, NAME, "Mustermann", PEPPER, *secrets):
        assert canary.lower() not in words.lower()


def _ask_everything(shop: Shop) -> list[Any]:
    """Requests full of personal data, accepted and refused, right and wrong."""
    http, key = shop.http, {"Idempotency-Key": "k1"}
    identifiers = [
        {"kind": "card", "value": CARD},
        {"kind": "phone", "value": PHONE},
        {"kind": "email", "value": EMAIL},
    ]
    body = {"identifiers": identifiers, "profile": {"name": NAME}}
    member = http.post("/v1/members", json=body, headers=key).json()["id"]
    guest = shop.post(purchase("guest", member=None)).json()["id"]
    path = f"/v1/members/{member}"
    return [
        http.post("/v1/members", json=body, headers={"Idempotency-Key": "k2"}),
        http.post("/v1/members", json=body | {"identifiers": identifiers[:1]}, headers=key),
        http.post("/v1/members", json=body | {NAME.lower(): 1}, headers={"Idempotency-Key": "k3"}),
        http.post("/v1/members", json={"identifiers": [{"kind": NAME, "value": CARD}]}, headers=key),
        http.post("/v1/members", content=json.dumps(body)[:-1], headers=key | {"Content-Type": "application/json"}),
        http.post("/v1/members", content=json.dumps(body), headers=key | {"Content-Type": "text/plain"}),
        shop.client("terminal").post("/v1/members", json=body, headers=key),
        shop.client(shop.keys["staff"] + "0").post("/v1/members", json=body, headers=key),
        http.get("/v1/members/lookup", params={"card": CARD, "phone": PHONE}),
        http.get("/v1/members/lookup", params={"card": CARD + "!"}),
        http.get("/v1/members/lookup", params={"partner": NAME}),
        http.get(f"/v1/{EMAIL}"),
        http.get(f"/v1/members/{CARD}"),
        http.patch(path, json={"profile": {"name": NAME, "language": NAME}}, headers={"If-Match": '"1"'}),
        http.patch(path, json={"profile": {"name": NAME}}, headers={"If-Match": f'"{CARD}"'}),
        http.delete(f"{path}/identifiers/phone/{PHONE}9"),
        http.delete(f"{path}/identifiers/card/{CARD}9"),
        http.post(f"{path}/identifiers", json={"kind": "email", "value": NAME}),
        shop.post(purchase("r2", member={"card": CARD}, total=1001)),
        shop.post(purchase("r2", member={"card": CARD}, total=-1)),
        shop.post(purchase("r2", member={"email": EMAIL + "x"})),
        shop.post(purchase("r2", member={"card": CARD, "phone": PHONE})),
        http.post(f"/v1/transactions/{guest}/claim", json={"member": {"phone": PHONE + "99999"}}),
        http.post(f"/v1/transactions/{guest}/claim", json={"member": {"email": f"x{EMAIL}"}}),
    ]


def test_nothing_personal_in_logs_or_refusals(shop: Shop) -> None:
    """Canaries in every place where a card, a phone, an address, a name or a key can stand."""
    with logged() as log:
        responses = _ask_everything(shop)
    for response in responses:
        if response.status_code >= 400:
            check_no_canary(shop, response.text.replace(NAME.lower(), "its own key"))
            assert response.json()["request_id"] in log()
    lines = [json.loads(line) for line in log().splitlines()]
    assert len([line for line in lines if line["event"] == "request"]) >= len(responses)
    check_no_canary(shop, log())


def test_nothing_personal_in_the_log_of_a_crash(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database quotes the row it refuses: `Key (value)=(...) already exists`. The log says only what kind it was."""
    shop.post(purchase(member={"card": CARD}))
    quoted: list[str] = []

    def insert_twice(session: Session, *_rest: object) -> None:
        copy = text(
            "INSERT INTO member_identifier (program_id, kind, value, member_id) "
            f"SELECT program_id, kind, '{CARD}', member_id FROM member_identifier WHERE kind = :kind"
        )
        try:
            session.execute(copy, {"kind": "card"})
        except Exception as error:
            quoted.append(f"{error} {getattr(error, 'orig', '')}")
            raise

    monkeypatch.setattr("app.ledger.write", insert_twice)
    body = purchase("r2", member={"card": CARD}, cashier=NAME)
    with logged() as log:
        check_problem(shop.post(body), 500, "internal_error")
        answer = shop.batch([body])[0]
    assert answer["status"] == 500
    check_no_canary(shop, json.dumps(answer))
    assert len(quoted) == 3, "posted alone, in a batch, and out of the batch again"
    assert all(CARD in words for words in quoted)
    assert log().count("IntegrityError") == 3
    check_no_canary(shop, log())


@pytest.mark.parametrize("model", [wire.Request, wire.Answer])
def test_models_do_not_quote_what_they_refuse(model: type[BaseModel]) -> None:
    """Where a model's complaint becomes a defect's message, it is logged."""
    strict = create_model("Strict", __base__=model, age=(int, ...))
    with pytest.raises(ValidationError, match="age") as refused:
        strict.model_validate({"age": NAME})
    assert NAME not in str(refused.value)


def test_a_defect_is_found_by_its_request_id(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer says nothing but the id; the log has the place, and neither has the request."""

    def explode(*_args: object) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr("app.ledger.write", explode)
    request_id = "the-till-s-own.id-1"
    with logged() as log:
        response = shop.http.post(
            "/v1/transactions", json=purchase(member={"card": CARD}), headers={"X-Request-Id": request_id}
        )
    check_problem(response, 500, "internal_error")
    assert response.json()["request_id"] == response.headers["x-request-id"] == request_id
    found = [json.loads(line) for line in log().splitlines() if request_id in line]
    assert [line["event"] for line in found] == ["unhandled", "request"]
    assert found[0]["exception"][0]["type"] == "LookupError"
    assert "explode" in found[0]["exception"][0]["frames"][-1]
    assert found[1]["status"] == 500
    check_no_canary(shop, log())


def test_a_key_is_known_for_as_long_as_the_setting_says(engines: Engines, engine: str) -> None:
    """A revoked one no longer than that; an expired one not at all."""
    with open_shop(settings_for(engines.fresh(engine), key_seconds=0.5), TestClock()) as shop:
        kept, expiring = (
            shop.database.write(partial(_key_of_staff, shop, expires_at=expires_at))
            for expires_at in (None, shop.clock() + timedelta(minutes=1))
        )
        callers = [TestClient(shop.app, headers={"Authorization": f"Bearer {key.text}"}) for key in (kept, expiring)]
        assert [http.get("/v1/rewards").status_code for http in callers] == [200, 200]
        shop.database.write(lambda session: clients.revoke_key(session, kept.public_id, shop.clock()))
        shop.clock.forward(minutes=1)
        assert [http.get("/v1/rewards").status_code for http in callers] == [200, 401]
        time.sleep(0.6)
        assert [http.get("/v1/rewards").status_code for http in callers] == [401, 401]


def _key_of_staff(shop: Shop, session: Session, expires_at: datetime | None) -> clients.NewKey:
    client_id = clients.create_client(session, "staff", "desk", shop.clock(), program_id=shop.program_id)
    return clients.create_key(session, client_id, PEPPER.encode(), shop.clock(), expires_at=expires_at)


def test_requests_that_come_together_look_a_key_up_once() -> None:
    """Also when one of them goes away. A refusal is told to all that wait, and is not kept."""
    caller = clients.Caller(UUID(int=1), "terminal", None, frozenset(), None)
    answers: list[clients.Caller | Unauthenticated] = [Unauthenticated(), caller]
    known, now, looked = KnownKeys(60), datetime.now(UTC), 0

    async def look() -> clients.Caller:
        nonlocal looked
        looked += 1
        await asyncio.sleep(0.01)
        answer = answers[looked - 1]
        if isinstance(answer, Unauthenticated):
            raise answer
        return answer

    async def together() -> list[Any]:
        asked = [asyncio.ensure_future(known.caller("key", now, look)) for _ in range(20)]
        await asyncio.sleep(0)
        asked[0].cancel()
        return await asyncio.gather(*asked[1:], return_exceptions=True)

    async def thrice() -> list[list[Any]]:
        return [await together() for _ in range(3)]

    assert asyncio.run(thrice()) == [[answers[0]] * 19, [caller] * 19, [caller] * 19]
    assert looked == 2
