"""Expiry, and what others have got wrong with it. Each test is named after a failure that members have met."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.exc import DatabaseError

from app import ledger
from app.worker import JOBS, run, run_jobs
from tests.conftest import settings_for
from tests.points import balance, earn, entries, events, ladder, look, move, publish, reserve, use
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned, voided

NEW_YORK = ZoneInfo("America/New_York")
MONTHLY = TERMS | {"expiry": {"months": 1, "round_up_to": "day", "warn_days": [7]}, "uploads": {"latest_days": None}}
STAYS = TERMS | {"expiry": None, "uploads": {"latest_days": None}}


@pytest.fixture
def staying(database_url: str, clock: TestClock) -> Any:
    """A shop whose points stay for ever, so far."""
    with open_shop(settings_for(database_url), clock, STAYS) as shop:
        yield shop


def at(text: str) -> datetime:
    """An instant by the clocks of New York."""
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).astimezone(UTC)


def set_terms(shop: Shop, terms: dict[str, Any]) -> None:
    publish(shop, terms)
    shop.clock.forward(seconds=1)


# --- what the balance is --------------------------------------------------------------------------------------------


def test_the_balance_does_not_collapse_when_a_spent_lot_expires(shop: Shop) -> None:
    """Where debits are not tied to lots, what was spent of the old points is taken from the new ones once more."""
    set_terms(shop, MONTHLY)
    member = earn(shop, "r1", 100)
    use(shop, member, 100)
    shop.clock.forward(days=20)
    earn(shop, "r2", 30)
    shop.clock.forward(days=20)  # the first lot is past its day, with nothing left in it
    assert balance(shop, member)["available"] == 30
    run_jobs(shop.database, shop.clock())
    assert balance(shop, member)["available"] == 30
    assert entries(shop, member, "expiration") == []
    assert events(shop, "points.expired") == []
    shop.prove()


def test_every_lot_expires_by_its_own_date(shop: Shop) -> None:
    set_terms(shop, MONTHLY)
    member = earn(shop, "r1", 1)
    for number in range(2, 6):
        shop.clock.forward(days=5)
        earn(shop, f"r{number}", number)
    steps = ladder(shop, member)
    assert [points for _, points in steps] == [1, 2, 3, 4, 5]
    left = 15
    for instant, points in steps:
        shop.clock.now = datetime.fromisoformat(instant) - timedelta(microseconds=1)
        assert balance(shop, member)["available"] == left
        shop.clock.now = datetime.fromisoformat(instant)
        left -= points
        assert balance(shop, member)["available"] == left
        run_jobs(shop.database, shop.clock())
    assert [entry.occurred_at.isoformat() for entry in entries(shop, member, "expiration")] == [at for at, _ in steps]
    shop.prove()


def test_points_expire_wherever_they_came_from(database_url: str, clock: TestClock) -> None:
    """Not only those of purchases: claimed, granted, given by others, taken back and restored, reinstated."""
    terms = MONTHLY | {
        "transfers": {},
        "points_tender": {"value": {"amount": 1, "points": 1}},
        "returns": {"expired_meanwhile": "new_lot"},
    }
    with open_shop(settings_for(database_url), clock, terms) as shop:
        member = earn(shop, "r1", 100)
        guest = shop.post(purchase("guest", 5000, member=None)).json()
        _write(shop, f"transactions/{guest['id']}/claim", member={"card": "900"})
        goodwill = {"class": "goodwill", "reason": "sorry"}
        _write(shop, "adjustments", member={"card": "900"}, points=40, **goodwill)
        earn(shop, "r2", 30, card="901")
        _write(shop, "transfers", **{"from": {"card": "901"}, "to": {"card": "900"}, "points": 30})
        earn(shop, "r3", 20)
        for body in (returned("b3", "r3"), voided("v3", "b3", "return")):
            assert shop.post(body).status_code == 201
        shop.post(purchase("paid", 15, tenders=[{"type": "points", "amount": 15}]))
        assert shop.post(returned("b4", "paid")).json()["returned"]["given_back"] == 15
        shop.post(purchase("paid-again", 15, tenders=[{"type": "points", "amount": 15}]))
        first = at("2026-12-23")
        assert ladder(shop, member) == [(first.isoformat(), 225)]
        shop.clock.now = first
        run_jobs(shop.database, shop.clock())
        assert balance(shop, member)["available"] == 0

        again = {"occurred_at": first.isoformat()}
        assert shop.post(returned("b5", "paid-again", **again)).json()["returned"]["given_back"] == 15
        lots = shop.get(f"/v1/members/{member}/lots")["items"]
        lot = next(lot for lot in lots if lot["granted"] == 100)
        until = at("2027-01-24")
        path = f"members/{member}/lots/{lot['id']}/reinstatement"
        _write(shop, path, reason="kindness", expires_at=until.isoformat(), points=50)
        assert ladder(shop, member) == [(until.isoformat(), 65)]
        shop.clock.now = until
        run_jobs(shop.database, shop.clock())
        assert balance(shop, member) == {"available": 0, "held": 0, "pending": 0, "debt": 0}
        assert sum(entry.points for entry in entries(shop, member, "expiration")) == -225 - 65
        shop.prove()


def _write(shop: Shop, path: str, **body: Any) -> None:
    answer = shop.http.post(f"/v1/{path}", json=body, headers={"Idempotency-Key": path.replace("/", "-")})
    assert answer.status_code == 201, answer.text


def test_debt_and_expiry_live_side_by_side(database_url: str, clock: TestClock) -> None:
    """Ten points are owed while thirty are held over their last day: freed, they pay the debt, and the rest goes."""
    with open_shop(settings_for(database_url), clock, MONTHLY) as shop:
        member = earn(shop, "r1", 10)
        use(shop, member, 10)
        earn(shop, "r2", 30)
        end = at("2026-12-24T12:00")
        reserve(shop, member, 30, end)
        assert shop.post(returned(of="r1", occurred_at=shop.clock().isoformat())).json()["returned"]["debt"] == 10
        shop.clock.now = end - timedelta(seconds=1)
        run_jobs(shop.database, shop.clock())
        assert balance(shop, member) == {"available": 0, "held": 30, "pending": 0, "debt": 10}
        shop.clock.now = end
        assert balance(shop, member) == {"available": 0, "held": 0, "pending": 0, "debt": 0}
        run_jobs(shop.database, shop.clock())
        assert [entry.points for entry in entries(shop, member, "expiration")] == [-20]
        earn(shop, "r3", 7)
        assert ladder(shop, member) == [(at("2027-01-25").isoformat(), 7)]
        shop.clock.now = at("2027-01-25")
        assert balance(shop, member)["available"] == 0
        shop.prove()


def test_reads_say_how_many_points_expire_and_when(shop: Shop) -> None:
    """Not only the next date. What is held is in the ladder, which sums to the balance, but not in what goes next."""
    set_terms(shop, MONTHLY)
    member = earn(shop, "r1", 100)
    earn(shop, "r2", 20)
    shop.clock.forward(days=3)
    earn(shop, "r3", 7)
    reserve(shop, member, 50, None)
    assert [points for _, points in ladder(shop, member)] == [120, 7]
    first = shop.get(f"/v1/members/{member}/balance")["expiring_next"]
    assert first == {"points": 70, "at": at("2026-12-23").isoformat()}


def test_held_points_are_protected_until_the_hold_ends(shop: Shop) -> None:
    set_terms(shop, MONTHLY)
    member = earn(shop, "r1", 100)
    end = at("2027-01-10T15:00")
    reserve(shop, member, 40, end)
    shop.clock.now = end - timedelta(seconds=1)
    run_jobs(shop.database, shop.clock())
    assert balance(shop, member) == {"available": 0, "held": 40, "pending": 0, "debt": 0}
    shop.clock.now = end
    run_jobs(shop.database, shop.clock())
    assert balance(shop, member) == {"available": 0, "held": 0, "pending": 0, "debt": 0}
    assert [(e.occurred_at, e.points) for e in entries(shop, member, "expiration")] == [
        (at("2026-12-23"), -60),
        (end, -40),
    ]
    shop.prove()


def test_running_twice_expires_once(shop: Shop) -> None:
    set_terms(shop, MONTHLY)
    member = earn(shop, "r1", 100)
    shop.clock.now = at("2027-03-01")
    assert run_jobs(shop.database, shop.clock())["settle"] == 1
    first = look(shop, member)
    assert run_jobs(shop.database, shop.clock())["settle"] == 0
    assert look(shop, member) == first
    shop.prove()


# --- which instant --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "earned", "gone"),
    [
        pytest.param("America/New_York", "2026-12-01T04:30:00+00:00", "2026-12-31T05:00:00+00:00", id="still November"),
        pytest.param("UTC", "2026-12-01T04:30:00+00:00", "2027-01-02T00:00:00+00:00", id="December already"),
        pytest.param("Pacific/Kiritimati", "2026-12-01T10:30:00+00:00", "2027-01-02T10:00:00+00:00", id="14 ahead"),
        pytest.param("Pacific/Pago_Pago", "2026-12-01T10:30:00+00:00", "2026-12-31T11:00:00+00:00", id="11 behind"),
        pytest.param("America/New_York", "2027-02-14T12:00:00+00:00", "2027-03-15T04:00:00+00:00", id="clocks go on"),
        pytest.param("America/New_York", "2027-10-07T12:00:00+00:00", "2027-11-08T05:00:00+00:00", id="clocks go back"),
        pytest.param("America/Havana", "2027-02-13T12:00:00+00:00", "2027-03-14T05:00:00+00:00", id="no midnight"),
        pytest.param("America/New_York", "2027-01-31T12:00:00+00:00", "2027-03-01T05:00:00+00:00", id="31 January"),
        pytest.param("America/New_York", "2028-01-31T12:00:00+00:00", "2028-03-01T05:00:00+00:00", id="and leap year"),
    ],
)
def test_not_a_day_early_nor_late(shop: Shop, zone: str, earned: str, gone: str) -> None:
    """A month, to the end of the programme's day: whatever the server's zone, the clocks, the month's length."""
    _until(shop, zone, earned, gone, months=1)


@pytest.mark.parametrize(
    ("earned", "gone"),
    [
        pytest.param("2028-02-29T12:00:00+00:00", "2029-03-01T05:00:00+00:00", id="29 February and a year"),
        pytest.param("2027-02-28T12:00:00+00:00", "2028-02-29T05:00:00+00:00", id="28 February into a leap year"),
    ],
)
def test_a_year_from_the_end_of_february(shop: Shop, earned: str, gone: str) -> None:
    _until(shop, "America/New_York", earned, gone, months=12)


def _until(shop: Shop, zone: str, earned: str, gone: str, months: int) -> None:
    set_terms(shop, MONTHLY | {"time_zone": zone, "expiry": {"months": months, "round_up_to": "day"}})
    shop.clock.now = datetime.fromisoformat(earned)
    member = earn(shop, "r1", 100)
    instant = datetime.fromisoformat(gone)
    shop.clock.now = instant - timedelta(microseconds=1)
    run_jobs(shop.database, shop.clock())
    assert balance(shop, member)["available"] == 100
    shop.clock.now = instant
    assert balance(shop, member)["available"] == 0
    run_jobs(shop.database, shop.clock())
    assert [entry.occurred_at for entry in entries(shop, member, "expiration")] == [instant]
    shop.prove()


# --- expiry switched on ---------------------------------------------------------------------------------------------


def test_switching_expiry_on_wipes_nothing(staying: Shop) -> None:
    """Years of points stay for one period more, as if they were granted when the terms took effect."""
    shop = staying
    old = earn(shop, "r1", 100, "2020-05-05T12:00:00-04:00", card="1")
    young = earn(shop, "r2", 10, card="2")
    set_terms(shop, MONTHLY)
    earn(shop, "r3", 1, card="2")
    run_jobs(shop.database, shop.clock())
    gone = at("2026-12-23").isoformat()
    assert balance(shop, old)["available"] == 100
    assert ladder(shop, old) == [(gone, 100)]
    assert ladder(shop, young) == [(gone, 11)]
    (entry,) = entries(shop, old, "extension")
    assert (entry.points, entry.available) == (0, 0)
    before = look(shop, old)
    assert run_jobs(shop.database, shop.clock())["adopt-expiry"] == 0
    assert look(shop, old) == before
    shop.clock.now = at("2026-12-23")
    assert balance(shop, old)["available"] == 0
    assert run_jobs(shop.database, shop.clock())["settle"] == 2
    shop.prove()


def test_terms_of_the_future_take_nothing_today(staying: Shop) -> None:
    shop = staying
    member = earn(shop, "r1", 100)
    begin = shop.clock() + timedelta(days=10)
    publish(shop, MONTHLY, begin)
    assert run_jobs(shop.database, shop.clock())["adopt-expiry"] == 0
    assert ladder(shop, member) == []
    shop.clock.now = begin
    assert run_jobs(shop.database, shop.clock())["adopt-expiry"] == 1
    assert ladder(shop, member) == [(at("2027-01-03").isoformat(), 100)]


def test_terms_that_leave_old_points_alone_do(staying: Shop) -> None:
    shop = staying
    member = earn(shop, "r1", 100)
    set_terms(shop, MONTHLY | {"expiry": {"months": 1, "existing_points": "never"}})
    run_jobs(shop.database, shop.clock())
    set_terms(shop, MONTHLY)
    assert run_jobs(shop.database, shop.clock())["adopt-expiry"] == 0, "that was decided once"
    assert ladder(shop, member) == []


def test_points_that_were_held_or_came_late_are_adopted_later(staying: Shop) -> None:
    shop = staying
    member = earn(shop, "r1", 100)
    end = shop.clock() + timedelta(days=3)
    reserve(shop, member, 30, end)
    set_terms(shop, MONTHLY)
    run_jobs(shop.database, shop.clock())
    gone = at("2026-12-23").isoformat()
    assert ladder(shop, member) == [(gone, 70)]
    shop.clock.now = end
    earn(shop, "offline", 5, "2026-11-20T12:00:00-05:00")
    run_jobs(shop.database, shop.clock())
    assert ladder(shop, member) == [(gone, 105)]
    shop.prove()


def test_a_till_whose_clock_is_ahead_earned_under_the_old_terms(staying: Shop) -> None:
    """The purchase says that it happened after the switch, but it was recorded before."""
    shop = staying
    member = earn(shop, "r1", 100, (shop.clock() + timedelta(minutes=2)).isoformat())
    set_terms(shop, MONTHLY)
    run_jobs(shop.database, shop.clock())
    assert ladder(shop, member) == [(at("2026-12-23").isoformat(), 100)]


def test_a_job_that_is_a_period_late_lets_go_at_the_promised_instant(staying: Shop) -> None:
    shop = staying
    member = earn(shop, "r1", 100)
    set_terms(shop, MONTHLY)
    shop.clock.now = at("2027-06-01")
    run_jobs(shop.database, shop.clock())
    assert [entry.occurred_at for entry in entries(shop, member, "expiration")] == [at("2026-12-23")]
    shop.prove()


def test_pending_points_are_adopted_until_after_they_can_be_spent(database_url: str, clock: TestClock) -> None:
    pending = {"pending": {"mode": "days", "days": 100}}
    with open_shop(settings_for(database_url), clock, STAYS | pending) as shop:
        member = earn(shop, "r1", 100)
        ripe = shop.clock() + timedelta(days=100)
        set_terms(shop, MONTHLY)
        run_jobs(shop.database, shop.clock())
        assert ladder(shop, member) == [(at("2027-04-03").isoformat(), 100)], "a month from 2 March"
        shop.clock.now = ripe
        assert balance(shop, member)["available"] == 100
        run_jobs(shop.database, shop.clock())
        shop.prove()


def test_points_that_somebody_made_stay_for_ever_stay(staying: Shop) -> None:
    shop = staying
    member = earn(shop, "r1", 100)
    set_terms(shop, MONTHLY)
    run_jobs(shop.database, shop.clock())
    (lot,) = [lot for lot in look(shop, member).lots.values() if lot.free]
    move(shop, member, lambda account, act: ledger.extend(account, lot.id, None, act))
    shop.clock.forward(days=1)
    assert run_jobs(shop.database, shop.clock())["adopt-expiry"] == 0
    assert ladder(shop, member) == []


def test_switching_to_inactivity_counts_from_the_switch(staying: Shop) -> None:
    shop = staying
    quiet = earn(shop, "r1", 100, "2020-05-05T12:00:00-04:00", card="1")
    busy = earn(shop, "r2", 10, "2020-05-05T12:00:00-04:00", card="2")
    set_terms(shop, STAYS | {"expiry": {"mode": "inactivity", "months": 6, "round_up_to": "day"}})
    run_jobs(shop.database, shop.clock())
    assert ladder(shop, quiet) == [(at("2027-05-23").isoformat(), 100)]
    shop.clock.now = at("2027-03-01T12:00")
    earn(shop, "r3", 1, card="2")
    assert ladder(shop, busy) == [(at("2027-09-02").isoformat(), 11)]
    shop.clock.now = at("2027-05-23")
    run_jobs(shop.database, shop.clock())
    assert (balance(shop, quiet)["available"], balance(shop, busy)["available"]) == (0, 11)
    shop.prove()


# --- warnings -------------------------------------------------------------------------------------------------------


def warned(shop: Shop) -> list[tuple[int, str]]:
    return [(event["points"], event["expires_at"]) for event in events(shop, "points.expiring")]


WARNING = MONTHLY | {"expiry": {"months": 1, "round_up_to": "day", "warn_days": [14, 3]}}


def test_each_warning_is_sent_once(shop: Shop) -> None:
    set_terms(shop, WARNING)
    member = earn(shop, "r1", 100)
    reserve(shop, member, 30, at("2026-12-20T12:00"))
    gone = at("2026-12-23").isoformat()
    shop.clock.now = at("2026-12-09") - timedelta(seconds=1)
    assert run_jobs(shop.database, shop.clock())["warn-expiry"] == 0
    shop.clock.now = at("2026-12-09")
    assert run_jobs(shop.database, shop.clock())["warn-expiry"] == 1
    assert warned(shop) == [(70, gone)], "what is held is not theirs to spend elsewhere"
    for _ in range(2):
        shop.clock.forward(hours=7)
        assert run_jobs(shop.database, shop.clock())["warn-expiry"] == 0
    shop.clock.now = at("2026-12-20T13:00")
    assert run_jobs(shop.database, shop.clock())["warn-expiry"] == 1
    assert warned(shop) == [(70, gone), (100, gone)]
    shop.clock.now = at("2026-12-24")
    assert run_jobs(shop.database, shop.clock())["warn-expiry"] == 0


def test_what_was_warned_of_is_not_rewritten(shop: Shop) -> None:
    set_terms(shop, WARNING)
    earn(shop, "r1", 100)
    shop.clock.now = at("2026-12-10")
    run_jobs(shop.database, shop.clock())
    for statement in (
        "UPDATE expiry_warning SET points = points + 1",
        "DELETE FROM expiry_warning",
        "INSERT INTO expiry_warning SELECT * FROM expiry_warning",
    ):
        with pytest.raises(DatabaseError), shop.database.engine.begin() as connection:
            connection.exec_driver_sql(statement)


def test_a_warning_run_by_hand_finds_nothing_new(shop: Shop) -> None:
    """It looks at everything, not only at what began since the last round; each warning is unique by its key."""
    set_terms(shop, WARNING)
    earn(shop, "r1", 100)
    shop.clock.now = at("2026-12-10")
    run_jobs(shop.database, shop.clock())
    ended = run(shop.database, "warn-expiry", JOBS["warn-expiry"], shop.clock(), shop.clock)
    assert ended is not None
    assert (ended.status, ended.rows) == ("done", 0)
    assert len(warned(shop)) == 1


def test_a_late_job_warns_of_the_last_day_only(shop: Shop) -> None:
    set_terms(shop, WARNING)
    earn(shop, "r1", 100)
    run_jobs(shop.database, shop.clock())
    shop.clock.now = at("2026-12-21")
    assert run_jobs(shop.database, shop.clock())["warn-expiry"] == 1
    ended = run(shop.database, "warn-expiry", JOBS["warn-expiry"], shop.clock(), shop.clock)
    assert ended is not None
    assert ended.rows == 0
    shop.clock.now = at("2027-02-01")
    earn(shop, "r2", 100)
    assert run_jobs(shop.database, shop.clock())["warn-expiry"] == 0, "what is gone needs no warning"


def test_points_granted_after_the_warning_day_are_not_warned_of(shop: Shop) -> None:
    """Else, where points are good for less than the days ahead, every purchase would be followed by a warning."""
    set_terms(shop, WARNING | {"expiry": {"months": 1, "round_up_to": "day", "warn_days": [200]}})
    earn(shop, "r1", 100)
    run_jobs(shop.database, shop.clock())
    assert warned(shop) == []


def test_points_that_lapse_are_warned_of_by_the_lapse_they_have_then(shop: Shop) -> None:
    lapsing = {"mode": "inactivity", "months": 6, "round_up_to": "day", "warn_days": [30]}
    set_terms(shop, MONTHLY | {"expiry": lapsing})
    earn(shop, "r1", 100)
    shop.clock.now = at("2027-04-24T12:00")  # 29 days before 23 May
    run_jobs(shop.database, shop.clock())
    assert warned(shop) == [(100, at("2027-05-23").isoformat())]
    earn(shop, "r2", 1)
    shop.clock.now = at("2027-09-26T12:00")
    run_jobs(shop.database, shop.clock())
    assert warned(shop)[1:] == [(101, at("2027-10-25").isoformat())]


def test_no_warning_for_points_that_wait_for_an_event(shop: Shop) -> None:
    """They do not expire, they are cancelled."""
    set_terms(shop, WARNING | {"pending": {"mode": "event", "event": "shipped", "cancel_after_days": 20}})
    earn(shop, "r1", 100)
    shop.clock.forward(days=18)
    run_jobs(shop.database, shop.clock())
    assert warned(shop) == []
