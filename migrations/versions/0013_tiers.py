"""Tiers: what counts towards them, where members stand, how they got there, and what staff decided."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from app.reshape import INSTANT, WHOLE, append_only, fixed, on_postgresql, refuse_on_sqlite

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

REVIEWED = sa.text("review_at IS NOT NULL")
FACTS = "id, program_id, member_id, kind, tier, reason, note, decided_by, decided_person, decided_at, until"
TABLES = ("tier_decision", "tier_change", "member_tier", "qualifying_entry")


def upgrade() -> None:
    _create_entries()
    _create_standings()
    _create_changes()
    _create_decisions()


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)


def _text(*names: str, nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text(), nullable=nullable) for name in names]


def _ids(*names: str, nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Uuid(), nullable=nullable) for name in names]


def _instants(*names: str, nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, INSTANT, nullable=nullable) for name in names]


def _whole(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, WHOLE, nullable=False) for name in names]


def _keys(table: str, **columns: str) -> list[sa.ForeignKeyConstraint]:
    return [
        sa.ForeignKeyConstraint([name], [f"{other}.id"], name=f"fk_{table}_{name}") for name, other in columns.items()
    ]


def _checks(table: str, **conditions: str) -> list[sa.CheckConstraint]:
    return [sa.CheckConstraint(text, name=op.f(f"ck_{table}_{name}")) for name, text in conditions.items()]


def _create_entries() -> None:
    table = "qualifying_entry"
    op.create_table(
        table,
        *_ids("member_id", "document_id"),
        *_whole("points", "spend", "visits"),
        *_instants("counted_at", "occurred_at", "recorded_at"),
        *_checks(
            table,
            counts_something="points <> 0 OR spend <> 0 OR visits <> 0",
            visits_one_at_most="visits BETWEEN -1 AND 1",
            known_after_it_happened="counted_at <= occurred_at AND occurred_at <= recorded_at",
        ),
        *_keys(table, member_id="member"),
        sa.PrimaryKeyConstraint("member_id", "document_id", name=f"pk_{table}"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_qualifying_entry_member_id_counted_at", table, ["member_id", "counted_at"])
    append_only(table, ("member_id", "document_id"))


def _create_standings() -> None:
    table = "member_tier"
    op.create_table(
        table,
        *_ids("member_id", "program_id", "terms_id"),
        *_text("tier", nullable=True),
        *_instants("since", nullable=True),
        *_text("earned", nullable=True),
        *_instants("earned_since", nullable=True),
        *_instants("begins_at"),
        *_instants("spared_until", "short_since", nullable=True),
        *_whole("points", "spend", "visits"),
        *_instants("reached_at", "counted_from"),
        *_instants("sums_until", "review_at", nullable=True),
        sa.Column("decided", sa.Boolean(), nullable=False),
        *_instants("recorded_at"),
        *_checks(
            table,
            tier_has_since="tier IS NULL OR since IS NOT NULL",
            earned_has_since="earned IS NULL OR earned_since IS NOT NULL",
        ),
        *_keys(table, member_id="member", program_id="program", terms_id="program_terms"),
        sa.PrimaryKeyConstraint("member_id", name=f"pk_{table}"),
    )
    op.create_index(
        "ix_member_tier_review",
        table,
        ["program_id", "review_at", "member_id"],
        postgresql_where=REVIEWED,
        sqlite_where=REVIEWED,
    )


def _create_changes() -> None:
    table = "tier_change"
    op.create_table(
        table,
        *_ids("id", "program_id", "member_id"),
        *_text("from_tier", "to_tier", nullable=True),
        *_text("why"),
        *_ids("document_id", nullable=True),
        *_ids("terms_id"),
        *_instants("changed_at", "recorded_at"),
        *_checks(
            table,
            changes_something="COALESCE(from_tier, '') <> COALESCE(to_tier, '')",
            why="why IN ('earned', 'returned', 'review', 'terms', 'manual', 'invitation', 'lock', 'ended')",
            what_somebody_did_has_document="why IN ('review', 'terms', 'ended') OR document_id IS NOT NULL",
            known_after_it_happened="changed_at <= recorded_at",
        ),
        *_keys(table, program_id="program", member_id="member", terms_id="program_terms"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tier_change_member_id_id", table, ["member_id", "id"])
    append_only(table, ("id",))


def _create_decisions() -> None:
    table = "tier_decision"
    op.create_table(
        table,
        *_ids("id", "program_id", "member_id"),
        *_text("kind"),
        *_text("tier", nullable=True),
        *_text("reason"),
        *_text("note", nullable=True),
        *_ids("decided_by"),
        *_text("decided_person"),
        *_instants("decided_at", "until"),
        *_ids("ended_by", nullable=True),
        *_text("ended_person", nullable=True),
        *_instants("ended_at", nullable=True),
        *_text("ended_reason", nullable=True),
        *_checks(
            table,
            kind="kind IN ('manual', 'invitation', 'lock')",
            given_tier="kind = 'lock' OR tier IS NOT NULL",
            ends_later="until > decided_at",
            ended_has_who_and_why="(ended_at IS NULL) = (ended_by IS NULL) AND (ended_at IS NULL) = "
            "(ended_person IS NULL) AND (ended_at IS NULL) = (ended_reason IS NULL)",
            ended_early="ended_at IS NULL OR (ended_at >= decided_at AND ended_at < until)",
        ),
        *_keys(table, program_id="program", member_id="member", decided_by="client", ended_by="client"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tier_decision_member_id_id", table, ["member_id", "id"])
    fixed(table, FACTS, ("id",))
    _end_once()


def _end_once() -> None:
    ended = "OLD.ended_at IS NOT NULL"
    if on_postgresql():
        op.execute(
            "CREATE TRIGGER tier_decision_ended BEFORE UPDATE ON tier_decision "
            f"FOR EACH ROW WHEN ({ended}) EXECUTE FUNCTION refuse_change()"
        )
        return
    refuse_on_sqlite(
        "tier_decision_ended", "UPDATE ON tier_decision", "tier_decision's end is append-only: it ends once", ended
    )
