"""Tiers by units of certain goods: a hotel counts nights."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import settings_for
from tests.shop import Shop, TestClock, open_shop, purchase, returned, voided
from tests.test_replay_tiers import moved
from tests.test_tiers import YEARLY, check_history, code, history, tier

LEVELS = [
    {"code": "silver", "name": "Silver", "qualification": {"units": 3}},
    {"code": "gold", "name": "Gold", "qualification": {"units": 6}},
]
NIGHTS: dict[str, Any] = YEARLY | {
    "tiers": {"levels": LEVELS, "counted": {"departments": ["ROOMS"]}},
    "earning": {"points": 1, "per": 100, "excluded": {"products": ["staff"]}},
}


@pytest.fixture
def hotel(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, NIGHTS) as shop:
        yield shop
        check_history(shop)
        shop.prove()


def stay(external_id: str, nights: str, price: int = 10_000, product: str = "double", **changes: Any) -> dict[str, Any]:
    """A stay, with a breakfast that is no night."""
    room = {"line": 1, "product": product, "department": "ROOMS", "quantity": nights, "amount": price}
    breakfast = {"line": 2, "product": "egg", "department": "KITCHEN", "quantity": "2", "amount": 500}
    total = price + 500
    tenders = [{"type": "cash", "amount": total}]
    return purchase(external_id, total, lines=[room, breakfast], tenders=tenders, **changes)


def post(shop: Shop, body: dict[str, Any], **query: Any) -> dict[str, Any]:
    answer = shop.post(body, **query)
    assert answer.status_code in (200, 201), answer.text
    told: dict[str, Any] = answer.json()["tier"]
    return told


def nights(shop: Shop) -> int:
    counted: int = tier(shop)["counted"]["units"]
    return counted


def test_nights_lift_members(hotel: Shop) -> None:
    assert post(hotel, stay("r1", "2"))["after"] is None
    told = tier(hotel)
    assert told["counted"] == {"points": 105, "spend": 10_500, "visits": 1, "units": 2}
    missing = {"need": "any", "points": None, "spend": None, "visits": None, "units": 1}
    assert told["next"]["missing"] == missing
    assert post(hotel, stay("r2", "1"), dry_run=True)["after"] == "silver"
    assert post(hotel, stay("r2", "1"))["after"] == "silver"
    assert post(hotel, stay("r3", "3"))["after"] == "gold"
    assert [change[1] for change in history(hotel)] == ["silver", "gold"]


@pytest.mark.parametrize(
    ("quantity", "price", "product", "counted"),
    [
        ("3", 30_000, "double", 3),
        ("2.5", 25_000, "double", 2),  # whole units
        ("3", 0, "double", 0),  # what earns nothing counts for nothing
        ("3", 30_000, "staff", 0),
    ],
)
def test_whole_units_of_what_earns_count(hotel: Shop, quantity: str, price: int, product: str, counted: int) -> None:
    post(hotel, stay("r1", quantity, price, product))
    assert nights(hotel) == counted


def test_nights_follow_returns(hotel: Shop) -> None:
    """By line, by amount (so much of all that is left), whole, and back again when the return is voided."""
    post(hotel, stay("r1", "4", 40_000))
    one = returned("b1", "r1", lines=[{"line": 1, "quantity": "1"}])
    assert (post(hotel, one)["after"], nights(hotel)) == ("silver", 3)
    half = returned("b2", "r1", total=15_250)
    assert (post(hotel, half)["after"], nights(hotel)) == (None, 1)
    assert (post(hotel, voided("v1", "b2", "return"))["after"], nights(hotel)) == ("silver", 3)
    assert (post(hotel, returned("b3", "r1"))["after"], nights(hotel)) == (None, 0)


def test_in_one_batch_as_one_by_one(hotel: Shop) -> None:
    bodies = [stay("r1", "2"), stay("r2", "4"), returned("b1", "r2", lines=[{"line": 1, "quantity": "2"}])]
    results = hotel.batch([*bodies, voided("v1", "r1")])
    assert [each["transaction"]["tier"]["after"] for each in results] == [None, "gold", "silver", None]
    assert nights(hotel) == 2


def test_a_claimed_stay_counts_the_nights_that_are_left(hotel: Shop) -> None:
    guest = hotel.post(stay("g1", "4", member=None)).json()["id"]
    assert hotel.post(returned("b1", "g1", lines=[{"line": 1, "quantity": "1"}])).status_code == 201
    claim = {"member": {"card": "900"}}
    answer = hotel.http.post(f"/v1/transactions/{guest}/claim", json=claim, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 201, answer.text
    assert (code(hotel), nights(hotel)) == ("silver", 3)


def test_a_window_that_moves_reads_others_when_nights_may_be_enough(database_url: str, clock: TestClock) -> None:
    moving = NIGHTS | {"tiers": NIGHTS["tiers"] | {"window": {"type": "rolling", "days": 30}}}
    with open_shop(settings_for(database_url), clock, moving) as shop:
        post(shop, stay("r1", "2"))
        clock.forward(days=20)
        at = clock().isoformat()
        assert post(shop, stay("r2", "1", occurred_at=at))["after"] == "silver"
        clock.forward(days=20)
        assert code(shop) is None
        assert post(shop, stay("r3", "1", occurred_at=clock().isoformat()))["after"] is None
        assert nights(shop) == 2
        check_history(shop)
        shop.prove()


def test_a_replay_counts_nights_by_the_drafts_goods(hotel: Shop) -> None:
    post(hotel, stay("r1", "4"))
    post(hotel, returned("b1", "r1", lines=[{"line": 1, "quantity": "1"}]))
    hotel.clock.forward(hours=1)
    breakfasts = NIGHTS | {"tiers": NIGHTS["tiers"] | {"counted": {"departments": ["ROOMS", "KITCHEN"]}}}
    assert moved(hotel, NIGHTS) == ({(None, "silver"): 1}, {(None, "silver"): 1})
    assert moved(
        hotel, breakfasts | {"tiers": breakfasts["tiers"] | {"levels": [LEVELS[1] | {"qualification": {"units": 5}}]}}
    ) == (
        {(None, "silver"): 1},
        {(None, "gold"): 1},
    )
