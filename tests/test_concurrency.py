"""Many tills at once: one member, one new card, one guest's purchase. Gathered, or each in a transaction of its own."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, tzinfo
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ledger
from app.ledger.models import PointAccount
from app.ledger.queries import load_accounts
from tests.conftest import settings_for
from tests.shop import Shop, TestClock, open_shop, purchase

TILLS = 12


@pytest.fixture
def shop(database_url: str, clock: TestClock, crowded: dict[str, int]) -> Iterator[Shop]:
    with open_shop(settings_for(database_url, **crowded), clock) as shop:
        yield shop


def test_purchases_of_one_member_at_once_add_up(shop: Shop) -> None:
    shop.post(purchase("first", 100))
    with ThreadPoolExecutor(TILLS) as pool:
        answers = list(pool.map(lambda n: shop.post(purchase(f"r{n}", 100 * n)), range(1, 41)))
    assert {answer.status_code for answer in answers} == {201}
    member = answers[0].json()["member"]["id"]
    assert shop.get(f"/v1/members/{member}/balance")["balance"]["available"] == 1 + sum(range(1, 41))
    entries = shop.get(f"/v1/members/{member}/entries", limit=100)["items"]
    assert [entry["number"] for entry in entries] == list(range(41, 0, -1))
    balances = sorted(answer.json()["balance"]["available"] for answer in answers)
    assert len(set(balances)) == 40, "each answer shows the balance its own purchase left"
    shop.prove()


def test_a_new_card_at_many_tills_is_one_member(shop: Shop) -> None:
    with ThreadPoolExecutor(TILLS) as pool:
        answers = list(pool.map(lambda n: shop.post(purchase(f"r{n}")).json(), range(24)))
    assert len({answer["member"]["id"] for answer in answers}) == 1
    assert sum(answer["member"]["enrolled"] for answer in answers) == 1
    assert answers[0]["points"]["earned"] == 10
    shop.prove()


def test_one_guests_purchase_claimed_by_many_goes_to_one(shop: Shop) -> None:
    transaction_id = shop.post(purchase("g", member=None)).json()["id"]

    def claim(card: int) -> int:
        body = {"member": {"card": str(card)}}
        status: int = shop.http.post(f"/v1/transactions/{transaction_id}/claim", json=body).status_code
        return status

    with ThreadPoolExecutor(TILLS) as pool:
        statuses = Counter(pool.map(claim, range(TILLS)))
    assert statuses == {201: 1, 409: TILLS - 1}
    shop.prove()


def test_batches_that_cross_do_not_deadlock(shop: Shop) -> None:
    """The same receipts and members in opposite orders: everybody locks in one order, whatever order they came in."""
    bodies = [purchase(f"r{number}", member={"card": str(number % 7)}) for number in range(40)]

    def send(number: int) -> list[int]:
        order = bodies if number % 2 else bodies[::-1]
        return [result["status"] for result in shop.batch(order)]

    with ThreadPoolExecutor(6) as pool:
        statuses = Counter(status for part in pool.map(send, range(12)) for status in part)
    assert statuses[201] == 40
    assert set(statuses) == {200, 201}
    shop.prove()


def naive_claim(
    session: Session,
    member_ids: set[UUID],
    now: datetime,
    zone: tzinfo,
    lots: Collection[UUID] = (),
    needs: Mapping[UUID, ledger.Need] | None = None,
) -> dict[UUID, ledger.Account]:
    """The mistake: reads the account without locking it."""
    accounts = session.scalars(select(PointAccount).where(PointAccount.member_id.in_(member_ids))).all()
    return load_accounts(session, accounts, now, zone, lots, needs or {})


def test_without_the_lock_purchases_would_be_lost(ungathered: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: take the lock away and the database refuses the second writer, or its points are lost.

    SQLite needs no lock: its writers take turns by themselves.
    """
    shop = ungathered
    if shop.database.engine.dialect.name == "sqlite":
        pytest.skip("the transaction itself is the lock")
    shop.post(purchase("first", 100))
    monkeypatch.setattr(ledger, "claim", naive_claim)
    with ThreadPoolExecutor(TILLS) as pool:
        answers = list(pool.map(lambda n: shop.post(purchase(f"r{n}", 100)), range(60)))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[500] > 0, "two purchases numbered their entries alike, and the unique constraint refused one"
    shop.prove()
