"""Whatever arrives: bad input is refused with a stable code, in one form, without an echo, and nothing is written."""

import asyncio
import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as openapi_checks
from sqlalchemy import func, literal, select, union_all
from starlette.types import Message

from app.db import Base
from app.errors import MEDIA_TYPE, every_problem
from app.main import create_app
from app.members import IdentifierInvalid, normalise
from app.wire import LARGEST
from tests.conftest import ENGINES, Engines, settings_for
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase

CANARY = "canary-5318008"
"""Sent beside every fault; no refusal may repeat it."""
PLACE = "@here@"
"""Where a target's body takes a bad value."""
CODES = {problem.code: problem.status for problem in every_problem()}
MIB = 1024 * 1024


# --- a caller without manners ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and how many bytes of the body the service had taken when it began to answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    taken: int

    def json(self) -> Any:
        return json.loads(self.body)


def send(
    shop: Shop, method: str, target: str, headers: Sequence[tuple[str, str]] = (), chunks: Sequence[bytes] = ()
) -> Answered:
    """Sends what a well-behaved client would not: any headers, any length, chunk by chunk."""
    path, _, query = target.partition("?")
    given = [("authorization", f"Bearer {shop.keys['staff']}"), ("idempotency-key", "k"), *headers]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    waiting = list(chunks)
    taken = 0
    sent: list[tuple[Message, int]] = []

    async def receive() -> Message:
        nonlocal taken
        chunk = waiting.pop(0) if waiting else b""
        taken += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    async def note(message: Message) -> None:
        sent.append((message, taken))

    asyncio.run(cast("Any", shop.app(scope, receive, note)))
    start, taken_then = sent[0]
    names = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    return Answered(start["status"], names, b"".join(message.get("body", b"") for message, _ in sent[1:]), taken_then)


def row_counts(shop: Shop) -> dict[str, int]:
    """How many rows each table has."""
    counts = [
        select(literal(name).label("name"), func.count().label("rows")).select_from(table)
        for name, table in Base.metadata.tables.items()
    ]
    with shop.database.engine.connect() as connection:
        return dict(connection.execute(union_all(*counts)).all())


def check_refusal(answered: Any, status: int, code: str) -> None:
    """A refusal has its status, one form, its code, and nothing of what was sent."""
    text = answered.body.decode() if isinstance(answered, Answered) else answered.text
    got = answered.status if isinstance(answered, Answered) else answered.status_code
    assert (got, json.loads(text)["code"]) == (status, code), text
    assert answered.headers["content-type"] == MEDIA_TYPE
    assert status == CODES[code]
    assert CANARY not in text
    assert len(text) < 4096, "an answer to a fault is short"


# --- the bodies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A route with a body: what it is sent, with `PLACE` where a bad value goes."""

    method: str
    path: str
    body: dict[str, Any]
    takes_number: bool = False
    largest: int = 64 * 1024

    def document(self, value: str | bytes) -> bytes:
        """The body with `value` (JSON, or something that only resembles it) in its place."""
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        return json.dumps(self.body).encode().replace(json.dumps(PLACE).encode(), raw)


_LINE = {"line": 1, "product": CANARY, "quantity": "1", "amount": 1000}
_SHORT_LINE = {"line": 1, "product": "p", "quantity": "1", "amount": 1}

TARGETS = {
    "purchase": Target("POST", "/v1/transactions", purchase(lines=[_LINE]) | {"total": PLACE}, takes_number=True),
    "batch": Target("POST", "/v1/transactions/batch", {"transactions": PLACE}, largest=MIB),
    "member": Target(
        "POST", "/v1/members", {"identifiers": [{"kind": "partner", "value": CANARY}], "profile": {"name": PLACE}}
    ),
    "change": Target("PATCH", "/v1/members/{member}", {"profile": {"name": PLACE}, "status": "suspended"}),
    "token": Target("POST", "/v1/oauth/token", {"member": {"partner": PLACE}}),
    "claim": Target("POST", "/v1/transactions/{guest}/claim", {"member": {"card": PLACE}}),
    "referrer": Target("PUT", "/v1/members/{member}/referrer", {"referrer": {"card": PLACE}}),
    "terms": Target(
        "POST", "/v1/programs/{program}/terms", TERMS | {"earning": {"points": PLACE, "per": 100}}, takes_number=True
    ),
}

NOT_JSON: dict[str, str | bytes] = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e400": "1e400",
    "-1e400": "-1e400",
    "1E+1000000": "1E+1000000",
    "5,000 digits": "9" * 5000,
    "lone high surrogate, escaped": r'"\ud800"',
    "lone low surrogate, escaped": r'"a\uDFFFb"',
    "surrogates in the wrong order": r'"\udc00\ud800"',
    "lone surrogate, as bytes": b'"\xed\xa0\x80"',
    "invalid UTF-8": b'"\xff"',
    "overlong UTF-8": b'"\xc0\x80"',
    "UTF-8 cut short": b'"\xe2\x82"',
    "raw NUL": b'"\x00"',
    "raw newline": b'"\n"',
    "nothing": b"",
    "a comment": b"1 /* one */",
    "hexadecimal": b"0x10",
    "leading zero": b"007",
    "key twice": b'{"a": 1, "a": 1}',
    "key twice, spelled twice": rb'{"a": 1, "\u0061": 2}',
    "surrogate in a key": rb'{"\ud800": 1}',
    "deep arrays": b"[" * 30_000 + b"]" * 30_000,
    "deep objects": b'{"":' * 10_000 + b"1" + b"}" * 10_000,
}
"""Values that make a body unacceptable as JSON: 400, wherever they stand."""

NOT_OF_THE_FORM = {
    "escaped NUL": r'"\u0000"',
    "true": "true",
    "false": "false",
    "1.0": "1.0",
    "-0.0": "-0.0",
    "2^53": str(LARGEST + 1),
    "-2^53": str(-LARGEST - 1),
    "2^63": str(2**63),
    "300 digits": "9" * 300,
    "an array": "[1]",
    "an object": f'{{"{"a" * 20}": 1}}',
    "an array of arrays": "[" * 20 + "]" * 20,
}
"""JSON, but not what any target wants in its place: 422."""

NOT_A_NUMBER = {"a number in a string": '"1"', "null": "null", "an empty string": '""'}
"""422 where a number is wanted."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A shop with a member and a guest's purchase, that many refused requests in a row must leave as it is."""

    shop: Shop
    ids: dict[str, str]

    def send(
        self, target: Target, body: bytes, headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),)
    ) -> Answered:
        given = [*headers, ("if-match", '"1"'), ("content-length", str(len(body)))]
        return send(self.shop, target.method, target.path.format(**self.ids), given, [body])


@pytest.fixture(scope="module", params=ENGINES)
def standing(engines: Engines, request: pytest.FixtureRequest) -> Iterator[Standing]:
    """One shop for all refusals of this file: they write nothing, so they cannot disturb each other."""
    with open_shop(settings_for(engines.fresh(request.param)), TestClock()) as shop:
        posted = shop.post(purchase("known")).json()
        guest = shop.post(purchase("guest", member=None)).json()
        ids = {"member": posted["member"]["id"], "guest": guest["id"], "program": str(shop.program_id)}
        yield Standing(shop, ids)
        shop.prove()


@pytest.fixture
def untouched(standing: Standing) -> Iterator[Standing]:
    """The same, and no table has a row more afterwards."""
    before = row_counts(standing.shop)
    yield standing
    assert row_counts(standing.shop) == before


def _for_each_target(cases: dict[str, Any], *, numbers_only: bool = False) -> pytest.MarkDecorator:
    parameters = [
        pytest.param(target, value, id=f"{name}-{case}")
        for name, target in TARGETS.items()
        for case, value in cases.items()
        if (target.takes_number or not numbers_only) and (name != "batch" or not case.startswith("an array"))
    ]
    return pytest.mark.parametrize(("target", "value"), parameters)


@_for_each_target(NOT_JSON)
def test_what_is_not_json_is_refused(untouched: Standing, target: Target, value: str | bytes) -> None:
    """Python's reader takes NaN, doubled keys and surrogates; databases and other readers do not."""
    check_refusal(untouched.send(target, target.document(value)), 400, "invalid_json")


@_for_each_target(NOT_OF_THE_FORM)
def test_what_is_not_of_the_form_is_refused(untouched: Standing, target: Target, value: str) -> None:
    check_refusal(untouched.send(target, target.document(value)), 422, "invalid_request")


@_for_each_target(NOT_A_NUMBER, numbers_only=True)
def test_nothing_is_taken_for_a_number_that_is_none(untouched: Standing, target: Target, value: str) -> None:
    check_refusal(untouched.send(target, target.document(value)), 422, "invalid_request")


WHOLE_BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 422, "invalid_request"),
    "null": (b"null", 422, "invalid_request"),
    "a number": (b"1", 422, "invalid_request"),
    "a string": (b'"text"', 422, "invalid_request"),
    "true": (b"true", 422, "invalid_request"),
    "an array": (b"[]", 422, "invalid_request"),
    "an empty object": (b'{"nothing of ours": 1}', 422, "invalid_request"),
    "NUL in a key": (rb'{"\u0000": 1}', 422, "invalid_request"),
    "white space": (b" \n ", 400, "invalid_json"),
    "a byte order mark": (b"\xef\xbb\xbf{}", 400, "invalid_json"),
    "UTF-16": ("{}".encode("utf-16"), 400, "invalid_json"),
    "UTF-16 without a mark": ("{}".encode("utf-16-le"), 400, "invalid_json"),
    "UTF-32": ("{}".encode("utf-32"), 400, "invalid_json"),
    "two documents": (b"{}{}", 400, "invalid_json"),
    "cut short": (b'{"member": {"card": "9', 400, "invalid_json"),
    "a form": (b"card=900", 400, "invalid_json"),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(("body", "status", "code"), WHOLE_BODIES.values(), ids=WHOLE_BODIES)
def test_a_body_is_one_json_object(untouched: Standing, target: Target, body: bytes, status: int, code: str) -> None:
    check_refusal(untouched.send(target, body), status, code)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("opening", [b"[", b'{"":'], ids=["arrays", "objects"])
def test_a_hundred_thousand_levels(untouched: Standing, target: Target, opening: bytes) -> None:
    """They fit into a batch and into nothing else; neither way does the parser run out of stack."""
    body = opening * 100_000 + b"1" + (b"]" if opening == b"[" else b"}") * 100_000
    status, code = (400, "invalid_json") if target.largest == MIB else (413, "body_too_large")
    check_refusal(untouched.send(target, body), status, code)


_DEEP = [name for name in TARGETS if name != "batch"]  # a batch judges items apart: 200


@pytest.mark.parametrize("target", [TARGETS[name] for name in _DEEP], ids=_DEEP)
def test_no_depth_is_a_defect(untouched: Standing, target: Target) -> None:
    """Whatever depth the parser still takes, all that comes after it takes too: here the last thirty such depths."""

    def ask(depth: int) -> tuple[int, str]:
        answered = untouched.send(target, target.document("[" * depth + "]" * depth))
        return answered.status, answered.json()["code"]

    too_deep = bisect_left(range(30_000), True, key=lambda depth: ask(depth) == (400, "invalid_json"))
    answers = {depth: ask(depth) for depth in range(too_deep - 30, too_deep)}
    assert set(answers.values()) == {(422, "invalid_request")}, answers


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(
    "media_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/json-patch+json"],
)
def test_only_json_is_taken(untouched: Standing, target: Target, media_type: str | None) -> None:
    """An HTML form cannot send `application/json`, so no other site's page can post in a user's name."""
    headers = [] if media_type is None else [("content-type", media_type)]
    check_refusal(untouched.send(target, target.document("1"), headers), 415, "unsupported_media_type")


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_sixty_megabytes_are_refused_before_they_are_read(untouched: Standing, target: Target, declared: bool) -> None:
    chunks = [b" " * 16_384] * 3840
    headers = [("content-type", "application/json"), ("if-match", '"1"')]
    headers += [("content-length", str(60 * MIB))] if declared else [("transfer-encoding", "chunked")]
    answered = send(untouched.shop, target.method, target.path.format(**untouched.ids), headers, chunks)
    check_refusal(answered, 413, "body_too_large")
    assert answered.taken <= (0 if declared else target.largest + len(chunks[0]))


@pytest.mark.parametrize("length", ["-1", "+5", "1e3", "five", "", "1, 1"])
def test_a_length_that_is_none(untouched: Standing, length: str) -> None:
    """Servers refuse most of these themselves; nothing may rest on that."""
    headers = [("content-type", "application/json"), ("content-length", length)]
    check_refusal(send(untouched.shop, "POST", "/v1/transactions", headers, [b"{}"]), 400, "content_length_invalid")


def test_a_length_beyond_all_bounds(untouched: Standing) -> None:
    headers = [("content-type", "application/json"), ("content-length", "9" * 5000)]
    check_refusal(send(untouched.shop, "POST", "/v1/transactions", headers, [b"{}"]), 413, "body_too_large")


def test_a_body_of_exactly_the_limit_is_read(untouched: Standing) -> None:
    """The limit is 64 KiB, not one byte less: the fault found is the form, one byte more is too large."""
    target = TARGETS["purchase"]
    check_refusal(untouched.send(target, b"{" + b" " * (target.largest - 2) + b"}"), 422, "invalid_request")
    check_refusal(untouched.send(target, b"{" + b" " * (target.largest - 1) + b"}"), 413, "body_too_large")


# --- single fields --------------------------------------------------------------------------------------------------


FIELDS: dict[str, tuple[str, list[Any]]] = {
    "quantity": (
        "/lines/0/quantity",
        [
            *["1E+1000000", "1e5", "NaN", "Infinity", "sNaN", "", " 1", "1 ", "1.", ".5", "+1", "1_0", "0x1", "1,5"],
            *["1" * 13, "1.0000000", "\u0661", "1\n", "--1", 1, 1.5],
        ],
    ),
    "occurred_at": (
        "/occurred_at",
        [
            *["2026-11-22", "2026-11-22T06:00:00", "2026-13-22T06:00:00Z", "2026-02-30T06:00:00Z", "now", ""],
            *["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-22T06:00:00+99:00", "T" * 41],
            *["2026-11-22T06:00:00+05:30:15", "2026-11-22T06:00:00+05:30:15.000001", "2026-11-22T06:00:00+0530"],
            *["20261122T060000Z", "2026-W47-7T06:00:00Z", "2026-11-22T06Z", "2026-11-22 06:00:00Z", 1795345200, None],
        ],
    ),
    "currency": ("/currency", ["usd", "US", "USDX", "", "\u0421\u0423\u0410", "U\x00D", 1]),
    "source": ("/source", ["", "a b", "a/b", "x" * 65, "\u00e9", "a\n", "a\x00"]),
    "external_id": ("/external_id", ["", "a b", "x" * 129, "\u00e9", "a\n", "\x00"]),
    "product": ("/lines/0/product", ["", "x" * 201, "a\x00b", "a\nb", "\x7f", None]),
    "line number": ("/lines/0/line", [0, -1, 10_000, True, "1", 1.0]),
    "tender": ("/tenders/0/type", ["", "Cash", "x" * 33, "a-b", "\u00e9"]),
    "lines": ("/lines", [[], {}, None, [None], [_SHORT_LINE] * 1001]),
    "member": (
        "/member",
        [{}, {"card": "1", "phone": "2"}, {"id": "900"}, {"id": "x" * 36}, {"card": "x" * 129}, "900"],
    ),
    "type": ("/type", ["refund", "PURCHASE", "", None, 1]),
    "total": ("/total", [LARGEST + 1, -LARGEST - 1, "1000", 1000.0, True, None]),
}
"""Bad values by field of a purchase: a pointer, and what must not pass there."""


def _changed(body: dict[str, Any], pointer: str, value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(body))
    *steps, last = pointer.split("/")[1:]
    inner: Any = copy
    for step in steps:
        inner = inner[int(step) if isinstance(inner, list) else step]
    inner[last] = value
    return copy


BAD_FIELDS = [
    pytest.param(pointer, value, id=f"{name}-{position}")
    for name, (pointer, values) in FIELDS.items()
    for position, value in enumerate(values)
]


@pytest.mark.parametrize(("pointer", "value"), BAD_FIELDS)
def test_a_bad_field_is_named(untouched: Standing, pointer: str, value: Any) -> None:
    """The finding points at the field, or at something inside it."""
    body = json.dumps(_changed(purchase(), pointer, value)).encode()
    answered = untouched.send(TARGETS["purchase"], body)
    assert (answered.status, answered.json()["code"]) == (422, "invalid_request"), answered.body
    assert all(error["pointer"].startswith(f"#{pointer}") for error in answered.json()["errors"]), answered.body


def test_a_bad_item_leaves_its_neighbours_alone(shop: Shop) -> None:
    """Every bad field above in one batch, each between two good purchases: the good ones are recorded, and each bad
    one is refused just as if it had been posted alone."""
    cases = [(case.values[0], case.values[1]) for case in BAD_FIELDS if case.values[0] != "/lines"]
    bad = [_changed(purchase(f"bad-{n}"), cast("str", pointer), value) for n, (pointer, value) in enumerate(cases)]
    bad += [json.loads(TARGETS["purchase"].document(value)) for value in NOT_OF_THE_FORM.values()]
    bad += [purchase() | {"unknown": CANARY}, purchase() | {"\x00": CANARY}, cast("Any", CANARY), cast("Any", None)]
    items = [item for n, item in enumerate(bad) for item in (purchase(f"good-{n}"), item)]
    results = shop.batch(items)
    assert [result["status"] for result in results] == [201, 422] * len(bad)
    assert CANARY not in json.dumps(results[1::2])
    for position, item in enumerate(bad):
        if isinstance(item, dict):
            alone, inside = shop.post(item).json(), results[2 * position + 1]["problem"]
            prefix = f"#/transactions/{2 * position + 1}"
            expected = [e | {"pointer": e["pointer"].replace("#", prefix, 1)} for e in alone["errors"]]
            assert (inside["code"], inside["errors"]) == (alone["code"], expected)
    assert row_counts(shop)["transaction"] == len(bad)
    shop.prove()


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
def test_a_batch_that_is_not_json_records_none_of_it(untouched: Standing, value: str | bytes) -> None:
    """There are no items before the document can be read."""
    good, bad = json.dumps(purchase("good")).encode(), TARGETS["purchase"].document(value)
    body = b'{"transactions": [' + good + b", " + bad + b"]}"
    check_refusal(untouched.send(TARGETS["batch"], body), 400, "invalid_json")


def test_a_batch_has_at_most_500_items(untouched: Standing) -> None:
    items = [purchase(str(number)) for number in range(501)]
    body = json.dumps({"transactions": items}).encode()
    check_refusal(untouched.send(TARGETS["batch"], body), 422, "invalid_request")
    check_refusal(untouched.send(TARGETS["batch"], b'{"transactions": []}'), 422, "invalid_request")


INSTANTS = ["+00:00", "Z", "-05:00", "+14:00", "-12:00", "+23:59", ".1Z", ".123456-05:00", ".123456789+05:30"]


def test_any_instant_of_rfc_3339_is_taken(shop: Shop) -> None:
    """Whatever passes at the wire must pass both databases too."""
    for number, ending in enumerate(INSTANTS):
        body = purchase(str(number), occurred_at=f"2026-11-20T12:00:00{ending}")
        assert shop.post(body).status_code == 201, ending
    shop.prove()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/programs", {"code": "x", "name": "y", "accounts": {CANARY: "1"}}),
        ("/v1/programs", {"code": "x", "name": "y", "accounts": {"cash": CANARY * 9}}),
        ("/v1/programs", {"code": CANARY + "_", "name": "y"}),
        ("/v1/members", {"identifiers": [{"kind": CANARY, "value": "1"}]}),
        ("/v1/members", {"identifiers": [{"kind": "card", "value": f"{CANARY}!"}]}),
        ("/v1/members", {"identifiers": [{"kind": "phone", "value": CANARY}]}),
        ("/v1/members", {"identifiers": [{"kind": "email", "value": CANARY}]}),
        ("/v1/members", {"identifiers": [{"kind": "card", "value": "1"}], "profile": {"language": CANARY}}),
        ("/v1/transactions", purchase(type=CANARY)),
        ("/v1/transactions", purchase(occurred_at=CANARY)),
        ("/v1/transactions", purchase(currency=CANARY)),
        ("/v1/transactions", purchase(member={"id": CANARY})),
        ("/v1/transactions", purchase(member={"card": f"{CANARY}!"})),
        ("/v1/transactions", purchase(source=f"{CANARY} ")),
        ("/v1/transactions", purchase(tenders=[{"type": CANARY, "amount": 1000}])),
        ("/v1/programs/{program}/terms", TERMS | {"time_zone": CANARY}),
        ("/v1/programs/{program}/terms", TERMS | {"currency": CANARY}),
        ("/v1/programs/{program}/terms", TERMS | {"enrolment": {"phone_region": CANARY}}),
        ("/v1/programs/{program}/terms", TERMS | {"allocation": {"method": CANARY}}),
    ],
)
def test_a_wrong_value_is_not_echoed(standing: Standing, path: str, body: dict[str, Any]) -> None:
    """It may be a card number in the wrong field, and refusals end up in tickets and logs."""
    http = standing.shop.client("operator" if path == "/v1/programs" else "staff")
    answered = http.post(path.format(**standing.ids), json=body, headers={"Idempotency-Key": uuid4().hex})
    assert answered.status_code == 422, answered.text
    assert CANARY not in answered.text


# --- paths, queries, headers ----------------------------------------------------------------------------------------


LONG = "a" * 10_000

ADDRESSES: dict[str, tuple[str, int, str]] = {
    "source: NUL": ("/v1/transactions/a%00/1", 422, "invalid_request"),
    "source: surrogate": ("/v1/transactions/%ED%A0%80/1", 422, "invalid_request"),
    "source: 65": (f"/v1/transactions/{'a' * 65}/1", 422, "invalid_request"),
    "source: long": (f"/v1/transactions/{LONG}/1", 422, "invalid_request"),
    "external_id: NUL": ("/v1/transactions/store-1/%00", 422, "invalid_request"),
    "external_id: surrogate": ("/v1/transactions/store-1/%ED%A0%80", 422, "invalid_request"),
    "external_id: newline": ("/v1/transactions/store-1/kn%0Aown", 404, "not_found"),
    "external_id: 129": (f"/v1/transactions/store-1/{'a' * 129}", 422, "invalid_request"),
    "external_id: long": (f"/v1/transactions/store-1/{LONG}", 422, "invalid_request"),
    "external_id: slashes": ("/v1/transactions/store-1/a/../b", 404, "not_found"),
    "kind: unknown": ("/v1/transactions/store-1/known?kind=refund", 422, "invalid_request"),
    "kind: NUL": ("/v1/transactions/store-1/known?kind=%00", 422, "invalid_request"),
    "card: NUL": ("/v1/members/lookup?card=9%0000", 422, "invalid_request"),
    "card: newline": ("/v1/members/lookup?card=900%0A", 422, "invalid_request"),
    "card: surrogate": ("/v1/members/lookup?card=%ED%A0%80", 422, "identifier_invalid"),
    "card: 129": (f"/v1/members/lookup?card={'a' * 129}", 422, "invalid_request"),
    "card: 65": (f"/v1/members/lookup?card={'a' * 65}", 422, "identifier_invalid"),
    "card: long": (f"/v1/members/lookup?card={LONG}", 422, "invalid_request"),
    "card: empty": ("/v1/members/lookup?card=", 422, "invalid_request"),
    "partner: surrogate": ("/v1/members/lookup?partner=%ED%A0%80", 404, "not_found"),
    "partner: only spaces": ("/v1/members/lookup?partner=%20%20", 422, "identifier_invalid"),
    "phone: surrogate": ("/v1/members/lookup?phone=%2B1%ED%A0%80", 422, "identifier_invalid"),
    "e-mail: surrogate": ("/v1/members/lookup?email=a@%ED%A0%80.com", 422, "identifier_invalid"),
    "identifiers: none": ("/v1/members/lookup", 422, "invalid_request"),
    "identifiers: two": ("/v1/members/lookup?card=900&partner=1", 422, "invalid_request"),
    "member: no UUID": ("/v1/members/900", 422, "invalid_request"),
    "member: NUL": ("/v1/members/%00", 422, "invalid_request"),
    "member: long": (f"/v1/members/{LONG}", 422, "invalid_request"),
    "member: unknown": (f"/v1/members/{'0' * 32}", 404, "not_found"),
    "cursor: NUL": ("/v1/members/{member}/entries?cursor=%00", 400, "cursor_invalid"),
    "cursor: surrogate": ("/v1/members/{member}/entries?cursor=%ED%A0%80", 400, "cursor_invalid"),
    "cursor: words": ("/v1/members/{member}/entries?cursor=next", 400, "cursor_invalid"),
    "cursor: empty": ("/v1/members/{member}/entries?cursor=", 400, "cursor_invalid"),
    "cursor: long": (f"/v1/members/{{member}}/entries?cursor={LONG}", 422, "invalid_request"),
    "cursor: [0]": ("/v1/members/{member}/entries?cursor=WzBd", 400, "cursor_invalid"),
    "cursor: [2^63]": ("/v1/members/{member}/entries?cursor=WzkyMjMzNzIwMzY4NTQ3NzU4MDhd", 400, "cursor_invalid"),
    "cursor: [NaN]": ("/v1/members/{member}/entries?cursor=W05hTl0", 400, "cursor_invalid"),
    "cursor: [[[": (f"/v1/members/{{member}}/entries?cursor={'W1tb' * 90}", 400, "cursor_invalid"),
    "cursor: {}": ("/v1/members/{member}/lots?cursor=e30", 400, "cursor_invalid"),
    "cursor: of another list": ("/v1/members/{member}/lots?cursor=WzFd", 400, "cursor_invalid"),
    "limit: 10^30": (f"/v1/members/{{member}}/lots?limit={10**30}", 422, "invalid_request"),
    "limit: 5,000 digits": (f"/v1/members/{{member}}/lots?limit={'9' * 5000}", 422, "invalid_request"),
    "limit: 0": ("/v1/accounting/journal?limit=0", 422, "invalid_request"),
    "limit: -1": ("/v1/accounting/journal?limit=-1", 422, "invalid_request"),
    "limit: NaN": ("/v1/accounting/journal?limit=NaN", 422, "invalid_request"),
    "period: 0000-13": ("/v1/accounting/journal?period_from=0000-13", 422, "invalid_request"),
    "period: 0000-01": ("/v1/accounting/journal?period_to=0000-01", 422, "invalid_request"),
    "period: 2026-00": ("/v1/accounting/trial-balance?period_to=2026-00", 422, "invalid_request"),
    "period: other digits": (
        "/v1/accounting/trial-balance?period_to=%D9%A2%D9%A0%D9%A2%D9%A6-11",
        422,
        "invalid_request",
    ),
    "period: NUL": ("/v1/accounting/trial-balance?period_to=2026-11%00", 422, "invalid_request"),
    "account: NUL": ("/v1/accounting/journal?account=%00", 422, "invalid_request"),
    "account: long": (f"/v1/accounting/journal?account={LONG}", 422, "invalid_request"),
    "cause: unknown": ("/v1/accounting/journal?cause=theft", 422, "invalid_request"),
    "document: no UUID": ("/v1/accounting/journal?document_id=1", 422, "invalid_request"),
    "version: -1": ("/v1/programs/{program}/terms/-1", 404, "not_found"),
    "version: 10^30": (f"/v1/programs/{{program}}/terms/{10**30}", 404, "not_found"),
    "version: 5,000 digits": (f"/v1/programs/{{program}}/terms/{'9' * 5000}", 422, "invalid_request"),
    "version: 1.5": ("/v1/programs/{program}/terms/1.5", 422, "invalid_request"),
    "problem: NUL": ("/problems/%00", 422, "invalid_request"),
    "problem: long": (f"/problems/{LONG}", 422, "invalid_request"),
    "no such path": ("/v1/%00/%ED%A0%80", 404, "not_found"),
    "no such path, long": (f"/{LONG}", 404, "not_found"),
}


@pytest.mark.parametrize(("address", "status", "code"), ADDRESSES.values(), ids=ADDRESSES)
def test_bad_addresses(untouched: Standing, address: str, status: int, code: str) -> None:
    target = address.format(**untouched.ids) + ("&" if "?" in address else "?") + f"ignored={CANARY}"
    check_refusal(send(untouched.shop, "GET", target), status, code)


@pytest.mark.parametrize(
    ("kind", "value", "status", "code"),
    [
        ("card", "%00", 422, "invalid_request"),
        ("card", "%ED%A0%80", 422, "identifier_invalid"),
        ("card", LONG, 422, "invalid_request"),
        ("id", "900", 422, "invalid_request"),
        ("%00", "900", 422, "invalid_request"),
        ("partner", "nobody", 404, "not_found"),
    ],
)
def test_bad_identifiers_to_remove(untouched: Standing, kind: str, value: str, status: int, code: str) -> None:
    target = f"/v1/members/{untouched.ids['member']}/identifiers/{kind}/{value}"
    check_refusal(send(untouched.shop, "DELETE", target), status, code)


HUGE = "9" * 100_000

HEADERS: dict[str, tuple[str, str, int, str]] = {
    "Idempotency-Key: huge": ("idempotency-key", HUGE, 400, "idempotency_key_invalid"),
    "Idempotency-Key: empty": ("idempotency-key", "", 400, "idempotency_key_invalid"),
    "Idempotency-Key: latin-1": ("idempotency-key", "\xe9", 400, "idempotency_key_invalid"),
    "Idempotency-Key: tab": ("idempotency-key", "a\tb", 400, "idempotency_key_invalid"),
    "If-Match: huge": ("if-match", HUGE, 412, "precondition_failed"),
    "If-Match: superscript": ("if-match", "\xb2", 412, "precondition_failed"),
    "If-Match: star": ("if-match", "*", 412, "precondition_failed"),
    "If-Match: empty": ("if-match", "", 412, "precondition_failed"),
    "Authorization: huge": ("authorization", f"Bearer {HUGE}", 401, "unauthenticated"),
    "Authorization: latin-1": ("authorization", "Bearer \xe9", 401, "unauthenticated"),
    "Authorization: empty": ("authorization", "", 401, "unauthenticated"),
    "Authorization: other scheme": ("authorization", "Basic OTAwOjkwMA==", 401, "unauthenticated"),
    "Content-Type: huge": ("content-type", HUGE, 415, "unsupported_media_type"),
    "X-Request-Id: huge": ("x-request-id", HUGE, 400, "idempotency_key_missing"),
    "traceparent: huge": ("traceparent", HUGE, 400, "idempotency_key_missing"),
}


@pytest.mark.parametrize(("name", "value", "status", "code"), HEADERS.values(), ids=HEADERS)
def test_bad_headers(untouched: Standing, name: str, value: str, status: int, code: str) -> None:
    """Each on a request that would pass without it, or with it would be refused for another reason."""
    path, method = (
        ("/v1/members", "POST") if name != "if-match" else (f"/v1/members/{untouched.ids['member']}", "PATCH")
    )
    body = b'{"identifiers": [{"kind": "card", "value": "77"}]}' if method == "POST" else b"{}"
    headers = [(n.encode(), v.encode("latin-1")) for n, v in {"content-type": "application/json", name: value}.items()]
    answered = untouched.shop.client("staff").request(method, path, content=body, headers=headers)
    check_refusal(answered, status, code)
    assert HUGE[:1000] not in str(answered.headers)


@given(st.sampled_from(["card", "phone", "email", "partner"]), st.text(max_size=128), st.sampled_from([None, "US"]))
@settings(max_examples=400, derandomize=True, deadline=None)
def test_an_identifier_has_one_spelling(kind: str, value: str, region: str | None) -> None:
    """Any text is refused or normalised, and a normalised one stays as it is: else it could not be found again."""
    try:
        once = normalise(kind, value, region)
    except IdentifierInvalid:
        return
    assert normalise(kind, once.value, region) == once


# --- requests nobody thought of -------------------------------------------------------------------------------------

_CHECKS = [
    not_a_server_error,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.status_code_conformance,
]

_APP = create_app(settings_for("sqlite:///unused.db"))
_OPERATIONS = [(method.upper(), path) for path, item in _APP.openapi()["paths"].items() for method in item]


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """A shop to send anything to, and real values for parameters: guessed ones would only ever be answered 404."""

    shop: Shop
    path: dict[str, Any]
    token: str
    """The member's."""

    def key(self, method: str, path: str) -> str:
        """Whoever may call a route."""
        if f"{path}/".startswith("/v1/me/"):
            return self.token
        return self.shop.keys["operator" if (method, path) == ("POST", "/v1/programs") else "staff"]

    def headers(self) -> dict[str, str]:
        return {"Idempotency-Key": uuid4().hex, "If-Match": '"1"'}


@pytest.fixture(scope="module", params=ENGINES)
def fuzzed(engines: Engines, request: pytest.FixtureRequest) -> Iterator[Fuzzed]:
    with open_shop(settings_for(engines.fresh(request.param)), TestClock()) as shop:
        member = shop.post(purchase("known")).json()["member"]["id"]
        guest = shop.post(purchase("guest", member=None)).json()["id"]
        known = {"source": "store-1", "external_id": "known", "code": "busy", "kind": "card", "value": "900"}
        ids = {"member_id": member, "transaction_id": guest, "program_id": str(shop.program_id), "version": 1}
        token = shop.http.post("/v1/oauth/token", json={"member": {"id": member}}).json()["access_token"]
        yield Fuzzed(shop, known | ids | one_of_each(shop, member), token)


_TIERS = {"levels": [{"code": "gold", "name": "Gold", "qualification": {"spend": 1_000_000}}]}
_CARD = {"code": "ten", "name": "Ten", "stamps": 10, "head_start": 2, "points_per_stamp": 5}
_GIFT = {"kind": "manual", "tier": "gold", "until": "2030-01-01T00:00:00Z", "reason": "complaint"}


_CLUBS = [
    {"code": "busy", "name": "Busy", "joining": {"type": "fee", "fee": 1000, "months": 12, "welcome_points": 5}},
]


def one_of_each(shop: Shop, member: str) -> dict[str, Any]:
    """What the parameters of paths name, made for a member who has points."""
    terms = f"/v1/programs/{shop.program_id}/terms"
    rich = TERMS | {"transfers": {}, "pools": {}, "tiers": _TIERS, "clubs": _CLUBS, "stamp_cards": [_CARD]}
    version = made(shop, terms, rich)["version"]
    made(shop, f"{terms}/{version}/publish", {})
    shop.clock.forward(minutes=1)
    for number, card in enumerate(("900", "901")):
        shop.post(purchase(f"rich-{number}", 100_000, member={"card": card}))
    me, reward = {"member": {"id": member}}, {"code": "mug", "name": "Mug", "points": 5, "currency": "USD"}
    pool = made(shop, "/v1/pools", {"name": "household"})["id"]
    made(shop, f"/v1/pools/{pool}/members", me)
    return {
        "other": version,
        "pool_id": pool,
        "reward_id": made(shop, "/v1/rewards", reward | {"supplier": {"type": "own", "cost": 1}})["id"],
        "redemption_id": made(shop, "/v1/redemptions", me | {"reward": {"code": "mug"}})["id"],
        "hold_id": made(shop, "/v1/holds", me | {"points": 5})["id"],
        "transfer_id": made(shop, "/v1/transfers", {"from": {"id": member}, "to": {"card": "901"}, "points": 5})["id"],
        "adjustment_id": made(shop, "/v1/adjustments", me | {"points": 2000, "class": "goodwill", "reason": "storm"})[
            "id"
        ],
        "decision_id": made(shop, f"/v1/members/{member}/tier/decisions", _GIFT)["id"],
        "lot_id": shop.get(f"/v1/members/{member}/lots")["items"][0]["id"],
        "month": "2026-11",
    }


def made(shop: Shop, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = shop.http.post(path, json=body, headers={"Idempotency-Key": uuid4().hex})
    assert answer.is_success, answer.text
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize(("method", "path"), _OPERATIONS, ids=[f"{method} {path}" for method, path in _OPERATIONS])
def test_answers_are_as_described(fuzzed: Fuzzed, method: str, path: str) -> None:
    """Requests made from the description, good and bad ones: never a 5xx, and every answer is one it announces."""
    shop = fuzzed.shop
    operation = schemathesis.openapi.from_asgi("/openapi.json", shop.app)[path][method]
    key = fuzzed.key(method, path)
    limits = settings(
        max_examples=6,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    def ask(case: schemathesis.Case[Any]) -> None:
        response = case.call(headers={"Authorization": f"Bearer {key}"})
        case.validate_response(response, checks=_CHECKS)

    @given(case=operation.as_strategy())
    @limits
    def ask_as_described(case: schemathesis.Case[Any]) -> None:
        wanted = case.path_parameters or {}
        case.path_parameters = {name: fuzzed.path[name] for name in wanted}
        case.headers.update(fuzzed.headers())
        ask(case)

    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @limits
    def ask_otherwise(case: schemathesis.Case[Any]) -> None:
        ask(case)

    ask_as_described()
    if operation.definition.raw.get("parameters") or "requestBody" in operation.definition.raw:
        ask_otherwise()  # there is no wrong way to ask for /livez
    shop.prove()
