"""The wrong thing cannot be written: what each constraint and trigger refuses, and that it is the one that refuses it.

Every attempt is made twice: with its guard, and refused; without it, and accepted. A guard that another one shadows,
or that nothing tries, would show here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, create_engine, inspect, text
from sqlalchemy.exc import DatabaseError

from app import schema
from app.db import Base, Database
from app.idempotency import IdempotencyRecord
from app.worker import run_jobs
from tests.conftest import Engines, settings_for
from tests.shop import FOREVER, Shop, TestClock, open_shop, purchase


@dataclass(frozen=True, slots=True)
class Attempt:
    """A statement that must be refused, and the guards that do it on each engine (several where each would suffice)."""

    statement: str
    postgresql: tuple[str, ...]
    sqlite: tuple[str, ...]


def trigger(table: str, verb: str, statement: str) -> Attempt:
    return Attempt(statement, (f"{table}_append_only",), (f"{table}_no_{verb}",))


def check(table: str, name: str, statement: str) -> Attempt:
    return Attempt(statement, (f"ck_{table}_{name}",), ("CHECK",))


def posting(**changes: str) -> str:
    """An INSERT of a posting like an existing one but for `changes`."""
    columns = [
        "id",
        "program_id",
        "debit",
        "credit",
        "amount",
        "currency",
        "cause",
        "cohort_id",
        "document_id",
        "occurred_at",
        "recorded_at",
        "period",
    ]
    values = [(changes | {"id": changes.get("id", NEW_ID)}).get(column, column) for column in columns]
    return f"INSERT INTO journal_posting ({', '.join(columns)}) SELECT {', '.join(values)} FROM journal_posting LIMIT 1"


NEW_ID = "'0199aaaa-0000-7000-8000-000000000001'"


def new_id(connection: Connection) -> str:
    """An id nobody has, as each engine writes it."""
    return NEW_ID.replace("-", "") if connection.dialect.name == "sqlite" else f"CAST({NEW_ID} AS uuid)"


WITHOUT_KEY = "month = NULL, funding = NULL, estimate_class = NULL"

ATTEMPTS = [
    trigger("account", "update", "UPDATE account SET name = 'another' WHERE role = 'revenue_commission'"),
    trigger("account", "delete", "DELETE FROM account WHERE role = 'revenue_commission'"),
    trigger("journal_posting", "update", "UPDATE journal_posting SET amount = amount + 1"),
    trigger("journal_posting", "delete", "DELETE FROM journal_posting"),
    trigger("point_entry", "update", "UPDATE point_entry SET balance_after = balance_after + 1"),
    trigger("transaction", "update", 'UPDATE "transaction" SET points = points + 1 WHERE member_id IS NOT NULL'),
    trigger("transaction_claim", "update", "UPDATE transaction_claim SET points = points + 1"),
    trigger("transaction_claim", "delete", "DELETE FROM transaction_claim"),
    Attempt("UPDATE lot SET allocated = allocated + 1", ("lot_facts",), ("lot_facts",)),
    Attempt("UPDATE lot SET expires_at = NULL, cohort_id = cohort_id", ("lot_facts",), ("lot_facts",)),
    Attempt("DELETE FROM lot", ("lot_kept",), ("lot_kept",)),
    Attempt(
        "UPDATE transaction_key SET external_id = 'x' || external_id",
        ("transaction_key_fixed",),
        ("transaction_key_fixed",),
    ),
    Attempt("DELETE FROM transaction_key", ("transaction_key_kept",), ("transaction_key_kept",)),
    Attempt(
        "UPDATE program_terms SET revision = 9 WHERE version = 1",
        ("program_terms_published",),
        ("program_terms_no_update",),
    ),
    check(
        "program_terms",
        "retired_is_draft",
        "UPDATE program_terms SET published_at = created_at, effective_from = created_at, retired_at = created_at"
        " WHERE version = 2",
    ),
    check("point_account", "available_not_negative", "UPDATE point_account SET available = -1"),
    check("point_account", "debt_not_negative", "UPDATE point_account SET debt = -1"),
    check("point_account", "pending_not_negative", "UPDATE point_account SET pending = -1"),
    check("point_account", "held_not_negative", "UPDATE point_account SET held = -1"),
    check("lot", "held_within_remaining", "UPDATE lot SET held = remaining + 1"),
    Attempt(
        "UPDATE lot SET remaining = -1",
        ("ck_lot_remaining_within_granted", "ck_lot_held_within_remaining"),
        ("CHECK",),
    ),
    check("lot", "remaining_within_granted", "UPDATE lot SET remaining = granted + 1"),
    check("journal_posting", "amount_positive", posting(amount="0")),
    check("journal_posting", "amount_positive", posting(amount="-5")),
    check("journal_posting", "two_accounts", posting(credit="debit")),
    check("journal_posting", "cause", posting(cause="'whim'", cohort_id="NULL")),
    *(
        check("journal_posting", "deferral_has_cohort", posting(cause=f"'{cause}'", cohort_id="NULL"))
        for cause in ("accrual", "provision", "concession")
    ),
    *(
        check("journal_posting", "release_is_of_cohort", posting(cause=f"'{cause}'", cohort_id=cohort_id))
        for cause in ("redemption", "expiry", "estimate", "rounding")
        for cohort_id in ("NULL", "program_id")
    ),
    *(
        check("journal_posting", "rest_has_no_cohort", posting(cause=f"'{cause}'", cohort_id="document_id"))
        for cause in ("sale", "tender", "fulfilment", "write_off", "membership")
    ),
    check("cohort", "used_not_negative", "UPDATE cohort SET used = -1"),
    check("cohort", "expired_not_negative", "UPDATE cohort SET expired = -1"),
    check("cohort", "used_and_expired_within_issued", "UPDATE cohort SET used = issued, expired = 1"),
    check("cohort", "recognised_within_allocated", "UPDATE cohort SET recognised = -1"),
    check("cohort", "recognised_within_allocated", "UPDATE cohort SET recognised = allocated + 1"),
    check("cohort", "expected_millionths_below_one", "UPDATE cohort SET expected_millionths = 1000000"),
    check("cohort_change", "cause", f"UPDATE cohort_change SET cause = 'whim', {WITHOUT_KEY}"),
    check("cohort_change", "accrual_has_key", f"UPDATE cohort_change SET {WITHOUT_KEY}"),
    check("cohort_change", "accrual_has_key", "UPDATE cohort_change SET funding = NULL"),
    check("cohort_change", "accrual_has_key", "UPDATE cohort_change SET estimate_class = NULL"),
    check("cohort_change", "accrual_has_key", "UPDATE cohort_change SET cause = 'return'"),
    check("cohort_change", "accrual_only_issues", "UPDATE cohort_change SET used = 1"),
    check("cohort_change", "accrual_only_issues", "UPDATE cohort_change SET used_as_agent = 1"),
    check("cohort_change", "accrual_only_issues", "UPDATE cohort_change SET expired = 1"),
    check("cohort_change", "expected_millionths_below_one", "UPDATE cohort_change SET expected_millionths = -1"),
    check("member", "status", "UPDATE member SET status = 'grumpy'"),
    check("client", "kind", "UPDATE client SET kind = 'robot'"),
]  # fmt: skip


@pytest.fixture(params=["migrated", "after a round trip"])
def stocked(request: pytest.FixtureRequest, engines: Engines, engine: str) -> Iterator[Shop]:
    """A shop with a member's purchase, a claimed purchase of a guest, and a draft beside the published terms."""
    url = engines.fresh(engine)
    if request.param == "after a round trip":
        database = Database(settings_for(url))
        schema.migrate(database, "base")
        schema.migrate(database)
        database.close()
    with open_shop(settings_for(url), TestClock()) as shop:
        assert shop.post(purchase("r1")).status_code == 201
        run_jobs(shop.database, shop.clock())
        guest = shop.post(purchase("r2", member=None)).json()
        assert (
            shop.http.post(f"/v1/transactions/{guest['id']}/claim", json={"member": {"card": "900"}}).status_code == 201
        )
        assert shop.http.post(f"/v1/programs/{shop.program_id}/terms", json=FOREVER).status_code == 201
        yield shop


def attempt(connection: Connection, statement: str) -> None:
    """Runs `statement`, in a transaction that is always undone."""
    try:
        connection.execute(text(statement))
    finally:
        connection.rollback()


def disarm(connection: Connection, guards: tuple[str, ...], statement: str) -> None:
    """Takes `guards` away, runs `statement`, and undoes both."""
    try:
        if connection.dialect.name == "sqlite" and guards == ("CHECK",):
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        for guard in guards:
            if guard.startswith("ck_"):
                connection.execute(text(f'ALTER TABLE "{table_of(guard)}" DROP CONSTRAINT {guard}'))
            elif guard != "CHECK":
                suffix = "" if connection.dialect.name == "sqlite" else f' ON "{table_of(guard)}"'
                connection.execute(text(f"DROP TRIGGER {guard}{suffix}"))
        assert connection.execute(text(statement)).rowcount > 0
    finally:
        connection.rollback()
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = OFF")
            connection.rollback()


def table_of(guard: str) -> str:
    return next(
        table
        for table in sorted(Base.metadata.tables, key=len, reverse=True)
        if guard.removeprefix("ck_").startswith(table)
    )


def check_guard(engine: Engine, wrong: Attempt) -> None:
    """The attempt is refused by its guards, and accepted without them."""
    with engine.connect() as connection:
        with pytest.raises(DatabaseError) as refused:
            attempt(connection, wrong.statement)
        guards = getattr(wrong, engine.dialect.name)
        if guards[0].startswith("ck_"):
            assert any(guard in str(refused.value) for guard in guards), wrong.statement
        disarm(connection, guards, wrong.statement)


def test_each_guard_refuses_and_nothing_else_does(stocked: Shop) -> None:
    for wrong in ATTEMPTS:
        check_guard(stocked.database.engine, wrong)
    stocked.prove()


@pytest.mark.parametrize("table", ["journal_posting", "point_entry", "transaction", "transaction_claim", "lot"])
def test_replace_and_upsert_are_refused(stocked: Shop, table: str) -> None:
    """INSERT OR REPLACE is a delete and an insert; an upsert is an update. Neither may change a fact."""
    with stocked.database.engine.connect() as connection:
        keys = [column.name for column in Base.metadata.tables[table].primary_key]
        if connection.dialect.name == "sqlite":
            statement = f'INSERT OR REPLACE INTO "{table}" SELECT * FROM "{table}" LIMIT 1'
        else:
            fact = "recorded_at"
            statement = (
                f'INSERT INTO "{table}" SELECT * FROM "{table}" LIMIT 1 '
                f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {fact} = now()"
            )
        with pytest.raises(DatabaseError, match=r"append-only|has that row"):
            attempt(connection, statement)


def test_replace_is_refused_on_any_unique_key_and_any_connection(stocked: Shop) -> None:
    """Another program's SQLite connection lacks our pragmas: then REPLACE deletes without a delete trigger."""
    url = stocked.database.engine.url
    if url.get_backend_name() != "sqlite":
        pytest.skip("a matter of SQLite alone")
    plain = create_engine(url)
    columns = [column.name for column in Base.metadata.tables["point_entry"].columns]
    same_number = ", ".join(NEW_ID.replace("-", "") if name == "id" else name for name in columns)
    with plain.connect() as connection:
        for statement in (
            "INSERT OR REPLACE INTO journal_posting SELECT * FROM journal_posting",
            f"INSERT OR REPLACE INTO point_entry SELECT {same_number} FROM point_entry",
            "REPLACE INTO program_terms SELECT * FROM program_terms WHERE version = 1",
        ):
            with pytest.raises(DatabaseError, match="has that row"):
                attempt(connection, statement)
    plain.dispose()


def test_tables_of_facts_have_no_rowid_to_be_replaced_by(stocked: Shop) -> None:
    if stocked.database.engine.dialect.name == "postgresql":
        pytest.skip("PostgreSQL has no rowid")
    with stocked.database.engine.connect() as connection:
        for table in ("journal_posting", "point_entry", "transaction", "transaction_claim", "lot", "program_terms"):
            with pytest.raises(DatabaseError, match="no such column"):
                attempt(connection, f'SELECT rowid FROM "{table}"')


def test_truncate_is_refused(stocked: Shop) -> None:
    if stocked.database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no TRUNCATE")
    for table in ("journal_posting", "point_entry", "transaction", "transaction_claim", "lot", "transaction_key"):
        with stocked.database.engine.connect() as connection, pytest.raises(DatabaseError, match="append-only"):
            attempt(connection, f'TRUNCATE "{table}" CASCADE')


def test_a_draft_may_change_and_a_published_version_may_not(stocked: Shop) -> None:
    with stocked.database.engine.connect() as connection:
        attempt(connection, "UPDATE program_terms SET revision = revision + 1 WHERE version = 2")
        with pytest.raises(DatabaseError):
            attempt(connection, "DELETE FROM program_terms WHERE version = 1")


@pytest.mark.parametrize(
    "change", ["UPDATE program_terms SET retired_at = NULL WHERE version = 2", "DELETE FROM program_terms"]
)
def test_a_retired_draft_stays_retired(stocked: Shop, change: str) -> None:
    path = f"/v1/programs/{stocked.program_id}/terms/2/retirement"
    assert stocked.http.post(path).status_code == 200
    with stocked.database.engine.connect() as connection, pytest.raises(DatabaseError, match=r"refused"):
        attempt(connection, change + (" WHERE version = 2" if "DELETE" in change else ""))


def test_one_of_each(stocked: Shop) -> None:
    """What must be unique: a receipt, an entry's number, a claim, an identifier."""
    with stocked.database.engine.connect() as connection:
        for table, fresh in (
            ("transaction_key", "transaction_id"),
            ("point_entry", "id"),
            ("transaction_claim", "id"),
            ("member_identifier", "member_id"),
        ):
            names = [column.name for column in Base.metadata.tables[table].columns]
            values = ", ".join(new_id(connection) if name == fresh else name for name in names)
            insert = f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} LIMIT 1"
            with pytest.raises(DatabaseError, match=r"(?i)unique|has that row"):
                attempt(connection, insert)


def test_a_posting_needs_accounts_of_its_programme(stocked: Shop) -> None:
    with stocked.database.engine.connect() as connection, pytest.raises(DatabaseError, match=r"(?i)foreign key"):
        attempt(connection, posting(id=new_id(connection), debit="'9999'"))


# --- the schema -----------------------------------------------------------------------------------------------------

APPEND_ONLY = {
    "account": 2,
    "journal_posting": 1,
    "point_entry": 2,
    "transaction": 1,
    "transaction_claim": 2,
    "transaction_concession": 1,
    "lot_use": 1,
    "lot_return": 1,
    "cover": 1,
    "hold_lot": 1,
    "expiry_warning": 1,
    "hold_request": 1,
    "transfer": 1,
    "qualifying_entry": 1,
    "tier_change": 1,
    "campaign_grant": 2,
    "stamp": 1,
    "member_referral": 1,
    "member_event": 2,
    "club_credit": 1,
}
"""Tables whose rows never change, and how many unique keys a REPLACE could hit an old row by."""

OTHERS = {
    "lot_facts",
    "lot_kept",
    "hold_facts",
    "hold_kept",
    "hold_ended",
    "reward_facts",
    "reward_kept",
    "redemption_facts",
    "redemption_kept",
    "redemption_ended",
    "voucher_facts",
    "voucher_kept",
    "voucher_ended",
    "adjustment_facts",
    "adjustment_kept",
    "adjustment_ended",
    "tier_decision_facts",
    "tier_decision_kept",
    "tier_decision_ended",
    "club_membership_facts",
    "club_membership_kept",
    "stamp_card_facts",
    "stamp_card_kept",
    "transaction_key_fixed",
    "transaction_key_kept",
    "program_terms_retired",
    "program_terms_retired_kept",
}

TRIGGERS = {
    "postgresql": {
        *(f"{table}_append_only" for table in APPEND_ONLY),
        *(
            f"{table}_no_truncate"
            for table in (
                *APPEND_ONLY,
                "lot",
                "hold",
                "reward",
                "redemption",
                "voucher",
                "adjustment",
                "tier_decision",
                "club_membership",
                "stamp_card",
                "program_terms",
                "transaction_key",
            )
        ),
        "program_terms_published",
        *OTHERS,
    },
    "sqlite": {
        *(f"{table}_no_{verb}" for table in (*APPEND_ONLY, "program_terms") for verb in ("update", "delete")),
        *(
            f"{table}_no_replace_{number}"
            for table, keys in (
                APPEND_ONLY
                | {
                    "program_terms": 3,
                    "lot": 1,
                    "hold": 2,
                    "reward": 1,
                    "redemption": 1,
                    "voucher": 3,
                    "adjustment": 1,
                    "tier_decision": 1,
                    "club_membership": 3,
                    "stamp_card": 2,
                }
            ).items()
            for number in range(keys)
        ),
        *OTHERS,
    },
}


def guards_of(database: Database) -> dict[str, set[str]]:
    """The names of everything that guards the schema, as the database has it."""
    found = inspect(database.engine)
    names: dict[str, set[str]] = {}
    for table in Base.metadata.tables:
        names[table] = {
            str(constraint["name"])
            for constraints in (
                [found.get_pk_constraint(table)],
                found.get_unique_constraints(table),
                found.get_foreign_keys(table),
                found.get_check_constraints(table),
                found.get_indexes(table),
            )
            for constraint in constraints
        }
    statement = (
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
        if database.engine.dialect.name == "postgresql"
        else "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    )
    with database.engine.connect() as connection:
        names["triggers"] = set(connection.execute(text(statement)).scalars())
    return names


def declared_guards(metadata: MetaData) -> dict[str, set[str]]:
    """The names of everything that guards the schema, as the models declare it."""
    names: dict[str, set[str]] = {}
    for table in metadata.tables.values():
        parts: list[Any] = [*table.constraints, *table.indexes]
        names[table.name] = {str(part.name) for part in parts}
    return names


def test_the_schema_has_every_guard_also_after_a_round_trip(engines: Engines, engine: str) -> None:
    assert IdempotencyRecord.__tablename__ in Base.metadata.tables
    database = Database(settings_for(engines.empty(engine)))
    schema.migrate(database)
    first = guards_of(database)
    assert first == declared_guards(Base.metadata) | {"triggers": TRIGGERS[engine]}
    schema.migrate(database, "base")
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    schema.migrate(database)
    assert guards_of(database) == first
    database.close()


def test_models_and_migrations_agree(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
