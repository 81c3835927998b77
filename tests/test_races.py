"""What goes wrong in other systems when two things happen to one account at once. Gifts race in test_transfers.

Each race is run twice: with requests that are gathered and committed together, and with requests that each commit alone
and meet in the database.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from app.worker import run_jobs
from tests.conftest import settings_for
from tests.points import earn, entries
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase

TENDERED = TERMS | {"points_tender": {"value": {"amount": 1, "points": 1}}}


@pytest.fixture
def till(database_url: str, clock: TestClock, crowded: dict[str, int]) -> Iterator[Shop]:
    """A shop where a point pays 0.01, and a member with 100 points."""
    with open_shop(settings_for(database_url, **crowded), clock, TENDERED) as shop:
        assert shop.post(purchase("earned", 10_000)).status_code == 201
        yield shop


def write(shop: Shop, path: str, body: dict[str, Any] | None = None) -> Any:
    return shop.http.post(path, json=body, headers={"Idempotency-Key": uuid4().hex})


def check_out(shop: Shop, number: int) -> Any:
    """A basket paid with all 100 points."""
    return shop.post(purchase(f"paid-{number}", 100, tenders=[{"type": "points", "amount": 100}]))


def deduct(shop: Shop, _number: int) -> Any:
    """Staff takes all 100 points away."""
    body = {"member": {"card": "900"}, "points": -100, "class": "correction", "reason": "mistake"}
    return write(shop, "/v1/adjustments", body)


def test_an_admin_deducts_while_the_customer_checks_out(till: Shop) -> None:
    """Either has the points, never both: the other is told that they are missing."""
    tries = [(act, number) for number in range(6) for act in (check_out, deduct)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda each: each[0](till, each[1]), tries))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 422: 11}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {"insufficient_points"}
    assert till.get("/v1/members/lookup", card="900")["balance"]["available"] == 0
    till.prove()


def test_tills_that_take_the_same_points_at_once_take_them_once(till: Shop) -> None:
    """Twelve baskets, each paid with all 100 points: one is paid, and only one gets goods."""
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda number: check_out(till, number), range(12)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 422: 11}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {"insufficient_points"}
    assert till.get("/v1/members/lookup", card="900")["balance"]["available"] == 0
    till.prove()


def test_points_that_expire_while_they_are_spent_go_one_way(till: Shop) -> None:
    """Tills whose clock is at the last moment, and the job whose clock is past it: what is spent does not expire, what
    has expired is not spent."""
    members = [earn(till, f"r{card}", 100, card=card) for card in CARDS]
    gone = datetime(2027, 12, 1, 5, tzinfo=UTC)
    till.clock.now = gone - timedelta(seconds=1)

    def spend(card: str) -> int:
        """Three times 40 of 100 points, one basket after the other; answers how many were paid."""
        body = purchase(total=40, member={"card": card}, tenders=[{"type": "points", "amount": 40}])
        body |= {"occurred_at": till.clock().isoformat()}
        statuses = [till.post(body | {"external_id": f"{card}-{n}"}).status_code for n in range(3)]
        assert set(statuses) <= {201, 422}
        return statuses.count(201)

    with ThreadPoolExecutor(9) as pool:
        tills = [pool.submit(spend, card) for card in CARDS]
        pool.submit(run_jobs, till.database, gone).result()
        paid = [each.result() for each in tills]
    till.clock.now = gone
    run_jobs(till.database, gone)
    for member, number in zip(members, paid, strict=True):
        assert number <= 2
        assert [entry.points for entry in entries(till, member, "expiration")] == [40 * number - 100]
    till.prove()


CARDS = [str(card) for card in range(901, 909)]


def test_what_is_called_off_gives_back_its_own_points_and_no_others(till: Shop) -> None:
    """Orders are called off while purchases add points: nothing that came meanwhile is lost or given twice."""
    pen = {"code": "pen", "name": "Pen", "points": 10, "supplier": {"type": "own"}, "currency": "USD"}
    assert till.http.post("/v1/rewards", json=pen).status_code == 201
    order = {"member": {"card": "900"}, "reward": {"code": "pen"}}
    orders = [write(till, "/v1/redemptions", order).json()["id"] for _ in range(10)]

    def call_off(number: int) -> Any:
        return write(till, f"/v1/redemptions/{orders[number]}/cancellation")

    def buy(number: int) -> Any:
        return till.post(purchase(f"more-{number}", 700))

    tries = [(act, number) for number in range(10) for act in (call_off, buy, call_off)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda each: each[0](each[1]), tries))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 409: 10, 201: 10}
    assert till.get("/v1/members/lookup", card="900")["balance"] == {
        "available": 170,
        "held": 0,
        "pending": 0,
        "debt": 0,
    }
    till.prove()
