"""When points end, as terms say it: by a date that is theirs from the start, or with a member's inactivity. Pure."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.programs.days import MonthDay
from app.wire import Request

Activity = Literal["purchase", "redemption", "transfer", "adjustment"]
"""What a member does that can keep points from lapsing."""

Days = Annotated[int, Field(ge=1, le=366)]
WarnDays = Annotated[list[Days], Field(max_length=5)]


class ExpiryTerms(Request):
    """What all ways to expire have in common."""

    existing_points: Literal["one_period_later", "never"] = "one_period_later"
    """When points granted before there was any expiry go: as if granted when these terms take effect, or never."""
    warn_days: WarnDays = [30]
    """How many days ahead of an expiry a warning event is sent."""


class Span(Request):
    """A span of calendar time, then up to the end of the period of the calendar year that its last day falls in."""

    months: Annotated[int | None, Field(ge=1, le=600)] = None
    days: Annotated[int | None, Field(ge=1, le=18_250)] = None
    round_up_to: Literal["day", "month", "quarter", "half_year", "year"] = "month"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.months is None) == (self.days is None):
            raise PydanticCustomError("one_of_months_and_days", "either months or days")
        return self

    @property
    def shortest_days(self) -> int:
        """Days it has at the very least: no month is shorter than 28."""
        return self.days or 28 * (self.months or 0)


class PeriodExpiry(Span, ExpiryTerms):
    """Points are good until the end of the local day so long after they were earned, or of the period it falls in."""

    mode: Literal["period"] = "period"


class InactivityExpiry(Span, ExpiryTerms):
    """A member's points lapse together, so long after the last thing the member did that counts as activity."""

    mode: Literal["inactivity"]
    activities: Annotated[list[Activity], Field(min_length=1, max_length=4)] = ["purchase", "redemption"]


def _all_different(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise PydanticCustomError("named_twice", "the same is named twice")
    return names


class FixedDatesExpiry(ExpiryTerms):
    """Points are good until the end of the next of these days."""

    mode: Literal["fixed_dates"]
    dates: Annotated[list[MonthDay], Field(min_length=1, max_length=12), AfterValidator(_all_different)]
    at_least_days: Annotated[int, Field(ge=0, le=3660)] = 0
    """Points that are younger than this on a date go to the next."""

    @property
    def shortest_days(self) -> int:
        return self.at_least_days


Expiry = PeriodExpiry | FixedDatesExpiry | InactivityExpiry
