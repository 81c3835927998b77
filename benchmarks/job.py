"""`python -m benchmarks.job NAME`: does one job of the service in a process of its own and says what it took.

The database is that of `DATABASE_URL`. Prints JSON: seconds, without starting up, and megabytes at the most.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session, configure_mappers

from app import insight, telemetry, worker
from app.clock import system_clock
from app.config import Settings
from app.db import Database
from app.garbage import collect_rarely
from app.programs import every_program, timeline, zone_at
from app.wallet.schemas import statement_page
from app.wallet.statements import recipients, statements

SLICE = 500
"""Statements read at a time: the largest page that users get."""


def main(name: str) -> None:
    settings = Settings().for_jobs()
    telemetry.configure_logging(settings.log_level)
    database = Database(settings)
    _start_up(database)
    start = time.perf_counter()
    JOBS[name](database)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "megabytes": _most_megabytes()}))


def _start_up(database: Database) -> None:
    """What a worker has behind it after its first round: it is connected and has read the terms."""
    configure_mappers()
    for program_id in database.read(every_program):
        database.read(partial(timeline, program_id=program_id))
    collect_rarely()


def _most_megabytes() -> float:
    """Linux hands `ru_maxrss` down from the process that started this one; its own figure is in /proc."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def _worker(name: str) -> Callable[[Database], None]:
    def job(database: Database) -> None:
        ended = worker.run(database, name, worker.JOBS[name], datetime.now(UTC), system_clock)
        if ended is None or ended.status != "done" or ended.failures:
            raise RuntimeError(f"{name} did not end well: {ended}")

    return job


def _prove(database: Database) -> None:
    if not database.read(insight.prove).holds:
        raise RuntimeError("the proof does not hold")


def _statements(database: Database) -> None:
    """Those of the month before this one, as JSON: what a partner reads who mails them all."""
    now = datetime.now(UTC)
    (program_id,) = database.read(every_program)
    today = now.astimezone(database.read(lambda session: zone_at(session, program_id, now))).date()
    month = f"{today.replace(day=1) - timedelta(days=1):%Y-%m}"

    def read(session: Session, after: UUID | None) -> Sequence[UUID]:
        ids = recipients(session, program_id, month, now, after, SLICE)
        statement_page(statements(session, program_id, ids, month, now), None).model_dump_json()
        return ids

    ids = database.read(partial(read, after=None))
    while ids:
        ids = database.read(partial(read, after=ids[-1]))


JOBS: dict[str, Callable[[Database], None]] = {
    "expiry": _worker("settle"),
    "recognition": _worker("fold-cohorts"),
    "proof": _prove,
    "review": _worker("review-tiers"),
    "statements": _statements,
}

if __name__ == "__main__":
    main(sys.argv[1])
