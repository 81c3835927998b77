"""Stamp cards: points that wait for their card to be full; head starts, ends, returns, and what the books say."""

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select

from app.outbox import OutboxEvent
from app.worker import run_jobs
from tests.conftest import settings_for
from tests.points import publish
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned, voided
from tests.test_dry_runs import everything
from tests.test_replay import replayed
from tests.test_tiers import member_of

COFFEE: dict[str, Any] = {
    "code": "coffee",
    "name": "The tenth coffee is on us",
    "stamps": 10,
    "head_start": 2,
    "points_per_stamp": 50,
    "for_each": {"type": "items"},
    "on": {"departments": ["COFFEE"]},
}
"""Ten stamps of which two are given; each coffee is one; full, they are 500 points."""

CAFE: dict[str, Any] = TERMS | {"stamp_cards": [COFFEE]}


def cards(**changes: Any) -> dict[str, Any]:
    """Terms with one card, so changed."""
    return TERMS | {"stamp_cards": [COFFEE | changes]}


def coffees(number: int, external_id: str = "r1", department: str = "COFFEE", **changes: Any) -> dict[str, Any]:
    """The body of a purchase of so many coffees at 4.00."""
    line = {"line": 1, "product": "latte", "department": department, "quantity": str(number), "amount": 400 * number}
    return purchase(external_id, 400 * number, **{"lines": [line]} | changes)


@pytest.fixture
def cafe(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, CAFE) as shop:
        yield shop
        shop.prove()


def posted(shop: Shop, body: dict[str, Any], **query: Any) -> Any:
    response = shop.post(body, **query)
    assert response.status_code in (200, 201), response.text
    return response.json()


def drink(shop: Shop, number: int = 1, external_id: str = "r1", **changes: Any) -> Any:
    return posted(shop, coffees(number, external_id, **{"occurred_at": shop.clock().isoformat()} | changes))


def card(shop: Shop, number: str = "900", code: str = "coffee") -> Any:
    items = shop.get(f"/v1/members/{member_of(shop, number)}/cards")["items"]
    return next(each for each in items if each["code"] == code)


def figures(shop: Shop, number: str = "900", **past: str) -> tuple[int, int, int]:
    """Available, pending, debt; now, or as of an instant past."""
    found = shop.get(f"/v1/members/{member_of(shop, number)}/balance", **past)["balance"]
    return found["available"], found["pending"], found["debt"]


def changed(answer: Any) -> list[tuple[int, int, int, int]]:
    """Of each card that a transaction has changed: its number, stamps added, stamps now, points released."""
    return [(each["number"], each["added"], each["stamps"], each["released"]) for each in answer["cards"]]


# --- earning --------------------------------------------------------------------------------------------------------


def test_stamps_are_points_that_wait(cafe: Shop) -> None:
    answer = drink(cafe, 3)
    points = answer["points"]
    assert (points["earned"], points["pending"], points["qualifying"]) == (162, 150, 162)
    assert {each["rule"]: each["points"] for each in points["reasons"]} == {"base": 12, "stamps:coffee": 150}
    assert changed(answer) == [(1, 3, 5, 0)]
    assert figures(cafe) == (12, 150 + 100, 0)
    found = card(cafe)
    assert (found["stamps"], found["of"], found["head_start"], found["status"]) == (5, 10, 2, "open")


def test_a_full_card_releases_all_its_points(cafe: Shop) -> None:
    for number in range(7):
        drink(cafe, 1, f"r{number}")
    assert figures(cafe) == (28, 450, 0)
    assert changed(drink(cafe, 1, "last")) == [(1, 1, 10, 500)]
    assert figures(cafe) == (32 + 500, 0, 0)
    found = card(cafe)
    assert (found["status"], found["filled"]) == ("full", 1)


def test_what_does_not_fit_begins_the_next_card(cafe: Shop) -> None:
    assert changed(drink(cafe, 11)) == [(1, 8, 10, 500), (2, 3, 3, 0)]
    assert figures(cafe) == (44 + 500, 150, 0)
    assert changed(drink(cafe, 7, "r2")) == [(2, 7, 10, 500)]
    assert card(cafe)["filled"] == 2


def test_several_in_one_batch_as_one_by_one(database_url: str, clock: TestClock) -> None:
    """With returns and the void of one: to the same figures and cards."""
    bodies = [
        coffees(3, "r1"),
        returned("b1", "r1", lines=[{"line": 1, "quantity": "2"}]),
        coffees(6, "r2"),
        voided("v1", "b1", "return"),
        coffees(4, "r3"),
        returned("b2", "r2", lines=[{"line": 1, "quantity": "1"}]),
    ]
    with open_shop(settings_for(database_url), clock, CAFE) as shop:
        results = shop.batch(bodies)
        assert [result["status"] for result in results] == [201] * len(bodies), results
        told = [result["transaction"]["cards"] for result in results]
        alone = [
            posted(shop, body | {"external_id": f"x{body['external_id']}"} | _of(body) | _for(body, "901"))["cards"]
            for body in bodies
        ]
        for one, other in zip(told, alone, strict=True):
            assert one == other
        assert figures(shop) == figures(shop, "901")
        shop.prove()


def _of(body: dict[str, Any]) -> dict[str, Any]:
    original = body.get("original")
    return {} if original is None else {"original": original | {"external_id": f"x{original['external_id']}"}}


def _for(body: dict[str, Any], number: str) -> dict[str, Any]:
    return {"member": {"card": number}} if "member" in body else {}


def test_a_dry_run_tells_what_would_be_and_writes_nothing(cafe: Shop) -> None:
    drink(cafe, 5)
    before = everything(cafe)
    body = coffees(5, "r2")
    imagined = posted(cafe, body, dry_run=True)
    assert everything(cafe) == before
    real = posted(cafe, body)
    for part in ("points", "balance", "cards"):
        assert imagined[part] == real[part]
    amounts = [
        [(each["debit"], each["credit"], each["amount"]) for each in one["postings"]] for one in (imagined, real)
    ]
    assert amounts[0] == amounts[1]


def test_the_same_purchase_again_brings_nothing_more(cafe: Shop) -> None:
    first = posted(cafe, coffees(3))
    again = posted(cafe, coffees(3))
    assert (again["duplicate"], again["cards"], again["points"], again["postings"]) == (
        True,
        [],
        first["points"],
        first["postings"],
    )
    assert card(cafe)["stamps"] == 5


def test_limits_and_why_there_was_no_stamp(database_url: str, clock: TestClock) -> None:
    terms = cards(most_per_purchase=3, most_per_day=4, when={"hours": {"begin": "06:00", "end": "20:00"}})
    with open_shop(settings_for(database_url), clock, terms) as shop:
        assert changed(drink(shop, 5, "tea", department="TEA")) == []
        assert changed(drink(shop, 5)) == [(1, 3, 5, 0)]
        assert changed(drink(shop, 5, "r2")) == [(1, 1, 6, 0)]
        assert changed(drink(shop, 5, "r3")) == []
        shop.clock.forward(hours=20)
        assert changed(drink(shop, 1, "early")) == []
        shop.clock.forward(hours=4)
        assert changed(drink(shop, 1, "next")) == [(1, 1, 7, 0)]
        why = {
            id_: next(
                (each["points"], each["why"], each["capped"])
                for each in shop.get(f"/v1/transactions/store-1/{id_}")["explanation"]
                if each["rule"] == "stamps:coffee"
            )
            for id_ in ("r1", "r2", "r3", "tea", "early", "next")
        }
        assert why == {
            "r1": (150, None, True),
            "r2": (50, None, True),
            "r3": (0, "limit", False),
            "tea": (0, "goods", False),
            "early": (0, "hours", False),
            "next": (50, None, False),
        }
        shop.prove()


def test_a_visit_is_one_stamp_and_cards_are_for_certain_members(database_url: str, clock: TestClock) -> None:
    visits = {"code": "visits", "name": "Visits", "stamps": 2, "points_per_stamp": 7, "when": {"minimum_spend": 500}}
    student = COFFEE | {"code": "student", "who": {"attributes": {"occupation": ["student"]}}}
    nothing = {"points": 0, "per": 100}
    with open_shop(
        settings_for(database_url), clock, TERMS | {"earning": nothing, "stamp_cards": [visits, student]}
    ) as shop:
        answer = drink(shop, 5)
        assert [(each["code"], each["added"]) for each in answer["cards"]] == [("visits", 1)]
        assert answer["points"]["earned"] == 7
        profile = {"profile": {"attributes": {"occupation": "student"}}}
        path = f"/v1/members/{member_of(shop)}"
        tag = {"If-Match": shop.http.get(path).headers["ETag"]}
        assert shop.http.patch(path, json=profile, headers=tag).status_code == 200
        answer = drink(shop, 5, "r2")
        assert [(each["code"], each["added"]) for each in answer["cards"]] == [("visits", 1), ("student", 5)]
        assert changed(drink(shop, 1, "small")) == [(1, 1, 8, 0)]
        shop.prove()


def test_a_programme_without_cards_runs_no_statement_more(database_url: str, clock: TestClock) -> None:
    """And with them no more for many members than for two."""

    def statements(shop: Shop, bodies: list[dict[str, Any]]) -> list[str]:
        made: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            made.append(statement)

        event.listen(shop.database.engine, "before_cursor_execute", note)
        shop.batch(bodies)
        event.remove(shop.database.engine, "before_cursor_execute", note)
        return made

    def bodies(round_: int, group: str, many: int) -> list[dict[str, Any]]:
        about = {"occurred_at": clock().isoformat()}
        names = [f"{group}{number}" for number in range(many)]
        return [coffees(7, f"{name}-{round_}", member={"card": name}, **about) for name in names]

    with open_shop(settings_for(database_url), clock) as shop:
        assert not [each for each in statements(shop, bodies(0, "few", 2)) if "stamp" in each]
        shop.batch(bodies(0, "many", 40))
        publish(shop, CAFE)
        shop.clock.forward(hours=1)
        shop.batch(bodies(0, "other", 1))  # reads the terms
        for round_ in (1, 2, 3):  # a card is begun, filled and begun again
            few, many = (statements(shop, bodies(round_, *group)) for group in (("few", 2), ("many", 40)))
            assert len(few) == len(many)
        shop.prove()


# --- the books ------------------------------------------------------------------------------------------------------


def test_two_given_stamps_never_defer(database_url: str, clock: TestClock) -> None:
    """A card of ten with two given and a card of eight both take eight purchases and defer the same; what is given is a
    provision."""
    eight = COFFEE | {"code": "tea", "stamps": 8, "head_start": 0, "on": {"departments": ["TEA"]}}
    with open_shop(settings_for(database_url), clock, TERMS | {"stamp_cards": [COFFEE, eight]}) as shop:
        coffee = [drink(shop, 1, f"c{number}") for number in range(8)]
        tea = [drink(shop, 1, f"t{number}", department="TEA", member={"card": "901"}) for number in range(8)]
        assert [each["cards"][0]["full"] for each in coffee] == [each["cards"][0]["full"] for each in tea]
        assert coffee[-1]["cards"][0]["full"] is True
        amounts = [[_amounts(each) for each in answers] for answers in (coffee, tea)]
        assert amounts[0][0] - amounts[1][0] == Counter({("6100", "2300"): 80})  # 100 points x 4/5 x 1.00
        assert amounts[0][1:] == amounts[1][1:]
        assert all(set(each) == {("4000", "2100")} for each in amounts[1])
        assert figures(shop) == (32 + 500, 0, 0)
        assert figures(shop, "901") == (32 + 400, 0, 0)
        run_jobs(shop.database, shop.clock())
        kinds = {row["funding"]: row for row in shop.get("/v1/accounting/cohorts")["items"]}
        assert (kinds["marketing"]["issued"], kinds["purchase"]["issued"]) == (100, 64 + 800)
        shop.prove()


def _amounts(answer: Any) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for each in answer["postings"]:
        found[each["debit"], each["credit"]] += each["amount"]
    return found


def test_the_share_of_a_purchase_is_split_over_its_lots_to_the_last_unit(cafe: Shop) -> None:
    answer = drink(cafe, 11)
    lots = cafe.get(f"/v1/members/{member_of(cafe)}/lots")["items"]
    (given,) = [each for each in lots if each["granted"] == 100 and each["source_lot_id"] is None]
    (deferred,) = [each["amount"] for each in answer["postings"] if each["credit"] == "2100"]
    shares = [each for each in lots if each["cohort_id"] != given["cohort_id"] and each["source_lot_id"] is None]
    assert sum(each["allocated"] for each in shares) == deferred
    assert sorted(each["granted"] for each in shares) == [44, 150, 400]


# --- time -----------------------------------------------------------------------------------------------------------


def test_a_card_that_is_not_full_in_time_is_over(database_url: str, clock: TestClock) -> None:
    with open_shop(settings_for(database_url), clock, cards(good_for_days=30)) as shop:
        drink(shop, 5)
        assert card(shop)["ends_at"] == "2026-12-23T05:00:00+00:00"
        shop.clock.now = datetime.fromisoformat("2026-12-23T04:59:59+00:00")
        assert figures(shop) == (20, 350, 0)
        shop.clock.forward(seconds=1)
        assert figures(shop) == (20, 0, 0)
        assert card(shop)["status"] == "expired"
        shop.prove()
        assert changed(drink(shop, 3, "r2")) == [(2, 3, 3, 0)]
        assert figures(shop) == (32, 150, 0)
        run_jobs(shop.database, shop.clock())
        shop.prove()
        kinds = {row["funding"]: row for row in shop.get("/v1/accounting/cohorts")["items"] if row["expired"]}
        assert {funding: row["expired"] for funding, row in kinds.items()} == {"marketing": 100, "purchase": 250}


def test_released_points_expire_as_those_earned_on_that_day(cafe: Shop) -> None:
    drink(cafe, 4)
    cafe.clock.forward(days=40)
    drink(cafe, 4, "r2")
    lots = cafe.get(f"/v1/members/{member_of(cafe)}/lots")["items"]
    ends = Counter[str]()
    for lot in lots:
        ends[lot["expires_at"]] += lot["remaining"]
    assert +ends == {"2027-12-01T05:00:00+00:00": 16, "2028-02-01T05:00:00+00:00": 516}


def test_points_that_lapse_are_kept_by_filling_a_card(database_url: str, clock: TestClock) -> None:
    expiry = {"mode": "inactivity", "months": 2, "round_up_to": "day", "activities": ["redemption"]}
    with open_shop(settings_for(database_url), clock, CAFE | {"expiry": expiry}) as shop:
        drink(shop, 8)
        assert figures(shop)[:2] == (532, 0)
        shop.clock.forward(days=70)
        assert figures(shop) == (0, 0, 0)
        shop.prove()


def test_expiry_that_is_switched_on_leaves_waiting_stamps_alone(database_url: str, clock: TestClock) -> None:
    with open_shop(settings_for(database_url), clock, CAFE | {"expiry": None}) as shop:
        drink(shop, 4)
        shop.clock.forward(hours=1)
        publish(shop, CAFE)
        shop.clock.forward(days=500)
        run_jobs(shop.database, shop.clock())
        assert figures(shop) == (0, 300, 0)
        assert changed(drink(shop, 4, "r2")) == [(1, 4, 10, 500)]
        assert figures(shop) == (516, 0, 0)
        shop.prove()


def test_a_late_upload_counts_as_it_arrives(database_url: str, clock: TestClock) -> None:
    with open_shop(settings_for(database_url), clock, cards(good_for_days=30)) as shop:
        past = (clock.now - timedelta(days=40)).isoformat()
        assert changed(drink(shop, 4, occurred_at=past)) == [(1, 4, 6, 0)]
        assert card(shop)["status"] == "open"
        assert changed(drink(shop, 2, "r2")) == [(1, 2, 8, 0)]
        assert changed(drink(shop, 3, "late", occurred_at=past)) == [(1, 2, 10, 500), (2, 1, 1, 0)]
        assert figures(shop) == (36 + 500, 50, 0)
        shop.prove()


def test_however_long_other_points_wait(database_url: str, clock: TestClock) -> None:
    """Points of purchases are pending until they are shipped; those of a full card are there."""
    shipped = {"mode": "event", "event": "shipped", "cancel_after_days": 30}
    with open_shop(settings_for(database_url), clock, CAFE | {"pending": shipped}) as shop:
        answer = drink(shop, 8)
        assert answer["points"]["pending"] == 432
        assert figures(shop) == (500, 32, 0)
        path = f"/v1/transactions/{answer['id']}/events"
        assert shop.http.post(path, json={"event": "shipped"}).json()["available"] == 32
        assert drink(shop, 1, "r2")["cards"]
        assert figures(shop) == (532, 54, 0)
        shop.prove()


def test_other_terms_leave_a_card_as_it_was_begun(cafe: Shop) -> None:
    drink(cafe, 3)
    cafe.clock.forward(hours=1)
    publish(cafe, cards(stamps=5, points_per_stamp=20))
    cafe.clock.forward(hours=1)
    assert changed(drink(cafe, 5, "r2")) == [(1, 5, 10, 100 + 150 + 100)]
    assert changed(drink(cafe, 2, "r3")) == [(2, 2, 2, 0)]
    assert (card(cafe)["of"], card(cafe)["points_per_stamp"]) == (5, 20)
    publish(cafe, TERMS)
    cafe.clock.forward(hours=1)
    assert changed(drink(cafe, 2, "r4")) == []
    assert (card(cafe)["stamps"], card(cafe)["points_per_stamp"]) == (2, None)
    assert cafe.post(returned("b3", "r3")).json()["cards"][0]["stamps"] == 0


# --- what comes back ------------------------------------------------------------------------------------------------


def test_a_return_takes_the_stamp_off_and_its_void_puts_it_back(cafe: Shop) -> None:
    drink(cafe, 3)
    drink(cafe, 2, "r2")
    answer = posted(cafe, returned(lines=[{"line": 1, "quantity": "1"}]))
    assert answer["points"]["earned"] == -54
    assert changed(answer) == [(1, -1, 6, 0)]
    assert figures(cafe) == (16, 300, 0)
    assert changed(posted(cafe, voided(of="b1", type_="return"))) == [(1, 1, 7, 0)]
    assert figures(cafe) == (20, 350, 0)
    assert changed(posted(cafe, voided("v2"))) == [(1, -3, 4, 0)]
    assert figures(cafe) == (8, 200, 0)
    assert changed(posted(cafe, voided("v3", "r2"))) == [(1, -2, 2, 0)]
    assert figures(cafe) == (0, 100, 0)


def test_a_full_card_stays_full(cafe: Shop) -> None:
    """Its points go back like any others: from its own lots, then as debt, which the next credits pay."""
    drink(cafe, 5)
    drink(cafe, 3, "r2")
    order = {"code": "mug", "name": "Mug", "points": 450, "supplier": {"type": "own"}, "currency": "USD"}
    assert cafe.http.post("/v1/rewards", json=order).status_code == 201
    wanted = {"member": {"card": "900"}, "reward": {"code": "mug"}, "immediate": True}
    assert cafe.http.post("/v1/redemptions", json=wanted, headers={"Idempotency-Key": "k"}).status_code == 201
    assert figures(cafe) == (82, 0, 0)
    answer = posted(cafe, returned(of="r1"))
    assert answer["points"]["earned"] == -(20 + 250)
    assert changed(answer) == []
    assert figures(cafe) == (0, 0, 270 - 82)
    assert card(cafe)["status"] == "full"
    assert changed(drink(cafe, 4, "r3")) == [(2, 4, 4, 0)]
    assert figures(cafe) == (0, 200, 188 - 16)
    assert changed(drink(cafe, 6, "r4")) == [(2, 6, 10, 500)]
    assert figures(cafe) == (500 - 172 + 24, 0, 0)


def test_the_void_of_a_return_whose_card_was_filled_meanwhile(cafe: Shop) -> None:
    """There is no place left for the stamp; its points are available at once."""
    drink(cafe, 3)
    posted(cafe, returned(lines=[{"line": 1, "quantity": "1"}]))
    assert changed(drink(cafe, 6, "r2")) == [(1, 6, 10, 500)]
    assert figures(cafe) == (8 + 24 + 500, 0, 0)
    assert changed(posted(cafe, voided(of="b1", type_="return"))) == []
    assert figures(cafe) == (12 + 24 + 550, 0, 0)
    assert card(cafe)["stamps"] == 10


def test_the_void_of_a_return_may_fill_the_card(cafe: Shop) -> None:
    drink(cafe, 3)
    posted(cafe, returned(lines=[{"line": 1, "quantity": "1"}]))
    drink(cafe, 5, "r2")
    assert changed(posted(cafe, voided(of="b1", type_="return"))) == [(1, 1, 10, 500)]
    assert figures(cafe) == (32 + 500, 0, 0)


def test_a_return_of_stamps_on_two_cards_takes_the_last_first(cafe: Shop) -> None:
    drink(cafe, 11)
    assert changed(posted(cafe, returned(lines=[{"line": 1, "quantity": "4"}]))) == [(2, -3, 0, 0)]
    assert figures(cafe) == (28 + 450, 0, 0)
    assert card(cafe)["number"] == 2


def test_what_comes_back_of_a_card_that_is_over_changes_nothing_more(database_url: str, clock: TestClock) -> None:
    with open_shop(settings_for(database_url), clock, cards(good_for_days=30)) as shop:
        drink(shop, 3)
        shop.clock.forward(days=31)
        assert changed(posted(shop, returned())) == []
        assert figures(shop) == (0, 0, 0)
        assert changed(posted(shop, voided(of="b1", type_="return"))) == []
        assert figures(shop) == (12, 0, 0)
        assert card(shop)["stamps"] == 5
        run_jobs(shop.database, shop.clock())
        shop.prove()


def test_a_return_that_waited_for_its_purchase(cafe: Shop) -> None:
    assert cafe.post(returned(lines=[{"line": 1, "quantity": "1"}])).status_code == 202
    assert changed(drink(cafe, 3)) == [(1, 3, 5, 0)]
    assert card(cafe)["stamps"] == 4
    assert figures(cafe) == (8, 200, 0)


# --- guests ---------------------------------------------------------------------------------------------------------


def test_a_guest_s_stamps_come_with_the_claim(cafe: Shop) -> None:
    """On the card that is open then; what had come back before is off it at once."""
    guest = drink(cafe, 4, "g1", member=None)
    assert (guest["points"]["claimable"], guest["cards"]) == (216, [])
    posted(cafe, returned("b1", "g1", lines=[{"line": 1, "quantity": "1"}]))
    drink(cafe, 2)
    path = f"/v1/transactions/{guest['id']}/claim"
    claimed = cafe.http.post(path, json={"member": {"card": "900"}}).json()
    assert (claimed["points"]["earned"], claimed["taken_back"]) == (216, 54)
    assert changed(claimed) == [(1, 4, 8, 0), (1, -1, 7, 0)]
    assert figures(cafe) == (8 + 12, 350, 0)
    again = cafe.http.post(path, json={"member": {"card": "900"}}).json()
    assert (again["duplicate"], again["cards"]) == (True, [])
    assert changed(posted(cafe, returned("b2", "g1", lines=[{"line": 1, "quantity": "1"}]))) == [(1, -1, 6, 0)]
    assert changed(posted(cafe, voided("v1", "b1", "return"))) == [(1, 1, 7, 0)]


# --- reading --------------------------------------------------------------------------------------------------------


def test_members_see_their_own_cards(cafe: Shop) -> None:
    posted(cafe, purchase("first"))
    token = cafe.http.post("/v1/oauth/token", json={"member": {"card": "900"}}).json()["access_token"]
    (begun,) = cafe.client(token).get("/v1/me/cards").json()["items"]
    assert (begun["status"], begun["stamps"], begun["of"], begun["id"]) == ("new", 2, 10, None)
    drink(cafe, 1)
    mine = cafe.client(token).get("/v1/me/cards").json()
    assert mine == cafe.get(f"/v1/members/{member_of(cafe)}/cards")
    assert mine["items"][0]["stamps"] == 3


def test_events_tell_of_stamps_and_full_cards(cafe: Shop) -> None:
    drink(cafe, 7)
    posted(cafe, returned(lines=[{"line": 1, "quantity": "1"}]))
    drink(cafe, 3, "r2")
    rows = (
        select(OutboxEvent.topic, OutboxEvent.payload).where(OutboxEvent.topic.like("card.%")).order_by(OutboxEvent.id)
    )
    told = cafe.database.read(lambda session: session.execute(rows).all())
    assert [
        (topic, payload.get("added"), payload.get("stamps"), payload.get("released")) for topic, payload in told
    ] == [
        ("card.stamped", 7, 9, None),
        ("card.stamped", -1, 8, None),
        ("card.stamped", 2, 10, None),
        ("card.filled", None, None, 500),
        ("card.stamped", 1, 1, None),
    ]


def test_a_replay_of_what_was_published_is_what_was_granted(cafe: Shop) -> None:
    for number in range(4):
        drink(cafe, 3, f"r{number}")
    posted(cafe, returned("b1", "r1"))
    same = replayed(cafe.database, cafe.program_id, CAFE)
    assert same.all.published == same.all.draft
    assert same.rules["stamps:coffee"].draft.points == 600
    more = replayed(cafe.database, cafe.program_id, cards(points_per_stamp=60))
    assert more.all.draft.points - more.all.published.points == 120


# --- at once --------------------------------------------------------------------------------------------------------


def test_purchases_at_once_put_each_stamp_in_its_own_place(
    database_url: str, clock: TestClock, crowded: dict[str, int]
) -> None:
    """Forty coffees in twenty purchases at once: four cards of eight and ten, and the rest on the fifth."""
    with open_shop(settings_for(database_url, **crowded), clock, CAFE) as shop:
        drink(shop, 1, "first")
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda number: drink(shop, 2, f"r{number}"), range(20)))
        released = [each["released"] for answer in answers for each in answer["cards"]]
        assert Counter(released)[500] == 4
        found = card(shop)
        assert (found["number"], found["stamps"], found["filled"]) == (5, 3, 4)
        assert figures(shop) == (41 * 4 + 4 * 500, 150, 0)
        shop.prove()


# --- lives ----------------------------------------------------------------------------------------------------------


class Life:
    """What a member does in some weeks."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self.shop, self.chance, self.count = shop, random.Random(seed), 0
        self.bought: list[str] = []
        self.back: list[str] = []
        cup = {"code": "cup", "name": "Cup", "points": 60, "supplier": {"type": "own", "cost": 50}, "currency": "USD"}
        assert shop.http.post("/v1/rewards", json=cup).status_code == 201

    def act(self) -> None:
        self.count += 1
        match self.chance.choice(["buy", "buy", "buy", "spend", "return", "part", "undo", "wait"]):
            case "buy":
                drink(self.shop, self.chance.randint(1, 7), f"r{self.count}")
                self.bought.append(f"r{self.count}")
            case "return" | "part" as how if self.bought:
                lines = [{"line": 1, "quantity": "1"}] if how == "part" else None
                body = returned(f"b{self.count}", self.chance.choice(self.bought), lines=lines)
                answer = self.shop.post(self._now(body))
                if answer.status_code == 201:
                    self.back.append(f"b{self.count}")
                else:
                    assert answer.json()["code"] in ("nothing_to_return", "return_too_large"), answer.text
            case "undo" if self.back:
                of = self.back.pop(self.chance.randrange(len(self.back)))
                posted(self.shop, self._now(voided(f"v{self.count}", of, "return")))
            case "spend":
                order = {"member": {"card": "900"}, "reward": {"code": "cup"}, "immediate": True}
                key = {"Idempotency-Key": f"o{self.count}"}
                answer = self.shop.http.post("/v1/redemptions", json=order, headers=key)
                assert answer.status_code == 201 or answer.json()["code"] == "insufficient_points", answer.text
            case "wait":
                self.shop.clock.forward(days=self.chance.randint(1, 12))
            case _:
                pass

    def _now(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"occurred_at": self.shop.clock().isoformat()}


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_cards_and_points_agree(database_url: str, clock: TestClock, seed: int) -> None:
    """The points that are pending are those of the stamps on an open card, as of any instant, and the books hold."""
    terms = cards(good_for_days=20, most_per_day=9) | {"uploads": {"latest_days": None}}
    with open_shop(settings_for(database_url), clock, terms) as shop:
        life, past = Life(shop, seed), dict[str, tuple[int, int, int]]()
        drink(shop, 1, "first")
        for _ in range(40):
            life.act()
            found = card(shop)
            past[shop.clock().isoformat()] = figures(shop)
            assert figures(shop)[1] == (50 * found["stamps"] if found["status"] == "open" else 0)
            shop.clock.forward(seconds=1)
        for at, then in past.items():
            assert figures(shop, as_of=at, known_at=at) == then
        shop.prove()
        run_jobs(shop.database, shop.clock())
        shop.prove()
