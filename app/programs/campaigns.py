"""Campaigns: points without a purchase. For whom they are, on which occasion, and how many there are. Pure values.

An occasion falls on a day of the programme's zone. Each has a key by which a member is given something for it once.
"""

from collections.abc import Iterator
from datetime import MAXYEAR, date, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.programs.conditions import Audience, birthday_in
from app.wire import Day, Minor, Request, Text, Token, chosen_by

Bonus = Annotated[int, Field(ge=1, le=10**9, description="Points")]

Keyed = tuple[str, date]
"""The key of an occasion, and the day it falls on."""


class SignUp(Request):
    """Whoever joins, as soon as they have."""

    type: Literal["sign_up"]


class Birthday(Request):
    """Each birthday of those whose profile says when it is."""

    type: Literal["birthday"]
    days_before: Annotated[int, Field(ge=0, le=60)] = 0
    """How long before it the points are given."""

    def days(self, born_on: date, first: date, last: date) -> Iterator[Keyed]:
        """The days from `first` to `last` on which it is so long to a birthday, each with the year of that."""
        for year in range(max(first.year, born_on.year + 1), min(last.year + 1, MAXYEAR) + 1):
            day = birthday_in(born_on, year) - timedelta(days=self.days_before)
            if first <= day <= last:
                yield str(year), day


class Anniversary(Request):
    """Each anniversary of the day on which a member joined."""

    type: Literal["anniversary"]

    def days(self, joined_on: date, first: date, last: date) -> Iterator[Keyed]:
        """The anniversaries from `first` to `last`, each with its year."""
        for year in range(max(first.year, joined_on.year + 1), last.year + 1):
            day = birthday_in(joined_on, year)
            if first <= day <= last:
                yield str(year), day


class WinBack(Request):
    """Members who have stopped buying."""

    type: Literal["win_back"]
    after_days: Annotated[int, Field(ge=1, le=3660)]
    """So many days after their last purchase; once, until they have bought again."""
    again_after_days: Annotated[int, Field(ge=1, le=3660)] = 365
    """And never sooner than so long after the last time."""

    def days(self, bought_on: date, first: date, last: date) -> Iterator[Keyed]:
        """The day so long after the last purchase, if it is from `first` to `last`, with the day of that purchase."""
        day = bought_on + timedelta(days=self.after_days)
        if first <= day <= last:
            yield bought_on.isoformat(), day


class Referral(Request):
    """Members who bring a friend: both are given something when the friend has bought and kept it."""

    type: Literal["referral"]
    referrer_points: Bonus
    """For whoever brought the friend; the campaign's `points` are the friend's."""
    minimum_spend: Minor = 0
    """Of the friend's first purchase that comes to so much, less what came back, minor units with tax."""
    wait_days: Annotated[int, Field(ge=1, le=366)] = 14
    """So many days after it, so that what is brought back earns nobody anything."""
    most_friends: Annotated[int | None, Field(ge=1, le=10**6)] = None
    """For how many friends one member is given points; null: any number."""


class CustomEvent(Request):
    """Whatever a partner or an app reports of a member, each time."""

    type: Literal["event"]
    event: Annotated[Token, Field(examples=["review_written"])]


Occasion = SignUp | Birthday | Anniversary | WinBack | Referral | CustomEvent


def _occasion(value: Any) -> Any:
    return chosen_by("type", value, SignUp, Birthday, Anniversary, WinBack, Referral, CustomEvent)


class Campaign(Request):
    """Points on an occasion, without a purchase."""

    code: Annotated[Token, Field(examples=["birthday_gift"])]
    """By which grants and reports name it. Its budget, and what each member was given, go on from version to version of
    the terms: a campaign that means something else has another code."""
    name: Text
    occasion: Annotated[Occasion, BeforeValidator(_occasion)]
    points: Bonus
    who: Audience = Audience()
    first_day: Day | None = None
    last_day: Day | None = None
    """The days in the programme's zone of the occasions that it is for, both included; of a referral, of the friend's
    purchase."""
    budget: Annotated[int | None, Field(ge=1, le=10**15)] = None
    """Points for all members together, at most; null: no limit."""
    most_per_member: Annotated[int | None, Field(ge=1, le=10**6)] = None
    """How many times one member is given points; null: on each occasion."""
    good_for_days: Annotated[int | None, Field(ge=1, le=18_250)] = None
    """Until the end of the local day so many days later the points are good; null: as those of a purchase are."""
    group: Token | None = None
    """Of the campaigns of one group one gives a member something on a day: the one with the lowest `priority`, the
    first in the terms of equals. null: it competes with none."""
    priority: Annotated[int, Field(ge=0, le=1000)] = 100

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        if self.first_day and self.last_day and self.last_day < self.first_day:
            raise PydanticCustomError("ends_before_it_begins", "the last day is before the first")
        return self

    @model_validator(mode="after")
    def _budget_for_one(self) -> Self:
        if self.budget is not None and self.budget < self.cost:
            raise PydanticCustomError("budget_below_bonus", "the budget is not enough for one member")
        return self

    @property
    def cost(self) -> int:
        """The points that one occasion takes at most."""
        return self.points + (self.occasion.referrer_points if isinstance(self.occasion, Referral) else 0)

    def covers(self, day: date) -> bool:
        """Whether it is for occasions of that day."""
        return (self.first_day is None or self.first_day <= day) and (self.last_day is None or day <= self.last_day)
