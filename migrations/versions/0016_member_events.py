"""What happened to members outside of purchases, for campaigns."""

import sqlalchemy as sa
from alembic import op

from app.reshape import INSTANT, append_only

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "member_event",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_member_event_program_id"),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="fk_member_event_member_id"),
        sa.UniqueConstraint(
            "program_id", "source", "external_id", name="uq_member_event_program_id_source_external_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_member_event"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_member_event_member_id", "member_event", ["member_id"])
    append_only("member_event", ("id",), ("program_id", "source", "external_id"))


def downgrade() -> None:
    op.drop_table("member_event")
