"""Tables of members. Personal data is in two of them, so that erasing a person leaves every sum as it was."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class Member(Base):
    """A member of a programme: an id and a status."""

    __tablename__ = "member"
    __table_args__ = (
        CheckConstraint("status IN ('active', 'earn_only', 'spend_only', 'suspended', 'closed')", name="status"),
        Index(None, "program_id", "id"),
        Index(None, "program_id", "enrolled_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    status: Mapped[str]
    enrolled_at: Mapped[datetime]
    revision: Mapped[int]
    """Counts the changes; the entity tag."""


class MemberProfile(Base):
    """Personal data of a member."""

    __tablename__ = "member_profile"

    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"), primary_key=True)
    name: Mapped[str | None]
    language: Mapped[str | None]
    born_on: Mapped[date | None]
    attributes: Mapped[dict[str, Any] | None]
    """Whatever the programme wants to know, by name; null: nothing."""
    segments: Mapped[list[str] | None]
    """Groups that the programme has put the member in; null: none."""


class MemberIdentifier(Base):
    """One way to recognise a member; personal data too."""

    __tablename__ = "member_identifier"
    __table_args__ = (
        CheckConstraint("kind IN ('card', 'phone', 'email', 'partner')", name="kind"),
        Index(None, "member_id"),
    )

    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    # Deferred: identifiers are claimed before the member is written, so that two tills enrolling one card meet here.
    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id", deferrable=True, initially="DEFERRED"))


class MemberReferral(Base):
    """Who brought a member, said before the member first bought. Append-only, by trigger."""

    __tablename__ = "member_referral"
    __table_args__ = (CheckConstraint("member_id <> referrer_id", name="two_members"), NO_ROWID)

    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"), primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    referrer_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    recorded_at: Mapped[datetime]


class Pool(Base):
    """A household. It has no points of its own, and no personal data: its name is a code."""

    __tablename__ = "pool"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    name: Mapped[str | None]
    """A code of whoever made it."""
    created_at: Mapped[datetime]


class PoolMember(Base):
    """Who is in a pool. The key keeps a member from being in two."""

    __tablename__ = "pool_member"
    __table_args__ = (Index(None, "pool_id"),)

    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"), primary_key=True)
    pool_id: Mapped[UUID] = mapped_column(ForeignKey("pool.id"))
    joined_at: Mapped[datetime]
