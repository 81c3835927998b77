"""Hand-written SQL on SQLite: a loop of prepared statements in one process, as there is one writer."""

import itertools
import sqlite3
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import make_url

from app.ids import new_id
from benchmarks.baseline import FOLDER, statements
from benchmarks.shop import card

Decided = Mapping[str, Any]
SUMS = ("allocated", "residue", "points", "expected")


def connect(url: str) -> sqlite3.Connection:
    """As durable as the service's own connections."""
    connection = sqlite3.connect(str(make_url(url).database), timeout=30, isolation_level=None)
    connection.row_factory = sqlite3.Row
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def baskets(url: str) -> list[dict[str, Any]]:
    """What the service decided for the real baskets posted to it."""
    connection = connect(url)
    rows = connection.execute((FOLDER / "baskets.sql").read_text()).fetchall()
    connection.close()
    return [dict(row) for row in rows if row["source"] == "bench"]


class Loop:
    """Writes purchases, so many per transaction."""

    def __init__(self, url: str, decided: Sequence[Decided], members: int, size: int) -> None:
        self._connection = connect(url)
        self._purchase = list(statements((FOLDER / "sqlite" / "purchase.sql").read_text()))
        self._change = list(statements((FOLDER / "sqlite" / "change.sql").read_text()))
        self._decided = itertools.cycle(decided)
        self._members, self._size = members, size
        self._numbers = itertools.count(1)

    def run(self, _clients: int, seconds: float) -> float:
        """Purchases per second."""
        start, done = time.perf_counter(), 0
        while time.perf_counter() < start + seconds:
            self.commit()
            done += self._size
        return done / (time.perf_counter() - start)

    def commit(self) -> None:
        """One transaction."""
        items = list(itertools.islice(self._decided, self._size))
        self._connection.execute("BEGIN IMMEDIATE")
        for item in items:
            self._execute(self._purchase, dict(item) | self._own())
        sums = {name: sum(item[name] for item in items) for name in SUMS}
        self._execute(self._change, dict(items[0]) | self._own() | sums)
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

    def _own(self) -> dict[str, str]:
        """What is new in each purchase."""
        number, transaction_id = next(self._numbers), new_id()
        names = ("entry_id", "lot_id", "posting_id", "event_id", "change_id")
        return {name: new_id().hex for name in names} | {
            "transaction_id": transaction_id.hex,
            "transaction_text": str(transaction_id),
            "external_id": f"sql-{number:012}",
            "card": card(number * 7919 % self._members + 1),
            "now": datetime.now(UTC).isoformat(timespec="microseconds"),
        }

    def _execute(self, script: Sequence[tuple[str, bool]], given: dict[str, Any]) -> None:
        for statement, kept in script:
            found = self._connection.execute(statement, given)
            if kept:
                given |= dict(found.fetchone())
