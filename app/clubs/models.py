"""Tables of clubs: who belongs to which and for how long, what brought it, and what counted for a promise."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base

OPEN = text("ended_why IS NULL")
OPEN_AND_AGREED = text("ended_why IS NULL AND follows_id IS NULL AND why <> 'purchase'")
WARNING = text("warn_at IS NOT NULL AND ended_why IS NULL")
EARNING = text("earns_at IS NOT NULL")


class ClubMembership(Base):
    """A time for which a member belongs to a club, and what brought it; another that follows is a row of its own.
    Changed only under the claim of the account: its facts never, by trigger.

    Memberships by purchase may overlap, for each purchase brings its own time. Others follow each other.
    """

    __tablename__ = "club_membership"
    __table_args__ = (
        UniqueConstraint("program_id", "source", "external_id"),
        UniqueConstraint("follows_id"),
        CheckConstraint("why IN ('purchase', 'promise', 'fee')", name="why"),
        CheckConstraint("club <> ''", name="club_not_empty"),
        CheckConstraint(
            "ended_why IN ('over', 'renewed', 'not_kept', 'left', 'refunded', 'returned')", name="ended_why"
        ),
        CheckConstraint("(ended_why IS NULL) = (ended_at IS NULL)", name="ended_has_when"),
        CheckConstraint("until_at > begins_at", name="lasts"),
        CheckConstraint("why = 'purchase' OR until_at IS NOT NULL", name="agreed_has_end"),
        CheckConstraint("ends_at >= begins_at AND (until_at IS NULL OR ends_at <= until_at)", name="ends_in_time"),
        CheckConstraint("until_at IS NULL OR ends_at IS NOT NULL", name="ends_when_agreed"),
        CheckConstraint("(why = 'promise') = (promised IS NOT NULL)", name="promise_says_how_much"),
        CheckConstraint("promised > 0", name="promised_positive"),
        CheckConstraint("(why = 'fee') = (fee > 0)", name="fee_positive"),
        CheckConstraint(
            "(why = 'fee') = (source IS NOT NULL) AND (source IS NULL) = (external_id IS NULL)", name="fee_has_receipt"
        ),
        CheckConstraint("tax BETWEEN 0 AND fee AND deferred BETWEEN 0 AND fee - tax", name="deferred_within_fee"),
        CheckConstraint("points >= 0", name="points_not_negative"),
        CheckConstraint(
            "recognised >= 0 AND refunded >= 0 AND recognised + refunded <= deferred", name="left_not_negative"
        ),
        CheckConstraint("warn_at > begins_at AND warn_at < until_at", name="warned_in_time"),
        CheckConstraint("passed BETWEEN 0 AND months", name="passed_within_months"),
        CheckConstraint("earns_at IS NOT NULL OR recognised + refunded = deferred", name="what_is_left_is_due"),
        Index(None, "member_id", "id"),
        Index(
            "ix_club_membership_open_agreed",
            "member_id",
            "club",
            unique=True,
            postgresql_where=OPEN_AND_AGREED,
            sqlite_where=OPEN_AND_AGREED,
        ),
        Index(
            "ix_club_membership_ends_at",
            "program_id",
            "ends_at",
            "id",
            postgresql_where=OPEN,
            sqlite_where=OPEN,
        ),
        Index(
            "ix_club_membership_warn_at",
            "program_id",
            "warn_at",
            "id",
            postgresql_where=WARNING,
            sqlite_where=WARNING,
        ),
        Index(
            "ix_club_membership_earns_at",
            "program_id",
            "earns_at",
            "id",
            postgresql_where=EARNING,
            sqlite_where=EARNING,
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    club: Mapped[str]
    """Its code."""
    why: Mapped[str]
    document_id: Mapped[UUID]
    """What brought it: the purchase, or the claim of a guest's; of a promise and a fee its own id."""
    follows_id: Mapped[UUID | None] = mapped_column(ForeignKey("club_membership.id"))
    """The membership that it renews."""
    terms_id: Mapped[UUID] = mapped_column(ForeignKey("program_terms.id"))
    begins_at: Mapped[datetime]
    until_at: Mapped[datetime | None]
    """The end that was agreed; null: for good."""
    ends_at: Mapped[datetime | None]
    """The end, which may come before that."""
    months: Mapped[int | None]
    """Null: for good."""
    ended_why: Mapped[str | None]
    """Null: nobody has written an end down."""
    ended_at: Mapped[datetime | None]
    """When it was written down."""
    ended_reason: Mapped[str | None]
    """Why somebody left, as a code of whoever integrates."""
    promised: Mapped[int | None]
    """Minor units."""
    spent: Mapped[int]
    """What counted for the promise so far, minor units: the sum of its credits."""
    source: Mapped[str | None]
    external_id: Mapped[str | None]
    """Source and number of the receipt on which the fee was paid."""
    currency: Mapped[str]
    fee: Mapped[int]
    """Minor units with tax."""
    tax: Mapped[int]
    deferred: Mapped[int]
    """The membership's part of the fee; the rest, net of tax, is that of the points."""
    points: Mapped[int]
    """Given with it."""
    recognised: Mapped[int]
    refunded: Mapped[int]
    """What was recognised, and what was paid back, of what was deferred."""
    passed: Mapped[int]
    """How many of its months have been recognised."""
    earns_at: Mapped[datetime | None]
    """When the next of them has passed; null: nothing is left to recognise."""
    warn_at: Mapped[datetime | None]
    """When to tell of the end; null: that was done, or is not."""
    recorded_at: Mapped[datetime]


class ClubCredit(Base):
    """What a purchase or a claim counts for a promise, or what came back of it (negative). Append-only, by trigger."""

    __tablename__ = "club_credit"
    __table_args__ = (CheckConstraint("spend <> 0", name="counts_something"), NO_ROWID)

    membership_id: Mapped[UUID] = mapped_column(ForeignKey("club_membership.id"), primary_key=True)
    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    """The purchase, return, void or claim."""
    spend: Mapped[int]
    """The earning base, minor units."""
    recorded_at: Mapped[datetime]
