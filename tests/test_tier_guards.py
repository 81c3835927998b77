"""Wrong tiers cannot be written: as in `test_guards`, each is tried with its guard and without."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from app.db import Base
from tests.conftest import settings_for
from tests.shop import Shop, TestClock, open_shop, purchase, returned
from tests.test_guards import NEW_ID, Attempt, check, check_guard, trigger
from tests.test_reward_guards import same
from tests.test_tiers import YEARLY


def another(table: str, **changes: str) -> str:
    """An INSERT of a row like an existing one but for `changes`."""
    values = {column.name: column.name for column in Base.metadata.tables[table].columns} | changes
    return f"INSERT INTO {table} ({', '.join(values)}) SELECT {', '.join(values.values())} FROM {table} LIMIT 1"


def entry(**changes: str) -> str:
    return another("qualifying_entry", **{"document_id": NEW_ID} | changes)


def change(**changes: str) -> str:
    return another("tier_change", **{"id": NEW_ID, "from_tier": "NULL", "to_tier": "'silver'"} | changes)


def decision(**changes: str) -> str:
    return another("tier_decision", **{"id": NEW_ID} | changes)


OPEN, ENDED = "WHERE ended_at IS NULL", "WHERE ended_at IS NOT NULL"
FACTS = "program_id member_id kind tier reason note decided_by decided_person decided_at until"
END = {"ended_at": "decided_at", "ended_by": "decided_by", "ended_person": "'eve'", "ended_reason": "'error'"}


def ending(**changes: str) -> str:
    values = ", ".join(f"{name} = {value}" for name, value in (END | changes).items())
    return f"UPDATE tier_decision SET {values} {OPEN}"


ATTEMPTS = [
    trigger("qualifying_entry", "update", "UPDATE qualifying_entry SET spend = spend + 1"),
    trigger("qualifying_entry", "delete", "DELETE FROM qualifying_entry"),
    check("qualifying_entry", "counts_something", entry(points="0", spend="0", visits="0", units="0")),
    check("qualifying_entry", "visits_one_at_most", entry(visits="2")),
    check("qualifying_entry", "visits_one_at_most", entry(visits="-2")),
    check("qualifying_entry", "known_after_it_happened", entry(counted_at="'2030-01-01T00:00:00.000000+00:00'")),
    check("qualifying_entry", "known_after_it_happened", entry(recorded_at="'2020-01-01T00:00:00.000000+00:00'")),
    check("member_tier", "tier_has_since", "UPDATE member_tier SET since = NULL"),
    check("member_tier", "earned_has_since", "UPDATE member_tier SET earned_since = NULL"),
    trigger("tier_change", "update", "UPDATE tier_change SET to_tier = 'gold'"),
    trigger("tier_change", "delete", "DELETE FROM tier_change"),
    check("tier_change", "changes_something", change(to_tier="NULL")),
    check("tier_change", "changes_something", change(from_tier="'silver'")),
    check("tier_change", "why", change(why="'whim'")),
    check("tier_change", "what_somebody_did_has_document", change(document_id="NULL")),
    check("tier_change", "known_after_it_happened", change(changed_at="'2030-01-01T00:00:00.000000+00:00'")),
    check("tier_decision", "kind", decision(kind="'whim'")),
    check("tier_decision", "given_tier", decision(tier="NULL")),
    check("tier_decision", "ends_later", decision(until="decided_at")),
    check("tier_decision", "ended_has_who_and_why", f"UPDATE tier_decision SET ended_at = decided_at {OPEN}"),
    *(check("tier_decision", "ended_has_who_and_why", ending(**{name: "NULL"})) for name in END),
    check("tier_decision", "ended_early", ending(ended_at="until")),
    *(same("tier_decision", "facts", f"UPDATE tier_decision SET {fact} = {fact} {OPEN}") for fact in FACTS.split()),
    same("tier_decision", "ended", f"UPDATE tier_decision SET ended_reason = 'another' {ENDED}"),
    same("tier_decision", "kept", "DELETE FROM tier_decision"),
]


@pytest.fixture
def stocked(database_url: str, clock: TestClock) -> Iterator[Shop]:
    """A member in a tier, one who was, and two decisions of which one has ended."""
    with open_shop(settings_for(database_url), clock, YEARLY) as shop:
        shop.post(purchase("r1", 60_000))
        shop.post(purchase("r2", 60_000, member={"card": "901"}))
        shop.post(returned("b2", "r2"))
        decide(shop)
        yield shop


def decide(shop: Shop) -> None:
    columns = {
        "id": NEW_ID.replace("1'", "2'"),
        "kind": "'manual'",
        "tier": "'gold'",
        "reason": "'complaint'",
        "note": "NULL",
        "decided_by": "(SELECT id FROM client LIMIT 1)",
        "decided_person": "'ann'",
        "decided_at": "'2026-11-22T12:00:00.000000+00:00'",
        "until": "'2026-12-22T12:00:00.000000+00:00'",
    }
    with shop.database.engine.begin() as connection:
        for number in ("2'", "3'"):
            id_ = NEW_ID.replace("1'", number)
            if connection.dialect.name == "sqlite":
                id_ = id_.replace("-", "")
            names, values = ", ".join(columns), ", ".join((columns | {"id": id_}).values())
            connection.execute(
                text(
                    f"INSERT INTO tier_decision (member_id, program_id, {names}) "
                    f"SELECT id, program_id, {values} FROM member LIMIT 1".replace(":", r"\:")
                )
            )
        connection.execute(text(f"{ending()} AND id = {id_}"))


def test_each_guard_refuses_and_nothing_else_does(stocked: Shop) -> None:
    for wrong in ATTEMPTS:
        check_guard(stocked.database.engine, Attempt(escaped(wrong.statement), wrong.postgresql, wrong.sqlite))


def escaped(statement: str) -> str:
    """Instants have colons, which are no parameters."""
    return statement.replace(":", r"\:")
