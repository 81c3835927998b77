"""The hand-written SQL of the benchmarks writes the rows that the service writes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from app.db import Database
from benchmarks import baseline, rows, shop
from benchmarks.shop import Shop
from tests.conftest import Engines

MEMBERS = 20


@dataclass(frozen=True, slots=True)
class Staged:
    shop: Shop
    database: Database
    bodies: list[dict[str, Any]]
    decided: list[dict[str, str]]

    def by_service(self, path: str, body: dict[str, Any], **headers: str) -> Any:
        before = rows.snapshot(self.database)
        with shop.in_process(self.shop) as http:
            http.post(path, json=body, headers=headers).raise_for_status()
        return rows.comparable(rows.written(before, rows.snapshot(self.database)))

    def by_sql(self, name: str, given: dict[str, str]) -> Any:
        before = rows.snapshot(self.database)
        with psycopg.connect(self.shop.url) as connection:
            baseline.run_once(connection, baseline.script(name, "18"), given)
        return rows.comparable(rows.written(before, rows.snapshot(self.database)))


@pytest.fixture
def staged(engines: Engines) -> Iterator[Staged]:
    made = shop.furnish(engines.empty("postgresql"))
    shop.add_members(made, MEMBERS)
    bodies = shop.spread(shop.baskets(made), 3)
    with shop.in_process(made) as http:
        shop.post_baskets(http, bodies)
    database = Database(made.settings)
    yield Staged(made, database, bodies, baseline.stage_baskets(made.url))
    assert shop.prove(made) == []
    database.close()


def test_purchase(staged: Staged) -> None:
    body = staged.bodies[1] | {"external_id": "by-service", "member": {"card": shop.card(1)}}
    by_service = staged.by_service("/v1/transactions", body)
    assert staged.by_sql("purchase", staged.decided[1] | {"number": "1", "member": "2"}) == by_service
    assert {"lot", "point_entry", "point_account", "journal_posting", "cohort_change", "outbox"} <= by_service.keys()


def test_batch(staged: Staged) -> None:
    own = [{"external_id": f"by-service-{number}", "member": {"card": shop.card(number)}} for number in (1, 2, 3)]
    bodies = [body | mine for body, mine in zip(staged.bodies, own, strict=True)]
    by_service = staged.by_service("/v1/transactions/batch", {"transactions": bodies})
    given = {"lowest": "3", "highest": "5", "members": str(MEMBERS), "baskets": "3", "prefix": "by-sql-"}
    assert staged.by_sql("purchases", given | {"program_id": str(staged.shop.program_id)}) == by_service
