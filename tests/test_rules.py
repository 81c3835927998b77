"""What earns more than every purchase does: each kind of rule, each condition, and what becomes of it in a return.

Tables and properties without a database. Under these terms a point is earned per 1.00.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.programs import Basket, Occasion, Reason, Terms, earn, explain, kept
from app.programs.conditions import BirthdayWindow, Customer, Limit, Used
from app.programs.earning import known
from app.programs.names import misnomers
from app.programs.rules import _sale
from tests.baskets import OCCASION, basket, baskets, examples, line, terms

TRIPLE_DAIRY: dict[str, Any] = {"gives": {"type": "multiply", "times": 3}, "on": {"departments": ["Dairy"]}}
VISIT: dict[str, Any] = {"gives": {"type": "fixed", "points": 50}}
MILK = line(450, department="Dairy", product="milk", quantity="3")
BREAD = line(1000, number=2)
SHOPPING = basket(MILK, BREAD)
"""14.50: 14 points, 4.50 of it for three bottles of milk."""


def rule(code: str = "more", **parts: Any) -> dict[str, Any]:
    return {"code": code, "name": code} | parts


def ruled(*rules: dict[str, Any], stacking: Mapping[str, str] | None = None, **earning: Any) -> Terms:
    return terms(earning, rules=list(rules), stacking=dict(stacking or {}))


def more(bought: Basket, *rules: dict[str, Any], occasion: Occasion = OCCASION, **options: Any) -> dict[str, int]:
    """Points by rule, less the base."""
    earned = earn(bought, ruled(*rules, **options), occasion)
    assert earned.points == sum(reason.points for reason in earned.reasons)
    return {reason.rule: reason.points for reason in earned.reasons if reason.rule != "base"}


def why(bought: Basket, *rules: dict[str, Any], occasion: Occasion = OCCASION, **options: Any) -> dict[str, str | None]:
    return {each.rule: each.why for each in explain(bought, ruled(*rules, **options), occasion)[1:]}


# --- what rules give ------------------------------------------------------------------------------------------------


GIVEN: dict[str, tuple[dict[str, Any], Basket, int]] = {
    # this rule, for this basket: points beside those of the base
    "triple points are two more for each": (TRIPLE_DAIRY, SHOPPING, 9),
    "rounded once, not by the point of the base": (TRIPLE_DAIRY, basket(line(150, department="Dairy")), 3),
    "half as many more": ({"gives": {"type": "multiply", "times": 3, "divisor": 2}}, SHOPPING, 7),
    "half as many more, rounded up": (
        {"gives": {"type": "multiply", "times": 3, "divisor": 2, "rounding": "up"}},
        SHOPPING,
        8,
    ),
    "two points per 0.50 of dairy": (
        {"gives": {"type": "per_amount", "points": 2, "per": 50}, "on": {"departments": ["Dairy"]}},
        SHOPPING,
        18,
    ),
    "ten points a bottle": ({"gives": {"type": "per_item", "points": 10}, "on": {"products": ["milk"]}}, SHOPPING, 30),
    "for each two bottles": (
        {"gives": {"type": "per_item", "points": 10, "items": 2}, "on": {"products": ["milk"]}},
        SHOPPING,
        10,
    ),
    "by weight its whole units": (
        {"gives": {"type": "per_item", "points": 10}},
        basket(line(500, quantity="1.8"), line(500, number=2, quantity="0.3")),
        20,
    ),
    "for a visit": (VISIT, SHOPPING, 50),
    "for a visit with cheese: there is none": (VISIT | {"on": {"departments": ["Cheese"]}}, SHOPPING, 0),
    "on a category": (VISIT | {"on": {"categories": ["Tea"]}}, basket(line(100, category="Tea")), 50),
    "on any of several": (TRIPLE_DAIRY | {"on": {"departments": ["Dairy"], "products": ["bread"]}}, SHOPPING, 29),
    "on all but some": (
        {"gives": {"type": "multiply", "times": 2}, "excluded": {"products": ["milk"]}},
        SHOPPING,
        10,
    ),
    "on some of the goods that are meant": (
        TRIPLE_DAIRY | {"excluded": {"products": ["milk"]}},
        basket(MILK, line(300, number=2, department="Dairy", product="butter")),
        6,
    ),
    "at most so many": (TRIPLE_DAIRY | {"most": 5}, SHOPPING, 5),
    "fewer than at most": (TRIPLE_DAIRY | {"most": 10}, SHOPPING, 9),
    # what does not earn, earns no more
    "nothing on what a gift card paid": (TRIPLE_DAIRY, basket(MILK, BREAD, gift_card=1450), 0),
    "on what a gift card left to pay": (VISIT, basket(MILK, BREAD, gift_card=1449), 50),
    "in proportion to that": ({"gives": {"type": "multiply", "times": 2}}, basket(MILK, BREAD, gift_card=725), 7),
    "nothing on what was given away": (VISIT, basket(line(500, discount=500)), 0),
    "nothing on quantity 0": (VISIT, basket(line(500, quantity="0")), 0),
}


@pytest.mark.parametrize(("given", "bought", "points"), GIVEN.values(), ids=GIVEN.keys())
def test_what_a_rule_gives(given: dict[str, Any], bought: Basket, points: int) -> None:
    assert sum(more(bought, rule(**given)).values()) == points


def test_reasons_name_the_rule_its_base_and_its_points() -> None:
    terms = ruled(rule("dairy", **TRIPLE_DAIRY), rule("visit", **VISIT))
    assert earn(SHOPPING, terms, OCCASION).reasons == (
        Reason("base", 1450, 14),
        Reason("dairy", 450, 9),
        Reason("visit", 1450, 50),
    )


def test_what_earns_nothing_at_all_earns_no_more() -> None:
    """Goods that are excluded, and a purchase below the minimum of the base."""
    assert more(SHOPPING, rule(**TRIPLE_DAIRY), excluded={"departments": ["Dairy"]}) == {}
    assert more(SHOPPING, rule(**VISIT), minimum_spend=1451) == {}
    assert why(SHOPPING, rule(**VISIT), minimum_spend=1451) == {"more": "no_base"}


def test_rules_do_not_multiply_each_other() -> None:
    """Double and triple points are the base and one and two times as many more, in whatever order."""
    double, triple = (rule(code, gives={"type": "multiply", "times": n}) for code, n in (("double", 2), ("triple", 3)))
    bonus = rule("bonus", **VISIT)
    expected = {"double": 14, "triple": 29, "bonus": 50}
    assert more(SHOPPING, double, triple, bonus) == more(SHOPPING, bonus, triple, double) == expected


# --- when -----------------------------------------------------------------------------------------------------------


def at(text: str, **parts: Any) -> Occasion:
    return OCCASION._replace(at=datetime.fromisoformat(text), **parts)


NIGHT = {"begin": "22:00", "end": "02:00"}
WHEN: dict[str, tuple[dict[str, Any], Occasion, str | None]] = {
    # under this condition, on this occasion: why it gives nothing
    "on its first day": ({"first_day": "2026-11-22"}, at("2026-11-22T00:00:00-05:00"), None),
    "the evening before": ({"first_day": "2026-11-22"}, at("2026-11-21T23:59:59-05:00"), "not_in_force"),
    "on its last day": ({"last_day": "2026-11-22"}, at("2026-11-22T23:59:59-05:00"), None),
    "the night after": ({"last_day": "2026-11-22"}, at("2026-11-23T00:00:00-05:00"), "not_in_force"),
    "on a Sunday": ({"weekdays": ["sat", "sun"]}, OCCASION, None),
    "on no Sunday": ({"weekdays": ["mon", "tue"]}, OCCASION, "weekday"),
    "from its first minute": ({"hours": {"begin": "11:30", "end": "12:00"}}, OCCASION, None),
    "to before its end": ({"hours": {"begin": "11:00", "end": "11:30"}}, OCCASION, "hours"),
    "over midnight, before it": ({"hours": NIGHT}, at("2026-11-22T23:00:00-05:00"), None),
    "over midnight, after it": ({"hours": NIGHT}, at("2026-11-22T01:59:00-05:00"), None),
    "over midnight, from the day on": (
        {"hours": NIGHT, "weekdays": ["sat"]},
        at("2026-11-21T23:00:00-05:00"),
        None,
    ),
    "the night after that day": (
        {"hours": NIGHT, "weekdays": ["sat"]},
        at("2026-11-22T01:59:00-05:00"),
        None,
    ),
    "the night before that day": (
        {"hours": NIGHT, "weekdays": ["sun"]},
        at("2026-11-22T01:59:00-05:00"),
        "weekday",
    ),
    "the night after its last day": (
        {"hours": NIGHT, "last_day": "2026-11-21"},
        at("2026-11-22T01:59:00-05:00"),
        None,
    ),
    "the night before its first day": (
        {"hours": NIGHT, "first_day": "2026-11-22"},
        at("2026-11-22T01:59:00-05:00"),
        "not_in_force",
    ),
    "24 hours from the morning of its day": (
        {"hours": {"begin": "06:00", "end": "06:00"}, "weekdays": ["sat"]},
        at("2026-11-22T05:59:00-05:00"),
        None,
    ),
    "and no longer": (
        {"hours": {"begin": "06:00", "end": "06:00"}, "weekdays": ["sat"]},
        at("2026-11-22T06:00:00-05:00"),
        "weekday",
    ),
    "over midnight, at noon": ({"hours": {"begin": "22:00", "end": "02:00"}}, OCCASION, "hours"),
    "in this store": ({"stores": ["7", "8"]}, OCCASION, None),
    "in another store": ({"stores": ["8"]}, OCCASION, "store"),
    "in none that the till names": ({"stores": ["8"]}, OCCASION._replace(store=None), "store"),
    "through this channel": ({"channels": ["pos"]}, OCCASION, None),
    "through another": ({"channels": ["app"]}, OCCASION, "channel"),
}


@pytest.mark.parametrize(("when", "occasion", "expected"), WHEN.values(), ids=WHEN.keys())
def test_when_a_rule_applies(when: dict[str, Any], occasion: Occasion, expected: str | None) -> None:
    given = rule(**VISIT, when=when)
    assert why(SHOPPING, given, occasion=occasion) == {"more": expected}
    assert more(SHOPPING, given, occasion=occasion) == ({} if expected else {"more": 50})


HOW_MUCH: dict[str, tuple[dict[str, Any], Basket, str | None]] = {
    "for the minimum itself": ({"minimum_spend": 1450}, SHOPPING, None),
    "a cent below it": ({"minimum_spend": 1451}, SHOPPING, "minimum_spend"),
    "less what a gift card paid": ({"minimum_spend": 1450}, basket(MILK, BREAD, gift_card=1), "minimum_spend"),
    "so many units": ({"minimum_quantity": 4}, SHOPPING, None),
    "one too few": ({"minimum_quantity": 5}, SHOPPING, "minimum_quantity"),
    "paid with what it asks for": ({"tenders": ["store_card"]}, basket(MILK, BREAD, store_card=1000), None),
    "paid with something else": ({"tenders": ["store_card"]}, SHOPPING, "tenders"),
    "paid with what never earns": ({"tenders": ["gift_card"]}, basket(MILK, BREAD, gift_card=700), "tenders"),
}


@pytest.mark.parametrize(("when", "bought", "expected"), HOW_MUCH.values(), ids=HOW_MUCH.keys())
def test_how_much_a_rule_asks_for(when: dict[str, Any], bought: Basket, expected: str | None) -> None:
    assert why(bought, rule(**VISIT, when=when)) == {"more": expected}


def test_minima_are_of_the_goods_that_the_rule_is_about() -> None:
    dairy = {"on": {"departments": ["Dairy"]}} | VISIT
    assert why(SHOPPING, rule(**dairy, when={"minimum_spend": 451})) == {"more": "minimum_spend"}
    assert why(SHOPPING, rule(**dairy, when={"minimum_quantity": 3})) == {"more": None}


def test_only_what_the_named_tenders_paid_counts() -> None:
    """10.00 of 14.50 with the store's card: double points on that."""
    double = rule(gives={"type": "multiply", "times": 2}, when={"tenders": ["store_card"]})
    assert earn(basket(MILK, BREAD, store_card=1000), ruled(double), OCCASION).reasons[1:] == (
        Reason("more", 1000, 10),
    )
    assert more(basket(MILK, BREAD, store_card=1), double) == {}, "too little for a point"


def test_rules_that_are_not_in_force_are_never_looked_at() -> None:
    """However many there are: by the day alone it is known which are."""
    past = [rule(f"past_{n}", **VISIT, when={"last_day": f"2025-{n:02}-28"}) for n in range(1, 13)]
    future = [rule(f"future_{n}", **VISIT, when={"first_day": f"2027-{n:02}-01"}) for n in range(1, 13)]
    found = ruled(*past, rule("always", **VISIT), *future)
    for day, expected in (
        ("2026-11-22", 1),
        ("2025-02-28", 12),
        ("2025-03-01", 11),
        ("2027-02-28", 3),
        ("2027-03-01", 4),
    ):
        then = OCCASION._replace(at=datetime.fromisoformat(f"{day}T12:00:00-05:00"))
        about = [rule for rule, _ in found.rulebook.about(_sale(SHOPPING, found), then)]
        assert len(about) == expected
        assert about == [each for each in found.rules if each.when.in_force(then.at.date())]


def test_a_rule_for_ever_may_say_so_by_the_last_day_there_is() -> None:
    for_ever = rule("for_ever", **VISIT, when={"first_day": "0001-01-01", "last_day": "9999-12-31"})
    assert more(SHOPPING, for_ever) == {"for_ever": 50}
    before = rule("before", **VISIT, when={"last_day": "9999-12-30"})
    last = OCCASION._replace(at=datetime(9999, 12, 31, 12, tzinfo=UTC))
    assert more(SHOPPING, for_ever, before, occasion=last) == {"for_ever": 50}


def test_only_rules_about_what_was_bought_are_looked_at() -> None:
    """However many there are: by the names on the receipt it is known which are."""
    others = [rule(f"other_{n}", **VISIT, on={"products": [f"p{n}"], "categories": [f"c{n}"]}) for n in range(20)]
    dairy = rule("dairy", **VISIT, on={"departments": ["Dairy"], "products": ["nothing like it"]})
    rules = [*others, rule("always", **VISIT), dairy, rule("elsewhere", **VISIT, on={"departments": ["Meat"]})]
    found = ruled(*rules)
    sale = _sale(SHOPPING, found)
    assert [rule.code for rule, _ in found.rulebook.about(sale, OCCASION)] == ["always", "dairy"]
    assert more(SHOPPING, *rules) == {"always": 50, "dairy": 50}


# --- several rules --------------------------------------------------------------------------------------------------


def grouped(code: str, points: int, priority: int = 100, **parts: Any) -> dict[str, Any]:
    return rule(code, gives={"type": "fixed", "points": points}, group="g", priority=priority, **parts)


STACKED: dict[str, tuple[str, list[dict[str, Any]], dict[str, int]]] = {
    "all": ("all", [grouped("a", 10), grouped("b", 20)], {"a": 10, "b": 20}),
    "the best": ("best", [grouped("a", 10), grouped("b", 20), grouped("c", 15)], {"b": 20}),
    "of equals the first": ("best", [grouped("a", 20), grouped("b", 20)], {"a": 20}),
    "of equals the one that goes before": ("best", [grouped("a", 20), grouped("b", 20, 1)], {"b": 20}),
    "the one that goes before": ("priority", [grouped("a", 50, 2), grouped("b", 20, 1)], {"b": 20}),
    "of the same priority the first": ("priority", [grouped("a", 5), grouped("b", 20)], {"a": 5}),
    "one that does not apply outdoes none": (
        "priority",
        [grouped("a", 50, 1, when={"stores": ["8"]}), grouped("b", 20, 2)],
        {"b": 20},
    ),
    "another group, or none, does not compete": (
        "best",
        [grouped("a", 10), grouped("b", 20), grouped("c", 1) | {"group": "h"}, rule("d", **VISIT)],
        {"b": 20, "c": 1, "d": 50},
    ),
}


@pytest.mark.parametrize(("policy", "rules", "expected"), STACKED.values(), ids=STACKED.keys())
def test_which_rules_of_a_group_stand(policy: str, rules: list[dict[str, Any]], expected: dict[str, int]) -> None:
    stacking = {"g": policy, "h": "best"}
    assert more(SHOPPING, *rules, stacking=stacking) == expected
    said = why(SHOPPING, *rules, stacking=stacking)
    assert {code for code, each in said.items() if each is None} == expected.keys()
    assert {each for code, each in said.items() if code not in expected} <= {"outdone", "store"}


# --- terms ----------------------------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[dict[str, Any], list[tuple[tuple[str | int, ...], str]]]] = {
    "an unknown kind": (rule(gives={"type": "gift", "points": 5}), [(("gives", "type"), "literal_error")]),
    "a kind without its figures": (rule(gives={"type": "multiply"}), [(("gives", "times"), "missing")]),
    "once as many": (rule(gives={"type": "multiply", "times": 3, "divisor": 3}), [(("gives",), "adds_nothing")]),
    "a day that no year has": (rule(**VISIT, when={"first_day": "2027-02-29"}), [(("when", "first_day"), "not_a_day")]),
    "no day at all": (rule(**VISIT, when={"first_day": "soon"}), [(("when", "first_day"), "date_type")]),
    "an hour that no day has": (
        rule(**VISIT, when={"hours": {"begin": "24:30", "end": "02:00"}}),
        [(("when", "hours", "begin"), "not_a_time")],
    ),
    "an hour with an offset": (
        rule(**VISIT, when={"hours": {"begin": "12+01", "end": "13:00"}}),
        [(("when", "hours", "begin"), "not_a_time")],
    ),
    "an end before the beginning": (
        rule(**VISIT, when={"first_day": "2027-02-02", "last_day": "2027-02-01"}),
        [(("when",), "ends_before_it_begins")],
    ),
    "everything at once": (
        rule("More!", gives={"type": "fixed", "points": 0}, most=0, priority=-1),
        [
            (("code",), "string_pattern_mismatch"),
            (("gives", "points"), "greater_than_equal"),
            (("most",), "greater_than_equal"),
            (("priority",), "greater_than_equal"),
        ],
    ),
}


@pytest.mark.parametrize(("given", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_a_rule_is_checked_with_every_finding_at_once(
    given: dict[str, Any], expected: list[tuple[tuple[str | int, ...], str]]
) -> None:
    with pytest.raises(ValidationError) as caught:
        ruled(rule("good", **VISIT), given)
    found = [(error["loc"], error["type"]) for error in caught.value.errors()]
    assert found == [(("rules", 1, *place), kind) for place, kind in expected]


@pytest.mark.parametrize(
    ("rules", "place", "kind"),
    [
        pytest.param([rule("a", **VISIT), rule("a", **VISIT)], (1, "code"), "rule_code_twice", id="a code twice"),
        pytest.param([rule("base", **VISIT)], (0, "code"), "rule_code_twice", id="the code of the base"),
        pytest.param([grouped("a", 1)], (0, "group"), "group_without_stacking", id="a group of which nothing is said"),
    ],
)
def test_rules_are_checked_together(rules: list[dict[str, Any]], place: tuple[Any, ...], kind: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ruled(*rules)
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [(("rules", *place), kind)]


def test_names_that_do_not_fit_are_told_with_all_else() -> None:
    """Each where it stands, and what is wrong in a rule hides none of the others."""
    wrong: dict[str, Any] = {
        "rules": [
            grouped("a", 1) | {"who": {"tiers": ["gold", "iron"], "clubs": ["friends"]}},
            grouped("a", 1) | {"group": "h"},
            rule("broken", **VISIT, most=0) | {"group": "g"},
        ],
        "stamp_cards": [{"code": "k", "name": "K", "stamps": 1, "points_per_stamp": 5, "who": {"tiers": ["iron"]}}],
        "tiers": {"levels": [{"code": "gold", "name": "Gold", "qualification": {"spend": 1}}]},
        "campaigns": [
            {"code": "hi", "name": "Hi", "occasion": {"type": "sign_up"}, "points": 5, "who": {"tiers": ["tin"]}}
        ],
    }
    with pytest.raises(ValidationError) as caught:
        terms(**wrong)
    assert {(error["loc"], error["type"]) for error in caught.value.errors()} == {
        (("rules", 2, "most"), "greater_than_equal"),
        (("stamp_cards", 0, "stamps"), "greater_than_equal"),
        (("rules", 1, "code"), "rule_code_twice"),
        (("rules", 0, "group"), "group_without_stacking"),
        (("rules", 1, "group"), "group_without_stacking"),
        (("rules", 0, "who", "tiers", 1), "unknown_tier"),
        (("stamp_cards", 0, "who", "tiers", 0), "unknown_tier"),
        (("campaigns", 0, "who", "tiers", 0), "unknown_tier"),
        (("rules", 0, "who", "clubs", 0), "unknown_club"),
    }


@pytest.mark.parametrize(
    "terms", [None, [], "x", {"rules": 5}, {"rules": [5, {}]}, {"rules": [{"who": [], "code": [1], "group": {}}]}]
)
def test_names_are_looked_for_in_anything(terms: Any) -> None:
    """Terms as they were sent may be whatever JSON can be."""
    assert list(misnomers(terms, "base")) == []


def test_rules_are_stored_as_they_are_written() -> None:
    """Terms are JSON in the database: what comes back means the same."""
    when = {"first_day": "2026-11-01", "hours": {"begin": "22:00", "end": "02:00"}, "weekdays": ["sun"]}
    stored = ruled(rule("night", **TRIPLE_DAIRY, when=when), grouped("a", 5), stacking={"g": "best"})
    document = stored.model_dump(mode="json")
    assert document["rules"][0]["when"]["first_day"] == "2026-11-01"
    assert document["rules"][0]["when"]["hours"] == {"begin": "22:00", "end": "02:00"}
    assert Terms.model_validate(document) == stored


# --- returns --------------------------------------------------------------------------------------------------------


def left(bought: Basket, terms: Terms, back: Mapping[int, str], amount: int = 0) -> dict[str, int]:
    """Points by rule of what is kept, when so much of each line has come back."""
    reasons = earn(bought, terms, OCCASION).reasons
    returned = {number: Decimal(quantity) for number, quantity in back.items()}
    return {each.rule: each.points for each in kept(bought, terms, returned, amount, reasons).earning.reasons}


def test_a_return_takes_back_what_rules_gave_for_it() -> None:
    found = ruled(rule("dairy", **TRIPLE_DAIRY), rule("visit", **VISIT))
    assert left(SHOPPING, found, {}) == {"base": 14, "dairy": 9, "visit": 50}
    assert left(SHOPPING, found, {1: "1"}) == {"base": 13, "dairy": 6, "visit": 50}
    assert left(SHOPPING, found, {1: "3"}) == {"base": 10, "visit": 50}
    assert left(SHOPPING, found, {1: "3", 2: "1"}) == {}
    assert left(SHOPPING, found, {}, amount=725) == {"base": 7, "dairy": 4, "visit": 50}


def test_what_is_left_earns_by_no_rule_that_the_purchase_did_not() -> None:
    """The better rule's minimum is missed after the return; the other one of its group does not step in."""
    found = ruled(grouped("large", 100, when={"minimum_spend": 1450}), grouped("small", 20), stacking={"g": "best"})
    assert left(SHOPPING, found, {}) == {"base": 14, "large": 100}
    assert left(SHOPPING, found, {1: "1"}) == {"base": 13}


def test_a_minimum_that_is_missed_after_a_return_may_be_forgiven() -> None:
    found = ruled(grouped("large", 100, when={"minimum_spend": 1450}), stacking={"g": "best"})
    found = found.model_copy(update={"returns": found.returns.model_copy(update={"minimum_spend": "kept"})})
    assert left(SHOPPING, found, {1: "1"}) == {"base": 13, "large": 100}


def test_a_cap_is_met_again_by_what_is_left() -> None:
    found = ruled(rule("dairy", **TRIPLE_DAIRY, most=6))
    assert left(SHOPPING, found, {1: "1"}) == {"base": 13, "dairy": 6}
    assert left(SHOPPING, found, {1: "2"}) == {"base": 11, "dairy": 3}


# --- any rules, any basket ------------------------------------------------------------------------------------------


goods = st.fixed_dictionaries(
    {}, optional={"departments": st.just(["Food"]), "categories": st.just(["Tobacco"]), "products": st.just(["bread"])}
)
roundings = st.sampled_from(["down", "half_up", "half_even", "up"])
kinds = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("per_amount"), "points": st.integers(1, 50), "per": st.integers(1, 500), "rounding": roundings}
    ),
    st.fixed_dictionaries({"type": st.just("per_item"), "points": st.integers(1, 50), "items": st.integers(1, 3)}),
    st.fixed_dictionaries({"type": st.just("fixed"), "points": st.integers(1, 500)}),
    st.fixed_dictionaries(
        {"type": st.just("multiply"), "times": st.integers(4, 9), "divisor": st.integers(1, 3), "rounding": roundings}
    ),
)
conditions = st.fixed_dictionaries(
    {},
    optional={
        "minimum_spend": st.integers(0, 2000),
        "minimum_quantity": st.integers(0, 4),
        "tenders": st.sampled_from([["cash"], ["gift_card"], ["cash", "gift_card"]]),
        "stores": st.sampled_from([["7"], ["8"]]),
    },
)
any_rule = st.fixed_dictionaries(
    {"gives": kinds, "on": goods, "excluded": goods, "when": conditions, "priority": st.integers(0, 3)},
    optional={"most": st.integers(1, 300), "group": st.sampled_from(["g", "h", "i"])},
)


@st.composite
def any_terms(draw: st.DrawFn) -> Terms:
    rules = draw(st.lists(any_rule, min_size=1, max_size=6))
    return terms(
        {"points": draw(st.integers(1, 20)), "per": draw(st.integers(1, 300)), "rounding": draw(roundings)},
        rules=[rule(f"rule_{number}", **each) for number, each in enumerate(rules)],
        stacking={"g": "best", "h": "all", "i": "priority"},
        returns={"minimum_spend": draw(st.sampled_from(["lost", "kept"]))},
    )


@st.composite
def numbered(draw: st.DrawFn, found: Terms) -> Basket:
    bought = draw(baskets(found))
    lines = tuple(replace(each, number=number) for number, each in enumerate(bought.lines, 1))
    return Basket(lines, bought.tenders, bought.total)


@examples
@given(st.data(), any_terms())
def test_reasons_come_to_the_points_and_say_the_same_as_the_explanation(data: st.DataObject, found: Terms) -> None:
    bought = data.draw(numbered(found))
    earned = earn(bought, found, OCCASION)
    assert earned.points == sum(reason.points for reason in earned.reasons)
    explained = explain(bought, found, OCCASION)
    assert [each.rule for each in explained] == ["base", *(each.code for each in found.rules)]
    assert all((each.why is None) == (each.points > 0) for each in explained)
    assert earned.points == sum(each.points for each in explained)
    gave = [Reason(each.rule, each.base, each.points) for each in explained if each.points]
    assert [reason for reason in earned.reasons if reason.points] == gave


@examples
@given(st.data(), any_terms())
def test_of_each_group_stand_as_many_as_its_policy_says(data: st.DataObject, found: Terms) -> None:
    bought = data.draw(numbered(found))
    groups = {each.code: each.group for each in found.rules}
    stood = [groups[reason.rule] for reason in earn(bought, found, OCCASION).reasons[1:]]
    assert stood.count("g") <= 1
    assert stood.count("i") <= 1
    apart = found.model_copy(update={"stacking": dict.fromkeys("ghi", "all")})
    for each in explain(bought, apart, OCCASION)[1:]:
        if groups[each.rule] in ("g", "i") and each.why is None:
            assert groups[each.rule] in stood, "where one applies, one stands"


@examples
@given(st.data(), any_terms())
def test_any_split_and_order_of_returns_leaves_the_same_and_never_more(data: st.DataObject, found: Terms) -> None:
    """What is left after some of it came back never earns more, by any rule; after all of it, nothing."""
    bought = data.draw(numbered(found))
    reasons = earn(bought, found, OCCASION).reasons
    assert kept(bought, found, {}, 0, reasons).earning.points == sum(reason.points for reason in reasons)
    returns = data.draw(st.lists(st.sampled_from([each.number for each in bought.lines]), max_size=6, unique=True))
    states = [_points(bought, found, returns[:count], reasons) for count in range(len(returns) + 1)]
    for before, after in pairwise(states):
        assert all(after.get(code, 0) <= points for code, points in before.items())
        assert after.keys() <= before.keys()
    assert _points(bought, found, data.draw(st.permutations(returns)), reasons) == states[-1]
    assert _points(bought, found, [each.number for each in bought.lines], reasons) == {}


def _points(bought: Basket, found: Terms, numbers: Sequence[int], reasons: Sequence[Reason]) -> dict[str, int]:
    quantities = {each.number: each.quantity for each in bought.lines}
    back = {number: quantities[number] for number in numbers}
    return {each.rule: each.points for each in kept(bought, found, back, 0, reasons).earning.reasons if each.points}


# --- limits over time -----------------------------------------------------------------------------------------------


def of_day(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}T12:00:00-05:00")


PERIODS = {
    # per, a day, another day: whether they share its limit
    "a day": ("day", "2026-11-22", "2026-11-23", False),
    "a week begins on Monday": ("week", "2026-11-22", "2026-11-23", False),
    "and goes over New Year": ("week", "2026-12-31", "2027-01-01", True),
    "a month": ("month", "2026-11-01", "2026-11-30", True),
    "the next month": ("month", "2026-11-30", "2026-12-01", False),
    "the same month of another year": ("month", "2026-11-22", "2027-11-22", False),
    "a year": ("year", "2026-01-01", "2026-12-31", True),
    "the next year": ("year", "2026-12-31", "2027-01-01", False),
    "a life": ("lifetime", "1999-01-01", "2027-01-01", True),
}


@pytest.mark.parametrize(("per", "one", "other", "same"), PERIODS.values(), ids=PERIODS.keys())
def test_periods_are_of_the_calendar(per: str, one: str, other: str, same: bool) -> None:
    limit = Limit.model_validate({"per": per, "points": 1})
    assert (limit.period(of_day(one).date()) == limit.period(of_day(other).date())) is same


def test_names_of_periods_are_never_those_of_another_kind() -> None:
    day = of_day("2026-11-22").date()
    kinds = [Limit.model_validate({"per": per, "points": 1}) for per in ("day", "week", "month", "year", "lifetime")]
    assert [limit.period(day) for limit in kinds] == ["2026-11-22", "2026-W47", "2026-11", "2026", ""]


NEW_YORK = ZoneInfo("America/New_York")
DAY, YEAR = "2026-11-22", "2026"
ROOM: dict[str, tuple[dict[str, Any], dict[str, Used], int | str | None]] = {
    # this rule, what it has given by period: what is left, or why nothing is
    "nothing was given": ({"limits": [{"per": "day", "points": 100}]}, {}, 100),
    "some was": ({"limits": [{"per": "day", "points": 100}]}, {DAY: Used(60, 2)}, 40),
    "all was": ({"limits": [{"per": "day", "points": 100}]}, {DAY: Used(100, 2)}, "limit"),
    "more was, by terms before": ({"limits": [{"per": "day", "points": 100}]}, {DAY: Used(150, 2)}, "limit"),
    "as often as may be": ({"limits": [{"per": "day", "times": 2}]}, {DAY: Used(60, 2)}, "limit"),
    "once more": ({"limits": [{"per": "day", "times": 2}]}, {DAY: Used(60, 1)}, None),
    "points and times": ({"limits": [{"per": "day", "points": 100, "times": 2}]}, {DAY: Used(60, 1)}, 40),
    "the narrower of two": (
        {"limits": [{"per": "day", "points": 100}, {"per": "year", "points": 1000}]},
        {DAY: Used(0, 0), YEAR: Used(970, 9)},
        30,
    ),
    "long enough ago": ({"cooldown_hours": 24}, {"": Used(5, 1, of_day("2026-11-21"))}, None),
    "not long enough": ({"cooldown_hours": 25}, {"": Used(5, 1, of_day("2026-11-21"))}, "cooldown"),
    "late, long enough before": (
        {"cooldown_hours": 24},
        {"": Used(5, 1, of_day("2026-11-23"))},
        None,
    ),
    "late, too near": (
        {"cooldown_hours": 25},
        {"": Used(5, 1, of_day("2026-11-23"))},
        "cooldown",
    ),
    "between two": (
        {"cooldown_hours": 25},
        {"25h:19944": Used(5, 1, of_day("2026-11-21")), "": Used(50, 9, of_day("2027-05-01"))},
        "cooldown",
    ),
    "for the first time": ({"cooldown_hours": 24}, {}, None),
}


instants = st.integers(0, 96 * 60).map(
    lambda minutes: (datetime(2026, 10, 30, tzinfo=UTC) + timedelta(minutes=minutes)).astimezone(NEW_YORK)
)
"""Around the night in which clocks are put back."""


@examples
@given(st.integers(1, 50), st.lists(instants, max_size=12))
def test_what_a_rule_gives_something_for_is_a_cooldown_apart(hours: int, arrived: list[datetime]) -> None:
    """In whatever order they arrive, and though clocks are put back; and nobody else is refused."""
    (found,) = ruled(rule(**VISIT, cooldown_hours=hours)).rules
    used: dict[str, Used] = {}
    gave: list[datetime] = []
    for at_ in arrived:
        near = any(abs(at_.timestamp() - each.timestamp()) < hours * 3600 for each in gave)
        asked = {period: used[period] for period in found.asked(at_) if period in used}
        assert found.room(at_, asked) == ("cooldown" if near else None)
        if not near:
            gave.append(at_)
            used |= {period: used.get(period, Used()).plus(1, at_) for period in found.periods(at_)}


@pytest.mark.parametrize(("given", "used", "room"), ROOM.values(), ids=ROOM.keys())
def test_what_limits_leave(given: dict[str, Any], used: dict[str, Used], room: int | str | None) -> None:
    (found,) = ruled(rule(**VISIT, **given)).rules
    assert found.room(of_day("2026-11-22"), used) == room


def test_a_rule_gives_what_its_limits_leave() -> None:
    given = rule(**VISIT, limits=[{"per": "day", "points": 100}])
    for room, expected in ((None, {"more": 50}), (80, {"more": 50}), (30, {"more": 30})):
        occasion = OCCASION._replace(known=True, allowed={} if room is None else {"more": room})
        assert more(SHOPPING, given, occasion=occasion) == expected
    spent = OCCASION._replace(known=True, unmet={"more": "limit"})
    assert more(SHOPPING, given, occasion=spent) == {}
    assert why(SHOPPING, given, occasion=spent) == {"more": "limit"}


def test_a_group_is_won_by_what_limits_leave() -> None:
    """The better rule has 10 points left, so the other one is better."""
    rules = [grouped("a", 50, limits=[{"per": "day", "points": 60}]), grouped("b", 20)]
    occasion = OCCASION._replace(allowed={"a": 10})
    assert more(SHOPPING, *rules, occasion=occasion, stacking={"g": "best"}) == {"b": 20}


def test_a_limit_limits_something() -> None:
    with pytest.raises(ValidationError) as caught:
        ruled(rule(**VISIT, limits=[{"per": "day"}]))
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [
        (("rules", 0, "limits", 0), "limits_nothing")
    ]


# --- for whom -------------------------------------------------------------------------------------------------------


SOMEBODY = Customer(bought=True, born_on=date(1990, 11, 24), attributes={"sex": "f"}, segments=["vip", "parents"])
WHO: dict[str, tuple[dict[str, Any], Customer, str | None]] = {
    # this condition, this member: why the rule gives nothing
    "a first purchase": ({"first_purchase": True}, Customer(bought=False), None),
    "not the first": ({"first_purchase": True}, SOMEBODY, "first_purchase"),
    "two days before the birthday": ({"birthday": {"days_before": 2}}, SOMEBODY, None),
    "too early": ({"birthday": {"days_before": 1, "days_after": 60}}, SOMEBODY, "birthday"),
    "nobody knows when": ({"birthday": {"days_before": 60}}, Customer(bought=True), "birthday"),
    "an attribute": ({"attributes": {"sex": ["m", "f"]}}, SOMEBODY, None),
    "another value": ({"attributes": {"sex": ["m"]}}, SOMEBODY, "attributes"),
    "an attribute that is not known": ({"attributes": {"children": ["0"]}}, SOMEBODY, "attributes"),
    "all attributes that are named": ({"attributes": {"sex": ["f"], "children": ["0"]}}, SOMEBODY, "attributes"),
    "one of the segments": ({"segments": ["vip", "staff"]}, SOMEBODY, None),
    "none of them": ({"segments": ["staff"]}, SOMEBODY, "segments"),
}


@pytest.mark.parametrize(("who", "customer", "expected"), WHO.values(), ids=WHO.keys())
def test_for_whom_a_rule_applies(who: dict[str, Any], customer: Customer, expected: str | None) -> None:
    given = rule(**VISIT, who=who)
    occasion = known(ruled(given).rules, OCCASION, customer, {})
    assert why(SHOPPING, given, occasion=occasion) == {"more": expected}
    assert more(SHOPPING, given, occasion=occasion) == ({} if expected else {"more": 50})
    assert why(SHOPPING, given) == {"more": "guest"}, "nobody is no such member"


BIRTHDAYS: dict[str, tuple[dict[str, int], str, str, bool]] = {
    # window, born on, a day: whether it is in the window
    "the day itself": ({}, "1990-11-22", "2026-11-22", True),
    "the day before": ({}, "1990-11-22", "2026-11-21", False),
    "over New Year, before": ({"days_before": 7}, "1990-01-03", "2026-12-30", True),
    "over New Year, after": ({"days_after": 7}, "1990-12-30", "2027-01-05", True),
    "a day too late": ({"days_after": 6}, "1990-12-30", "2027-01-06", False),
    "born on a leap day, in a leap year": ({}, "2000-02-29", "2028-02-29", True),
    "in another year": ({}, "2000-02-29", "2027-02-28", True),
    "and not the day after": ({}, "2000-02-29", "2027-03-01", False),
}


@pytest.mark.parametrize(("window", "born", "day", "expected"), BIRTHDAYS.values(), ids=BIRTHDAYS.keys())
def test_days_around_a_birthday(window: dict[str, int], born: str, day: str, expected: bool) -> None:
    found = BirthdayWindow.model_validate(window)
    assert found.contains(date.fromisoformat(day), date.fromisoformat(born)) is expected


def test_what_a_member_is_not_is_said_before_limits() -> None:
    given = rule(**VISIT, who={"segments": ["staff"]}, limits=[{"per": "day", "times": 1}])
    occasion = known(ruled(given).rules, OCCASION, SOMEBODY, {("more", "2026-11-22"): Used(50, 1)})
    assert why(SHOPPING, given, occasion=occasion) == {"more": "segments"}
