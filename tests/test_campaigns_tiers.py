"""Campaigns for tiers: who was in one of them when the occasion fell, as known when the worker looks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from tests.conftest import settings_for
from tests.shop import Shop, TestClock, open_shop, returned
from tests.test_campaigns import BIRTHDAY, WELCOME, at, enrol, given, with_, work
from tests.test_tiers import GOLD, SILVER, YEARLY, buy, code, until

FOR_GOLD = BIRTHDAY | {"code": "golden", "points": 500, "who": {"tiers": ["gold"]}}
FOR_BOTH = BIRTHDAY | {"who": {"tiers": ["silver", "gold"]}}


@pytest.fixture
def shop(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with offering(database_url, clock, FOR_GOLD, FOR_BOTH) as shop:
        yield shop


@contextmanager
def offering(url: str, clock: TestClock, *offered: dict[str, Any]) -> Iterator[Shop]:
    with open_shop(settings_for(url), clock, YEARLY | with_(*offered, expiry=None)) as shop:
        yield shop
        shop.prove()


def test_a_birthday_of_members_in_a_tier(shop: Shop) -> None:
    for card, total in (("1", 60_000), ("2", 100_000), ("3", 100)):
        enrol(shop, card, born_on="1990-11-24")
        buy(shop, f"r{card}", total, card=card)
    enrol(shop, "4", born_on="1990-11-24")
    until(shop, "2026-11-24")
    assert work(shop).rows == 3
    ids = {card: enrol(shop, card, born_on="1990-11-24") for card in "1234"}
    assert given(shop, ids["1"]) == [("birthday", "2026", 50)]
    assert given(shop, ids["2"]) == [("birthday", "2026", 50), ("golden", "2026", 500)]
    assert given(shop, ids["3"]) == given(shop, ids["4"]) == []


def test_it_is_the_tier_of_the_occasion_not_of_the_run(shop: Shop) -> None:
    """Who has fallen since was in it; who has risen since was not."""
    was, came = (enrol(shop, card, born_on="1990-12-31") for card in "12")
    buy(shop, "r1", 100_000, "2025-12-01T12:00:00-05:00", card="1")
    clock = shop.clock
    assert isinstance(clock, TestClock)
    clock.now = at("2027-01-01T12:00:00-05:00")
    buy(shop, "r2", 100_000, card="2")
    assert (code(shop, "1"), code(shop, "2")) == (None, "gold")
    assert work(shop).rows == 2
    assert given(shop, was) == [("birthday", "2026", 50), ("golden", "2026", 500)]
    assert given(shop, came) == []


def test_it_is_the_tier_as_known_when_the_worker_looks(shop: Shop) -> None:
    """A purchase of before that comes late counts if the worker has not looked; what has come back by then does not."""
    late, back = (enrol(shop, card, born_on="1990-11-24") for card in "12")
    buy(shop, "r2", 100_000, "2026-11-22T06:00:00-05:00", card="2")
    until(shop, "2026-11-24")
    buy(shop, "r1", 100_000, "2026-11-22T06:00:00-05:00", card="1")
    assert shop.post(returned("b2", "r2", occurred_at="2026-11-23T06:00:00-05:00")).status_code == 201
    assert work(shop).rows == 2
    assert given(shop, late) == [("birthday", "2026", 50), ("golden", "2026", 500)]
    assert given(shop, back) == []


def test_only_campaigns_that_ask_cost_a_look(database_url: str, clock: TestClock) -> None:
    """And those only for members who have the occasion."""
    statements: list[str] = []

    def note(*call: Any) -> None:
        statements.append(call[2])

    with offering(database_url, clock, WELCOME, BIRTHDAY, FOR_GOLD) as shop:
        enrol(shop)
        event.listen(shop.database.engine, "before_cursor_execute", note)
        assert work(shop).rows == 1
        assert not [each for each in statements if "qualifying_entry" in each]
        enrol(shop, "901", born_on="1990-11-24")
        until(shop, "2026-11-24")
        statements.clear()
        assert work(shop).rows == 2
        assert len([each for each in statements if "qualifying_entry" in each]) == 2, (
            "before accounts are claimed, and then"
        )
        event.remove(shop.database.engine, "before_cursor_execute", note)


def test_a_campaign_is_for_tiers_there_are(shop: Shop) -> None:
    path = f"/v1/programs/{shop.program_id}/terms"
    for tiers in ({"levels": [SILVER]}, None):
        answer = shop.http.post(path, json=YEARLY | with_(FOR_GOLD) | {"tiers": tiers})
        assert answer.status_code == 422
        assert [(each["pointer"], each["code"]) for each in answer.json()["errors"]] == [
            ("#/campaigns/0/who/tiers/0", "unknown_tier")
        ]
    broken = {"levels": [GOLD | {"code": "!"}]}
    answer = shop.http.post(path, json=YEARLY | with_(FOR_GOLD) | {"tiers": broken})
    assert [each["pointer"] for each in answer.json()["errors"]] == ["#/tiers/levels/0/code"]
