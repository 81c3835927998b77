"""From when and until when points are good: months, leap days, clocks that change, the programme's zone.

Named after what other loyalty systems got wrong. The tables need no database.
"""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.programs import (
    Terms,
    Timeline,
    Version,
    available_from,
    cancels_at,
    expires_at,
    lapses,
    lapses_at,
    local_month,
    switched_on,
    warnings_before,
)
from app.programs.calendar import adoptions
from tests.baskets import examples, terms
from tests.shop import FOREVER, Shop, purchase


def expiring(months: int, round_up_to: str, zone: str) -> Terms:
    return terms(expiry={"months": months, "round_up_to": round_up_to}, time_zone=zone)


NEW_YORK = "America/New_York"


GOOD_UNTIL = {
    # earned in New York at, good for so many months, to the end of; gone from
    "a year, to the end of the day": ("2026-11-22T06:00-05:00", 12, "day", "2027-11-23T00:00-05:00"),
    "31 January + 1 month": ("2027-01-31T12:00-05:00", 1, "day", "2027-03-01T00:00-05:00"),
    "31 January + 1 month in a leap year": ("2028-01-31T12:00-05:00", 1, "day", "2028-03-01T00:00-05:00"),
    "30 January + 1 month in a leap year": ("2028-01-30T12:00-05:00", 1, "day", "2028-03-01T00:00-05:00"),
    "29 February + 1 year": ("2028-02-29T12:00-05:00", 12, "day", "2029-03-01T00:00-05:00"),
    "29 February + 4 years": ("2028-02-29T12:00-05:00", 48, "day", "2032-03-01T00:00-05:00"),
    "28 February + 1 year is not the 29th": ("2027-02-28T12:00-05:00", 12, "day", "2028-02-29T00:00-05:00"),
    "31 August + 1 month": ("2027-08-31T12:00-04:00", 1, "day", "2027-10-01T00:00-04:00"),
    "31 December + 2 months": ("2026-12-31T12:00-05:00", 2, "day", "2027-03-01T00:00-05:00"),
    "over a year's end": ("2026-11-30T12:00-05:00", 13, "day", "2027-12-31T00:00-05:00"),
    # periods
    "end of the month": ("2026-11-22T06:00-05:00", 12, "month", "2027-12-01T00:00-05:00"),
    "earned in a month's last minute": ("2026-11-30T23:59-05:00", 12, "month", "2027-12-01T00:00-05:00"),
    "earned in the next one's first": ("2026-12-01T00:00-05:00", 12, "month", "2028-01-01T00:00-05:00"),
    "31 January + 1 month, end of February": ("2027-01-31T12:00-05:00", 1, "month", "2027-03-01T00:00-05:00"),
    "end of the quarter": ("2026-11-22T06:00-05:00", 3, "quarter", "2027-04-01T00:00-04:00"),
    "a quarter's last day: that quarter": ("2026-12-31T12:00-05:00", 3, "quarter", "2027-04-01T00:00-04:00"),
    "the next quarter's first": ("2027-01-01T12:00-05:00", 3, "quarter", "2027-07-01T00:00-04:00"),
    "the fourth quarter": ("2026-11-22T06:00-05:00", 1, "quarter", "2027-01-01T00:00-05:00"),
    "end of the year": ("2026-11-22T06:00-05:00", 12, "year", "2028-01-01T00:00-05:00"),
    "earned in a year's last minute": ("2026-12-31T23:59-05:00", 12, "year", "2028-01-01T00:00-05:00"),
    "end of the half-year": ("2026-05-31T12:00-04:00", 1, "half_year", "2026-07-01T00:00-04:00"),
    "a half-year's last day: that half-year": ("2026-11-30T12:00-05:00", 1, "half_year", "2027-01-01T00:00-05:00"),
    "the next half-year's first": ("2026-12-01T12:00-05:00", 1, "half_year", "2027-07-01T00:00-04:00"),
    "earned in the next year's first": ("2027-01-01T00:00-05:00", 12, "year", "2029-01-01T00:00-05:00"),
    # the programme's zone, not the till's
    "December already in UTC": ("2026-12-01T04:30+00:00", 12, "month", "2027-12-01T00:00-05:00"),
    "December already where the till stands": ("2026-12-01T02:30-02:00", 12, "month", "2027-12-01T00:00-05:00"),
    # clocks that change
    "DST: a last day of 23 hours": ("2027-02-14T12:00-05:00", 1, "day", "2027-03-15T00:00-04:00"),
    "DST: a last day of 25 hours": ("2026-10-01T12:00-04:00", 1, "day", "2026-11-02T00:00-05:00"),
    "DST: earned when 01:30 came again": ("2026-11-01T01:30-05:00", 1, "day", "2026-12-02T00:00-05:00"),
}
GOOD_UNTIL_ELSEWHERE = {
    # the zone; earned at, good for so many months, to the end of; gone from
    "December already": ("Asia/Tokyo", "2026-11-30T16:00+00:00", 12, "month", "2028-01-01T00:00+09:00"),
    "an odd offset": ("Asia/Kathmandu", "2026-11-22T06:00+00:00", 1, "day", "2026-12-23T00:00+05:45"),
    "DST: a day without midnight begins at one": (
        "America/Santiago",
        "2024-08-07T12:00-04:00",
        1,
        "day",
        "2024-09-08T01:00-03:00",
    ),
    "DST: midnight comes twice, the day begins with the first": (
        "America/Havana",
        "2024-09-02T12:00-04:00",
        2,
        "day",
        "2024-11-03T00:00-04:00",
    ),
}


@pytest.mark.parametrize(
    ("zone", "earned", "months", "until_end_of", "gone_from"),
    [*((NEW_YORK, *case) for case in GOOD_UNTIL.values()), *GOOD_UNTIL_ELSEWHERE.values()],
    ids=[*GOOD_UNTIL, *GOOD_UNTIL_ELSEWHERE],
)
def test_points_are_good_to_the_end_of_a_local_day(
    zone: str, earned: str, months: int, until_end_of: str, gone_from: str
) -> None:
    """The first instant without them is midnight in the programme's zone, wherever the till or the server stands."""
    gone = expires_at(datetime.fromisoformat(earned), expiring(months, until_end_of, zone))
    assert gone == datetime.fromisoformat(gone_from)
    assert gone is not None
    assert gone.tzinfo is UTC


DAYS_AND_DATES = {
    # the zone, how points expire; earned at, gone from
    "90 days": (NEW_YORK, {"days": 90, "round_up_to": "day"}, "2026-11-22T06:00-05:00", "2027-02-21T00:00-05:00"),
    "a day, earned in a day's first instant": (
        NEW_YORK,
        {"days": 1, "round_up_to": "day"},
        "2026-11-22T00:00-05:00",
        "2026-11-24T00:00-05:00",
    ),
    "90 days, to the end of the month": (
        NEW_YORK,
        {"days": 90},
        "2026-11-22T06:00-05:00",
        "2027-03-01T00:00-05:00",
    ),
    "365 days from 29 February": (
        NEW_YORK,
        {"days": 365, "round_up_to": "day"},
        "2028-02-29T12:00-05:00",
        "2029-03-01T00:00-05:00",
    ),
    # fixed dates
    "the next of two dates": (
        NEW_YORK,
        {"mode": "fixed_dates", "dates": ["12-31", "06-30"]},
        "2026-05-01T12:00-04:00",
        "2026-07-01T00:00-04:00",
    ),
    "earned on the date: gone that night": (
        NEW_YORK,
        {"mode": "fixed_dates", "dates": ["12-31", "06-30"]},
        "2026-06-30T23:59-04:00",
        "2026-07-01T00:00-04:00",
    ),
    "earned a minute later: the other date": (
        NEW_YORK,
        {"mode": "fixed_dates", "dates": ["12-31", "06-30"]},
        "2026-07-01T00:00-04:00",
        "2027-01-01T00:00-05:00",
    ),
    "over a year's end": (
        NEW_YORK,
        {"mode": "fixed_dates", "dates": ["03-31"]},
        "2026-04-01T12:00-04:00",
        "2027-04-01T00:00-04:00",
    ),
    "old enough on the date": (
        NEW_YORK,
        {"mode": "fixed_dates", "dates": ["12-31"], "at_least_days": 30},
        "2026-12-01T23:59-05:00",
        "2027-01-01T00:00-05:00",
    ),
    "a day too young: the next year's": (
        NEW_YORK,
        {"mode": "fixed_dates", "dates": ["12-31"], "at_least_days": 30},
        "2026-12-02T00:00-05:00",
        "2028-01-01T00:00-05:00",
    ),
    "more than a year old": (
        NEW_YORK,
        {"mode": "fixed_dates", "dates": ["06-30", "12-31"], "at_least_days": 400},
        "2026-11-22T06:00-05:00",
        "2028-01-01T00:00-05:00",
    ),
    "02-29 is the last of February": (
        NEW_YORK,
        {"mode": "fixed_dates", "dates": ["02-29"]},
        "2026-11-22T06:00-05:00",
        "2027-03-01T00:00-05:00",
    ),
    "the 29th in a leap year": (
        NEW_YORK,
        {"mode": "fixed_dates", "dates": ["02-29"]},
        "2028-02-29T12:00-05:00",
        "2028-03-01T00:00-05:00",
    ),
    "02-28 and 02-29, on the 29th": (
        NEW_YORK,
        {"mode": "fixed_dates", "dates": ["02-29", "02-28"]},
        "2028-02-29T12:00-05:00",
        "2028-03-01T00:00-05:00",
    ),
    # clocks and zones
    "Berlin, a last day of 23 hours": (
        "Europe/Berlin",
        {"days": 30, "round_up_to": "day"},
        "2027-02-26T12:00+01:00",
        "2027-03-29T00:00+02:00",
    ),
    "Berlin, a last day of 25 hours": (
        "Europe/Berlin",
        {"days": 30, "round_up_to": "day"},
        "2027-10-01T12:00+02:00",
        "2027-11-01T00:00+01:00",
    ),
    "Sao Paulo's summer began at midnight": (
        "America/Sao_Paulo",
        {"mode": "fixed_dates", "dates": ["11-03"]},
        "2018-10-01T12:00-03:00",
        "2018-11-04T01:00-02:00",
    ),
    "and its last evening had an hour more": (
        "America/Sao_Paulo",
        {"mode": "fixed_dates", "dates": ["02-16"]},
        "2018-12-01T12:00-02:00",
        "2019-02-17T00:00-03:00",
    ),
    "Apia skipped 30 December 2011": (
        "Pacific/Apia",
        {"mode": "fixed_dates", "dates": ["12-30"]},
        "2011-12-01T12:00-10:00",
        "2011-12-31T00:00+14:00",
    ),
    "and so ended its 29th": (
        "Pacific/Apia",
        {"mode": "fixed_dates", "dates": ["12-29"]},
        "2011-12-01T12:00-10:00",
        "2011-12-31T00:00+14:00",
    ),
    "14 hours ahead": (
        "Pacific/Kiritimati",
        {"mode": "fixed_dates", "dates": ["12-31"]},
        "2026-12-31T09:59+00:00",
        "2027-01-01T00:00+14:00",
    ),
    "11 hours behind": (
        "Pacific/Pago_Pago",
        {"mode": "fixed_dates", "dates": ["12-31"]},
        "2027-01-01T10:59+00:00",
        "2027-01-01T00:00-11:00",
    ),
}


@pytest.mark.parametrize(("zone", "rule", "earned", "gone_from"), DAYS_AND_DATES.values(), ids=DAYS_AND_DATES)
def test_points_are_good_for_days_or_to_a_date(zone: str, rule: dict[str, Any], earned: str, gone_from: str) -> None:
    gone = expires_at(datetime.fromisoformat(earned), terms(expiry=rule, time_zone=zone))
    assert gone == datetime.fromisoformat(gone_from)


def test_points_stay_where_terms_do_not_let_them_expire() -> None:
    assert expires_at(datetime(2026, 11, 22, tzinfo=UTC), Terms.model_validate(FOREVER)) is None


@pytest.fixture(params=["Pacific/Kiritimati", "America/Adak", "UTC"])
def server_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The process lives in this zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def test_programmes_zone_decides_not_the_servers(server_zone: str) -> None:
    """A day early or late by time zone: wherever the server runs, the same instant and the same month."""
    earned = datetime.fromisoformat("2026-11-30T23:30:00-05:00")
    rule = expiring(12, "month", NEW_YORK)
    assert expires_at(earned, rule) == datetime.fromisoformat("2027-12-01T00:00:00-05:00")
    assert local_month(earned, rule) == date(2026, 11, 1)


@pytest.mark.parametrize(
    ("instant", "zone", "month"),
    [
        pytest.param("2026-11-30T23:59:59-05:00", NEW_YORK, date(2026, 11, 1), id="the last second of November"),
        pytest.param("2026-12-01T00:00:00-05:00", NEW_YORK, date(2026, 12, 1), id="the first of December"),
        pytest.param("2026-12-01T04:59:59+00:00", NEW_YORK, date(2026, 11, 1), id="sent in UTC"),
        pytest.param("2026-12-01T13:59:59+09:00", NEW_YORK, date(2026, 11, 1), id="sent from Tokyo"),
        pytest.param(
            "2026-12-31T10:00:00+00:00", "Pacific/Kiritimati", date(2027, 1, 1), id="the new year begins in Kiribati"
        ),
        pytest.param("2027-01-01T09:00:00+00:00", "America/Adak", date(2026, 12, 1), id="and ends in the Aleutians"),
    ],
)
def test_accounting_month_is_that_of_the_programmes_zone(instant: str, zone: str, month: date) -> None:
    assert local_month(datetime.fromisoformat(instant), terms(time_zone=zone)) == month


ZONES = (
    NEW_YORK,
    "UTC",
    "Asia/Shanghai",
    "America/Santiago",
    "America/Havana",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "Pacific/Kiritimati",
    "Europe/London",
)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2060, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  # bounds of `timezones`
spans = st.sampled_from(["day", "month", "quarter", "half_year", "year"])
TICK = timedelta(microseconds=1)


@examples
@given(instants, st.integers(1, 120), spans, st.sampled_from(ZONES))
def test_points_are_never_gone_within_a_local_day(earned: datetime, months: int, span: str, zone: str) -> None:
    """They go where one local day ends and the next begins: after the months promised, by less than a year."""
    rule = expiring(months, span, zone)
    gone = expires_at(earned, rule)
    assert gone is not None
    last, next_day = (gone - TICK).astimezone(rule.zone).date(), gone.astimezone(rule.zone).date()
    assert last + timedelta(days=1) == next_day
    local = earned.astimezone(rule.zone).date()
    whole_months = (last.year - local.year) * 12 + last.month - local.month
    assert months <= whole_months <= months + {"day": 0, "month": 0, "quarter": 2, "half_year": 5, "year": 11}[span]
    if span == "day":
        assert last.day == local.day or (last.day < local.day and next_day.day == 1)
    else:
        assert next_day.day == 1
        assert span != "quarter" or next_day.month in (1, 4, 7, 10)
        assert span != "half_year" or next_day.month in (1, 7)
        assert span != "year" or next_day.month == 1


@examples
@given(instants, instants, st.integers(1, 120), spans, st.sampled_from(ZONES))
def test_points_earned_later_never_go_earlier(
    first: datetime, second: datetime, months: int, span: str, zone: str
) -> None:
    rule = expiring(months, span, zone)
    earlier, later = (expires_at(earned, rule) for earned in sorted([first, second]))
    assert earlier is not None
    assert later is not None
    assert earlier <= later


def test_instant_of_expiry_is_exclusive(shop: Shop) -> None:
    """Good to the last microsecond of 30 November 2027 in New York, and gone with the first of December."""
    member_id = shop.post(purchase()).json()["member"]["id"]
    gone = datetime.fromisoformat("2027-12-01T00:00:00-05:00").astimezone(UTC)

    def balance() -> Any:
        return shop.get(f"/v1/members/{member_id}/balance")

    shop.clock.now = gone - TICK
    assert balance()["balance"]["available"] == 10
    shop.clock.now = gone
    assert balance()["balance"]["available"] == 0
    shop.prove()


@st.composite
def expiries(draw: st.DrawFn) -> dict[str, Any]:
    """Any way to expire at a date."""
    if draw(st.booleans()):
        length = {draw(st.sampled_from(["months", "days"])): draw(st.integers(1, 600))}
        return length | {"round_up_to": draw(spans)}
    days = st.dates(date(2028, 1, 1), date(2028, 12, 31)).map(lambda day: f"{day:%m-%d}")
    return {
        "mode": "fixed_dates",
        "dates": draw(st.lists(days, min_size=1, max_size=12, unique=True)),
        "at_least_days": draw(st.sampled_from([0, 1, 30, 365, 3660])),
    }


zones = st.sampled_from(ZONES)


@examples
@given(instants, instants, expiries(), zones)
def test_whatever_the_terms_points_last_as_long_as_promised(
    first: datetime, second: datetime, rule: dict[str, Any], zone: str
) -> None:
    """To the end of a local day, no less than the days promised, and never longer for who earned them earlier."""
    chosen = terms(expiry=rule, time_zone=zone)
    promised = rule.get("at_least_days", rule.get("days", 28 * rule.get("months", 0)))
    ends = []
    for earned in sorted([first, second]):
        gone = expires_at(earned, chosen)
        assert gone is not None
        assert gone > earned
        last, next_day = (gone - TICK).astimezone(chosen.zone).date(), gone.astimezone(chosen.zone).date()
        assert last + timedelta(days=1) == next_day
        assert (last - earned.astimezone(chosen.zone).date()).days >= promised
        ends.append(gone)
    assert ends[0] <= ends[1]


# --- inactivity -----------------------------------------------------------------------------------------------------


def test_points_that_lapse_by_inactivity_have_no_date_of_their_own() -> None:
    """Each activity moves the end of all of them."""
    rule = terms(expiry={"mode": "inactivity", "months": 6, "round_up_to": "day"})
    bought, bought_again = (datetime.fromisoformat(f"2026-{day}T12:00-04:00") for day in ("03-31", "08-31"))
    assert lapses(rule)
    assert expires_at(bought, rule) is None
    assert lapses_at(bought, rule) == datetime.fromisoformat("2026-10-01T00:00-04:00")
    assert lapses_at(bought_again, rule) == datetime.fromisoformat("2027-03-01T00:00-05:00")


@pytest.mark.parametrize(
    "expiry", [None, {"months": 6}, {"mode": "fixed_dates", "dates": ["12-31"]}], ids=["none", "period", "fixed dates"]
)
def test_nothing_else_lapses(expiry: dict[str, Any] | None) -> None:
    rule = terms(expiry=expiry)
    assert not lapses(rule)
    assert lapses_at(datetime(2026, 11, 22, tzinfo=UTC), rule) is None


# --- expiry is switched on ------------------------------------------------------------------------------------------


def programme(*versions: tuple[str, dict[str, Any] | None]) -> Timeline:
    """Terms of a programme in New York: from each day on, how points expire."""
    return Timeline(
        tuple(
            Version(UUID(int=number), number, datetime.fromisoformat(f"{day}T00:00-05:00"), terms(expiry=expiry))
            for number, (day, expiry) in enumerate(versions, start=1)
        )
    )


YEAR = {"months": 12, "round_up_to": "day"}
MONTH = {"months": 1, "round_up_to": "day"}
NEVER = YEAR | {"existing_points": "never"}
INACTIVE = {"mode": "inactivity", "months": 12}


@pytest.mark.parametrize(
    ("timeline", "number", "gone_from"),
    [
        pytest.param(programme(("2025-01-01", None)), None, None, id="never switched on"),
        pytest.param(
            programme(("2025-01-01", None), ("2026-01-01", YEAR)),
            2,
            "2027-01-02T00:00-05:00",
            id="one period later, as if earned on the day it was switched on",
        ),
        pytest.param(
            programme(("2025-01-01", None), ("2025-11-01", None), ("2026-01-01", YEAR)),
            3,
            "2027-01-02T00:00-05:00",
            id="whatever else changed before",
        ),
        pytest.param(programme(("2025-01-01", None), ("2026-01-01", NEVER)), None, None, id="promised to stay"),
        pytest.param(
            programme(("2025-01-01", None), ("2026-01-01", NEVER), ("2027-01-01", None), ("2028-01-01", YEAR)),
            None,
            None,
            id="and stay when it is switched off and on again",
        ),
        pytest.param(
            programme(("2025-01-01", None), ("2026-01-01", YEAR), ("2026-02-01", MONTH)),
            2,
            "2027-01-02T00:00-05:00",
            id="a shorter period later changes nothing for them",
        ),
        pytest.param(programme(("2025-01-01", None), ("2026-01-01", INACTIVE)), 2, None, id="lapse by inactivity"),
    ],
)
def test_switching_expiry_on_does_not_wipe_balances(
    timeline: Timeline, number: int | None, gone_from: str | None
) -> None:
    """Points earned in June 2025, when nothing expired."""
    earned = datetime.fromisoformat("2025-06-15T12:00-04:00")
    version = switched_on(timeline, earned)
    assert (None if version is None else version.number) == number
    later = datetime(2100, 1, 1, tzinfo=UTC)
    gone = [each.expires_at(earned) for each in adoptions(timeline, later) if each.since <= earned < each.until]
    assert (gone or [None])[0] == (None if gone_from is None else datetime.fromisoformat(gone_from))


# --- warnings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("warn_days", "warned_at"),
    [
        pytest.param([], [], id="never"),
        pytest.param([30], ["2027-02-13T00:00-05:00"], id="30 days ahead"),
        pytest.param([1, 30, 1], ["2027-02-13T00:00-05:00", "2027-03-14T00:00-05:00"], id="the earliest first, once"),
    ],
)
def test_warnings_go_out_whole_local_days_ahead(warn_days: list[int], warned_at: list[str]) -> None:
    """The last of these days has 23 hours."""
    rule = terms(expiry=MONTH | {"warn_days": warn_days})
    gone = expires_at(datetime.fromisoformat("2027-02-14T12:00-05:00"), rule)
    assert gone == datetime.fromisoformat("2027-03-15T00:00-04:00")
    assert warnings_before(gone, rule) == [datetime.fromisoformat(at) for at in warned_at]


def test_nothing_is_warned_of_where_nothing_expires() -> None:
    assert warnings_before(datetime(2026, 11, 22, tzinfo=UTC), terms(expiry=None)) == []


# --- pending points -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "bought", "days", "available"),
    [
        pytest.param(NEW_YORK, "2026-11-22T06:00-05:00", 14, "2026-12-06T06:00-05:00", id="14 days, same time of day"),
        pytest.param(NEW_YORK, "2027-03-13T12:00-05:00", 1, "2027-03-14T12:00-04:00", id="DST: after 23 hours"),
        pytest.param(NEW_YORK, "2026-10-31T12:00-04:00", 1, "2026-11-01T12:00-05:00", id="DST: after 25 hours"),
        pytest.param(NEW_YORK, "2027-03-13T02:30-05:00", 1, "2027-03-14T03:30-04:00", id="DST: no half past two"),
        pytest.param(NEW_YORK, "2026-10-31T01:30-04:00", 1, "2026-11-01T01:30-04:00", id="DST: the first 01:30"),
        pytest.param("Pacific/Apia", "2011-12-29T12:00-10:00", 1, "2011-12-31T12:00+14:00", id="there is no such day"),
        pytest.param(NEW_YORK, "2026-11-23T04:00+00:00", 1, "2026-11-24T04:00+00:00", id="sent in UTC"),
    ],
)
def test_pending_days_end_at_the_same_time_of_day(zone: str, bought: str, days: int, available: str) -> None:
    rule = terms(pending={"mode": "days", "days": days}, time_zone=zone)
    from_ = available_from(datetime.fromisoformat(bought), rule)
    assert from_ == datetime.fromisoformat(available)
    assert from_ is not None
    assert from_.tzinfo is UTC
    assert cancels_at(datetime.fromisoformat(bought), rule) is None


def test_points_that_wait_for_an_event_are_cancelled_if_it_does_not_come() -> None:
    bought = datetime.fromisoformat("2027-03-01T12:00-05:00")
    rule = terms(pending={"mode": "event", "event": "shipped", "cancel_after_days": 30})
    assert available_from(bought, rule) is None
    assert cancels_at(bought, rule) == datetime.fromisoformat("2027-03-31T12:00-04:00")


def test_points_are_available_at_once_unless_terms_say_otherwise() -> None:
    bought = datetime.fromisoformat("2027-03-01T12:00-05:00")
    assert available_from(bought, terms()) == bought
    assert cancels_at(bought, terms()) is None


@examples
@given(st.data(), instants, expiries(), zones)
def test_points_are_available_before_they_expire(
    data: st.DataObject, bought: datetime, expiry: dict[str, Any], zone: str
) -> None:
    """Terms under which they could not be are refused; under all others they are."""
    shortest = expiry.get("at_least_days", expiry.get("days", 28 * expiry.get("months", 0)))
    assume(shortest > 0)
    days = data.draw(st.integers(1, min(shortest, 366)))
    rule = terms(expiry=expiry, pending={"mode": "days", "days": days}, time_zone=zone)
    available, gone = available_from(bought, rule), expires_at(bought, rule)
    assert available is not None
    assert gone is not None
    assert bought < available < gone
