"""Tables of campaigns: what was given never changes; what it has come to is counted."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class CampaignGrant(Base):
    """Points that a campaign gave a member on one occasion, once for ever. Append-only, by trigger."""

    __tablename__ = "campaign_grant"
    __table_args__ = (
        UniqueConstraint("member_id", "campaign", "occasion"),
        CheckConstraint("points > 0", name="points_positive"),
        CheckConstraint("campaign <> '' AND occasion <> ''", name="names_not_empty"),
        Index(None, "program_id", "campaign"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """The document of its lot and its postings."""
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    campaign: Mapped[str]
    """Its code."""
    occasion: Mapped[str]
    """`sign_up`; the year of a birthday or an anniversary; the day of the last purchase; the friend's id; source and
    number of an event."""
    day: Mapped[date]
    """The day of the occasion, in the programme's zone."""
    points: Mapped[int]
    terms_id: Mapped[UUID] = mapped_column(ForeignKey("program_terms.id"))
    """The version of terms that was in force on the occasion."""
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]


class CampaignBudget(Base):
    """What a campaign has given in all. Changed only by whoever has locked the row."""

    __tablename__ = "campaign_budget"
    __table_args__ = (
        CheckConstraint("points >= 0 AND grants >= 0", name="counts_not_negative"),
        CheckConstraint("points <= budget", name="points_within_budget"),
    )

    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"), primary_key=True)
    campaign: Mapped[str] = mapped_column(primary_key=True)
    points: Mapped[int]
    grants: Mapped[int]
    """How many grants that were."""
    budget: Mapped[int | None]
    """That of the terms by which it gave last; null: none."""


class MemberEvent(Base):
    """Something that happened to a member and that campaigns are for. Append-only, by trigger."""

    __tablename__ = "member_event"
    __table_args__ = (UniqueConstraint("program_id", "source", "external_id"), Index(None, "member_id"), NO_ROWID)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    source: Mapped[str]
    external_id: Mapped[str]
    """Its number there."""
    event: Mapped[str]
    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]
