"""What the worker does, against set-based SQL that does the same; each on copies of one database."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import psycopg
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect

from app.demo import TERMS
from app.insight import CHECKS
from benchmarks import baseline
from benchmarks.bench import OLD, SMALL, Bench, check_books
from benchmarks.figures.spending import ZONE
from benchmarks.report import Figure, Rounds, at_most
from benchmarks.server import settle_down
from benchmarks.shop import Shop

TOLD = 4_000
"""Members who get a statement."""

EXPIRED, OPEN = 5, 15
"""Lots of each of them."""

LIMIT_MB = 300.0
SLOWER = at_most(3)

Sql = Callable[[Bench, Shop], None]


def run(bench: Bench) -> list[Figure]:
    lots = bench.plan.lots
    figures = []
    with bench.fresh("due") as due:
        bench.purchases(due, lots, OLD)
        figures += _measured(bench, due, "expiry", f"expiry of {lots:,} lots", _expire)
    with bench.fresh("earned") as earned:
        bench.purchases(earned, lots, SMALL)
        _script(bench, earned, "changes", {})
        figures += _measured(bench, earned, "recognition", f"recognition of {lots:,} accruals", _fold)
        figures += _measured(bench, earned, "proof", f"proof of {lots:,} purchases", _prove)
    with bench.fresh("told") as told:
        _age(bench, told)
        figures += _measured(bench, told, "statements", f"{TOLD:,} statements", _statements)
    return figures


def _age(bench: Bench, stage: Shop) -> None:
    """Some members with points that have expired, points that are there, and entries of a hundred days."""
    bench.purchases(stage, EXPIRED * TOLD, OLD, TOLD)
    _expire(bench, stage)
    bench.purchases(stage, OPEN * TOLD, SMALL, TOLD)
    _script(bench, stage, "aged", {})
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _measured(bench: Bench, stage: Shop, job: str, name: str, by_sql: Sql) -> list[Figure]:
    took, memory = Rounds(), Rounds()
    for _ in range(bench.plan.rounds):
        with bench.copied(stage, "ours") as ours, bench.copied(stage, "theirs") as theirs:
            settle_down(ours.url)
            said = by_service(ours, job)
            settle_down(theirs.url)
            start = time.perf_counter()
            by_sql(bench, theirs)
            took.add(said["seconds"], time.perf_counter() - start)
            memory.add(said["megabytes"], LIMIT_MB)
            for each in (ours, theirs):
                check_books(each)
    return [
        took.figure(name, "s", SLOWER, "time, compared with set-based SQL"),
        memory.figure(f"memory of {name}", "MB", at_most(1), "at the most, compared with the limit"),
    ]


def by_service(stage: Shop, job: str) -> dict[str, float]:
    environment = os.environ | {
        "DATABASE_URL": stage.url,
        "LOYALTY_KEY_PEPPER": stage.settings.key_pepper.get_secret_value(),
    }
    command = [sys.executable, "-m", "benchmarks.job", job]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return said


# --- by SQL ---------------------------------------------------------------------------------------------------------


def _script(bench: Bench, stage: Shop, name: str, given: dict[str, str]) -> None:
    with psycopg.connect(stage.url) as connection:
        baseline.run_once(connection, bench.script(name), {"program_id": str(stage.program_id)} | given)


def _expire(bench: Bench, stage: Shop) -> None:
    _script(bench, stage, "expire", {"zone": TERMS["time_zone"]})


def _fold(bench: Bench, stage: Shop) -> None:
    _script(bench, stage, "fold", {})


def _statements(bench: Bench, stage: Shop) -> None:
    _script(bench, stage, "statements", last_month())


def last_month() -> dict[str, str]:
    """The month before this one, as parameters."""
    ends_at = datetime.now(ZONE).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    begins_at = (ends_at - timedelta(days=1)).replace(day=1)
    return {"month": f"{begins_at:%Y-%m}", "begins_at": begins_at.isoformat(), "ends_at": ends_at.isoformat()}


def _prove(_bench: Bench, stage: Shop) -> None:
    """The checks' own statements, without the service: a proof is set-based SQL."""
    spoken = psycopg_dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
    with psycopg.connect(stage.url) as connection:
        connection.execute("SET enable_nestloop = off")
        for check in CHECKS:
            differing = check(None).limit(20).compile(dialect=spoken, compile_kwargs={"literal_binds": True})
            connection.execute(str(differing).replace("%%", "%").encode()).fetchall()
