"""The same on SQLite: purchases, batches and balances, against a loop of prepared statements."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import shop
from benchmarks.bench import BASKETS, Bench, Broken, check_books
from benchmarks.contest import compete
from benchmarks.figures import balance
from benchmarks.figures.batches import CONNECTIONS, batches
from benchmarks.figures.purchases import purchases
from benchmarks.load import Generator, Requests
from benchmarks.loop import Loop, baskets, connect
from benchmarks.report import Figure, at_least
from benchmarks.server import serving
from benchmarks.shop import Shop


def run(bench: Bench) -> list[Figure]:
    alone = dataclasses.replace(bench, generator=Generator(bench.generator.members, wrk=bench.generator.wrk))
    with _furnished(alone) as stage:
        bought = _compared(alone, stage, "purchases", purchases(stage), 1, at_least(0.6).bound)
        with serving(stage.settings, 1, command=balance.SERVE) as service:
            read = balance.reads(alone, stage, service)
    with _furnished(alone) as stage:
        uploaded = _compared(alone, stage, "batches of 500", batches(stage), BASKETS, at_least(0.5).bound)
    note = "compared with an endpoint that does nothing"
    return [*bought, *uploaded, read.figure("SQLite: balance reads", "/s", at_least(0.7), note)]


@contextmanager
def _furnished(bench: Bench) -> Iterator[Shop]:
    with TemporaryDirectory() as folder:
        made = shop.furnish(f"sqlite:///{Path(folder)}/bench.db")
        with shop.in_process(made) as http:
            shop.post_baskets(http, shop.baskets(made)[:BASKETS])
        shop.add_members(made, bench.generator.members)
        yield made
        check_books(made)


def _compared(bench: Bench, stage: Shop, name: str, requests: Requests, size: int, bound: float) -> list[Figure]:
    loop = Loop(stage.url, baskets(stage.url), bench.generator.members, size)
    connections = CONNECTIONS if requests.patient else 64
    with serving(stage.settings, 1) as service:
        contest = compete(bench, stage, {1: service}, lambda: requests, loop.run, clients=(1,), connections=connections)
    loop.close()
    _check_there(stage, contest.accepted)
    return contest.figures(f"SQLite: {name}", "/s", {1: at_least(bound)})


def _check_there(stage: Shop, accepted: list[str]) -> None:
    connection = connect(stage.url)
    found = {row[0] for row in connection.execute("SELECT external_id FROM transaction_key")}
    connection.close()
    if lost := set(accepted) - found:
        raise Broken(f"{len(lost)} of {len(accepted)} purchases that were answered 201 are not there")
