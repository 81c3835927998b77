"""Wrong orders and vouchers cannot be written: as in `test_guards`, each is tried with its guard and without."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from app.db import Base
from tests.shop import Shop
from tests.test_guards import NEW_ID, Attempt, attempt, check, check_guard
from tests.test_rewards import MUG, added, end, member_with, ordered
from tests.test_vouchers import FIVE_OFF


def same(table: str, name: str, statement: str) -> Attempt:
    """A guard with one name on both engines."""
    return Attempt(statement, (f"{table}_{name}",), (f"{table}_{name}",))


def another(table: str, **changes: str) -> str:
    """An INSERT of a row like an existing one but for its id and `changes`."""
    values = {column.name: column.name for column in Base.metadata.tables[table].columns} | {"id": NEW_ID} | changes
    return f"INSERT INTO {table} ({', '.join(values)}) SELECT {', '.join(values.values())} FROM {table} LIMIT 1"


def another_voucher(**changes: str) -> str:
    return another("voucher", number="number + 1", code_hash="'x'", **changes)


ORDERED, ENDED = "WHERE status = 'ordered'", "WHERE status <> 'ordered'"
ISSUED, BURNT = "WHERE status = 'issued'", "WHERE status = 'burnt'"
REWARD_FACTS = "id program_id code created_at"
REDEMPTION_FACTS = "program_id member_id reward_id quantity points counted supplier cost currency ordered_at"
VOUCHER_FACTS = "program_id redemption_id number code_hash value currency issued_at expires_at"

ATTEMPTS = [
    check("reward", "taken_not_negative", "UPDATE reward SET taken = -1"),
    check("reward", "taken_within_supply", "UPDATE reward SET taken = supply + 1 WHERE supply IS NOT NULL"),
    *(same("reward", "facts", f"UPDATE reward SET {fact} = {fact}") for fact in REWARD_FACTS.split()),
    same("reward", "kept", "DELETE FROM reward WHERE id NOT IN (SELECT reward_id FROM redemption)"),
    check("redemption", "status", f"UPDATE redemption SET status = 'lost', ended_at = ordered_at {ORDERED}"),
    check("redemption", "ended_has_time", f"UPDATE redemption SET status = 'fulfilled' {ORDERED}"),
    check("redemption", "ended_has_time", f"UPDATE redemption SET ended_at = ordered_at {ORDERED}"),
    check("redemption", "quantity_positive", another("redemption", quantity="0")),
    check("redemption", "points_positive", another("redemption", points="0")),
    check("redemption", "cost_not_negative", another("redemption", cost="-1")),
    check("redemption", "supplier", another("redemption", supplier="'friend'")),
    check("redemption", "voucher_has_both", another("redemption", voucher_value="500", voucher_days="NULL")),
    *(
        same("redemption", "facts", f"UPDATE redemption SET {fact} = {fact} {ORDERED}")
        for fact in REDEMPTION_FACTS.split()
    ),
    same("redemption", "ended", f"UPDATE redemption SET ended_at = ordered_at {ENDED}"),
    same("redemption", "ended", f"UPDATE redemption SET status = 'ordered', ended_at = NULL {ENDED}"),
    same("redemption", "kept", "DELETE FROM redemption WHERE id NOT IN (SELECT redemption_id FROM voucher)"),
    check("voucher", "status", f"UPDATE voucher SET status = 'lost', ended_at = issued_at {ISSUED}"),
    check("voucher", "ended_has_time", f"UPDATE voucher SET status = 'cancelled' {ISSUED}"),
    check(
        "voucher",
        "burnt_has_source",
        f"UPDATE voucher SET status = 'burnt', ended_at = issued_at, external_id = 'r' {ISSUED}",
    ),
    check(
        "voucher",
        "burnt_has_receipt",
        f"UPDATE voucher SET status = 'burnt', ended_at = issued_at, source = 's' {ISSUED}",
    ),
    check("voucher", "value_positive", another_voucher(value="0")),
    check("voucher", "expires_after_issue", another_voucher(expires_at="issued_at")),
    *(same("voucher", "facts", f"UPDATE voucher SET {fact} = {fact} {ISSUED}") for fact in VOUCHER_FACTS.split()),
    same("voucher", "ended", f"UPDATE voucher SET external_id = 'r2' {BURNT}"),
    same("voucher", "kept", "DELETE FROM voucher"),
]


@pytest.fixture
def stocked(shop: Shop) -> Shop:
    """A reward nobody wanted, an order, a cancelled one, and two vouchers of which one was burnt."""
    added(shop, supply=5)
    added(shop, code="shelf-warmer")
    added(shop, **FIVE_OFF)
    member = member_with(shop, 10 * MUG["points"])
    ordered(shop, member)
    end(shop, ordered(shop, member), "cancellation")
    vouchers = [ordered(shop, member, "five-off", immediate=True)["vouchers"][0] for _ in range(2)]
    receipt = {"source": "store-1", "external_id": "r77"}
    assert shop.http.post(f"/v1/vouchers/{vouchers[0]['code']}/burn", json=receipt).status_code == 200
    return shop


def test_each_guard_refuses_and_nothing_else_does(stocked: Shop) -> None:
    for wrong in ATTEMPTS:
        check_guard(stocked.database.engine, wrong)
    stocked.prove()


@pytest.mark.parametrize("table", ["reward", "redemption", "voucher"])
def test_replace_and_truncate_are_refused(stocked: Shop, table: str) -> None:
    with stocked.database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            statement = f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}"
        else:
            statement = f"TRUNCATE {table} CASCADE"
        with pytest.raises(DatabaseError, match=r"append-only|has that row"):
            attempt(connection, statement)


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        ("reward", {}),
        ("voucher", {"code_hash": "'x'"}),
        ("voucher", {"number": "number + 1"}),
    ],
)
def test_one_of_each(stocked: Shop, table: str, changes: dict[str, str]) -> None:
    """A code in its programme, a voucher of a piece, a voucher of a code."""
    with stocked.database.engine.connect() as connection:
        with pytest.raises(DatabaseError, match=r"(?i)unique|has that row"):
            attempt(connection, another(table, **changes))
        assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() > 0
