"""Redemptions, holds and returns, each against one transaction per act in hand-written SQL."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from app.accounting.rules import ROLES
from app.demo import TERMS
from benchmarks import baseline, shop
from benchmarks.bench import GENEROUS, Bench, check_there
from benchmarks.contest import Contest, compete
from benchmarks.load import HOLD, MEMBER, NUMBER, REDEMPTION, SAME, TRANSACTION, Requests, post
from benchmarks.report import Figure, at_least
from benchmarks.server import serving, settle_down
from benchmarks.shop import REWARD, SOURCE, Shop

ZONE = ZoneInfo(TERMS["time_zone"])
LOTS = 20
"""Open lots of each member before the first spend."""

MOST_RETURNS = 4000.0
"""Per second; what there is to return until a turn has shown how many it takes."""

TARGETS = {1: at_least(0.6), 2: at_least(0.6)}
_BY_ID = "SELECT id FROM {} WHERE id = ANY(%s::uuid[])"
_RETURNS = "SELECT external_id FROM transaction_key WHERE type = 'return' AND external_id = ANY(%s)"


def run(bench: Bench) -> list[Figure]:
    return [*_spends(bench, "redemption"), *_spends(bench, "hold"), *_returns(bench)]


def _spends(bench: Bench, act: str) -> list[Figure]:
    with bench.fresh(act) as stage:
        bench.purchases(stage, LOTS * bench.generator.members, GENEROUS)
        given = constants(stage, act)
        contest = _contest(bench, stage, lambda: REQUESTS[act](stage), partial(_spend_by_sql, bench, stage, act, given))
        check_there(stage.url, _BY_ID.format(act), contest.accepted)
    return contest.figures(f"{act}s", "/s", TARGETS)


def _contest(
    bench: Bench, stage: Shop, requests: Callable[[], Requests], sql: Callable[[int, float], float]
) -> Contest:
    with ExitStack() as stack:
        services = {workers: stack.enter_context(serving(stage.settings, workers)) for workers in bench.plan.workers}
        return compete(bench, stage, services, requests, sql, bench.plan.clients)


# --- redemptions and holds ------------------------------------------------------------------------------------------


def redemptions(stage: Shop) -> Requests:
    body = {"member": {"card": MEMBER}, "reward": {"code": REWARD["code"]}, "immediate": True}
    return Requests([post("/v1/redemptions", body, stage.keys["terminal"], keyed=True)], REDEMPTION)


def holds(stage: Shop) -> Requests:
    body = {"member": {"card": MEMBER}, "points": REWARD["points"], "minutes": 120}
    return Requests([post("/v1/holds", body, stage.keys["terminal"], keyed=True)], HOLD)


REQUESTS = {"redemption": redemptions, "hold": holds}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "redemption": ("/v1/redemptions", {"reward": {"code": REWARD["code"]}, "immediate": True}),
    "hold": ("/v1/holds", {"points": REWARD["points"], "minutes": 120}),
}


def constants(stage: Shop, act: str) -> dict[str, str]:
    """Parameters of an act's script. The answer that is kept for retries is one that the service has given."""
    path, body = BODIES[act]
    with shop.in_process(stage) as http:
        asked = body | {"member": {"card": shop.card(1)}}
        answer = http.post(path, json=asked, headers={"Idempotency-Key": "probe"}).raise_for_status().text
    return spend_parameters(stage, answer)


def spend_parameters(stage: Shop, answer: str) -> dict[str, str]:
    """`answer`: what the service said to the same request; it is kept with the key."""
    return {
        "program_id": str(stage.program_id),
        "client": str(stage.clients["terminal"]),
        "fingerprint": "0" * 64,
        "body": answer,
        "points": str(REWARD["points"]),
        "reward": str(REWARD["code"]),
        "cost": str(REWARD["supplier"]["cost"]),
        "debit": ROLES["cost_rewards"].code,
        "credit": ROLES["inventory_rewards"].code,
        "period": datetime.now(ZONE).date().replace(day=1).isoformat(),
    }


def _spend_by_sql(bench: Bench, stage: Shop, act: str, given: dict[str, str], clients: int, seconds: float) -> float:
    done = baseline.measure(stage.url, bench.script(act), bench.common() | given, [{}], clients, seconds)
    return done.per_second


# --- returns --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Returns:
    """Both sides' returns. Each purchase comes back once, so every turn first gets purchases of its own."""

    bench: Bench
    stage: Shop
    fastest: float | None = None

    def requests(self) -> Requests:
        first = self._supply(self.bench.plan.seconds)
        prepared = post("/v1/transactions", return_body(self.stage, NUMBER, SAME), self.stage.keys["terminal"])
        return Requests([prepared], TRANSACTION, first=first)

    def by_sql(self, clients: int, seconds: float) -> float:
        common = return_parameters(self.stage) | {"first": str(self._supply(seconds)), "step": "-1"}
        settle_down(self.stage.url)
        done = baseline.measure(self.stage.url, self.bench.script("return"), common, [{}], clients, seconds)
        if seconds >= self.bench.plan.seconds:  # not to warm up
            self.fastest = max(done.per_second, self.fastest or 0)
        return done.per_second

    def _supply(self, seconds: float) -> int:
        return self.bench.purchases(self.stage, round(2.5 * (self.fastest or MOST_RETURNS) * seconds) + 1000)


def return_body(stage: Shop, number: str, same: str) -> dict[str, Any]:
    """Everything of purchase `fill-number` comes back, under the receipt's own number."""
    return {
        "type": "return",
        "source": SOURCE,
        "external_id": f"fill-{number}",
        "occurred_at": stage.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "original": {"source": SOURCE, "external_id": f"fill-{same}"},
    }


def return_parameters(stage: Shop) -> dict[str, str]:
    content = return_body(stage, "0" * 12, "0" * 12)
    period = stage.at.astimezone(ZONE).date().replace(day=1)
    return {
        "program_id": str(stage.program_id),
        "source": SOURCE,
        "fingerprint": "0" * 64,
        "content": json.dumps(content),
        "period": period.isoformat(),
    }


def _returns(bench: Bench) -> list[Figure]:
    with bench.fresh("return") as stage:
        sides = _Returns(bench, stage)
        contest = _contest(bench, stage, sides.requests, sides.by_sql)
        check_there(stage.url, _RETURNS, contest.accepted)
    return contest.figures("returns", "/s", TARGETS)
