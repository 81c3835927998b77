"""The arithmetic everything rests on: rounding, spreading, sharing a price between goods and points, and postings."""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.accounting import (
    Allocation,
    CohortChange,
    CohortKey,
    Method,
    Posting,
    Sale,
    allocate,
    default_codes,
    expected_points,
    grant_postings,
    sale_postings,
)
from app.accounting.recognition import ChangeCause, sum_changes
from app.money import Rounding, exponent, is_currency, round_to_int, spread

examples = settings(deadline=None, max_examples=100)

HALF: tuple[Rounding, ...] = ("half_even", "half_up")
MODES: tuple[Rounding, ...] = ("half_even", "half_up", "down", "up")
METHODS: tuple[Method, ...] = ("relative", "residual")

LARGEST = 10**13
amounts = st.integers(0, 100) | st.integers(0, LARGEST)
fractions = st.builds(Fraction, st.integers(-(10**15), 10**15), st.integers(1, 10**9)) | st.builds(
    Fraction, st.integers(-99, 99), st.just(2)
)
prices = st.builds(Fraction, amounts, st.integers(1, 1000))
weights = st.lists(st.integers(0, 5) | prices, min_size=1, max_size=8)


# --- whole amounts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "half_even", "half_up", "down", "up"),
    [
        ("0", 0, 0, 0, 0),
        ("7", 7, 7, 7, 7),
        ("0.5", 0, 1, 0, 1),
        ("1.5", 2, 2, 1, 2),
        ("2.5", 2, 3, 2, 3),
        ("2.4999999999", 2, 2, 2, 3),
        ("2.5000000001", 3, 3, 2, 3),
        ("0.0000000001", 0, 0, 0, 1),
        ("-0.5", 0, -1, 0, -1),
        ("-1.5", -2, -2, -1, -2),
        ("-2.5", -2, -3, -2, -3),
        ("-2.4", -2, -2, -2, -3),
        ("-2.6", -3, -3, -2, -3),
        ("-1e-14", 0, 0, 0, -1),
        ("9007199254740993.5", 9007199254740994, 9007199254740994, 9007199254740993, 9007199254740994),
    ],
)
def test_roundings(value: str, half_even: int, half_up: int, down: int, up: int) -> None:
    """Negative amounts round as their positive counterparts do; amounts no float can hold round exactly."""
    exact = Fraction(value)
    assert [round_to_int(exact, mode) for mode in MODES] == [half_even, half_up, down, up]
    assert round_to_int(exact) == half_even


@examples
@given(fractions, st.sampled_from(MODES))
def test_rounding_is_near_and_the_same_below_zero(value: Fraction, mode: Rounding) -> None:
    rounded = round_to_int(value, mode)
    away = abs(rounded - value)
    assert away <= Fraction(1, 2) if mode in HALF else away < 1
    assert round_to_int(-value, mode) == -rounded
    if mode == "down":
        assert abs(rounded) <= abs(value)
    if mode == "up":
        assert abs(rounded) >= abs(value)
    if value.denominator == 1:
        assert rounded == value


@pytest.mark.parametrize(("code", "digits"), [("JPY", 0), ("USD", 2), ("CNY", 2), ("KWD", 3), ("CLF", 4)])
def test_minor_units_of_currencies(code: str, digits: int) -> None:
    assert is_currency(code)
    assert exponent(code) == digits


@pytest.mark.parametrize("code", ["usd", "XXX", "XAU", "CU", "DEM", ""])
def test_what_is_no_currency(code: str) -> None:
    """Not in capitals, a test code, a metal, one that is gone: nothing to keep books in."""
    assert not is_currency(code)


# --- spreading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "over", "parts"),
    [
        pytest.param(100, [1, 1, 1], [34, 33, 33], id="the unit left over goes to the first of equals"),
        pytest.param(2, [1, 1, 1], [1, 1, 0], id="two left over: to the first two of equals"),
        pytest.param(10, [1, 2], [3, 7], id="the larger fraction wins over the earlier line"),
        pytest.param(8911, [3333, 3333, 3334], [2970, 2970, 2971], id="basket of three lines less a discount"),
        pytest.param(1, [Fraction(1, 3), Fraction(2, 3)], [0, 1], id="weights may be fractions"),
        pytest.param(5, [0, 1, 0], [0, 5, 0], id="what weighs nothing gets nothing"),
        pytest.param(0, [1, 2, 3], [0, 0, 0], id="nothing to spread"),
        pytest.param(0, [0, 0], [0, 0], id="nothing to spread over what weighs nothing"),
        pytest.param(0, [], [], id="nothing over nobody"),
        pytest.param(2**53 + 1, [1, 1], [2**52 + 1, 2**52], id="more than a float can count"),
    ],
)
def test_spread(total: int, over: list[int | Fraction], parts: list[int]) -> None:
    assert spread(total, over) == parts


@pytest.mark.parametrize("over", [[], [0], [0, 0, 0]])
def test_spreading_over_nothing_is_an_error(over: list[int]) -> None:
    """Money must not vanish where nobody can receive it."""
    with pytest.raises(ValueError, match="nothing to spread"):
        spread(1, over)


@examples
@given(amounts, weights)
def test_spread_gives_everything_within_a_unit_of_the_exact_share(total: int, over: list[int | Fraction]) -> None:
    if not sum(over):
        over = [*over, 1]
    parts = spread(total, over)
    assert sum(parts) == total
    assert len(parts) == len(over)
    for part, weight in zip(parts, over, strict=True):
        assert abs(part - Fraction(total) * weight / sum(over)) < 1
        assert part >= 0
        assert weight or part == 0


@examples
@given(amounts, weights)
def test_spread_gives_more_to_the_heavier_and_then_to_the_earlier(total: int, over: list[int | Fraction]) -> None:
    over = [*over, 1]
    parts = spread(total, over)
    heaviest_first = sorted(range(len(over)), key=lambda i: (-over[i], i))
    in_that_order = [parts[i] for i in heaviest_first]
    assert in_that_order == sorted(parts, reverse=True)


@examples
@given(amounts, weights, st.integers(1, 10**6))
def test_only_the_proportions_of_weights_count(total: int, over: list[int | Fraction], factor: int) -> None:
    over = [*over, 1]
    assert spread(total, [weight * factor for weight in over]) == spread(total, over)


# --- sharing a price ------------------------------------------------------------------------------------------------


def whole(*amounts: int) -> list[Fraction]:
    return [Fraction(amount) for amount in amounts]


@pytest.mark.parametrize(
    ("consideration", "goods", "points", "method", "rounding", "shared"),
    [
        pytest.param(
            100_000,
            [100_000],
            9500,
            "relative",
            "half_even",
            Allocation(8676, -200_913, (91_324,)),
            id="IFRS 15 Example 52",
        ),
        pytest.param(
            15_000,
            [15_000],
            200,
            "relative",
            "half_even",
            Allocation(197, 368_421, (14_803,)),
            id="seed case: 1.973684",
        ),
        pytest.param(
            15_000, [15_000], 200, "relative", "up", Allocation(198, -631_579, (14_802,)), id="seed case rounded up"
        ),
        pytest.param(
            15_000,
            [15_000],
            200,
            "residual",
            "half_even",
            Allocation(200, 0, (14_800,)),
            id="seed case, residual method",
        ),
        pytest.param(
            9000,
            [3333, 3333, 3334],
            100,
            "relative",
            "half_even",
            Allocation(89, 108_911, (2970, 2970, 2971)),
            id="basket",
        ),
        pytest.param(99, [99], 1, "relative", "half_even", Allocation(1, -10_000, (98,)), id="0.99 is nearly one"),
        pytest.param(1, [1], 1, "relative", "half_even", Allocation(0, 500_000, (1,)), id="half a unit to even: goods"),
        pytest.param(1, [1], 1, "relative", "half_up", Allocation(1, -500_000, (0,)), id="half a unit up: points"),
        pytest.param(
            100, [500], 200, "residual", "half_even", Allocation(100, 0, (0,)), id="residual, capped by the price"
        ),
        pytest.param(1000, [1000], 0, "relative", "half_even", Allocation(0, 0, (1000,)), id="no points"),
        pytest.param(
            0, [1000], 100, "relative", "half_even", Allocation(0, 0, (0,)), id="given away: nothing to share"
        ),
        pytest.param(0, [1000], 100, "residual", "half_even", Allocation(0, 0, (0,)), id="given away, residual method"),
        pytest.param(0, [0, 0], 0, "relative", "half_even", Allocation(0, 0, (0, 0)), id="free lines, no points"),
        pytest.param(0, [0, 0], 10, "relative", "half_even", Allocation(0, 0, (0, 0)), id="free lines with points"),
        pytest.param(10, [0, 0], 1, "relative", "half_even", Allocation(10, 0, (0, 0)), id="goods worth nothing"),
        pytest.param(
            10, [0, 0], 1, "residual", "half_even", Allocation(1, 0, (5, 4)), id="goods worth nothing, residual: evenly"
        ),
        pytest.param(
            300,
            [0, 100],
            0,
            "relative",
            "half_even",
            Allocation(0, 0, (0, 300)),
            id="a free line gets nothing of the others",
        ),
    ],
)
def test_allocate(
    consideration: int, goods: list[int], points: int, method: Method, rounding: Rounding, shared: Allocation
) -> None:
    """What remains of the price after the points is the goods', line by line; what rounding cut off is kept."""
    assert allocate(consideration, whole(*goods), Fraction(points), method, rounding) == shared


def test_ifrs_15_example_52() -> None:
    """IE267-IE270: 100,000 sold, 10,000 points of 1 each, 9,500 expected to be used: 91,324 and 8,676."""
    rate = Fraction(95, 100)
    shared = allocate(100_000, whole(100_000), 10_000 * 1 * rate)
    assert shared.points == 8676
    assert shared.goods == (91_324,)
    assert expected_points(10_000, rate) == 9500 * 1_000_000
    in_cents = allocate(10_000_000, whole(10_000_000), 1_000_000 * rate)
    assert (in_cents.points, sum(in_cents.goods)) == (867_580, 9_132_420)


@examples
@given(amounts, st.lists(prices, min_size=1, max_size=6), prices, st.sampled_from(METHODS), st.sampled_from(MODES))
def test_allocation_gives_everything_and_keeps_the_exact_share(
    consideration: int, goods: list[Fraction], points: Fraction, method: Method, rounding: Rounding
) -> None:
    """Points and goods come to the price; with the residue the exact share is known to a millionth."""
    shared = allocate(consideration, goods, points, method, rounding)
    assert shared.points + sum(shared.goods) == consideration
    assert 0 <= shared.points <= consideration
    assert min(shared.goods) >= 0
    assert abs(shared.residue) <= (500_000 if rounding in HALF else 1_000_000)
    exact = min(points, Fraction(consideration))
    if method == "relative":
        exact = Fraction(consideration) * points / (sum(goods) + points) if sum(goods) + points else Fraction(0)
    assert abs(shared.points + Fraction(shared.residue, 1_000_000) - exact) <= Fraction(1, 2_000_000)


@examples
@given(
    amounts, st.lists(prices, min_size=1, max_size=6), prices, prices, st.sampled_from(METHODS), st.sampled_from(MODES)
)
def test_dearer_points_never_get_less(
    consideration: int, goods: list[Fraction], points: Fraction, more: Fraction, method: Method, rounding: Rounding
) -> None:
    cheaper = allocate(consideration, goods, points, method, rounding)
    dearer = allocate(consideration, goods, points + more, method, rounding)
    assert dearer.points >= cheaper.points


@examples
@given(amounts, st.lists(prices, min_size=1, max_size=6), prices)
def test_residual_method_never_defers_less_than_the_relative_one(
    consideration: int, goods: list[Fraction], points: Fraction
) -> None:
    """Goods listed at least at the price paid, as in every purchase: a discount falls on goods alone, not on both."""
    goods = [*goods, Fraction(consideration)]
    relative, residual = (allocate(consideration, goods, points, method).points for method in METHODS)
    assert relative <= residual <= round_to_int(points)


# --- postings -------------------------------------------------------------------------------------------------------


PROGRAM = UUID("0199d3a6-b1f0-7c1e-8a52-000000000001")
OTHER_PROGRAM = UUID("0199d3a6-b1f0-7c1e-8a52-000000000002")
DOCUMENT = UUID("0199d3a6-b1f0-7c1e-8a52-000000000003")
COHORT = UUID("0199d3a6-b1f0-7c1e-8a52-000000000004")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MONTH = date(2026, 11, 1)
CHART = default_codes()


def sale(consideration: int, share: int, tax: int = 0) -> Sale:
    return Sale(PROGRAM, DOCUMENT, "CNY", NOW, MONTH, consideration, tax, share, COHORT)


def rows(postings: Iterable[Posting]) -> list[tuple[str, str, int, str]]:
    return [(posting.debit, posting.credit, posting.amount, posting.cause) for posting in postings]


def net(rows: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """Per account, debit positive; zeros left out."""
    sums: Counter[str] = Counter()
    for debit, credit, amount in rows:
        sums[debit] += amount
        sums[credit] -= amount
    return {code: amount for code, amount in sums.items() if amount}


@pytest.mark.parametrize(
    ("sold", "full", "adjustment"),
    [
        pytest.param(
            sale(15_000, 197, tax=1950),
            [("1000", "4000", 14_803, "sale"), ("1000", "2100", 197, "accrual"), ("1000", "2400", 1950, "sale")],
            [("4000", "2100", 197, "accrual")],
            id="169.50 with 19.50 VAT",
        ),
        pytest.param(sale(15_000, 0), [("1000", "4000", 15_000, "sale")], [], id="no points: nothing is deferred"),
        pytest.param(
            sale(5, 5), [("1000", "2100", 5, "accrual")], [("4000", "2100", 5, "accrual")], id="all for points"
        ),
        pytest.param(sale(0, 0, tax=13), [("1000", "2400", 13, "sale")], [], id="VAT alone"),
        pytest.param(sale(0, 0), [], [], id="given away: no rows of zero"),
    ],
)
def test_sale_postings(
    sold: Sale, full: list[tuple[str, str, int, str]], adjustment: list[tuple[str, str, int, str]]
) -> None:
    assert rows(sale_postings(sold, "full", CHART)) == full
    assert rows(sale_postings(sold, "adjustment", CHART)) == adjustment
    assert rows(grant_postings(sold, CHART)) == adjustment


def test_postings_use_the_codes_of_the_programme() -> None:
    chart = CHART | {"cash": "1710", "revenue_goods": "8400", "liability_points": "3500", "vat": "3806"}
    sold = sale(15_000, 197, tax=1950)
    assert [(posting.debit, posting.credit) for posting in sale_postings(sold, "full", chart)] == [
        ("1710", "8400"),
        ("1710", "3500"),
        ("1710", "3806"),
    ]
    assert [(posting.debit, posting.credit) for posting in grant_postings(sold, chart)] == [("8400", "3500")]


def test_postings_say_where_they_come_from() -> None:
    """Each row names its document, month and programme; only what is deferred belongs to a cohort."""
    for posting in sale_postings(sale(15_000, 197, tax=1950), "full", CHART):
        assert (posting.program_id, posting.document_id, posting.currency) == (PROGRAM, DOCUMENT, "CNY")
        assert (posting.occurred_at, posting.period) == (NOW, MONTH)
        assert posting.cohort_id == (COHORT if posting.cause == "accrual" else None)


@examples
@given(st.data())
def test_profiles_agree(data: st.DataObject) -> None:
    """Our adjustment and the till's own entry come to the whole sale of the full profile, for every price."""
    consideration, tax = data.draw(amounts), data.draw(amounts)
    share = data.draw(st.integers(0, consideration))
    sold = sale(consideration, share, tax)
    till = [("1000", "4000", consideration), ("1000", "2400", tax)]
    adjustment = [row[:3] for row in rows(sale_postings(sold, "adjustment", CHART))]
    full = [row[:3] for row in rows(sale_postings(sold, "full", CHART))]
    assert net([*adjustment, *till]) == net(full)
    assert all(amount > 0 for _, _, amount in [*adjustment, *full])


# --- cohorts --------------------------------------------------------------------------------------------------------


KEY = CohortKey(PROGRAM, "CNY", MONTH, "purchase", "2/3")


def test_cohort_id_never_changes() -> None:
    """It is computed, not looked up: another formula would part new lots from the cohorts already stored."""
    assert KEY.id == UUID("9fc5db3e-6e17-5d18-a2a8-c2b048affd06")
    assert replace(KEY).id == KEY.id


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, program_id=OTHER_PROGRAM),
        replace(KEY, currency="USD"),
        replace(KEY, month=date(2026, 12, 1)),
        replace(KEY, month=date(2025, 11, 1)),
        replace(KEY, estimate_class="4/5"),
        replace(KEY, estimate_class="1"),
    ],
    ids=["programme", "currency", "month", "year", "rate", "all used"],
)
def test_other_cohorts_have_other_ids(other: CohortKey) -> None:
    assert other.id != KEY.id


keys = st.builds(
    CohortKey,
    st.sampled_from([PROGRAM, OTHER_PROGRAM]),
    st.sampled_from(["CNY", "USD", "JPY"]),
    st.builds(date, st.integers(2000, 2100), st.integers(1, 12), st.just(1)),
    st.just("purchase"),
    st.builds(lambda n, d: str(Fraction(n, n + d)), st.integers(1, 20), st.integers(0, 20)),
)


@examples
@given(keys, keys)
def test_cohort_ids_are_equal_exactly_where_keys_are(first: CohortKey, second: CohortKey) -> None:
    assert (first.id == second.id) == (first == second)


def change(key: CohortKey = KEY, cause: ChangeCause = "accrual", at: datetime = NOW, **figures: int) -> CohortChange:
    carried = key if cause == "accrual" else None
    return CohortChange(key.id, key.program_id, key.currency, cause, MONTH, at, carried, **figures)


changes_of_batches = st.lists(
    st.builds(
        change,
        keys | st.just(KEY),
        st.sampled_from(["accrual", "return", "redemption", "expiry"]),
        st.datetimes(datetime(2026, 11, 1), datetime(2026, 11, 30), timezones=st.just(UTC)),  # noqa: DTZ001  # UTC follows
        allocated=amounts,
        residue=st.integers(-500_000, 500_000),
        issued=st.integers(-(10**6), 10**6),
        expected=amounts,
        used=st.integers(-9, 9),
    ),
    max_size=12,
)


@examples
@given(changes_of_batches, st.randoms(use_true_random=False))
def test_changes_are_summed_in_one_order(changes: list[CohortChange], shuffler: random.Random) -> None:
    """One row per cohort and cause whatever order the batch had; sorted by cohort, so that batches never wait."""
    summed = sum_changes(changes)
    assert [one.cohort_id for one in summed] == sorted(one.cohort_id for one in summed)
    assert {(one.cohort_id, one.cause) for one in summed} == {(one.cohort_id, one.cause) for one in changes}
    for one in summed:
        parts = [part for part in changes if (part.cohort_id, part.cause) == (one.cohort_id, one.cause)]
        for name in ("allocated", "residue", "issued", "expected", "used"):
            assert getattr(one, name) == sum(getattr(part, name) for part in parts)
        assert one.occurred_at == max(part.occurred_at for part in parts)
    shuffled = list(changes)
    shuffler.shuffle(shuffled)
    assert sum_changes(shuffled) == summed


def test_two_lots_of_one_cohort_are_one_change() -> None:
    """Two seed sales: 3.94 deferred, 300 points of which 200 are expected to be used."""
    lot = change(allocated=197, residue=368_421, issued=150, expected=100_000_000)
    other = replace(KEY, estimate_class="4/5")
    elsewhere = replace(lot, cohort_id=other.id, key=other)
    assert sorted(sum_changes([lot, elsewhere, lot]), key=lambda one: one.issued) == [
        elsewhere,
        change(allocated=394, residue=736_842, issued=300, expected=200_000_000),
    ]
    assert sum_changes([]) == []


def test_what_happens_in_two_months_stays_apart() -> None:
    december = replace(change(cause="redemption", used=5), period=date(2026, 12, 1))
    november = change(cause="redemption", used=3)
    assert sum_changes([december, november]) == [november, december]


@pytest.mark.parametrize(
    ("points", "rate", "millionths"),
    [
        (150, "2/3", 100_000_000),
        (1, "2/3", 666_667),
        (1, "1/3", 333_333),
        (10_000, "19/20", 9_500_000_000),
        (7, "1", 7_000_000),
        (0, "2/3", 0),
        (1, "1/2000000", 0),
        (3, "1/2000000", 2),
        (5, "1/2000000", 2),
        (9_000_000_000_000, "1", 9 * 10**18),
    ],
)
def test_expected_points(points: int, rate: str, millionths: int) -> None:
    """Millionths of a point, halves to even."""
    assert expected_points(points, Fraction(rate)) == millionths


@examples
@given(st.integers(0, 10**12), st.integers(1, 10**6), st.integers(0, 10**6))
def test_never_more_points_are_expected_than_issued(points: int, used: int, unused: int) -> None:
    rate = Fraction(used, used + unused)
    expected = expected_points(points, rate)
    assert 0 <= expected <= points * 1_000_000
    assert abs(expected - points * rate * 1_000_000) <= Fraction(1, 2)
