"""What campaigns gave, and how much of their budgets; entries of that kind; when members joined and bought; who brought
them."""

import sqlalchemy as sa
from alembic import op

from app.reshape import INSTANT, WHOLE, append_only, execute, on_postgresql, rebuild

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

KINDS = "'adjustment', 'transfer_out'"
KINDS_NOW = "'adjustment', 'bonus', 'transfer_out'"
ALL = (
    "'accrual', 'redemption', 'hold', 'capture', 'release', 'activation', 'cancellation', 'expiration', 'reversal', "
    f"'restoration', {KINDS}, 'transfer_in', 'extension', 'reinstatement', 'debt_payment', 'write_off'"
)


def upgrade() -> None:
    _allow(KINDS, KINDS_NOW)
    op.drop_index("ix_transaction_member_id", "transaction")
    op.create_index("ix_transaction_member_id_occurred_at", "transaction", ["member_id", "occurred_at"])
    op.create_index("ix_member_program_id_enrolled_at", "member", ["program_id", "enrolled_at"])
    op.create_table(
        "campaign_grant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("campaign", sa.Text(), nullable=False),
        sa.Column("occasion", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("terms_id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("points > 0", name=op.f("ck_campaign_grant_points_positive")),
        sa.CheckConstraint("campaign <> '' AND occasion <> ''", name=op.f("ck_campaign_grant_names_not_empty")),
        _reference("campaign_grant", "program_id", "program"),
        _reference("campaign_grant", "member_id", "member"),
        _reference("campaign_grant", "terms_id", "program_terms"),
        sa.UniqueConstraint("member_id", "campaign", "occasion", name="uq_campaign_grant_member_id_campaign_occasion"),
        sa.PrimaryKeyConstraint("id", name="pk_campaign_grant"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_campaign_grant_program_id_campaign", "campaign_grant", ["program_id", "campaign"])
    append_only("campaign_grant", ("id",), ("member_id", "campaign", "occasion"))
    op.create_table(
        "campaign_budget",
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("campaign", sa.Text(), nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("grants", WHOLE, nullable=False),
        sa.Column("budget", WHOLE, nullable=True),
        sa.CheckConstraint("points >= 0 AND grants >= 0", name=op.f("ck_campaign_budget_counts_not_negative")),
        sa.CheckConstraint("points <= budget", name=op.f("ck_campaign_budget_points_within_budget")),
        _reference("campaign_budget", "program_id", "program"),
        sa.PrimaryKeyConstraint("program_id", "campaign", name="pk_campaign_budget"),
    )
    op.create_table(
        "member_referral",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("referrer_id", sa.Uuid(), nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("member_id <> referrer_id", name=op.f("ck_member_referral_two_members")),
        _reference("member_referral", "member_id", "member"),
        _reference("member_referral", "program_id", "program"),
        _reference("member_referral", "referrer_id", "member"),
        sa.PrimaryKeyConstraint("member_id", name="pk_member_referral"),
        sqlite_with_rowid=False,
    )
    append_only("member_referral", ("member_id",))


def downgrade() -> None:
    """The database refuses if campaigns gave anything."""
    for table in ("member_referral", "campaign_budget", "campaign_grant"):
        op.drop_table(table)
    op.drop_index("ix_member_program_id_enrolled_at", "member")
    op.drop_index("ix_transaction_member_id_occurred_at", "transaction")
    op.create_index("ix_transaction_member_id", "transaction", ["member_id"])
    _allow(KINDS_NOW, KINDS)


def _reference(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}")


def _allow(old: str, new: str) -> None:
    """Makes entries' kinds those of `new`."""
    if not on_postgresql():
        rebuild("point_entry", {old: new})
        return
    kinds = ALL.replace(KINDS, new)
    execute(
        [
            "ALTER TABLE point_entry DROP CONSTRAINT ck_point_entry_kind, "
            f"ADD CONSTRAINT ck_point_entry_kind CHECK (kind IN ({kinds}))"
        ]
    )
