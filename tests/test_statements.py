"""Statements of a month: opening and movements are closing, closing is the next opening, and the same for ever."""

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from app import ledger
from app.ledger import Account
from app.paging import encode
from app.programs import zone_at
from app.wallet.statements import statements
from tests.conftest import Engines, settings_for
from tests.shop import TERMS, Shop, TestClock, make_key, make_program, open_shop, purchase, returned
from tests.test_access import check_problem
from tests.test_as_of import LIVES, VALUE, History, act_on, at
from tests.test_purchase import statements as sent
from tests.test_tokens import token_of

FIGURES = ("available", "held", "pending", "debt")


def statement(shop: Shop, member: str, month: str) -> dict[str, Any]:
    answer: dict[str, Any] = shop.get(f"/v1/members/{member}/statements/{month}")
    return answer


def check_sums(told: dict[str, Any]) -> None:
    """Opening and movements are closing, in each figure and line by line; what expires and what stays is the rest."""
    running = told["opening_balance"]
    for movement in told["movements"]:
        running += movement["points"]
        assert movement["balance_after"] == running
    assert running == told["closing_balance"]
    for name in FIGURES:
        assert told["opening"][name] + sum(m[name] for m in told["movements"]) == told["closing"][name]
    ladder = sum(step["points"] for step in told["expiring"]) + told["stay"]
    assert ladder == sum(told["closing"][name] for name in FIGURES[:3])


# --- the rule -------------------------------------------------------------------------------------------------------


def test_a_month(shop: Shop) -> None:
    """What came and went, what is left, and when it expires."""
    member = shop.post(purchase("r1")).json()["member"]["id"]
    shop.post(purchase("r2", total=500))
    shop.post(returned("b1", "r2"))
    shop.clock.now = at("2026-12-02T12:00:00Z")
    told = statement(shop, member, "2026-11")
    check_sums(told)
    assert (told["begins_at"], told["at"]) == ("2026-11-01T04:00:00+00:00", "2026-12-01T04:59:59.999999+00:00")
    assert (told["opening_balance"], told["closing_balance"], told["provisional"]) == (0, 10, False)
    assert [(m["kind"], m["points"], m["late"]) for m in told["movements"]] == [
        ("accrual", 10, False),
        ("accrual", 5, False),
        ("reversal", -5, False),
    ]
    assert told["expiring"] == [{"points": 10, "at": "2027-12-01T05:00:00+00:00"}]


def test_what_arrives_late_belongs_to_the_month_it_arrives_in(shop: Shop) -> None:
    """November was told; a purchase of November that arrives in December is December's, and says so."""
    member = shop.post(purchase("r1")).json()["member"]["id"]
    shop.clock.now = at("2026-12-05T12:00:00Z")
    told = statement(shop, member, "2026-11")
    shop.post(purchase("r2", total=700, occurred_at="2026-11-20T12:00:00Z"))
    assert statement(shop, member, "2026-11") == told
    december = statement(shop, member, "2026-12")
    check_sums(december)
    assert december["opening"] == told["closing"]
    assert [(m["points"], m["late"]) for m in december["movements"]] == [(7, True)]
    assert december["movements"][0]["occurred_at"] == "2026-11-20T12:00:00+00:00"


@pytest.mark.parametrize("written", ["at once", "a month later"])
def test_an_expiry_belongs_to_its_month_whoever_writes_it_down_when(shop: Shop, written: str) -> None:
    """Points that are gone from December on are a movement of December, once."""
    member = shop.post(purchase("r1")).json()["member"]["id"]
    shop.clock.now = at("2027-12-01T05:00:01Z" if written == "at once" else "2028-01-15T12:00:00Z")
    shop.post(purchase("r2", total=200, occurred_at=shop.clock().isoformat()))
    shop.clock.now = at("2028-02-15T12:00:00Z")
    assert statement(shop, member, "2027-11")["closing_balance"] == 10
    december, january = statement(shop, member, "2027-12"), statement(shop, member, "2028-01")
    came, later = (["accrual"], []) if written == "at once" else ([], ["accrual"])
    assert [m["kind"] for m in december["movements"]] == ["expiration", *came]
    assert december["movements"][0]["occurred_at"] == "2027-12-01T05:00:00+00:00"
    assert [m["kind"] for m in january["movements"]] == later
    for told in (december, january):
        check_sums(told)


def test_the_current_month_is_provisional_until_an_hour_after_its_end(shop: Shop) -> None:
    member = shop.post(purchase("r1")).json()["member"]["id"]
    told = statement(shop, member, "2026-11")
    assert (told["provisional"], told["at"], told["closing_balance"]) == (True, "2026-11-22T12:00:00+00:00", 10)
    for instant, provisional in (("2026-12-01T05:59:59Z", True), ("2026-12-01T06:00:00Z", False)):
        shop.clock.now = at(instant)
        assert statement(shop, member, "2026-11")["provisional"] is provisional


def test_the_months_there_are(shop: Shop) -> None:
    """From the one the member joined in, by the programme's clocks, to the current one; no others."""
    shop.clock.now = at("2026-11-01T03:59:59Z")  # October in New York
    member = shop.post(purchase("r1", occurred_at="2026-10-20T12:00:00Z")).json()["member"]["id"]
    shop.clock.now = at("2026-12-01T05:00:00Z")
    ada = shop.client(token_of(shop))
    listed = ada.get("/v1/me/statements").json()
    assert listed["member_id"] == member
    assert [item["month"] for item in listed["items"]] == ["2026-12", "2026-11", "2026-10"]
    assert [item["provisional"] for item in listed["items"]] == [True, True, False]
    for item in listed["items"]:
        assert ada.get(f"/v1/me/statements/{item['month']}").json() == statement(shop, member, item["month"])
    for absent in ("2026-09", "2027-01", "1999-12", "9999-12"):
        check_problem(ada.get(f"/v1/me/statements/{absent}"), 404, "not_found")
    for wrong in ("2026-13", "2026-1", "0000-01", "november", "2026-11.pdf"):
        check_problem(ada.get(f"/v1/me/statements/{wrong}"), 422, "invalid_request")
    other = "0199d3a6-b1f0-7c1e-8a52-3f0d5b7c9e21"
    check_problem(shop.http.get(f"/v1/members/{other}/statements/2026-11"), 404, "not_found")


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("seed", range(2))
def test_any_history_has_statements_that_join(engines: Engines, engine: str, life: str, seed: int) -> None:
    """Whatever happens, is uploaded late or written down late: they add up, join, and never change."""
    terms = TERMS | LIVES[life] | {"points_tender": {"value": VALUE}}
    with open_shop(settings_for(engines.fresh(engine)), TestClock(), terms) as shop:
        history = History(shop, 100 + seed)
        told: dict[tuple[str, str], Any] = {}
        for number in range(40):
            history.step(number)
            for member in history.members:
                for month in _finished(shop.clock()):
                    again = statement(shop, member, month)
                    assert told.setdefault((member, month), again) == again
        shop.clock.forward(days=40)
        for member in history.members:
            months = list(_finished(shop.clock()))
            chain = [statement(shop, member, month) for month in months]
            for first, second in pairwise(chain):
                assert first["closing"] == second["opening"]
            for one in chain:
                check_sums(one)
            numbers = [movement["number"] for one in chain for movement in one["movements"]]
            assert numbers == list(range(1, len(numbers) + 1)), "each movement is in one statement"


def _finished(now: datetime) -> Iterator[str]:
    """The months since November 2026 that are over for a day and longer."""
    month = datetime(2026, 11, 1, tzinfo=UTC)
    while (following := (month + timedelta(days=31)).replace(day=1)) < now - timedelta(days=1):
        yield f"{month:%Y-%m}"
        month = following


# --- all members' ---------------------------------------------------------------------------------------------------


def pages(shop: Shop, month: str, limit: int) -> Iterator[list[dict[str, Any]]]:
    """The statements of a month, page by page, by the links."""
    response = shop.http.get(f"/v1/statements/{month}", params={"limit": limit})
    while True:
        assert response.status_code == 200, response.text
        yield response.json()["items"]
        if response.json()["next"] is None:
            return
        assert response.json()["next"] in response.links["next"]["url"]
        response = shop.http.get(response.links["next"]["url"])


def figures(told: dict[str, Any], end: str) -> dict[str, Any]:
    """What a statement says of an end of its month; of the closing, when what is left expires."""
    there: dict[str, Any] = told[end] | {"balance": told[f"{end}_balance"]}
    return there if end == "opening" else there | {"expiring": told["expiring"], "stay": told["stay"]}


def lot_by_lot(shop: Shop, members: list[str], told: dict[str, Any], end: str) -> list[dict[str, Any]]:
    """The same, from each account as it was then."""
    instant = at(told["begins_at"]) - timedelta(microseconds=1) if end == "opening" else at(told["at"])

    def read(session: Session) -> dict[UUID, Account]:
        past, zone = ledger.Past(instant, instant), zone_at(session, shop.program_id, instant)
        return ledger.as_of(session, [UUID(member) for member in members], past, zone)

    accounts = shop.database.read(read)
    found = []
    for account in (accounts[UUID(member)] for member in members):
        there = {name: getattr(account, name) for name in (*FIGURES, "balance")}
        if end == "closing":
            ladder = ledger.expiry_ladder(account)
            there["expiring"] = [{"points": step.points, "at": step.at.isoformat()} for step in ladder.steps]
            there["stay"] = ladder.stay
        found.append(there)
    return found


@pytest.mark.parametrize("life", LIVES)
def test_many_at_once_are_what_each_is_alone(engines: Engines, engine: str, life: str) -> None:
    """Members with holds, debt, pending points, late uploads, and what was due and nobody wrote down."""
    terms = TERMS | LIVES[life] | {"points_tender": {"value": VALUE}}
    with open_shop(settings_for(engines.fresh(engine)), TestClock(), terms) as shop:
        histories = [History(shop, 200 + seed, (f"9{seed}0", f"9{seed}1")) for seed in range(4)]
        for number in range(30):
            for history in histories:
                history.step(number)
            if number == 20:
                for card, member in zip(histories[0].cards, histories[0].members, strict=True):
                    act_on(shop, member, lambda account, act: ledger.spend(account, max(1, account.available), act))
                    histories[0].take_back(card, "owed", "return", 0.99, 1, shop.clock())
        members = sorted(member for history in histories for member in history.members)
        shop.clock.forward(days=40)
        moved = set()
        for month in [*_finished(shop.clock()), f"{shop.clock():%Y-%m}"]:
            told = [each for page in pages(shop, month, 3) for each in page]
            assert told == [statement(shop, member, month) for member in members]
            for end in ("opening", "closing"):
                assert [figures(each, end) for each in told] == lot_by_lot(shop, members, told[0], end)
            moved |= {name for each in told for entry in each["movements"] for name in FIGURES if entry[name]}
        assert moved >= ({"pending"} if life.startswith("pending") else {"available", "held", "debt"})


def test_pages_are_of_those_who_had_joined(shop: Shop) -> None:
    """In the order of ids, two at a time; closed members too, those who joined later not."""
    first = [shop.post(purchase(f"r{n}", member={"card": str(n)})).json()["member"]["id"] for n in range(5)]
    shop.http.patch(f"/v1/members/{first[1]}", json={"status": "closed"}, headers={"If-Match": '"1"'})
    shop.clock.now = at("2026-12-01T05:00:00Z")  # December in New York, at last
    late = shop.post(purchase("late", member={"card": "late"})).json()["member"]["id"]
    for month, there in (("2026-11", first), ("2026-12", [*first, late])):
        told = list(pages(shop, month, 2))
        assert [len(page) for page in told] == ([2, 2, 1] if month == "2026-11" else [2, 2, 2])
        assert [each["member_id"] for page in told for each in page] == sorted(there)
    assert shop.http.get("/v1/statements/2026-11").headers["Cache-Control"] == "private, no-cache"


def test_pages_there_are_not(shop: Shop) -> None:
    """Of months to come, of months before there was the programme, and of what is no month."""
    assert shop.get("/v1/statements/2026-11") == {"items": [], "next": None}
    for absent in ("2026-10", "2026-12", "1000-01", "9999-12"):
        check_problem(shop.http.get(f"/v1/statements/{absent}"), 404, "not_found")
    for wrong in ("2026-13", "2026-1", "0000-01", "november", "2026-11.html", "2026-11?limit=501"):
        check_problem(shop.http.get(f"/v1/statements/{wrong}"), 422, "invalid_request")
    for cursor in ("x", encode([1]), encode([])):
        check_problem(shop.http.get("/v1/statements/2026-11", params={"cursor": cursor}), 400, "cursor_invalid")


def test_another_programme_s_members_are_nowhere(shop: Shop) -> None:
    """Not in a page, not by their ids, not by a cursor that names one of them."""
    ours = shop.post(purchase("r1")).json()["member"]["id"]
    program_id, key = shop.database.write(lambda session: _another(session, shop.clock()))
    stranger = shop.client(key)
    theirs = stranger.post("/v1/transactions", json=purchase("r2")).json()["member"]["id"]
    for http, mine in ((shop.http, ours), (stranger, theirs)):
        assert [each["member_id"] for each in http.get("/v1/statements/2026-11").json()["items"]] == [mine]
    after = encode([ours]) if ours < theirs else encode([theirs])
    http, mine = (stranger, theirs) if ours < theirs else (shop.http, ours)
    page = http.get("/v1/statements/2026-11", params={"cursor": after}).json()
    assert [each["member_id"] for each in page["items"]] == [mine]
    both = [UUID(ours), UUID(theirs)]
    found = shop.database.read(lambda session: statements(session, program_id, both, "2026-11", shop.clock()))
    assert [each.member_id for each in found] == [UUID(theirs)]


def _another(session: Session, now: datetime) -> tuple[UUID, str]:
    program_id = make_program(session, TERMS, now, "other")
    return program_id, make_key(session, "staff", now, program_id)


def test_a_page_of_1_and_a_page_of_100_run_the_same_statements(shop: Shop) -> None:
    """Whatever their members have been doing: spends, holds that ended and that did not, returns."""
    for n in range(100):
        card = {"member": {"card": f"c{n}"}}
        shop.post(purchase(f"r{n}", total=100 * (n + 10), **card))
        hold = shop.http.post("/v1/holds", json=card | {"points": 3}, headers={"Idempotency-Key": f"k{n}"}).json()
        if n % 2:
            path = f"/v1/holds/{hold['id']}/capture"
            assert shop.http.post(path, json={}, headers={"Idempotency-Key": f"c{n}"}).status_code == 200
            shop.post(returned(f"b{n}", f"r{n}"))
    shop.get("/v1/statements/2026-11")  # what is looked up once per process
    texts = {}
    for limit in (1, 100):
        with sent(shop.database) as noted:
            page = shop.get("/v1/statements/2026-11", limit=limit)
        texts[limit] = [*noted]
        assert len(page["items"]) == limit
        assert page["items"][0] == statement(shop, page["items"][0]["member_id"], "2026-11")
    assert texts[1] == texts[100]
    assert len(texts[1]) < 24


# --- to print -------------------------------------------------------------------------------------------------------


@pytest.fixture
def printed(shop: Shop) -> str:
    """A member with a name that would be markup, and 1,234 points; the page's path."""
    body = {"identifiers": [{"kind": "card", "value": "900"}], "profile": {"name": "<script>Ada</script>"}}
    member = shop.http.post("/v1/members", json=body, headers={"Idempotency-Key": "k"}).json()["id"]
    shop.post(purchase("r1", total=123_400))
    shop.post(purchase("r2", total=100_000))
    shop.post(returned("b2", "r2"))
    shop.clock.now = at("2026-12-05T12:00:00Z")
    return f"/v1/members/{member}/statements/2026-11"


def test_a_statement_to_print(shop: Shop, printed: str) -> None:
    """By its suffix, or because a browser asks: the same figures, grouped, with dates as in ISO 8601."""
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    page = shop.http.get(f"{printed}.html")
    assert page.text == shop.http.get(printed, headers=browser).text
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    text = " ".join(re.sub(r"<style>.*</style>|<[^>]+>", " ", page.text, flags=re.S).split())
    for words in (
        "The shop Statement of points, 2026-11",
        "To spend 0 1,234",
        "Balance 0 1,234",
        "2026-11-22 Accrual 1,234 1,234",
        "2026-11-22 Reversal \N{MINUS SIGN}1,000 1,234",
        "2027-12-01 1,234",
    ):
        assert words in text
    assert "Provisional" not in text
    for accept in ("application/json", "*/*", "", "text/html, application/json"):
        assert shop.http.get(printed, headers={"Accept": accept}).json()["closing_balance"] == 1234
    assert {shop.http.get(path).headers["Vary"] for path in (printed, f"{printed}.html")} == {"Accept"}


def test_a_page_runs_nothing_and_loads_nothing(shop: Shop, printed: str) -> None:
    """A name is a name; the browser is told to take this style and nothing else."""
    page = shop.http.get(f"{printed}.html")
    assert "&lt;script&gt;Ada&lt;/script&gt;" in page.text
    assert "<script" not in page.text
    assert not re.search(r"\b(src|href|on[a-z]+|style)=", page.text)
    (style,) = re.findall(r"<style>(.*)</style>", page.text, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; ")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Cache-Control"] == "private, no-cache"


def test_a_provisional_page_says_so(shop: Shop) -> None:
    member = shop.post(purchase()).json()["member"]["id"]
    page = shop.http.get(f"/v1/members/{member}/statements/2026-11.html").text
    assert "Provisional: figures as of 2026-11-22" in page
