"""Pending points: by days, until an event, with automatic cancel; never spendable a moment early."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.conftest import Engines, settings_for
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned
from tests.test_access import check_problem

DAYS = {"mode": "days", "days": 3}
EVENT = {"mode": "event", "event": "shipped", "cancel_after_days": 30}
TENDER = {"value": {"amount": 1, "points": 1}}

Opener = Callable[[dict[str, Any]], Shop]


@pytest.fixture
def opened(engines: Engines, engine: str) -> Iterator[Opener]:
    """A shop whose terms say when points are pending, and take points at the till."""
    open_ = []

    def open_with(pending: dict[str, Any]) -> Shop:
        terms = TERMS | {"pending": pending, "points_tender": TENDER}
        context = open_shop(settings_for(engines.fresh(engine)), TestClock(), terms)
        open_.append(context)
        return context.__enter__()

    yield open_with
    for context in open_:
        context.__exit__(None, None, None)


def figures(available: int = 0, pending: int = 0, debt: int = 0) -> dict[str, int]:
    return {"available": available, "held": 0, "pending": pending, "debt": debt}


def balance(shop: Shop, member: str) -> dict[str, int]:
    answer: dict[str, int] = shop.get(f"/v1/members/{member}/balance")["balance"]
    return answer


def happen(shop: Shop, bought: dict[str, Any], event: str = "shipped", **query: Any) -> Any:
    return shop.http.post(f"/v1/transactions/{bought['id']}/events", json={"event": event}, params=query)


def spend(shop: Shop, points: int, name: str) -> Any:
    """Pays with points, now."""
    tender = [{"type": "points", "amount": points}]
    return shop.post(purchase(name, total=points, tenders=tender, occurred_at=shop.clock().isoformat()))


# --- by days --------------------------------------------------------------------------------------------------------


def test_points_are_available_after_their_days_without_a_job(opened: Opener) -> None:
    """From the third day on, at the time of the purchase; not a second earlier, for anybody."""
    shop = opened(DAYS)
    bought = shop.post(purchase()).json()
    member = bought["member"]["id"]
    assert (bought["points"]["earned"], bought["points"]["pending"]) == (10, 10)
    assert bought["balance"] == figures(pending=10)
    shop.clock.now = datetime.fromisoformat("2026-11-25T10:59:59+00:00")
    assert balance(shop, member) == figures(pending=10)
    early = spend(shop, 1, "s1")
    check_problem(early, 422, "insufficient_points")
    assert early.json()["missing"] == 1
    shop.clock.forward(seconds=1)
    assert balance(shop, member) == figures(available=10)
    assert spend(shop, 10, "s2").status_code == 201
    entries = shop.get(f"/v1/members/{member}/entries")["items"]
    (activation,) = [entry for entry in entries if entry["kind"] == "activation"]
    assert activation["occurred_at"] == "2026-11-25T11:00:00+00:00"
    assert (activation["points"], activation["available"], activation["pending"]) == (0, 10, -10)
    shop.prove()


def test_points_that_become_available_pay_debt_first(opened: Opener) -> None:
    """Ten were spent and are owed; of the next thirty, twenty are left when they become available."""
    shop = opened(DAYS)
    member = shop.post(purchase("r1")).json()["member"]["id"]
    shop.clock.now = datetime.fromisoformat("2026-11-26T12:00:00+00:00")
    assert spend(shop, 10, "s1").status_code == 201
    assert shop.post(returned("b1", "r1", occurred_at="2026-11-26T12:00:00Z")).json()["returned"]["debt"] == 10
    shop.post(purchase("r2", total=3000, occurred_at="2026-11-26T12:00:00Z"))
    assert balance(shop, member) == figures(pending=30, debt=10)
    shop.clock.forward(days=3)
    assert balance(shop, member) == figures(available=20)
    shop.prove()


@pytest.mark.parametrize("pending", [DAYS, EVENT])
def test_a_return_takes_pending_points_while_they_are_pending(opened: Opener, pending: dict[str, Any]) -> None:
    shop = opened(pending)
    member = shop.post(purchase()).json()["member"]["id"]
    half = shop.post(returned("b1", total=500)).json()
    assert (half["returned"]["taken_back"], half["balance"]) == (5, figures(pending=5))
    shop.post(returned("b2"))
    assert balance(shop, member) == figures()
    shop.prove()


# --- by an event ----------------------------------------------------------------------------------------------------


def test_the_event_makes_points_available_once(opened: Opener) -> None:
    """They expire as if they had been available at once. Again: the same answer, and nothing happens."""
    shop = opened(EVENT)
    bought = shop.post(purchase()).json()
    member = bought["member"]["id"]
    assert bought["balance"] == figures(pending=10)
    shop.clock.forward(days=10)
    tried = happen(shop, bought, dry_run=True).json()
    assert (tried["dry_run"], tried["available"], tried["balance"]) == (True, 10, figures(available=10))
    assert balance(shop, member) == figures(pending=10), "a dry run writes nothing"
    first = happen(shop, bought)
    assert first.status_code == 200, first.text
    assert first.json() == tried | {"dry_run": False, "entries": None}
    again = happen(shop, bought).json()
    assert again == first.json() | {"duplicate": True}
    assert balance(shop, member) == figures(available=10)
    assert shop.get(f"/v1/members/{member}/lots")["expiring"] == [{"points": 10, "at": "2027-12-01T05:00:00+00:00"}]
    check_problem(happen(shop, bought, "cancelled"), 409, "points_activated")
    shop.prove()


def test_the_event_pays_debt_first(opened: Opener) -> None:
    shop = opened(EVENT)
    first = shop.post(purchase("r1")).json()
    happen(shop, first)
    spend(shop, 10, "s1")
    shop.post(returned("b1", "r1"))
    bought = shop.post(purchase("r2", total=3000)).json()
    assert bought["balance"] == figures(pending=30, debt=10)
    assert happen(shop, bought).json()["balance"] == figures(available=20)
    shop.prove()


def test_cancelled_points_are_gone_once(opened: Opener) -> None:
    shop = opened(EVENT)
    bought = shop.post(purchase()).json()
    first = happen(shop, bought, "cancelled").json()
    assert (first["cancelled"], first["available"], first["balance"]) == (10, 0, figures())
    assert happen(shop, bought, "cancelled").json() == first | {"duplicate": True}
    check_problem(happen(shop, bought), 409, "points_cancelled")
    shop.prove()


@pytest.mark.parametrize("written", [True, False])
def test_points_are_cancelled_by_themselves_when_no_event_came(opened: Opener, written: bool) -> None:
    """At the same time of day, thirty days on: a second before it is not too late."""
    shop = opened(EVENT)
    late, in_time = shop.post(purchase("r1")).json(), shop.post(purchase("r2")).json()
    shop.clock.now = datetime.fromisoformat("2026-12-22T10:59:59+00:00")
    assert happen(shop, in_time).json()["available"] == 10
    shop.clock.forward(seconds=1)
    assert balance(shop, late["member"]["id"]) == figures(available=10)
    if written:  # anything that happens to the account writes it down
        spend(shop, 1, "s1")
    check_problem(happen(shop, late), 409, "points_cancelled")
    gone = happen(shop, late, "cancelled").json()
    assert (gone["cancelled"], gone["duplicate"]) == (10, True)
    shop.prove()


def test_the_event_of_a_purchase_that_came_back_does_nothing(opened: Opener) -> None:
    shop = opened(EVENT)
    bought = shop.post(purchase()).json()
    shop.post(returned())
    answer = happen(shop, bought).json()
    assert (answer["available"], answer["balance"]) == (0, figures())


def test_a_guest_s_purchase_waits_for_its_member_first(opened: Opener) -> None:
    shop = opened(EVENT)
    bought = shop.post(purchase(member=None)).json()
    check_problem(happen(shop, bought), 409, "purchase_unclaimed")
    claim = shop.http.post(f"/v1/transactions/{bought['id']}/claim", json={"member": {"card": "900"}})
    assert claim.json()["balance"] == figures(pending=10)
    assert happen(shop, bought).json()["balance"] == figures(available=10)


def test_only_the_event_that_the_terms_name_counts(opened: Opener) -> None:
    """Those of the purchase: neither another word, nor any word where points wait for none."""
    shop = opened(EVENT)
    bought = shop.post(purchase()).json()
    check_problem(happen(shop, bought, "delivered"), 422, "event_unknown")
    check_problem(happen(shop, bought, "Not a word"), 422, "invalid_request")
    back = shop.post(returned()).json()
    check_problem(happen(shop, back), 404, "not_found")
    shop = opened(DAYS)
    check_problem(happen(shop, shop.post(purchase()).json(), "cancelled"), 422, "event_unknown")
