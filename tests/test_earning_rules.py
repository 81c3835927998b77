"""What earns, how much and until when; and terms that make no sense are refused.

Named after what other loyalty systems got wrong. The tables need no database.
"""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

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
    expires_at,
    local_month,
    stand_alone_prices,
    tax_of,
)
from tests.shop import FOREVER, TERMS, Shop, purchase

examples = settings(deadline=None, max_examples=100)


def terms(earning: dict[str, Any] | None = None, **changes: Any) -> Terms:
    """A point per 1.00, unless told otherwise."""
    return Terms.model_validate(TERMS | {"earning": {"points": 1, "per": 100} | (earning or {})} | changes)


def line(
    amount: int,
    *,
    discount: int = 0,
    tax: int = 0,
    product: str = "bread",
    department: str | None = "Food",
    category: str | None = None,
    quantity: str = "1",
) -> Line:
    return Line(1, product, department, category, Decimal(quantity), amount, discount, tax)


def basket(*lines: Line, tax_on_top: bool = False, **tenders: int) -> Basket:
    """A basket whose sums match: what `tenders` leave open is paid in cash."""
    total = sum(line.amount - line.discount + (line.tax if tax_on_top else 0) for line in lines)
    paid = tenders | {"cash": total - sum(tenders.values())}
    return Basket(lines, tuple(Tender(type_, amount) for type_, amount in paid.items() if amount), total)


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
    earned = earn(bought, terms(rule))
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
    assert earn(bought, rule).reasons == (Reason("base", base, base // 100),)


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
    assert earn(bought, terms({"excluded": {"categories": ["Tobacco"]}})).line_bases == line_bases


def test_base_below_the_minimum_is_spread_over_nothing() -> None:
    assert earn(basket(line(500), line(500)), terms({"minimum_spend": 1001})) == Earning(0, (), (0, 0))


# --- any basket -----------------------------------------------------------------------------------------------------


money = st.integers(0, 60) | st.integers(0, 10**9)
rules = st.builds(
    lambda on_tax, included, rounding, points, per, minimum: terms(
        {
            "points": points,
            "per": per,
            "rounding": rounding,
            "minimum_spend": minimum,
            "earn_on_tax": on_tax,
            "excluded": {"departments": ["Gift cards"], "categories": ["Tobacco"], "products": ["deposit"]},
        },
        prices_include_tax=included,
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["down", "half_up", "half_even", "up"]),
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.just(0) | st.integers(0, 2000),
)


@st.composite
def lines(draw: st.DrawFn) -> Line:
    amount = draw(money)
    discount = draw(st.integers(0, amount))
    return line(
        amount,
        discount=discount,
        tax=draw(st.just(0) | st.integers(0, amount - discount)),
        product=draw(st.sampled_from(["bread", "deposit"])),
        department=draw(st.sampled_from([None, "Food", "Gift cards"])),
        category=draw(st.sampled_from([None, "Tobacco"])),
        quantity=draw(st.sampled_from(["1", "0", "2.5"])),
    )


@st.composite
def baskets(draw: st.DrawFn, rule: Terms) -> Basket:
    """A basket as the service accepts it under `rule`."""
    bought = basket(*draw(st.lists(lines(), min_size=1, max_size=6)), tax_on_top=not rule.prices_include_tax)
    gift_card = draw(st.just(0) | st.just(bought.total) | st.integers(0, bought.total))
    tenders = (Tender("gift_card", gift_card), Tender("cash", bought.total - gift_card))
    return Basket(bought.lines, tenders, bought.total)


@examples
@given(st.data(), rules)
def test_no_basket_earns_on_more_than_was_paid(data: st.DataObject, rule: Terms) -> None:
    """Never negative, never above the total, no line above its own price; and the lines come to the base."""
    bought = data.draw(baskets(rule))
    assert check_basket(bought, rule) == []
    earned = earn(bought, rule)
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
    assert (earn(turned, rule).points, earn(turned, rule).reasons) == (
        earn(bought, rule).points,
        earn(bought, rule).reasons,
    )


@examples
@given(st.data(), rules)
def test_what_is_excluded_earns_nothing(data: st.DataObject, rule: Terms) -> None:
    bought = data.draw(baskets(rule))
    for bought_line, line_base in zip(bought.lines, earn(bought, rule).line_bases, strict=True):
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


# --- expiry ---------------------------------------------------------------------------------------------------------


def expiring(months: int, round_up_to: str, zone: str) -> Terms:
    return terms(expiry={"months": months, "round_up_to": round_up_to}, time_zone=zone)


NEW_YORK = "America/New_York"


GOOD_UNTIL = {
    # earned in New York at, good for so many months, to the end of; gone from
    "a year, to the end of the day": ("2026-11-22T06:00-05:00", 12, "day", "2027-11-23T00:00-05:00"),
    "31 January + 1 month": ("2027-01-31T12:00-05:00", 1, "day", "2027-03-01T00:00-05:00"),
    "31 January + 1 month in a leap year": ("2028-01-31T12:00-05:00", 1, "day", "2028-03-01T00:00-05:00"),
    "30 January + 1 month in a leap year": ("2028-01-30T12:00-05:00", 1, "day", "2028-03-01T00:00-05:00"),
    "29 February + 1 year": ("2028-02-29T12:00-05:00", 12, "day", "2029-03-01T00:00-05:00"),
    "29 February + 4 years": ("2028-02-29T12:00-05:00", 48, "day", "2032-03-01T00:00-05:00"),
    "28 February + 1 year is not the 29th": ("2027-02-28T12:00-05:00", 12, "day", "2028-02-29T00:00-05:00"),
    "31 August + 1 month": ("2027-08-31T12:00-04:00", 1, "day", "2027-10-01T00:00-04:00"),
    "31 December + 2 months": ("2026-12-31T12:00-05:00", 2, "day", "2027-03-01T00:00-05:00"),
    "over a year's end": ("2026-11-30T12:00-05:00", 13, "day", "2027-12-31T00:00-05:00"),
    # periods
    "end of the month": ("2026-11-22T06:00-05:00", 12, "month", "2027-12-01T00:00-05:00"),
    "earned in a month's last minute": ("2026-11-30T23:59-05:00", 12, "month", "2027-12-01T00:00-05:00"),
    "earned in the next one's first": ("2026-12-01T00:00-05:00", 12, "month", "2028-01-01T00:00-05:00"),
    "31 January + 1 month, end of February": ("2027-01-31T12:00-05:00", 1, "month", "2027-03-01T00:00-05:00"),
    "end of the quarter": ("2026-11-22T06:00-05:00", 3, "quarter", "2027-04-01T00:00-04:00"),
    "its last day: that quarter": ("2026-12-31T12:00-05:00", 3, "quarter", "2027-04-01T00:00-04:00"),
    "the next one's first": ("2027-01-01T12:00-05:00", 3, "quarter", "2027-07-01T00:00-04:00"),
    "the fourth quarter": ("2026-11-22T06:00-05:00", 1, "quarter", "2027-01-01T00:00-05:00"),
    "end of the year": ("2026-11-22T06:00-05:00", 12, "year", "2028-01-01T00:00-05:00"),
    "earned in a year's last minute": ("2026-12-31T23:59-05:00", 12, "year", "2028-01-01T00:00-05:00"),
    "earned in the next year's first": ("2027-01-01T00:00-05:00", 12, "year", "2029-01-01T00:00-05:00"),
    # the programme's zone, not the till's
    "December already in UTC": ("2026-12-01T04:30+00:00", 12, "month", "2027-12-01T00:00-05:00"),
    "December already where the till stands": ("2026-12-01T02:30-02:00", 12, "month", "2027-12-01T00:00-05:00"),
    # clocks that change
    "DST: a last day of 23 hours": ("2027-02-14T12:00-05:00", 1, "day", "2027-03-15T00:00-04:00"),
    "DST: a last day of 25 hours": ("2026-10-01T12:00-04:00", 1, "day", "2026-11-02T00:00-05:00"),
    "DST: earned when 01:30 came again": ("2026-11-01T01:30-05:00", 1, "day", "2026-12-02T00:00-05:00"),
}
GOOD_UNTIL_ELSEWHERE = {
    # the zone; earned at, good for so many months, to the end of; gone from
    "December already": ("Asia/Tokyo", "2026-11-30T16:00+00:00", 12, "month", "2028-01-01T00:00+09:00"),
    "an odd offset": ("Asia/Kathmandu", "2026-11-22T06:00+00:00", 1, "day", "2026-12-23T00:00+05:45"),
    "DST: a day without midnight begins at one": (
        "America/Santiago",
        "2024-08-07T12:00-04:00",
        1,
        "day",
        "2024-09-08T01:00-03:00",
    ),
    "DST: midnight comes twice, the day begins with the first": (
        "America/Havana",
        "2024-09-02T12:00-04:00",
        2,
        "day",
        "2024-11-03T00:00-04:00",
    ),
}


@pytest.mark.parametrize(
    ("zone", "earned", "months", "until_end_of", "gone_from"),
    [*((NEW_YORK, *case) for case in GOOD_UNTIL.values()), *GOOD_UNTIL_ELSEWHERE.values()],
    ids=[*GOOD_UNTIL, *GOOD_UNTIL_ELSEWHERE],
)
def test_points_are_good_to_the_end_of_a_local_day(
    zone: str, earned: str, months: int, until_end_of: str, gone_from: str
) -> None:
    """The first instant without them is midnight in the programme's zone, wherever the till or the server stands."""
    gone = expires_at(datetime.fromisoformat(earned), expiring(months, until_end_of, zone))
    assert gone == datetime.fromisoformat(gone_from)
    assert gone is not None
    assert gone.tzinfo is UTC


def test_points_stay_where_terms_do_not_let_them_expire() -> None:
    assert expires_at(datetime(2026, 11, 22, tzinfo=UTC), Terms.model_validate(FOREVER)) is None


@pytest.fixture(params=["Pacific/Kiritimati", "America/Adak", "UTC"])
def server_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The process lives in this zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def test_programmes_zone_decides_not_the_servers(server_zone: str) -> None:
    """A day early or late by time zone: wherever the server runs, the same instant and the same month."""
    earned = datetime.fromisoformat("2026-11-30T23:30:00-05:00")
    rule = expiring(12, "month", NEW_YORK)
    assert expires_at(earned, rule) == datetime.fromisoformat("2027-12-01T00:00:00-05:00")
    assert local_month(earned, rule) == date(2026, 11, 1)


@pytest.mark.parametrize(
    ("instant", "zone", "month"),
    [
        pytest.param("2026-11-30T23:59:59-05:00", NEW_YORK, date(2026, 11, 1), id="the last second of November"),
        pytest.param("2026-12-01T00:00:00-05:00", NEW_YORK, date(2026, 12, 1), id="the first of December"),
        pytest.param("2026-12-01T04:59:59+00:00", NEW_YORK, date(2026, 11, 1), id="sent in UTC"),
        pytest.param("2026-12-01T13:59:59+09:00", NEW_YORK, date(2026, 11, 1), id="sent from Tokyo"),
        pytest.param(
            "2026-12-31T10:00:00+00:00", "Pacific/Kiritimati", date(2027, 1, 1), id="the new year begins in Kiribati"
        ),
        pytest.param("2027-01-01T09:00:00+00:00", "America/Adak", date(2026, 12, 1), id="and ends in the Aleutians"),
    ],
)
def test_accounting_month_is_that_of_the_programmes_zone(instant: str, zone: str, month: date) -> None:
    assert local_month(datetime.fromisoformat(instant), terms(time_zone=zone)) == month


ZONES = (
    NEW_YORK,
    "UTC",
    "Asia/Shanghai",
    "America/Santiago",
    "America/Havana",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "Pacific/Kiritimati",
    "Europe/London",
)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2060, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  # bounds of `timezones`
spans = st.sampled_from(["day", "month", "quarter", "year"])
TICK = timedelta(microseconds=1)


@examples
@given(instants, st.integers(1, 120), spans, st.sampled_from(ZONES))
def test_points_are_never_gone_within_a_local_day(earned: datetime, months: int, span: str, zone: str) -> None:
    """They go where one local day ends and the next begins: after the months promised, by less than a year."""
    rule = expiring(months, span, zone)
    gone = expires_at(earned, rule)
    assert gone is not None
    last, next_day = (gone - TICK).astimezone(rule.zone).date(), gone.astimezone(rule.zone).date()
    assert last + timedelta(days=1) == next_day
    local = earned.astimezone(rule.zone).date()
    whole_months = (last.year - local.year) * 12 + last.month - local.month
    assert months <= whole_months <= months + {"day": 0, "month": 0, "quarter": 2, "year": 11}[span]
    if span == "day":
        assert last.day == local.day or (last.day < local.day and next_day.day == 1)
    else:
        assert next_day.day == 1
        assert span != "quarter" or next_day.month in (1, 4, 7, 10)
        assert span != "year" or next_day.month == 1


@examples
@given(instants, instants, st.integers(1, 120), spans, st.sampled_from(ZONES))
def test_points_earned_later_never_go_earlier(
    first: datetime, second: datetime, months: int, span: str, zone: str
) -> None:
    rule = expiring(months, span, zone)
    earlier, later = (expires_at(earned, rule) for earned in sorted([first, second]))
    assert earlier is not None
    assert later is not None
    assert earlier <= later


def test_instant_of_expiry_is_exclusive(shop: Shop) -> None:
    """Good to the last microsecond of 30 November 2027 in New York, and gone with the first of December."""
    member_id = shop.post(purchase()).json()["member"]["id"]
    gone = datetime.fromisoformat("2027-12-01T00:00:00-05:00").astimezone(UTC)

    def balance() -> Any:
        return shop.get(f"/v1/members/{member_id}/balance")

    shop.clock.now = gone - TICK
    assert balance()["balance"]["available"] == 10
    shop.clock.now = gone
    assert balance()["balance"]["available"] == 0
    shop.prove()


# --- terms ----------------------------------------------------------------------------------------------------------


BAD_TERMS: dict[str, Any] = {
    "currency": "XAU",
    "time_zone": "Mars/Olympus",
    "prices_include_tax": "yes",
    "earning": {
        "points": 0,
        "per": "100",
        "rounding": "nearest",
        "minimum_spend": -1,
        "excluded": {"departments": [""]},
        "non_earning_tenders": ["Gift Card"],
    },
    "point_value": {"amount": 10.5},
    "redemption_rate": {"numerator": 3, "denominator": 2},
    "allocation": {"method": "guess"},
    "expiry": {"months": 601, "round_up_to": "week"},
    "posting_profile": "none",
    "enrolment": {"identifiers": [], "phone_region": "ZZ"},
    "uploads": {"future_minutes": True},
    "double_points_on_sundays": True,
}
MISTAKES = {
    "#/currency",
    "#/time_zone",
    "#/prices_include_tax",
    "#/earning/points",
    "#/earning/per",
    "#/earning/rounding",
    "#/earning/minimum_spend",
    "#/earning/excluded/departments/0",
    "#/earning/non_earning_tenders/0",
    "#/point_value/amount",
    "#/point_value/points",
    "#/redemption_rate",
    "#/allocation/method",
    "#/expiry/months",
    "#/expiry/round_up_to",
    "#/posting_profile",
    "#/enrolment/identifiers",
    "#/enrolment/phone_region",
    "#/uploads/future_minutes",
    "#/double_points_on_sundays",
}


def test_bad_terms_are_refused_with_every_finding_at_once(shop: Shop) -> None:
    """Whoever writes terms corrects them once, not once per mistake; and nothing is drafted meanwhile."""
    path = f"/v1/programs/{shop.program_id}/terms"
    answer = shop.http.post(path, json=BAD_TERMS, headers={"Idempotency-Key": "bad-terms"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_request"
    found = [error["pointer"] for error in answer.json()["errors"]]
    assert sorted(found) == sorted(MISTAKES)
    assert len(shop.get(path)["items"]) == 1


def test_good_terms_are_drafted_as_they_were_sent(shop: Shop) -> None:
    """Every field that the bad terms get wrong, right."""
    good = {
        "currency": "KWD",
        "time_zone": "Asia/Kuwait",
        "prices_include_tax": False,
        "earning": {
            "points": 1,
            "per": 100,
            "rounding": "half_even",
            "minimum_spend": 1,
            "earn_on_tax": False,
            "excluded": {"departments": ["Gift cards"], "categories": [], "products": []},
            "non_earning_tenders": ["gift_card"],
        },
        "point_value": {"amount": 10, "points": 3},
        "redemption_rate": {"numerator": 2, "denominator": 3},
        "allocation": {"method": "residual", "rounding": "half_up"},
        "expiry": {"months": 600, "round_up_to": "quarter"},
        "posting_profile": "full",
        "enrolment": {"automatic": False, "identifiers": ["phone"], "phone_region": "KW"},
        "uploads": {"latest_days": None, "future_minutes": 0, "largest_total": 1},
    }
    path = f"/v1/programs/{shop.program_id}/terms"
    answer = shop.http.post(path, json=good, headers={"Idempotency-Key": "good-terms"})
    assert answer.status_code == 201, answer.text
    kept = shop.get(f"{path}/{answer.json()['version']}")["terms"]
    assert kept == answer.json()["terms"]
    assert {name: kept[name] for name in good} == good


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"currency": "usd"}, "#/currency"),
        ({"currency": "XXX"}, "#/currency"),
        ({"time_zone": "America/Nowhere"}, "#/time_zone"),
        ({"time_zone": "../../etc/passwd"}, "#/time_zone"),
        ({"time_zone": "EST5EDT4"}, "#/time_zone"),
        ({"time_zone": "localtime"}, "#/time_zone"),
        ({"redemption_rate": {"numerator": 0, "denominator": 3}}, "#/redemption_rate/numerator"),
        ({"redemption_rate": {"numerator": 1, "denominator": 0}}, "#/redemption_rate/denominator"),
        ({"redemption_rate": 0.6667}, "#/redemption_rate"),
        ({"point_value": {"amount": 0, "points": 1000}}, "#/point_value/amount"),
        ({"point_value": {"amount": 1, "points": 0}}, "#/point_value/points"),
        ({"earning": {"points": 1, "per": 0}}, "#/earning/per"),
        ({"earning": {"points": True, "per": 100}}, "#/earning/points"),
        ({"expiry": {"months": 0}}, "#/expiry/months"),
        ({"expiry": {}}, "#/expiry/months"),
        ({"earning": None}, "#/earning"),
    ],
)
def test_terms_that_make_no_sense(change: dict[str, Any], pointer: str) -> None:
    """One mistake alone is one finding, at its place."""
    with pytest.raises(ValidationError) as refused:
        Terms.model_validate(TERMS | change)
    assert ["#" + "".join(f"/{step}" for step in error["loc"]) for error in refused.value.errors()] == [pointer]
