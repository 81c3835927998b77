"""What earning rules have given members, and what was known of them when a purchase was decided."""

import sqlalchemy as sa
from alembic import op

from app.reshape import DOCUMENT, INSTANT, WHOLE

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COLUMNS = (("transaction", "facts"), ("transaction_claim", "reasons"), ("transaction_claim", "facts"))


def upgrade() -> None:
    op.create_table(
        "rule_use",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("times", WHOLE, nullable=False),
        sa.Column("last_at", INSTANT, nullable=False),
        sa.CheckConstraint("points >= 0", name=op.f("ck_rule_use_points_not_negative")),
        sa.CheckConstraint("times > 0", name=op.f("ck_rule_use_times_positive")),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="fk_rule_use_member_id"),
        sa.PrimaryKeyConstraint("member_id", "rule", "period", name="pk_rule_use"),
    )
    for table, name in COLUMNS:
        op.add_column(table, sa.Column(name, DOCUMENT, nullable=True))


def downgrade() -> None:
    for table, name in COLUMNS:
        op.drop_column(table, name)
    op.drop_table("rule_use")
