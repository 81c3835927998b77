"""Tables of money: the chart of accounts, the journal, the cohorts."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class Account(Base):
    """An account of a programme's chart. Its role says what the service uses it for; the code is the programme's."""

    __tablename__ = "account"
    __table_args__ = (
        UniqueConstraint("program_id", "role"),
        CheckConstraint("kind IN ('A', 'L', 'I', 'X')", name="kind"),
    )

    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"), primary_key=True)
    code: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    name: Mapped[str]
    kind: Mapped[str]


class JournalPosting(Base):
    """One posting: debit, credit, amount. It balances by construction. Append-only, by trigger."""

    __tablename__ = "journal_posting"
    __table_args__ = (
        ForeignKeyConstraint(["program_id", "debit"], ["account.program_id", "account.code"]),
        ForeignKeyConstraint(["program_id", "credit"], ["account.program_id", "account.code"]),
        CheckConstraint("amount > 0", name="amount_positive"),
        CheckConstraint("debit <> credit", name="two_accounts"),
        CheckConstraint("cause IN ('sale', 'accrual')", name="cause"),
        CheckConstraint("(cause = 'accrual') = (cohort_id IS NOT NULL)", name="accrual_has_cohort"),
        Index(None, "program_id", "id"),
        Index(None, "program_id", "period"),
        Index(None, "document_id"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID]
    debit: Mapped[str]
    credit: Mapped[str]
    amount: Mapped[int]
    currency: Mapped[str]
    cause: Mapped[str]
    cohort_id: Mapped[UUID | None]
    document_id: Mapped[UUID]
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]
    period: Mapped[date]


class Cohort(Base):
    """What has been folded so far of one cohort (`CohortKey`). Created by the first fold."""

    __tablename__ = "cohort"
    __table_args__ = (
        UniqueConstraint("program_id", "currency", "month", "funding", "estimate_class"),
        CheckConstraint("allocated >= 0", name="allocated_not_negative"),
        CheckConstraint("issued >= 0", name="issued_not_negative"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    currency: Mapped[str]
    month: Mapped[date]
    funding: Mapped[str]
    estimate_class: Mapped[str]
    allocated: Mapped[int]
    """A, minor units."""
    residue: Mapped[int]
    """What rounding cut off the exact shares, in millionths of a minor unit."""
    issued: Mapped[int]
    """N, points."""
    expected: Mapped[int]
    """E0, millionths of a point."""


class CohortChangeRow(Base):
    """What one batch added to one cohort and no fold has consumed yet. It carries the key: the cohort may not exist."""

    __tablename__ = "cohort_change"
    __table_args__ = (Index(None, "cohort_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    cohort_id: Mapped[UUID]
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    currency: Mapped[str]
    month: Mapped[date]
    funding: Mapped[str]
    estimate_class: Mapped[str]
    allocated: Mapped[int]
    residue: Mapped[int]
    issued: Mapped[int]
    expected: Mapped[int]
    recorded_at: Mapped[datetime]
