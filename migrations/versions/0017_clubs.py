"""Clubs: memberships, what counts for their promises, and the cause by which their fees become revenue."""

import sqlalchemy as sa
from alembic import op

from app.reshape import INSTANT, WHOLE, append_only, execute, fixed, on_postgresql, rebuild

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

CAUSES = "'provision', 'concession', 'rounding')"
CAUSES_NOW = "'provision', 'concession', 'rounding', 'membership')"
REST = "cause NOT IN ('sale', 'tender', 'fulfilment', 'write_off')"
REST_NOW = "cause NOT IN ('sale', 'tender', 'fulfilment', 'write_off', 'membership')"
EVERY = "'sale', 'accrual', 'return', 'redemption', 'expiry', 'estimate', 'tender', 'fulfilment', 'write_off', "

FACTS = (
    "id, program_id, member_id, club, why, document_id, follows_id, terms_id, begins_at, until_at, months, promised, "
    "source, external_id, currency, fee, tax, deferred, points, recorded_at"
)
CHECKS = {
    "why": "why IN ('purchase', 'promise', 'fee')",
    "club_not_empty": "club <> ''",
    "ended_why": "ended_why IN ('over', 'renewed', 'not_kept', 'left', 'refunded', 'returned')",
    "ended_has_when": "(ended_why IS NULL) = (ended_at IS NULL)",
    "lasts": "until_at > begins_at",
    "agreed_has_end": "why = 'purchase' OR until_at IS NOT NULL",
    "ends_in_time": "ends_at >= begins_at AND (until_at IS NULL OR ends_at <= until_at)",
    "ends_when_agreed": "until_at IS NULL OR ends_at IS NOT NULL",
    "promise_says_how_much": "(why = 'promise') = (promised IS NOT NULL)",
    "promised_positive": "promised > 0",
    "fee_positive": "(why = 'fee') = (fee > 0)",
    "fee_has_receipt": "(why = 'fee') = (source IS NOT NULL) AND (source IS NULL) = (external_id IS NULL)",
    "deferred_within_fee": "tax BETWEEN 0 AND fee AND deferred BETWEEN 0 AND fee - tax",
    "points_not_negative": "points >= 0",
    "left_not_negative": "recognised >= 0 AND refunded >= 0 AND recognised + refunded <= deferred",
    "warned_in_time": "warn_at > begins_at AND warn_at < until_at",
    "passed_within_months": "passed BETWEEN 0 AND months",
    "what_is_left_is_due": "earns_at IS NOT NULL OR recognised + refunded = deferred",
}


def upgrade() -> None:
    _allow((CAUSES, CAUSES_NOW), (REST, REST_NOW))
    _create_memberships()
    op.create_table(
        "club_credit",
        sa.Column("membership_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("spend", WHOLE, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("spend <> 0", name=op.f("ck_club_credit_counts_something")),
        _reference("club_credit", "membership_id", "club_membership"),
        sa.PrimaryKeyConstraint("membership_id", "document_id", name="pk_club_credit"),
        sqlite_with_rowid=False,
    )
    append_only("club_credit", ("membership_id", "document_id"))


def downgrade() -> None:
    """The database refuses if any part of a fee was recognised."""
    _allow((CAUSES_NOW, CAUSES), (REST_NOW, REST))
    op.drop_table("club_credit")
    op.drop_table("club_membership")


def _create_memberships() -> None:
    table = "club_membership"
    op.create_table(
        table,
        *(sa.Column(name, sa.Uuid(), nullable=False) for name in ("id", "program_id", "member_id")),
        sa.Column("club", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("follows_id", sa.Uuid(), nullable=True),
        sa.Column("terms_id", sa.Uuid(), nullable=False),
        sa.Column("begins_at", INSTANT, nullable=False),
        sa.Column("until_at", INSTANT, nullable=True),
        sa.Column("ends_at", INSTANT, nullable=True),
        sa.Column("months", WHOLE, nullable=True),
        sa.Column("ended_why", sa.Text(), nullable=True),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("ended_reason", sa.Text(), nullable=True),
        sa.Column("promised", WHOLE, nullable=True),
        sa.Column("spent", WHOLE, nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        *(
            sa.Column(name, WHOLE, nullable=False)
            for name in ("fee", "tax", "deferred", "points", "recognised", "refunded", "passed")
        ),
        sa.Column("earns_at", INSTANT, nullable=True),
        sa.Column("warn_at", INSTANT, nullable=True),
        sa.Column("recorded_at", INSTANT, nullable=False),
        *(sa.CheckConstraint(text, name=op.f(f"ck_{table}_{name}")) for name, text in CHECKS.items()),
        _reference(table, "program_id", "program"),
        _reference(table, "member_id", "member"),
        _reference(table, "follows_id", table),
        _reference(table, "terms_id", "program_terms"),
        sa.UniqueConstraint(
            "program_id", "source", "external_id", name="uq_club_membership_program_id_source_external_id"
        ),
        sa.UniqueConstraint("follows_id", name="uq_club_membership_follows_id"),
        sa.PrimaryKeyConstraint("id", name="pk_club_membership"),
    )
    op.create_index("ix_club_membership_member_id_id", table, ["member_id", "id"])
    _index("open_agreed", ["member_id", "club"], "ended_why IS NULL AND follows_id IS NULL AND why <> 'purchase'", True)
    _index("ends_at", ["program_id", "ends_at", "id"], "ended_why IS NULL")
    _index("warn_at", ["program_id", "warn_at", "id"], "warn_at IS NOT NULL AND ended_why IS NULL")
    _index("earns_at", ["program_id", "earns_at", "id"], "earns_at IS NOT NULL")
    fixed(table, FACTS, ("id",), ("program_id", "source", "external_id"), ("follows_id",))


def _index(name: str, columns: list[str], where: str, unique: bool = False) -> None:
    only = sa.text(where)
    op.create_index(
        f"ix_club_membership_{name}",
        "club_membership",
        columns,
        unique=unique,
        postgresql_where=only,
        sqlite_where=only,
    )


def _reference(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}")


def _allow(causes: tuple[str, str], rest: tuple[str, str]) -> None:
    """Makes the first of each what the second says, in the causes of postings and of those without a cohort."""
    if not on_postgresql():
        rebuild("journal_posting", dict([causes, rest]))
        return
    checks = {"cause": f"cause IN ({EVERY}{causes[1]}", "rest_has_no_cohort": f"{rest[1]} OR cohort_id IS NULL"}
    execute(
        f"ALTER TABLE journal_posting DROP CONSTRAINT ck_journal_posting_{name}, "
        f"ADD CONSTRAINT ck_journal_posting_{name} CHECK ({text})"
        for name, text in checks.items()
    )
