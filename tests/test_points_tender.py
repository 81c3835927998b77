"""Paying with points at the till: what may be tendered, what it costs, and what the rest of the basket is worth."""

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.programs import (
    Basket,
    PointsTender,
    Tender,
    Terms,
    Version,
    cash_part,
    check_basket,
    check_points_tender,
    consideration,
    earn,
    net_paid_with_points,
    stand_alone_prices,
    tax_of,
    tender_of,
)
from app.transactions.rules import Judged, price
from tests.baskets import OCCASION, basket, baskets, examples, line, rules, terms


def offering(**policy: Any) -> Terms:
    """100 points pay 1.00 at the till, unless told otherwise."""
    return terms(points_tender={"value": {"amount": 100, "points": 100}} | policy)


CHEAP = {"amount": 2, "points": 3}


TENDERED: dict[str, tuple[dict[str, Any], Basket, int]] = {
    # under these terms, this basket: costs so many points
    "8.00 of 10.00 is 800 points": ({}, basket(line(1000), points=800), 800),
    "all of it": ({}, basket(line(1000), points=1000), 1000),
    "a cent is a point": ({}, basket(line(1000), points=1), 1),
    "three points for two cents": ({"value": CHEAP}, basket(line(1000), points=800), 1200),
    "points worth more than a cent": ({"value": {"amount": 5, "points": 1}}, basket(line(1000), points=800), 160),
    "the minimum itself": ({"minimum": 500}, basket(line(1000), points=500), 500),
    "a whole number of steps": ({"step": 250}, basket(line(1000), points=750), 750),
    "half of the basket at most, and half it is": (
        {"largest_share": {"numerator": 1, "denominator": 2}},
        basket(line(1000), points=500),
        500,
    ),
    "points from two cards count together": (
        {"minimum": 500},
        Basket((line(1000),), (Tender("points", 300), Tender("cash", 500), Tender("points", 200)), 1000),
        500,
    ),
}


@pytest.mark.parametrize(("policy", "bought", "points"), TENDERED.values(), ids=TENDERED)
def test_points_pay(policy: dict[str, Any], bought: Basket, points: int) -> None:
    rule = offering(**policy)
    assert check_points_tender(bought, rule) == []
    amount = sum(tender.amount for tender in bought.tenders if tender.type == "points")
    assert tender_of(bought, rule) == PointsTender(amount, points)


HALF = {"numerator": 1, "denominator": 2}
REFUSED: dict[str, tuple[dict[str, Any], int, list[tuple[str, str]]]] = {
    # under these terms, so much of 10.00 in points: findings
    "a cent below the minimum": ({"minimum": 500}, 499, [("points_tender_below_minimum", "500")]),
    "between two steps": ({"step": 250}, 600, [("points_tender_not_in_steps", "500 or 750 would do")]),
    "below the first step": ({"step": 250}, 100, [("points_tender_not_in_steps", ": 250 would do")]),
    "half a point": ({"value": CHEAP}, 799, [("points_tender_not_whole", "798 or 800 would do")]),
    "less than a point": (
        {"value": {"amount": 5, "points": 1}},
        3,
        [("points_tender_below_minimum", "1"), ("points_tender_not_whole", ": 5 would do")],
    ),
    "a cent above half": ({"largest_share": HALF}, 501, [("points_tender_above_share", "500")]),
    "everything at once": (
        {"largest_share": {"numerator": 1, "denominator": 100}, "minimum": 100, "step": 50},
        60,
        [
            ("points_tender_below_minimum", "100"),
            ("points_tender_not_in_steps", "50 or 100"),
            ("points_tender_above_share", "10"),
        ],
    ),
}


@pytest.mark.parametrize(("policy", "amount", "findings"), REFUSED.values(), ids=REFUSED)
def test_what_points_cannot_pay(policy: dict[str, Any], amount: int, findings: list[tuple[str, str]]) -> None:
    """Every reason at once, at the tender's place, with what would do instead."""
    found = check_points_tender(basket(line(1000), gift_card=100, points=amount), offering(**policy))
    assert [(finding.pointer, finding.code) for finding in found] == [
        ("#/tenders/1/amount", code) for code, _ in findings
    ]
    for finding, (_, hint) in zip(found, findings, strict=True):
        assert hint in finding.detail


def test_points_do_not_pay_unless_terms_offer_it() -> None:
    bought = basket(line(1000), points=800)
    assert [found.code for found in check_points_tender(bought, terms())] == ["points_tender_not_offered"]


def test_a_basket_without_points_is_nobodys_tender() -> None:
    for bought in (basket(line(1000)), Basket((line(0),), (Tender("points", 0),), 0)):
        for rule in (terms(), offering()):
            assert check_points_tender(bought, rule) == []
            assert tender_of(bought, rule) is None


@examples
@given(
    st.integers(1, 10**9),
    st.builds(lambda amount, points: {"amount": amount, "points": points}, st.integers(1, 60), st.integers(1, 60)),
    st.integers(1, 60),
)
def test_amounts_that_would_do_do(amount: int, value: dict[str, int], step: int) -> None:
    """Who tenders what a refusal suggests is not refused again, and nothing nearer would have done."""
    rule = offering(value=value, step=step)
    goods = line(2 * 10**9)
    found = [each for each in check_points_tender(basket(goods, points=amount), rule) if "would do" in each.detail]
    for finding in found:
        hints = [int(word) for word in finding.detail.rpartition(": ")[2].split() if word.isdigit()]
        for hint in hints:
            assert finding.code not in {each.code for each in check_points_tender(basket(goods, points=hint), rule)}
        assert all(hint < amount for hint in hints[:-1])
        assert amount < hints[-1]


# --- what the rest is worth -----------------------------------------------------------------------------------------


def test_points_and_cash_worked_example() -> None:
    """100.00 of goods for 4,000 points worth 80.00 and 20.00 in cash: only the cash earns, and only it is shared."""
    rule = offering(value={"amount": 2000, "points": 1000}).model_copy(
        update={
            "point_value": terms(point_value={"amount": 2000, "points": 1000}).point_value,
            "redemption_rate": terms(redemption_rate={"numerator": 2, "denominator": 3}).redemption_rate,
        }
    )
    bought = basket(line(10_000), points=8000)
    assert tender_of(bought, rule) == PointsTender(8000, 4000)
    assert cash_part(bought) == Fraction(1, 5)
    assert stand_alone_prices(bought, rule) == [2000]
    version = Version(UUID(int=1), 1, datetime(2026, 1, 1, tzinfo=UTC), rule)
    judged = Judged(version, OCCASION, earn(bought, rule, OCCASION), tender_of(bought, rule))
    priced = price(UUID(int=2), bought, judged, granted=True)
    assert priced.earning.points == 20
    assert (priced.consideration, priced.allocation.points, priced.allocation.goods) == (2000, 26, (1974,))
    assert net_paid_with_points(bought, rule) == 8000


@pytest.mark.parametrize(
    ("bought", "included", "money", "points"),
    [
        # net and tax of what was paid in money; net of what was paid with points
        pytest.param(basket(line(11_300, tax=1300), points=5650), True, (5000, 650), 5000, id="tax inside, half each"),
        pytest.param(
            basket(line(10_000, tax=1300), tax_on_top=True, points=5650), False, (5000, 650), 5000, id="tax on top"
        ),
        pytest.param(basket(line(11_300, tax=1300), points=11_300), True, (0, 0), 10_000, id="all in points"),
        pytest.param(basket(line(11_300, tax=1300)), True, (10_000, 1300), 0, id="all in money"),
        pytest.param(basket(line(2, tax=1), points=1), True, (1, 0), 0, id="half a cent each: the net price gets it"),
        pytest.param(basket(line(0)), True, (0, 0), 0, id="nothing bought"),
    ],
)
def test_price_is_that_of_the_part_paid_in_money(
    bought: Basket, included: bool, money: tuple[int, int], points: int
) -> None:
    rule = terms(prices_include_tax=included)
    assert check_basket(bought, rule) == []
    assert (consideration(bought, rule), tax_of(bought)) == money
    assert net_paid_with_points(bought, rule) == points


@examples
@given(st.data(), rules)
def test_nothing_is_lost_between_points_and_money(data: st.DataObject, rule: Terms) -> None:
    """Net price and tax of the part paid in money are what was paid in money; the net parts are the net price."""
    bought = data.draw(baskets(rule))
    points = data.draw(st.integers(0, bought.total))
    split = Basket(bought.lines, (Tender("points", points), Tender("cash", bought.total - points)), bought.total)
    assert consideration(split, rule) + tax_of(split) == bought.total - points
    assert consideration(split, rule) + net_paid_with_points(split, rule) == consideration(bought, rule)
    assert min(consideration(split, rule), tax_of(split), net_paid_with_points(split, rule)) >= 0
    assert sum(stand_alone_prices(split, rule)) >= consideration(split, rule) - 1
