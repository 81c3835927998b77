"""Tables of stamp cards: how full each is, and what put its stamps there."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class StampCardRow(Base):
    """A member's card: how many stamps it has, of how many. Changed only under the claim of the account; columns as in
    `rules.Card`. How it was begun, triggers keep."""

    __tablename__ = "stamp_card"
    __table_args__ = (
        UniqueConstraint("member_id", "code", "number"),
        CheckConstraint("number > 0", name="number_positive"),
        CheckConstraint("head_start BETWEEN 0 AND size - 1", name="head_start_fills_no_card"),
        CheckConstraint(
            "head_start_points >= 0 AND (head_start = 0) = (head_start_points = 0)", name="head_start_has_points"
        ),
        CheckConstraint("stamps BETWEEN head_start AND size", name="stamps_within_size"),
        CheckConstraint("(full_at IS NOT NULL) = (stamps = size)", name="full_with_all_stamps"),
        CheckConstraint("begun_at < ends_at", name="begins_before_it_ends"),
        CheckConstraint("begun_at <= stamped_at", name="begun_by_its_first_stamp"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """The document of the lot of its head start."""
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    code: Mapped[str]
    number: Mapped[int]
    terms_id: Mapped[UUID] = mapped_column(ForeignKey("program_terms.id"))
    """The version of terms under which it was begun, and whose promise it keeps."""
    size: Mapped[int]
    head_start: Mapped[int]
    head_start_points: Mapped[int]
    stamps: Mapped[int]
    begun_by: Mapped[UUID]
    """The purchase or claim that brought its first stamp, and the head start with it."""
    begun_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    stamped_at: Mapped[datetime]
    full_at: Mapped[datetime | None]


class Stamp(Base):
    """Stamps that a purchase or a claim put on a card, or that came off it again with a return (negative) and back with
    the void of that. Append-only, by trigger."""

    __tablename__ = "stamp"
    __table_args__ = (
        ForeignKeyConstraint(["member_id", "of_id"], ["stamp.member_id", "stamp.id"]),
        CheckConstraint("stamps <> 0 AND (stamps > 0) = (points > 0) AND points <> 0", name="stamps_are_points"),
        CheckConstraint("stamps > 0 OR of_id IS NOT NULL", name="comes_off_what_was_put_there"),
        Index(None, "card_id"),
        Index(None, "document_id"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    """Of what a purchase put there: the document of its lot."""
    card_id: Mapped[UUID] = mapped_column(ForeignKey("stamp_card.id"))
    document_id: Mapped[UUID]
    """The purchase, claim, return or void."""
    of_id: Mapped[UUID | None]
    """What it takes off, or puts back. Null: new stamps."""
    stamps: Mapped[int]
    points: Mapped[int]
    """What they stand for."""
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]
