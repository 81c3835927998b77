"""12,721 real baskets over HTTP against two server processes: in order, again, and as tills really send them."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.baskets import batches, purchase_body, read_baskets
from app.config import Settings
from app.db import Database
from app.demo import SAMPLE, free_port, post_batch, serving
from app.insight import prove
from app.worker import run_jobs
from tests.conftest import Engines, settings_for
from tests.shop import FOREVER, make_key, make_program

FULL = Path(__file__).parents[2] / "shared" / "data" / "pos-2017-01.jsonl.gz"
DATA = FULL if FULL.exists() else SAMPLE
"""All of January 2017 where it lies beside the repository; else the sample that ships with it."""


class Served:
    """The service as two processes on a database of its own, and a till's connection to it."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.database = Database(settings)
        now = datetime.now(UTC)

        def furnish(session: Session) -> str:
            return make_key(session, "staff", now, make_program(session, FOREVER, now))

        self.key = self.database.write(furnish)

    @contextmanager
    def till(self) -> Iterator[httpx.Client]:
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{self.settings.port}", headers=headers, timeout=120) as http:
            yield http

    def state(self) -> dict[str, list[Any]]:
        """What came of it: final balances and lots by card, and the journal's totals, in exact figures."""
        statements = {
            "balances": """
                SELECT i.value, a.available, a.qualifying, a.lifetime, a.last_entry
                FROM point_account a JOIN member_identifier i ON i.member_id = a.member_id ORDER BY 1""",
            "lots": """
                SELECT i.value, t.external_id, l.granted, l.remaining, l.allocated, l.residue, l.expected
                FROM lot l JOIN member_identifier i ON i.member_id = l.member_id
                JOIN "transaction" t ON t.id = l.document_id ORDER BY 1, 2""",
            "journal": """
                SELECT debit, credit, currency, cause, CAST(period AS VARCHAR(10)), count(*), sum(amount)
                FROM journal_posting GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2""",
            "cohorts": """
                SELECT CAST(month AS VARCHAR(10)), estimate_class, allocated, residue, issued, expected
                FROM cohort ORDER BY 1, 2""",
        }
        run_jobs(self.database, datetime.now(UTC))
        proof = self.database.read(prove)
        assert proof.holds, [check for check in proof.checks if check.differences]
        with self.database.engine.connect() as connection:
            return {
                name: [[str(value) for value in row] for row in connection.execute(text(statement))]
                for name, statement in statements.items()
            }


@contextmanager
def served(engines: Engines, engine: str) -> Iterator[Served]:
    shop = Served(settings_for(engines.fresh(engine), port=free_port(), workers=2))
    try:
        with serving(shop.settings):
            yield shop
    finally:
        shop.database.close()


def points_of(basket: dict[str, Any]) -> int:
    """One point per whole dollar of the lines that had a quantity, straight from the data."""
    earning: int = sum(line["sales"] for line in basket["lines"] if line["quantity"] != 0)
    return earning // 100


@pytest.fixture(scope="module")
def baskets() -> list[dict[str, Any]]:
    return list(read_baskets(DATA))


def test_all_baskets_in_order_then_again_then_as_tills_send_them(
    engines: Engines, engine: str, baskets: list[dict[str, Any]]
) -> None:
    bodies = [purchase_body(basket) for basket in baskets]
    expected = {basket["basket_id"]: points_of(basket) for basket in baskets}

    with served(engines, engine) as shop, shop.till() as http:
        first = [result for batch in batches(bodies) for result in post_batch(http, batch)]
        assert [result["status"] for result in first] == [201] * len(bodies)
        assert {result["transaction"]["external_id"]: _earned(result) for result in first} == expected
        in_order = shop.state()

        again = [result for batch in batches(bodies) for result in post_batch(http, batch)]
        assert [result["status"] for result in again] == [200] * len(bodies)
        assert all(result["transaction"]["duplicate"] for result in again)
        assert [_lasting(result) for result in again] == [_lasting(result) for result in first]
        assert shop.state() == in_order

    with served(engines, engine) as shop:
        statuses = _in_three_overlapping_streams(shop, bodies)
        assert statuses.count(201) == len(bodies), "each basket was recorded exactly once"
        assert set(statuses) == {200, 201}
        assert shop.state() == in_order


def _in_three_overlapping_streams(shop: Served, bodies: list[dict[str, Any]]) -> list[int]:
    """Shuffled; two baskets of five go out in a second stream too, one batch of ten twice. Answers all statuses."""
    chance = random.Random(20170101)
    streams: list[list[dict[str, Any]]] = [[], [], []]
    for body in bodies:
        chosen = chance.sample(streams, 2 if chance.random() < 0.4 else 1)
        for stream in chosen:
            stream.append(body)

    def send(stream: list[dict[str, Any]], seed: int) -> list[int]:
        order = random.Random(seed)
        order.shuffle(stream)
        statuses: list[int] = []
        with shop.till() as http:
            for batch in batches(stream, items=120):
                for _ in range(2 if order.random() < 0.1 else 1):
                    statuses += _send(http, batch)
        return statuses

    with ThreadPoolExecutor(3) as pool:
        return [status for part in pool.map(send, streams, range(3)) for status in part]


def _send(http: httpx.Client, batch: list[dict[str, Any]]) -> list[int]:
    """Statuses of a batch; items that another stream is working on are sent again, as a till does."""
    results = post_batch(http, batch)
    waiting = [body for body, result in zip(batch, results, strict=True) if result["status"] == 409]
    settled = [result["status"] for result in results if result["status"] != 409]
    assert all(result["problem"]["code"] == "idempotency_in_progress" for result in results if result["status"] == 409)
    return settled + (_send(http, waiting) if waiting else [])


def _earned(result: dict[str, Any]) -> int:
    points: int = result["transaction"]["points"]["earned"]
    return points


def _lasting(result: dict[str, Any]) -> dict[str, Any]:
    """What a duplicate is answered as the first time: all but today's balance."""
    today = ("duplicate", "balance", "balance_at", "expiring_next")
    return {name: value for name, value in result["transaction"].items() if name not in today}


def test_fifty_identical_purchases_at_once_accrue_once(engines: Engines, engine: str) -> None:
    """Fifty connections at two processes, the same receipt in each: one 201, everybody else is told so."""
    body = next(purchase_body(basket) for basket in read_baskets(SAMPLE) if points_of(basket))
    with served(engines, engine) as shop:

        def post(_: int) -> tuple[int, bool]:
            with shop.till() as http:
                while (response := http.post("/v1/transactions", json=body)).status_code in (409, 503):
                    assert response.json()["code"] in ("idempotency_in_progress", "busy")
                return response.status_code, response.json()["duplicate"]

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(post, range(50)))
        assert answers.count((201, False)) == 1
        assert answers.count((200, True)) == 49
        with shop.database.engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM point_entry")).scalar_one() == 1
            assert connection.execute(text('SELECT count(*) FROM "transaction"')).scalar_one() == 1
        shop.state()
