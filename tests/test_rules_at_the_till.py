"""Earning rules from end to end: what a purchase earns by them is deferred with it, explained, and taken back."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest

from app.programs import Terms
from tests.conftest import settings_for
from tests.points import publish
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned, voided

DAIRY = {
    "code": "triple_dairy",
    "name": "Triple points on dairy",
    "gives": {"type": "multiply", "times": 3},
    "on": {"departments": ["Dairy"]},
}
SUNDAY = {
    "code": "sunday",
    "name": "Fifty points on Sundays",
    "gives": {"type": "fixed", "points": 50},
    "when": {"weekdays": ["sun"], "minimum_spend": 1450},
}
ONLINE = {
    "code": "online",
    "name": "Double points in the app",
    "gives": {"type": "multiply", "times": 2},
    "when": {"channels": ["app"]},
}
RULED = TERMS | {"rules": [DAIRY, SUNDAY, ONLINE]}

LINES = [
    {"line": 1, "product": "milk", "department": "Dairy", "quantity": "3", "amount": 450},
    {"line": 2, "product": "bread", "department": "Bakery", "quantity": "1", "amount": 1000},
]
REASONS = [
    {"rule": "base", "base": 1450, "points": 14},
    {"rule": "triple_dairy", "base": 450, "points": 9},
    {"rule": "sunday", "base": 1450, "points": 50},
]


def shopping(external_id: str = "r1", **changes: Any) -> dict[str, Any]:
    """14.50 on a Sunday morning, 4.50 of it for milk."""
    return purchase(external_id, 1450, lines=LINES, **changes)


@pytest.fixture
def ruled(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, RULED) as shop:
        yield shop
        shop.prove()


def balance(shop: Shop, member: str) -> int:
    found: int = shop.get(f"/v1/members/{member}/balance")["balance"]["available"]
    return found


def test_a_purchase_earns_by_its_rules_and_says_so(ruled: Shop) -> None:
    answer = ruled.post(shopping()).json()
    assert answer["points"]["earned"] == 73
    assert answer["points"]["reasons"] == REASONS
    assert answer["balance"]["available"] == 73
    again = ruled.post(shopping()).json()
    assert again["duplicate"]
    assert again["points"] == answer["points"]


def test_bonus_points_defer_with_their_purchase(ruled: Shop) -> None:
    """73 points worth 0.73, of which four in five are used, get their share of the 14.50."""
    answer = ruled.post(shopping()).json()
    expected = Fraction(73 * 4, 5)
    share = round(1450 * expected / (1450 + expected))
    assert answer["postings"] == [
        {"debit": "4000", "credit": "2100", "amount": share, "currency": "USD", "cause": "accrual"}
    ]


def test_any_past_purchase_is_explained(ruled: Shop) -> None:
    """Every rule of its terms, though others hold now."""
    ruled.post(shopping())
    publish(ruled, TERMS)
    found = ruled.get("/v1/transactions/store-1/r1")
    assert found["explanation"] == [
        {"name": None, "rounding": "down", "why": None, "capped": False} | REASONS[0],
        {"name": DAIRY["name"], "rounding": "down", "why": None, "capped": False} | REASONS[1],
        {"name": SUNDAY["name"], "rounding": None, "why": None, "capped": False} | REASONS[2],
        {"rule": "online", "name": ONLINE["name"], "base": 0, "points": 0}
        | {"rounding": "down", "why": "channel", "capped": False},
    ]
    ruled.post(returned())
    assert ruled.get("/v1/transactions/store-1/b1", kind="return")["explanation"] == []


def test_a_dry_run_says_what_the_purchase_then_earns(ruled: Shop) -> None:
    foreseen = ruled.post(shopping(channel="app"), dry_run=True).json()
    done = ruled.post(shopping(channel="app")).json()
    assert foreseen["points"] == done["points"]
    assert done["points"]["earned"] == 87
    explained = ruled.get("/v1/transactions/store-1/r1")["explanation"]
    assert (foreseen["explanation"], done["explanation"]) == (explained, None)
    assert sum(each["points"] for each in explained) == 87


def test_returns_take_back_what_rules_gave(ruled: Shop) -> None:
    """A bottle, which misses the minimum of the Sunday too; then the rest; then nothing is left."""
    member = ruled.post(shopping()).json()["member"]["id"]
    back = ruled.post(returned(lines=[{"line": 1, "quantity": "1"}])).json()
    assert back["points"]["earned"] == -(1 + 3 + 50)
    assert balance(ruled, member) == 13 + 6
    assert ruled.post(returned("b2", lines=[{"line": 2, "quantity": "1"}])).json()["points"]["earned"] == -10
    assert ruled.post(returned("b3")).json()["points"]["earned"] == -9
    assert balance(ruled, member) == 0


def test_a_void_takes_back_all_of_it(ruled: Shop) -> None:
    member = ruled.post(shopping()).json()["member"]["id"]
    assert ruled.post(voided()).json()["points"]["earned"] == -73
    assert balance(ruled, member) == 0


def test_returns_are_by_the_rules_of_the_purchase(ruled: Shop) -> None:
    """Not by today's, whatever became of them."""
    ruled.post(shopping())
    publish(ruled, TERMS | {"rules": [DAIRY | {"gives": {"type": "fixed", "points": 5}}]})
    assert ruled.post(returned()).json()["points"]["earned"] == -73


@pytest.mark.parametrize("back", [None, {"line": 1, "quantity": "1"}])
def test_a_guests_purchase_earns_by_its_rules_when_it_is_claimed(ruled: Shop, back: dict[str, Any] | None) -> None:
    """What came back before goes with its rules' points."""
    guest = ruled.post(shopping(member=None)).json()
    assert guest["points"]["claimable"] == 73
    if back:
        ruled.post(returned(lines=[back]))
    claimed = ruled.http.post(
        f"/v1/transactions/{guest['id']}/claim",
        json={"member": {"card": "900"}},
        headers={"Idempotency-Key": "claim"},
    ).json()
    assert claimed["points"]["earned"] == 73
    assert claimed["taken_back"] == (54 if back else 0)
    assert claimed["balance"]["available"] == (19 if back else 73)
    ruled.post(returned("rest"))
    assert balance(ruled, claimed["member"]["id"]) == 0


def test_a_return_that_came_first_is_applied_by_the_rules(ruled: Shop) -> None:
    ruled.post(returned(lines=[{"line": 1, "quantity": "3"}]))
    foreseen = ruled.post(shopping(), dry_run=True).json()
    done = ruled.post(shopping()).json()
    assert foreseen["balance"] == done["balance"]
    assert done["balance"]["available"] == 10, "without the milk the minimum of the Sunday is missed"


def test_terms_with_rules_are_refused_with_every_finding(ruled: Shop) -> None:
    wrong = DAIRY | {"gives": {"type": "multiply", "times": 0}, "when": {"weekdays": ["someday"]}}
    answer = ruled.client("operator").post(
        f"/v1/programs/{ruled.program_id}/terms", json=TERMS | {"rules": [SUNDAY, wrong]}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert [error["pointer"] for error in answer.json()["errors"]] == [
        "#/rules/1/gives/times",
        "#/rules/1/when/weekdays/0",
    ]


def test_terms_of_before_there_were_rules_have_none() -> None:
    assert Terms.model_validate(TERMS).rules == []
