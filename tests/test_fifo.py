"""Lots of two months pay for one purchase: which points went, and what each month's cohort makes of it, to the cent."""

from collections.abc import Iterator

import pytest

from app import accounting
from tests.conftest import Engines, settings_for
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase

RULES = TERMS | {
    "earning": {"points": 1, "per": 1},
    "points_tender": {"value": {"amount": 1, "points": 1}},
    "expiry": {"days": 60, "round_up_to": "day"},
}
"""A point per cent, worth a cent; four of five are expected to be used; good for 60 days."""


@pytest.fixture
def shop(engines: Engines, engine: str) -> Iterator[Shop]:
    with open_shop(settings_for(engines.fresh(engine)), TestClock(), RULES) as shop:
        yield shop


def spend(shop: Shop, external_id: str, points: int) -> None:
    answer = shop.post(purchase(external_id, points, tenders=[{"type": "points", "amount": points}]))
    assert answer.status_code == 201, answer.text


def cohorts(shop: Shop) -> list[tuple[int, int, int, int]]:
    """Per month: allocated, used, expired, recognised; when all is folded."""
    accounting.fold(shop.database, shop.clock())
    shop.prove()
    found = sorted(shop.get("/v1/accounting/cohorts")["items"], key=lambda cohort: str(cohort["month"]))
    return [tuple(item[name] for name in ("allocated", "used", "expired", "recognised")) for item in found]


def test_the_older_month_pays_first_and_each_releases_its_own(shop: Shop) -> None:
    """October: 1,000 points of 10.00, for which 10.00 x 8 / 18 = 4.44 are put aside; November: 500 of 5.00, 2.22.

    Of 600 points used October releases 4.44 x 600 / 800. Of 600 more 400 are October's, whose last is gone with them,
    and 200 are November's: 2.22 x 200 / 400. What is left of November expires and takes the rest.
    """
    shop.post(purchase("november", 500))
    shop.post(purchase("october", 1000, occurred_at="2026-10-20T10:00:00-04:00"))
    assert cohorts(shop) == [(444, 0, 0, 0), (222, 0, 0, 0)]
    spend(shop, "first", 600)
    assert cohorts(shop) == [(444, 600, 0, 333), (222, 0, 0, 0)]
    spend(shop, "second", 600)
    assert cohorts(shop) == [(444, 1000, 0, 444), (222, 200, 0, 111)]
    shop.clock.forward(days=70)
    shop.post(purchase("later", 100, occurred_at=shop.clock().isoformat()))  # settles what has expired
    assert cohorts(shop)[:2] == [(444, 1000, 0, 444), (222, 200, 300, 222)]
