"""Earning rules: how long thirty of them take for a basket, and what they cost a purchase."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app import programs
from app.baskets import purchase_body, read_baskets
from app.db import Database
from app.demo import TERMS
from app.programs import Basket, Occasion, Tender, Terms
from app.transactions.schemas import PurchaseIn, basket_of
from benchmarks import shop
from benchmarks.bench import Bench, check_there
from benchmarks.figures.purchases import RECEIPTS, purchases
from benchmarks.report import Figure, Rounds, at_least, at_most
from benchmarks.server import Service, serving, settle_down
from benchmarks.shop import Shop

BASKETS = Path(__file__).parent.parent / "pos-2017-01-first-10000.jsonl.gz"
ACTIVE, INACTIVE, LINES = 30, 900, 100
LIMIT_MICROSECONDS = 150.0
SLOWER = at_most(1.5)
LINEAR = at_most(1.2)
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

Asked = Callable[[int], dict[str, Any]]

ELSEWHERE: tuple[Asked, ...] = (
    lambda n: {"when": {"first_day": f"{2100 + n % 90}-{n % 12 + 1:02}-01"}},
    lambda n: {"when": {"stores": [f"store_{n}"]}},
    lambda _: {"when": {"channels": ["kiosk"]}},
)
OTHERWISE: tuple[Asked, ...] = (
    lambda n: {"on": {"departments": ["NOWHERE"], "products": [f"none_{n}"]}},
    lambda n: {"on": {"products": [f"rare_{n}"]}, "excluded": {"products": [f"rare_{n}"]}},
    lambda n: {"when": {"tenders": [f"giro_{n}"]}},
    lambda n: {"when": {"minimum_spend": 10**9 + n}},
    lambda n: {"when": {"minimum_quantity": 10**5 + n}},
)
"""Why rules give nothing."""


def run(bench: Bench) -> list[Figure]:
    return [*_evaluated(bench), *_recorded(bench)]


def ruled(bodies: Sequence[dict[str, Any]], active: int, inactive: int = 0, never: Sequence[Asked] = ()) -> Terms:
    """Terms with so many rules about the departments that sell most; and so many more, each of which asks in turn for
    what is `never` so."""
    sold = Counter(line["department"] for body in bodies for line in body["lines"] if "department" in line)
    departments = [name for name, _ in sold.most_common(ACTIVE)]
    rules = [_rule(f"rule_{n}", n, departments) for n in range(active)]
    for n in range(inactive):
        rule, asked = _rule(f"never_{n}", n // len(never), departments), never[n % len(never)](n)
        rules.append(rule | asked | {"when": rule["when"] | asked.get("when", {})})
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
    bodies = [purchase_body(basket) for basket in read_baskets(BASKETS)]
    few = ruled(bodies, ACTIVE)
    others = [ruled(bodies, ACTIVE, INACTIVE, never) for never in (ELSEWHERE, OTHERWISE)]
    cases = [_case(PurchaseIn.model_validate(body), few) for body in bodies]
    short, long = (_of_lines(cases, count) for count in (LINES, 4 * LINES))
    alone, elsewhere, otherwise, lines = Rounds(), Rounds(), Rounds(), Rounds()
    for _ in range(bench.plan.rounds):
        spent, *among = [_microseconds(cases, terms) for terms in (few, *others)]
        alone.add(spent, LIMIT_MICROSECONDS)
        for rounds, each in zip((elsewhere, otherwise), among, strict=True):
            rounds.add(each, spent)
        lines.add(_microseconds(long, few), 4 * _microseconds(short, few))
    said, compared = f"{len(cases):,} real baskets; median", f"compared with {ACTIVE} alone"
    return [
        alone.figure(f"{ACTIVE} rules on a basket", "us", at_most(1), f"{said}, compared with the limit"),
        elsewhere.figure(
            f"{ACTIVE} rules among {INACTIVE} of other times and places", "us", SLOWER, f"{said}, {compared}"
        ),
        otherwise.figure(
            f"{ACTIVE} rules among {INACTIVE} of other goods, tenders and minima", "us", SLOWER, f"{said}, {compared}"
        ),
        lines.figure(
            f"{ACTIVE} rules on {4 * LINES} lines", "us", LINEAR, f"compared with four times what {LINES} lines take"
        ),
    ]


def _of_lines(cases: Sequence[Case], count: int) -> list[Case]:
    """Baskets of so many lines, made of the lines of others."""
    every = [line for basket, _ in cases for line in basket.lines]
    found = []
    for first in range(0, len(every) - count + 1, count):
        lines = tuple(replace(line, number=place) for place, line in enumerate(every[first : first + count], 1))
        total = sum(line.amount - line.discount for line in lines)
        found.append((Basket(lines, (Tender("cash", total),), total), cases[first // count][1]))
    return found


def _case(body: PurchaseIn, terms: Terms) -> Case:
    return basket_of(body), Occasion(body.occurred_at.astimezone(terms.zone), body.store, body.channel)


def _microseconds(cases: Sequence[Case], terms: Terms) -> float:
    spent = []
    for basket, occasion in cases:
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
