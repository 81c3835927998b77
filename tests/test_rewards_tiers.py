"""Rewards for tiers: had by members who are in one of them when they order."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import event

from app.blueprints import Blueprint
from tests.conftest import settings_for
from tests.points import publish
from tests.shop import Shop, TestClock, open_shop, returned
from tests.test_rewards import MUG, add, added, change, end, ordered, redeem, refusal
from tests.test_tiers import SILVER, YEARLY, buy, until
from tests.test_wallet import phone, read

LOUNGE = {"code": "lounge", "points": 100, "tiers": ["gold"]}


@pytest.fixture
def shop(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, YEARLY) as shop:
        yield shop
        shop.prove()


def test_a_reward_for_gold_is_had_by_gold(shop: Shop) -> None:
    added(shop, **LOUNGE)
    silver = buy(shop, "r1", 60_000, card="1")["member"]["id"]
    gold = buy(shop, "r2", 100_000, card="2")["member"]["id"]
    refused = redeem(shop, silver, "lounge")
    assert (*refusal(refused), refused.json()["tiers"]) == (422, "reward_not_for_tier", ["gold"])
    assert [(each["pointer"], each["code"]) for each in refused.json()["errors"]] == [
        ("#/member", "reward_not_for_tier")
    ]
    order = ordered(shop, gold, "lounge")
    assert shop.post(returned("b2", "r2", total=50_000)).status_code == 201
    assert refusal(redeem(shop, gold, "lounge")) == (422, "reward_not_for_tier")
    assert end(shop, order, "fulfilment").status_code == 200, "an order keeps what it was promised"


def test_it_is_the_tier_by_the_clock(shop: Shop) -> None:
    """No job has to have run."""
    added(shop, **LOUNGE)
    gold = buy(shop, "r1", 100_000)["member"]["id"]
    until(shop, "2027-12-31")
    ordered(shop, gold, "lounge")
    until(shop, "2028-01-01")
    assert refusal(redeem(shop, gold, "lounge")) == (422, "reward_not_for_tier")


def test_an_app_tells_which_rewards_are_for_other_tiers(shop: Shop) -> None:
    added(shop, **LOUNGE)
    added(shop, points=50)
    buy(shop, "r1", 60_000)
    told = read(phone(shop), "/v1/me/rewards")["items"]
    assert [(each["code"], each["possible"]) for each in told] == [("lounge", False), ("mug", True)]
    assert [(why["code"], why["tiers"]) for why in told[0]["refusals"]] == [("reward_not_for_tier", ["gold"])]
    buy(shop, "r2", 40_000)
    assert all(each["possible"] for each in read(phone(shop), "/v1/me/rewards")["items"])


def test_a_reward_is_for_tiers_there_are_or_will_be(shop: Shop) -> None:
    wrong = [("#/tiers/1", "unknown_tier")]
    answer = add(shop, tiers=["gold", "ruby"])
    assert (refusal(answer), pointers(answer)) == ((422, "invalid_request"), wrong)
    mug = added(shop, tiers=["gold"])
    assert mug["tiers"] == ["gold"]
    assert pointers(change(shop, mug, 1, tiers=["gold", "ruby"])) == wrong
    ruby = SILVER | {"code": "ruby", "qualification": {"spend": 10**6}}
    later = shop.clock().replace(year=2027)
    publish(shop, YEARLY | {"tiers": {"levels": [SILVER, ruby]}}, later)
    assert change(shop, mug, 1, tiers=["gold", "ruby"]).status_code == 200
    shop.clock.now = later
    assert pointers(change(shop, mug, 2, tiers=["gold", "ruby"])) == [("#/tiers/0", "unknown_tier")]


def pointers(answer: Any) -> list[tuple[str, str]]:
    return [(each["pointer"], each["code"]) for each in answer.json()["errors"]]


def test_a_file_has_rewards_for_its_own_tiers() -> None:
    document = {"program": {"code": "shop", "name": "Shop"}, "terms": YEARLY, "rewards": [MUG | {"tiers": ["gold"]}]}
    assert Blueprint.model_validate(document).rewards[0].tiers == ["gold"]
    with pytest.raises(ValidationError, match="unknown_tier"):
        Blueprint.model_validate(document | {"terms": YEARLY | {"tiers": None}})


def test_only_rewards_for_tiers_cost_a_look(shop: Shop) -> None:
    statements: list[str] = []

    def note(*call: Any) -> None:
        statements.append(call[2])

    added(shop)
    member = buy(shop, "r1", 200_000)["member"]["id"]
    for engine in shop.database.engines:
        event.listen(engine, "before_cursor_execute", note)
    ordered(shop, member)
    assert read(phone(shop), "/v1/me/rewards")["items"]
    assert not [each for each in statements if "member_tier" in each]
    added(shop, **LOUNGE)
    ordered(shop, member, "lounge")
    assert len([each for each in statements if "member_tier" in each]) == 1
    for engine in shop.database.engines:
        event.remove(engine, "before_cursor_execute", note)
