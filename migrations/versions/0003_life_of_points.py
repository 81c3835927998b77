"""Points after they are earned: entries with every figure they change, uses of lots, holds, returns."""

import sqlalchemy as sa
from alembic import op

from app.reshape import (
    INSTANT,
    WHOLE,
    append_only,
    execute,
    fixed,
    on_postgresql,
    rebuild,
    refuse_on_sqlite,
    refuse_replace_on_sqlite,
)

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KINDS = (
    "'accrual', 'redemption', 'hold', 'capture', 'release', 'activation', 'cancellation', 'expiration', 'reversal', "
    "'restoration', 'adjustment', 'transfer_out', 'transfer_in', 'extension', 'reinstatement', 'debt_payment', "
    "'write_off'"
)
FIGURES = ("available", "held", "pending", "debt", "qualifying", "lifetime")
OLD_LOT_FACTS = (
    "member_id, id, entry_id, granted, available_from, expires_at, cohort_id, currency, allocated, residue, expected, "
    "document_id, occurred_at, recorded_at"
)
LOT_FACTS = f"{OLD_LOT_FACTS}, lapses, funding, source_lot_id"
HOLD_FACTS = "member_id, id, program_id, entry_id, points, ends_at, occurred_at, recorded_at"

LOT_CHECKS = {
    "held_within_remaining": "held BETWEEN 0 AND remaining",
    "lapses_or_expires": "NOT (lapses AND expires_at IS NOT NULL)",
    "available_from_known": "pending OR available_from IS NOT NULL",
    "moved_defers_nothing": "source_lot_id IS NULL OR (allocated = 0 AND residue = 0 AND expected = 0)",
}
SUM = "points = available + held + pending - debt"
OLD_ENTRY_CHECKS = {"balance_after_not_negative": "balance_after >= 0", "points_not_zero": "points <> 0"}
HELD = "CONSTRAINT ck_point_account_held_at_most_available CHECK (held <= available)"


def upgrade() -> None:
    (_upgrade_postgresql if on_postgresql() else _upgrade_sqlite)()
    op.create_index("ix_point_entry_document_id", "point_entry", ["document_id"])
    _create_uses()
    _create_holds()


def downgrade() -> None:
    """Back to a ledger that only knows accruals. The database refuses if there is anything else in it."""
    for table in ("hold_lot", "hold", "lot_return", "lot_use"):
        op.drop_table(table)
    op.drop_index("ix_point_entry_document_id", "point_entry")
    (_downgrade_postgresql if on_postgresql() else _downgrade_sqlite)()


# --- what there was -------------------------------------------------------------------------------------------------


def _upgrade_postgresql() -> None:
    figures = ", ".join(f"ADD COLUMN {name} bigint NOT NULL DEFAULT 0" for name in FIGURES)
    execute(
        [
            "ALTER TABLE point_account ADD COLUMN lapses_at timestamptz, "
            "DROP CONSTRAINT ck_point_account_held_at_most_available",
            "ALTER TABLE point_entry DISABLE TRIGGER point_entry_append_only",
            f"ALTER TABLE point_entry {figures}, ADD COLUMN lapses_at timestamptz, "
            "DROP CONSTRAINT ck_point_entry_kind, DROP CONSTRAINT ck_point_entry_balance_after_not_negative, "
            "DROP CONSTRAINT ck_point_entry_points_not_zero",
            "UPDATE point_entry SET available = points, qualifying = points, lifetime = points",
            "ALTER TABLE point_entry ENABLE TRIGGER point_entry_append_only",
            "ALTER TABLE point_entry "
            + ", ".join(f"ALTER COLUMN {name} DROP DEFAULT" for name in FIGURES)
            + f", ADD CONSTRAINT ck_point_entry_kind CHECK (kind IN ({KINDS}))"
            + f", ADD CONSTRAINT ck_point_entry_points_are_the_sum CHECK ({SUM})",
            "ALTER TABLE lot ADD COLUMN held bigint NOT NULL DEFAULT 0, "
            "ADD COLUMN pending boolean NOT NULL DEFAULT false, ADD COLUMN lapses boolean NOT NULL DEFAULT false, "
            "ADD COLUMN funding text NOT NULL DEFAULT 'purchase', ADD COLUMN source_lot_id uuid, "
            "ALTER COLUMN available_from DROP NOT NULL, DROP CONSTRAINT uq_lot_member_id_entry_id",
            "ALTER TABLE lot "
            + ", ".join(f"ALTER COLUMN {name} DROP DEFAULT" for name in ("held", "pending", "lapses", "funding"))
            + "".join(f", ADD CONSTRAINT ck_lot_{name} CHECK ({check})" for name, check in LOT_CHECKS.items()),
            "DROP TRIGGER lot_facts ON lot",
            f"CREATE TRIGGER lot_facts BEFORE UPDATE OF {LOT_FACTS} ON lot "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
        ]
    )


def _downgrade_postgresql() -> None:
    execute(
        [
            "DROP TRIGGER lot_facts ON lot",
            "ALTER TABLE lot "
            + ", ".join(f"DROP CONSTRAINT ck_lot_{name}" for name in LOT_CHECKS)
            + "".join(f", DROP COLUMN {name}" for name in ("held", "pending", "lapses", "funding", "source_lot_id"))
            + ", ALTER COLUMN available_from SET NOT NULL"
            + ", ADD CONSTRAINT uq_lot_member_id_entry_id UNIQUE (member_id, entry_id)",
            f"CREATE TRIGGER lot_facts BEFORE UPDATE OF {OLD_LOT_FACTS} ON lot "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
            "ALTER TABLE point_entry DROP CONSTRAINT ck_point_entry_kind, "
            "DROP CONSTRAINT ck_point_entry_points_are_the_sum, "
            + ", ".join(f"DROP COLUMN {name}" for name in (*FIGURES, "lapses_at"))
            + ", ADD CONSTRAINT ck_point_entry_kind CHECK (kind IN ('accrual'))"
            + "".join(
                f", ADD CONSTRAINT ck_point_entry_{name} CHECK ({sql})" for name, sql in OLD_ENTRY_CHECKS.items()
            ),
            "ALTER TABLE point_account DROP COLUMN lapses_at, "
            "ADD CONSTRAINT ck_point_account_held_at_most_available CHECK (held <= available)",
        ]
    )


# The definitions as SQLite keeps them, with single spaces.
_ENTRY = {
    "CHECK (kind IN ('accrual'))": f"CHECK (kind IN ({KINDS}))",
    "CONSTRAINT ck_point_entry_balance_after_not_negative CHECK (balance_after >= 0)": (
        f"CONSTRAINT ck_point_entry_points_are_the_sum CHECK ({SUM})"
    ),
    "CONSTRAINT ck_point_entry_points_not_zero CHECK (points <> 0), ": "",
    "recorded_at VARCHAR(32) NOT NULL, ": "recorded_at VARCHAR(32) NOT NULL, "
    + "".join(f"{name} INTEGER NOT NULL, " for name in FIGURES)
    + "lapses_at VARCHAR(32), ",
}
_LOT = {
    "available_from VARCHAR(32) NOT NULL": "available_from VARCHAR(32)",
    "recorded_at VARCHAR(32) NOT NULL, ": "recorded_at VARCHAR(32) NOT NULL, held INTEGER NOT NULL, "
    "pending BOOLEAN NOT NULL, lapses BOOLEAN NOT NULL, funding TEXT NOT NULL, source_lot_id CHAR(32), ",
    "CONSTRAINT uq_lot_member_id_entry_id UNIQUE (member_id, entry_id)": ", ".join(
        f"CONSTRAINT ck_lot_{name} CHECK ({check})" for name, check in LOT_CHECKS.items()
    ),
}
_NO_LAPSE = {"next_due_at VARCHAR(32), ": "next_due_at VARCHAR(32), lapses_at VARCHAR(32), ", f"{HELD}, ": ""}


def _upgrade_sqlite() -> None:
    op.execute("DROP TRIGGER lot_facts")
    op.execute("DROP TRIGGER lot_no_replace_1")
    rebuild("point_account", _NO_LAPSE)
    earned = dict.fromkeys(("available", "qualifying", "lifetime"), "points")
    rebuild("point_entry", _ENTRY, dict.fromkeys(FIGURES, "0") | earned)
    rebuild("lot", _LOT, {"held": "0", "pending": "0", "lapses": "0", "funding": "'purchase'"})
    refuse_on_sqlite("lot_facts", f"UPDATE OF {LOT_FACTS} ON lot", "a lot's facts are append-only: UPDATE refused")


def _downgrade_sqlite() -> None:
    op.execute("DROP TRIGGER lot_facts")
    rebuild("lot", _backwards(_LOT), drop=("held", "pending", "lapses", "funding", "source_lot_id"))
    rebuild("point_entry", _backwards(_ENTRY), drop=(*FIGURES, "lapses_at"))
    account = {
        "lapses_at VARCHAR(32), ": "",
        "CONSTRAINT ck_point_account_held_not": f"{HELD}, CONSTRAINT ck_point_account_held_not",
    }
    rebuild("point_account", account, drop=("lapses_at",))
    refuse_on_sqlite("lot_facts", f"UPDATE OF {OLD_LOT_FACTS} ON lot", "a lot's facts are append-only: UPDATE refused")
    refuse_replace_on_sqlite("lot", 1, ("member_id", "entry_id"))


def _backwards(changes: dict[str, str]) -> dict[str, str]:
    """The changes that undo `changes`. One that removes a text is undone where the text after it begins."""
    undone = {new: old for old, new in changes.items() if new}
    if any(not new for new in changes.values()):
        undone["CONSTRAINT fk_point_entry_member_id"] = (
            "CONSTRAINT ck_point_entry_points_not_zero CHECK (points <> 0), CONSTRAINT fk_point_entry_member_id"
        )
    return undone


# --- what is new ----------------------------------------------------------------------------------------------------


def _create_uses() -> None:
    op.create_table(
        "lot_use",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("lot_id", sa.Uuid(), nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("effect", sa.Text(), nullable=False),
        sa.CheckConstraint("effect IN ('used', 'expired', 'returned', 'moved')", name=op.f("ck_lot_use_effect")),
        sa.CheckConstraint("points <> 0", name=op.f("ck_lot_use_points_not_zero")),
        *_of_lot_and_entry("lot_use"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_lot_use_member_id_lot_id", "lot_use", ["member_id", "lot_id"])
    op.create_index("ix_lot_use_member_id_entry_id", "lot_use", ["member_id", "entry_id"])
    op.create_table(
        "lot_return",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("lot_id", sa.Uuid(), nullable=False),
        *(
            sa.Column(name, WHOLE, nullable=False)
            for name in ("points", "allocated", "residue", "expected", "of_used", "of_expired")
        ),
        sa.CheckConstraint("points <> 0", name=op.f("ck_lot_return_points_not_zero")),
        sa.CheckConstraint("abs(of_used + of_expired) <= abs(points)", name=op.f("ck_lot_return_parts_within_points")),
        *_of_lot_and_entry("lot_return"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_lot_return_member_id_lot_id", "lot_return", ["member_id", "lot_id"])
    append_only("lot_use", ("member_id", "id"))
    append_only("lot_return", ("member_id", "id"))


def _of_lot_and_entry(table: str) -> list[sa.Constraint]:
    return [
        sa.ForeignKeyConstraint(
            ["member_id", "entry_id"],
            ["point_entry.member_id", "point_entry.id"],
            name=f"fk_{table}_member_id_entry_id",
        ),
        sa.ForeignKeyConstraint(
            ["member_id", "lot_id"], ["lot.member_id", "lot.id"], name=f"fk_{table}_member_id_lot_id"
        ),
        sa.PrimaryKeyConstraint("member_id", "id", name=f"pk_{table}"),
    ]


def _create_holds() -> None:
    op.create_table(
        "hold",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("ends_at", INSTANT, nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("captured", WHOLE, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("points > 0", name=op.f("ck_hold_points_positive")),
        sa.CheckConstraint("status IN ('open', 'captured', 'released', 'expired')", name=op.f("ck_hold_status")),
        sa.CheckConstraint("(status = 'open') = (ended_at IS NULL)", name=op.f("ck_hold_ended_has_time")),
        sa.CheckConstraint("captured BETWEEN 0 AND points", name=op.f("ck_hold_captured_within_points")),
        sa.CheckConstraint("(status = 'captured') = (captured > 0)", name=op.f("ck_hold_captured_has_points")),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_hold_program_id"),
        sa.ForeignKeyConstraint(
            ["member_id", "entry_id"], ["point_entry.member_id", "point_entry.id"], name="fk_hold_member_id_entry_id"
        ),
        sa.PrimaryKeyConstraint("member_id", "id", name="pk_hold"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_hold_id", "hold", ["id"], unique=True)
    op.create_table(
        "hold_lot",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("hold_id", sa.Uuid(), nullable=False),
        sa.Column("lot_id", sa.Uuid(), nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.CheckConstraint("points > 0", name=op.f("ck_hold_lot_points_positive")),
        sa.ForeignKeyConstraint(
            ["member_id", "hold_id"], ["hold.member_id", "hold.id"], name="fk_hold_lot_member_id_hold_id"
        ),
        sa.ForeignKeyConstraint(
            ["member_id", "lot_id"], ["lot.member_id", "lot.id"], name="fk_hold_lot_member_id_lot_id"
        ),
        sa.PrimaryKeyConstraint("member_id", "hold_id", "lot_id", name="pk_hold_lot"),
        sqlite_with_rowid=False,
    )
    fixed("hold", HOLD_FACTS, ("member_id", "id"), ("id",))
    ended = "OLD.status <> 'open'"
    if on_postgresql():
        op.execute(
            f"CREATE TRIGGER hold_ended BEFORE UPDATE ON hold FOR EACH ROW WHEN ({ended}) "
            "EXECUTE FUNCTION refuse_change()"
        )
    else:
        refuse_on_sqlite("hold_ended", "UPDATE ON hold", "a hold ends once: UPDATE refused", ended)
    append_only("hold_lot", ("member_id", "hold_id", "lot_id"))
