"""Which rules are in force when and where: looked up, and always those of which no condition is unmet."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.programs import Occasion, rulebook
from app.programs.conditions import When
from app.programs.earning import Rule
from app.programs.rulebook import Rulebook
from tests.baskets import OCCASION, examples

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


def rules_of(whens: list[dict[str, Any]]) -> list[Rule]:
    return [
        Rule.model_validate({"code": f"r{n}", "name": "r", "gives": {"type": "fixed", "points": 1}, "when": when})
        for n, when in enumerate(whens)
    ]


any_rules = st.lists(st.fixed_dictionaries({}, optional=HERE).map(in_order), max_size=6).map(rules_of)
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
    """Asked again, it is the same, whatever was asked between."""
    book = Rulebook(rules)
    for occasion in [*asked, *asked]:
        assert list(book.at(occasion).rules) == [rule for rule in rules if rule.when.unmet(occasion) is None]
        on_the_day = [rule for rule in rules if rule.when.in_force(occasion.at.date())]
        assert list(book.on(occasion.at.date())) == on_the_day


def test_it_knows_all_conditions() -> None:
    """One that `When` gets must be looked up by `Rulebook.at`, unless it is on what is bought or paid."""
    assert set(When.model_fields) == HERE.keys() | _ON_GOODS


def test_what_is_kept_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rulebook, "_KEPT", 3)
    book = Rulebook(rules_of([{"stores": [str(n)]} for n in range(10)]))
    for store in map(str, [*range(10), 0]):
        assert [rule.when.stores for rule in book.at(OCCASION._replace(store=store)).rules] == [[store]]
        assert len(book._kept) <= 3


def test_places_that_no_rule_names_are_one() -> None:
    book = Rulebook(rules_of([{"stores": ["7"]}, {}]))
    elsewhere = [book.at(OCCASION._replace(store=str(n))) for n in range(10, 20)]
    assert all(each is elsewhere[0] for each in elsewhere)
