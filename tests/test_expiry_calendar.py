"""From when and until when points are good: months, leap days, clocks that change, the programme's zone.

Named after what other loyalty systems got wrong. The tables need no database.
"""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.programs import Terms, expires_at, local_month
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
    "its last day: that quarter": ("2026-12-31T12:00-05:00", 3, "quarter", "2027-04-01T00:00-04:00"),
    "the next one's first": ("2027-01-01T12:00-05:00", 3, "quarter", "2027-07-01T00:00-04:00"),
    "the fourth quarter": ("2026-11-22T06:00-05:00", 1, "quarter", "2027-01-01T00:00-05:00"),
    "end of the year": ("2026-11-22T06:00-05:00", 12, "year", "2028-01-01T00:00-05:00"),
    "earned in a year's last minute": ("2026-12-31T23:59-05:00", 12, "year", "2028-01-01T00:00-05:00"),
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
spans = st.sampled_from(["day", "month", "quarter", "year"])
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
    assert months <= whole_months <= months + {"day": 0, "month": 0, "quarter": 2, "year": 11}[span]
    if span == "day":
        assert last.day == local.day or (last.day < local.day and next_day.day == 1)
    else:
        assert next_day.day == 1
        assert span != "quarter" or next_day.month in (1, 4, 7, 10)
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
