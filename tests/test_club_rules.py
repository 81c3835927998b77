"""Clubs by the rules, without a database: times, renewals, ends, and how a fee is shared and earned."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.clubs import fees, rules
from app.clubs.rules import AlreadyInClub, JoinedByBuying, Joining, Membership, NotInClub
from app.ids import new_id
from app.programs import Club, Line, Terms, Timeline, Version
from tests.shop import TERMS

NEW_YORK = ZoneInfo("America/New_York")
PROGRAM, MEMBER = UUID(int=1), UUID(int=2)
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
YEAR_LATER = datetime(2027, 11, 22, 5, 0, tzinfo=UTC)

FEE: dict[str, Any] = {"type": "fee", "fee": 1000, "months": 12, "welcome_points": 100, "renewal_points": 50}
PROMISE: dict[str, Any] = {"type": "promise", "spend": 10_000, "months": 3}
PURCHASE: dict[str, Any] = {"type": "purchase", "minimum_spend": 5000, "months": 6}


def version(*joinings: dict[str, Any], since: datetime = datetime(2000, 1, 1, tzinfo=UTC), **changes: Any) -> Version:
    """Terms with a club for each way to join, by its type."""
    clubs = [{"code": how["type"], "name": how["type"], "joining": how} for how in joinings]
    return Version(new_id(), 1, since, Terms.model_validate(TERMS | {"clubs": clubs} | changes))


def club_of(terms: Version, code: str) -> Club:
    club = terms.terms.club(code)
    assert club is not None
    return club


def join(terms: Version, code: str, at: datetime = NOON, mine: Sequence[Membership] = ()) -> Membership:
    joining = Joining(PROGRAM, MEMBER, new_id(), at, at)
    return rules.joined(joining, club_of(terms, code), terms, mine)


def sell(terms: Version, at: datetime = NOON, mine: Sequence[Membership] = ()) -> Membership:
    membership = join(terms, "fee", at, mine)
    points = fees.points_with(membership, club_of(terms, "fee"))
    return fees.sold(membership, points, fees.shared(membership, points, terms.terms), terms.terms.zone)


def buy(
    terms: Version, at: datetime, bases: Sequence[int] = (5000,), mine: Sequence[Membership] = ()
) -> list[Membership]:
    return rules.brought(Joining(PROGRAM, MEMBER, new_id(), at, NOON), terms, lines(len(bases)), bases, mine)


def lines(count: int, department: str = "FOOD") -> list[Line]:
    return [Line(number, "p", department, None, Decimal(1), 0, 0, 0) for number in range(count)]


# --- how long -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begins", "months", "ends"),
    [
        ("2026-11-22T12:00:00+00:00", 12, "2027-11-22T05:00:00+00:00"),
        ("2026-11-22T04:59:59+00:00", 12, "2027-11-21T05:00:00+00:00"),  # the day before, in New York
        ("2026-11-22T05:00:00+00:00", 12, "2027-11-22T05:00:00+00:00"),
        ("2027-01-31T12:00:00+00:00", 1, "2027-02-28T05:00:00+00:00"),
        ("2027-01-31T12:00:00+00:00", 2, "2027-03-31T04:00:00+00:00"),  # not the 28th: counted from the first day
        ("2027-01-31T12:00:00+00:00", 3, "2027-04-30T04:00:00+00:00"),
        ("2028-02-29T12:00:00+00:00", 12, "2029-02-28T05:00:00+00:00"),
        ("2027-02-14T12:00:00+00:00", 1, "2027-03-14T05:00:00+00:00"),  # the day on which the clocks go forward
        ("2027-02-15T12:00:00+00:00", 1, "2027-03-15T04:00:00+00:00"),
        ("2027-10-08T12:00:00+00:00", 1, "2027-11-08T05:00:00+00:00"),  # the day after they go back
    ],
)
def test_months_are_whole_days_of_the_programmes_zone(begins: str, months: int, ends: str) -> None:
    assert rules.month_end(datetime.fromisoformat(begins), months, NEW_YORK) == datetime.fromisoformat(ends)


# --- by a purchase --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "departments", "bases", "enough"),
    [
        ({}, ["FOOD"], [1], True),
        ({}, ["FOOD"], [0], False),
        ({}, [], [], False),
        ({"minimum_spend": 5000}, ["FOOD", "GARDEN"], [2500, 2500], True),
        ({"minimum_spend": 5000}, ["FOOD", "GARDEN"], [2500, 2499], False),
        ({"on": {"departments": ["GARDEN"]}}, ["FOOD", "GARDEN"], [9000, 1], True),
        ({"on": {"departments": ["GARDEN"]}}, ["FOOD", "GARDEN"], [9000, 0], False),
        ({"minimum_spend": 5000, "on": {"departments": ["GARDEN"]}}, ["FOOD", "GARDEN"], [9000, 4999], False),
        ({"minimum_spend": 5000, "on": {"departments": ["GARDEN"]}}, ["GARDEN", "GARDEN"], [2500, 2500], True),
        ({"on": {"products": ["p"]}}, ["FOOD"], [1], True),
        ({"on": {"categories": ["c"]}}, ["FOOD"], [1], False),
    ],
)
def test_a_purchase_is_enough(how: dict[str, Any], departments: list[str], bases: list[int], enough: bool) -> None:
    terms = version({"type": "purchase"} | how)
    bought = [line for department in departments for line in lines(1, department)]
    found = rules.brought(Joining(PROGRAM, MEMBER, new_id(), NOON, NOON), terms, bought, bases, [])
    assert [each.club for each in found] == (["purchase"] if enough else [])


def test_each_purchase_brings_its_own_time() -> None:
    terms = version(PURCHASE)
    (first,) = buy(terms, NOON)
    later = NOON + timedelta(days=40)
    (second,) = buy(terms, later, mine=[first])
    assert (second.begins_at, second.ends_at) == (later, datetime(2027, 7, 1, 4, 0, tzinfo=UTC))
    (belonging,) = rules.belongings([first, second], later)
    assert (belonging.since, belonging.until) == (NOON, second.ends_at)


def test_of_two_purchases_of_one_moment_one_may_come_back() -> None:
    """A sale that was posted twice, the first of which is voided: the other stands."""
    terms = version(PURCHASE)
    (first,) = buy(terms, NOON)
    (second,) = buy(terms, NOON, mine=[first])
    ended = rules.kept(first, terms, lines(1), [0], NOON, NOON)
    (belonging,) = rules.belongings([ended, second], NOON + timedelta(days=1))
    assert belonging.until == second.ends_at


def test_a_purchase_brings_nothing_to_who_belongs_for_as_long() -> None:
    terms = version(PURCHASE | {"months": None})
    (first,) = buy(terms, NOON)
    assert first.ends_at is None
    assert buy(terms, NOON + timedelta(days=1), mine=[first]) == []
    (earlier,) = buy(terms, NOON - timedelta(days=1), mine=[first])  # uploaded late
    assert earlier.begins_at == NOON - timedelta(days=1)


def test_what_comes_back_ends_it_and_a_void_of_that_lets_it_go_on() -> None:
    terms = version(PURCHASE)
    (membership,) = buy(terms, NOON, [3000, 3000])
    day_later, two = NOON + timedelta(days=1), lines(2)
    assert rules.kept(membership, terms, two, [3000, 2000], day_later, day_later) == membership
    ended = rules.kept(membership, terms, two, [3000, 0], day_later, day_later)
    assert (ended.ends_at, ended.ended_why) == (day_later, "returned")
    assert rules.kept(ended, terms, two, [0, 0], day_later, day_later) == ended
    assert rules.kept(ended, terms, two, [3000, 3000], day_later, day_later) == membership
    long_ago = replace(membership, ended_why="over", ended_at=membership.ends_at)
    assert rules.kept(long_ago, terms, two, [0, 0], NOON + timedelta(days=300), NOON) == long_ago


# --- by a promise or a fee ------------------------------------------------------------------------------------------


def test_nobody_joins_twice() -> None:
    terms = version(FEE, PROMISE, PURCHASE)
    for code in ("fee", "promise"):
        with pytest.raises(AlreadyInClub):
            join(terms, code, NOON, [join(terms, code)])
    with pytest.raises(JoinedByBuying):
        join(terms, "purchase")


@pytest.mark.parametrize(("days_before", "renews"), [(31, False), (30, True), (1, True)])
def test_a_fee_is_sold_again_shortly_before_the_end(days_before: int, renews: bool) -> None:
    terms = version(FEE)
    first = sell(terms)
    at = YEAR_LATER - timedelta(days=days_before)
    if not renews:
        with pytest.raises(AlreadyInClub):
            sell(terms, at, [first])
        return
    second = sell(terms, at, [first])
    assert (second.begins_at, second.follows_id, second.points) == (YEAR_LATER, first.id, 50)
    assert second.ends_at == datetime(2028, 11, 22, 5, 0, tzinfo=UTC)
    with pytest.raises(AlreadyInClub):
        sell(terms, at, [first, second])
    (belonging,) = rules.belongings([first, second], at)
    assert (belonging.since, belonging.until, belonging.by) == (NOON, second.ends_at, first)


def test_who_comes_late_is_welcomed_anew() -> None:
    terms = version(FEE)
    (over,) = rules.settled([sell(terms)], Timeline((terms,)), YEAR_LATER)
    assert over.ended_why == "over"
    again = sell(terms, YEAR_LATER, [over])
    assert (again.begins_at, again.follows_id, again.points) == (YEAR_LATER, None, 100)


@pytest.mark.parametrize(
    ("spent", "changes", "why", "goes_on"),
    [
        (9_999, {}, "not_kept", False),
        (10_000, {}, "renewed", True),
        (10_000, {"renews": False}, "over", False),
        (-1, {}, "not_kept", False),
    ],
)
def test_a_promise_is_looked_at_in_the_end(spent: int, changes: dict[str, Any], why: str, goes_on: bool) -> None:
    terms = version(PROMISE | changes)
    promised = replace(join(terms, "promise"), spent=spent)
    end = promised.ends_at
    assert end == datetime(2027, 2, 22, 5, 0, tzinfo=UTC)
    timeline = Timeline((terms,))
    assert rules.settled([promised], timeline, end - timedelta(microseconds=1)) == [promised]
    ended, *after = rules.settled([promised], timeline, end)
    assert (ended.ended_why, ended.ended_at, ended.ends_at) == (why, end, end)
    assert [(each.begins_at, each.follows_id, each.promised, each.spent) for each in after] == (
        [(end, promised.id, 10_000, 0)] if goes_on else []
    )


def test_however_late_somebody_looks_a_promise_ends_when_it_did() -> None:
    """The first time was kept, the second had nothing."""
    terms = version(PROMISE)
    promised = replace(join(terms, "promise"), spent=10_000)
    found = rules.settled([promised], Timeline((terms,)), NOON + timedelta(days=1000))
    assert [each.ended_why for each in found] == ["renewed", "not_kept"]
    assert found[1].ends_at == datetime(2027, 5, 22, 4, 0, tzinfo=UTC)


def test_a_promise_goes_on_under_the_terms_of_then() -> None:
    before, end = version(PROMISE), datetime(2027, 2, 22, 5, 0, tzinfo=UTC)
    promised = replace(join(before, "promise"), spent=10_000)
    more = version(PROMISE | {"spend": 20_000}, since=end - timedelta(days=1))
    assert rules.settled([promised], Timeline((before, more)), end)[1].promised == 20_000
    gone = version(since=end - timedelta(days=1))
    (ended,) = rules.settled([promised], Timeline((before, gone)), end)
    assert ended.ended_why == "over"


def test_what_counts_for_a_promise_was_bought_in_its_time() -> None:
    promised = join(version(PROMISE), "promise")
    end, tick = promised.ends_at, timedelta(microseconds=1)
    assert end is not None
    assert rules.counts_for(promised, NOON, NOON)
    assert not rules.counts_for(promised, NOON - tick, NOON)
    assert rules.counts_for(promised, NOON, end - tick), "what comes back before the end"
    assert not rules.counts_for(promised, NOON, end), "what comes back after it"
    assert not rules.counts_for(replace(promised, ended_why="left", ended_at=NOON), NOON, NOON)
    assert not rules.counts_for(sell(version(FEE)), NOON, NOON)


def test_leaving_ends_what_stands_and_what_is_to_follow() -> None:
    terms = version(FEE)
    first = sell(terms)
    at = YEAR_LATER - timedelta(days=10)
    second = sell(terms, at, [first])
    left = rules.ended([first, second], "fee", "left", "moved", at)
    assert [(each.begins_at, each.ends_at) for each in left] == [(NOON, at), (YEAR_LATER, YEAR_LATER)]
    assert list(rules.belongings(left, at)) == []
    with pytest.raises(NotInClub):
        rules.ended(left, "fee", "left", "moved", at)
    with pytest.raises(NotInClub):
        rules.ended(buy(version(PURCHASE), NOON), "purchase", "left", "moved", NOON)


# --- fees -----------------------------------------------------------------------------------------------------------


def test_a_hundred_and_twenty_a_year_with_a_thousand_points() -> None:
    """108.00 for the membership, 12.00 for points that would sell for 13.33; and 9.00 a month."""
    worth: dict[str, Any] = {
        "point_value": {"amount": 2000, "points": 1000},
        "redemption_rate": {"numerator": 2, "denominator": 3},
    }
    terms = version(FEE | {"fee": 12_000, "welcome_points": 1000}, **worth)
    membership = sell(terms)
    shared = fees.shared(membership, 1000, terms.terms)
    assert (shared.goods, shared.points, membership.deferred) == ((10_800,), 1200, 10_800)
    _, (month,) = fees.recognised(membership, NEW_YORK, datetime(2026, 12, 22, 5, 0, tzinfo=UTC))
    assert month.amount == 900


def test_ten_a_year_in_twelve_parts_sum_to_ten() -> None:
    membership = sell(version(FEE | {"welcome_points": 0}))
    assert membership.deferred == 1000
    after, parts = fees.recognised(membership, NEW_YORK, YEAR_LATER)
    assert [part.amount for part in parts] == [83, 84, 83, 83, 84, 83, 83, 84, 83, 83, 84, 83]
    assert (after.recognised, after.left, after.earns_at, after.passed) == (1000, 0, None, 12)


@given(
    fee=st.integers(1, 10**9),
    months=st.integers(1, 120),
    looks=st.lists(st.integers(0, 4000), max_size=20),
    begins=st.timedeltas(timedelta(0), timedelta(days=10_000)).map(lambda after: NOON + after),
)
def test_parts_sum_to_the_fee_however_often_somebody_looks(
    fee: int, months: int, looks: list[int], begins: datetime
) -> None:
    """Never more than was deferred, never less than before, and all of it by the end; each part at its own instant."""
    membership = sell(version(FEE | {"fee": fee, "months": months, "welcome_points": 0}), begins)
    assert membership.ends_at is not None
    at_once, all_parts = fees.recognised(membership, NEW_YORK, membership.ends_at)
    found = []
    for days in [*sorted(looks), 4000]:
        membership, parts = fees.recognised(membership, NEW_YORK, begins + timedelta(days=days))
        assert 0 <= membership.recognised <= membership.deferred
        found += parts
    assert (membership, found) == (at_once, all_parts)
    assert sum(part.amount for part in found) == fee
    assert [part.at for part in found] == sorted({part.at for part in found})
    assert len(found) == months


@pytest.mark.parametrize(
    ("begins", "periods"),
    [
        ("2026-12-01T12:00:00-05:00", [date(2026, 12, 1), date(2027, 1, 1)]),  # December is earned in December
        ("2026-12-02T12:00:00-05:00", [date(2027, 1, 1), date(2027, 2, 1)]),
        ("2026-12-31T12:00:00-05:00", [date(2027, 1, 1), date(2027, 2, 1)]),
        ("2027-01-31T12:00:00-05:00", [date(2027, 2, 1), date(2027, 3, 1)]),
    ],
)
def test_a_month_is_earned_in_that_of_its_last_day(begins: str, periods: list[date]) -> None:
    membership = sell(version(FEE), datetime.fromisoformat(begins))
    _, parts = fees.recognised(membership, NEW_YORK, NOON + timedelta(days=200))
    assert [part.period for part in parts][:2] == periods


def test_a_refund_is_what_is_not_earned_and_its_tax() -> None:
    terms = version(FEE | {"fee": 1200, "tax": 200})
    membership = sell(terms)
    points = membership.fee - membership.tax - membership.deferred
    whole, paid = fees.refunded(membership, points)
    assert (paid.membership + paid.points, paid.tax) == (1000, 200)
    assert (whole.left, whole.earns_at) == (0, None)
    half, _ = fees.recognised(membership, NEW_YORK, NOON + timedelta(days=185))
    assert half.passed == 6
    _, paid = fees.refunded(half, 0)
    assert (paid.membership, paid.points, paid.tax) == (half.deferred - half.recognised, 0, 93)  # of 463
    rest, amount = fees.forfeited(half)
    assert (amount, rest.left, rest.recognised, rest.earns_at) == (half.left, 0, rest.deferred, None)


def test_a_fee_that_is_all_tax_defers_nothing() -> None:
    membership = sell(version(FEE | {"fee": 100, "tax": 100}))
    assert (membership.deferred, membership.earns_at) == (0, None)
    _, paid = fees.refunded(membership, 0)
    assert (paid.membership, paid.points, paid.tax) == (0, 0, 0)


# --- where a member belongs -----------------------------------------------------------------------------------------


def test_a_gap_is_a_gap() -> None:
    terms = version(PURCHASE | {"months": 1})
    (first,) = buy(terms, NOON)
    (second,) = buy(terms, NOON + timedelta(days=60), mine=[first])
    assert list(rules.belongings([first, second], NOON + timedelta(days=45))) == []
    (belonging,) = rules.belongings([first, second], NOON + timedelta(days=61))
    assert belonging.since == second.begins_at
    assert list(rules.belongings([first, second], NOON - timedelta(seconds=1))) == []


# --- terms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clubs", "rules_", "code"),
    [
        ([{"code": "a", "name": "A", "joining": FEE}] * 2, [], "club_code_twice"),
        ([{"code": "a", "name": "A", "joining": FEE | {"tax": 1001}}], [], "tax_above_fee"),
        ([{"code": "a", "name": "A", "joining": FEE}], ["b"], "unknown_club"),
        ([], ["a"], "unknown_club"),
        ([{"code": "a", "name": "A", "joining": FEE | {"fee": 0}}], [], "greater_than_equal"),
        ([{"code": "a", "name": "A", "joining": {"type": "promise", "spend": 1}}], [], "missing"),
        ([{"code": f"c{number}", "name": "A", "joining": FEE} for number in range(21)], [], "too_long"),
    ],
)
def test_terms_with_wrong_clubs_are_refused(clubs: list[Any], rules_: list[str], code: str) -> None:
    gives = {"code": "r", "name": "R", "gives": {"type": "fixed", "points": 1}}
    with pytest.raises(ValidationError) as refused:
        Terms.model_validate(TERMS | {"clubs": clubs, "rules": [gives | {"who": {"clubs": rules_}}]})
    assert code in [error["type"] for error in refused.value.errors()]
