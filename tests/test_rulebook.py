"""Which rules a purchase has to ask: looked up, and always those that would give it something."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.programs import Occasion
from app.programs.basket import Line, Sale
from app.programs.conditions import When
from app.programs.earning import Rule
from app.programs.rulebook import Rulebook
from app.programs.rules import _sale
from tests.baskets import OCCASION, basket, examples, line, terms

MILK = line(450, department="Dairy", category="fresh", product="milk", quantity="3")
CASH = {"code": "cash", "name": "In cash", "gives": {"type": "fixed", "points": 1}, "when": {"tenders": ["cash"]}}
TENDERS = terms({"non_earning_tenders": ["voucher"]}, rules=[CASH])
"""For which a sale is asked by what it was paid."""
BREAD = line(1000, number=2, department="Bakery", product="bread")
SALE = _sale(basket(MILK, BREAD, line(0, number=3)), TENDERS)

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
        guests, members = occasion._replace(known=False), occasion._replace(known=True, unmet={})
        in_force = [rule for rule in rules if rule.when.unmet(occasion) is None]
        assert [rule for rule, _ in book.about(SALE, members)] == in_force
        assert [rule for rule, _ in book.about(SALE, guests)] == [rule for rule in in_force if rule.who.everybody]
        assert book.budgeted(SALE, occasion) == [rule for rule in in_force if rule.budget is not None]
        assert [rule for rule in in_force if rule.personal and rule not in book.personal(occasion.at.date())] == []


def test_it_knows_all_conditions() -> None:
    """One that `When` gets must be looked up by `Rulebook`."""
    assert set(When.model_fields) == HERE.keys() | ASKED.keys()


names = st.lists(st.sampled_from(["Dairy", "Meat", "Bakery", "fresh", "milk", "bread"]), max_size=3, unique=True)
goods = st.fixed_dictionaries({}, optional={"departments": names, "categories": names, "products": names})
ASKED: dict[str, st.SearchStrategy[Any]] = {
    "tenders": st.lists(st.sampled_from(["cash", "card", "points"]), min_size=1, max_size=2, unique=True),
    "minimum_spend": st.sampled_from([1, 450, 451, 1000, 1450, 1451]),
    "minimum_quantity": st.integers(1, 5),
}
"""Each condition on what is bought or paid."""
any_gives = st.sampled_from(
    [
        {"type": "fixed", "points": 5},
        {"type": "per_amount", "points": 1, "per": 100},
        {"type": "per_item", "points": 1},
        {"type": "multiply", "times": 3},
    ]
)
any_rules_at_all = st.lists(
    st.fixed_dictionaries(
        {"gives": any_gives, "when": st.fixed_dictionaries({}, optional=HERE | ASKED).map(in_order)},
        optional={
            "on": goods,
            "excluded": goods,
            "who": st.just({"first_purchase": True}),
            "limits": st.just([{"per": "day", "points": 3}]),
        },
    ),
    max_size=8,
).map(rules_of)


def sale_of(lines: list[Line], card: int, voucher: int) -> Sale:
    paid = {"card": card, "voucher": voucher} if any(line.amount for line in lines) else {}
    return _sale(basket(*lines, tax_on_top=False, **paid), TENDERS)


sales = st.builds(
    sale_of,
    st.lists(st.sampled_from([MILK, BREAD, line(0, number=3)]), unique=True),
    st.sampled_from([0, 100, 400]),
    st.sampled_from([0, 50]),
)
who_buys: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"known": False, "unmet": {}, "allowed": {}},
        {"known": True, "unmet": {}, "allowed": {}},
        {"known": True, "unmet": {"r0": "segments", "r3": "limit"}, "allowed": {"r1": 2}},
    ]
)


@examples
@given(any_rules_at_all, sales, occasions, who_buys)
def test_whatever_gives_something_is_found(rules: list[Rule], sale: Sale, when: Occasion, who: dict[str, Any]) -> None:
    """As if every rule had been asked."""
    occasion = when._replace(**who)
    asked = [rule.give(sale, occasion, amount) for rule, amount in Rulebook(rules).about(sale, occasion)]
    all_of_them = [rule.consider(sale, occasion) for rule in rules]
    assert [each for each in asked if each.points] == [each for each in all_of_them if each.points]


NEVER: dict[str, dict[str, Any]] = {
    "in another store": {"when": {"stores": ["8"]}},
    "through another channel": {"when": {"channels": ["web"]}},
    "on another day": {"when": {"weekdays": ["mon"]}},
    "at another hour": {"when": {"hours": {"begin": "03:00", "end": "04:00"}}},
    "of another night": {"when": {"hours": {"begin": "11:40", "end": "11:35"}, "weekdays": ["sun"]}},
    "paid otherwise": {"when": {"tenders": ["card"]}},
    "for more money": {"when": {"minimum_spend": 1451}},
    "for more goods": {"when": {"minimum_quantity": 5}},
    "on other goods": {"on": {"departments": ["Meat"]}},
    "on goods of two kinds": {"on": {"departments": ["Meat"], "products": ["ham"]}},
    "on all but what is bought": {"excluded": {"departments": ["Dairy"], "products": ["bread"]}},
    "on what it excludes": {"on": {"departments": ["Dairy"]}, "excluded": {"products": ["milk"]}},
    "for others": {"who": {"segments": ["vip"]}},
}


@pytest.mark.parametrize("never", NEVER.values(), ids=NEVER.keys())
def test_what_would_give_nothing_is_never_looked_at(monkeypatch: pytest.MonkeyPatch, never: dict[str, Any]) -> None:
    """However many there are: neither asked what they give, nor for which of the goods."""
    book = Rulebook(rules_of([*[never] * 200, {"on": {"departments": ["Dairy"], "products": ["bread"]}}]))
    looked_at = []

    def spied(rule: Rule, sale: Sale) -> Any:
        looked_at.append(rule.code)
        return places(rule, sale)

    places = Rule.places
    monkeypatch.setattr(Rule, "places", spied)
    assert [rule.code for rule, _ in book.about(SALE, OCCASION)] == ["r200"]
    assert looked_at == ["r200"]
