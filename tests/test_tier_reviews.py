"""The job that reviews tiers: writes down what time did, once, at its own instant; warns ahead; in sets."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from app.tiers.models import TierChange
from app.worker import run_jobs
from tests.conftest import settings_for
from tests.points import publish
from tests.shop import Shop, TestClock, open_shop, purchase
from tests.test_tiers import GOLD, SILVER, YEARLY, buy, check_history, code, events, history, stored, tier, until

WARNING = YEARLY | {"tiers": {"levels": [SILVER, GOLD], "warn_days": [30, 7]}}


@pytest.fixture
def shop(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, WARNING) as shop:
        yield shop
        check_history(shop)
        shop.prove()


def reviewed(shop: Shop) -> int:
    return run_jobs(shop.database, shop.clock())["review-tiers"]


def test_what_time_did_is_written_once_at_its_instant(shop: Shop) -> None:
    buy(shop, "r1", 100_000)
    buy(shop, "r2", 60_000, card="901")
    assert reviewed(shop) == 0
    until(shop, "2028-01-05")
    assert (reviewed(shop), reviewed(shop)) == (2, 0)
    assert history(shop) == [(None, "gold", "earned"), ("gold", None, "review")]
    told = events(shop, "member.tier_downgraded")
    assert [each["at"] for each in told] == ["2028-01-01T05:00:00+00:00"] * 2
    buy(shop, "r3", 100)
    assert stored(shop, TierChange) == 4


def test_whose_fall_has_been_put_off_is_warned_of_the_other(database_url: str, clock: TestClock) -> None:
    """The day to warn of it comes before anybody has looked again: late is better than never."""
    monthly = {"levels": [SILVER], "window": {"type": "rolling", "months": 1}, "warn_days": [30]}
    with open_shop(settings_for(database_url), clock, YEARLY | {"tiers": monthly}) as shop:
        buy(shop, "r1", 60_000)
        until(shop, "2026-12-06")
        buy(shop, "r2", 60_000)
        for day in ("2026-12-08", "2026-12-23", "2026-12-24", "2027-01-05"):
            until(shop, day)
            reviewed(shop)
        (told,) = events(shop, "member.tier_will_downgrade")
        assert told["at"] == "2027-01-06T05:00:00+00:00"
        check_history(shop)


def test_members_are_warned_ahead_once_a_day_named(shop: Shop) -> None:
    """With what is missing; and not any more when that was bought."""
    buy(shop, "r1", 50_000)
    for day, warnings in (
        ("2027-11-30", 0),
        ("2027-12-02", 1),
        ("2027-12-03", 1),
        ("2027-12-25", 2),
        ("2027-12-31", 2),
    ):
        until(shop, day)
        reviewed(shop)
        assert len(events(shop, "member.tier_will_downgrade")) == warnings, day
    told = {"from": "silver", "to": None, "at": "2028-01-01T05:00:00+00:00", "keep": {"spend": 50_000}}
    assert events(shop, "member.tier_will_downgrade") == [told, told]


def test_nobody_is_warned_who_has_bought_enough_meanwhile(shop: Shop) -> None:
    buy(shop, "r1", 50_000)
    until(shop, "2027-10-01")
    buy(shop, "r2", 50_000)
    until(shop, "2027-12-25")
    reviewed(shop)
    assert (events(shop, "member.tier_will_downgrade"), tier(shop)["until"]) == ([], "2029-01-01T05:00:00+00:00")


def test_a_purchase_that_comes_first_warns_too(shop: Shop) -> None:
    """Whoever comes first, a job or a purchase."""
    buy(shop, "r1", 50_000)
    until(shop, "2027-12-25")
    buy(shop, "r2", 100)
    reviewed(shop)
    assert [each["keep"] for each in events(shop, "member.tier_will_downgrade")] == [{"spend": 49_900}]


def test_other_terms_are_written_down(shop: Shop) -> None:
    buy(shop, "r1", 90_000)
    buy(shop, "r2", 100, card="901")
    pearl: dict[str, Any] = {"code": "pearl", "name": "Pearl", "qualification": {"spend": 80_000}}
    reviewed(shop)
    publish(shop, WARNING | {"tiers": {"levels": [SILVER, pearl, GOLD]}}, shop.clock() + timedelta(hours=1))
    shop.clock.forward(hours=2)
    assert (reviewed(shop), reviewed(shop)) == (2, 0)
    assert history(shop) == [(None, "silver", "earned"), ("silver", "pearl", "terms")]
    publish(shop, WARNING | {"tiers": {"levels": [SILVER, pearl, GOLD]}, "holds": {"default_minutes": 5}})
    shop.clock.forward(hours=2)
    assert reviewed(shop) == 0
    assert code(shop) == "pearl"


def test_reviews_work_in_sets(shop: Shop) -> None:
    """As many statements for many members as for few."""

    def statements() -> int:
        made: list[str] = []

        def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            made.append(statement)

        event.listen(shop.database.engine, "before_cursor_execute", count)
        reviewed(shop)
        event.remove(shop.database.engine, "before_cursor_execute", count)
        return len(made)

    few = []
    for year, many in ((2026, 3), (2028, 40)):
        until(shop, f"{year}-06-01")
        now = shop.clock().isoformat()
        for _ in range(1):
            shop.batch(
                [purchase(f"{year}-{n}", 60_000, member={"card": f"{year}-{n}"}, occurred_at=now) for n in range(many)]
            )
        run_jobs(shop.database, shop.clock())
        until(shop, f"{year + 2}-01-02")
        few.append(statements())
    assert few[0] == few[1]
