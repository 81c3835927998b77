"""Recognition: cohorts know what is used, expired and recognised; the journal takes the causes of later events.

What a cohort expects to be used is kept as whole points and millionths apart: together they would overflow 64 bits
beyond 9.2 million million points.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

from app.reshape import INSTANT, WHOLE, rebuild

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

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
        filled = {"cohort": COHORT_ADDED | whole, "cohort_change": CHANGE_ADDED | whole}
        for table, changes in _definitions().items():
            rebuild(table, changes, filled.get(table))


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        _swap_checks_on_postgresql("journal_posting", CAUSES, CAUSES_BEFORE)
        for name, type_ in KEY.items():
            op.alter_column("cohort_change", name, existing_type=type_, nullable=False)
        _drop_on_postgresql("cohort_change", CHANGE_ADDED, CHANGE_CHECKS)
        _drop_on_postgresql("cohort", COHORT_ADDED, COHORT_CHECKS)
    else:
        whole = {"expected": "expected * 1000000 + expected_millionths"}
        dropped = {"cohort": COHORT_ADDED, "cohort_change": CHANGE_ADDED}
        for table, changes in _definitions().items():
            undone = {new: old for old, new in changes.items()}
            rebuild(table, undone, whole if table in dropped else None, drop=list(dropped.get(table, ())))


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


def _definitions() -> dict[str, dict[str, str]]:
    """What changes in the tables' definitions, as SQLite keeps them, with single spaces."""
    key = "month DATE{0}, funding TEXT{0}, estimate_class TEXT{0}, "
    change, cohort = "CONSTRAINT fk_cohort_change_program_id", "CONSTRAINT fk_cohort_program_id"
    expected = "expected INTEGER NOT NULL, "
    return {
        "cohort": {expected: expected + _columns(COHORT_ADDED), cohort: _constraints(COHORT_CHECKS) + cohort},
        "cohort_change": {
            key.format(" NOT NULL"): key.format(""),
            expected: expected + _columns(CHANGE_ADDED),
            change: _constraints(CHANGE_CHECKS) + change,
        },
        "journal_posting": {_constraints(CAUSES_BEFORE): _constraints(CAUSES)},
    }


def _columns(added: Mapping[str, str]) -> str:
    dialect = op.get_bind().dialect
    return "".join(f"{name} {TYPES.get(name, WHOLE).compile(dialect)} NOT NULL, " for name in added)


def _constraints(checks: Checks) -> str:
    return "".join(f"CONSTRAINT {name} CHECK ({condition}), " for name, condition in checks.items())
