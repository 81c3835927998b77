"""What migrations share: column types, protection of facts on both engines, and changes of tables on SQLite.

SQLite cannot change a constraint or a column's type: `rebuild` makes the table anew from the text it was made with,
copies the rows, and puts indexes and triggers back.
"""

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = postgresql.TIMESTAMP(timezone=True).with_variant(sa.String(32), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def execute(statements: Iterable[str]) -> None:
    for statement in statements:
        op.execute(statement)


# --- SQLite ---------------------------------------------------------------------------------------------------------


def rebuild(
    table: str, changes: Mapping[str, str], fill: Mapping[str, str] | None = None, drop: Sequence[str] = ()
) -> None:
    """Makes `table` anew with the texts of its definition replaced as `changes` say, and copies its rows.

    Each text must be there. `fill` gives the SQL of columns that are new or get another value, `drop` names columns
    that go. Triggers that look at a dropped column must have been dropped before.
    """
    bind = op.get_bind()
    made = sa.text("SELECT sql FROM sqlite_master WHERE tbl_name = :table AND sql IS NOT NULL AND type = :type")
    (definition,) = bind.execute(made, {"table": table, "type": "table"}).scalars()
    indexes = bind.execute(made, {"table": table, "type": "index"}).scalars().all()
    triggers = bind.execute(made, {"table": table, "type": "trigger"}).scalars().all()
    definition = " ".join(definition.split())
    for old, new in changes.items():
        if old not in definition:
            raise RuntimeError(f"the definition of {table} has no {old!r}")
        definition = definition.replace(old, new)
    kept = [row[1] for row in bind.execute(sa.text(f'PRAGMA table_info("{table}")')) if row[1] not in drop]
    columns = dict(zip(kept, kept, strict=True)) | dict(fill or {})
    names, values = ", ".join(columns), ", ".join(columns.values())
    head, body = definition.split("(", 1)
    assert table in head
    # With legacy_alter_table the new name is not looked up in triggers of other tables while the table is away.
    op.execute("PRAGMA legacy_alter_table=ON")
    op.execute(f"CREATE TABLE rebuilt ({body}".replace(":", r"\:"))
    op.execute(f'INSERT INTO rebuilt ({names}) SELECT {values} FROM "{table}"')  # noqa: S608  # names of ours
    op.execute(f'DROP TABLE "{table}"')
    op.execute(f'ALTER TABLE rebuilt RENAME TO "{table}"')
    op.execute("PRAGMA legacy_alter_table=OFF")
    execute(text.replace(":", r"\:") for text in [*indexes, *triggers])


def refuse_on_sqlite(name: str, what: str, message: str, when: str = "1") -> None:
    """A trigger that refuses `what` (`UPDATE ON lot`)."""
    message = message.replace("'", "''")
    op.execute(f"CREATE TRIGGER {name} BEFORE {what} WHEN {when} BEGIN SELECT RAISE(ABORT, '{message}'); END")


def refuse_replace_on_sqlite(table: str, number: int, key: Sequence[str]) -> None:
    """INSERT OR REPLACE deletes the old row without its delete trigger unless recursive_triggers is on, which another
    tool's connection may not have: so the insert itself looks."""
    same = " AND ".join(f"{column} = NEW.{column}" for column in key)
    exists = f'EXISTS (SELECT 1 FROM "{table}" WHERE {same})'  # noqa: S608  # names of ours
    refuse_on_sqlite(f"{table}_no_replace_{number}", f'INSERT ON "{table}"', f"{table} has that row: refused", exists)


# --- facts ----------------------------------------------------------------------------------------------------------


def append_only(table: str, *keys: Sequence[str]) -> None:
    """No UPDATE, DELETE, TRUNCATE or REPLACE on `table`; `keys` are its unique keys."""
    if on_postgresql():
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        _no_truncate(table)
        return
    for verb in ("UPDATE", "DELETE"):
        refuse_on_sqlite(f"{table}_no_{verb.lower()}", f"{verb} ON {table}", f"{table} is append-only: {verb} refused")
    for number, key in enumerate(keys):
        refuse_replace_on_sqlite(table, number, key)


def fixed(table: str, facts: str, *keys: Sequence[str]) -> None:
    """No DELETE, TRUNCATE or REPLACE on `table`, and no UPDATE of the columns `facts`."""
    if on_postgresql():
        for name, what in (("facts", f"UPDATE OF {facts}"), ("kept", "DELETE")):
            op.execute(
                f"CREATE TRIGGER {table}_{name} BEFORE {what} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            )
        _no_truncate(table)
        return
    refuse_on_sqlite(f"{table}_facts", f"UPDATE OF {facts} ON {table}", f"a {table}'s facts are append-only: refused")
    refuse_on_sqlite(f"{table}_kept", f"DELETE ON {table}", f"{table} is append-only: DELETE refused")
    for number, key in enumerate(keys):
        refuse_replace_on_sqlite(table, number, key)


def _no_truncate(table: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
