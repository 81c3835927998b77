"""What the events after a sale post, by worked numbers; and that our part and the till's own entry are the whole."""

import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest

from app.accounting import (
    Event,
    Posting,
    Profile,
    Supply,
    concession_postings,
    fulfilment_postings,
    provision_postings,
    return_postings,
    returned_part,
    sale_postings,
    set_aside,
    tender_postings,
    tender_return_postings,
    withheld_postings,
    write_off_postings,
)
from app.accounting.recognition import CohortKey, Release, ReleaseCause, release_postings
from app.accounting.rules import Funding
from tests.test_accounting_rules import CHART, COHORT, DOCUMENT, MONTH, NOW, PROGRAM, net, rows, sale

EVENT = Event(PROGRAM, DOCUMENT, "CNY", NOW, MONTH)
OF_COHORT = Event(PROGRAM, DOCUMENT, "CNY", NOW, MONTH, COHORT)

Rows = list[tuple[str, str, int, str]]
Till = list[tuple[str, str, int]]


# --- the two profiles -----------------------------------------------------------------------------------------------


def paid_with_points(profile: Profile) -> list[Posting]:
    """Goods of 100.00 paid with 4,000 points for 80.00 and 20.00 in cash, which earns 20 points: 0.26 deferred."""
    return [*sale_postings(sale(2000, 26), profile, CHART), *tender_postings(EVENT, 8000, profile, CHART)]


def withheld(profile: Profile) -> list[Posting]:
    """The seed sale comes back after 100 of its points were spent: 2.00 of the refund is kept."""
    return [*return_postings(sale(15_000, 197), profile, CHART), *withheld_postings(EVENT, 200, profile, CHART)]


@pytest.mark.parametrize(
    ("post", "full", "adjustment", "till"),
    [
        pytest.param(
            lambda profile: return_postings(sale(15_000, 197, tax=1950), profile, CHART),
            [("4000", "1000", 14_803, "return"), ("2100", "1000", 197, "return"), ("2400", "1000", 1950, "return")],
            [("2100", "4000", 197, "return")],
            [("4000", "1000", 15_000), ("2400", "1000", 1950)],
            id="a sale with VAT comes back",
        ),
        pytest.param(
            lambda profile: return_postings(sale(10, 60), profile, CHART),
            [("1000", "4000", 50, "return"), ("2100", "1000", 60, "return")],
            [("2100", "4000", 60, "return")],
            [("4000", "1000", 10)],
            id="a cheap line that earned most of the points comes back",
        ),
        pytest.param(
            lambda profile: return_postings(sale(500, 0), profile, CHART),
            [("4000", "1000", 500, "return")],
            [],
            [("4000", "1000", 500)],
            id="a line that earned nothing comes back",
        ),
        pytest.param(
            withheld,
            [("4000", "1000", 14_803, "return"), ("2100", "1000", 197, "return"), ("1000", "4100", 200, "return")],
            [("2100", "4000", 197, "return"), ("4000", "4100", 200, "return")],
            [("4000", "1000", 14_800)],
            id="a part of the refund is kept for points that are spent",
        ),
        pytest.param(
            paid_with_points,
            [("1000", "4000", 1974, "sale"), ("1000", "2100", 26, "accrual")],
            [("4000", "2100", 26, "accrual"), ("4000", "2190", 8000, "tender")],
            [("1000", "4000", 2000), ("2190", "4000", 8000)],
            id="points plus cash",
        ),
        pytest.param(
            lambda profile: tender_return_postings(EVENT, 8000, profile, CHART),
            [],
            [("2190", "4000", 8000, "return")],
            [("4000", "2190", 8000)],
            id="goods paid with points come back",
        ),
    ],
)
def test_ours_and_the_tills_entry_are_the_whole(
    post: Callable[[Profile], list[Posting]], full: Rows, adjustment: Rows, till: Till
) -> None:
    assert rows(post("full")) == full
    assert rows(post("adjustment")) == adjustment
    assert net([*(row[:3] for row in adjustment), *till]) == net(row[:3] for row in full)


def test_a_return_undoes_a_sale() -> None:
    """In parts of any size: the net of all accounts is nothing, in both profiles."""
    chance = random.Random(5)
    for _ in range(300):
        price, tax = chance.randint(0, 10_000), chance.randint(0, 2000)
        share, granted = chance.randint(0, price), chance.randint(1, 500)
        cuts = sorted({*(chance.randint(1, granted) for _ in range(4)), granted})
        for profile in ("full", "adjustment"):
            posted = sale_postings(sale(price, share, tax), profile, CHART)
            done = [0, 0, 0]
            for cut in cuts:
                parts = [
                    returned_part(whole, cut, granted, already)
                    for whole, already in zip((price, share, tax), done, strict=True)
                ]
                done = [already + part for already, part in zip(done, parts, strict=True)]
                posted += return_postings(sale(*parts), profile, CHART)
            assert net((row.debit, row.credit, row.amount) for row in posted) == {}


@pytest.mark.parametrize(
    ("amount", "granted", "taken", "parts"),
    [
        pytest.param(197, 150, [50, 50, 50], [66, 65, 66], id="the seed sale in thirds"),
        pytest.param(197, 150, [150], [197], id="at once"),
        pytest.param(197, 150, [1, 148, 1], [1, 195, 1], id="uneven"),
        pytest.param(5, 10, [1] * 10, [0, 1, 1, 0, 0, 1, 1, 0, 0, 1], id="halves to even, and in the end all"),
        pytest.param(-368_421, 150, [50, 50, 50], [-122_807, -122_807, -122_807], id="a residue below zero"),
        pytest.param(0, 150, [75, 75], [0, 0], id="nothing was deferred"),
    ],
)
def test_parts_of_a_return(amount: int, granted: int, taken: Sequence[int], parts: Sequence[int]) -> None:
    found: list[int] = []
    for number in range(len(taken)):
        found.append(returned_part(amount, sum(taken[: number + 1]), granted, sum(found)))
    assert found == parts
    assert sum(found) == amount


# --- points without a purchase --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "rate", "each", "at_most", "amount", "residue"),
    [
        pytest.param(500, "4/5", "4/5", None, 320, 0, id="goodwill at cost: 3.20"),
        pytest.param(500, "4/5", "2", None, 800, 0, id="a concession at the points' value: 8.00"),
        pytest.param(500, "4/5", "2", 500, 500, 0, id="at most what the order cost"),
        pytest.param(500, "4/5", "2", 0, 0, 0, id="of an order that cost nothing"),
        pytest.param(150, "2/3", "4/3", None, 133, 333_333, id="what rounding cuts off is kept"),
        pytest.param(1, "1/2", "1", None, 0, 500_000, id="half to even"),
        pytest.param(3, "1/2", "1", None, 2, -500_000, id="and the other way"),
        pytest.param(0, "1", "1", None, 0, 0, id="no points"),
    ],
)
def test_set_aside(points: int, rate: str, each: str, at_most: int | None, amount: int, residue: int) -> None:
    aside = set_aside(points, Fraction(rate), Fraction(each), at_most)
    assert (aside.points, aside.residue, aside.goods) == (amount, residue, ())


@pytest.mark.parametrize(
    ("postings", "expected"),
    [
        pytest.param(provision_postings(OF_COHORT, 320, CHART), ("6100", "2300", 320, "provision"), id="goodwill"),
        pytest.param(concession_postings(OF_COHORT, 800, CHART), ("4000", "2100", 800, "concession"), id="concession"),
        pytest.param(fulfilment_postings(EVENT, 80, "own", CHART), ("5100", "1400", 80, "fulfilment"), id="own"),
        pytest.param(
            fulfilment_postings(EVENT, 9200, "principal", CHART), ("5100", "2200", 9200, "fulfilment"), id="principal"
        ),
        pytest.param(
            fulfilment_postings(EVENT, 9200, "agent", CHART), ("4400", "2200", 9200, "fulfilment"), id="agent"
        ),
        pytest.param(write_off_postings(EVENT, 80, CHART), ("6100", "5100", 80, "write_off"), id="written off"),
    ],
)
def test_events_of_one_row(postings: list[Posting], expected: tuple[str, str, int, str]) -> None:
    assert rows(postings) == [expected]
    (posting,) = postings
    cohort_id = COHORT if expected[3] in ("provision", "concession") else None
    assert (posting.document_id, posting.cohort_id, posting.period) == (DOCUMENT, cohort_id, MONTH)


@pytest.mark.parametrize("supply", ["own", "principal", "agent"])
def test_what_costs_nothing_posts_nothing(supply: Supply) -> None:
    assert fulfilment_postings(EVENT, 0, supply, CHART) == []
    assert write_off_postings(EVENT, 0, CHART) == provision_postings(OF_COHORT, 0, CHART) == []


def test_only_the_points_share_of_a_return_is_of_a_cohort() -> None:
    for posting in return_postings(sale(15_000, 197, tax=1950), "full", CHART):
        assert posting.cohort_id == (COHORT if posting.debit == "2100" else None)
        assert posting.document_id == DOCUMENT


# --- releases -------------------------------------------------------------------------------------------------------


def released(cause: ReleaseCause, amount: int, as_agent: int = 0, funding: Funding = "purchase") -> list[Posting]:
    key = CohortKey(PROGRAM, "CNY", MONTH, funding, "2/3")
    return release_postings(key, Release(cause, amount, as_agent, MONTH, NOW), CHART)


@pytest.mark.parametrize(
    ("postings", "expected"),
    [
        pytest.param(released("redemption", 197), [("2100", "4100", 197, "redemption")], id="used"),
        pytest.param(released("expiry", 333), [("2100", "4100", 333, "expiry")], id="expired"),
        pytest.param(released("estimate", -166), [("4100", "2100", 166, "estimate")], id="estimate raised"),
        pytest.param(released("return", -197), [("4100", "2100", 197, "return")], id="returned"),
        pytest.param(
            released("redemption", 100, 92),
            [("2100", "4100", 8, "redemption"), ("2100", "4400", 92, "redemption")],
            id="partly brokered",
        ),
        pytest.param(released("redemption", 100, 100), [("2100", "4400", 100, "redemption")], id="all brokered"),
        pytest.param(
            released("redemption", -10, -4),
            [("4100", "2100", 6, "redemption"), ("4400", "2100", 4, "redemption")],
            id="partly brokered, given back",
        ),
        pytest.param(
            released("redemption", 800, funding="concession"), [("2100", "4100", 800, "redemption")], id="concession"
        ),
        pytest.param(
            released("redemption", 240, funding="marketing"), [("2300", "5100", 240, "redemption")], id="goodwill used"
        ),
        *(
            pytest.param(
                released(cause, 80, funding="marketing"), [("2300", "6100", 80, cause)], id=f"goodwill {cause}"
            )
            for cause in ("expiry", "return", "estimate")
        ),
        pytest.param(
            released("redemption", -240, funding="marketing"),
            [("5100", "2300", 240, "redemption")],
            id="goodwill given back",
        ),
    ],
)
def test_releases(postings: list[Posting], expected: Rows) -> None:
    assert rows(postings) == expected
    assert {posting.document_id for posting in postings} == {posting.cohort_id for posting in postings}


def test_a_partners_reward_as_agent_leaves_the_commission() -> None:
    """100.00 released, the partner charges 92.00: 8.00 is ours, and no cost of rewards."""
    posted = [*released("redemption", 10_000, 10_000), *fulfilment_postings(EVENT, 9200, "agent", CHART)]
    assert net(row[:3] for row in rows(posted)) == {"2100": 10_000, "4400": -800, "2200": -9200}
