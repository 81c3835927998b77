"""Tables of programmes, the versions of their terms, and what their rules have given."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class Program(Base):
    """A loyalty programme."""

    __tablename__ = "program"
    __table_args__ = (UniqueConstraint("code"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    code: Mapped[str]
    name: Mapped[str]
    created_at: Mapped[datetime]


class ProgramTerms(Base):
    """One version of a programme's terms. Once published or retired it never changes, by trigger."""

    __tablename__ = "program_terms"
    __table_args__ = (
        UniqueConstraint("program_id", "version"),
        UniqueConstraint("program_id", "effective_from"),
        CheckConstraint("(published_at IS NULL) = (effective_from IS NULL)", name="published_has_start"),
        CheckConstraint("retired_at IS NULL OR published_at IS NULL", name="retired_is_draft"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    version: Mapped[int]
    revision: Mapped[int]
    """Counts the changes of a draft; the entity tag."""
    terms: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    effective_from: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]
    """Since when it is a draft that will never be published."""


class RuleUse(Base):
    """What an earning rule has given a member in one period. Changed only under the claim of the member's account."""

    __tablename__ = "rule_use"
    __table_args__ = (
        CheckConstraint("points >= 0", name="points_not_negative"),
        CheckConstraint("times > 0", name="times_positive"),
    )

    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"), primary_key=True)
    rule: Mapped[str] = mapped_column(primary_key=True)
    """Its code, by which it is counted from version to version of the terms."""
    period: Mapped[str] = mapped_column(primary_key=True)
    """`2026-11-22`, `2026-W47`, `2026-11`, `2026`; empty for all of a member's life; `budget`: since it has one;
    `24h:20779`: of all spells of 24 hours since 1970 the one after so many, for a cooldown."""
    points: Mapped[int]
    times: Mapped[int]
    last_at: Mapped[datetime]
    """`occurred_at` of the latest purchase for which it gave points."""


class RuleBudget(Base):
    """What is reserved of an earning rule's budget, for its slices. Changed only by whoever has locked the row."""

    __tablename__ = "rule_budget"
    __table_args__ = (
        CheckConstraint("reserved BETWEEN 0 AND budget", name="reserved_within_budget"),
        CheckConstraint("rule <> ''", name="rule_named"),
    )

    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"), primary_key=True)
    rule: Mapped[str] = mapped_column(primary_key=True)
    """Its code, by which it is counted from version to version of the terms."""
    reserved: Mapped[int]
    """Points: what was given, and the room of the slices."""
    budget: Mapped[int]
    """That of the terms by which it was reserved last, points."""


class RuleBudgetSlice(Base):
    """Points that were reserved and not given yet. Changed only by whoever has locked the row; so purchases of several
    writers at once each have one of their own."""

    __tablename__ = "rule_budget_slice"
    __table_args__ = (
        ForeignKeyConstraint(["program_id", "rule"], ["rule_budget.program_id", "rule_budget.rule"]),
        CheckConstraint("room >= 0", name="room_not_negative"),
        CheckConstraint("number > 0", name="number_positive"),
    )

    program_id: Mapped[UUID] = mapped_column(primary_key=True)
    rule: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[int]
    """Points."""
