"""Which rows an act wrote: so that hand-written SQL provably writes the same ones."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import main  # noqa: F401  # every table is known once the application is
from app.db import Base, Database

Row = dict[str, Any]
Tables = Mapping[str, Mapping[tuple[Any, ...], Row]]

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OWN = {"external_id", "key", "fingerprint", "body"}
"""Columns that differ from act to act by their nature."""


def snapshot(database: Database) -> Tables:
    """Every row of every table, by its key."""

    def read(session: Session) -> Tables:
        return {
            table.name: {
                tuple(row[column.name] for column in table.primary_key): dict(row)
                for row in session.execute(select(table)).mappings()
            }
            for table in Base.metadata.sorted_tables
        }

    return database.read(read)


def written(before: Tables, after: Tables) -> dict[str, list[tuple[Row | None, Row]]]:
    """By table, the rows that are new (None) or not as they were, each with what it was."""
    changed = {
        table: [(before[table].get(key), row) for key, row in rows.items() if before[table].get(key) != row]
        for table, rows in after.items()
    }
    return {table: rows for table, rows in changed.items() if rows}


def comparable(rows: Mapping[str, list[tuple[Row | None, Row]]]) -> dict[str, list[str]]:
    """What was written, without what differs from act to act: ids, instants, receipts' numbers."""
    return {
        table: sorted(f"{'new' if old is None else 'changed'} {_plain(row)}" for old, row in changes)
        for table, changes in rows.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "own" if name in _OWN else _plain(part) for name, part in sorted(value.items())}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, UUID) or (isinstance(value, str) and _ID.fullmatch(value)):
        return "id"
    return "instant" if isinstance(value, datetime) else value
