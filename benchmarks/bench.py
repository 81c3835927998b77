"""One run of the benchmarks: how long, with what, and on which databases."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import getpid

import psycopg

from benchmarks import baseline, server, shop
from benchmarks.load import Generator
from benchmarks.shop import Shop

MEMBERS = 10_000
BASKETS = 500
"""Real baskets whose decisions the SQL knows."""

SCRIPTS = 16
"""So many of them go through pgbench, which takes a script for each."""

REAL, SMALL, GENEROUS, OLD = range(BASKETS), range(50), range(BASKETS, BASKETS + 1), range(BASKETS + 1, BASKETS + 2)
"""Which baskets, by their places in `bench_basket`. The old one's points have expired."""

AT_ONCE = 20_000
"""Purchases written in one statement."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each side runs at a time, and how often both take turns."""

    seconds: float
    rounds: int
    workers: tuple[int, ...]
    """Server processes where a figure does not say; the first figure is always taken with one and two."""
    clients: tuple[int, ...]
    """Of SQL; the best of them counts."""
    sizes: tuple[int, ...]
    """Entries to which the database grows."""
    lots: int
    """For the jobs."""


QUICK = Plan(seconds=2, rounds=3, workers=(1,), clients=(16,), sizes=(50_000,), lots=5_000)
USUAL = Plan(seconds=6, rounds=3, workers=(1, 2), clients=(8, 16, 32), sizes=(200_000,), lots=20_000)
LARGE = replace(USUAL, seconds=10, sizes=(1_000_000, 10_000_000), lots=1_000_000)


class Broken(Exception):
    """After a benchmark the books do not balance, or something that was answered 2xx is not there."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What the figures are measured with, on PostgreSQL."""

    plan: Plan
    server: str
    facts: Mapping[str, str]
    template: Shop
    decided: Sequence[Mapping[str, str]]
    generator: Generator

    @contextmanager
    def fresh(self, name: str) -> Iterator[Shop]:
        """A copy of the shop for one figure; when it is done, the books must balance."""
        with self.copied(self.template, name) as copy:
            yield copy
            check_books(copy)

    @contextmanager
    def copied(self, stage: Shop, name: str) -> Iterator[Shop]:
        """A copy of a shop that nobody is connected to."""
        name = f"loyalty_bench_{getpid()}_{name}"
        try:
            yield stage.moved_to(server.create_database(self.server, name, _name_of(stage.url)))
        finally:
            server.drop_database(self.server, name)

    def script(self, name: str) -> str:
        return baseline.script(name, self.facts["server_version"])

    def common(self) -> dict[str, str]:
        """Parameters of every script: numbers of its own to count from, and how many members there are."""
        return {"members": str(self.generator.members), "first": str(self.generator.take()), "step": "-1"}

    def by_sets(self, of: range = REAL) -> dict[str, str]:
        """Parameters of scripts that write many purchases, `of` these baskets."""
        return {"program_id": str(self.template.program_id), "after": str(of.start), "baskets": str(len(of))}

    def purchases(self, stage: Shop, count: int, of: range = REAL, members: int | None = None) -> int:
        """Records so many purchases by sets, fast, as `fill-N`, of all members or the first; answers the first N."""
        first, members = self.generator.take(count), members or self.generator.members
        with psycopg.connect(stage.url) as connection:
            for lowest in range(first, first + count, AT_ONCE):
                highest = min(lowest + AT_ONCE, first + count) - 1
                given = {"lowest": str(lowest), "highest": str(highest), "members": str(members), "prefix": "fill-"}
                baseline.run_once(connection, self.script("purchases"), given | self.by_sets(of))
            connection.autocommit = True
            connection.execute("VACUUM ANALYZE")
        return first

    def each(self) -> Sequence[Mapping[str, str]]:
        """The baskets of scripts, from the smallest to the largest."""
        step = BASKETS // SCRIPTS
        return self.decided[step // 2 : step * SCRIPTS : step]


@contextmanager
def prepared(plan: Plan, url: str, generator: Generator) -> Iterator[Bench]:
    """The shop that the figures' databases are copies of."""
    name = f"loyalty_bench_{getpid()}"
    try:
        made = shop.furnish(server.create_database(url, name))
        with shop.in_process(made) as http:
            shop.post_baskets(http, [*shop.baskets(made)[:BASKETS], shop.large_basket(made), shop.old_basket(made)])
            shop.add_reward(http)
        decided = baseline.stage_baskets(made.url)
        shop.add_members(made, generator.members)
        with psycopg.connect(made.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        yield Bench(plan, url, server.facts(url), made, decided, generator)
    finally:
        server.drop_database(url, name)


def _name_of(url: str) -> str:
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    assert isinstance(name, str)
    return name


# --- after a benchmark ----------------------------------------------------------------------------------------------


def check_books(checked: Shop) -> None:
    if found := shop.prove(checked):
        raise Broken(f"the proof does not hold: {found}")


def check_there(url: str, query: str, wanted: Sequence[str]) -> None:
    """Everything in `wanted` is found by `query`, which takes the ids as one array."""
    with psycopg.connect(url) as connection:
        found = {str(row[0]) for row in connection.execute(query.encode(), [list(wanted)])}
    if lost := set(wanted) - found:
        raise Broken(f"{len(lost)} of {len(wanted)} things that were answered 2xx are not there, such as {min(lost)}")
    if len(set(wanted)) != len(wanted):
        raise Broken("something was accepted twice")
