"""The windows in which purchases count towards tiers. Pure; instants in UTC, days of the programme's zone."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from app.programs import Rolling, SinceLastChange, TierTerms, add_months, date_in, day_begins

MOMENT = timedelta(microseconds=1)
"""What two instants differ by at the least."""


class Periods:
    """Windows that follow upon each other: years from a day of the year, or periods since a member's last change."""

    def __init__(self, terms: TierTerms, zone: ZoneInfo, month_day: str) -> None:
        """`month_day`: on which years begin; not asked for where periods go from the last change."""
        self._zone, self._month_day, self._grace_days = zone, month_day, terms.grace_days
        self._months = terms.window.months if isinstance(terms.window, SinceLastChange) else None
        self._found: dict[datetime, tuple[datetime, datetime]] = {}

    def of(self, at: datetime, since: datetime) -> tuple[datetime, datetime]:
        """The period that `at` is in, its end excluded. `since`: the last change."""
        if self._months is not None:
            return _of_change(since, at, self._months, self._zone)
        found = self._found.get(at)  # the beginnings of years are asked for again and again
        if found is None:
            found = self._found[at] = _year(at.astimezone(self._zone).date(), self._month_day, self._zone)
        return found

    def before(self, begins: datetime, since: datetime) -> datetime:
        """When the period began that ended at `begins`."""
        return self.of(begins - MOMENT, since)[0]

    def review_of(self, ends: datetime) -> datetime:
        """When members fall who have not kept their tier in a period that `ends`: after the days of grace."""
        return _later(ends, self._grace_days, self._zone)


@lru_cache(maxsize=4096)
def _year(day: date, month_day: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    first = date_in(day.year, month_day)
    if day < first:
        first = date_in(day.year - 1, month_day)
    return day_begins(first, zone), day_begins(date_in(first.year + 1, month_day), zone)


def _of_change(since: datetime, at: datetime, months: int, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The first of these periods begins with the change itself, the others with a day."""
    first, day = since.astimezone(zone).date(), at.astimezone(zone).date()
    count = max(0, ((day.year - first.year) * 12 + day.month - first.month) // months)
    begins, ends = (day_begins(add_months(first, each * months), zone) for each in (count, count + 1))
    if at < begins and count:
        count, begins, ends = count - 1, day_begins(add_months(first, (count - 1) * months), zone), begins
    return (since if count == 0 else begins), ends


def _later(instant: datetime, days: int, zone: ZoneInfo) -> datetime:
    """The beginning of the day so many days later; for none, the instant."""
    return instant if days == 0 else day_begins(instant.astimezone(zone).date() + timedelta(days=days), zone)


@dataclass(frozen=True, slots=True)
class Span:
    """A window that moves along: each purchase counts for so long, whole days."""

    terms: TierTerms
    window: Rolling
    zone: ZoneInfo

    def opens(self, at: datetime) -> datetime:
        """From when on purchases count at `at`."""
        return _opens(at.astimezone(self.zone).date(), self.window.days, self.window.months, self.zone)

    def leaves(self, counted_at: datetime) -> datetime:
        """The first instant at which a purchase does not count any more."""
        return _leaves(counted_at.astimezone(self.zone).date(), self.window.days, self.window.months, self.zone)

    def review_of(self, short_since: datetime) -> datetime:
        """When a member falls for whose tier there has been too little since an instant."""
        return _later(short_since, self.terms.grace_days, self.zone)


def _gone(day: date, days: int | None, months: int | None) -> date:
    return day + timedelta(days=days) if days else add_months(day, months or 0)


@lru_cache(maxsize=4096)
def _leaves(day: date, days: int | None, months: int | None, zone: ZoneInfo) -> datetime:
    return day_begins(_gone(day, days, months), zone)


@lru_cache(maxsize=4096)
def _opens(day: date, days: int | None, months: int | None, zone: ZoneInfo) -> datetime:
    first = day - timedelta(days=days) if days else add_months(day, -(months or 0))
    while _gone(first, days, months) <= day:  # ends of months: several days may go together
        first += timedelta(days=1)
    return day_begins(first, zone)
