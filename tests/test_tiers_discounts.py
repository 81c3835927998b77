"""Discounts of tiers: told before the purchase they are for; the best holds, and what adds nothing is flagged."""

from typing import Any

from tests.conftest import settings_for
from tests.shop import TestClock, open_shop
from tests.test_tiers import SILVER, YEARLY, buy, tier

FIVE = {"code": "five", "name": "Five percent", "kind": "hard", "discount": "5"}
SEVEN = {"code": "seven", "name": "Seven and a half", "kind": "hard", "discount": "7.5"}
LOUNGE = {"code": "lounge", "name": "A quiet room", "kind": "soft"}
LEVEL: dict[str, Any] = SILVER | {"benefits": [FIVE, LOUNGE, SEVEN]}


def test_a_discount_from_five_hundred_a_year_on(database_url: str, clock: TestClock) -> None:
    """It is for the purchases after the one that reached it."""
    with open_shop(settings_for(database_url), clock, YEARLY | {"tiers": {"levels": [LEVEL]}}) as shop:
        assert buy(shop, "r1", 50_000)["discounts"] == []
        five, seven = FIVE | {"adds_nothing": True}, SEVEN | {"adds_nothing": False}
        for dry_run in (True, False):
            assert buy(shop, "r2", 1_000, dry_run=dry_run)["discounts"] == [five, seven]
        lounge = LOUNGE | {"discount": None, "adds_nothing": False}
        assert tier(shop)["tier"]["benefits"] == [five, lounge, seven]
        shop.prove()


def test_of_a_tiers_and_a_clubs_discount_one_adds_nothing(database_url: str, clock: TestClock) -> None:
    ten = {"code": "ten", "name": "Ten percent", "kind": "hard", "discount": "10"}
    club = {"code": "friends", "name": "Friends", "joining": {"type": "purchase"}, "benefits": [ten]}
    with open_shop(settings_for(database_url), clock, YEARLY | {"tiers": {"levels": [LEVEL]}, "clubs": [club]}) as shop:
        buy(shop, "r1", 50_000)
        told = buy(shop, "r2", 1_000)["discounts"]
        assert [(each["code"], each["adds_nothing"]) for each in told] == [
            ("five", True),
            ("seven", True),
            ("ten", False),
        ]
        assert buy(shop, "r2", 1_000)["discounts"] == told, "the same again"
        shop.prove()
