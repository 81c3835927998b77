"""Stamp cards of members, and what was put on them."""

import sqlalchemy as sa
from alembic import op

from app.reshape import INSTANT, WHOLE, append_only, fixed

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

FACTS = (
    "program_id, member_id, code, number, terms_id, size, head_start, head_start_points, begun_by, begun_at, ends_at"
)


def upgrade() -> None:
    op.create_table(
        "stamp_card",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("terms_id", sa.Uuid(), nullable=False),
        sa.Column("size", WHOLE, nullable=False),
        sa.Column("head_start", WHOLE, nullable=False),
        sa.Column("head_start_points", WHOLE, nullable=False),
        sa.Column("stamps", WHOLE, nullable=False),
        sa.Column("begun_by", sa.Uuid(), nullable=False),
        sa.Column("begun_at", INSTANT, nullable=False),
        sa.Column("ends_at", INSTANT, nullable=True),
        sa.Column("stamped_at", INSTANT, nullable=False),
        sa.Column("full_at", INSTANT, nullable=True),
        sa.CheckConstraint("number > 0", name=op.f("ck_stamp_card_number_positive")),
        sa.CheckConstraint("head_start BETWEEN 0 AND size - 1", name=op.f("ck_stamp_card_head_start_fills_no_card")),
        sa.CheckConstraint(
            "head_start_points >= 0 AND (head_start = 0) = (head_start_points = 0)",
            name=op.f("ck_stamp_card_head_start_has_points"),
        ),
        sa.CheckConstraint("stamps BETWEEN head_start AND size", name=op.f("ck_stamp_card_stamps_within_size")),
        sa.CheckConstraint("(full_at IS NOT NULL) = (stamps = size)", name=op.f("ck_stamp_card_full_with_all_stamps")),
        sa.CheckConstraint("begun_at < ends_at", name=op.f("ck_stamp_card_begins_before_it_ends")),
        sa.CheckConstraint("begun_at <= stamped_at", name=op.f("ck_stamp_card_begun_by_its_first_stamp")),
        _reference("stamp_card", "program_id", "program"),
        _reference("stamp_card", "member_id", "member"),
        _reference("stamp_card", "terms_id", "program_terms"),
        sa.UniqueConstraint("member_id", "code", "number", name="uq_stamp_card_member_id_code_number"),
        sa.PrimaryKeyConstraint("id", name="pk_stamp_card"),
    )
    fixed("stamp_card", FACTS, ("id",), ("member_id", "code", "number"))
    op.create_table(
        "stamp",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("card_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("of_id", sa.Uuid(), nullable=True),
        sa.Column("stamps", WHOLE, nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "stamps <> 0 AND (stamps > 0) = (points > 0) AND points <> 0", name=op.f("ck_stamp_stamps_are_points")
        ),
        sa.CheckConstraint("stamps > 0 OR of_id IS NOT NULL", name=op.f("ck_stamp_comes_off_what_was_put_there")),
        _reference("stamp", "member_id", "member"),
        _reference("stamp", "card_id", "stamp_card"),
        sa.ForeignKeyConstraint(
            ["member_id", "of_id"], ["stamp.member_id", "stamp.id"], name="fk_stamp_member_id_of_id"
        ),
        sa.PrimaryKeyConstraint("member_id", "id", name="pk_stamp"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_stamp_card_id", "stamp", ["card_id"])
    op.create_index("ix_stamp_document_id", "stamp", ["document_id"])
    append_only("stamp", ("member_id", "id"))


def downgrade() -> None:
    for table in ("stamp", "stamp_card"):
        op.drop_table(table)


def _reference(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}")
