"""Jobs: their runs and leases, what is due, warnings that were sent."""

import sqlalchemy as sa
from alembic import op

from app.reshape import INSTANT, WHOLE, append_only

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

DUE = sa.text("next_due_at IS NOT NULL")
RUNNING = sa.text("status = 'running'")


def upgrade() -> None:
    op.create_index(
        "ix_point_account_due",
        "point_account",
        ["program_id", "next_due_at", "member_id"],
        postgresql_where=DUE,
        sqlite_where=DUE,
    )
    _create_warnings()
    _create_runs()


def downgrade() -> None:
    op.drop_table("job_run")
    op.drop_table("expiry_warning")
    op.drop_index("ix_point_account_due", "point_account")


def _create_warnings() -> None:
    op.create_table(
        "expiry_warning",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("warned_for", INSTANT, nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("points > 0", name=op.f("ck_expiry_warning_points_positive")),
        sa.CheckConstraint("warned_for < expires_at", name=op.f("ck_expiry_warning_warned_before_expiry")),
        sa.ForeignKeyConstraint(["member_id"], ["point_account.member_id"], name="fk_expiry_warning_member_id"),
        sa.PrimaryKeyConstraint("member_id", "expires_at", "warned_for", name="pk_expiry_warning"),
        sqlite_with_rowid=False,
    )
    append_only("expiry_warning", ["member_id", "expires_at", "warned_for"])


def _create_runs() -> None:
    op.create_table(
        "job_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=True),
        sa.Column("as_of", INSTANT, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("leased_until", INSTANT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        *(sa.Column(name, WHOLE, nullable=False) for name in ("rows", "slices", "failures")),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint("status IN ('running', 'done', 'stopped', 'failed')", name=op.f("ck_job_run_status")),
        sa.CheckConstraint("(status = 'running') = (ended_at IS NULL)", name=op.f("ck_job_run_ended_has_time")),
        sa.CheckConstraint("(status = 'failed') = (reason IS NOT NULL)", name=op.f("ck_job_run_failed_has_reason")),
        sa.CheckConstraint("rows >= 0 AND slices >= 0 AND failures >= 0", name=op.f("ck_job_run_counts_not_negative")),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_job_run_program_id"),
        sa.PrimaryKeyConstraint("id", name="pk_job_run"),
    )
    op.create_index(
        "uq_job_run_running", "job_run", ["job"], unique=True, postgresql_where=RUNNING, sqlite_where=RUNNING
    )
    op.create_index("ix_job_run_job_started_at", "job_run", ["job", "started_at"])
