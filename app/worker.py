"""The clock's door: jobs, run again and again. Each is safe to run twice, in two processes, and to kill half-way."""

import threading
from collections.abc import Callable
from datetime import datetime

import structlog

from app import accounting, idempotency
from app.clock import Clock
from app.db import Database


def _forget_keys(database: Database, now: datetime) -> int:
    return database.write(lambda session: idempotency.forget(session, now))


def _fold_cohorts(database: Database, now: datetime) -> int:
    return accounting.fold(database, now).changes


JOBS: dict[str, Callable[[Database, datetime], int]] = {
    "fold-cohorts": _fold_cohorts,
    "forget-idempotency-keys": _forget_keys,
}
"""Every job by name. A job answers how many rows it dealt with."""

SECONDS_BETWEEN_RUNS = 60.0


def run_jobs(database: Database, now: datetime) -> dict[str, int]:
    """Runs every job once. A job that fails is logged and leaves the others alone; it is absent from the answer."""
    done = {}
    for name, job in JOBS.items():
        try:
            done[name] = job(database, now)
        except Exception:
            structlog.get_logger().exception("job failed", job=name)
        else:
            structlog.get_logger().info("job done", job=name, rows=done[name])
    return done


def work(database: Database, clock: Clock, stop: threading.Event) -> None:
    """Runs the jobs every minute until `stop` is set."""
    while not stop.is_set():
        run_jobs(database, clock())
        stop.wait(SECONDS_BETWEEN_RUNS)
