"""Limits, cooldowns and budgets under two processes of the service, as it runs in production."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.demo import free_port, serving
from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase
from tests.test_rule_budgets import OPENING
from tests.test_rule_limits import LUNCH, VISIT, WELCOME

BUDGET = 1_010
RULED = TERMS | {"rules": [VISIT, WELCOME, LUNCH, OPENING | {"budget": BUDGET}]}
OURS, OTHERS = 20, 20
"""Purchases of one member, and of members who buy once."""
PASSING = {409, 503}
"""Somebody else is at work on the same receipt, or the service is busy: to be sent again."""


@pytest.fixture
def shop(database_url: str) -> Iterator[Shop]:
    clock = TestClock()
    clock.now = datetime.now(UTC)  # the processes have no other
    with open_shop(settings_for(database_url), clock, RULED) as shop:
        yield shop


@pytest.fixture
def tills(shop: Shop, database_url: str) -> Iterator[list[httpx.Client]]:
    """One at each of two processes."""
    ports = free_port(), free_port()
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(serving(settings_for(database_url, port=port)))
        headers = {"Authorization": f"Bearer {shop.keys['terminal']}"}
        yield [
            stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60))
            for port in ports
        ]


def test_no_limit_is_exceeded_and_none_is_left_unused(shop: Shop, tills: list[httpx.Client]) -> None:
    """Each receipt comes to both processes at the same moment: one of them records it, and the rules give no more than
    they may, and all of that."""
    at = (shop.clock.now - timedelta(minutes=1)).isoformat()
    cards = ["900"] * OURS + [f"{1000 + number}" for number in range(OTHERS)]
    bodies = [purchase(f"r{number}", member={"card": card}, occurred_at=at) for number, card in enumerate(cards)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(post, tills * len(bodies), [body for body in bodies for _ in tills]))
    recorded = [answer for answer in answers if not answer["duplicate"]]
    assert len(recorded) == len(bodies) == len({answer["id"] for answer in answers})
    receipts = {body["external_id"] for body in bodies[:OURS]}
    ours = sum((given(each) for each in recorded if each["external_id"] in receipts), Counter[str]())
    assert {code: ours[code] for code in ("visit", "welcome", "lunch")} == {"visit": 120, "welcome": 500, "lunch": 7}
    everybody = sum(map(given, recorded), Counter[str]())
    assert everybody["opening"] == BUDGET
    assert everybody["visit"] == 120 + OTHERS * 50
    shop.clock.now = datetime.now(UTC)
    (budget,) = shop.client("operator").get(f"/v1/programs/{shop.program_id}/budgets").json()["items"]
    assert (budget["given"], budget["left"]) == (BUDGET, 0)
    shop.prove()


def post(till: httpx.Client, body: dict[str, Any]) -> Any:
    while (answer := till.post("/v1/transactions", json=body)).status_code in PASSING:
        time.sleep(0.05)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def given(answer: dict[str, Any]) -> Counter[str]:
    return Counter({each["rule"]: each["points"] for each in answer["points"]["reasons"]})
