"""Requests for holds; transfers between members; pools."""

import sqlalchemy as sa
from alembic import op

from app.reshape import INSTANT, WHOLE, append_only

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_hold_program_id_id", "hold", ["program_id", "id"])
    op.create_table(
        "hold_request",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("hold_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["member_id", "hold_id"], ["hold.member_id", "hold.id"], name="fk_hold_request_member_id_hold_id"
        ),
        _reference("hold_request", "client_id", "client"),
        sa.PrimaryKeyConstraint("member_id", "hold_id", name="pk_hold_request"),
        sqlite_with_rowid=False,
    )
    append_only("hold_request", ("member_id", "hold_id"))
    _create_pools()
    op.create_table(
        "transfer",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("from_member_id", sa.Uuid(), nullable=False),
        sa.Column("to_member_id", sa.Uuid(), nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("pool_id", sa.Uuid(), nullable=True),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("points > 0", name=op.f("ck_transfer_points_positive")),
        sa.CheckConstraint("from_member_id <> to_member_id", name=op.f("ck_transfer_two_members")),
        _reference("transfer", "program_id", "program"),
        _reference("transfer", "from_member_id", "member"),
        _reference("transfer", "to_member_id", "member"),
        _reference("transfer", "pool_id", "pool"),
        _reference("transfer", "client_id", "client"),
        sa.PrimaryKeyConstraint("id", name="pk_transfer"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_transfer_from_member_id_occurred_at", "transfer", ["from_member_id", "occurred_at"])
    op.create_index("ix_transfer_to_member_id", "transfer", ["to_member_id"])
    append_only("transfer", ("id",))


def _create_pools() -> None:
    op.create_table(
        "pool",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        _reference("pool", "program_id", "program"),
        sa.PrimaryKeyConstraint("id", name="pk_pool"),
    )
    op.create_table(
        "pool_member",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("pool_id", sa.Uuid(), nullable=False),
        sa.Column("joined_at", INSTANT, nullable=False),
        _reference("pool_member", "member_id", "member"),
        _reference("pool_member", "pool_id", "pool"),
        sa.PrimaryKeyConstraint("member_id", name="pk_pool_member"),
    )
    op.create_index("ix_pool_member_pool_id", "pool_member", ["pool_id"])


def _reference(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}")


def downgrade() -> None:
    for table in ("transfer", "pool_member", "pool", "hold_request"):
        op.drop_table(table)
    op.drop_index("ix_hold_program_id_id", "hold")
