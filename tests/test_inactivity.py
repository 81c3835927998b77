"""Points that lapse by inactivity, through the service."""

from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from tests.conftest import Engines, settings_for
from tests.points import publish
from tests.shop import TERMS, TestClock, open_shop, purchase, returned


def test_an_activity_puts_off_the_lapse(engines: Engines, engine: str) -> None:
    """At the first date nothing happens, at the second all of them go: those of both purchases."""
    terms = TERMS | {"expiry": {"mode": "inactivity", "days": 6, "round_up_to": "day"}}
    with open_shop(settings_for(engines.fresh(engine)), TestClock(), terms) as shop:
        member = shop.post(purchase("r1")).json()["member"]["id"]
        shop.clock.forward(days=2)
        shop.post(purchase("r2", occurred_at="2026-11-24T11:00:00Z"))
        shop.prove()
        seen = {}
        for instant in ("2026-11-29T05:00:00Z", "2026-12-01T04:59:59Z", "2026-12-01T05:00:00Z"):
            shop.clock.now = datetime.fromisoformat(instant)
            seen[instant] = shop.get(f"/v1/members/{member}/balance")["balance"]["available"]
        assert list(seen.values()) == [20, 20, 0]


EXPIRIES: list[dict[str, Any] | None] = [
    None,
    *(
        {"months": months, "round_up_to": period, **mode}
        for months in (1, 3, 6)
        for period in ("day", "month")
        for mode in (dict[str, str](), {"mode": "inactivity"})
    ),
]


@pytest.mark.parametrize("seed", range(4))
def test_what_a_receipt_says_expires_next_is_what_the_balance_says(engines: Engines, engine: str, seed: int) -> None:
    """Points that have an end of their own, beside points that lapse, and a purchase that puts off the lapse alone."""
    random = Random(seed)
    with open_shop(settings_for(engines.fresh(engine)), TestClock()) as shop:
        for number in range(60):
            shop.clock.forward(days=random.choice([0, 0, 1, 7, 30]), minutes=1)
            if random.random() < 0.15:
                publish(shop, TERMS | {"expiry": random.choice(EXPIRIES)})
            body = purchase(f"p{number}", random.randrange(100, 3000), occurred_at=shop.clock().isoformat())
            if number > 3 and random.random() < 0.25:
                of, at = f"p{random.randrange(number)}", body["occurred_at"]
                body = returned(f"b{number}", of, occurred_at=at, total=100)
            answer = shop.post(body).json()
            if answer.get("member") is not None:
                read = shop.get(f"/v1/members/{answer['member']['id']}/balance")
                assert _next(answer) == _next(read)
        shop.prove()


def _next(answer: dict[str, Any]) -> tuple[int, datetime] | None:
    told = answer["expiring_next"]
    return None if told is None else (told["points"], datetime.fromisoformat(told["at"]).astimezone(UTC))
