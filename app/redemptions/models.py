"""Tables of rewards, of what was redeemed for them, and of vouchers."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class RewardRow(Base):
    """A reward of a programme's catalogue. It is retired, never deleted."""

    __tablename__ = "reward"
    __table_args__ = (
        UniqueConstraint("program_id", "code"),
        CheckConstraint("taken >= 0", name="taken_not_negative"),
        CheckConstraint("taken <= supply", name="taken_within_supply"),
        Index(None, "program_id", "id"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    code: Mapped[str]
    offer: Mapped[dict[str, Any]]
    currency: Mapped[str]
    supply: Mapped[int | None]
    """Pieces to give out in all; null: any number."""
    taken: Mapped[int]
    """Pieces ordered from a limited supply and not cancelled. A count, so that a change of `supply` loses no order."""
    revision: Mapped[int]
    """Counts the changes of the offer; the entity tag."""
    created_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]


class Redemption(Base):
    """Pieces of a reward a member spent points on, with what was agreed when they were ordered.

    It ends once, fulfilled or cancelled; nothing else of it changes, by trigger. While it is ordered, a hold with its
    id reserves the points.
    """

    __tablename__ = "redemption"
    __table_args__ = (
        CheckConstraint("status IN ('ordered', 'fulfilled', 'cancelled')", name="status"),
        CheckConstraint("(status = 'ordered') = (ended_at IS NULL)", name="ended_has_time"),
        CheckConstraint("supplier IN ('own', 'principal', 'agent')", name="supplier"),
        CheckConstraint("quantity > 0", name="quantity_positive"),
        CheckConstraint("points > 0", name="points_positive"),
        CheckConstraint("cost >= 0", name="cost_not_negative"),
        CheckConstraint("(voucher_value IS NULL) = (voucher_days IS NULL)", name="voucher_has_both"),
        Index(None, "program_id", "id"),
        Index(None, "member_id", "id"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    reward_id: Mapped[UUID] = mapped_column(ForeignKey("reward.id"))
    quantity: Mapped[int]
    points: Mapped[int]
    """For all pieces."""
    counted: Mapped[bool]
    """Whether its pieces were taken from a limited supply, and go back there."""
    supplier: Mapped[str]
    cost: Mapped[int]
    """Of all pieces, minor units: the goods', or the partner's charge. Posted when they are handed over."""
    currency: Mapped[str]
    voucher_value: Mapped[int | None]
    """Minor units; null: no vouchers."""
    voucher_days: Mapped[int | None]
    status: Mapped[str]
    ordered_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class VoucherRow(Base):
    """A voucher issued for a piece of a redemption. The code is not stored, only what it is found by.

    It is burnt or cancelled once; nothing else of it changes, by trigger.
    """

    __tablename__ = "voucher"
    __table_args__ = (
        UniqueConstraint("code_hash"),
        UniqueConstraint("redemption_id", "number"),
        CheckConstraint("status IN ('issued', 'burnt', 'cancelled')", name="status"),
        CheckConstraint("(status = 'issued') = (ended_at IS NULL)", name="ended_has_time"),
        CheckConstraint("(status = 'burnt') = (source IS NOT NULL)", name="burnt_has_source"),
        CheckConstraint("(status = 'burnt') = (external_id IS NOT NULL)", name="burnt_has_receipt"),
        CheckConstraint("value > 0", name="value_positive"),
        CheckConstraint("expires_at > issued_at", name="expires_after_issue"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    redemption_id: Mapped[UUID] = mapped_column(ForeignKey("redemption.id"))
    number: Mapped[int]
    """Of the piece, from 1."""
    code_hash: Mapped[str]
    value: Mapped[int]
    """Minor units."""
    currency: Mapped[str]
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    status: Mapped[str]
    ended_at: Mapped[datetime | None]
    source: Mapped[str | None]
    """Whoever numbers the receipts, of the receipt it was burnt on."""
    external_id: Mapped[str | None]
