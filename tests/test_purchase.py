"""A till posts purchases: points, balance, the deferred-revenue entry, and everything tills do besides."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from app import programs
from app.db import Database
from app.programs import Terms
from app.transactions.models import Transaction
from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned, voided


def publish(shop: Shop, effective_from: datetime, **changes: Any) -> None:
    """Publishes `TERMS` with `changes` from `effective_from`."""

    def write(session: Session) -> None:
        draft = programs.draft_terms(session, shop.program_id, Terms.model_validate(TERMS | changes), shop.clock())
        programs.publish_terms(session, shop.program_id, draft.version, shop.clock(), effective_from)

    shop.database.write(write)


def count(database: Database, table: str) -> int:
    with database.engine.connect() as connection:
        number: int = connection.execute(text(f'SELECT count(*) FROM "{table}"')).scalar_one()
        return number


WRITTEN = (
    *("transaction", "transaction_key", "transaction_claim", "member", "member_identifier", "point_account"),
    *("point_entry", "lot", "journal_posting", "cohort_change", "outbox", "idempotency_key"),
)


def rows(shop: Shop) -> dict[str, int]:
    return {table: count(shop.database, table) for table in WRITTEN}


# --- one purchase ---------------------------------------------------------------------------------------------------


def test_a_purchase_earns_and_defers(shop: Shop) -> None:
    """10.00 at one point per dollar: 10 points worth 0.10, 8 expected, so 10.00 x 0.08 / 10.08 = 0.079 is deferred."""
    answer = shop.post(purchase()).json()
    assert answer["points"] == {
        "earned": 10,
        "pending": 0,
        "spent": 0,
        "qualifying": 10,
        "claimable": 0,
        "reasons": [{"rule": "base", "base": 1000, "points": 10}],
    }
    assert answer["balance"] == {"available": 10, "held": 0, "pending": 0, "debt": 0}
    assert answer["expiring_next"] == {"points": 10, "at": "2027-12-01T00:00:00-05:00"}
    assert answer["postings"] == [
        {"debit": "4000", "credit": "2100", "amount": 8, "currency": "USD", "cause": "accrual"}
    ]
    assert answer["member"]["enrolled"] is True
    shop.prove()


def test_what_was_answered_can_be_read(shop: Shop) -> None:
    answer = shop.post(purchase()).json()
    member = answer["member"]["id"]
    stored = shop.get("/v1/transactions/store-1/r1")
    assert stored["postings"] == answer["postings"]
    assert stored["points"] == answer["points"]
    assert stored["shares"] == [{"line": 1, "base": 1000, "goods": 992}]
    assert "member" not in stored["content"]
    assert shop.get(f"/v1/members/{member}/balance")["balance"] == answer["balance"]
    (lot,) = shop.get(f"/v1/members/{member}/lots")["items"]
    assert (lot["granted"], lot["allocated"], lot["allocated_exact"]) == (10, 8, "7.936508")
    (entry,) = shop.get(f"/v1/members/{member}/entries")["items"]
    assert (entry["number"], entry["points"], entry["balance_after"]) == (1, 10, 10)
    assert entry["document_id"] == lot["document_id"] == answer["id"]


def test_in_the_full_profile_the_whole_sale_is_posted(shop: Shop) -> None:
    publish(shop, shop.clock(), posting_profile="full")
    shop.clock.forward(hours=1)
    taxed = {"line": 1, "product": "p", "quantity": "1", "amount": 1130, "tax": 130}
    body = purchase(total=1130, lines=[taxed], occurred_at=shop.clock().isoformat())
    posted = {(p["debit"], p["credit"], p["cause"]): p["amount"] for p in shop.post(body).json()["postings"]}
    assert posted == {("1000", "4000", "sale"): 991, ("1000", "2100", "accrual"): 9, ("1000", "2400", "sale"): 130}
    shop.prove()


@pytest.mark.parametrize(
    "lines",
    [
        [{"line": 1, "product": "gift", "quantity": "1", "amount": 0}],
        [{"line": 1, "product": "gift", "quantity": "1", "amount": 300, "discount": 300}],
        [{"line": 1, "product": "void", "quantity": "0", "amount": 0}],
    ],
)
def test_a_zero_basket_is_accepted_and_moves_nothing(shop: Shop, lines: list[dict[str, Any]]) -> None:
    response = shop.post(purchase(total=0, lines=lines, tenders=[]))
    assert response.status_code == 201
    assert response.json()["points"]["earned"] == 0
    assert response.json()["postings"] == []
    assert count(shop.database, "point_entry") == count(shop.database, "lot") == 0
    shop.prove()


def test_a_line_of_quantity_zero_earns_nothing_beside_one_that_does(shop: Shop) -> None:
    lines = [
        {"line": 1, "product": "fuel", "quantity": "0", "amount": 500},
        {"line": 2, "product": "milk", "quantity": "1", "amount": 300},
    ]
    assert shop.post(purchase(total=800, lines=lines)).json()["points"]["reasons"] == [
        {"rule": "base", "base": 300, "points": 3}
    ]


# --- what is refused ------------------------------------------------------------------------------------------------

LINE = {"line": 1, "product": "p1", "quantity": "1", "amount": 1000}

REFUSED: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("wrong currency", "currency_mismatch", {"currency": "EUR"}, ["#/currency"]),
    ("negative amount", "negative_line", {"lines": [LINE | {"amount": -1000}]}, ["#/lines/0/amount"]),
    ("negative quantity", "negative_line", {"lines": [LINE | {"quantity": "-1"}]}, ["#/lines/0/quantity"]),
    ("negative tender", "negative_line", {"tenders": [{"type": "cash", "amount": -5}]}, ["#/tenders/0/amount"]),
    ("lines differ", "sums_do_not_match", {"lines": [LINE | {"amount": 999}]}, ["#/total"]),
    ("tenders differ", "sums_do_not_match", {"tenders": [{"type": "cash", "amount": 999}]}, ["#/tenders"]),
    ("both", "sums_do_not_match", {"lines": [LINE], "tenders": [], "total": 7}, ["#/total", "#/tenders"]),
    (
        "discount above amount",
        "sums_do_not_match",
        {"lines": [LINE | {"discount": 2000}]},
        ["#/lines/0/discount", "#/total"],
    ),
    ("tax above amount", "sums_do_not_match", {"lines": [LINE | {"tax": 2000}]}, ["#/lines/0/tax"]),
    (
        "a line number twice",
        "sums_do_not_match",
        {"lines": [LINE | {"amount": 400}, LINE | {"amount": 600}]},
        ["#/lines/1/line"],
    ),
    ("far future", "occurred_in_future", {"occurred_at": "2026-11-22T12:11:00Z"}, ["#/occurred_at"]),
    ("too old", "occurred_too_long_ago", {"occurred_at": "2026-10-08T11:59:59Z"}, ["#/occurred_at"]),
    ("before the programme", "no_terms", {"occurred_at": "1999-12-31T00:00:00Z"}, []),
    (
        "unknown member by id",
        "unknown_member",
        {"member": {"id": "0199d3a6-b1f0-7c1e-8a52-000000000000"}},
        ["#/member"],
    ),
    ("unknown phone", "unknown_member", {"member": {"phone": "+14155550100"}}, ["#/member"]),
    ("not a card", "identifier_invalid", {"member": {"card": "#!"}}, ["#/member/card"]),
    ("too large", "purchase_too_large", {"total": 10**10 + 1}, ["#/total"]),
    (
        "points tendered",
        "points_tender_refused",
        {"tenders": [{"type": "points", "amount": 1000}]},
        ["#/tenders/0/amount"],
    ),
]


@pytest.mark.parametrize(("case", "code", "changes", "pointers"), REFUSED)
def test_each_refusal_has_its_code_and_leaves_nothing(
    shop: Shop, case: str, code: str, changes: dict[str, Any], pointers: list[str]
) -> None:
    before = rows(shop)
    response = shop.post(purchase(**changes))
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert [finding["pointer"] for finding in response.json().get("errors", [])] == pointers
    assert rows(shop) == before
    assert shop.post(purchase()).status_code == 201, "a refused purchase does not take its key"


def test_the_clock_may_be_ahead_a_little_and_uploads_late(shop: Shop) -> None:
    edge = [("ahead", "2026-11-22T12:10:00Z"), ("late", "2026-10-08T12:00:00Z")]
    for external_id, occurred_at in edge:
        assert shop.post(purchase(external_id, occurred_at=occurred_at)).status_code == 201


def test_a_retry_after_the_card_was_removed_is_still_a_duplicate(shop: Shop) -> None:
    member = shop.post(purchase()).json()["member"]["id"]
    path = f"/v1/members/{member}/identifiers"
    assert shop.http.post(path, json={"kind": "card", "value": "new"}).status_code == 200
    assert shop.http.delete(f"{path}/card/900").status_code == 204
    again = shop.post(purchase())
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    assert shop.post(purchase(member={"card": "new"})).status_code == 200
    assert shop.post(purchase(member=None)).json()["code"] == "transaction_conflict"


# --- late and out of order ------------------------------------------------------------------------------------------


def test_terms_are_those_of_occurred_at(shop: Shop) -> None:
    """Double points from tomorrow: a late upload of today's purchase earns as today, whenever it arrives."""
    tomorrow = shop.clock() + timedelta(days=1)
    publish(shop, tomorrow, earning={"points": 2, "per": 100})
    shop.clock.forward(days=3)
    late = shop.post(purchase("late", occurred_at="2026-11-22T11:00:00Z")).json()
    after = shop.post(purchase("after", occurred_at="2026-11-23T12:00:00Z")).json()
    assert (late["points"]["earned"], after["points"]["earned"]) == (10, 20)
    assert shop.post(purchase("late", occurred_at="2026-11-22T11:00:00Z")).json()["points"]["earned"] == 10
    shop.prove()


def test_points_of_a_late_upload_may_have_expired_before_they_arrive(shop: Shop) -> None:
    """They are written down, belong to the balance as booked, and nobody can spend them."""
    publish(shop, shop.clock(), uploads={"latest_days": None})
    shop.clock.forward(days=800)
    answer = shop.post(purchase(occurred_at="2026-11-23T00:00:00Z")).json()
    assert answer["points"]["earned"] == 10
    assert answer["balance"]["available"] == 0
    assert answer["expiring_next"] is None
    assert shop.get(f"/v1/members/{answer['member']['id']}/balance")["balance"]["available"] == 0
    shop.prove()


def test_points_are_gone_at_their_instant_with_no_job_running(shop: Shop) -> None:
    member = shop.post(purchase()).json()["member"]["id"]
    shop.post(purchase("r2", occurred_at="2026-11-22T11:30:00Z"))
    path = f"/v1/members/{member}"
    shop.clock.now = datetime(2027, 12, 1, 4, 59, 59, tzinfo=UTC)
    assert shop.get(f"{path}/balance")["balance"]["available"] == 20
    assert shop.get(f"{path}/lots")["expiring"] == [{"points": 20, "at": "2027-12-01T05:00:00+00:00"}]
    shop.clock.now = datetime(2027, 12, 1, 5, 0, 0, tzinfo=UTC)
    standing = shop.get(f"{path}/balance")
    assert (standing["balance"]["available"], standing["expiring_next"]) == (0, None)
    assert standing["lifetime"] == 20
    assert shop.get("/v1/members/lookup", card="900")["balance"]["available"] == 0
    ladder = shop.get(f"{path}/lots")
    assert (ladder["expiring"], ladder["stay"]) == ([], 0)


def test_what_expires_next_is_the_soonest_with_all_its_points(shop: Shop) -> None:
    october = purchase("oct", 700, occurred_at="2026-10-20T12:00:00Z")
    november = purchase("nov", 500)
    results = shop.batch([november, october, november | {"external_id": "nov2"}])
    nexts = [result["transaction"]["expiring_next"] for result in results]
    soon = {"points": 7, "at": "2027-11-01T00:00:00-04:00"}
    assert nexts == [{"points": 5, "at": "2027-12-01T00:00:00-05:00"}, soon, soon]
    assert shop.post(october).json()["expiring_next"] == soon


# --- batches --------------------------------------------------------------------------------------------------------


def test_items_of_a_batch_are_independent_and_in_order(shop: Shop) -> None:
    good = purchase("good")
    results = shop.batch(
        [good, {"nonsense": 1}, purchase("bad", total=-1), good, purchase("good", 999), purchase("other", 250)]
    )
    assert [result["index"] for result in results] == list(range(6))
    assert [result["status"] for result in results] == [201, 422, 422, 200, 409, 201]
    codes = [result["problem"] and result["problem"]["code"] for result in results]
    assert codes == [None, "invalid_request", "negative_line", None, "transaction_conflict", None]
    assert results[1]["problem"]["errors"][0]["pointer"].startswith("#/transactions/1/")
    assert results[4]["problem"]["errors"][0]["pointer"].startswith("#/transactions/4/")
    assert results[5]["transaction"]["balance"]["available"] == 12, "each item sees what its predecessors left"
    shop.prove()


def test_a_key_refused_in_a_batch_is_free_for_the_next_item(shop: Shop) -> None:
    results = shop.batch([purchase("r", currency="EUR"), purchase("r")])
    assert [result["status"] for result in results] == [422, 201]


def test_one_new_card_in_many_items_is_one_member(shop: Shop) -> None:
    results = shop.batch([purchase(f"r{number}") for number in range(5)])
    assert len({result["transaction"]["member"]["id"] for result in results}) == 1
    assert [result["transaction"]["member"]["enrolled"] for result in results] == [True, False, False, False, False]
    assert count(shop.database, "member") == 1


def test_a_batch_takes_500_and_not_one_more(shop: Shop) -> None:
    results = shop.batch([purchase(f"r{number}", 100) for number in range(500)])
    assert {result["status"] for result in results} == {201}
    response = shop.http.post("/v1/transactions/batch", json={"transactions": [purchase()] * 501})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    shop.prove()


def test_ids_of_a_batch_sort_as_it_was_decided(shop: Shop) -> None:
    """Not by their numbers; a return that has waited comes with its purchase, what is there twice where it is first."""
    one = {"lines": [{"line": 1, "quantity": "0.5"}]}
    assert shop.post(returned("z-waited", "y", **one)).json()["waiting"]
    half = returned("x-half", "y", **one)
    bodies = [purchase("y", 1000), half, voided("w-void", "x-half", "return"), half, returned("a-rest", "y")]
    assert [each["status"] for each in shop.batch(bodies)] == [201, 201, 201, 200, 201]
    rows = select(Transaction.external_id).order_by(Transaction.id)
    recorded = shop.database.read(lambda session: session.scalars(rows).all())
    assert recorded == ["y", "z-waited", "x-half", "w-void", "a-rest"]


def test_whoever_is_refused_their_first_purchase_is_nobody(database_url: str, clock: TestClock) -> None:
    """Nor has a bonus for joining; alone, and between others that are recorded."""
    welcome = {"code": "welcome", "name": "Welcome", "occasion": {"type": "sign_up"}, "points": 100}
    offered = TERMS | {"points_tender": {"value": {"amount": 1, "points": 1}}, "campaigns": [welcome]}
    tenders = [{"type": "points", "amount": 500}, {"type": "cash", "amount": 500}]
    paid = purchase("r1", 1000, tenders=tenders, member={"card": "nobody"})
    with open_shop(settings_for(database_url), clock, offered) as shop:
        refused = [shop.post(paid), shop.batch([purchase("r0"), paid, purchase("r2", member={"card": "new"})])[1]]
        assert [each["code"] for each in (refused[0].json(), refused[1]["problem"])] == ["insufficient_points"] * 2
        cards = {
            card: shop.http.get("/v1/members/lookup", params={"card": card}).status_code for card in ("900", "new")
        }
        assert cards == {"900": 200, "new": 200}
        assert shop.http.get("/v1/members/lookup", params={"card": "nobody"}).status_code == 404
        assert shop.post(paid | {"tenders": [{"type": "cash", "amount": 1000}]}).json()["member"]["enrolled"]
        shop.prove()


def test_whoever_is_refused_in_a_batch_with_a_key_is_not_the_answer_for_all(
    database_url: str, clock: TestClock
) -> None:
    tenders = [{"type": "points", "amount": 500}, {"type": "cash", "amount": 500}]
    paid = purchase("r1", 1000, tenders=tenders, member={"card": "nobody"})
    batch = {"transactions": [purchase("r0"), paid, purchase("r2", member={"card": "new"})]}
    with open_shop(
        settings_for(database_url), clock, TERMS | {"points_tender": {"value": {"amount": 1, "points": 1}}}
    ) as shop:
        answers = [
            shop.http.post("/v1/transactions/batch", json=batch, headers={"Idempotency-Key": "once"}) for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert [result["status"] for result in answers[0].json()["results"]] == [201, 422, 201]
        assert answers[1].json() == answers[0].json(), "kept"
        shop.prove()


def test_what_is_refused_as_a_whole_is_no_answer_under_a_key(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.ledger import TooManyPoints
    from app.transactions import service

    record = service.record

    def one_by_one(session: Any, program_id: Any, items: Any, now: Any) -> Any:
        if len(items) > 1:
            raise TooManyPoints
        return record(session, program_id, items, now)

    monkeypatch.setattr(service, "record", one_by_one)
    results = shop.batch([purchase("a"), purchase("b"), purchase("c")], key="an-upload")
    assert [result["status"] for result in results] == [201] * 3


def test_a_poisonous_item_fails_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something nobody foresaw in one item: the batch runs item by item, and only the guilty one fails."""
    from app.transactions import rules

    price = rules.price

    def poisoned(program_id: Any, basket: Any, *rest: Any, **options: Any) -> Any:
        if basket.total == 666:
            raise ZeroDivisionError("poison")
        return price(program_id, basket, *rest, **options)

    monkeypatch.setattr(rules, "price", poisoned)
    results = shop.batch([purchase("a"), purchase("b", 666), purchase("c")])
    assert [result["status"] for result in results] == [201, 500, 201]
    assert results[1]["problem"]["code"] == "internal_error"
    shop.prove()


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What the block sends to the database."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, many: bool) -> None:
        sent.append(f"{'MANY ' if many else ''}{statement}")

    for engine in database.engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        for engine in database.engines:
            event.remove(engine, "before_cursor_execute", note)


def varied(number: int, round_: str) -> dict[str, Any]:
    """Purchases of many members, some guests, some two by one member, of several lines."""
    lines = [{"line": line, "product": f"p{line}", "quantity": "1", "amount": 100} for line in range(1, 2 + number % 5)]
    member = None if number % 10 == 9 else {"card": f"{round_}{number // 2}"}
    return purchase(f"{round_}-{number}", 100 * len(lines), lines=lines, member=member)


@pytest.mark.parametrize("again", [False, True], ids=["new", "duplicates"])
def test_a_batch_of_1_and_a_batch_of_200_run_the_same_statements(shop: Shop, again: bool) -> None:
    """Not only as many: the very same texts, so that an N+1 cannot hide in an executemany or a growing IN list."""

    def sent(bodies: list[dict[str, Any]]) -> list[str]:
        if again:
            shop.batch(bodies)
        with statements(shop.database) as texts:
            results = shop.batch(bodies)
        assert {result["status"] for result in results} == {200 if again else 201}
        return texts

    shop.post(purchase("first"))  # a process reads each version of terms once
    one, many = sent([varied(1, "a")]), sent([varied(number, "b") for number in range(200)])
    assert one == many
    assert not any(statement.startswith("MANY") for statement in many)
    assert len(one) < 40


# --- dry runs -------------------------------------------------------------------------------------------------------


def test_a_dry_run_answers_the_same_and_writes_nothing(shop: Shop) -> None:
    shop.post(purchase("before", 300))
    before = rows(shop)
    bodies = [
        purchase("r1"),
        purchase("r2", member={"card": "new"}),
        purchase("r3", member=None),
        purchase("before", 300),
    ]
    for body in bodies:
        dry = shop.post(body, dry_run=True)
        assert (dry.status_code, rows(shop)) == (200, before)
        real = shop.post(body).json()
        before = rows(shop)
        told = dry.json()
        assert told.pop("dry_run") is True
        assert real.pop("dry_run") is False
        assert (type(told.pop("entries")), real.pop("entries")) == (list, None)
        explained = shop.get(f"/v1/transactions/store-1/{body['external_id']}")["explanation"]
        assert (told.pop("explanation"), real.pop("explanation")) == (None if real["duplicate"] else explained, None)
        if not real["duplicate"]:
            assert told.pop("id") is None
            real.pop("id")
            if real["member"] and real["member"]["enrolled"]:
                assert told["member"].pop("id") is None
                real["member"].pop("id")
        assert told == real
    shop.prove()


def test_a_dry_run_of_a_batch_sees_its_own_predecessors(shop: Shop) -> None:
    before = rows(shop)
    results = shop.batch([purchase("a", 100), purchase("b", 200), purchase("a", 100), purchase("a", 1)], dry_run=True)
    assert [result["status"] for result in results] == [200, 200, 200, 409]
    assert results[1]["transaction"]["balance"]["available"] == 3
    assert rows(shop) == before


def test_a_dry_run_is_refused_as_the_real_one_would_be(shop: Shop) -> None:
    assert shop.post(purchase(currency="EUR"), dry_run=True).json()["code"] == "currency_mismatch"


# --- guests ---------------------------------------------------------------------------------------------------------


def guest(shop: Shop, external_id: str = "g1", **changes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = shop.post(purchase(external_id, member=None, **changes)).json()
    return answer


def claim(shop: Shop, transaction_id: str, card: str = "900", **query: Any) -> Any:
    path = f"/v1/transactions/{transaction_id}/claim"
    return shop.http.post(path, json={"member": {"card": card}}, params=query)


def test_a_guest_earns_nothing_until_a_member_claims_it(shop: Shop) -> None:
    answer = guest(shop)
    assert (answer["member"], answer["balance"], answer["postings"]) == (None, None, [])
    assert (answer["points"]["earned"], answer["points"]["claimable"]) == (0, 10)
    claimed = claim(shop, answer["id"])
    assert claimed.status_code == 201
    assert claimed.json()["points"]["earned"] == 10
    assert claimed.json()["balance"]["available"] == 10
    assert claimed.json()["member"]["enrolled"] is True
    assert claimed.json()["postings"] == [
        {"debit": "4000", "credit": "2100", "amount": 8, "currency": "USD", "cause": "accrual"}
    ]
    stored = shop.get("/v1/transactions/store-1/g1")
    assert stored["claim"]["points"] == 10
    assert stored["postings"] == [], "the purchase posted nothing; its claim did"
    again = shop.post(purchase("g1", member=None)).json()
    assert again["duplicate"] is True
    assert again["points"] == answer["points"], "the till's retry is answered as the first time"
    shop.prove()


def test_a_claim_may_be_repeated_but_not_by_somebody_else(shop: Shop) -> None:
    transaction_id = guest(shop)["id"]
    first = claim(shop, transaction_id)
    again = claim(shop, transaction_id)
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    assert again.json()["id"] == first.json()["id"]
    other = claim(shop, transaction_id, "901")
    assert (other.status_code, other.json()["code"]) == (409, "transaction_claimed")
    assert count(shop.database, "member") == 1, "a refused claim enrols nobody"
    mine = shop.post(purchase("mine")).json()
    assert claim(shop, mine["id"]).json()["code"] == "transaction_has_member"
    missing = claim(shop, "0199d3a6-b1f0-7c1e-8a52-000000000000")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    shop.prove()


def test_a_claim_goes_by_the_terms_of_the_purchase(shop: Shop) -> None:
    answer = guest(shop)
    publish(shop, shop.clock() + timedelta(seconds=1), earning={"points": 5, "per": 100})
    shop.clock.forward(days=100)
    claimed = claim(shop, answer["id"]).json()
    assert claimed["points"]["earned"] == 10
    assert claimed["expiring_next"]["at"] == "2027-12-01T00:00:00-05:00"


def test_a_dry_claim_writes_nothing(shop: Shop) -> None:
    transaction_id = guest(shop)["id"]
    before = rows(shop)
    dry = claim(shop, transaction_id, dry_run=True)
    assert (dry.status_code, dry.json()["points"]["earned"], dry.json()["id"]) == (200, 10, None)
    assert rows(shop) == before


def test_in_the_full_profile_a_claim_moves_revenue_of_the_sale_already_posted(shop: Shop) -> None:
    publish(shop, shop.clock(), posting_profile="full")
    shop.clock.forward(hours=1)
    answer = guest(shop, occurred_at=shop.clock().isoformat())
    assert [(p["debit"], p["credit"], p["amount"]) for p in answer["postings"]] == [("1000", "4000", 1000)]
    claimed = claim(shop, answer["id"]).json()
    assert [(p["debit"], p["credit"], p["amount"]) for p in claimed["postings"]] == [("4000", "2100", 8)]
    shop.prove()


def test_a_line_given_away_is_taken_net_of_vat_at_the_baskets_rate(shop: Shop) -> None:
    """Two equal articles at 120.00 with 20.00 VAT inside, one of them free: each stands alone at 100.00.

    120 points worth 1.20, 0.96 expected: 100.00 x 0.96 / 200.96 = 0.4777 is deferred.
    """
    bought = {"line": 1, "product": "p", "quantity": "1", "amount": 12_000, "tax": 2_000}
    free = {"line": 2, "product": "p", "quantity": "1", "amount": 12_000, "discount": 12_000}
    answer = shop.post(purchase(total=12_000, lines=[bought, free])).json()
    assert answer["postings"][0]["amount"] == 48
    (lot,) = shop.get(f"/v1/members/{answer['member']['id']}/lots")["items"]
    assert lot["allocated_exact"] == "47.770701"
