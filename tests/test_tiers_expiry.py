"""Points that a tier's members earn may be good for longer than others'."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Engines, settings_for
from tests.shop import Shop, TestClock, open_shop, purchase, returned
from tests.test_rule_limits import given
from tests.test_tiers import GOLD, SILVER, YEARLY, buy, check_history, member_of

GOOD_FOR_LONG = {"months": 24, "round_up_to": "month"}
OWN: dict[str, Any] = YEARLY | {
    "tiers": {"levels": [SILVER, GOLD | {"expiry": GOOD_FOR_LONG}]},
    "expiry": {"months": 12, "round_up_to": "month"},
}
A_YEAR, TWO_YEARS = "2027-12-01T05:00:00+00:00", "2028-12-01T05:00:00+00:00"
EVENT = {"mode": "event", "event": "shipped", "cancel_after_days": 30}
TENDER = {"value": {"amount": 1, "points": 1}}

Opener = Callable[..., Shop]


@pytest.fixture
def opened(engines: Engines, engine: str) -> Iterator[Opener]:
    open_ = []

    def open_with(**terms: Any) -> Shop:
        context = open_shop(settings_for(engines.fresh(engine)), TestClock(), OWN | terms)
        open_.append((context, shop := context.__enter__()))
        return shop

    yield open_with
    for context, shop in open_:
        check_history(shop)
        shop.prove()
        context.__exit__(None, None, None)


def ends(shop: Shop, card: str = "900") -> list[tuple[int, str | None]]:
    """The points that were granted at once and when they go, in the order they were granted."""
    lots = shop.get(f"/v1/members/{member_of(shop, card)}/lots")["items"]
    return [(lot["granted"], lot["expires_at"]) for lot in sorted(lots, key=lambda lot: str(lot["id"]))]


def findings(answer: Any) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    return [(each["pointer"], each["code"]) for each in answer.json()["errors"]]


def test_the_tier_before_a_purchase_says_how_long_its_points_are_good(opened: Opener) -> None:
    """The purchase that lifts a member earns what the tier below does; a dry run tells the same."""
    shop = opened()
    buy(shop, "r1", 150_000)
    planned = buy(shop, "r2", 1_000, dry_run=True)
    assert [lot["expires_at"] for entry in planned["entries"] for lot in entry["lots"]] == [TWO_YEARS]
    buy(shop, "r2", 1_000)
    buy(shop, "r3", 2_000, card="901")
    assert ends(shop) == [(1500, A_YEAR), (10, TWO_YEARS)]
    assert ends(shop, "901") == [(20, A_YEAR)]


def test_in_one_batch_as_one_by_one(opened: Opener) -> None:
    shop = opened()
    later = purchase("r3", 3_000, occurred_at=shop.clock().isoformat())
    shop.batch([purchase("r1", 150_000), purchase("r2"), returned("b1", "r1"), later])
    assert ends(shop) == [(1500, A_YEAR), (10, TWO_YEARS), (30, A_YEAR)]


def test_they_go_when_it_says_whatever_tier_their_owner_has_then(opened: Opener) -> None:
    shop = opened()
    buy(shop, "r1", 150_000)
    buy(shop, "r2", 1_000)
    shop.clock.forward(days=380)
    assert shop.get(f"/v1/members/{member_of(shop)}/balance")["balance"]["available"] == 10
    shop.clock.forward(days=370)
    assert shop.get(f"/v1/members/{member_of(shop)}/balance")["balance"]["available"] == 0


def test_rules_and_tiers_that_earn_more_are_good_as_long(opened: Opener) -> None:
    bonus = {"code": "seven", "name": "Seven more", "gives": {"type": "fixed", "points": 7}}
    levels = [GOLD | {"expiry": GOOD_FOR_LONG, "earning_multiplier": "2"}]
    shop = opened(rules=[bonus], tiers={"levels": levels})
    buy(shop, "r1", 150_000)
    assert given(buy(shop, "r2", 1_000)) == {"tier:gold": 10, "seven": 7}
    assert ends(shop) == [(1507, A_YEAR), (27, TWO_YEARS)]


def test_a_late_upload_is_good_by_the_tier_of_its_time(opened: Opener) -> None:
    shop = opened()
    buy(shop, "r1", 150_000, "2026-11-10T12:00:00-05:00")
    buy(shop, "before", 1_000, "2026-11-09T12:00:00-05:00")
    buy(shop, "after", 2_000, "2026-11-11T12:00:00-05:00")
    assert ends(shop) == [(1500, A_YEAR), (10, A_YEAR), (20, TWO_YEARS)]


@pytest.mark.parametrize("guest", [False, True])
def test_points_that_waited_for_an_event_are_good_as_long_as_if_they_had_not(opened: Opener, guest: bool) -> None:
    shop = opened(pending=EVENT)
    buy(shop, "r1", 150_000)
    member = None if guest else {"card": "900"}
    bought = shop.post(purchase("r2", member=member, occurred_at=shop.clock().isoformat())).json()
    if guest:
        path, headers = f"/v1/transactions/{bought['id']}/claim", {"Idempotency-Key": "claim"}
        assert shop.http.post(path, json={"member": {"card": "900"}}, headers=headers).status_code == 201
    assert shop.http.post(f"/v1/transactions/{bought['id']}/events", json={"event": "shipped"}).status_code == 200
    assert ends(shop)[-1] == (10, TWO_YEARS)


def test_points_that_come_back_to_a_lot_that_has_expired_are_new_in_the_tier_that_spent_them(opened: Opener) -> None:
    shop = opened(points_tender=TENDER, returns={"expired_meanwhile": "new_lot"}, uploads={"latest_days": None})
    buy(shop, "r1", 150_000)
    tenders = [{"type": "points", "amount": 100}]
    paid = purchase("r2", 100, tenders=tenders, occurred_at=shop.clock().isoformat())
    assert shop.post(paid).status_code == 201
    shop.clock.forward(days=400)
    back = shop.post(returned("b1", "r2", occurred_at=shop.clock().isoformat())).json()
    assert back["returned"]["given_back"] == 100
    assert ends(shop)[-1] == (100, "2030-01-01T05:00:00+00:00")
    assert shop.get(f"/v1/members/{member_of(shop)}/balance")["balance"]["available"] == 100


def test_members_are_told(opened: Opener) -> None:
    shop = opened()
    buy(shop, "r1", 150_000)
    told = shop.get(f"/v1/members/{member_of(shop)}/tier")["tier"]
    assert told["expiry"] == {"months": 24, "days": None, "round_up_to": "month"}


@pytest.mark.parametrize("expiry", [None, {"mode": "inactivity", "months": 12}])
def test_only_where_points_go_by_dates(opened: Opener, expiry: dict[str, Any] | None) -> None:
    """Points that no date is set for go together, by what a member does: no part of them has an end of its own."""
    shop = opened()
    answer = shop.http.post(f"/v1/programs/{shop.program_id}/terms", json=OWN | {"expiry": expiry})
    assert findings(answer) == [("#/expiry", "tier_expiry_without_dates")]


def test_no_tier_s_points_go_before_they_are_available(opened: Opener) -> None:
    shop = opened()
    levels = [SILVER, GOLD | {"expiry": {"days": 29, "round_up_to": "day"}}]
    terms = OWN | {"tiers": {"levels": levels}, "pending": EVENT}
    answer = shop.http.post(f"/v1/programs/{shop.program_id}/terms", json=terms)
    assert findings(answer) == [("#/pending", "pending_beyond_expiry")]
