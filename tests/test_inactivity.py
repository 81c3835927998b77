"""Points that lapse by inactivity, through the service."""

from datetime import datetime

from tests.conftest import Engines, settings_for
from tests.shop import TERMS, TestClock, open_shop, purchase


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
