"""How the rates hold up as entries pile up: on the whole, and for one member."""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg

from benchmarks import shop
from benchmarks.bench import OLD, SMALL, Bench, check_there
from benchmarks.figures.balance import balances
from benchmarks.figures.purchases import RECEIPTS, purchases
from benchmarks.load import Generator, Requests, get
from benchmarks.report import Figure, Rounds, at_least, at_most
from benchmarks.server import Service, serving, settle_down
from benchmarks.shop import Shop

SMALLEST = 10_000
ENTRIES_PER_MEMBER = 20
HOLDS_UP = at_least(0.85)
LONG_HISTORY = 100_000
SLOWER = at_most(1.5)
ONE = 1
"""Connection: its time per request is how long an answer takes."""


def run(bench: Bench) -> list[Figure]:
    figures = []
    for size in bench.plan.sizes:
        with bench.fresh("large") as large:
            grown = _grown(bench, large, size)
            with _small(bench) as small:
                figures += _compared(bench, grown, small, large, size)
    with _small(bench) as small:
        figures += _one_member(bench, small)
    return figures


@contextmanager
def _small(bench: Bench) -> Iterator[Shop]:
    with bench.fresh("small") as small:
        bench.purchases(small, SMALLEST, SMALL)
        yield small


def _grown(bench: Bench, stage: Shop, entries: int) -> Bench:
    """The bench for a shop with so many entries, and members in proportion."""
    members = max(bench.generator.members, entries // ENTRIES_PER_MEMBER)
    grown = dataclasses.replace(bench, generator=Generator(members, wrk=bench.generator.wrk))
    shop.add_members(stage, members, after=bench.generator.members)
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    grown.purchases(stage, entries, SMALL)
    return grown


def _compared(bench: Bench, grown: Bench, small: Shop, large: Shop, size: int) -> list[Figure]:
    buying, reading = Rounds(), Rounds()
    with ExitStack() as stack:
        sides = [
            (side, stage, stack.enter_context(serving(stage.settings, 1)))
            for side, stage in ((bench, small), (grown, large))
        ]
        for number in range(-1, bench.plan.rounds):
            seconds = bench.plan.seconds if number >= 0 else 1
            turns = sides if number % 2 else sides[::-1]  # neither always comes after the other
            bought = {stage.url: _bought(side, stage, service, seconds) for side, stage, service in turns}
            read = {stage.url: _looked(side, stage, service, seconds) for side, stage, service in turns}
            if number >= 0:  # the first round warms up
                buying.add(bought[large.url], bought[small.url])
                reading.add(read[large.url], read[small.url])
    said = f"{size:,} entries compared with {SMALLEST:,}"
    return [
        buying.figure(f"purchases at {size:,} entries", "/s", HOLDS_UP, said),
        reading.figure(f"balance reads at {size:,} entries", "/s", HOLDS_UP, said),
    ]


def _bought(side: Bench, stage: Shop, service: Service, seconds: float) -> float:
    settle_down(stage.url)
    ran = side.generator.run(service, purchases(stage), seconds)
    check_there(stage.url, RECEIPTS, ran.accepted)
    return ran.per_second


def _looked(side: Bench, stage: Shop, service: Service, seconds: float) -> float:
    return side.generator.run(service, balances(stage), seconds).per_second


# --- one member -----------------------------------------------------------------------------------------------------


def _one_member(bench: Bench, stage: Shop) -> list[Figure]:
    """A member with a long history, most of which has expired, beside one like all others. Time per read."""
    longest = dataclasses.replace(bench, generator=Generator(1, wrk=bench.generator.wrk))
    longest.generator.take()  # numbers that nobody else has
    longest.purchases(stage, LONG_HISTORY, OLD)
    with shop.in_process(stage) as http:  # a purchase of today; before it, what is due is written down
        body = shop.baskets(stage)[0] | {"external_id": "today", "member": {"card": shop.card(1)}}
        http.post("/v1/transactions", json=body).raise_for_status()
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    with serving(stage.settings, 1) as service:
        return [_read(bench, stage, service, what) for what in ("balance", "entries")]


def _read(bench: Bench, stage: Shop, service: Service, what: str) -> Figure:
    key, rounds = stage.keys["partner"], Rounds()
    long, usual = (
        Requests([get(f"/v1/members/{shop.member_id(number)}/{what}", key)], patient=True) for number in (1, 2)
    )
    for requests in (long, usual):
        bench.generator.run(service, requests, 1, ONE)
    for _ in range(bench.plan.rounds):
        sides = [bench.generator.run(service, each, bench.plan.seconds, ONE).per_second for each in (long, usual)]
        rounds.add(1000 / sides[0], 1000 / sides[1])
    name = {"balance": "balance", "entries": "first page of the ledger"}[what]
    note = "time of one read, compared with a member like all others"
    return rounds.figure(f"{name}, member with {LONG_HISTORY:,} entries", "ms", SLOWER, note)
