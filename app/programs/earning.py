"""Earning rules: what earns more than every purchase does. Each is a value that says when it applies and what it gives.

Pure; points whole, money in minor units. For one purchase, in this order:

1. The base (`Terms.earning`) is what eligible lines cost, less what was paid by tenders that do not earn.
2. Each rule in force takes its part of that: the lines it is about, the part that its tenders paid. It gives nothing
   where one of its conditions does not hold or that part is 0. Its points are rounded once, then capped.
3. Of the rules of one group those are dropped that its policy (`Terms.stacking`) does not let stand.

A rule multiplies the points of the base, never those of another rule: so their order does not matter.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import floor
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator
from pydantic_core import PydanticCustomError

from app.money import Rounding, round_to_int, rounded
from app.programs.basket import Basket, Line
from app.wire import Minor, Request, Text, Token, chosen_by

Names = Annotated[list[Text], Field(max_length=1000)]
Tenders = Annotated[list[Token], Field(max_length=50)]
Points = Annotated[int, Field(ge=1, le=1_000_000)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Stacking = Literal["all", "best", "priority"]
"""Which rules of a group stand: all; the one that gives most; the one with the lowest `priority`. Of equals the first
in the terms."""

_WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


# --- what is bought, as rules see it --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Occasion:
    """When and where a purchase happened, and what was known then. `at` is in the programme's zone.

    By code of rules: which are `unmet`, and why; and how many points of those that limits leave room for are `allowed`.
    Both are kept with the purchase, for nobody can find them out later.
    """

    at: datetime
    store: str | None = None
    channel: str | None = None
    unmet: Mapping[str, str] = field(default_factory=dict)
    allowed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)  # without slots: where its goods are is kept
class Sale:
    """A purchase, or what is left of one, for rules to look at.

    By line: what of it is `eligible` for points, in minor units, and the `quantities`. `part` is the share of the total
    that was paid by tenders that earn; `paid_by` that of each of these. The base gives `points` `per` minor units.
    """

    lines: Sequence[Line]
    eligible: Sequence[Fraction | int]
    quantities: Sequence[Fraction | Decimal]
    part: Fraction | int
    paid_by: Mapping[str, Fraction | int]
    points: int
    per: int

    @cached_property
    def everywhere(self) -> list[int]:
        """The positions of the lines that earn."""
        return [position for position, amount in enumerate(self.eligible) if amount]

    @cached_property
    def by_department(self) -> dict[str | None, list[int]]:
        return self._by([line.department for line in self.lines])

    @cached_property
    def by_category(self) -> dict[str | None, list[int]]:
        return self._by([line.category for line in self.lines])

    @cached_property
    def by_product(self) -> dict[str | None, list[int]]:
        return self._by([line.product for line in self.lines])

    def _by(self, values: Sequence[str | None]) -> dict[str | None, list[int]]:
        found: dict[str | None, list[int]] = {}
        for position in self.everywhere:
            found.setdefault(values[position], []).append(position)
        return found


@dataclass(frozen=True, slots=True)
class Considered:
    """What became of a rule: the `base` it was given on (minor units) and its `points`; or `why` it gave none."""

    rule: "Rule"
    base: int
    points: int
    why: str | None = None
    capped: bool = False


# --- what a rule is about -------------------------------------------------------------------------------------------


class Goods(Request):
    """Lines by department, category or product, spelled as the till sends them."""

    departments: Names = []
    categories: Names = []
    products: Names = []

    @cached_property
    def _sets(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        return frozenset(self.departments), frozenset(self.categories), frozenset(self.products)

    @cached_property
    def empty(self) -> bool:
        return not (self.departments or self.categories or self.products)

    def places(self, sale: Sale) -> set[int]:
        """The positions of those lines of a sale that earn."""
        departments, categories, products = self._sets
        found: set[int] = set()
        for names, places in (
            (departments, sale.by_department if departments else {}),
            (categories, sale.by_category if categories else {}),
            (products, sale.by_product if products else {}),
        ):
            found.update(*(places[name] for name in names & places.keys()))
        return found


def _day(value: Any) -> Any:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value) if isinstance(value, str) and len(value) == len("2026-11-22") else value
    except ValueError:
        raise PydanticCustomError("not_a_day", "there is no such day") from None


Day = Annotated[date, BeforeValidator(_day), PlainSerializer(date.isoformat, return_type=str)]
"""A day in the programme's zone, `2026-11-22`."""


def _time(value: Any) -> Any:
    if isinstance(value, time):
        return value
    try:
        return time.fromisoformat(value) if isinstance(value, str) and len(value) == len("12:00") else value
    except ValueError:
        raise PydanticCustomError("not_a_time", "there is no such time of day") from None


def _hour_and_minute(value: time) -> str:
    return value.isoformat("minutes")


TimeOfDay = Annotated[time, BeforeValidator(_time), PlainSerializer(_hour_and_minute, return_type=str)]
"""A time of day in the programme's zone, `17:30`."""


class Hours(Request):
    """A part of every day, its end not included. One that ends before it begins goes on after midnight."""

    begin: TimeOfDay
    end: TimeOfDay

    def contain(self, moment: time) -> bool:
        if self.begin < self.end:
            return self.begin <= moment < self.end
        return moment >= self.begin or moment < self.end


class When(Request):
    """The conditions of a rule, all of which must hold. What is left out is no condition."""

    first_day: Day | None = None
    last_day: Day | None = None
    """The days in the programme's zone on which the rule is in force, both included."""
    weekdays: Annotated[list[Weekday], Field(max_length=7)] = []
    hours: Hours | None = None
    stores: Names = []
    channels: Tenders = []
    tenders: Tenders = []
    """Only what was paid with these counts."""
    minimum_spend: Minor = 0
    """Of the goods that the rule is about: minor units of what counts for it."""
    minimum_quantity: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Of the same goods: units."""

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        if self.first_day and self.last_day and self.last_day < self.first_day:
            raise PydanticCustomError("ends_before_it_begins", "the last day is before the first")
        return self

    def unmet(self, occasion: Occasion) -> str | None:
        """The first condition on time and place that does not hold."""
        local = occasion.at
        if not self.in_force(local.date()):
            return "not_in_force"
        if self.weekdays and _WEEKDAYS[local.weekday()] not in self.weekdays:
            return "weekday"
        if self.hours and not self.hours.contain(local.time()):
            return "hours"
        if self.stores and occasion.store not in self.stores:
            return "store"
        if self.channels and occasion.channel not in self.channels:
            return "channel"
        return None

    def in_force(self, day: date) -> bool:
        return (self.first_day is None or self.first_day <= day) and (self.last_day is None or day <= self.last_day)


# --- what a rule gives one member over time -------------------------------------------------------------------------


Period = Literal["day", "week", "month", "year", "lifetime"]
"""Of the calendar of the programme's zone; weeks begin on Monday."""

LIFETIME = ""


@dataclass(frozen=True, slots=True)
class Used:
    """What a rule has given a member in one period: so many `points` in so many `times`, the latest at `last_at`."""

    points: int = 0
    times: int = 0
    last_at: datetime | None = None

    def plus(self, points: int, at: datetime) -> "Used":
        return Used(self.points + points, self.times + 1, max(at, self.last_at or at))


class Limit(Request):
    """The most that a rule gives one member in a period: `points`, `times`, or both.

    A purchase counts in the period in which it happened, in the order in which purchases arrive. What comes back does
    not make room again.
    """

    per: Period
    points: Annotated[int | None, Field(ge=1, le=10**12)] = None
    times: Annotated[int | None, Field(ge=1, le=10**6)] = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.points is None and self.times is None:
            raise PydanticCustomError("limits_nothing", "either points or times")
        return self

    def period(self, day: date) -> str:
        """The period in which a day is, by a name that no other period has."""
        match self.per:
            case "day":
                return day.isoformat()
            case "week":
                return f"{day:%G-W%V}"
            case "month":
                return f"{day:%Y-%m}"
            case "year":
                return f"{day:%Y}"
            case "lifetime":
                return LIFETIME

    def room(self, used: Used) -> int | None:
        """How many points more; None: as many as there are."""
        if self.times is not None and used.times >= self.times:
            return 0
        return None if self.points is None else max(0, self.points - used.points)


# --- what a rule gives ----------------------------------------------------------------------------------------------


class PerAmount(Request):
    """Points for each `per` minor units that the goods of the rule cost, beside those of the base."""

    type: Literal["per_amount"]
    points: Points
    per: Annotated[int, Field(ge=1, le=10**12, description="Minor units")]
    rounding: Rounding = "down"

    def points_for(self, base: int, _sale: Sale, _places: Iterable[int]) -> int:
        return rounded(base * self.points, self.per, self.rounding)


class PerItem(Request):
    """Points for each `items` units of the goods of the rule; what is sold by weight counts by its whole units."""

    type: Literal["per_item"]
    points: Points
    items: Annotated[int, Field(ge=1, le=1_000_000)] = 1

    def points_for(self, _base: int, sale: Sale, places: Iterable[int]) -> int:
        return floor(_quantity(sale, places)) // self.items * self.points


class Fixed(Request):
    """Points for a purchase that has any of the goods of the rule: for a visit, where it is about all goods."""

    type: Literal["fixed"]
    points: Points

    def points_for(self, _base: int, _sale: Sale, _places: Iterable[int]) -> int:
        return self.points


class Multiply(Request):
    """The points of the base for the goods of the rule become `times` / `divisor` as many: 3 are triple points, 3/2
    half as many more. What the rule gives is what is added."""

    type: Literal["multiply"]
    times: Annotated[int, Field(ge=2, le=1000)]
    divisor: Annotated[int, Field(ge=1, le=1000)] = 1
    rounding: Rounding = "down"

    @model_validator(mode="after")
    def _adds_something(self) -> Self:
        if self.times <= self.divisor:
            raise PydanticCustomError("adds_nothing", "`times` must be more than `divisor`")
        return self

    def points_for(self, base: int, sale: Sale, _places: Iterable[int]) -> int:
        return rounded(base * sale.points * (self.times - self.divisor), sale.per * self.divisor, self.rounding)


def _gives(value: Any) -> Any:
    return chosen_by("type", value, Fixed, PerAmount, PerItem, Multiply)


Gives = Annotated[Fixed | PerAmount | PerItem | Multiply, BeforeValidator(_gives)]


class Rule(Request):
    """What earns more than the base: what it `gives`, `on` which goods (all, if it names none), and `when`."""

    code: Annotated[Token, Field(examples=["triple_dairy"])]
    """By which reasons and reports name it. A rule that means something else has another code."""
    name: Text
    gives: Gives
    on: Goods = Goods()
    excluded: Goods = Goods()
    """Goods that it is not about, though they are among the others."""
    when: When = When()
    most: Annotated[int | None, Field(ge=1, le=10**9)] = None
    """Points of one purchase, at most; null: no limit."""
    limits: Annotated[list[Limit], Field(max_length=10)] = []
    """For one member over time."""
    cooldown_hours: Annotated[int | None, Field(ge=1, le=87_600)] = None
    """How long it gives the same member nothing more, after it did."""
    group: Token | None = None
    """Rules of one group compete, as `stacking` of the terms says; null: with none."""
    priority: Annotated[int, Field(ge=0, le=1000)] = 100

    def consider(self, sale: Sale, occasion: Occasion) -> Considered:
        """What it gives for a purchase, whatever other rules do."""
        if why := self.when.unmet(occasion) or occasion.unmet.get(self.code):
            return Considered(self, 0, 0, why)
        given = self.apply(sale, self.when.minimum_spend, self.when.minimum_quantity)
        room = occasion.allowed.get(self.code)
        return given if room is None or given.points <= room else replace(given, points=room, capped=True)

    def apply(self, sale: Sale, minimum_spend: int, minimum_quantity: int) -> Considered:
        """The same, when time and place are right."""
        part = self._part(sale)
        if not part:
            return Considered(self, 0, 0, "tenders" if self.when.tenders else "nothing_earns")
        places = self._places(sale)
        base = round_to_int(sum([sale.eligible[place] for place in places]) * part)
        if base <= 0:
            return Considered(self, 0, 0, "goods")
        if base < minimum_spend:
            return Considered(self, base, 0, "minimum_spend")
        if minimum_quantity and _quantity(sale, places) < minimum_quantity:
            return Considered(self, base, 0, "minimum_quantity")
        points = self.gives.points_for(base, sale, places)
        if self.most is not None and points > self.most:
            return Considered(self, base, self.most, capped=True)
        return Considered(self, base, points, None if points else "too_little")

    @property
    def limited(self) -> bool:
        """Whether what it gives depends on what it has given the member before."""
        return bool(self.limits) or self.cooldown_hours is not None

    def periods(self, day: date) -> set[str]:
        """The periods in which what it gives on a day is counted."""
        return {limit.period(day) for limit in self.limits} | ({LIFETIME} if self.cooldown_hours else set())

    def room(self, at: datetime, used: Mapping[str, Used]) -> int | str | None:
        """How many points its limits leave, None: as many as there are; or why it gives nothing. `used`: by period."""
        last = used.get(LIFETIME, Used()).last_at
        if self.cooldown_hours and last and at < last + timedelta(hours=self.cooldown_hours):
            return "cooldown"
        rooms = [limit.room(used.get(limit.period(at.date()), Used())) for limit in self.limits]
        least = min((room for room in rooms if room is not None), default=None)
        return "limit" if least == 0 else least

    def _part(self, sale: Sale) -> Fraction | int:
        tenders = self.when.tenders
        return sum(sale.paid_by.get(tender, 0) for tender in set(tenders)) if tenders else sale.part

    def _places(self, sale: Sale) -> Iterable[int]:
        places = sale.everywhere if self.on.empty else self.on.places(sale)
        return places if self.excluded.empty else set(places) - self.excluded.places(sale)


def _quantity(sale: Sale, places: Iterable[int]) -> Fraction | Decimal:
    """Of a sale all quantities are decimals, of what is left of one all are fractions."""
    return sum([sale.quantities[place] for place in places])  # type: ignore[return-value]  # there is a place


def limited(rules: Iterable[Rule], occasion: Occasion, used: Mapping[tuple[str, str], Used]) -> Occasion:
    """The occasion with what is known of the member: `used` by rule and period."""
    unmet, allowed = dict(occasion.unmet), dict(occasion.allowed)
    for rule in rules:
        if rule.limited:
            theirs = {period: each for (code, period), each in used.items() if code == rule.code}
            room = rule.room(occasion.at, theirs)
            if isinstance(room, str):
                unmet[rule.code] = room
            elif room is not None:
                allowed[rule.code] = room
    return replace(occasion, unmet=unmet, allowed=allowed)


def stacked(considered: Sequence[Considered], stacking: Mapping[str, Stacking]) -> list[Considered]:
    """The same, where rules that their group does not let stand give nothing: `outdone`."""
    standing: dict[str, Considered] = {}
    for each in considered:
        group = each.rule.group
        if each.why is None and group is not None and stacking[group] != "all":
            best = standing.get(group)
            if best is None or _beats(each, best, stacking[group]):
                standing[group] = each
    return [_outdone(each) if _loses(each, standing) else each for each in considered]


def _beats(one: Considered, other: Considered, policy: Stacking) -> bool:
    if policy == "priority":
        return one.rule.priority < other.rule.priority
    return (one.points, -one.rule.priority) > (other.points, -other.rule.priority)


def _loses(each: Considered, standing: Mapping[str, Considered]) -> bool:
    best = standing.get(each.rule.group or "")
    return each.why is None and best is not None and best is not each


def _outdone(each: Considered) -> Considered:
    return replace(each, points=0, why="outdone", capped=False)


def paid_by(basket: Basket, non_earning: Sequence[str]) -> dict[str, Fraction | int]:
    """The share of the total that each tender paid, of those that earn."""
    shares: dict[str, Fraction | int] = {}
    for tender in basket.tenders:
        if tender.type not in non_earning and tender.amount:
            shares[tender.type] = shares.get(tender.type, 0) + Fraction(tender.amount, basket.total)
    return shares
