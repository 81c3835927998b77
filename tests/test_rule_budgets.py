"""Budgets of earning rules: for all members together, never exceeded, given out to the end, and no hot row."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DatabaseError

from app.programs.budgets import CHUNKS, chunk, opened, wanted
from app.programs.conditions import Need
from tests.conftest import Engines, settings_for
from tests.points import publish
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned
from tests.test_gathered import another

OPENING = {
    "code": "opening",
    "name": "Fifty points each, a hundred and twenty for all",
    "gives": {"type": "fixed", "points": 50},
    "budget": 120,
}
BUDGETED = TERMS | {"rules": [OPENING]}


def budgeted(budget: int | None, **more: Any) -> dict[str, Any]:
    return TERMS | {"rules": [OPENING | {"budget": budget} | more]}


@pytest.fixture
def opening(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, BUDGETED) as shop:
        yield shop
        shop.prove()


def buy(number: int, **changes: Any) -> dict[str, Any]:
    """A purchase by a member of its own."""
    return purchase(f"r{number}", **{"member": {"card": f"{900 + number}"}} | changes)


def given(answer: dict[str, Any]) -> int:
    return next((each["points"] for each in answer["points"]["reasons"] if each["rule"] == "opening"), 0)


def why(shop: Shop, number: int) -> tuple[int, str | None, bool]:
    explained = shop.get(f"/v1/transactions/store-1/r{number}")["explanation"]
    return next((each["points"], each["why"], each["capped"]) for each in explained if each["rule"] == "opening")


# --- how much is reserved -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "reserved", "room", "more"),
    [
        (Need(50, CHUNKS * 1000), 0, 0, 1000),
        (Need(5_000, CHUNKS * 1000), 0, 0, 5_000),
        (Need(5_000, CHUNKS * 1000), 0, 4_500, 1000),
        (Need(50, 120), 100, 0, 20),
        (Need(50, 120), 120, 0, 0),
        (Need(50, 100), 120, 0, 0),
    ],
    ids=["in advance", "as much as is needed", "beside what there is", "what is left", "nothing left", "cut down"],
)
def test_reserved_at_once(need: Need, reserved: int, room: int, more: int) -> None:
    assert chunk(wanted([{"opening": need}])["opening"], reserved, room) == more


def test_with_the_first_slice_come_others() -> None:
    """Half of what is left is for them; where that is nothing, there are none."""
    few, many = (wanted([{"opening": Need(50, budget)}])["opening"] for budget in (2 * CHUNKS + 49, 2 * CHUNKS * 1000))
    assert opened(few, 50) == []
    assert opened(many, 0) == [1000] * (CHUNKS - 1)


# --- one after the other --------------------------------------------------------------------------------------------


def test_a_budget_is_for_all_members_together(opening: Shop) -> None:
    assert [given(opening.post(buy(n)).json()) for n in range(4)] == [50, 50, 20, 0]
    assert [why(opening, n) for n in range(4)] == [
        (50, None, False),
        (50, None, False),
        (20, None, True),
        (0, "budget", False),
    ]


def test_in_one_batch_as_one_by_one(opening: Shop) -> None:
    assert [given(each["transaction"]) for each in opening.batch([buy(n) for n in range(4)])] == [50, 50, 20, 0]


def test_a_preview_uses_nothing_up(opening: Shop) -> None:
    for _ in range(3):
        assert given(opening.post(buy(1), dry_run=True).json()) == 50
    opening.batch([buy(1), buy(2)])
    assert given(opening.post(buy(3), dry_run=True).json()) == 20


def test_what_comes_back_makes_no_room(opening: Shop) -> None:
    for n in range(3):
        opening.post(buy(n))
    assert opening.post(returned("b0", "r0")).json()["points"]["earned"] < -50
    assert given(opening.post(buy(3)).json()) == 0


def test_a_repeated_purchase_takes_once(opening: Shop) -> None:
    assert [given(opening.post(buy(0)).json()) for _ in range(3)] == [50, 50, 50]
    assert given(opening.post(buy(1)).json()) == 50


def test_a_refused_purchase_takes_nothing(opening: Shop) -> None:
    refused = opening.post(buy(0, currency="EUR"))
    assert refused.status_code == 422
    assert [given(opening.post(buy(n)).json()) for n in range(1, 4)] == [50, 50, 20]


def test_a_guests_purchase_takes_when_it_is_claimed(opening: Shop) -> None:
    ids = [opening.post(purchase(f"g{n}", member=None)).json()["id"] for n in range(4)]
    claims = [
        opening.http.post(
            f"/v1/transactions/{id_}/claim",
            json={"member": {"card": f"{900 + n}"}},
            headers={"Idempotency-Key": f"claim-{n}"},
        ).json()
        for n, id_ in enumerate(ids)
    ]
    assert [given(each) for each in claims] == [50, 50, 20, 0]


def test_only_who_the_rule_is_for_takes_of_it(database_url: str, clock: TestClock) -> None:
    with open_shop(settings_for(database_url), clock, budgeted(100, who={"segments": ["north"]})) as shop:
        assert given(shop.post(buy(1)).json()) == 0
        kept = text("SELECT reserved - (SELECT sum(room) FROM rule_budget_slice) FROM rule_budget")
        assert shop.database.read(lambda session: session.scalar(kept)) == 0
        shop.prove()


def test_a_budget_goes_on_from_version_to_version(opening: Shop, clock: TestClock) -> None:
    """More of it, then less than was given, then none, then one again: what was given while there was one counts."""
    opening.batch([buy(n) for n in range(4)])
    got = []
    for number, budget in enumerate((160, 100, None, 180), start=1):
        clock.forward(minutes=1)
        publish(opening, budgeted(budget))
        got.append(
            [given(opening.post(buy(10 * number + n, occurred_at=clock().isoformat())).json()) for n in range(2)]
        )
        opening.prove()
    assert got == [[40, 0], [0, 0], [50, 50], [20, 0]]


def test_a_budget_that_is_cut_while_much_of_it_is_reserved(database_url: str, clock: TestClock) -> None:
    with open_shop(settings_for(database_url), clock, budgeted(100_000)) as shop:
        shop.post(buy(0))
        clock.forward(minutes=1)
        publish(shop, budgeted(90))
        assert [given(shop.post(buy(n, occurred_at=clock().isoformat())).json()) for n in (1, 2)] == [40, 0]
        shop.prove()


def test_what_was_given_and_what_is_left(opening: Shop, clock: TestClock) -> None:
    path = f"/v1/programs/{opening.program_id}/budgets"
    opening.batch([buy(1), buy(2)])
    shown = {"rule": "opening", "name": OPENING["name"], "in_force": True, "budget": 120, "given": 100, "left": 20}
    assert opening.get(path)["items"] == [shown]
    clock.forward(minutes=1)
    publish(opening, TERMS)
    assert opening.get(path)["items"] == [shown | {"in_force": False}]
    assert opening.http.get("/v1/programs/00000000-0000-0000-0000-000000000000/budgets").status_code == 404


def test_purchases_of_older_terms_in_a_batch_take_nothing_from_others(opening: Shop, clock: TestClock) -> None:
    """A late upload under a budget of 120, among those of today under one of 1,000: each as it would be alone."""
    clock.forward(minutes=1)
    publish(opening, budgeted(1_000))
    now = {"occurred_at": clock().isoformat()}
    bodies = [buy(0), buy(1, **now), buy(2), buy(3, **now), buy(4), buy(5)]
    tried = [given(each["transaction"]) for each in opening.batch(bodies, dry_run=True)]
    assert tried == [given(each["transaction"]) for each in opening.batch(bodies)] == [50, 50, 20, 50, 0, 0]


# --- many at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [120, 1_030, 5_000])
def test_two_processes_give_all_of_it_and_no_more(
    database_url: str, clock: TestClock, crowded: dict[str, int], budget: int
) -> None:
    """Sixty purchases of as many members, at two applications: each gets its points as long as there are any."""
    with ExitStack() as stack:
        shop = stack.enter_context(open_shop(settings_for(database_url, **crowded), clock, budgeted(budget)))
        other = stack.enter_context(another(shop, database_url))
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda n: (shop, other)[n % 2].post(buy(n)).json(), range(60))
            total = sum(given(answer) for answer in answers)
        assert total == min(budget, 60 * 50)
        shop.prove()


def test_a_purchase_waits_for_no_other_that_takes_of_the_budget(engines: Engines, engine: str) -> None:
    """While somebody holds a slice, others go on with another."""
    if engine != "postgresql":
        pytest.skip("on SQLite one writes at a time")
    with open_shop(settings_for(engines.fresh(engine)), TestClock(), budgeted(100_000)) as shop:
        shop.post(buy(0))
        with shop.database.engine.connect() as held:
            held.execute(text("SELECT * FROM rule_budget_slice FOR UPDATE"))
            assert [given(shop.post(buy(n)).json()) for n in range(1, 5)] == [50] * 4
        slices = shop.database.read(lambda session: session.scalar(text("SELECT count(*) FROM rule_budget_slice")))
        assert slices == CHUNKS + 1
        shop.prove()


def test_those_who_begin_together_wait_for_the_budget_once(engines: Engines, engine: str) -> None:
    """As many batches as there are slices are carried out at a time, and nobody has locked the budget by then."""
    if engine != "postgresql":
        pytest.skip("on SQLite one writes at a time")
    with open_shop(settings_for(engines.fresh(engine)), TestClock(), budgeted(100_000)) as shop, ExitStack() as stack:
        shop.post(buy(0))
        held = stack.enter_context(shop.database.engine.connect())
        held.execute(text("SELECT * FROM rule_budget FOR UPDATE"))
        one = "SELECT * FROM rule_budget_slice WHERE room >= 500 LIMIT 1 FOR UPDATE SKIP LOCKED"
        taken = [stack.enter_context(shop.database.engine.connect()).execute(text(one)).all() for _ in range(3)]
        assert all(taken)
        assert [given(each["transaction"]) for each in shop.batch([buy(n) for n in range(1, 9)])] == [50] * 8
        held.rollback()
        shop.prove()


def test_as_many_statements_for_many_purchases_as_for_few(opening: Shop, clock: TestClock) -> None:
    def statements(numbers: Sequence[int]) -> int:
        made: list[str] = []

        def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            made.append(statement)

        event.listen(opening.database.engine, "before_cursor_execute", count)
        opening.batch([buy(n, occurred_at=clock().isoformat()) for n in numbers])
        event.remove(opening.database.engine, "before_cursor_execute", count)
        return len(made)

    clock.forward(minutes=1)
    publish(opening, budgeted(10**9))
    opening.batch([buy(0, occurred_at=clock().isoformat())])
    few, many = statements(range(1, 3)), statements(range(10, 60))
    assert few == many


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE rule_budget SET reserved = budget + 1",
        "UPDATE rule_budget SET reserved = -1",
        "UPDATE rule_budget SET rule = ''",
        "UPDATE rule_budget_slice SET room = -1",
        "UPDATE rule_budget_slice SET number = 0",
        "UPDATE rule_budget_slice SET rule = 'another'",
    ],
)
def test_the_database_refuses_what_cannot_be(opening: Shop, change: str) -> None:
    opening.post(buy(0))
    with pytest.raises(DatabaseError):
        opening.database.write(lambda session: session.execute(text(change)))
