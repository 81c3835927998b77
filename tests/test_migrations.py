"""Rows written under an older schema, carried to the newer one and back."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Uuid, column, insert, select, table
from sqlalchemy.exc import DatabaseError

from app import schema
from app.db import Database, Instant
from tests.conftest import Engines, settings_for

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PROGRAM, COHORT, CHANGE, POSTING, DOCUMENT = (UUID(int=number) for number in range(1, 6))
KEY = {
    "program_id": PROGRAM,
    "currency": "USD",
    "month": date(2026, 11, 1),
    "funding": "purchase",
    "estimate_class": "1",
}

ROWS: dict[str, list[dict[str, Any]]] = {
    "program": [{"id": PROGRAM, "code": "shop", "name": "Shop", "created_at": NOW}],
    "account": [
        {"program_id": PROGRAM, "code": code, "role": code, "name": code, "kind": "L"} for code in ("2100", "4000")
    ],
    "cohort": [{"id": COHORT, **KEY, "allocated": 8, "residue": -3, "issued": 10, "expected": 7_654_321}],
    "cohort_change": [
        {"id": CHANGE, "cohort_id": COHORT, **KEY, "recorded_at": NOW}
        | {"allocated": 5, "residue": 2, "issued": 6, "expected": 4_000_001}
    ],
    "journal_posting": [
        {
            "id": POSTING,
            "program_id": PROGRAM,
            "debit": "4000",
            "credit": "2100",
            "amount": 13,
            "currency": "USD",
            "cause": "accrual",
            "cohort_id": COHORT,
            "document_id": DOCUMENT,
            "occurred_at": NOW,
            "recorded_at": NOW,
            "period": date(2026, 11, 1),
        }
    ],
}
"""A row of each table that revision 0002 changes, as revision 0001 has them."""

TYPES: dict[str, Any] = {"created_at": Instant(), "recorded_at": Instant(), "occurred_at": Instant()}


def columns_of(row: dict[str, Any]) -> list[Any]:
    return [column(name, Uuid() if isinstance(value, UUID) else TYPES.get(name)) for name, value in row.items()]


def read(database: Database, name: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table, as far as `row` has columns."""
    chosen = columns_of(row)
    with database.engine.connect() as connection:
        found = connection.execute(select(*chosen).select_from(table(name, *chosen))).mappings()
        return [{name: _plain(value) for name, value in one.items()} for one in found]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value


def expect(database: Database, name: str, row: dict[str, Any]) -> None:
    assert read(database, name, row) == [{column: _plain(value) for column, value in row.items()}]


@pytest.fixture
def old(engines: Engines, engine: str) -> Iterator[Database]:
    """A database of revision 0001 with `ROWS`."""
    database = Database(settings_for(engines.empty(engine)))
    schema.migrate(database, "0001")
    with database.engine.begin() as connection:
        for name, rows in ROWS.items():
            connection.execute(insert(table(name, *columns_of(rows[0]))), rows)
    yield database
    database.close()


def downgrade(database: Database, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "migrations")
    config.attributes["engine"] = database.engine
    command.downgrade(config, revision)


def test_cohorts_and_postings_are_carried_to_recognition_and_back(old: Database) -> None:
    schema.migrate(old, "0002")
    (cohort,), (change,), (posting,) = ROWS["cohort"], ROWS["cohort_change"], ROWS["journal_posting"]
    none = {"used": 0, "expired": 0}
    expect(
        old,
        "cohort",
        cohort | none | {"expected": 7, "expected_millionths": 654_321, "recognised": 0, "estimate": "1"},
    )
    accrual = {"cause": "accrual", "period": KEY["month"], "occurred_at": NOW, "used_as_agent": 0}
    expect(old, "cohort_change", change | none | accrual | {"expected": 4, "expected_millionths": 1})
    expect(old, "journal_posting", posting)
    downgrade(old, "0001")
    for name in ("cohort", "cohort_change", "journal_posting"):
        expect(old, name, ROWS[name][0])


def test_what_the_older_schema_has_no_place_for_stops_the_way_back(old: Database) -> None:
    schema.migrate(old, "0002")
    (posting,) = ROWS["journal_posting"]
    release = posting | {"id": UUID(int=9), "cause": "redemption", "document_id": COHORT}
    with old.engine.begin() as connection:
        connection.execute(insert(table("journal_posting", *columns_of(release))), [release])
    with pytest.raises(DatabaseError, match=r"(?i)check"):
        downgrade(old, "0001")
    assert len(read(old, "journal_posting", posting)) == 2
