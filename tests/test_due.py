"""What is due has happened, whether a job came by or not. Here no job ever does, but where its trace is looked for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from app import ledger
from app.ids import new_id
from app.ledger import Account, OpenLot, settle
from app.worker import JOBS, run
from tests.points import balance, earn, entries, events, ladder, look, move, publish, reserve, use
from tests.shop import TERMS, Shop, purchase, returned

PAYING = TERMS | {"points_tender": {"value": {"amount": 1, "points": 1}}}
NEW_YORK = ZoneInfo("America/New_York")
END = datetime(2027, 12, 1, 5, tzinfo=UTC)
"""When points of the test clock's first month are gone: the end of November a year later, in New York."""


def pay(shop: Shop, external_id: str, points: int, card: str = "900") -> Any:
    """A purchase that points pay in full."""
    tenders = [{"type": "points", "amount": points}]
    body = purchase(external_id, points, tenders=tenders, member={"card": card})
    return shop.post(body | {"occurred_at": shop.clock().isoformat()})


def settled(shop: Shop) -> int:
    ended = run(shop.database, "settle", JOBS["settle"], shop.clock(), shop.clock)
    assert ended is not None
    assert (ended.status, ended.failures) == ("done", 0)
    return ended.rows


def reads(shop: Shop, member_id: UUID) -> list[Any]:
    """All that the API says of a member's points."""
    return [shop.get(f"/v1/members/{member_id}/{what}") for what in ("balance", "lots")]


def test_expired_points_cannot_be_spent(shop: Shop) -> None:
    publish(shop, PAYING)
    shop.clock.forward(seconds=1)
    earn(shop, "r1", 100)
    shop.clock.now = END - timedelta(seconds=1)
    assert pay(shop, "p1", 40).status_code == 201
    shop.clock.now = END
    refused = pay(shop, "p2", 1)
    assert (refused.status_code, refused.json()["code"], refused.json()["missing"]) == (422, "insufficient_points", 1)
    shop.prove()


@pytest.mark.parametrize("mode", ["period", "inactivity"])
def test_points_cannot_be_spent_that_an_expiry_takes_which_was_switched_on_later(shop: Shop, mode: str) -> None:
    """Nobody has given them their end; those that a hold protected go when it ends."""
    publish(shop, PAYING | {"expiry": None})
    shop.clock.forward(seconds=1)
    member, other = earn(shop, "r1", 100), earn(shop, "r2", 30, card="901")
    held = reserve(shop, member, 40, None)
    shop.clock.forward(days=1)
    publish(shop, PAYING | {"expiry": {"mode": mode, "days": 3, "round_up_to": "day"}, "transfers": {}})
    switched_on = shop.clock()
    gone = (switched_on + timedelta(days=4)).astimezone(NEW_YORK).replace(hour=0, minute=0, second=0)
    shop.clock.now = gone - timedelta(seconds=1)
    assert balance(shop, member) == {"available": 60, "held": 40, "pending": 0, "debt": 0}
    shop.clock.now = gone
    assert pay(shop, "p1", 1).json()["code"] == "insufficient_points"
    gift = {"from": {"card": "901"}, "to": {"card": "900"}, "points": 1}
    given = shop.http.post("/v1/transfers", json=gift, headers={"Idempotency-Key": "gift"})
    assert given.json()["code"] == "insufficient_points"
    assert balance(shop, member) == {"available": 0, "held": 40, "pending": 0, "debt": 0}
    assert balance(shop, other)["available"] == 0
    assert ladder(shop, other) == []
    move(shop, member, lambda account, act: ledger.release(account, held, act))
    assert balance(shop, member)["available"] == 0
    assert earn(shop, "r3", 7) == member
    assert balance(shop, member)["available"] == 7
    assert [entry.points for entry in entries(shop, member, "expiration")] == [-60, -40]
    shop.prove()


@pytest.mark.parametrize("meanwhile", ["stay_expired", "grace_days", "new_lot"])
def test_points_that_come_back_are_as_old_as_those_that_stayed(shop: Shop, meanwhile: str) -> None:
    """They were spent when expiry was switched on, and what they paid for comes back when it would have taken them. A
    purchase of before that comes late earns nothing that could be spent, either."""
    terms = PAYING | {"uploads": {"latest_days": None}, "returns": {"expired_meanwhile": meanwhile, "grace_days": 9}}
    publish(shop, terms | {"expiry": None})
    shop.clock.forward(seconds=1)
    before = shop.clock().isoformat()
    member = earn(shop, "r1", 50)
    assert pay(shop, "p1", 50).status_code == 201
    shop.clock.forward(days=1)
    publish(shop, terms | {"expiry": {"days": 3, "round_up_to": "day"}})
    shop.clock.forward(days=30)
    late = shop.post(purchase("late", 3_000, occurred_at=before)).json()
    assert late["points"]["earned"] > 0
    assert late["balance"]["available"] == 0
    answer = shop.post(returned("b1", "p1", occurred_at=shop.clock().isoformat())).json()
    gone = meanwhile == "stay_expired"
    assert (answer["returned"]["given_back"], answer["returned"]["stay_expired"]) == (50, 50 if gone else 0)
    assert answer["balance"]["available"] == (0 if gone else 50)
    assert balance(shop, member)["available"] == (0 if gone else 50)
    shop.prove()


def test_pending_points_cannot_be_spent_before_their_instant(shop: Shop) -> None:
    publish(shop, PAYING | {"pending": {"mode": "days", "days": 14}})
    shop.clock.forward(seconds=1)
    member = earn(shop, "r1", 100)
    activation = shop.clock() + timedelta(days=14)
    shop.clock.now = activation - timedelta(seconds=1)
    assert balance(shop, member) == {"available": 0, "held": 0, "pending": 100, "debt": 0}
    assert pay(shop, "p1", 1).json()["code"] == "insufficient_points"
    shop.clock.now = activation
    assert balance(shop, member) == {"available": 100, "held": 0, "pending": 0, "debt": 0}
    assert pay(shop, "p1", 100).status_code == 201
    assert [entry.occurred_at for entry in entries(shop, member, "activation")] == [activation]
    shop.prove()


def test_points_whose_event_never_came_are_cancelled(shop: Shop) -> None:
    publish(shop, PAYING | {"pending": {"mode": "event", "event": "shipped", "cancel_after_days": 30}})
    shop.clock.forward(seconds=1)
    member = earn(shop, "r1", 100)
    end = shop.clock() + timedelta(days=30)
    shop.clock.now = end
    assert balance(shop, member) == {"available": 0, "held": 0, "pending": 0, "debt": 0}
    assert settled(shop) == 1
    assert [(entry.occurred_at, entry.pending) for entry in entries(shop, member, "cancellation")] == [(end, -100)]
    assert events(shop, "points.expired") == [], "they were never the member's to lose"
    shop.prove()


def test_a_hold_past_its_end_is_free(shop: Shop) -> None:
    publish(shop, PAYING)
    shop.clock.forward(seconds=1)
    member = earn(shop, "r1", 100)
    end = shop.clock() + timedelta(minutes=10)
    reserve(shop, member, 60, end)
    assert pay(shop, "p1", 41).json()["missing"] == 1
    shop.clock.now = end
    assert balance(shop, member) == {"available": 100, "held": 0, "pending": 0, "debt": 0}
    assert pay(shop, "p1", 100).status_code == 201
    assert [entry.occurred_at for entry in entries(shop, member, "release")] == [end]
    shop.prove()


def test_a_job_changes_nothing_that_anybody_reads(shop: Shop) -> None:
    """Months late, with something of everything due: each is written down at its own instant, once."""
    first = earn(shop, "r1", 100, "2026-10-20T12:00:00-04:00")
    publish(shop, TERMS | {"pending": {"mode": "days", "days": 14}})
    shop.clock.forward(seconds=1)
    earn(shop, "r2", 50)
    hold_end = shop.clock() + timedelta(days=400)
    reserve(shop, first, 30, hold_end)
    activation = shop.clock() + timedelta(days=14)
    shop.clock.now = datetime(2028, 2, 29, 12, tzinfo=UTC)
    before = reads(shop, first)
    assert before[0]["balance"] == {"available": 0, "held": 0, "pending": 0, "debt": 0}
    assert [lot["remaining"] for lot in before[1]["items"]] == [0, 0]
    assert settled(shop) == 5
    assert reads(shop, first) == before
    october = datetime(2027, 11, 1, 4, tzinfo=UTC)
    assert [entry.occurred_at for entry in entries(shop, first, "activation")] == [activation]
    assert [entry.occurred_at for entry in entries(shop, first, "release")] == [hold_end]
    expired = [(entry.occurred_at, entry.points) for entry in entries(shop, first, "expiration")]
    assert expired == [(october, -70), (END, -50), (hold_end, -30)], "held points went when their hold ended"
    assert {entry.recorded_at for entry in entries(shop, first, "expiration")} == {shop.clock()}
    told = [(event["points"], event["expired_at"]) for event in events(shop, "points.expired")]
    assert told == [(-points, at.isoformat()) for at, points in expired]
    assert settled(shop) == 0
    assert reads(shop, first) == before
    assert len(events(shop, "points.expired")) == 3
    shop.prove()


def test_a_purchase_that_comes_before_the_job_tells_of_the_expiry(shop: Shop) -> None:
    """Whoever comes first writes it down; the event leaves once."""
    member = earn(shop, "r1", 100)
    shop.clock.now = END + timedelta(hours=1)
    earn(shop, "r2", 10)
    assert [event["points"] for event in events(shop, "points.expired")] == [100]
    assert settled(shop) == 0
    assert [entry.occurred_at for entry in entries(shop, member, "expiration")] == [END]
    assert len(events(shop, "points.expired")) == 1
    shop.prove()


def test_as_of_settles_no_more_than_was_due_then(shop: Shop) -> None:
    """Up to a business instant past; what came later stays for later. It is recorded when it is written."""
    first = earn(shop, "r1", 100, card="1")
    shop.clock.now = datetime(2027, 1, 15, tzinfo=UTC)
    second = earn(shop, "r2", 50, card="2")
    shop.clock.now = datetime(2028, 6, 1, tzinfo=UTC)
    ended = run(shop.database, "settle", JOBS["settle"], END, shop.clock)
    assert ended is not None
    assert ended.rows == 1
    (entry,) = entries(shop, first, "expiration")
    assert (entry.occurred_at, entry.recorded_at) == (END, shop.clock())
    assert entries(shop, second, "expiration") == []
    assert balance(shop, second)["available"] == 0, "gone all the same"
    assert settled(shop) == 1
    shop.prove()


# --- inactivity -----------------------------------------------------------------------------------------------------

LAPSING = TERMS | {"expiry": {"mode": "inactivity", "months": 6, "round_up_to": "day"}}


def test_an_activity_keeps_all_points_from_lapsing(shop: Shop) -> None:
    """The account knows of the old lapse until it looks: nothing happens then, and the job does not come back to it."""
    publish(shop, LAPSING)
    shop.clock.forward(seconds=1)
    member = earn(shop, "r1", 100)
    shop.clock.now = datetime(2027, 3, 1, tzinfo=UTC)
    answer = shop.post(purchase("r2", 1000, occurred_at=shop.clock().isoformat())).json()
    assert answer["expiring_next"] == {"points": 110, "at": "2027-08-29T00:00:00-04:00"}
    lapse = datetime(2027, 8, 29, 4, tzinfo=UTC)  # six months after 28 February, New York time
    assert ladder(shop, member) == [("2027-08-29T04:00:00+00:00", 110)]
    shop.clock.now = datetime(2027, 6, 1, tzinfo=UTC)  # the first purchase alone would have lapsed in May
    assert balance(shop, member)["available"] == 110
    assert settled(shop) == 0
    assert look(shop, member).next_due_at == lapse
    with shop.database.engine.connect() as connection:
        due = connection.exec_driver_sql("SELECT count(*) FROM point_account WHERE next_due_at < '2027-08-01'")
        assert due.scalar_one() == 0, "the job does not have to look again"
    shop.clock.now = lapse
    assert balance(shop, member)["available"] == 0
    assert settled(shop) == 1
    shop.prove()


@pytest.mark.parametrize("moved", [1, 400])
def test_settling_ends_when_nothing_was_due_after_all(moved: int) -> None:
    """A lapse that an activity has moved, while the account still remembers the old one."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    lot = OpenLot(new_id(), 10, 0, False, start, None, True, new_id(), "USD", "purchase", new_id(), start, 10)
    lapse = start + timedelta(days=5 + moved)
    account = Account(new_id(), new_id(), available=10, lapses_at=lapse, lots={lot.id: lot})
    account = replace(account, next_due_at=start + timedelta(days=5))
    after = settle(account, lapse - timedelta(seconds=1), UTC)
    assert (after.available, after.next_due_at, after.rows.entries) == (10, lapse, ())
    assert settle(account, lapse, UTC).available == 0


def test_debt_is_paid_by_what_becomes_free(shop: Shop) -> None:
    """A hold that ends gives its points back to a member who owes some."""
    member = earn(shop, "r1", 100)
    end = shop.clock() + timedelta(days=1)
    hold = reserve(shop, member, 80, end)
    use(shop, member, 20)
    shop.clock.forward(minutes=1)
    assert shop.post(returned(occurred_at=shop.clock().isoformat())).status_code == 201
    assert balance(shop, member) == {"available": 0, "held": 80, "pending": 0, "debt": 100}
    shop.clock.now = end
    before = balance(shop, member)
    assert before == {"available": 0, "held": 0, "pending": 0, "debt": 20}
    settled(shop)
    assert balance(shop, member) == before
    assert [entry.document_id for entry in entries(shop, member, "release")] == [hold]
    shop.prove()
