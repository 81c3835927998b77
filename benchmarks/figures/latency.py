"""Latency of purchases at half of the highest rate: an open loop, counted from when each request was due."""

import statistics

from benchmarks.bench import Bench, Broken, check_there
from benchmarks.figures.purchases import RECEIPTS, purchases
from benchmarks.report import Figure, Rounds, at_most
from benchmarks.server import serving, settle_down

SLOWER = 5
"""p99 over p50, at most."""
LATEST = 0.1
"""Of the p99: a client that sends one request in a hundred later than that measures itself; the round is repeated."""


def run(bench: Bench) -> list[Figure]:
    rounds, notes = Rounds(), []
    with bench.fresh("latency") as stage:
        prepared = purchases(stage)
        with serving(stage.settings, 1) as service:
            bench.generator.run(service, prepared, 1)
            for _ in range(3 * bench.plan.rounds):
                settle_down(stage.url)
                highest = bench.generator.run(service, prepared, bench.plan.seconds)
                tally = bench.generator.paced(service, prepared, bench.plan.seconds, highest.per_second / 2)
                paced = bench.generator.judged(prepared, tally)
                check_there(stage.url, RECEIPTS, [*highest.accepted, *paced.accepted])
                p50, p99 = (1000 * value for value in middle_and_tail(tally.latencies))
                late = 1000 * middle_and_tail(tally.late)[1]
                in_time = late <= LATEST * p99
                notes.append(_note(highest.per_second / 2, late, in_time=in_time))
                if in_time:
                    rounds.add(p99, p50)
                if len(rounds.ours) == bench.plan.rounds:
                    break
    if not rounds.ours:
        raise Broken("the client was late in every round")
    return [rounds.figure("p99 over p50 of purchases, 1 process", "ms", at_most(SLOWER), "; ".join(notes))]


def middle_and_tail(seconds: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    if len(seconds) < 2:
        raise Broken("too few answers to speak of percentiles")
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49], cuts[98]


def _note(rate: float, late: float, *, in_time: bool) -> str:
    verdict = "" if in_time else " (TOO LATE: not counted)"
    return f"at {rate:.0f}/s the client was {late:.1f} ms late at p99{verdict}"
