"""Anything may be sent again. One test per row of the table of situations, then what happens while it still runs."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import clients, db
from app.clients.models import ApiKey
from app.idempotency import IdempotencyRecord
from app.ids import new_id
from app.members import service as members
from app.members.models import Member
from app.transactions import service
from app.transactions.models import Transaction
from app.transactions.schemas import PurchaseIn, purchase_of
from app.worker import run_jobs
from tests.conftest import Engines, settings_for
from tests.shop import PEPPER, TERMS, Shop, TestClock, make_key, make_program, open_shop, purchase

KEY = {"Idempotency-Key": "a-key"}
JSON = {"Content-Type": "application/json"}
NO_AUTOMATIC = TERMS | {"enrolment": {"automatic": False}}

Given = tuple[int, bytes, str]
"""Status, bytes, and whether it was said to be a replay."""


def given(response: Any) -> Given:
    return response.status_code, response.content, response.headers.get("Idempotent-Replayed", "false")


def refusal(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def member_body(card: str = "900", **changes: Any) -> dict[str, Any]:
    return {"identifiers": [{"kind": "card", "value": card}]} | changes


def rows(shop: Shop, table: type[db.Base]) -> int:
    count = select(func.count()).select_from(table)
    return shop.database.read(lambda session: session.execute(count).scalar_one())


def keyed(shop: Shop, body: dict[str, Any], key: str = "a-key") -> Any:
    """Posts a purchase under an `Idempotency-Key`."""
    return shop.http.post("/v1/transactions", json=body, headers={"Idempotency-Key": key})


@pytest.fixture
def by_invitation(database_url: str, clock: TestClock) -> Iterator[Shop]:
    """A shop that enrols nobody by a purchase."""
    with open_shop(settings_for(database_url), clock, NO_AUTOMATIC) as shop:
        yield shop


# --- missing or malformed: 400, not kept ----------------------------------------------------------------------------


def test_missing_where_required(shop: Shop) -> None:
    response = shop.http.post("/v1/members", json=member_body())
    assert refusal(response) == (400, "idempotency_key_missing")
    assert (rows(shop, Member), rows(shop, IdempotencyRecord)) == (0, 0)


def test_malformed(shop: Shop) -> None:
    for key in ("", " ", "a b", "a\tb", "x" * 256, "\xe9", "\x7f"):
        headers = {b"Idempotency-Key": key.encode("latin-1")}
        response = shop.http.post("/v1/members", json=member_body(), headers=headers)
        assert refusal(response) == (400, "idempotency_key_invalid"), key
    assert (rows(shop, Member), rows(shop, IdempotencyRecord)) == (0, 0)


def test_every_visible_character_may_be_in_it(shop: Shop) -> None:
    for number, key in enumerate(("x", "x" * 255, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")):
        body, headers = member_body(str(number)), {"Idempotency-Key": key}
        first = shop.http.post("/v1/members", json=body, headers=headers)
        again = shop.http.post("/v1/members", json=body, headers=headers)
        assert given(first) == (201, first.content, "false")
        assert given(again) == (201, first.content, "true")


# --- judged anew: 401, 403, 404, 413, 415, 422 schema ---------------------------------------------------------------


def test_what_never_began_is_not_kept(shop: Shop) -> None:
    """Each of these is refused before anything is carried out; the same key then serves the corrected request."""
    elsewhere = shop.database.write(
        lambda session: make_key(session, "terminal", shop.clock(), shop.program_id, stores=["2"])
    )
    guess = shop.client(shop.keys["staff"].replace("loy_staff", "loy_terminal"))
    claim = "/v1/transactions/0199d3a6-b1f0-7c1e-8a52-000000000000/claim"
    refused = [
        (guess.post("/v1/transactions", json=purchase(), headers=KEY), (401, "unauthenticated")),
        (shop.client("partner").post("/v1/transactions", json=purchase(), headers=KEY), (403, "forbidden")),
        (shop.client(elsewhere).post("/v1/transactions", json=purchase(), headers=KEY), (403, "store_not_allowed")),
        (shop.http.post(claim, json={"member": {"card": "900"}}, headers=KEY), (404, "not_found")),
        (keyed(shop, purchase(store="x" * 70_000)), (413, "body_too_large")),
        (shop.http.post("/v1/transactions", content=b"{}", headers=KEY), (415, "unsupported_media_type")),
        (keyed(shop, purchase() | {"total": "1000"}), (422, "invalid_request")),
        (shop.http.post("/v1/transactions", content=b"{", headers=KEY | JSON), (400, "invalid_json")),
    ]
    for response, expected in refused:
        assert refusal(response) == expected
    assert rows(shop, IdempotencyRecord) == 0
    assert given(keyed(shop, purchase()))[::2] == (201, "false")
    moved = shop.client(elsewhere).post("/v1/transactions", json=purchase("r2", store="2"), headers=KEY)
    assert given(moved)[::2] == (201, "false")
    shop.prove()


# --- an outcome is kept ---------------------------------------------------------------------------------------------


def test_a_success_is_replayed_byte_for_byte(shop: Shop) -> None:
    """Even when the world has moved on: the balance in it is that of the first time."""
    first = keyed(shop, purchase())
    shop.post(purchase("r2"))
    shop.clock.forward(days=20)
    again = keyed(shop, purchase())
    assert given(first) == (201, first.content, "false")
    assert given(again) == (201, first.content, "true")
    assert again.headers["content-type"] == first.headers["content-type"]
    assert rows(shop, Transaction) == 2
    shop.prove()


def test_every_keyed_write_is_replayed(shop: Shop) -> None:
    """Twice the same request, one effect: on each route that takes a key."""
    guest = shop.post(purchase("guest", member=None)).json()["id"]
    member = shop.post(purchase()).json()["member"]["id"]
    program = f"/v1/programs/{shop.program_id}"
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("staff", "/v1/transactions", purchase("r2")),
        ("staff", "/v1/transactions/batch", {"transactions": [purchase("r3"), purchase("r4", total=-1)]}),
        ("staff", f"/v1/transactions/{guest}/claim", {"member": {"card": "900"}}),
        ("staff", "/v1/members", member_body("901")),
        ("staff", f"/v1/members/{member}/identifiers", {"kind": "card", "value": "902"}),
        ("operator", "/v1/programs", {"code": "second", "name": "Second"}),
        ("staff", f"{program}/terms", TERMS),
        ("staff", f"{program}/terms/2/publish", {}),
    ]
    for key, path, body in requests:
        headers = {"Idempotency-Key": path}
        first = shop.client(key).post(path, json=body, headers=headers)
        again = shop.client(key).post(path, json=body, headers=headers)
        assert first.status_code in (200, 201), first.text
        assert given(again) == (first.status_code, first.content, "true"), path
        assert again.headers.get("ETag") == first.headers.get("ETag")
    drafts = shop.get(f"{program}/terms")["items"]
    assert [(draft["version"], draft["status"]) for draft in drafts] == [(1, "published"), (2, "published")]
    shop.prove()


def test_a_business_refusal_is_final(by_invitation: Shop) -> None:
    """Else a late duplicate of a refused purchase could succeed, when the till has long told the customer no."""
    shop = by_invitation
    refused = keyed(shop, purchase())
    assert refusal(refused) == (422, "unknown_member")
    shop.http.post("/v1/members", json=member_body(), headers={"Idempotency-Key": "enrol"})
    assert given(keyed(shop, purchase())) == (422, refused.content, "true")
    assert refused.headers["content-type"] == keyed(shop, purchase()).headers["content-type"]
    assert rows(shop, Transaction) == 0
    shop.prove()


def test_a_purchase_refused_under_its_natural_key_may_come_again(by_invitation: Shop) -> None:
    """The natural key is taken for ever only by a purchase that was recorded."""
    shop = by_invitation
    assert refusal(shop.post(purchase())) == (422, "unknown_member")
    assert refusal(shop.post(purchase())) == (422, "unknown_member")
    shop.http.post("/v1/members", json=member_body(), headers={"Idempotency-Key": "enrol"})
    assert shop.post(purchase()).status_code == 201
    assert keyed(shop, purchase()).json()["duplicate"] is True
    shop.prove()


def test_a_refusal_undoes_what_it_began(shop: Shop) -> None:
    """Of two identifiers one is taken: the other must not stay behind, though the refusal itself is kept."""
    shop.http.post("/v1/members", json=member_body("901"), headers={"Idempotency-Key": "first"})
    two = {"identifiers": [{"kind": "card", "value": "900"}, {"kind": "card", "value": "901"}]}
    for replayed in ("false", "true"):
        response = shop.http.post("/v1/members", json=two, headers=KEY)
        assert refusal(response) == (409, "identifier_taken")
        assert response.headers.get("Idempotent-Replayed", "false") == replayed
    assert rows(shop, Member) == 1
    assert shop.http.get("/v1/members/lookup", params={"card": "900"}).status_code == 404


# --- a crash keeps nothing ------------------------------------------------------------------------------------------


def explode(*_args: object, **_kwargs: object) -> Any:
    raise RuntimeError("a defect")


@pytest.mark.parametrize("where", ["app.ledger.write", "app.accounting.post", "app.outbox.put"])
def test_a_crash_keeps_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """All is rolled back, the key with it, so the retry carries it out."""
    with monkeypatch.context() as broken:
        broken.setattr(where, explode)
        assert refusal(keyed(shop, purchase())) == (500, "internal_error")
    assert [rows(shop, table) for table in (Transaction, Member, IdempotencyRecord)] == [0, 0, 0]
    assert given(keyed(shop, purchase()))[::2] == (201, "false")
    shop.prove()


def test_a_crash_in_a_batch_keeps_nothing_either(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch goes on without the item that failed. Sent again under its key, the item gets its chance."""
    whole = service.record

    def explode_on_r2(session: Session, program_id: UUID, purchases: Any, *rest: Any, **options: Any) -> Any:
        if any(item.external_id == "r2" for item in purchases):
            explode()
        return whole(session, program_id, purchases, *rest, **options)

    body = {"transactions": [purchase("r1"), purchase("r2"), purchase("r3")]}
    with monkeypatch.context() as broken:
        broken.setattr(service, "record", explode_on_r2)
        results = shop.http.post("/v1/transactions/batch", json=body, headers=KEY).json()["results"]
    assert [result["status"] for result in results] == [201, 500, 201]
    results = shop.http.post("/v1/transactions/batch", json=body, headers=KEY).json()["results"]
    assert [result["status"] for result in results] == [200, 201, 200]
    shop.prove()


# --- the same key for something else --------------------------------------------------------------------------------


def test_same_key_other_content(shop: Shop) -> None:
    """Refused without a word about the first: whoever guesses a key learns nothing."""
    first = keyed(shop, purchase(cashier="CANARY"))
    other = keyed(shop, purchase("r2"))
    assert refusal(other) == (422, "idempotency_key_reused")
    assert "CANARY" not in other.text
    assert first.json()["id"] not in other.text
    assert rows(shop, Transaction) == 1
    assert given(keyed(shop, purchase(cashier="CANARY")))[::2] == (201, "true")


def test_same_key_same_body_elsewhere(shop: Shop) -> None:
    """Route and path parameters count as content."""
    members = [shop.post(purchase(card, member={"card": card})).json()["member"]["id"] for card in ("900", "901")]
    body = {"kind": "partner", "value": "p1"}
    assert shop.http.post(f"/v1/members/{members[0]}/identifiers", json=body, headers=KEY).status_code == 200
    other = shop.http.post(f"/v1/members/{members[1]}/identifiers", json=body, headers=KEY)
    assert refusal(other) == (422, "idempotency_key_reused")
    assert refusal(shop.http.post("/v1/transactions", json=purchase(), headers=KEY)) == (422, "idempotency_key_reused")


def test_spelling_is_not_content(shop: Shop) -> None:
    """Order of fields and white space differ between two runs of the same till."""
    backwards = json.dumps(dict(reversed(purchase().items())), indent=3)
    first = keyed(shop, purchase())
    again = shop.http.post("/v1/transactions", content=backwards, headers=KEY | JSON)
    assert given(again) == (201, first.content, "true")


# --- the natural key ------------------------------------------------------------------------------------------------


def test_natural_key_same_content(shop: Shop) -> None:
    """Points, reasons and postings of the first time; the balance of today."""
    first = shop.post(purchase()).json()
    shop.post(purchase("r2", total=5000))
    shop.clock.forward(days=3)
    again = shop.post(purchase())
    assert again.status_code == 200
    body = again.json()
    now = "2026-11-25T12:00:00+00:00"
    assert body == first | {"duplicate": True, "balance": first["balance"] | {"available": 60}, "balance_at": now} | {
        "expiring_next": first["expiring_next"] | {"points": 60}
    }
    assert "Idempotent-Replayed" not in again.headers
    assert rows(shop, Transaction) == 2
    shop.prove()


def test_natural_key_survives_new_terms_and_the_upload_window(shop: Shop) -> None:
    """For ever: neither other terms nor the age of the purchase make a duplicate anything else."""
    first = shop.post(purchase()).json()
    path = f"/v1/programs/{shop.program_id}/terms"
    richer = TERMS | {"earning": {"points": 9, "per": 100}}
    version = shop.http.post(path, json=richer).json()["version"]
    assert shop.http.post(f"{path}/{version}/publish", json={}).status_code == 200
    shop.clock.forward(days=100)
    again = shop.post(purchase())
    assert (again.status_code, again.json()["points"]) == (200, first["points"])


def test_a_retry_under_a_new_key_earns_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A till that numbers its attempts: what failed is carried out by the next, what succeeded is not repeated."""
    with monkeypatch.context() as broken:
        broken.setattr("app.ledger.write", explode)
        assert refusal(keyed(shop, purchase(), "attempt-1")) == (500, "internal_error")
    answers = [keyed(shop, purchase(), f"attempt-{number}") for number in (2, 3, 1)]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert [answer.json()["duplicate"] for answer in answers] == [False, True, True]
    assert answers[-1].json()["balance"]["available"] == 10
    assert rows(shop, Transaction) == 1
    shop.prove()


LINE = purchase()["lines"][0]
SAME = {
    "fields in another order": json.dumps(dict(reversed(purchase().items()))),
    "white space": json.dumps(purchase(), indent=4),
    "escapes": json.dumps(purchase()).replace("store-1", r"\u0073tore-1"),
    "+00:00 for Z": json.dumps(purchase(occurred_at="2026-11-22T11:00:00+00:00")),
    "no fraction": json.dumps(purchase(occurred_at="2026-11-22T11:00:00.000000Z")),
    "defaults given": json.dumps(purchase(lines=[LINE | {"discount": 0, "tax": 0, "category": None}])),
    "nulls given": json.dumps(purchase() | {"channel": None, "cashier": None, "terminal": None}),
}


def test_natural_key_same_content_spelled_otherwise(shop: Shop, subtests: pytest.Subtests) -> None:
    for number, (name, spelled) in enumerate(SAME.items()):
        with subtests.test(name):
            first = purchase() if "-05:00" in spelled else purchase(occurred_at="2026-11-22T11:00:00Z")
            assert shop.post(first | {"external_id": f"r1-{number}"}).status_code == 201
            again = spelled.replace('"r1"', f'"r1-{number}"')
            response = shop.http.post("/v1/transactions", content=again, headers=JSON)
            assert (response.status_code, response.json()["duplicate"]) == (200, True)
    assert rows(shop, Transaction) == len(SAME)


OTHER: list[tuple[dict[str, Any], list[str]]] = [
    ({"store": "2"}, ["#/store"]),
    ({"store": None}, ["#/store"]),
    ({"terminal": "4"}, ["#/terminal"]),
    ({"occurred_at": "2026-11-22T06:00:01-05:00"}, ["#/occurred_at"]),
    ({"total": 900}, ["#/lines/0/amount", "#/tenders/0/amount", "#/total"]),
    ({"lines": [LINE | {"product": "p2"}]}, ["#/lines/0/product"]),
    ({"lines": [LINE | {"amount": 400}, LINE | {"line": 2, "amount": 600}]}, ["#/lines"]),
    ({"member": {"card": "901"}}, ["#/member"]),
    ({"member": None}, ["#/member"]),
    ({"member": {"card": "901"}, "store": "2"}, ["#/store", "#/member"]),
]


def test_natural_key_other_content(shop: Shop, subtests: pytest.Subtests) -> None:
    """The fields that differ are named; what the first one held is not."""
    shop.post(purchase(cashier="CANARY"))
    shop.http.post("/v1/members", json=member_body("901"), headers=KEY)
    for changes, pointers in OTHER:
        with subtests.test(str(pointers)):
            response = shop.post(purchase(cashier="CANARY", **changes))
            assert refusal(response) == (409, "transaction_conflict")
            assert [error["pointer"] for error in response.json()["errors"]] == pointers
            assert "CANARY" not in response.text
    assert rows(shop, Transaction) == 1
    shop.prove()


def test_natural_key_same_member_by_another_identifier(shop: Shop) -> None:
    """Who it is counts, not how they were recognised."""
    member = shop.post(purchase()).json()["member"]["id"]
    shop.http.post(f"/v1/members/{member}/identifiers", json={"kind": "partner", "value": "p1"})
    assert shop.post(purchase(member={"partner": "p1"})).status_code == 200
    assert shop.post(purchase(member={"id": member})).status_code == 200


def test_natural_key_after_the_card_was_lost(shop: Shop) -> None:
    """A late retry still names the old card, which is nobody's by now: it is the same purchase all the same."""
    first = shop.post(purchase()).json()
    path = f"/v1/members/{first['member']['id']}/identifiers"
    shop.http.post(path, json={"kind": "card", "value": "901"})
    assert shop.http.delete(f"{path}/card/900").status_code == 204
    again = shop.post(purchase())
    assert (again.status_code, again.json()["points"], again.json()["balance"]) == (
        200,
        first["points"],
        first["balance"],
    )
    assert rows(shop, Member) == 1, "and it enrols nobody"


def test_the_same_natural_key_elsewhere_is_another_purchase(shop: Shop) -> None:
    """It belongs to a source of a programme."""
    assert shop.post(purchase()).status_code == 201
    assert shop.post(purchase(source="store-2")).status_code == 201

    def second(session: Session) -> str:
        return make_key(session, "staff", shop.clock(), make_program(session, TERMS, shop.clock(), "second"))

    other = shop.client(shop.database.write(second))
    assert other.post("/v1/transactions", json=purchase()).status_code == 201


def test_same_key_twice_in_one_batch(shop: Shop) -> None:
    """The second is a duplicate if it is the same, and refused if it is not."""
    results = shop.batch([purchase(), purchase(), purchase(store="2"), purchase("r2"), purchase()])
    assert [result["status"] for result in results] == [201, 200, 409, 201, 200]
    assert [result["transaction"]["duplicate"] for result in results if result["transaction"]] == [False, True] * 2
    assert results[2]["problem"]["code"] == "transaction_conflict"
    assert [error["pointer"] for error in results[2]["problem"]["errors"]] == ["#/transactions/2/store"]
    assert rows(shop, Transaction) == 2
    shop.prove()


def test_a_dry_run_takes_no_key(shop: Shop) -> None:
    """Neither of them: the purchase itself comes later."""
    response = shop.http.post("/v1/transactions", json=purchase(), params={"dry_run": True}, headers=KEY)
    assert (response.status_code, response.json()["dry_run"]) == (200, True)
    assert (rows(shop, Transaction), rows(shop, IdempotencyRecord)) == (0, 0)
    assert given(keyed(shop, purchase()))[::2] == (201, "false")


# --- whose key it is ------------------------------------------------------------------------------------------------


def test_scope_lost_since(shop: Shop) -> None:
    """Authorised before anything is looked up: what was answered once is not readable without the scope."""
    first = shop.http.post("/v1/members", json=member_body(), headers=KEY)
    public_id = shop.keys["staff"].split("_")[2]
    fewer = sorted(clients.KINDS["staff"] - {"members:write"})

    def take_away(session: Session) -> None:
        session.execute(update(ApiKey).where(ApiKey.public_id == public_id).values(scopes=fewer))

    shop.database.write(take_away)
    again = shop.http.post("/v1/members", json=member_body(), headers=KEY)
    assert refusal(again) == (403, "forbidden")
    assert first.json()["id"] not in again.text


def test_a_key_belongs_to_the_client(shop: Shop) -> None:
    """The API key may have been rotated between the attempts; another client's key of the same name is its own."""
    first = keyed(shop, purchase())
    public_id = shop.keys["staff"].split("_")[2]

    def rotate(session: Session) -> str:
        mine = session.execute(select(ApiKey.client_id).where(ApiKey.public_id == public_id)).scalar_one()
        successor = clients.create_key(session, mine, PEPPER.encode(), shop.clock())
        assert clients.revoke_key(session, public_id, shop.clock())
        return successor.text

    successor = shop.client(shop.database.write(rotate))
    assert keyed(shop, purchase()).status_code == 401
    again = successor.post("/v1/transactions", json=purchase(), headers=KEY)
    assert given(again) == (201, first.content, "true")

    till = shop.client("terminal")
    other = till.post("/v1/transactions", json=purchase("r2"), headers=KEY)
    assert given(other)[::2] == (201, "false")
    assert given(till.post("/v1/transactions", json=purchase("r2"), headers=KEY)) == (201, other.content, "true")
    assert given(successor.post("/v1/transactions", json=purchase(), headers=KEY)) == given(again)


def test_kept_for_30_days(shop: Shop) -> None:
    first = shop.http.post("/v1/members", json=member_body(), headers=KEY)
    shop.clock.forward(days=30)
    run_jobs(shop.database, shop.clock())
    assert given(shop.http.post("/v1/members", json=member_body(), headers=KEY)) == (201, first.content, "true")
    shop.clock.forward(seconds=1)
    assert run_jobs(shop.database, shop.clock())["forget-idempotency-keys"] == 1
    other = shop.http.post("/v1/members", json=member_body("901"), headers=KEY)
    assert given(other)[::2] == (201, "false")


def test_answers_are_forgotten_in_slices_for_a_while_in_each_round(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, no statement deletes more than a slice, and the other jobs have their turn."""

    def keep(session: Session) -> None:
        shared = {"client_id": new_id(), "fingerprint": "", "status": 200, "media_type": "", "body": b""}
        created = [shop.clock() + timedelta(seconds=number // 3) for number in range(130)]  # the same for some
        rows = [{**shared, "key": str(number), "created_at": at} for number, at in enumerate(created)]
        db.insert_rows(session, IdempotencyRecord, rows)

    shop.database.write(keep)
    shop.clock.forward(days=30, seconds=41)
    monkeypatch.setattr("app.worker.jobs.SECONDS_TO_FORGET", 0.0)
    deleted = [run_jobs(shop.database, shop.clock())["forget-idempotency-keys"] for _ in range(4)]
    assert deleted == [50, 50, 23, 0]
    left = select(func.count()).select_from(IdempotencyRecord)
    assert shop.database.read(lambda session: session.execute(left).scalar_one()) == 7


# --- while the first still runs -------------------------------------------------------------------------------------


@contextmanager
def unfinished(shop: Shop, work: Callable[[Session], Any], *, fails: bool = False) -> Iterator[Callable[[], None]]:
    """Another process that has done `work` and not committed; the function given lets it end, one way or the other."""
    done, go_on = threading.Event(), threading.Event()

    def hold(session: Session) -> None:
        work(session)
        done.set()
        assert go_on.wait(20)
        if fails:
            explode()

    def run() -> None:
        try:
            shop.database.write(hold)
        except RuntimeError:
            assert fails

    thread = threading.Thread(target=run)
    thread.start()

    def end() -> None:
        go_on.set()
        thread.join()

    try:
        assert done.wait(10)
        yield end
    finally:
        end()


@contextmanager
def impatient_shop(engines: Engines, engine: str = "postgresql", milliseconds: int = 100) -> Iterator[Shop]:
    """A shop that does not wait long for a lock."""
    with open_shop(settings_for(engines.fresh(engine), lock_timeout_ms=milliseconds), TestClock()) as shop:
        yield shop


def recording(shop: Shop, body: dict[str, Any]) -> Callable[[Session], Any]:
    """What another process does with the same purchase."""
    asked = purchase_of(PurchaseIn.model_validate(body))
    return lambda session: service.record(session, shop.program_id, [asked], shop.clock())


@contextmanager
def enrolment_unfinished(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """A request to enrol card 900 that has claimed `KEY` and not committed; the function given lets it answer."""
    enrol = members.enrol
    done, go_on = threading.Event(), threading.Event()
    answers: list[Any] = []

    def hold(*arguments: Any, **options: Any) -> Any:
        member_id = enrol(*arguments, **options)
        done.set()
        assert go_on.wait(20)
        return member_id

    def run() -> None:
        answers.append(shop.client("staff").post("/v1/members", json=member_body(), headers=KEY))

    with monkeypatch.context() as held:
        held.setattr(members, "enrol", hold)
        thread = threading.Thread(target=run)
        thread.start()
        assert done.wait(10)

    def end() -> Any:
        go_on.set()
        thread.join()
        return answers[0]

    try:
        yield end
    finally:
        end()


@pytest.mark.parametrize(
    ("engine", "expected"),
    [("postgresql", (409, "idempotency_in_progress")), ("sqlite", (503, "busy"))],
    ids=["postgresql", "sqlite"],
)
def test_duplicate_of_a_purchase_that_still_runs(engines: Engines, engine: str, expected: tuple[int, str]) -> None:
    """Waits for a moment, then says so. SQLite has one writer at a time, so it cannot tell who is in the way."""
    with impatient_shop(engines, engine) as shop:
        with unfinished(shop, recording(shop, purchase())) as end:
            response = shop.post(purchase())
            assert refusal(response) == expected
            assert response.headers["Retry-After"] == "1"
            end()
        again = shop.post(purchase())
        assert (again.status_code, again.json()["duplicate"]) == (200, True)
        assert rows(shop, Transaction) == 1
        shop.prove()


def test_duplicate_of_a_keyed_write_that_still_runs(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    with impatient_shop(engines) as shop:
        with enrolment_unfinished(shop, monkeypatch) as end:
            response = shop.http.post("/v1/members", json=member_body(), headers=KEY)
            assert refusal(response) == (409, "idempotency_in_progress")
            assert response.headers["Retry-After"] == "1"
            first = end()
        again = shop.http.post("/v1/members", json=member_body(), headers=KEY)
        assert (given(first)[::2], given(again)) == ((201, "false"), (201, first.content, "true"))
        assert rows(shop, Member) == 1


@pytest.mark.parametrize("fails", [True, False], ids=["crashes", "commits"])
def test_a_patient_duplicate_gets_the_outcome(engines: Engines, fails: bool) -> None:
    """Whoever waits within the time gets the first one's outcome; if that crashed, the purchase is theirs."""
    with impatient_shop(engines, milliseconds=10_000) as shop:
        answers: list[Any] = []
        with unfinished(shop, recording(shop, purchase()), fails=fails) as end:
            second = threading.Thread(target=lambda: answers.append(shop.post(purchase())))
            second.start()
            wait_until_blocked(shop)
            end()
            second.join()
        assert answers[0].status_code == (201 if fails else 200), answers[0].text
        assert rows(shop, Transaction) == 1
        shop.prove()


def wait_until_blocked(shop: Shop) -> None:
    """Until some statement waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type='Lock'"
    )
    deadline = time.monotonic() + 10
    while not shop.database.read(lambda session: session.execute(waiting).scalar_one()):
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.01)


def test_in_a_batch_only_the_blocked_item_is_refused(engines: Engines) -> None:
    """Its neighbours are recorded; sent again, the batch has nothing left to do."""
    blocked = purchase("r2", member={"card": "901"})
    body = {"transactions": [purchase("r1"), blocked, purchase("r3", total=-1), purchase("r4")]}
    with impatient_shop(engines) as shop:
        with unfinished(shop, recording(shop, blocked)) as end:
            results = shop.http.post("/v1/transactions/batch", json=body).json()["results"]
            assert [result["status"] for result in results] == [201, 409, 422, 201]
            assert results[1]["problem"]["code"] == "idempotency_in_progress"
            end()
        results = shop.http.post("/v1/transactions/batch", json=body).json()["results"]
        assert [result["status"] for result in results] == [200, 200, 422, 200]
        shop.prove()


def test_a_blocked_item_is_not_kept_under_the_batch_s_key(engines: Engines) -> None:
    """ "Try again in a moment" must not be the answer for the next 30 days."""
    blocked = purchase("r2", member={"card": "901"})
    body = {"transactions": [purchase("r1"), blocked]}
    with impatient_shop(engines) as shop:
        with unfinished(shop, recording(shop, blocked)) as end:
            results = shop.http.post("/v1/transactions/batch", json=body, headers=KEY).json()["results"]
            assert [result["status"] for result in results] == [201, 409]
            end()
        results = shop.http.post("/v1/transactions/batch", json=body, headers=KEY).json()["results"]
        assert [result["status"] for result in results] == [200, 200]


def test_a_batch_whose_key_is_in_use_writes_nothing(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key may turn out to belong to another request: then the batch is refused, and nothing of it may be there."""
    body = {"transactions": [purchase("r1", member={"card": "901"})]}
    with impatient_shop(engines) as shop:
        with enrolment_unfinished(shop, monkeypatch) as end:
            response = shop.http.post("/v1/transactions/batch", json=body, headers=KEY)
            assert refusal(response) == (409, "idempotency_in_progress")
            end()
        response = shop.http.post("/v1/transactions/batch", json=body, headers=KEY)
        assert refusal(response) == (422, "idempotency_key_reused")
        assert rows(shop, Transaction) == 0


# --- a commit that is refused ---------------------------------------------------------------------------------------


@contextmanager
def transactions_lost(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Writes keys but no transactions; the deferred foreign key between them is checked at the commit, not before."""
    insert = db.insert_rows

    def forgetful(session: Session, model: type[db.Base], rows: Any) -> None:
        if model is not Transaction:
            insert(session, model, rows)

    with monkeypatch.context() as broken:
        broken.setattr(db, "insert_rows", forgetful)
        yield


@contextmanager
def commits_refused(database: db.Database, external_id: str = "%") -> Iterator[None]:
    """PostgreSQL refuses transactions with such ids, at the commit."""
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF NEW.external_id LIKE '{external_id}' THEN RAISE EXCEPTION 'refused at the commit'; END IF; "
                "RETURN NULL; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON transaction DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    yield
    with database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER refused ON transaction"))


def check_nothing_was_written(shop: Shop) -> None:
    assert [rows(shop, table) for table in (Transaction, Member, IdempotencyRecord)] == [0, 0, 0]
    shop.prove()


@pytest.mark.parametrize("headers", [{}, KEY], ids=["natural key", "both keys"])
def test_a_commit_that_fails_a_foreign_key(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """Everything had gone well but the commit: that is a 500, never a 2xx."""
    with transactions_lost(monkeypatch):
        response = shop.http.post("/v1/transactions", json=purchase(), headers=headers)
    assert refusal(response) == (500, "internal_error")
    check_nothing_was_written(shop)
    response = shop.http.post("/v1/transactions", json=purchase(), headers=headers)
    assert given(response)[::2] == (201, "false")


@pytest.mark.parametrize("headers", [{}, KEY], ids=["natural key", "both keys"])
def test_a_commit_that_a_trigger_refuses(engines: Engines, headers: dict[str, str]) -> None:
    with open_shop(settings_for(engines.fresh("postgresql")), TestClock()) as shop:
        with commits_refused(shop.database):
            response = shop.http.post("/v1/transactions", json=purchase(), headers=headers)
            assert refusal(response) == (500, "internal_error")
            check_nothing_was_written(shop)
        response = shop.http.post("/v1/transactions", json=purchase(), headers=headers)
        assert given(response)[::2] == (201, "false")
        shop.prove()


def test_a_batch_whose_commit_is_refused_goes_on_item_by_item(engines: Engines) -> None:
    body = [purchase("r1"), purchase("bad"), purchase("r3")]
    with open_shop(settings_for(engines.fresh("postgresql")), TestClock()) as shop:
        with commits_refused(shop.database, "bad"):
            results = shop.batch(body)
            assert [result["status"] for result in results] == [201, 500, 201]
            assert rows(shop, Transaction) == 2
        assert [result["status"] for result in shop.batch(body)] == [200, 201, 200]
        shop.prove()


def test_a_commit_that_raises(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say."""

    def refuse(_session: Session) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise OperationalError("COMMIT", None, error)

    with monkeypatch.context() as broken:
        broken.setattr(Session, "commit", refuse)
        assert refusal(keyed(shop, purchase())) == (500, "internal_error")
        enrolment = shop.http.post("/v1/members", json=member_body(), headers={"Idempotency-Key": "enrol"})
        assert refusal(enrolment) == (500, "internal_error")
    check_nothing_was_written(shop)
    assert given(keyed(shop, purchase()))[::2] == (201, "false")


@contextmanager
def connection_lost_at_commit(monkeypatch: pytest.MonkeyPatch, *, after: bool) -> Iterator[list[str]]:
    """The connection breaks once during a commit: before the database took it, or `after`."""
    commit = Session.commit
    lost: list[str] = []

    def lose(session: Session) -> None:
        if lost:
            commit(session)
            return
        lost.append("once")
        if after:
            commit(session)
        raise OperationalError("COMMIT", None, Exception("connection reset"), connection_invalidated=True)

    with monkeypatch.context() as broken:
        broken.setattr(Session, "commit", lose)
        yield lost


@pytest.mark.parametrize("after", [False, True], ids=["not committed", "committed"])
def test_a_connection_lost_during_the_commit(shop: Shop, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """With a key it is looked up again, never guessed: one effect, whichever way the commit went."""
    with connection_lost_at_commit(monkeypatch, after=after) as lost:
        posted = shop.post(purchase())
    assert lost
    assert (posted.status_code, posted.json()["duplicate"]) == ((200, True) if after else (201, False))
    with connection_lost_at_commit(monkeypatch, after=after) as lost:
        enrolled = shop.http.post("/v1/members", json=member_body("901"), headers=KEY)
    assert lost
    assert given(enrolled)[::2] == (201, "true" if after else "false")
    assert (rows(shop, Transaction), rows(shop, Member)) == (1, 2)
    shop.prove()


def test_without_a_key_the_outcome_is_unknown(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could tell the two runs apart, so the caller is told to look."""
    member = shop.post(purchase()).json()["member"]["id"]
    with connection_lost_at_commit(monkeypatch, after=True):
        response = shop.http.patch(f"/v1/members/{member}", json={"status": "suspended"}, headers={"If-Match": '"1"'})
    assert refusal(response) == (503, "outcome_unknown")
    assert response.headers["Retry-After"] == "1"
    assert shop.get(f"/v1/members/{member}")["status"] == "suspended"
