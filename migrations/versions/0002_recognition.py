"""Recognition: cohorts know what is used, expired and recognised; the journal takes the causes of later events.

What a cohort expects to be used is kept as whole points and millionths apart: together they would overflow 64 bits
beyond 9.2 million million points.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = postgresql.TIMESTAMP(timezone=True).with_variant(sa.String(32), "sqlite")

Checks = Mapping[str, str]
"""SQL conditions by their constraints' names."""

CAUSES_BEFORE: Checks = {
    "ck_journal_posting_accrual_has_cohort": "(cause = 'accrual') = (cohort_id IS NOT NULL)",
    "ck_journal_posting_cause": "cause IN ('sale', 'accrual')",
}
CAUSES: Checks = {
    "ck_journal_posting_cause": (
        "cause IN ('sale', 'accrual', 'return', 'redemption', 'expiry', 'estimate', 'tender', 'fulfilment', "
        "'write_off', 'provision', 'concession', 'rounding')"
    ),
    "ck_journal_posting_deferral_has_cohort": (
        "cause NOT IN ('accrual', 'provision', 'concession') OR cohort_id IS NOT NULL"
    ),
    "ck_journal_posting_release_is_of_cohort": (
        "cause NOT IN ('redemption', 'expiry', 'estimate', 'rounding') "
        "OR cohort_id IS NOT NULL AND cohort_id = document_id"
    ),
    "ck_journal_posting_rest_has_no_cohort": (
        "cause NOT IN ('sale', 'tender', 'fulfilment', 'write_off') OR cohort_id IS NULL"
    ),
}
COHORT_CHECKS: Checks = {
    "ck_cohort_expected_millionths_below_one": "expected_millionths BETWEEN 0 AND 999999",
    "ck_cohort_used_not_negative": "used >= 0",
    "ck_cohort_expired_not_negative": "expired >= 0",
    "ck_cohort_used_and_expired_within_issued": "used + expired <= issued",
    "ck_cohort_recognised_within_allocated": "recognised BETWEEN 0 AND allocated",
}
CHANGE_CHECKS: Checks = {
    "ck_cohort_change_cause": "cause IN ('accrual', 'return', 'redemption', 'expiry')",
    "ck_cohort_change_accrual_has_key": (
        "(cause = 'accrual') = (month IS NOT NULL) AND (month IS NULL) = (funding IS NULL) "
        "AND (month IS NULL) = (estimate_class IS NULL)"
    ),
    "ck_cohort_change_accrual_only_issues": ("cause <> 'accrual' OR used = 0 AND used_as_agent = 0 AND expired = 0"),
    "ck_cohort_change_expected_millionths_below_one": "expected_millionths BETWEEN 0 AND 999999",
}

COHORT_ADDED = {
    "expected_millionths": "expected % 1000000",
    "used": "0",
    "expired": "0",
    "recognised": "0",
    "estimate": "'1'",
}
"""What a cohort gets, and what it is for the cohorts there are. `expected` becomes whole points afterwards."""

CHANGE_ADDED = {
    "cause": "'accrual'",
    "period": "month",
    "occurred_at": "recorded_at",
    "expected_millionths": "expected % 1000000",
    "used": "0",
    "used_as_agent": "0",
    "expired": "0",
}
"""The same for changes: those that wait are all accruals."""

TYPES: Mapping[str, Any] = {
    "cause": sa.Text(),
    "period": sa.Date(),
    "occurred_at": INSTANT,
    "estimate": sa.Text(),
}
"""The types of what is added; the rest are whole numbers."""

KEY: Mapping[str, Any] = {"month": sa.Date(), "funding": sa.Text(), "estimate_class": sa.Text()}


# A downgrade is refused by the older constraints where there are rows that the older schema has no place for.


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        _add_on_postgresql("cohort", COHORT_ADDED, COHORT_CHECKS)
        _add_on_postgresql("cohort_change", CHANGE_ADDED, CHANGE_CHECKS)
        for name, type_ in KEY.items():
            op.alter_column("cohort_change", name, existing_type=type_, nullable=True)
        _swap_checks_on_postgresql("journal_posting", CAUSES_BEFORE, CAUSES)
    else:
        whole = {"expected": "expected / 1000000"}
        _rebuild_on_sqlite("cohort", _cohort(after=True), COHORT_ADDED | whole)
        _rebuild_on_sqlite("cohort_change", _cohort_change(after=True), CHANGE_ADDED | whole)
        _rebuild_on_sqlite("journal_posting", _journal_posting(CAUSES), {}, sqlite_with_rowid=False)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        _swap_checks_on_postgresql("journal_posting", CAUSES, CAUSES_BEFORE)
        for name, type_ in KEY.items():
            op.alter_column("cohort_change", name, existing_type=type_, nullable=False)
        _drop_on_postgresql("cohort_change", CHANGE_ADDED, CHANGE_CHECKS)
        _drop_on_postgresql("cohort", COHORT_ADDED, COHORT_CHECKS)
    else:
        millionths = {"expected": "expected * 1000000 + expected_millionths"}
        _rebuild_on_sqlite("journal_posting", _journal_posting(CAUSES_BEFORE), {}, sqlite_with_rowid=False)
        _rebuild_on_sqlite("cohort_change", _cohort_change(after=False), millionths)
        _rebuild_on_sqlite("cohort", _cohort(after=False), millionths)


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


def _add_on_postgresql(table: str, added: Mapping[str, str], checks: Checks) -> None:
    for name in added:
        op.add_column(table, sa.Column(name, TYPES.get(name, WHOLE), nullable=True))
    op.execute(f"UPDATE {table} SET {', '.join(f'{name} = {value}' for name, value in added.items())}")
    op.execute(f"UPDATE {table} SET expected = expected / 1000000")
    for name in added:
        op.alter_column(table, name, existing_type=TYPES.get(name, WHOLE), nullable=False)
    _swap_checks_on_postgresql(table, {}, checks)


def _drop_on_postgresql(table: str, added: Mapping[str, str], checks: Checks) -> None:
    _swap_checks_on_postgresql(table, checks, {})
    op.execute(f"UPDATE {table} SET expected = expected * 1000000 + expected_millionths")
    for name in added:
        op.drop_column(table, name)


def _swap_checks_on_postgresql(table: str, before: Checks, after: Checks) -> None:
    for name in before:
        op.drop_constraint(op.f(name), table, type_="check")
    for name, condition in after.items():
        op.create_check_constraint(op.f(name), table, condition)


# --- SQLite ---------------------------------------------------------------------------------------------------------


def _rebuild_on_sqlite(
    table: str, parts: Sequence[sa.schema.SchemaItem], values: Mapping[str, str], **options: Any
) -> None:
    """Makes `table` anew from `parts`, for SQLite cannot change constraints; each column is filled from its old self or
    from its SQL expression in `values`. Indexes and triggers go with the old table and are made again as they were."""
    attached = sa.text("SELECT sql FROM sqlite_master WHERE tbl_name = :table AND type <> 'table' AND sql IS NOT NULL")
    again = op.get_bind().execute(attached, {"table": table}).scalars().all()
    columns = [part.name for part in parts if isinstance(part, sa.Column)]
    op.create_table(f"{table}_new", *parts, **options)
    op.execute(
        f'INSERT INTO "{table}_new" ({", ".join(columns)}) '
        f'SELECT {", ".join(values.get(name, name) for name in columns)} FROM "{table}"'
    )
    op.execute(f'DROP TABLE "{table}"')
    op.execute("PRAGMA legacy_alter_table = ON")  # else a trigger elsewhere that names the table stops the renaming
    op.execute(f'ALTER TABLE "{table}_new" RENAME TO "{table}"')
    op.execute("PRAGMA legacy_alter_table = OFF")
    for statement in again:
        op.execute(statement)


def _columns(*names: str, nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, TYPES.get(name, KEY.get(name, WHOLE)), nullable=nullable) for name in names]


def _checks(checks: Checks) -> list[sa.CheckConstraint]:
    return [sa.CheckConstraint(condition, name=op.f(name)) for name, condition in checks.items()]


def _cohort(*, after: bool) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        *_columns(*KEY, "allocated", "residue", "issued", "expected"),
        *(_columns(*COHORT_ADDED) if after else []),
        sa.CheckConstraint("allocated >= 0", name=op.f("ck_cohort_allocated_not_negative")),
        sa.CheckConstraint("issued >= 0", name=op.f("ck_cohort_issued_not_negative")),
        *(_checks(COHORT_CHECKS) if after else []),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_cohort_program_id"),
        sa.PrimaryKeyConstraint("id", name="pk_cohort"),
        sa.UniqueConstraint(
            "program_id",
            "currency",
            *KEY,
            name="uq_cohort_program_id_currency_month_funding_estimate_class",
        ),
    ]


def _cohort_change(*, after: bool) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("cohort_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        *_columns(*KEY, nullable=after),
        *_columns("allocated", "residue", "issued", "expected"),
        *(_columns(*CHANGE_ADDED) if after else []),
        sa.Column("recorded_at", INSTANT, nullable=False),
        *(_checks(CHANGE_CHECKS) if after else []),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_cohort_change_program_id"),
        sa.PrimaryKeyConstraint("id", name="pk_cohort_change"),
    ]


def _journal_posting(causes: Checks) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("debit", sa.Text(), nullable=False),
        sa.Column("credit", sa.Text(), nullable=False),
        *_columns("amount"),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("cohort_id", sa.Uuid(), nullable=True),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("period", sa.Date(), nullable=False),
        *_checks(causes),
        sa.CheckConstraint("amount > 0", name=op.f("ck_journal_posting_amount_positive")),
        sa.CheckConstraint("debit <> credit", name=op.f("ck_journal_posting_two_accounts")),
        *(
            sa.ForeignKeyConstraint(
                ["program_id", side],
                ["account.program_id", "account.code"],
                name=f"fk_journal_posting_program_id_{side}",
            )
            for side in ("credit", "debit")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_journal_posting"),
    ]
