"""What stands in for points that a return could not take from their lot."""

import sqlalchemy as sa
from alembic import op

from app.reshape import WHOLE, append_only

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cover",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("lot_id", sa.Uuid(), nullable=True),
        sa.Column("by_lot_id", sa.Uuid(), nullable=True),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("effect", sa.Text(), nullable=False),
        sa.Column("forgiven", sa.Boolean(), nullable=False),
        sa.CheckConstraint("effect IN ('used', 'returned', 'expired')", name=op.f("ck_cover_effect")),
        sa.CheckConstraint("points <> 0", name=op.f("ck_cover_points_not_zero")),
        sa.CheckConstraint("NOT (forgiven AND by_lot_id IS NOT NULL)", name=op.f("ck_cover_forgiven_by_nobody")),
        *(
            sa.ForeignKeyConstraint(["member_id", column], [f"{table}.member_id", f"{table}.id"], name=name)
            for column, table, name in (
                ("lot_id", "lot", "fk_cover_member_id_lot_id"),
                ("by_lot_id", "lot", "fk_cover_member_id_by_lot_id"),
                ("entry_id", "point_entry", "fk_cover_member_id_entry_id"),
            )
        ),
        sa.PrimaryKeyConstraint("member_id", "id", name="pk_cover"),
        sqlite_with_rowid=False,
    )
    append_only("cover", ("member_id", "id"))


def downgrade() -> None:
    op.drop_table("cover")
