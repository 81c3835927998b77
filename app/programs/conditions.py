"""When an earning rule applies: its goods, time and place, for whom, and how much for one member over time. Pure.

For whom a campaign is, too (`Audience`).
"""

import re
from calendar import isleap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import MAXYEAR, MINYEAR, date, datetime, time, timedelta
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator
from pydantic_core import PydanticCustomError

from app.programs.basket import Line, Sale
from app.wire import Day, Minor, Request, Text, Token

Names = Annotated[list[Text], Field(max_length=1000)]
Tokens = Annotated[list[Token], Field(max_length=50)]
Choice = Annotated[list[Text], Field(min_length=1, max_length=100)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Occasion(NamedTuple):
    """When and where a purchase happened, and what was known then. `at` is in the programme's zone.

    `known`: it is a member's. By code of rules: which are `unmet` by the member, and why; and how many points are
    `allowed` by what limits leave. `tier`: the one the member was in before; `clubs`: those they belonged to. All are
    kept with the purchase, for nobody can find them out later.
    """

    at: datetime
    store: str | None = None
    channel: str | None = None
    known: bool = False
    unmet: Mapping[str, str] = MappingProxyType({})
    allowed: Mapping[str, int] = MappingProxyType({})
    tier: str | None = None
    clubs: Collection[str] = ()


# --- on which goods, and when -----------------------------------------------------------------------------------------


class Goods(Request):
    """Lines by department, category or product, spelled as the till sends them."""

    departments: Names = []
    categories: Names = []
    products: Names = []

    @cached_property
    def _named(self) -> list[tuple[str, frozenset[str]]]:
        """Of the kinds of name that it has: where a sale has them, and which."""
        kinds = zip(("by_department", "by_category", "by_product"), self._sets, strict=True)
        return [(there, names) for there, names in kinds if names]

    @cached_property
    def empty(self) -> bool:
        return not self._named

    def contain(self, line: Line) -> bool:
        """Whether a line is among them."""
        departments, categories, products = self._sets
        return line.department in departments or line.category in categories or line.product in products

    @cached_property
    def _sets(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        return frozenset(self.departments), frozenset(self.categories), frozenset(self.products)

    @cached_property
    def mixed(self) -> bool:
        """Whether it has names of more than one kind, which may be of the same line."""
        return len(self._named) > 1

    def places(self, sale: Sale) -> set[int]:
        """The positions of those lines of a sale that earn."""
        found: set[int] = set()
        for there, names in self._named:
            chosen = getattr(sale, there)
            for name in names if len(names) < len(chosen) else names & chosen.keys():
                found.update(chosen.get(name, ()))
        return found


def _time(value: Any) -> Any:
    if isinstance(value, time):
        return value
    # hours and minutes: ISO 8601 has other ways, one with an offset, which no clock could be compared with
    if not isinstance(value, str) or not re.fullmatch("[0-9]{2}:[0-9]{2}", value):
        raise PydanticCustomError("not_a_time", "a time of day is needed, in hours and minutes: 09:30")
    try:
        return time.fromisoformat(value)
    except ValueError:
        raise PydanticCustomError("not_a_time", "there is no such time of day") from None


def _hour_and_minute(value: time) -> str:
    return value.isoformat("minutes")


TimeOfDay = Annotated[
    time, BeforeValidator(_time), PlainSerializer(_hour_and_minute, return_type=str, when_used="json")
]
"""A time of day in the programme's zone, `17:30`."""


class Hours(Request):
    """A part of every day, its end not included. One that ends before it begins, or as it begins, goes on after
    midnight: that night still belongs to the day on which it began."""

    begin: TimeOfDay
    end: TimeOfDay

    def contain(self, moment: time) -> bool:
        if self.overnight:
            return moment >= self.begin or moment < self.end
        return self.begin <= moment < self.end

    @property
    def overnight(self) -> bool:
        return self.end <= self.begin

    def day_of(self, at: datetime) -> date:
        """The day to which they belong at an instant."""
        return at.date() - timedelta(days=1) if self.overnight and at.time() < self.end else at.date()


class When(Request):
    """The conditions of a rule, all of which must hold. What is left out is no condition."""

    first_day: Day | None = None
    last_day: Day | None = None
    """The days in the programme's zone on which the rule is in force, both included."""
    weekdays: Annotated[list[Weekday], Field(max_length=7)] = []
    hours: Hours | None = None
    stores: Names = []
    channels: Tokens = []
    tenders: Tokens = []
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
        day = self.hours.day_of(occasion.at) if self.hours else occasion.at.date()
        if not self.in_force(day):
            return "not_in_force"
        if self.weekdays and WEEKDAYS[day.weekday()] not in self.weekdays:
            return "weekday"
        if self.hours and not self.hours.contain(occasion.at.time()):
            return "hours"
        if self.stores and occasion.store not in self.stores:
            return "store"
        if self.channels and occasion.channel not in self.channels:
            return "channel"
        return None

    def in_force(self, day: date) -> bool:
        return (self.first_day is None or self.first_day <= day) and (self.last_day is None or day <= self.last_day)


# --- for whom -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Customer:
    """What rules may ask about a member. `bought`: whether they have made a purchase before."""

    bought: bool
    born_on: date | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    segments: Collection[str] = ()


class BirthdayWindow(Request):
    """The days around a birthday, in the programme's zone; 29 February is the 28th where there is none."""

    days_before: Annotated[int, Field(ge=0, le=60)] = 0
    days_after: Annotated[int, Field(ge=0, le=60)] = 0

    def contains(self, day: date, born_on: date) -> bool:
        return any(
            -self.days_before <= (day - birthday_in(born_on, year)).days <= self.days_after
            for year in (day.year - 1, day.year, day.year + 1)
            if MINYEAR <= year <= MAXYEAR
        )


def birthday_in(born_on: date, year: int) -> date:
    """The birthday of a year; that of 29 February is the 28th where there is none."""
    leap_day = (born_on.month, born_on.day) == (2, 29) and not isleap(year)
    return date(year, 2, 28) if leap_day else born_on.replace(year=year)


class Audience(Request):
    """What a member must be like, in all that is named."""

    attributes: Annotated[dict[Token, Choice], Field(max_length=20)] = {}
    """One of the values of each."""
    segments: Tokens = []
    """In at least one of these."""
    tiers: Tokens = []
    """In one of these: of an earning rule before the purchase, of a campaign when the occasion falls."""

    def missed(self, customer: Customer) -> str | None:
        """The first condition on the profile that does not hold."""
        if any(customer.attributes.get(name) not in values for name, values in self.attributes.items()):
            return "attributes"
        if self.segments and not set(self.segments).intersection(customer.segments):
            return "segments"
        return None


class Who(Audience):
    """The same for an earning rule. A guest's purchase does not meet it until somebody claims it."""

    first_purchase: bool = False
    """Only for the first purchase that is recorded for a member."""
    birthday: BirthdayWindow | None = None
    clubs: Tokens = []
    """A member of one of these, before the purchase."""

    @cached_property
    def everybody(self) -> bool:
        asked = (self.first_purchase, self.birthday, self.attributes, self.segments, self.tiers, self.clubs)
        return not any(asked)

    def unmet(self, customer: Customer, occasion: Occasion) -> str | None:
        """The first condition that does not hold."""
        day = occasion.at.date()
        if self.first_purchase and customer.bought:
            return "first_purchase"
        if self.birthday and not (customer.born_on and self.birthday.contains(day, customer.born_on)):
            return "birthday"
        if missed := self.missed(customer):
            return missed
        if self.tiers and occasion.tier not in self.tiers:
            return "tier"
        return "club" if self.clubs and not set(self.clubs).intersection(occasion.clubs) else None


# --- what a rule gives one member over time -------------------------------------------------------------------------


Period = Literal["day", "week", "month", "year", "lifetime"]
"""Of the calendar of the programme's zone; weeks begin on Monday."""

LIFETIME, BUDGET = "", "budget"
"""The periods of all of a member's life, and of what a budget counts: since the rule has had one."""


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


@dataclass(frozen=True, slots=True)
class Need:
    """What a purchase may be given by a rule at the most, of its `budget` for all members together, points."""

    points: int
    budget: int
