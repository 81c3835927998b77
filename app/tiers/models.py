"""Tables of tiers: what counts towards them, where members stand, how they got there, and what staff decided."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base

REVIEWED = text("review_at IS NOT NULL")


class QualifyingEntry(Base):
    """What a purchase or a claim counts towards tiers, or what came back of it (negative). Never spent. Append-only, by
    trigger."""

    __tablename__ = "qualifying_entry"
    __table_args__ = (
        CheckConstraint("points <> 0 OR spend <> 0 OR visits <> 0 OR units <> 0", name="counts_something"),
        CheckConstraint("visits BETWEEN -1 AND 1", name="visits_one_at_most"),
        CheckConstraint("counted_at <= occurred_at AND occurred_at <= recorded_at", name="known_after_it_happened"),
        Index(None, "member_id", "counted_at"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"), primary_key=True)
    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    """The purchase, return, void or claim."""
    points: Mapped[int]
    spend: Mapped[int]
    """The earning base, minor units."""
    visits: Mapped[int]
    units: Mapped[int]
    """Of the goods that the terms count."""
    counted_at: Mapped[datetime]
    """In whose window it counts: when the purchase happened, for what came back of it too."""
    occurred_at: Mapped[datetime]
    """From when on it counts there."""
    recorded_at: Mapped[datetime]


class MemberTier(Base):
    """Where a member stands, and what is needed to go on from there. Changed only under the claim of the account.

    Columns as in `kept.Kept` and `rules.State`; instants without purchases may have passed since.
    """

    __tablename__ = "member_tier"
    __table_args__ = (
        CheckConstraint("tier IS NULL OR since IS NOT NULL", name="tier_has_since"),
        CheckConstraint("earned IS NULL OR earned_since IS NOT NULL", name="earned_has_since"),
        Index(
            "ix_member_tier_review",
            "program_id",
            "review_at",
            "member_id",
            postgresql_where=REVIEWED,
            sqlite_where=REVIEWED,
        ),
    )

    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"), primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    terms_id: Mapped[UUID] = mapped_column(ForeignKey("program_terms.id"))
    """The version by which this was found."""
    tier: Mapped[str | None]
    since: Mapped[datetime | None]
    earned: Mapped[str | None]
    """The tier without what staff decided."""
    earned_since: Mapped[datetime | None]
    begins_at: Mapped[datetime]
    spared_until: Mapped[datetime | None]
    short_since: Mapped[datetime | None]
    points: Mapped[int]
    spend: Mapped[int]
    visits: Mapped[int]
    units: Mapped[int]
    reached_at: Mapped[datetime]
    counted_from: Mapped[datetime]
    sums_until: Mapped[datetime | None]
    review_at: Mapped[datetime | None]
    """When something may change though nothing is bought."""
    decided: Mapped[bool]
    recorded_at: Mapped[datetime]


class TierChange(Base):
    """A change of a member's tier, and why; in the order of the ids. Append-only, by trigger."""

    __tablename__ = "tier_change"
    __table_args__ = (
        CheckConstraint("COALESCE(from_tier, '') <> COALESCE(to_tier, '')", name="changes_something"),
        CheckConstraint(
            "why IN ('earned', 'returned', 'review', 'terms', 'manual', 'invitation', 'lock', 'ended')", name="why"
        ),
        CheckConstraint(
            "why IN ('review', 'terms', 'ended') OR document_id IS NOT NULL", name="what_somebody_did_has_document"
        ),
        CheckConstraint("changed_at <= recorded_at", name="known_after_it_happened"),
        Index(None, "member_id", "id"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    from_tier: Mapped[str | None]
    to_tier: Mapped[str | None]
    why: Mapped[str]
    document_id: Mapped[UUID | None]
    """The transaction, claim or decision that caused it."""
    terms_id: Mapped[UUID] = mapped_column(ForeignKey("program_terms.id"))
    changed_at: Mapped[datetime]
    """From when on it was known to stand. What time changed has its instant, however late it was written down."""
    recorded_at: Mapped[datetime]


class TierDecision(Base):
    """A tier that staff gave or locked, with a reason and an end. Its facts, and an earlier end, triggers keep."""

    __tablename__ = "tier_decision"
    __table_args__ = (
        CheckConstraint("kind IN ('manual', 'invitation', 'lock')", name="kind"),
        CheckConstraint("kind = 'lock' OR tier IS NOT NULL", name="given_tier"),
        CheckConstraint("until > decided_at", name="ends_later"),
        CheckConstraint(
            "(ended_at IS NULL) = (ended_by IS NULL) AND (ended_at IS NULL) = (ended_person IS NULL) "
            "AND (ended_at IS NULL) = (ended_reason IS NULL)",
            name="ended_has_who_and_why",
        ),
        CheckConstraint("ended_at IS NULL OR (ended_at >= decided_at AND ended_at < until)", name="ended_early"),
        Index(None, "member_id", "id"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    kind: Mapped[str]
    tier: Mapped[str | None]
    """Null: a lock on having none."""
    reason: Mapped[str]
    note: Mapped[str | None]
    decided_by: Mapped[UUID] = mapped_column(ForeignKey("client.id"))
    decided_person: Mapped[str]
    decided_at: Mapped[datetime]
    until: Mapped[datetime]
    ended_by: Mapped[UUID | None] = mapped_column(ForeignKey("client.id"))
    ended_person: Mapped[str | None]
    ended_at: Mapped[datetime | None]
    ended_reason: Mapped[str | None]
