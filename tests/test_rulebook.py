"""Which rules a purchase has to ask: looked up, and always those that would give it something."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.programs import Occasion
from app.programs.basket import Sale
from app.programs.conditions import Goods, When
from app.programs.earning import Rule
from app.programs.rulebook import Rulebook
from app.programs.rules import _sale
from tests.baskets import OCCASION, basket, examples, line, terms

MILK = line(450, department="Dairy", category="fresh", product="milk", quantity="3")
SALE = _sale(basket(MILK, line(1000, number=2, department="Bakery", product="bread"), line(0, number=3)), terms())

days = st.sampled_from(["2026-03-01", "2026-03-02", "2026-03-08"])
hours = st.sampled_from(["00:00", "08:00", "12:30", "22:00"])
HERE: dict[str, st.SearchStrategy[Any]] = {
    "first_day": days,
    "last_day": days,
    "weekdays": st.lists(st.sampled_from(["mon", "tue", "sun"]), min_size=1, unique=True),
    "hours": st.fixed_dictionaries({"begin": hours, "end": hours}),
    "stores": st.lists(st.sampled_from(["7", "8"]), min_size=1, unique=True),
    "channels": st.lists(st.sampled_from(["pos", "web"]), min_size=1, unique=True),
}
"""Each condition on time and place."""

_ON_GOODS = {"tenders", "minimum_spend", "minimum_quantity"}


def in_order(when: dict[str, Any]) -> dict[str, Any]:
    ends = sorted(when[end] for end in ("first_day", "last_day") if end in when)
    return when | dict(zip(("first_day", "last_day"), ends, strict=True)) if len(ends) == 2 else when


def rules_of(parts: list[dict[str, Any]]) -> list[Rule]:
    visit = {"name": "r", "gives": {"type": "fixed", "points": 1}}
    return [Rule.model_validate({"code": f"r{number}"} | visit | each) for number, each in enumerate(parts)]


any_rules = st.lists(
    st.fixed_dictionaries(
        {"when": st.fixed_dictionaries({}, optional=HERE).map(in_order)},
        optional={"cooldown_hours": st.just(1), "budget": st.just(5), "who": st.just({"first_purchase": True})},
    ),
    max_size=6,
).map(rules_of)
minutes = st.sampled_from([0, 1, 7 * 60 + 59, 8 * 60, 12 * 60 + 29, 12 * 60 + 30, 22 * 60, 24 * 60 - 1])
moments = st.builds(
    lambda day, minute, second: datetime(2026, 2, 27, tzinfo=UTC) + timedelta(day, second, minutes=minute),
    st.integers(0, 14),
    minutes,
    st.sampled_from([0, 59]),
)
occasions = st.builds(Occasion, moments, st.sampled_from([None, "7", "8", "9"]), st.sampled_from([None, "pos", "app"]))


@examples
@given(any_rules, st.lists(occasions, min_size=1, max_size=8))
def test_what_is_in_force_then_and_there_has_no_unmet_condition(rules: list[Rule], asked: list[Occasion]) -> None:
    book = Rulebook(rules)
    for occasion in asked:
        asked_of = [rule for rule, _ in book.about(SALE, occasion)]
        assert asked_of == [rule for rule in rules if rule.when.unmet(occasion) is None]
        on_the_day = [rule for rule in rules if rule.personal and rule.when.in_force(occasion.at.date())]
        assert book.personal(occasion.at.date()) == on_the_day


def test_it_knows_all_conditions() -> None:
    """One that `When` gets must be looked up by `Rulebook`, unless it is on what is bought or paid."""
    assert set(When.model_fields) == HERE.keys() | _ON_GOODS


names = st.lists(st.sampled_from(["Dairy", "Meat", "fresh", "milk", "bread"]), max_size=2, unique=True)
goods = st.fixed_dictionaries({"departments": names, "categories": names, "products": names})


@examples
@given(st.lists(st.fixed_dictionaries({"on": goods, "excluded": goods}), max_size=6).map(rules_of))
def test_with_each_rule_goes_what_it_is_about(rules: list[Rule]) -> None:
    """None is left out that would give something."""
    expected = {rule.code: SALE.amount(rule.places(SALE)) for rule in rules}
    found = {rule.code: amount for rule, amount in Rulebook(rules).about(SALE, OCCASION)}
    assert found | expected == expected
    assert all(expected[code] == 0 for code in expected.keys() - found.keys())


def test_rules_of_other_times_and_places_are_never_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and though they are about what is bought."""
    never = {"begin": "03:00", "end": "04:00"}
    elsewhere = [{"stores": ["8"]}, {"channels": ["web"]}, {"weekdays": ["mon"]}, {"hours": never}]
    mixed = {"departments": ["Dairy"], "products": ["milk"]}
    book = Rulebook(rules_of([{"when": when, "on": mixed} for when in [*elsewhere * 50, {"stores": ["7"]}]]))
    looked_at = []

    def spied(on: Goods, sale: Sale) -> set[int]:
        looked_at.append(on)
        return places(on, sale)

    places = Goods.places
    monkeypatch.setattr(Goods, "places", spied)
    assert [rule.code for rule, _ in book.about(SALE, OCCASION)] == ["r200"]
    assert len(looked_at) == 1
