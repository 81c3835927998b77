"""Tables of money: the chart of accounts, the journal, the cohorts."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class Account(Base):
    """An account of a programme's chart. Its role says what the service uses it for; the code is the programme's.
    Append-only, by trigger."""

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
        CheckConstraint(
            "cause IN ('sale', 'accrual', 'return', 'redemption', 'expiry', 'estimate', 'tender', 'fulfilment', "
            "'write_off', 'provision', 'concession', 'rounding', 'membership')",
            name="cause",
        ),
        # What is put aside for points, and what the till takes back of it, names their cohort. What a fold or a close
        # posts for a cohort has the cohort for its document. The rest of a sale, a return or a reward has none.
        CheckConstraint(
            "cause NOT IN ('accrual', 'provision', 'concession') OR cohort_id IS NOT NULL", name="deferral_has_cohort"
        ),
        CheckConstraint(
            "cause NOT IN ('redemption', 'expiry', 'estimate', 'rounding') "
            "OR cohort_id IS NOT NULL AND cohort_id = document_id",
            name="release_is_of_cohort",
        ),
        CheckConstraint(
            "cause NOT IN ('sale', 'tender', 'fulfilment', 'write_off', 'membership') OR cohort_id IS NULL",
            name="rest_has_no_cohort",
        ),
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
        CheckConstraint("expected_millionths BETWEEN 0 AND 999999", name="expected_millionths_below_one"),
        CheckConstraint("used >= 0", name="used_not_negative"),
        CheckConstraint("expired >= 0", name="expired_not_negative"),
        CheckConstraint("used + expired <= issued", name="used_and_expired_within_issued"),
        CheckConstraint("recognised BETWEEN 0 AND allocated", name="recognised_within_allocated"),
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
    """E0, whole points; the rest of it is in `expected_millionths`: together they would not fit 64 bits."""
    expected_millionths: Mapped[int]
    used: Mapped[int]
    """X, points."""
    expired: Mapped[int]
    """Z, points expired or forfeited."""
    recognised: Mapped[int]
    """R, minor units."""
    estimate: Mapped[str]
    """k, a fraction in lowest terms: what is now expected to be used, over E0."""


class CohortChangeRow(Base):
    """What one batch did to one cohort and no fold has consumed yet. An accrual carries the cohort's key: the cohort
    may not exist. Anything else follows an accrual that is committed, so its key is known."""

    __tablename__ = "cohort_change"
    __table_args__ = (
        CheckConstraint("cause IN ('accrual', 'return', 'redemption', 'expiry')", name="cause"),
        CheckConstraint(
            "(cause = 'accrual') = (month IS NOT NULL) AND (month IS NULL) = (funding IS NULL) "
            "AND (month IS NULL) = (estimate_class IS NULL)",
            name="accrual_has_key",
        ),
        # An accrual releases nothing by itself: uses that came with it would wait for somebody else's.
        CheckConstraint(
            "cause <> 'accrual' OR used = 0 AND used_as_agent = 0 AND expired = 0", name="accrual_only_issues"
        ),
        CheckConstraint("expected_millionths BETWEEN 0 AND 999999", name="expected_millionths_below_one"),
        Index(None, "cohort_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    cohort_id: Mapped[UUID]
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    currency: Mapped[str]
    cause: Mapped[str]
    period: Mapped[date]
    """First day of the month that what follows from it is posted in."""
    occurred_at: Mapped[datetime]
    """The latest instant of what is in it."""
    month: Mapped[date | None]
    funding: Mapped[str | None]
    estimate_class: Mapped[str | None]
    allocated: Mapped[int]
    residue: Mapped[int]
    issued: Mapped[int]
    expected: Mapped[int]
    """Whole points, rounded down; `expected_millionths` is what is above them, also of a negative number."""
    expected_millionths: Mapped[int]
    used: Mapped[int]
    used_as_agent: Mapped[int]
    expired: Mapped[int]
    recorded_at: Mapped[datetime]
