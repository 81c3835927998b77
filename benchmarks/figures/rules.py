"""Earning rules: how long thirty of them take for a basket, and what they cost a purchase."""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from app import programs
from app.db import Database
from app.demo import TERMS
from app.programs import Basket, Occasion, Terms
from app.transactions.schemas import PurchaseIn, basket_of
from benchmarks import shop
from benchmarks.bench import Bench, check_there
from benchmarks.figures.purchases import RECEIPTS, purchases
from benchmarks.report import Figure, Rounds, at_least, at_most
from benchmarks.server import Service, serving, settle_down
from benchmarks.shop import Shop

ACTIVE, INACTIVE, TIMES = 30, 900, 10
LIMIT_MICROSECONDS = 150.0
SLOWER = at_most(1.5)
HOLDS_UP = at_least(0.9)

Case = tuple[Basket, Occasion]

_GIVES: tuple[dict[str, Any], ...] = (
    {"type": "multiply", "times": 3},
    {"type": "per_amount", "points": 2, "per": 100},
    {"type": "per_item", "points": 5},
    {"type": "fixed", "points": 20},
)
_WHEN: tuple[dict[str, Any], ...] = (
    {},
    {"minimum_spend": 1000},
    {"weekdays": ["mon", "tue", "wed", "thu", "fri"]},
    {"hours": {"begin": "08:00", "end": "20:00"}},
    {"channels": ["pos"]},
)
"""Each kind of rule, under each kind of condition, in turns."""


def run(bench: Bench) -> list[Figure]:
    return [*_evaluated(bench), *_recorded(bench)]


def ruled(bodies: Sequence[dict[str, Any]], active: int, inactive: int = 0) -> Terms:
    """Terms with so many rules about the departments that sell most, and so many more for years to come, for other
    stores and for another channel."""
    sold = Counter(line["department"] for body in bodies for line in body["lines"] if "department" in line)
    departments = [name for name, _ in sold.most_common(ACTIVE)]
    rules = [_rule(f"rule_{n}", n, departments) for n in range(active)]
    for n in range(inactive):
        never = (
            {"first_day": f"{2100 + n % 90}-{n % 12 + 1:02}-01"},
            {"stores": [f"store_{n}"]},
            {"channels": ["kiosk"]},
        )
        rule = _rule(f"elsewhere_{n}", n // 3, departments)
        rules.append(rule | {"when": rule["when"] | never[n % 3]})
    return Terms.model_validate(TERMS | {"rules": rules, "stacking": {"bonus": "best"}})


def _rule(code: str, number: int, departments: Sequence[str]) -> dict[str, Any]:
    """A third of them compete with each other, a sixth is about all goods."""
    named = {departments[number % len(departments)], departments[number * 7 % len(departments)]}
    return {
        "code": code,
        "name": code,
        "gives": _GIVES[number % len(_GIVES)],
        "when": _WHEN[number % len(_WHEN)],
        "on": {"departments": sorted(named)} if number % 6 else {},
        "group": "bonus" if number % 3 == 0 else None,
    }


# --- one basket -----------------------------------------------------------------------------------------------------


def _evaluated(bench: Bench) -> list[Figure]:
    bodies = shop.baskets(bench.template)
    few, many = ruled(bodies, ACTIVE), ruled(bodies, ACTIVE, INACTIVE)
    cases = [_case(PurchaseIn.model_validate(body), few) for body in bodies]
    alone, among = Rounds(), Rounds()
    for _ in range(bench.plan.rounds):
        spent = [_microseconds(cases, terms) for terms in (few, many)]
        alone.add(spent[0], LIMIT_MICROSECONDS)
        among.add(spent[1], spent[0])
    said = f"{len(cases)} real baskets, {TIMES} times each; median"
    return [
        alone.figure(f"{ACTIVE} rules on a basket", "us", at_most(1), f"{said}, compared with the limit"),
        among.figure(
            f"{ACTIVE} rules among {INACTIVE} of other times and places",
            "us",
            SLOWER,
            f"{said}, compared with {ACTIVE} alone",
        ),
    ]


def _case(body: PurchaseIn, terms: Terms) -> Case:
    return basket_of(body), Occasion(body.occurred_at.astimezone(terms.zone), body.store, body.channel)


def _microseconds(cases: Sequence[Case], terms: Terms) -> float:
    spent = []
    for basket, occasion in [*cases] * TIMES:
        start = time.perf_counter()
        programs.earn(basket, terms, occasion)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent) * 1e6


# --- purchases ------------------------------------------------------------------------------------------------------


def _recorded(bench: Bench) -> list[Figure]:
    with bench.fresh("ruled") as with_rules, bench.fresh("plain") as without:
        bodies = shop.baskets(without)
        rates = in_turns(bench, published(with_rules, ruled(bodies, ACTIVE)), published(without, ruled(bodies, 0)))
    return [rates.figure(f"purchases under {ACTIVE} rules", "/s", HOLDS_UP, "compared with none")]


def in_turns(bench: Bench, *stages: Shop) -> Rounds:
    """Purchases per second of two shops, in turns; twice as often as others, since they differ by a tenth only."""
    rates = Rounds()
    with ExitStack() as stack:
        sides = [(stage, stack.enter_context(serving(stage.settings, 1))) for stage in stages]
        for number in range(-1, 2 * bench.plan.rounds):
            seconds = bench.plan.seconds if number >= 0 else 1
            ours, theirs = [_bought(bench, *side, seconds) for side in sides]
            if number >= 0:  # the first round warms up
                rates.add(ours, theirs)
    return rates


def published(stage: Shop, terms: Terms) -> Shop:
    """The shop under other terms from now on, which is when its baskets are bought."""
    database, now = Database(stage.settings), datetime.now(UTC)

    def write(session: Session) -> None:
        draft = programs.draft_terms(session, stage.program_id, terms, now)
        programs.publish_terms(session, stage.program_id, draft.version, now)

    database.write(write)
    database.close()
    return replace(stage, at=now)


def _bought(bench: Bench, stage: Shop, service: Service, seconds: float) -> float:
    """Purchases per second, made just before they are posted: after those of the round before."""
    settle_down(stage.url)
    ran = bench.generator.run(service, purchases(replace(stage, at=datetime.now(UTC))), seconds)
    check_there(stage.url, RECEIPTS, ran.accepted)
    return ran.per_second
