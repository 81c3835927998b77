"""What the customer keeps of a purchase when goods come back: points, and what they were paid with.

Named after what other loyalty systems got wrong with returns. Tables and properties without a database.
"""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.programs import (
    Basket,
    PointsTender,
    Tender,
    Terms,
    consideration,
    earn,
    kept,
    net_paid_with_points,
    tax_of,
    tender_of,
)
from tests.baskets import OCCASION, basket, baskets, examples, line, rules, terms


def back(**quantities: str) -> dict[int, Decimal]:
    """What came back: `line_1="2"`."""
    return {int(name.removeprefix("line_")): Decimal(quantity) for name, quantity in quantities.items()}


TOBACCO = {"excluded": {"categories": ["Tobacco"]}}
BREAD_AND_TOBACCO = basket(line(2000), line(1000, number=2, category="Tobacco"))
TWO_LINES = basket(line(1000, quantity="10"), line(1000, number=2))

KEPT: dict[str, tuple[dict[str, Any], Basket, dict[int, Decimal], int, int]] = {
    # under these rules, this basket, so much came back, by line and by amount: points kept
    "nothing came back": ({}, TWO_LINES, {}, 0, 20),
    "everything came back": ({}, TWO_LINES, back(line_1="10", line_2="1"), 0, 0),
    "one line": ({}, TWO_LINES, back(line_2="1"), 0, 10),
    "three of ten": ({}, TWO_LINES, back(line_1="3"), 0, 17),
    "half a point of two: the half is lost": ({}, basket(line(250, quantity="2")), back(line_1="1"), 0, 1),
    "by weight": ({}, basket(line(1000, quantity="0.538")), back(line_1="0.269"), 0, 5),
    "returning what earned nothing takes nothing": (TOBACCO, BREAD_AND_TOBACCO, back(line_2="1"), 0, 20),
    "returning what earned takes all of it": (TOBACCO, BREAD_AND_TOBACCO, back(line_1="1"), 0, 0),
    "at the price that was paid": ({}, basket(line(1000, discount=500), line(500, number=2)), back(line_1="1"), 0, 5),
    # tenders keep their proportion
    "half was paid by gift card": (
        {},
        basket(line(1000), line(1000, number=2), gift_card=1000),
        back(line_1="1"),
        0,
        5,
    ),
    "most was paid with points": ({}, basket(line(1000, quantity="2"), points=800), back(line_1="1"), 0, 1),
    # by amount
    "a third refunded": ({}, basket(line(3000)), {}, 1000, 20),
    "all refunded": ({}, basket(line(3000)), {}, 3000, 0),
    "more refunded than was paid": ({}, basket(line(3000)), {}, 3001, 0),
    "a refund is for all lines in proportion": (TOBACCO, BREAD_AND_TOBACCO, {}, 1500, 10),
    "a line back, and half of the rest refunded": ({}, TWO_LINES, back(line_2="1"), 500, 5),
    "a line back, and the rest refunded": ({}, TWO_LINES, back(line_2="1"), 1000, 0),
    # the minimum
    "what remains is below the minimum": ({"minimum_spend": 1500}, TWO_LINES, back(line_2="1"), 0, 0),
    "what remains is the minimum": ({"minimum_spend": 1000}, TWO_LINES, back(line_2="1"), 0, 10),
    # lines without a quantity
    "a line of quantity 0 stays": ({}, basket(line(50, quantity="0"), line(100, number=2)), back(line_2="1"), 0, 0),
    "a purchase for nothing": ({}, basket(line(0)), back(line_1="1"), 0, 0),
}


@pytest.mark.parametrize(("rule", "bought", "returned", "refunded", "points"), KEPT.values(), ids=KEPT)
def test_points_kept(
    rule: dict[str, Any], bought: Basket, returned: dict[int, Decimal], refunded: int, points: int
) -> None:
    assert kept(bought, terms(rule), returned, refunded).earning.points == points


@pytest.mark.parametrize(
    ("policy", "minimum", "returned", "points"),
    [
        pytest.param("lost", 1500, back(line_2="1"), 0, id="lost"),
        pytest.param("kept", 1500, back(line_2="1"), 10, id="kept"),
        pytest.param("kept", 1500, back(line_1="10", line_2="1"), 0, id="kept of nothing is nothing"),
        pytest.param("kept", 2001, back(line_2="1"), 0, id="what never reached the minimum keeps nothing"),
        pytest.param("kept", 2001, {}, 0, id="nor is it given what it did not earn"),
    ],
)
def test_minimum_spend_after_a_return(policy: str, minimum: int, returned: dict[int, Decimal], points: int) -> None:
    """20.00 were spent; whether points fall when less than the minimum remains is for the terms to say."""
    rule = terms({"minimum_spend": minimum}, returns={"minimum_spend": policy})
    assert kept(TWO_LINES, rule, returned).earning.points == points


def test_five_and_five_take_as_much_as_ten() -> None:
    """Not: floor each refund, 5 + 5 takes 0 points and one refund of 10 takes 1."""
    rule = terms({"per": 10})
    bought = basket(line(10, quantity="2"))
    assert [kept(bought, rule, returned).earning.points for returned in ({}, back(line_1="1"), back(line_1="2"))] == [
        1,
        0,
        0,
    ]


def test_what_paid_comes_back_in_proportion() -> None:
    """Of 113.00 with tax, half was paid with points; a quarter of the goods came back."""
    value = {"amount": 1, "points": 2}
    rule = terms(points_tender={"value": value})
    bought = basket(line(11_300, tax=1300, quantity="4"), points=5650)
    left = kept(bought, rule, back(line_1="1"))
    assert left.lines == (Fraction(3, 4),)
    assert (left.total, left.consideration, left.tax, left.net_paid_with_points) == (8475, 3750, 487, 3750)
    assert left.tender == PointsTender(4238, 8475)
    assert left.earning.points == 42


@pytest.mark.parametrize(
    "returned",
    [
        pytest.param(back(line_1="10.000001"), id="more than was bought"),
        pytest.param(back(line_1="-1"), id="less than nothing"),
    ],
)
def test_no_more_comes_back_than_was_bought(returned: dict[int, Decimal]) -> None:
    with pytest.raises(ValueError, match="bought"):
        kept(TWO_LINES, terms(), returned)


# --- any returns ----------------------------------------------------------------------------------------------------


Return = tuple[Mapping[int, Decimal], int]
"""What one return brings back: quantities by line, and an amount without lines."""


@st.composite
def purchases(draw: st.DrawFn, rule: Terms) -> Basket:
    """A basket as the service accepts it, partly paid with points."""
    bought = draw(baskets(rule))
    numbered = tuple(
        line(
            each.amount,
            number=number,
            discount=each.discount,
            tax=each.tax,
            product=each.product,
            department=each.department,
            category=each.category,
            quantity=str(each.quantity),
        )
        for number, each in enumerate(bought.lines, start=1)
    )
    points = draw(st.integers(0, bought.tenders[1].amount))
    cash = Tender("cash", bought.tenders[1].amount - points)
    return Basket(numbered, (bought.tenders[0], Tender("points", points), cash), bought.total)


@st.composite
def return_sequences(draw: st.DrawFn, bought: Basket) -> list[Return]:
    """Up to five returns, one after the other, of no more than was bought."""
    found: list[Return] = []
    left = {each.number: each.quantity for each in bought.lines}
    for _ in range(draw(st.integers(1, 5))):
        quantities = {}
        for number in draw(st.sets(st.sampled_from(sorted(left)))):
            thousandths = draw(st.just(int(left[number] * 1000)) | st.integers(0, int(left[number] * 1000)))
            quantities[number] = Decimal(thousandths) / 1000
            left[number] -= quantities[number]
        found.append((quantities, draw(st.just(0) | st.integers(0, bought.total))))
    return found


def together(returns: list[Return]) -> Return:
    quantities: dict[int, Decimal] = {}
    for returned, _ in returns:
        for number, quantity in returned.items():
            quantities[number] = quantities.get(number, Decimal(0)) + quantity
    return quantities, sum(amount for _, amount in returns)


offered = rules.map(
    lambda rule: Terms.model_validate(
        rule.model_dump()
        | {"points_tender": {"value": {"amount": 1, "points": 3}}, "returns": {"minimum_spend": "kept"}}
    )
)


def figures(bought: Basket, rule: Terms, returned: Return) -> tuple[int, ...]:
    """All that one purchase has left, as numbers."""
    left = kept(bought, rule, *returned)
    tender = left.tender or PointsTender(0, 0)
    earned = left.earning
    assert earned.points == kept(bought, rule, *returned).earning.points
    assert sum(earned.line_bases) == sum(reason.base for reason in earned.reasons)
    return (
        earned.points,
        left.total,
        left.consideration,
        left.tax,
        left.net_paid_with_points,
        tender.amount,
        tender.points,
    )


@examples
@given(st.data(), rules | offered)
def test_any_split_and_order_of_returns_ends_as_one(data: st.DataObject, rule: Terms) -> None:
    """Each return takes what the total so far leaves less; nothing ever comes back by a return."""
    bought = data.draw(purchases(rule))
    returns = data.draw(return_sequences(bought))
    once = figures(bought, rule, together(returns))
    for order in (returns, data.draw(st.permutations(returns))):
        before = figures(bought, rule, ({}, 0))
        for count in range(1, len(order) + 1):
            after = figures(bought, rule, together(list(order[:count])))
            assert all(0 <= less <= more for less, more in zip(after, before, strict=True))
            before = after
        assert before == once


@examples
@given(st.data(), rules | offered)
def test_whole_purchase_keeps_everything(data: st.DataObject, rule: Terms) -> None:
    bought = data.draw(purchases(rule))
    left = kept(bought, rule, {})
    assert left.earning == earn(bought, rule, OCCASION)
    assert left.total == bought.total
    assert (left.consideration, left.tax) == (consideration(bought, rule), tax_of(bought))
    assert left.net_paid_with_points == net_paid_with_points(bought, rule)
    assert left.tender == tender_of(bought, rule)


@examples
@given(st.data(), rules | offered)
def test_nothing_is_kept_of_what_came_back_wholly(data: st.DataObject, rule: Terms) -> None:
    """By line, by amount, or some of each."""
    bought = data.draw(purchases(rule))
    lines = {each.number: each.quantity for each in bought.lines}
    some = data.draw(st.sets(st.sampled_from(sorted(lines))))
    for returned in (
        (lines, 0),
        ({}, max(bought.total, 1)),
        ({number: lines[number] for number in some}, bought.total),
    ):
        assert figures(bought, rule, returned) == (0,) * 7
