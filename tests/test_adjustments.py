"""Adjustments: points without a purchase, for a failed order, corrections; debt, extension, reinstatement; approval."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from app import accounting, ledger
from app.ids import new_id
from app.ledger import Act
from app.worker import run_jobs
from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, make_key, open_shop, purchase, returned, voided

ADJUSTING = TERMS | {
    "point_cost": {"amount": 4, "points": 5},
    "point_value": {"amount": 2, "points": 1},
    "adjustments": {"limit": 1000, "limits": {"trainee": 20, "lead": 5000}},
}
"""A point costs 0.008 and is worth 0.02; four of five are used; above 1,000 points a second person approves."""

_numbers = count()


def key() -> dict[str, str]:
    return {"Idempotency-Key": f"k{next(_numbers)}"}


@dataclass(frozen=True, slots=True)
class Desk:
    """Where staff adjust points: Ann asks, Bob approves, Tom is a trainee. The member with card 900 has 100 points."""

    shop: Shop
    member: str
    ann: TestClient
    bob: TestClient
    tom: TestClient

    def staff(self, person: str | None, **options: Any) -> TestClient:
        """One more key, of a client of its own."""
        shop = self.shop
        return shop.client(
            shop.database.write(
                lambda session: make_key(session, "staff", shop.clock(), shop.program_id, person=person, **options)
            )
        )

    def ask(self, who: TestClient | None = None, *, dry_run: bool = False, **changes: Any) -> Any:
        body = {"member": {"card": "900"}, "points": 500, "class": "goodwill", "reason": "sorry"} | changes
        body = {name: value for name, value in body.items() if value is not None}
        return (who or self.ann).post("/v1/adjustments", json=body, headers=key(), params={"dry_run": dry_run})

    def concede(self, points: int = 500, order: str = "r1", **changes: Any) -> Any:
        named = {"source": "store-1", "external_id": order}
        consent = {"consent": "2026-11-22T06:45:00-05:00"}
        return self.ask(**{"points": points, "class": "concession", "order": named} | consent | changes)

    def end(self, id_: str, how: str, who: TestClient | None = None, **query: Any) -> Any:
        body = {"reason": "too_much"} if how == "rejection" else None
        path = f"/v1/adjustments/{id_}/{how}"
        return (who or self.bob).post(path, json=body, headers=key(), params=query)

    def on_member(self, path: str, who: TestClient | None = None, **body: Any) -> Any:
        body = {"reason": "kindness"} | body
        return (who or self.ann).post(f"/v1/members/{self.member}/{path}", json=body, headers=key())

    def balance(self) -> dict[str, int]:
        found: dict[str, int] = self.shop.get(f"/v1/members/{self.member}/balance")["balance"]
        return found

    def available(self) -> int:
        return self.balance()["available"]

    def spend(self, points: int) -> None:
        """Points leave the account for a reward."""
        shop = self.shop

        def act(session: Any) -> None:
            from uuid import UUID

            member, now = UUID(self.member), shop.clock()
            from datetime import UTC

            account = ledger.claim(session, [member], now, UTC, [member])[member]
            account = ledger.spend(account, points, Act(shop.program_id, new_id(), now, now, UTC))
            ledger.write(session, [account], now)

        shop.database.write(act)

    def net(self) -> dict[str, int]:
        """Minor units by account code, debit positive, after recognition; accounts that come to nothing are absent."""
        accounting.fold(self.shop.database, self.shop.clock())
        rows = self.shop.get("/v1/accounting/trial-balance")["items"]
        return {row["code"]: row["balance"] for row in rows if row["balance"]}

    def lots(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.shop.get(f"/v1/members/{self.member}/lots")["items"]
        return found


@pytest.fixture
def desk(database_url: str, clock: TestClock) -> Iterator[Desk]:
    with open_shop(settings_for(database_url), clock, ADJUSTING) as shop:
        member = shop.post(purchase("r1", 10_000)).json()["member"]["id"]

        def client(person: str, **options: Any) -> TestClient:
            return shop.client(
                shop.database.write(
                    lambda session: make_key(session, "staff", clock(), shop.program_id, person=person, **options)
                )
            )

        yield Desk(shop, member, client("Ann"), client("Bob"), client("Tom", role="trainee"))
        shop.prove()


def test_goodwill(desk):
    r = desk.ask(); print(r.status_code, r.json())
    print(desk.net(), desk.balance())
    r = desk.concede(); print(r.status_code, r.json())
    print(desk.net(), desk.balance())
    r = desk.ask(points=2000); print(r.status_code, r.json())
    print(desk.shop.post(returned("b1", "r1", total=5000)).json())
    r = desk.end(r.json()["id"], "approval"); print(r.status_code, r.json())
    print(desk.lots(), desk.net())
    r=desk.on_member(f"lots/{desk.lots()[1]['id']}/extension", expires_at="2029-01-01T00:00:00Z");  print(r.status_code, r.json())
    print(desk.shop.get("/v1/adjustments", status="applied"))
    desk.shop.prove()
    assert 0
