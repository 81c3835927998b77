"""Balance reads, against an endpoint of the same application that does nothing."""

from benchmarks import nothing
from benchmarks.bench import Bench
from benchmarks.load import MEMBER, Requests, get
from benchmarks.report import Figure, Rounds, at_least
from benchmarks.server import Service, serving
from benchmarks.shop import MEMBER_PREFIX, Shop

SERVE = ("-m", "benchmarks.nothing")


def run(bench: Bench) -> list[Figure]:
    with bench.fresh("balance") as stage:
        bench.purchases(stage, bench.generator.members)
        with serving(stage.settings, 1, command=SERVE) as service:
            rounds = reads(bench, stage, service)
    return [
        rounds.figure("balance reads, 1 process", "/s", at_least(0.7), "compared with an endpoint that does nothing")
    ]


def reads(bench: Bench, stage: Shop, service: Service) -> Rounds:
    """Balances and nothing in turns, from a service that was started with `SERVE`."""
    balance, empty = balances(stage), Requests([get(nothing.PATH, stage.keys["partner"])])
    rounds = Rounds()
    for requests in (balance, empty):  # warms up
        bench.generator.run(service, requests, 1)
    for _ in range(bench.plan.rounds):
        ours = bench.generator.run(service, balance, bench.plan.seconds)
        rounds.add(ours.per_second, bench.generator.run(service, empty, bench.plan.seconds).per_second)
    return rounds


def balances(stage: Shop) -> Requests:
    """The balances of members in turn, asked for by a partner."""
    return Requests([get(f"/v1/members/{MEMBER_PREFIX}{MEMBER}/balance", stage.keys["partner"])])
