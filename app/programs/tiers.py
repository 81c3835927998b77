"""Tiers, as terms promise them: how they are reached, kept and lost, and what they are good for. Pure."""

from collections.abc import Iterable
from datetime import date
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.programs.conditions import Goods
from app.programs.days import MonthDay
from app.programs.ends import Span
from app.wire import Request, Text, Token, chosen_by

Measure = Literal["points", "spend", "visits", "units"]


class Sums(NamedTuple):
    """What counts towards tiers: points earned, the earning base they were earned on (minor units), purchases, and
    whole units of the goods that are counted."""

    points: int = 0
    spend: int = 0
    visits: int = 0
    units: int = 0

    def plus(self, other: "Sums") -> "Sums":
        return Sums(
            self.points + other.points,
            self.spend + other.spend,
            self.visits + other.visits,
            self.units + other.units,
        )

    def less(self, other: "Sums") -> "Sums":
        return Sums(
            self.points - other.points,
            self.spend - other.spend,
            self.visits - other.visits,
            self.units - other.units,
        )

    @property
    def lost(self) -> "Sums":
        """Of what is less than nothing, how much less."""
        return Sums(*(max(0, -each) for each in self))


MEASURES = Sums._fields

Threshold = Annotated[int | None, Field(ge=1, le=10**12)]


class Qualification(Request):
    """What has to be counted within the window: `any` of the measures that are named, or `all`."""

    points: Threshold = None
    spend: Annotated[Threshold, Field(description="Minor units of what counts for points")] = None
    visits: Threshold = None
    """Purchases."""
    units: Threshold = None
    """Units of the goods that are `counted`."""
    need: Literal["any", "all"] = "any"

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self._asked:
            raise PydanticCustomError("asks_nothing", "at least one of points, spend, visits and units")
        return self

    @cached_property
    def _asked(self) -> dict[str, int]:
        named = {name: getattr(self, name) for name in MEASURES}
        return {name: least for name, least in named.items() if least is not None}

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """The same, by the place in `Sums`."""
        return [(MEASURES.index(name), least) for name, least in self._asked.items()]

    @property
    def only(self) -> tuple[int, int] | None:
        """The one measure that it asks for, by its place in `Sums`, and how much; None: several."""
        return self._places[0] if len(self._places) == 1 else None

    def met(self, sums: Sums) -> bool:
        decides = self.need == "any"  # one that is reached, or one that is short
        for place, least in self._places:
            if (sums[place] >= least) is decides:
                return decides
        return not decides

    def missing(self, sums: Sums) -> dict[str, int]:
        """How much of each measure is missing: one of them is enough, or all are needed. Nothing if it is met."""
        if self.met(sums):
            return {}
        return {name: least - getattr(sums, name) for name, least in self._asked.items() if getattr(sums, name) < least}

    def easier(self, other: "Qualification") -> bool:
        """Whether it asks less than another that asks for the same measures in the same way."""
        if self.need != other.need or self._asked.keys() != other._asked.keys():
            return False
        return any(least < other._asked[name] for name, least in self._asked.items())


def _a_part(text: str) -> str:
    if not 0 < Fraction(text) <= 100:
        raise PydanticCustomError("no_percentage", "more than nothing and no more than all")
    return text


Percent = Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?$", examples=["5", "7.5"]), AfterValidator(_a_part)]
"""A decimal in a string: `5` is a twentieth."""


class Benefit(Request):
    """What members of a tier or a club get beside points: `hard` ones cost the programme something each time, `soft`
    ones are attention. The service tells of them; whoever serves the member keeps them."""

    code: Annotated[Token, Field(examples=["free_delivery"])]
    name: Text
    kind: Literal["soft", "hard"] = "soft"
    discount: Percent | None = None
    """Off the price, if that is what it is; of several the highest holds."""

    @model_validator(mode="after")
    def _discounts_cost(self) -> Self:
        if self.discount is not None and self.kind == "soft":
            raise PydanticCustomError("soft_discount", "a discount costs something each time: it is hard")
        return self


def best_discount(benefits: Iterable[Benefit]) -> Benefit | None:
    """The benefit with the highest discount, of equals the first; the others add nothing to it."""
    off = [benefit for benefit in benefits if benefit.discount is not None]
    return max(off, key=lambda benefit: Fraction(benefit.discount or 0), default=None)


def _at_least_once(text: str) -> str:
    if Fraction(text) < 1:
        raise PydanticCustomError("multiplier_below_one", "a tier earns no less than nobody's")
    return text


Multiplier = Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?$"), AfterValidator(_at_least_once)]
"""A decimal in a string, `1.25`."""


class Tier(Request):
    """One tier: how it is reached, and what it is good for."""

    code: Annotated[Token, Field(examples=["gold"])]
    """By which members' history names it: a tier that means something else has another code."""
    name: Text
    qualification: Qualification | None = None
    """null: by invitation only."""
    earning_multiplier: Multiplier = "1"
    """As many times the points of the base; what that adds is rounded as the base is."""
    expiry: Span | None = None
    """How long points are good that purchases earn; null: as the programme's."""
    benefits: Annotated[list[Benefit], Field(max_length=50)] = []

    @cached_property
    def added(self) -> Fraction:
        """How many times the points of the base its members get beside them."""
        return Fraction(self.earning_multiplier) - 1


class CalendarYear(Request):
    """From 1 January."""

    type: Literal["calendar_year"] = "calendar_year"


class ProgramYear(Request):
    """From a day of every year."""

    type: Literal["program_year"]
    begins: Annotated[MonthDay, Field(examples=["04-01"])]


class Anniversary(Request):
    """From the day the member joined, and from that day of each year."""

    type: Literal["anniversary"]


class SinceLastChange(Request):
    """From the member's last change of tier, in periods of so many months."""

    type: Literal["since_last_change"]
    months: Annotated[int, Field(ge=1, le=120)] = 12


class Rolling(Request):
    """What was bought on a day counts on that day and for so long: bought on 15 January, for three months up to the end
    of 14 April."""

    type: Literal["rolling"]
    months: Annotated[int | None, Field(ge=1, le=120)] = None
    days: Annotated[int | None, Field(ge=1, le=3660)] = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.months is None) == (self.days is None):
            raise PydanticCustomError("one_of_months_and_days", "either months or days")
        return self


Window = CalendarYear | ProgramYear | Anniversary | SinceLastChange | Rolling


def _window(value: Any) -> Any:
    return chosen_by("type", value, CalendarYear, ProgramYear, Anniversary, SinceLastChange, Rolling)


def _in_order(levels: list[Tier]) -> list[Tier]:
    codes = [tier.code for tier in levels]
    if len(set(codes)) < len(codes):
        raise PydanticCustomError("tier_code_twice", "each tier has a code of its own")
    earned = [tier.qualification for tier in levels if tier.qualification is not None]
    if any(higher.easier(lower) for lower, higher in pairwise(earned)):
        raise PydanticCustomError("tiers_out_of_order", "a tier is no easier to reach than the one before it")
    return levels


def _asks_for(levels: list[Tier], measure: Measure) -> bool:
    return any(tier.qualification and getattr(tier.qualification, measure) for tier in levels)


class TierTerms(Request):
    """The tiers of a programme, the lowest first, and when members rise and fall.

    What is counted are purchases, in the window that they happened in, less what came back of them: points, spend,
    visits and units that count here are never spent.
    """

    levels: Annotated[list[Tier], Field(min_length=1, max_length=50), AfterValidator(_in_order)]
    window: Annotated[Window, BeforeValidator(_window)] = CalendarYear()
    upgrade: Literal["at_once", "at_period_end"] = "at_once"
    downgrade: Literal["none", "one_step", "to_points"] = "to_points"
    """How far a member falls who has not kept a tier: not at all, to the next lower one, or to what was reached."""
    grace_days: Annotated[int, Field(ge=0, le=90)] = 0
    """So many days later do members fall; what they buy meanwhile counts for the period before as well."""
    soft_landing: bool = False
    """Whether a member who fell keeps the lower tier to the end of the next whole period, whatever they buy."""
    warn_days: Annotated[list[Annotated[int, Field(ge=1, le=366)]], Field(max_length=5)] = [30]
    """How many days ahead of a fall a warning event is sent."""
    counted: Annotated[Goods, Field(validate_default=True)] = Goods()
    """Goods whose units count (nights), of lines that earn; what is sold by weight counts by its whole units."""

    @field_validator("upgrade")
    @classmethod
    def _period_has_an_end(cls, upgrade: str, info: ValidationInfo) -> str:
        if upgrade == "at_period_end" and isinstance(info.data.get("window"), Rolling):
            raise PydanticCustomError("window_has_no_end", "a rolling window has no end to wait for")
        return upgrade

    @field_validator("counted")
    @classmethod
    def _what_is_asked_for(cls, counted: Goods, info: ValidationInfo) -> Goods:
        if counted.empty and _asks_for(info.data.get("levels", []), "units"):
            raise PydanticCustomError("counts_nothing", "a tier asks for units of goods that are not named")
        return counted

    @property
    def by_anniversary(self) -> bool:
        """Whether years begin on the day a member joined."""
        return isinstance(self.window, Anniversary)

    def year_begins(self, joined_on: date) -> str:
        """The day, `MM-DD`, on which each year begins of somebody who joined on a day; where periods are years."""
        match self.window:
            case ProgramYear(begins=month_day):
                return month_day
            case Anniversary():
                return f"{joined_on:%m-%d}"
            case _:
                return "01-01"

    @cached_property
    def codes(self) -> tuple[str, ...]:
        return tuple(tier.code for tier in self.levels)

    @cached_property
    def _ranks(self) -> dict[str | None, int]:
        return {code: rank for rank, code in enumerate(self.codes)}

    @cached_property
    def _ladder(self) -> list[tuple[int, int, int, Qualification | None]]:
        """The tiers that can be reached, the highest first: each with the place in `Sums` of what it asks for and how
        much of that; or, where it asks for several measures, with its qualification."""
        asked = [(rank, tier.qualification) for rank, tier in enumerate(self.levels) if tier.qualification is not None]
        return [(rank, *(each.only or (0, 0)), None if each.only else each) for rank, each in reversed(asked)]

    @cached_property
    def spans(self) -> list[Span]:
        """How long points are good that are earned in tiers with an expiry of their own."""
        return [tier.expiry for tier in self.levels if tier.expiry is not None]

    @cached_property
    def multiplies(self) -> bool:
        """Whether any tier earns more than others."""
        return any(tier.added for tier in self.levels)

    def asks_for(self, measure: Measure) -> bool:
        """Whether any tier is reached by it."""
        return _asks_for(self.levels, measure)

    def rank(self, code: str | None) -> int:
        """The place of a tier, from 0 up; -1 for none of these."""
        return self._ranks.get(code, -1)

    def tier(self, code: str | None) -> Tier | None:
        rank = self.rank(code)
        return None if rank < 0 else self.levels[rank]

    def reached(self, sums: Sums) -> int:
        """The place of the highest tier that so much is enough for; -1: of none."""
        for rank, place, least, several in self._ladder:
            if sums[place] >= least if several is None else several.met(sums):
                return rank
        return -1

    def below(self, rank: int) -> int:
        """The place of the next lower tier that can be reached."""
        return next((lower for lower in range(rank - 1, -1, -1) if self.levels[lower].qualification), -1)

    def above(self, rank: int) -> Tier | None:
        """The next higher tier that can be reached."""
        return next((tier for tier in self.levels[rank + 1 :] if tier.qualification), None)
