"""Purchases, one per request, against one transaction per purchase in hand-written SQL."""

from contextlib import ExitStack
from functools import partial

from benchmarks import baseline, shop
from benchmarks.bench import Bench, check_there
from benchmarks.contest import compete
from benchmarks.load import MEMBER, NUMBER, TRANSACTION, Requests, post
from benchmarks.report import Figure, at_least
from benchmarks.server import serving
from benchmarks.shop import Shop

CLIENTS = (8, 16, 32)
RECEIPTS = "SELECT external_id FROM transaction_key WHERE external_id = ANY(%s)"


def run(bench: Bench) -> list[Figure]:
    with bench.fresh("purchases") as stage, ExitStack() as stack:
        services = {workers: stack.enter_context(serving(stage.settings, workers)) for workers in (1, 2)}
        prepared = purchases(stage)
        contest = compete(bench, stage, services, lambda: prepared, partial(by_sql, bench, stage), CLIENTS)
        check_there(stage.url, RECEIPTS, contest.accepted)
    return contest.figures("purchases", "/s", {1: at_least(0.6), 2: at_least(1.0)})


def purchases(stage: Shop) -> Requests:
    """Every real basket of the sample, by members in turn, from a till."""
    own = {"external_id": NUMBER, "member": {"card": MEMBER}}
    bodies = [body | own for body in shop.baskets(stage)]
    return Requests([post("/v1/transactions", body, stage.keys["terminal"]) for body in bodies], TRANSACTION)


def by_sql(bench: Bench, stage: Shop, clients: int, seconds: float) -> float:
    done = baseline.measure(stage.url, bench.script("purchase"), bench.common(), bench.each(), clients, seconds)
    return done.per_second
