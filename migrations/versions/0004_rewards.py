"""Rewards, redemptions and vouchers.

What was agreed when a reward was ordered, and what a voucher is worth, never changes, by trigger on both engines; each
ends once. Rewards are retired, not deleted.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = postgresql.TIMESTAMP(timezone=True).with_variant(sa.String(32), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

KEPT = ("reward", "redemption", "voucher")
"""Tables whose rows are never deleted."""

ENDED = {"redemption": "OLD.status <> 'ordered'", "voucher": "OLD.status <> 'issued'"}
"""When a row has ended."""

FACTS = {
    "redemption": "id, program_id, member_id, reward_id, quantity, points, counted, supplier, cost, currency, "
    "voucher_value, voucher_days, ordered_at",
    "voucher": "id, program_id, redemption_id, number, code_hash, value, currency, issued_at, expires_at",
}
"""Everything but how it ended."""

KEYS: dict[str, list[tuple[str, ...]]] = {
    "redemption": [("id",)],
    "voucher": [("id",), ("code_hash",), ("redemption_id", "number")],
}
"""The unique keys by which a REPLACE could hit an old row."""


def upgrade() -> None:
    op.create_table(
        "reward",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("offer", DOCUMENT, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("supply", WHOLE, nullable=True),
        sa.Column("taken", WHOLE, nullable=False),
        sa.Column("revision", WHOLE, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("retired_at", INSTANT, nullable=True),
        sa.CheckConstraint("taken >= 0", name=op.f("ck_reward_taken_not_negative")),
        sa.CheckConstraint("taken <= supply", name=op.f("ck_reward_taken_within_supply")),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_reward_program_id"),
        sa.PrimaryKeyConstraint("id", name="pk_reward"),
        sa.UniqueConstraint("program_id", "code", name="uq_reward_program_id_code"),
    )
    op.create_index("ix_reward_program_id_id", "reward", ["program_id", "id"])
    op.create_table(
        "redemption",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("reward_id", sa.Uuid(), nullable=False),
        sa.Column("quantity", WHOLE, nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.Column("supplier", sa.Text(), nullable=False),
        sa.Column("cost", WHOLE, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("voucher_value", WHOLE, nullable=True),
        sa.Column("voucher_days", WHOLE, nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("ordered_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.CheckConstraint("status IN ('ordered', 'fulfilled', 'cancelled')", name=op.f("ck_redemption_status")),
        sa.CheckConstraint("(status = 'ordered') = (ended_at IS NULL)", name=op.f("ck_redemption_ended_has_time")),
        sa.CheckConstraint(
            "supplier IN ('own', 'principal', 'agent')", name=op.f("ck_redemption_supplier")
        ),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_redemption_quantity_positive")),
        sa.CheckConstraint("points > 0", name=op.f("ck_redemption_points_positive")),
        sa.CheckConstraint("cost >= 0", name=op.f("ck_redemption_cost_not_negative")),
        sa.CheckConstraint(
            "(voucher_value IS NULL) = (voucher_days IS NULL)", name=op.f("ck_redemption_voucher_has_both")
        ),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="fk_redemption_member_id"),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_redemption_program_id"),
        sa.ForeignKeyConstraint(["reward_id"], ["reward.id"], name="fk_redemption_reward_id"),
        sa.PrimaryKeyConstraint("id", name="pk_redemption"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_redemption_member_id_id", "redemption", ["member_id", "id"])
    op.create_index("ix_redemption_program_id_id", "redemption", ["program_id", "id"])
    op.create_table(
        "voucher",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("redemption_id", sa.Uuid(), nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("code_hash", sa.Text(), nullable=False),
        sa.Column("value", WHOLE, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("issued_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.CheckConstraint("status IN ('issued', 'burnt', 'cancelled')", name=op.f("ck_voucher_status")),
        sa.CheckConstraint("(status = 'issued') = (ended_at IS NULL)", name=op.f("ck_voucher_ended_has_time")),
        sa.CheckConstraint("(status = 'burnt') = (source IS NOT NULL)", name=op.f("ck_voucher_burnt_has_source")),
        sa.CheckConstraint("(status = 'burnt') = (external_id IS NOT NULL)", name=op.f("ck_voucher_burnt_has_receipt")),
        sa.CheckConstraint("value > 0", name=op.f("ck_voucher_value_positive")),
        sa.CheckConstraint("expires_at > issued_at", name=op.f("ck_voucher_expires_after_issue")),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_voucher_program_id"),
        sa.ForeignKeyConstraint(["redemption_id"], ["redemption.id"], name="fk_voucher_redemption_id"),
        sa.PrimaryKeyConstraint("id", name="pk_voucher"),
        sa.UniqueConstraint("code_hash", name="uq_voucher_code_hash"),
        sa.UniqueConstraint("redemption_id", "number", name="uq_voucher_redemption_id_number"),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        _protect_on_postgresql()
    else:
        _protect_on_sqlite()


def downgrade() -> None:
    op.drop_table("voucher")
    op.drop_index("ix_redemption_program_id_id", table_name="redemption")
    op.drop_index("ix_redemption_member_id_id", table_name="redemption")
    op.drop_table("redemption")
    op.drop_index("ix_reward_program_id_id", table_name="reward")
    op.drop_table("reward")


def _protect_on_postgresql() -> None:
    refuse = "EXECUTE FUNCTION refuse_change()"
    for table in KEPT:
        op.execute(f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} FOR EACH ROW {refuse}")
        op.execute(f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {refuse}")
    for table, ended in ENDED.items():
        op.execute(f"CREATE TRIGGER {table}_ended BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({ended}) {refuse}")
    for table, facts in FACTS.items():
        op.execute(f"CREATE TRIGGER {table}_facts BEFORE UPDATE OF {facts} ON {table} FOR EACH ROW {refuse}")


def _protect_on_sqlite() -> None:
    for table in KEPT:
        _refuse_on_sqlite(f"{table}_kept", f"DELETE ON {table}", f"{table} is append-only: DELETE refused")
    for table, ended in ENDED.items():
        _refuse_on_sqlite(f"{table}_ended", f"UPDATE ON {table}", f"an ended {table} is final: refused", ended)
    for table, facts in FACTS.items():
        what, message = f"UPDATE OF {facts} ON {table}", f"facts of a {table} are append-only: UPDATE refused"
        _refuse_on_sqlite(f"{table}_facts", what, message)
    for table, keys in KEYS.items():
        for number, key in enumerate(keys):
            _refuse_replace_on_sqlite(table, number, key)


def _refuse_on_sqlite(name: str, what: str, message: str, when: str = "1") -> None:
    op.execute(f"CREATE TRIGGER {name} BEFORE {what} WHEN {when} BEGIN SELECT RAISE(ABORT, '{message}'); END")


def _refuse_replace_on_sqlite(table: str, number: int, key: tuple[str, ...]) -> None:
    same = " AND ".join(f"{column} = NEW.{column}" for column in key)
    exists = f"EXISTS (SELECT 1 FROM {table} WHERE {same})"
    _refuse_on_sqlite(f"{table}_no_replace_{number}", f"INSERT ON {table}", f"{table} has that row: refused", exists)
