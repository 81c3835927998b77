"""Terms over time, and the calendar of points: from when, until when, and when to warn. Pure; instants in UTC.

Days, months and years are those of the programme's zone. A day begins with its first instant there: at one o'clock
where the clocks skip midnight, and with the first midnight where they turn back to it.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

from app.programs.days import add_months, date_in, day_begins
from app.programs.ends import FixedDatesExpiry, InactivityExpiry, Span
from app.programs.schemas import PendingDays, PendingEvent, Terms

_MONTHS = {"day": 0, "month": 1, "quarter": 3, "half_year": 6, "year": 12}


@dataclass(frozen=True, slots=True)
class Version:
    """A published version of terms and the instant it holds from."""

    id: UUID
    number: int
    effective_from: datetime
    terms: Terms


@dataclass(frozen=True, slots=True)
class Timeline:
    """All published versions of a programme, oldest first."""

    versions: tuple[Version, ...]

    def at(self, instant: datetime) -> Version | None:
        """The version in force at `instant`, if there was one."""
        count = self._count(instant)
        return self.versions[count - 1] if count else None

    def until(self, instant: datetime) -> tuple[Version, ...]:
        """The versions that had taken effect by `instant`, oldest first."""
        return self.versions[: self._count(instant)]

    def after(self, instant: datetime) -> tuple[Version, ...]:
        """The versions that took effect later than `instant`, oldest first."""
        return self.versions[self._count(instant) :]

    def zone_at(self, instant: datetime) -> tzinfo:
        """The programme's zone at `instant`; that of its first terms before them, UTC where there are none."""
        version = self.at(instant) or next(iter(self.versions), None)
        return UTC if version is None else version.terms.zone

    def _count(self, instant: datetime) -> int:
        return bisect_right(self.versions, instant, key=lambda version: version.effective_from)


def local_month(instant: datetime, terms: Terms) -> date:
    """First day of the month `instant` falls in, in the programme's zone."""
    return instant.astimezone(terms.zone).date().replace(day=1)


# --- from when ------------------------------------------------------------------------------------------------------


def available_from(occurred_at: datetime, terms: Terms) -> datetime | None:
    """When points of `occurred_at` can be spent; None while that depends on an event.

    Pending days end at the same time of day. Where the clocks skip that time it is as much later as they skip; where
    they show it twice it is the first.
    """
    match terms.pending:
        case None:
            return occurred_at.astimezone(UTC)
        case PendingDays(days=days):
            return _days_later(occurred_at, days, terms.zone)
        case PendingEvent():
            return None


def cancels_at(occurred_at: datetime, terms: Terms) -> datetime | None:
    """When points of `occurred_at` are cancelled unless their event has come; None if they wait for none."""
    if isinstance(terms.pending, PendingEvent):
        return _days_later(occurred_at, terms.pending.cancel_after_days, terms.zone)
    return None


# --- until when -----------------------------------------------------------------------------------------------------


def expires_at(granted_at: datetime, terms: Terms, tier: str | None = None) -> datetime | None:
    """The first instant at which points granted at `granted_at`, by a purchase in a `tier`, are gone; None if no date
    is set for them.

    They are good to the end of a local day: the one so many months or days later (the last of its month where it has
    no such day), the last of the month, quarter, half-year or year that day falls in, or the next of the fixed dates.
    """
    match terms.expiry_of(tier):
        case None | InactivityExpiry():
            return None
        case FixedDatesExpiry() as fixed:
            youngest = granted_at.astimezone(terms.zone).date() + timedelta(days=fixed.at_least_days)
            return day_begins(_next_date(youngest, fixed) + timedelta(days=1), terms.zone)
        case span:
            return day_begins(_day_after(granted_at, span, terms.zone), terms.zone)


def lapses_at(activity_at: datetime, terms: Terms) -> datetime | None:
    """The first instant at which a member's points are gone if nothing follows the activity at `activity_at`.

    None unless points lapse by inactivity. Reckoned like `expires_at`.
    """
    if isinstance(terms.expiry, InactivityExpiry):
        return day_begins(_day_after(activity_at, terms.expiry, terms.zone), terms.zone)
    return None


def lapses_after(activity_at: datetime, terms: Terms, *kinds: str) -> datetime | None:
    """`lapses_at` of something that is all of `kinds`; None if none of them is an activity of the terms."""
    counts = isinstance(terms.expiry, InactivityExpiry) and not set(kinds).isdisjoint(terms.expiry.activities)
    return lapses_at(activity_at, terms) if counts else None


def lapses(terms: Terms) -> bool:
    """Whether points go when the member has been inactive for long, and not by a date of their own."""
    return isinstance(terms.expiry, InactivityExpiry)


def switched_on(timeline: Timeline, granted_at: datetime) -> Version | None:
    """The version by which points granted at `granted_at`, when nothing expired, are to go after all.

    None if they stay. It is the first later version with expiry that decides, once: points it leaves alone are not
    taken by another. They go as if granted at its `effective_from`, so never at once.
    """
    for version in timeline.after(granted_at):
        if version.terms.expiry is not None:
            return version if version.terms.expiry.existing_points == "one_period_later" else None
    return None


@dataclass(frozen=True, slots=True)
class Adoption:
    """Points granted `since` an instant and before `until`, when nothing expired, go by a later `version` after all."""

    since: datetime
    until: datetime
    version: Version

    def expires_at(self, available_from: datetime | None) -> datetime | None:
        """When such points are gone; None: when the account lapses. Never before they can be spent."""
        start = self.version.effective_from
        return expires_at(start if available_from is None else max(start, available_from), self.version.terms)

    def begins_to_take(self) -> datetime:
        """The first instant at which any such points can be gone."""
        gone = self.expires_at(None) or lapses_at(self.version.effective_from, self.version.terms)
        assert gone is not None, "an adoption has an end"
        return gone


def adoptions(timeline: Timeline, as_of: datetime) -> list[Adoption]:
    """Which points from before there was any expiry have one by `as_of` (`switched_on`)."""
    found = []
    for version, following in pairwise(timeline.versions):
        taking = switched_on(timeline, version.effective_from)
        if version.terms.expiry is None and taking is not None and taking.effective_from <= as_of:
            found.append(Adoption(version.effective_from, following.effective_from, taking))
    return found


def end_adopted(
    timeline: Timeline, granted_at: datetime, available_from: datetime | None, as_of: datetime
) -> datetime | None:
    """When points are gone that are granted now, by terms of before there was any expiry, since it was switched on by
    `as_of`; None if that gives them no date of their own."""
    for adoption in adoptions(timeline, as_of) if available_from is not None else ():
        if adoption.since <= granted_at < adoption.until:
            return adoption.expires_at(available_from)
    return None


def warnings_before(gone_at: datetime, terms: Terms) -> list[datetime]:
    """When to warn of points that are gone from `gone_at`: the beginnings of days so many ahead, the earliest first."""
    if terms.expiry is None:
        return []
    day = gone_at.astimezone(terms.zone).date()
    ahead = sorted(set(terms.expiry.warn_days), reverse=True)
    return [day_begins(day - timedelta(days=days), terms.zone) for days in ahead]


def day_start(instant: datetime, terms: Terms) -> datetime:
    """The first instant of the local day `instant` falls in."""
    return day_begins(instant.astimezone(terms.zone).date(), terms.zone)


def day_end(instant: datetime, terms: Terms) -> datetime:
    """The end of the local day `instant` falls in: the first instant of the next."""
    return day_begins(instant.astimezone(terms.zone).date() + timedelta(days=1), terms.zone)


def month_begins(first_day: date, timeline: Timeline) -> datetime:
    """The first instant of a month, in the zone in force on that day by the clocks of Greenwich."""
    return day_begins(first_day, timeline.zone_at(day_begins(first_day, UTC)))


# --- days -----------------------------------------------------------------------------------------------------------


def _days_later(instant: datetime, days: int, zone: ZoneInfo) -> datetime:
    return (instant.astimezone(zone) + timedelta(days=days)).astimezone(UTC)  # adds to the clock, not to the instant


def _day_after(start: datetime, span: Span, zone: ZoneInfo) -> date:
    """The day after the last of `span`."""
    first = start.astimezone(zone).date()
    last = first + timedelta(days=span.days) if span.days else add_months(first, span.months or 0)
    months = _MONTHS[span.round_up_to]
    if months == 0:
        return last + timedelta(days=1)
    return add_months(last.replace(day=1), months - (last.month - 1) % months)


def _next_date(day: date, fixed: FixedDatesExpiry) -> date:
    """The first of the fixed dates that is not before `day`."""
    dates = (date_in(year, text) for year in (day.year, day.year + 1) for text in sorted(fixed.dates))
    return next(found for found in dates if found >= day)
