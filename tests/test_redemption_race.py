"""1,000 redemptions at once of a balance worth 500, over HTTP against two server processes: exactly 500 succeed."""

from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, tzinfo
from functools import partial
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app import ledger
from app.ids import new_id
from app.ledger.models import PointAccount
from app.ledger.queries import load_accounts
from tests.conftest import Engines
from tests.shop import Shop, purchase
from tests.test_real_baskets import Served, served

CONNECTIONS = 20
POINTS = 500
REWARD = {"code": "mint", "name": "Mint", "points": 1, "supplier": {"type": "own", "cost": 2}, "currency": "USD"}
ORDER = {"member": {"card": "900"}, "reward": {"code": "mint"}, "immediate": True}


def redeem(shop: Served, number: int) -> list[tuple[int, str]]:
    """One connection's share of the redemptions, each with a key of its own, sent again while the service is busy."""
    answers = []
    with shop.till() as http:
        for _ in range(number):
            key = {"Idempotency-Key": new_id().hex}
            while "Retry-After" in (answer := http.post("/v1/redemptions", json=ORDER, headers=key)).headers:
                pass  # busy: nothing was decided yet
            answers.append((answer.status_code, answer.json().get("code", "")))
    return answers


def stock(http: httpx.Client) -> None:
    sale = purchase("r1", POINTS * 100, occurred_at=datetime.now(UTC).isoformat(timespec="seconds"))
    assert http.post("/v1/transactions", json=sale).status_code == 201
    assert http.post("/v1/rewards", json=REWARD).status_code == 201


def test_a_thousand_redemptions_of_five_hundred_points(engines: Engines, engine: str) -> None:
    with served(engines, engine) as shop:
        with shop.till() as http:
            stock(http)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            shares = pool.map(partial(redeem, shop), [1000 // CONNECTIONS] * CONNECTIONS)
            answers = Counter(answer for share in shares for answer in share)
        assert answers == {(201, ""): POINTS, (422, "insufficient_points"): 1000 - POINTS}
        with shop.database.engine.connect() as connection:
            left = connection.execute(text("SELECT sum(remaining) FROM lot")).scalar_one()
            orders = connection.execute(text("SELECT count(*) FROM redemption")).scalar_one()
        assert (left, orders) == (0, POINTS)
        shop.state()


def naive_claim(
    session: Session,
    member_ids: Collection[UUID],
    now: datetime,
    zone: tzinfo,
    lots: Collection[UUID] = (),
    needs: Mapping[UUID, ledger.Need] | None = None,
) -> dict[UUID, ledger.Account]:
    """The mistake: reads, then checks, then writes, and nobody is kept out meanwhile."""
    accounts = session.scalars(select(PointAccount).where(PointAccount.member_id.in_(member_ids))).all()
    return load_accounts(session, accounts, now, zone, lots, needs or {})


def test_read_check_write_without_the_lock_is_refused_by_the_database(
    ungathered: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control. Without the lock two redemptions see the same points: the unique number of an entry is
    what then keeps the second from being written, as a defect (500) and not as an answer. On SQLite writers take
    turns by themselves."""
    shop = ungathered
    if shop.database.engine.dialect.name == "sqlite":
        pytest.skip("the transaction itself is the lock")
    shop.post(purchase("r1", 2000))
    assert shop.http.post("/v1/rewards", json=REWARD).status_code == 201
    monkeypatch.setattr(ledger, "claim", naive_claim)
    # an order that took its points by adding to what it had read would have been lost without a trace
    with ThreadPoolExecutor(8) as pool:
        keys = [{"Idempotency-Key": new_id().hex} for _ in range(80)]
        statuses = Counter(
            answer.status_code
            for answer in pool.map(lambda key: shop.http.post("/v1/redemptions", json=ORDER, headers=key), keys)
        )
    assert statuses[500] > 0, "the race did not happen"
    assert statuses[201] <= 20
    shop.prove()
