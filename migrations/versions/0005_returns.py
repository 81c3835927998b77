"""Returns and voids: what they take back, what they came to, and those that wait for their purchase."""

import sqlalchemy as sa
from alembic import op

from app.reshape import DOCUMENT, INSTANT, execute, on_postgresql, rebuild

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The definition as SQLite keeps it, with single spaces.
COLUMNS = "purchase_id CHAR(32), original_id CHAR(32), outcome JSON, "
CHECKS = {
    "CHECK (type IN ('purchase'))": "CHECK (type IN ('purchase', 'return', 'void'))",
    "CHECK (points >= 0)": "CHECK (points >= 0 OR type <> 'purchase')",
    "CHECK (total >= 0)": "CHECK (total >= 0 OR type = 'void')",
}
NEW_CHECKS = {
    "purchase_is_first": "type <> 'purchase' OR (purchase_id IS NULL AND original_id IS NULL)",
    "void_has_original": "type <> 'void' OR original_id IS NOT NULL",
}
KEYS = {name: f'FOREIGN KEY({name}) REFERENCES "transaction" (id)' for name in ("original_id", "purchase_id")}
VOIDED = sa.text("type = 'void'")


def upgrade() -> None:
    if on_postgresql():
        execute(
            [
                "ALTER TABLE transaction ADD COLUMN purchase_id uuid, ADD COLUMN original_id uuid, "
                "ADD COLUMN outcome jsonb",
                "ALTER TABLE transaction "
                + ", ".join(f"DROP CONSTRAINT ck_transaction_{name}" for name in _CHANGED)
                + "".join(f", ADD CONSTRAINT ck_transaction_{name} {CHECKS[old]}" for name, old in _CHANGED.items())
                + "".join(f", ADD CONSTRAINT ck_transaction_{name} CHECK ({sql})" for name, sql in NEW_CHECKS.items())
                + "".join(f", ADD CONSTRAINT fk_transaction_{name} {sql}" for name, sql in KEYS.items()),
            ]
        )
    else:
        rebuild("transaction", _sqlite())
    op.create_index("ix_transaction_purchase_id", "transaction", ["purchase_id"])
    op.create_index(
        "uq_transaction_voided",
        "transaction",
        ["original_id"],
        unique=True,
        postgresql_where=VOIDED,
        sqlite_where=VOIDED,
    )
    op.create_table(
        "waiting_return",
        sa.Column("program_id", sa.Uuid(), nullable=False),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("source", "external_id", "original_source", "original_external_id")
        ),
        sa.Column("store", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("content", DOCUMENT, nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("alarmed_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_waiting_return_program_id"),
        sa.PrimaryKeyConstraint("program_id", "source", "external_id", name="pk_waiting_return"),
    )
    op.create_index(
        "ix_waiting_return_original",
        "waiting_return",
        ["program_id", "original_source", "original_external_id"],
    )


_CHANGED = {
    "type": "CHECK (type IN ('purchase'))",
    "points_not_negative": "CHECK (points >= 0)",
    "total_not_negative": "CHECK (total >= 0)",
}


def _sqlite() -> dict[str, str]:
    new = "".join(f"CONSTRAINT ck_transaction_{name} CHECK ({sql}), " for name, sql in NEW_CHECKS.items())
    keys = "".join(f"CONSTRAINT fk_transaction_{name} {sql}, " for name, sql in KEYS.items())
    return CHECKS | {
        "shares JSON NOT NULL, ": f"shares JSON NOT NULL, {COLUMNS}",
        "CONSTRAINT fk_transaction_member_id": f"{new}{keys}CONSTRAINT fk_transaction_member_id",
    }


def downgrade() -> None:
    """Back to purchases only. The database refuses if there is anything else in it."""
    op.drop_table("waiting_return")
    op.drop_index("uq_transaction_voided", "transaction")
    op.drop_index("ix_transaction_purchase_id", "transaction")
    if on_postgresql():
        execute(
            [
                "ALTER TABLE transaction "
                + ", ".join(f"DROP CONSTRAINT ck_transaction_{name}" for name in (*_CHANGED, *NEW_CHECKS))
                + "".join(f", DROP COLUMN {name}" for name in ("purchase_id", "original_id", "outcome"))
                + "".join(f", ADD CONSTRAINT ck_transaction_{name} {sql}" for name, sql in _CHANGED.items())
            ]
        )
    else:
        rebuild(
            "transaction",
            {new: old for old, new in _sqlite().items()},
            drop=("purchase_id", "original_id", "outcome"),
        )
