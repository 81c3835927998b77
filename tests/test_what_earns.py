"""What earns elsewhere and not here, or the other way round: a named test for each known failure. No database."""

from decimal import Decimal
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.programs import Basket, Terms, check_basket, check_points_tender, earn, kept
from app.transactions.schemas import PurchaseIn
from tests.baskets import OCCASION, basket, examples, line, money, terms
from tests.shop import purchase


def earned(bought: Basket, under: Terms) -> tuple[int, int]:
    """The earning base, minor units, and the points."""
    earning = earn(bought, under, OCCASION)
    return sum(earning.line_bases), earning.points


@pytest.mark.parametrize(
    ("included", "on_tax", "base"),
    [(True, True, 11_900), (True, False, 10_000), (False, True, 13_800), (False, False, 11_900)],
)
def test_tax_earns_if_the_terms_say_so_however_prices_are_quoted(included: bool, on_tax: bool, base: int) -> None:
    """A line of 119.00 with 19.00 of tax, in it or on top."""
    bought = basket(line(11_900, tax=1_900), tax_on_top=not included)
    assert earned(bought, terms({"earn_on_tax": on_tax}, prices_include_tax=included))[0] == base


def test_the_part_paid_with_points_earns_nothing_and_the_rest_does() -> None:
    """Of 100.00, 80.00 paid with points: 20.00 earn. Not 100.00, and not nothing."""
    paying = terms(points_tender={"value": {"amount": 1, "points": 1}})
    bought = basket(line(6_000), line(4_000, number=2), points=8_000)
    assert check_points_tender(bought, paying) == []
    assert earned(bought, paying) == (2_000, 20)
    assert earned(basket(line(10_000), points=10_000), paying) == (0, 0)


def test_what_was_taken_off_the_price_earns_nothing() -> None:
    assert earned(basket(line(10_000, discount=2_550)), terms()) == (7_450, 74)
    assert earned(basket(line(10_000, discount=10_000), line(500, number=2)), terms()) == (500, 5)


def test_selling_a_gift_card_earns_nothing_and_so_does_paying_with_it() -> None:
    excluding = terms({"excluded": {"departments": ["Gift cards"]}})
    assert earned(basket(line(5_000, department="Gift cards"), line(1_000, number=2)), excluding) == (1_000, 10)
    assert earned(basket(line(6_000), gift_card=5_000), excluding) == (1_000, 10)


def test_tenths_add_up_to_one() -> None:
    """In floats 0.1 + 0.2 is more than 0.3, and ten tenths are less than 1: a point too few, a sum that is refused."""
    assert sum([0.1] * 10) < 1.0
    tenths = basket(*(line(10, number=number) for number in range(1, 11)))
    assert check_basket(tenths, terms()) == []
    assert earned(tenths, terms()) == (100, 1)
    assert earned(basket(line(30), line(70, number=2)), terms({"points": 3, "per": 10})) == (100, 30)


def test_no_amount_is_a_float() -> None:
    for amount in (10.0, 10.5, "1000"):
        with pytest.raises(ValidationError):
            PurchaseIn.model_validate(purchase() | {"total": amount})


@given(st.lists(money, min_size=1, max_size=5), st.sampled_from(["down", "half_up", "half_even", "up"]), st.data())
@examples
def test_what_comes_back_rounds_as_what_was_bought(amounts: list[int], rounding: str, data: st.DataObject) -> None:
    """Points go back as a difference of two sums that were each rounded the same way, never by rounding a negative
    amount: line by line or all at once, in any order, nothing is left and nothing is taken twice."""
    rules = terms({"rounding": rounding})
    bought = basket(*(line(amount, number=number) for number, amount in enumerate(amounts, 1)))
    points = earn(bought, rules, OCCASION).points
    back: dict[int, Decimal] = {}
    left, taken = points, 0
    for number in data.draw(st.permutations(range(1, len(amounts) + 1))):
        back[number] = Decimal(1)
        now = kept(bought, rules, back).earning.points
        assert 0 <= now <= left
        taken, left = taken + left - now, now
    assert (taken, left) == (points, 0)


def test_roundings_are_those_of_the_terms() -> None:
    """Half a point up, down, to the even one; never what the machine does by itself."""
    exact = {amount: Fraction(amount, 100) for amount in (50, 150, 250, 149, 151)}
    expected = {
        "down": [0, 1, 2, 1, 1],
        "up": [1, 2, 3, 2, 2],
        "half_up": [1, 2, 3, 1, 2],
        "half_even": [0, 2, 2, 1, 2],
    }
    found = {
        rounding: [earned(basket(line(each)), terms({"rounding": rounding}))[1] for each in exact]
        for rounding in expected
    }
    assert found == expected


@pytest.mark.parametrize(("one", "other"), list(product([1, 49, 50, 99], repeat=2)))
def test_one_rounding_for_a_purchase_not_one_for_each_line(one: int, other: int) -> None:
    assert earned(basket(line(one), line(other, number=2)), terms())[1] == (one + other) // 100
