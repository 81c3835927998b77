"""Budgets of earning rules, and the slices that they are given out in."""

import sqlalchemy as sa
from alembic import op

from app.reshape import WHOLE

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rule_budget",
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("reserved", WHOLE, nullable=False),
        sa.Column("budget", WHOLE, nullable=False),
        sa.CheckConstraint("reserved BETWEEN 0 AND budget", name=op.f("ck_rule_budget_reserved_within_budget")),
        sa.CheckConstraint("rule <> ''", name=op.f("ck_rule_budget_rule_named")),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_rule_budget_program_id"),
        sa.PrimaryKeyConstraint("program_id", "rule", name="pk_rule_budget"),
    )
    op.create_table(
        "rule_budget_slice",
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("room", WHOLE, nullable=False),
        sa.CheckConstraint("room >= 0", name=op.f("ck_rule_budget_slice_room_not_negative")),
        sa.CheckConstraint("number > 0", name=op.f("ck_rule_budget_slice_number_positive")),
        sa.ForeignKeyConstraint(
            ["program_id", "rule"],
            ["rule_budget.program_id", "rule_budget.rule"],
            name="fk_rule_budget_slice_program_id_rule",
        ),
        sa.PrimaryKeyConstraint("program_id", "rule", "number", name="pk_rule_budget_slice"),
    )


def downgrade() -> None:
    for table in ("rule_budget_slice", "rule_budget"):
        op.drop_table(table)
