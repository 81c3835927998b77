"""Rewards, redemptions and vouchers.

What was agreed when a reward was ordered, and what a voucher is worth, never changes, by trigger on both engines; each
ends once. Rewards are retired, not deleted.
"""

import sqlalchemy as sa
from alembic import op

from app.reshape import DOCUMENT, INSTANT, WHOLE, fixed, on_postgresql, refuse_on_sqlite

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

REDEMPTION_FACTS = (
    "id, program_id, member_id, reward_id, quantity, points, counted, supplier, cost, currency, voucher_value, "
    "voucher_days, ordered_at"
)
VOUCHER_FACTS = "id, program_id, redemption_id, number, code_hash, value, currency, issued_at, expires_at"


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
        sqlite_with_rowid=False,
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
        sa.CheckConstraint("supplier IN ('own', 'principal', 'agent')", name=op.f("ck_redemption_supplier")),
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
    fixed("reward", "id, program_id, code, created_at", ("id",))  # its code is claimed: ON CONFLICT DO NOTHING
    fixed("redemption", REDEMPTION_FACTS, ("id",))
    fixed("voucher", VOUCHER_FACTS, ("id",), ("code_hash",), ("redemption_id", "number"))
    _ends_once("redemption", "ordered")
    _ends_once("voucher", "issued")


def downgrade() -> None:
    op.drop_table("voucher")
    op.drop_index("ix_redemption_program_id_id", table_name="redemption")
    op.drop_index("ix_redemption_member_id_id", table_name="redemption")
    op.drop_table("redemption")
    op.drop_index("ix_reward_program_id_id", table_name="reward")
    op.drop_table("reward")


def _ends_once(table: str, open_status: str) -> None:
    ended = f"OLD.status <> '{open_status}'"
    if on_postgresql():
        op.execute(
            f"CREATE TRIGGER {table}_ended BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({ended}) "
            "EXECUTE FUNCTION refuse_change()"
        )
    else:
        refuse_on_sqlite(f"{table}_ended", f"UPDATE ON {table}", f"a {table} ends once: UPDATE refused", ended)
