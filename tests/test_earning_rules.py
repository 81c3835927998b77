"""What earns, and how much; and what a basket is worth. Tables without a database.

Named after what other loyalty systems got wrong.
"""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.programs import (
    Basket,
    Earning,
    Line,
    Reason,
    Tender,
    Terms,
    check_basket,
    consideration,
    earn,
    stand_alone_prices,
    tax_of,
)
from tests.baskets import OCCASION, basket, baskets, examples, line, rules, terms

# --- what earns -----------------------------------------------------------------------------------------------------


BOUGHT_AND_EARNED: dict[str, tuple[dict[str, Any], Basket, int, int]] = {
    # under these rules, this basket: the earning base, the points
    "10.99 earns ten points, its cents nothing": ({}, basket(line(1099)), 1099, 10),
    "0.99 earns nothing, with its reason": ({}, basket(line(99)), 99, 0),
    "five points per 2.00": ({"points": 5, "per": 200}, basket(line(1099)), 1099, 27),
    "ten points per cent: more points than money": ({"points": 10, "per": 1}, basket(line(1099)), 1099, 10_990),
    # discounts
    "discounts ignored: not here": ({}, basket(line(2250, discount=250)), 2000, 20),
    "a line given away earns nothing": ({}, basket(line(1000, discount=1000)), 0, 0),
    "0.20 + 0.00 + 0.80 is 1.00, exactly": (
        {},
        basket(line(30, discount=10), line(20, discount=20), line(80)),
        100,
        1,
    ),
    # exclusions
    "gift-card sales earn: not here": (
        {"excluded": {"departments": ["Gift cards"]}},
        basket(line(5000, department="Gift cards"), line(1000)),
        1000,
        10,
    ),
    "a department is spelled as the till sends it": (
        {"excluded": {"departments": ["Gift cards"]}},
        basket(line(5000, department="GIFT CARDS")),
        5000,
        50,
    ),
    "an excluded category": (
        {"excluded": {"categories": ["Tobacco"]}},
        basket(line(900, category="Tobacco"), line(100, category="Tea")),
        100,
        1,
    ),
    "an excluded product: a bottle's deposit": (
        {"excluded": {"products": ["deposit"]}},
        basket(line(25, product="deposit"), line(125)),
        125,
        1,
    ),
    "everything is excluded": (
        {"excluded": {"departments": ["Food"], "products": ["deposit"]}},
        basket(line(25, product="deposit", department="Drinks"), line(125)),
        0,
        0,
    ),
    "a line without a department is not excluded": (
        {"excluded": {"departments": ["Food"]}},
        basket(line(500, department=None)),
        500,
        5,
    ),
    # minimum spend
    "a cent below the minimum earns nothing": ({"minimum_spend": 2000}, basket(line(1999)), 0, 0),
    "the minimum itself earns on all of it": ({"minimum_spend": 2000}, basket(line(2000)), 2000, 20),
    "what does not earn does not help over the minimum": (
        {"minimum_spend": 2000, "excluded": {"categories": ["Tobacco"]}},
        basket(line(1500), line(1000, category="Tobacco")),
        0,
        0,
    ),
    "nor does what a gift card paid": ({"minimum_spend": 2000}, basket(line(2250), gift_card=251), 0, 0),
    # roundings
    "10.5 points rounded down": ({"rounding": "down"}, basket(line(1050)), 1050, 10),
    "10.5 points, half to even": ({"rounding": "half_even"}, basket(line(1050)), 1050, 10),
    "11.5 points, half to even": ({"rounding": "half_even"}, basket(line(1150)), 1150, 12),
    "10.5 points, half up": ({"rounding": "half_up"}, basket(line(1050)), 1050, 11),
    "10.49 points, half up": ({"rounding": "half_up"}, basket(line(1049)), 1049, 10),
    "10.01 points rounded up": ({"rounding": "up"}, basket(line(1001)), 1001, 11),
    "rounded once per transaction, not per line": ({}, basket(line(50), line(50), line(50)), 150, 1),
    # tenders
    "2.50 paid by gift card does not earn": ({}, basket(line(2250), gift_card=250), 2000, 20),
    "nor by store credit": ({}, basket(line(2250), store_credit=250), 2000, 20),
    "points on the part paid by points: not here": ({}, basket(line(10_000), points=8000), 2000, 20),
    "all paid by points": ({}, basket(line(10_000), points=10_000), 0, 0),
    "points earn points where terms say so": (
        {"non_earning_tenders": ["gift_card"]},
        basket(line(10_000), points=8000),
        10_000,
        100,
    ),
    "paying a cent by points does not lose all points": ({}, basket(line(2250), points=1), 2249, 22),
    "all paid by gift card": ({}, basket(line(2250), gift_card=2250), 0, 0),
    "several tenders that do not earn": ({}, basket(line(2250), gift_card=250, points=1000), 1000, 10),
    "a bank card earns like cash": ({}, basket(line(2250), card=2000), 2250, 22),
    "gift cards earn where terms say so": ({"non_earning_tenders": []}, basket(line(2250), gift_card=250), 2250, 22),
    "a gift card pays for all lines in proportion": (
        {"excluded": {"categories": ["Tobacco"]}},
        basket(line(2000), line(1000, category="Tobacco"), gift_card=1000),
        1333,
        13,
    ),
    # nothing
    "quantity 0 earns nothing": ({}, basket(line(500, quantity="0")), 0, 0),
    "nor does quantity 0.000": ({}, basket(line(500, quantity="0.000")), 0, 0),
    "a little by weight does": ({}, basket(line(500, quantity="0.005")), 500, 5),
    "a basket for nothing earns nothing": ({}, basket(line(0)), 0, 0),
    "not even rounded up": ({"rounding": "up"}, basket(line(0), line(0)), 0, 0),
}


@pytest.mark.parametrize(("rule", "bought", "base", "points"), BOUGHT_AND_EARNED.values(), ids=BOUGHT_AND_EARNED.keys())
def test_what_earns(rule: dict[str, Any], bought: Basket, base: int, points: int) -> None:
    assert check_basket(bought, terms(rule)) == []
    earned = earn(bought, terms(rule), OCCASION)
    assert earned.points == points
    assert earned.reasons == ((Reason("base", base, points),) if base else ())
    assert sum(earned.line_bases) == base


@pytest.mark.parametrize(
    ("prices_include_tax", "earn_on_tax", "bought", "base"),
    [
        pytest.param(
            True, True, basket(line(11_300, tax=1300)), 11_300, id="113.00 with 13.00 tax in it, earning on all"
        ),
        pytest.param(True, False, basket(line(11_300, tax=1300)), 10_000, id="the same, not earning on tax"),
        pytest.param(
            False,
            True,
            basket(line(10_000, tax=1300), tax_on_top=True),
            11_300,
            id="100.00 plus 13.00 tax, earning on all",
        ),
        pytest.param(
            False, False, basket(line(10_000, tax=1300), tax_on_top=True), 10_000, id="the same, not earning on tax"
        ),
        pytest.param(
            True,
            False,
            basket(line(11_300, discount=5650, tax=650), gift_card=2825),
            2500,
            id="half off, half paid by gift card, a quarter of the net price earns",
        ),
        pytest.param(
            False,
            False,
            basket(line(10_000, discount=5000, tax=650), tax_on_top=True, gift_card=2825),
            2500,
            id="the same with tax on top",
        ),
    ],
)
def test_tax_included_or_not(prices_include_tax: bool, earn_on_tax: bool, bought: Basket, base: int) -> None:
    """The two ways to quote a price earn the same; whether tax earns is a choice of its own."""
    rule = terms({"earn_on_tax": earn_on_tax}, prices_include_tax=prices_include_tax)
    assert check_basket(bought, rule) == []
    assert earn(bought, rule, OCCASION).reasons == (Reason("base", base, base // 100),)


@pytest.mark.parametrize(
    ("bought", "line_bases"),
    [
        pytest.param(basket(line(1000), line(1000), line(1000)), (1000, 1000, 1000), id="as paid"),
        pytest.param(
            basket(line(1000), line(1000), line(1000), gift_card=1000),
            (667, 667, 666),
            id="30.00 less a gift card of 10.00: the cents left over go to the first lines",
        ),
        pytest.param(
            basket(line(1000), line(700, category="Tobacco"), line(300), gift_card=1000),
            (500, 0, 150),
            id="an excluded line has no part of the base",
        ),
        pytest.param(basket(line(0), line(500)), (0, 500), id="a line for nothing has none either"),
        pytest.param(basket(line(0), line(0)), (0, 0), id="a basket for nothing"),
    ],
)
def test_base_is_spread_over_the_lines_that_earn(bought: Basket, line_bases: tuple[int, ...]) -> None:
    """So that each line can explain what it earned, and a return can take exactly that back."""
    assert earn(bought, terms({"excluded": {"categories": ["Tobacco"]}}), OCCASION).line_bases == line_bases


def test_base_below_the_minimum_is_spread_over_nothing() -> None:
    assert earn(basket(line(500), line(500)), terms({"minimum_spend": 1001}), OCCASION) == Earning(0, (), (0, 0))


# --- any basket -----------------------------------------------------------------------------------------------------


@examples
@given(st.data(), rules)
def test_no_basket_earns_on_more_than_was_paid(data: st.DataObject, rule: Terms) -> None:
    """Never negative, never above the total, no line above its own price; and the lines come to the base."""
    bought = data.draw(baskets(rule))
    assert check_basket(bought, rule) == []
    earned = earn(bought, rule, OCCASION)
    base = sum(reason.base for reason in earned.reasons)
    in_cash = bought.tenders[1].amount
    assert 0 <= base <= in_cash <= bought.total
    assert sum(earned.line_bases) == base
    for bought_line, line_base in zip(bought.lines, earned.line_bases, strict=True):
        on_top = 0 if rule.prices_include_tax else bought_line.tax
        assert 0 <= line_base <= bought_line.amount - bought_line.discount + on_top
    exact = Fraction(base * rule.earning.points, rule.earning.per)
    assert earned.points >= 0
    assert abs(earned.points - exact) < 1
    assert earned.points == sum(reason.points for reason in earned.reasons)


@examples
@given(st.data(), rules)
def test_order_of_lines_does_not_change_points(data: st.DataObject, rule: Terms) -> None:
    bought = data.draw(baskets(rule))
    turned = Basket(tuple(data.draw(st.permutations(bought.lines))), bought.tenders, bought.total)
    assert (earn(turned, rule, OCCASION).points, earn(turned, rule, OCCASION).reasons) == (
        earn(bought, rule, OCCASION).points,
        earn(bought, rule, OCCASION).reasons,
    )


@examples
@given(st.data(), rules)
def test_what_is_excluded_earns_nothing(data: st.DataObject, rule: Terms) -> None:
    bought = data.draw(baskets(rule))
    for bought_line, line_base in zip(bought.lines, earn(bought, rule, OCCASION).line_bases, strict=True):
        if (
            bought_line.quantity == 0
            or bought_line.department == "Gift cards"
            or bought_line.category == "Tobacco"
            or bought_line.product == "deposit"
        ):
            assert line_base == 0


# --- the sums of a basket -------------------------------------------------------------------------------------------


def test_sums_of_a_basket_are_checked_all_at_once() -> None:
    """Each line, the total and the tenders: a till's developer sees every mistake in one answer."""
    bought = Basket(
        (line(100, discount=101), line(100, discount=50, tax=51), line(100)), (Tender("cash", 1), Tender("card", 2)), 99
    )
    assert [(found.pointer, found.code) for found in check_basket(bought, terms())] == [
        ("#/lines/0/discount", "discount_above_amount"),
        ("#/lines/1/tax", "tax_above_amount"),
        ("#/total", "total_differs"),
        ("#/tenders", "tenders_differ"),
    ]


@pytest.mark.parametrize(
    ("bought", "included", "wrong"),
    [
        pytest.param(basket(line(100)), True, [], id="right"),
        pytest.param(Basket((line(0),), (), 0), True, [], id="nothing bought, nothing paid"),
        pytest.param(basket(line(100, tax=13)), True, [], id="tax inside"),
        pytest.param(basket(line(100, tax=13), tax_on_top=True), False, [], id="tax on top"),
        pytest.param(basket(line(100, tax=13)), False, ["#/total"], id="tax inside where terms say on top"),
        pytest.param(basket(line(100, tax=13), tax_on_top=True), True, ["#/total"], id="on top where they say inside"),
        pytest.param(basket(line(100, discount=100, tax=13), tax_on_top=True), False, [], id="only the tax was paid"),
        pytest.param(basket(line(100, discount=100, tax=13)), True, ["#/lines/0/tax"], id="no price for the tax in it"),
        pytest.param(Basket((line(100),), (Tender("cash", 99),), 100), True, ["#/tenders"], id="a cent not paid"),
        pytest.param(Basket((line(100),), (Tender("cash", 120),), 100), True, ["#/tenders"], id="change not deducted"),
        pytest.param(Basket((line(100),), (), 100), True, ["#/tenders"], id="not paid at all"),
    ],
)
def test_sums_of_a_basket(bought: Basket, included: bool, wrong: list[str]) -> None:
    rule = terms(prices_include_tax=included)
    assert [found.pointer for found in check_basket(bought, rule)] == wrong


@pytest.mark.parametrize(
    ("bought", "included", "price"),
    [
        pytest.param(line(16_950, tax=1950), True, Fraction(15_000), id="169.50 with 13% VAT in it is 150.00"),
        pytest.param(line(15_000, tax=1950), False, Fraction(15_000), id="150.00 with the VAT on top"),
        pytest.param(
            line(22_600, discount=5650, tax=1950),
            True,
            Fraction(20_000),
            id="before the discount, at the VAT rate charged",
        ),
        pytest.param(line(20_000, discount=5000, tax=1950), False, Fraction(20_000), id="the same with VAT on top"),
        pytest.param(line(1000, discount=1, tax=333), True, Fraction(1000 * 666, 999), id="exact, never rounded"),
        pytest.param(
            line(1000, discount=1000), True, Fraction(1000), id="given away: the list price, no VAT was charged"
        ),
        pytest.param(line(0), True, Fraction(0), id="costs nothing"),
    ],
)
def test_stand_alone_price(bought: Line, included: bool, price: Fraction) -> None:
    """IFRS 15.77: what the line sells for alone, so without the discount, and net of VAT."""
    rule = terms(prices_include_tax=included)
    assert stand_alone_prices(basket(bought), rule) == [price]


@examples
@given(st.data(), rules)
def test_price_is_consideration_and_tax(data: st.DataObject, rule: Terms) -> None:
    """Nothing paid is lost between net price and VAT, and no line is worth less alone than what it brought in."""
    bought = data.draw(baskets(rule))
    assert consideration(bought, rule) + tax_of(bought) == bought.total
    assert sum(stand_alone_prices(bought, rule)) >= consideration(bought, rule)
