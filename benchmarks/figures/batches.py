"""Purchases in batches of 500, against one set-based statement per batch."""

from contextlib import ExitStack
from functools import partial

from benchmarks import baseline, shop
from benchmarks.bench import BASKETS, Bench, check_there
from benchmarks.contest import compete
from benchmarks.figures.purchases import RECEIPTS
from benchmarks.load import MEMBER, NUMBER, TRANSACTION, Requests, post
from benchmarks.report import Figure, at_least
from benchmarks.server import serving
from benchmarks.shop import Shop

CONNECTIONS = 4
"""A store's upload is few connections with much on each."""


def run(bench: Bench) -> list[Figure]:
    with bench.fresh("batches") as stage, ExitStack() as stack:
        services = {workers: stack.enter_context(serving(stage.settings, workers)) for workers in bench.plan.workers}
        prepared = batches(stage)
        contest = compete(
            bench,
            stage,
            services,
            lambda: prepared,
            partial(by_sql, bench, stage),
            clients=(1, 2, 4),
            connections=CONNECTIONS,
        )
        check_there(stage.url, RECEIPTS, contest.accepted)
    return contest.figures("batches of 500", "purchases/s", {1: at_least(0.5), 2: at_least(0.5)})


def batches(stage: Shop) -> Requests:
    """One batch of the sample's first 500 baskets, each a new receipt of the next member."""
    own = {"external_id": NUMBER, "member": {"card": MEMBER}}
    body = {"transactions": [basket | own for basket in shop.baskets(stage)[:BASKETS]]}
    return Requests([post("/v1/transactions/batch", body, stage.keys["terminal"])], TRANSACTION, BASKETS, patient=True)


def by_sql(bench: Bench, stage: Shop, clients: int, seconds: float) -> float:
    common = bench.common() | bench.by_sets() | {"size": str(BASKETS), "prefix": "sets-"}
    done = baseline.measure(stage.url, bench.script("purchases"), common, [{}], clients, seconds)
    return BASKETS * done.per_second
