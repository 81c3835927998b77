"""Days of the calendar: as terms name them, and when they begin. Pure."""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError


def _month_day(text: str) -> str:
    month, day = int(text[:2]), int(text[3:])
    if day > (29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31):
        raise PydanticCustomError("not_a_day", "no year has this day")
    return text


MonthDay = Annotated[str, Field(pattern="^(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"), AfterValidator(_month_day)]
"""A day of every year, `12-31`; `02-29` is the last of February."""


def day_begins(day: date, zone: tzinfo) -> datetime:
    """The first instant of a day in `zone`."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def date_in(year: int, month_day: str) -> date:
    """The day of a year that a `MonthDay` means."""
    return _in_month(date(year, int(month_day[:2]), 1), int(month_day[3:]))


def add_months(day: date, months: int) -> date:
    """The same day so many months later, or the last of its month where it has no such day."""
    years, month = divmod(day.month - 1 + months, 12)
    return _in_month(date(day.year + years, month + 1, 1), day.day)


def _in_month(first: date, day: int) -> date:
    """The day numbered `day` of the month that begins with `first`, or its last where it has no such day."""
    following = (first + timedelta(days=31)).replace(day=1)
    return min(first + timedelta(days=day - 1), following - timedelta(days=1))
