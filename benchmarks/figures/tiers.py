"""Tiers: what looking one up takes, what they cost a purchase, and how long the review of a year's end takes."""

import time
from typing import Any

import psycopg

from app.demo import TERMS
from app.programs import Terms
from benchmarks import baseline, nothing, shop
from benchmarks.bench import Bench, Broken
from benchmarks.figures.balance import SERVE
from benchmarks.figures.jobs import LIMIT_MB, SLOWER, by_service
from benchmarks.figures.rules import ACTIVE, HOLDS_UP, in_turns, published, ruled
from benchmarks.load import MEMBER, Requests, get
from benchmarks.report import Figure, Rounds, at_least, at_most
from benchmarks.server import serving, settle_down
from benchmarks.shop import MEMBER_PREFIX, Shop

SPEND = (10_000, 50_000, 100_000, 200_000, 400_000)
"""What each tier asks for within a year, minor units."""

ENTRIES = 20
"""Purchases of each member in the year that has ended."""

SQL_CLIENTS = 16

_STANDINGS = (
    "SELECT member_id, tier, since, earned, earned_since, points, spend, visits, units, counted_from, sums_until, "
    "review_at "
    "FROM member_tier ORDER BY member_id"
)


_SINCE_LONG = (
    "ALTER TABLE program_terms DISABLE TRIGGER USER",  # no terms are published in the past but the first
    "UPDATE program_terms SET effective_from = '2001-01-01' WHERE version = (SELECT max(version) FROM program_terms)",
    "ALTER TABLE program_terms ENABLE TRIGGER USER",
)


def run(bench: Bench) -> list[Figure]:
    return [*_looked_up(bench), *_recorded(bench), *_reviewed(bench)]


def tiered(terms: Terms) -> Terms:
    """Terms with five tiers by what is spent in a year, each of which earns a tenth more than the one before."""
    levels = [_level(number, spend) for number, spend in enumerate(SPEND, 1)]
    return Terms.model_validate(terms.model_dump(mode="json") | {"tiers": {"levels": levels, "warn_days": []}})


def _level(number: int, spend: int) -> dict[str, Any]:
    qualification = {"spend": spend}
    return {
        "code": f"tier_{number}",
        "name": f"Tier {number}",
        "qualification": qualification,
        "earning_multiplier": f"1.{number}",
    }


def _looked_up(bench: Bench) -> list[Figure]:
    rounds = Rounds()
    with bench.fresh("looked") as stage:
        with_tiers = published(stage, tiered(Terms.model_validate(TERMS)))
        _age(bench, with_tiers)
        with serving(with_tiers.settings, 1, command=SERVE) as service:
            ours = Requests([get(f"/v1/members/{MEMBER_PREFIX}{MEMBER}/tier", stage.keys["partner"])])
            empty = Requests([get(nothing.PATH, stage.keys["partner"])])
            for requests in (ours, empty):  # warms up
                bench.generator.run(service, requests, 1)
            for _ in range(bench.plan.rounds):
                asked = bench.generator.run(service, ours, bench.plan.seconds).per_second
                rounds.add(asked, bench.generator.run(service, empty, bench.plan.seconds).per_second)
    said = "compared with an endpoint that does nothing"
    return [rounds.figure("tier look-ups, 1 process", "/s", at_least(0.7), said)]


def _recorded(bench: Bench) -> list[Figure]:
    """Purchases under rules and tiers, of members who bought through last year and stand accordingly; and without."""
    with bench.fresh("tiered") as with_tiers, bench.fresh("untiered") as without:
        bodies = shop.baskets(without)
        stages = [published(with_tiers, tiered(ruled(bodies, ACTIVE))), published(without, ruled(bodies, 0))]
        _age(bench, stages[0])
        by_service(stages[0], "review")
        rates, by_sql = in_turns(bench, *stages), _by_sql(bench, *stages)
    name = f"purchases under {len(SPEND)} tiers and {ACTIVE} rules"
    return [
        rates.figure(name, "/s", HOLDS_UP, "compared with none"),
        by_sql.figure(f"SQL: purchases under {len(SPEND)} tiers", "/s", None, "decides nothing; compared with none"),
    ]


def _by_sql(bench: Bench, *stages: Shop) -> Rounds:
    """The same of hand-written SQL: what it comes to when it reads and writes a tier's rows too, and without."""
    plain = bench.script("purchase")
    rates = Rounds()
    for _ in range(2 * bench.plan.rounds):
        spent = []
        for stage, script in zip(stages, (counting(plain, bench.script("counted")), plain), strict=True):
            settle_down(stage.url)
            given = bench.common(), bench.each(), SQL_CLIENTS, bench.plan.seconds
            spent.append(baseline.measure(stage.url, script, *given).per_second)
        rates.add(*spent)
    return rates


def counting(purchase: str, counted: str) -> str:
    """The script of a purchase that counts towards tiers."""
    return purchase.replace("COMMIT;", f"{counted}COMMIT;")


def _reviewed(bench: Bench) -> list[Figure]:
    """The standings of members whose year has ended, on copies of one database."""
    took, memory = Rounds(), Rounds()
    with bench.fresh("reviewed") as stage:
        with_tiers = published(stage, tiered(Terms.model_validate(TERMS)))
        _age(bench, with_tiers)
        for _ in range(bench.plan.rounds):
            with bench.copied(with_tiers, "ours") as ours, bench.copied(with_tiers, "theirs") as theirs:
                settle_down(ours.url)
                said = by_service(ours, "review")
                settle_down(theirs.url)
                start = time.perf_counter()
                _script(bench, theirs, "review")
                took.add(said["seconds"], time.perf_counter() - start)
                memory.add(said["megabytes"], LIMIT_MB)
                if _rows(ours) != _rows(theirs):
                    raise Broken("the review by SQL is not that of the service")
    name = f"review of {bench.generator.members:,} members"
    return [
        took.figure(name, "s", SLOWER, "time, compared with set-based SQL"),
        memory.figure(f"memory of {name}", "MB", at_most(1), "at the most, compared with the limit"),
    ]


def _age(bench: Bench, stage: Shop) -> None:
    """All members have bought through last year, under these terms, and stand as they did when it ended."""
    with psycopg.connect(stage.url) as connection:
        for statement in _SINCE_LONG:
            connection.execute(statement.encode())
    _script(bench, stage, "standings")
    with psycopg.connect(stage.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _script(bench: Bench, stage: Shop, name: str) -> None:
    given = {"program_id": str(stage.program_id), "zone": str(TERMS["time_zone"]), "entries": str(ENTRIES)}
    with psycopg.connect(stage.url) as connection:
        baseline.run_once(connection, bench.script(name), given)


def _rows(stage: Shop) -> list[tuple[Any, ...]]:
    with psycopg.connect(stage.url) as connection:
        return connection.execute(_STANDINGS.encode()).fetchall()
