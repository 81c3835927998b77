"""Limits of earning rules over time: in the order in which purchases arrive, under concurrency, and explained later."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned
from tests.test_gathered import another

VISIT = {
    "code": "visit",
    "name": "Fifty points a visit, a hundred and twenty a day",
    "gives": {"type": "fixed", "points": 50},
    "limits": [{"per": "day", "points": 120}],
}
WELCOME = {
    "code": "welcome",
    "name": "Welcome",
    "gives": {"type": "fixed", "points": 500},
    "limits": [{"per": "lifetime", "times": 1}],
}
LUNCH = {
    "code": "lunch",
    "name": "Seven points for lunch, once in twelve hours",
    "gives": {"type": "fixed", "points": 7},
    "cooldown_hours": 12,
}
LIMITED = TERMS | {
    "rules": [VISIT, WELCOME, LUNCH],
    "points_tender": {"value": {"amount": 1000, "points": 1000}},
}


@pytest.fixture
def limited(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, LIMITED) as shop:
        yield shop
        shop.prove()


def given(answer: dict[str, Any]) -> dict[str, int]:
    """Points by rule, less the base."""
    return {each["rule"]: each["points"] for each in answer["points"]["reasons"] if each["rule"] != "base"}


def test_limits_leave_less_with_each_purchase(limited: Shop) -> None:
    posted = [given(limited.post(purchase(f"r{n}")).json()) for n in range(4)]
    assert posted == [{"visit": 50, "welcome": 500, "lunch": 7}, {"visit": 50}, {"visit": 20}, {}]


def test_in_one_batch_as_one_by_one(limited: Shop) -> None:
    results = limited.batch([purchase(f"r{n}") for n in range(4)])
    posted = [given(each["transaction"]) for each in results]
    assert posted == [{"visit": 50, "welcome": 500, "lunch": 7}, {"visit": 50}, {"visit": 20}, {}]


def test_each_member_has_limits_of_their_own(limited: Shop) -> None:
    for card in ("900", "901"):
        answer = limited.post(purchase(f"r{card}", member={"card": card})).json()
        assert given(answer) == {"visit": 50, "welcome": 500, "lunch": 7}


def test_a_purchase_that_comes_late_counts_in_its_own_period(limited: Shop) -> None:
    """The day before has room of its own, and so has the lunch of that day."""
    for n in range(3):
        limited.post(purchase(f"r{n}"))
    late = limited.post(purchase("late", occurred_at="2026-11-21T12:00:00-05:00")).json()
    assert given(late) == {"visit": 50, "lunch": 7}
    later = limited.post(purchase("later", occurred_at="2026-11-20T12:00:00-05:00")).json()
    assert given(later) == {"visit": 50, "lunch": 7}
    between = limited.post(purchase("between", occurred_at="2026-11-20T23:00:00-05:00")).json()
    assert given(between) == {"visit": 50}, "eleven hours after the one and thirteen before the other"


def test_a_cooldown_ends_to_the_second(limited: Shop, clock: TestClock) -> None:
    clock.forward(days=1)
    assert "lunch" in given(limited.post(purchase("r1", occurred_at="2026-11-22T06:00:00-05:00")).json())
    assert "lunch" not in given(limited.post(purchase("r2", occurred_at="2026-11-22T17:59:59-05:00")).json())
    assert "lunch" in given(limited.post(purchase("r3", occurred_at="2026-11-22T18:00:00-05:00")).json())


def test_what_comes_back_makes_no_room(limited: Shop) -> None:
    """Or somebody would buy and return until something is left."""
    limited.post(purchase("r1"))
    answer = limited.post(returned("b1", "r1")).json()
    assert answer["points"]["earned"] == -(10 + 50 + 500 + 7)
    assert given(limited.post(purchase("r2")).json()) == {"visit": 50}


def test_what_was_capped_is_taken_back_capped(limited: Shop) -> None:
    for n in range(3):
        limited.post(purchase(f"r{n}"))
    answer = limited.post(returned("b2", "r2")).json()
    assert answer["points"]["earned"] == -(10 + 20)


def test_a_refused_purchase_uses_nothing_of_a_limit(limited: Shop) -> None:
    tenders = [{"type": "points", "amount": 500}, {"type": "cash", "amount": 500}]
    assert limited.post(purchase("r1", tenders=tenders)).json()["code"] == "insufficient_points"
    assert given(limited.post(purchase("r2")).json()) == {"visit": 50, "welcome": 500, "lunch": 7}


def test_a_repeated_purchase_counts_once(limited: Shop) -> None:
    first = limited.post(purchase("r1")).json()
    again = limited.post(purchase("r1")).json()
    assert again["duplicate"]
    assert again["points"] == first["points"]
    assert given(limited.post(purchase("r2")).json()) == {"visit": 50}


def test_a_dry_run_sees_limits_and_uses_nothing(limited: Shop) -> None:
    for _ in range(2):
        answer = limited.post(purchase("r1"), dry_run=True).json()
        assert given(answer) == {"visit": 50, "welcome": 500, "lunch": 7}
    limited.post(purchase("r1"))
    assert given(limited.post(purchase("r2"), dry_run=True).json()) == {"visit": 50}


def test_limits_of_the_time_are_explained_later(limited: Shop) -> None:
    for n in range(4):
        limited.post(purchase(f"r{n}"))
    found = [
        {each["rule"]: (each["points"], each["why"], each["capped"]) for each in explanation[1:]}
        for explanation in (limited.get(f"/v1/transactions/store-1/r{n}")["explanation"] for n in range(4))
    ]
    first = {"visit": (50, None, False), "welcome": (500, None, False), "lunch": (7, None, False)}
    gone = {"welcome": (0, "limit", False), "lunch": (0, "cooldown", False)}
    assert found == [
        first,
        gone | {"visit": (50, None, False)},
        gone | {"visit": (20, None, True)},
        gone | {"visit": (0, "limit", False)},
    ]


def test_limits_hold_for_claims_of_guests_purchases(limited: Shop) -> None:
    """They count when the purchase is somebody's; what the claim gave is what a return takes back."""
    ids = [limited.post(purchase(f"g{n}", member=None)).json()["id"] for n in range(3)]
    claims = []
    for number, id_ in enumerate([*ids, ids[2]]):
        answer = limited.http.post(
            f"/v1/transactions/{id_}/claim",
            json={"member": {"card": "900"}},
            headers={"Idempotency-Key": f"claim-{number}"},
        )
        claims.append(answer.json())
    assert [given(each) for each in claims] == [{"visit": 50, "welcome": 500, "lunch": 7}, {"visit": 50}] + [
        {"visit": 20}
    ] * 2
    assert [each["points"]["earned"] for each in claims] == [567, 60, 30, 30]
    assert claims[3]["duplicate"]
    assert limited.post(returned("b2", "g2")).json()["points"]["earned"] == -30
    assert given(limited.post(purchase("r1")).json()) == {}


def test_limits_are_never_exceeded_by_many_tills_at_once(
    database_url: str, clock: TestClock, crowded: dict[str, int]
) -> None:
    """Thirty purchases of one member at the same moment, at two applications: together they get what one limit
    leaves."""
    with ExitStack() as stack:
        shop = stack.enter_context(open_shop(settings_for(database_url, **crowded), clock, LIMITED))
        both = shop, stack.enter_context(another(shop, database_url))
        with ThreadPoolExecutor(8) as pool:
            posted = pool.map(lambda n: both[n % 2].post(purchase(f"r{n}")), range(30))
            answers = [answer.json() for answer in posted]
        sums = {code: sum(given(answer).get(code, 0) for answer in answers) for code in ("visit", "welcome", "lunch")}
        assert sums == {"visit": 120, "welcome": 500, "lunch": 7}
        counted = text("SELECT rule, period, points, times FROM rule_use ORDER BY rule, period")
        used = shop.database.read(lambda session: session.execute(counted).all())
        assert [tuple(row) for row in used] == [
            ("lunch", "", 7, 1),
            ("lunch", "12h:41558", 7, 1),
            ("visit", "2026-11-22", 120, 3),
            ("welcome", "", 500, 1),
        ]
        shop.prove()


@pytest.mark.parametrize(
    "change", ["points = -1", "times = 0", "last_at = NULL", "member_id = '00000000-0000-0000-0000-000000000000'"]
)
def test_the_database_refuses_what_cannot_be(limited: Shop, change: str) -> None:
    limited.post(purchase())
    with pytest.raises(DatabaseError):
        limited.database.write(lambda session: session.execute(text(f"UPDATE rule_use SET {change}")))  # ours
