"""A return of points that have expired costs nothing, whether or not anybody had written the expiry down."""

from datetime import datetime

import pytest

from tests.conftest import Engines, settings_for
from tests.shop import TERMS, TestClock, open_shop, purchase, returned


@pytest.mark.parametrize("written", [True, False])
def test_expired_points_leave_no_debt(engines: Engines, engine: str, written: bool) -> None:
    terms = TERMS | {"expiry": {"days": 5, "round_up_to": "day"}}
    with open_shop(settings_for(engines.fresh(engine)), TestClock(), terms) as shop:
        member = shop.post(purchase("r1")).json()["member"]["id"]
        shop.clock.now = datetime.fromisoformat("2026-12-01T12:00:00Z")
        if written:  # anything that happens to the account writes it down
            assert shop.post(purchase("r2", total=100, occurred_at="2026-12-01T11:00:00Z")).status_code == 201
            assert shop.post(returned("b2", "r2", occurred_at="2026-12-01T11:30:00Z")).status_code == 201
        back = shop.post(returned("b1", "r1", occurred_at="2026-12-01T11:00:00Z")).json()
        assert (back["returned"]["taken_back"], back["returned"]["expired"], back["returned"]["debt"]) == (10, 10, 0)
        assert set(shop.get(f"/v1/members/{member}/balance")["balance"].values()) == {0}
        shop.prove()
