"""Tables of points. A member's rows live together: the keys begin with `member_id`."""

from datetime import datetime
from typing import get_args
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base
from app.ledger.rules import Effect, Kind


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    words = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({words})", name=column)


class PointAccount(Base):
    """A member's balances, points: available + held + pending - debt. Each is the sum of its entries."""

    __tablename__ = "point_account"
    __table_args__ = (
        *(
            CheckConstraint(f"{name} >= 0", name=f"{name}_not_negative")
            for name in ("available", "held", "pending", "debt", "qualifying", "lifetime", "last_entry")
        ),
        Index(
            "ix_point_account_due",
            "program_id",
            "next_due_at",
            "member_id",
            postgresql_where=text("next_due_at IS NOT NULL"),
            sqlite_where=text("next_due_at IS NOT NULL"),
        ),
    )

    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"), primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    available: Mapped[int]
    """What can be spent, as last written down."""
    held: Mapped[int]
    pending: Mapped[int]
    debt: Mapped[int]
    qualifying: Mapped[int]
    lifetime: Mapped[int]
    last_entry: Mapped[int]
    """Number of the account's last entry; numbers have no gaps."""
    next_due_at: Mapped[datetime | None]
    """When the next thing happens by itself: a lot expires or becomes available, a hold ends."""
    lapses_at: Mapped[datetime | None]
    """When lots that expire by inactivity do; every activity moves it."""


class Lot(Base):
    """Points granted together, with the money deferred for them. Only `remaining`, `held` and `pending` change."""

    __tablename__ = "lot"
    __table_args__ = (
        ForeignKeyConstraint(["member_id"], ["point_account.member_id"]),
        ForeignKeyConstraint(["member_id", "entry_id"], ["point_entry.member_id", "point_entry.id"]),
        CheckConstraint("granted > 0", name="granted_positive"),
        CheckConstraint("remaining BETWEEN 0 AND granted", name="remaining_within_granted"),
        CheckConstraint("held BETWEEN 0 AND remaining", name="held_within_remaining"),
        CheckConstraint("allocated >= 0", name="allocated_not_negative"),
        CheckConstraint("residue BETWEEN -1000000 AND 1000000", name="residue_within_one_unit"),
        CheckConstraint("expected BETWEEN 0 AND granted * 1000000", name="expected_within_granted"),
        CheckConstraint("expires_at > available_from", name="expires_after_available"),
        CheckConstraint("NOT (lapses AND expires_at IS NOT NULL)", name="lapses_or_expires"),
        CheckConstraint("pending OR available_from IS NOT NULL", name="available_from_known"),
        CheckConstraint(
            "source_lot_id IS NULL OR (allocated = 0 AND residue = 0 AND expected = 0)", name="moved_defers_nothing"
        ),
        Index(
            "ix_lot_member_id_expires_at",
            "member_id",
            "expires_at",
            postgresql_where=text("remaining > 0"),
            sqlite_where=text("remaining > 0"),
        ),
        Index(None, "document_id"),
        Index(None, "cohort_id"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    entry_id: Mapped[UUID]
    granted: Mapped[int]
    remaining: Mapped[int]
    held: Mapped[int]
    """The part of `remaining` that open holds reserve."""
    pending: Mapped[bool]
    available_from: Mapped[datetime | None]
    """Null: pending until an event."""
    expires_at: Mapped[datetime | None]
    """The first instant at which the points are gone; null: they stay, or they lapse."""
    lapses: Mapped[bool]
    """Whether the points expire when the account lapses (`PointAccount.lapses_at`)."""
    cohort_id: Mapped[UUID]
    currency: Mapped[str]
    funding: Mapped[str]
    allocated: Mapped[int]
    """Share of the price deferred for these points, minor units. It never changes."""
    residue: Mapped[int]
    """What rounding cut off the exact share, in millionths of a minor unit."""
    expected: Mapped[int]
    """Points expected to be used when they were issued, in millionths of a point."""
    document_id: Mapped[UUID]
    """What granted them: a transaction, the claim of one, an adjustment, a transfer."""
    source_lot_id: Mapped[UUID | None]
    """The lot these points were in before; it has what was deferred for them. Null: they were issued here."""
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]

    @property
    def allocated_exact(self) -> str:
        """The share before rounding: minor units with six decimals."""
        whole, millionths = divmod(self.allocated * 1_000_000 + self.residue, 1_000_000)
        return f"{whole}.{millionths:06}"


class PointEntry(Base):
    """One movement on an account: by how much each of its figures changed. Append-only, by trigger."""

    __tablename__ = "point_entry"
    __table_args__ = (
        ForeignKeyConstraint(["member_id"], ["point_account.member_id"]),
        Unique("member_id", "number"),
        _one_of("kind", get_args(Kind)),
        CheckConstraint("number > 0", name="number_positive"),
        CheckConstraint("points = available + held + pending - debt", name="points_are_the_sum"),
        Index(None, "document_id"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int]
    kind: Mapped[str]
    points: Mapped[int]
    """Change of the balance: available + held + pending - debt."""
    available: Mapped[int]
    held: Mapped[int]
    pending: Mapped[int]
    debt: Mapped[int]
    qualifying: Mapped[int]
    lifetime: Mapped[int]
    balance_after: Mapped[int]
    """The balance; negative while more is owed than is there."""
    lapses_at: Mapped[datetime | None]
    """When the account lapses from now on, if this movement was an activity that moved that."""
    document_id: Mapped[UUID]
    """What caused it. What time alone caused (expiry, activation) is its own document."""
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]


class LotUse(Base):
    """Points an entry took from a lot; negative: gave back to it. Append-only, by trigger."""

    __tablename__ = "lot_use"
    __table_args__ = (
        ForeignKeyConstraint(["member_id", "lot_id"], ["lot.member_id", "lot.id"]),
        ForeignKeyConstraint(["member_id", "entry_id"], ["point_entry.member_id", "point_entry.id"]),
        _one_of("effect", get_args(Effect)),
        CheckConstraint("points <> 0", name="points_not_zero"),
        Index(None, "member_id", "lot_id"),
        Index(None, "member_id", "entry_id"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    entry_id: Mapped[UUID]
    lot_id: Mapped[UUID]
    points: Mapped[int]
    effect: Mapped[str]
    """used, expired, returned or moved: what it means to the lot's cohort."""


class LotReturnRow(Base):
    """What a return took back of one lot (`LotReturn`); negative: its void gave it back. Append-only, by trigger."""

    __tablename__ = "lot_return"
    __table_args__ = (
        ForeignKeyConstraint(["member_id", "lot_id"], ["lot.member_id", "lot.id"]),
        ForeignKeyConstraint(["member_id", "entry_id"], ["point_entry.member_id", "point_entry.id"]),
        CheckConstraint("points <> 0", name="points_not_zero"),
        CheckConstraint("abs(of_used + of_expired) <= abs(points)", name="parts_within_points"),
        Index(None, "member_id", "lot_id"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    entry_id: Mapped[UUID]
    lot_id: Mapped[UUID]
    points: Mapped[int]
    allocated: Mapped[int]
    residue: Mapped[int]
    expected: Mapped[int]
    of_used: Mapped[int]
    of_expired: Mapped[int]


class CoverRow(Base):
    """What stands in for points that a return could not take from their lot (`Cover`); negative: no longer.
    Append-only, by trigger."""

    __tablename__ = "cover"
    __table_args__ = (
        ForeignKeyConstraint(["member_id", "lot_id"], ["lot.member_id", "lot.id"]),
        ForeignKeyConstraint(["member_id", "by_lot_id"], ["lot.member_id", "lot.id"]),
        ForeignKeyConstraint(["member_id", "entry_id"], ["point_entry.member_id", "point_entry.id"]),
        _one_of("effect", ("used", "returned", "expired")),
        CheckConstraint("points <> 0", name="points_not_zero"),
        CheckConstraint("NOT (forgiven AND by_lot_id IS NOT NULL)", name="forgiven_by_nobody"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    entry_id: Mapped[UUID]
    lot_id: Mapped[UUID | None]
    """The lot whose points were gone; null: it is not known which, a receipt was missing."""
    by_lot_id: Mapped[UUID | None]
    """The lot that stands in; null: debt, or nobody."""
    points: Mapped[int]
    effect: Mapped[str]
    """used, returned or expired: what standing in means to a lot's cohort."""
    forgiven: Mapped[bool]
    """Whether nobody stands in."""


class Hold(Base):
    """Points reserved for one spend. It ends once: captured, released or expired."""

    __tablename__ = "hold"
    __table_args__ = (
        ForeignKeyConstraint(["member_id", "entry_id"], ["point_entry.member_id", "point_entry.id"]),
        CheckConstraint("points > 0", name="points_positive"),
        CheckConstraint("status IN ('open', 'captured', 'released', 'expired')", name="status"),
        CheckConstraint("(status = 'open') = (ended_at IS NULL)", name="ended_has_time"),
        CheckConstraint("captured BETWEEN 0 AND points", name="captured_within_points"),
        CheckConstraint("(status = 'captured') = (captured > 0)", name="captured_has_points"),
        Index("ix_hold_id", "id", unique=True),
        Index(None, "program_id", "id"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    entry_id: Mapped[UUID]
    points: Mapped[int]
    ends_at: Mapped[datetime | None]
    """When it ends by itself; null: only when somebody ends it."""
    status: Mapped[str]
    captured: Mapped[int]
    ended_at: Mapped[datetime | None]
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]


class HoldLot(Base):
    """How many points of a lot a hold reserves. Append-only, by trigger."""

    __tablename__ = "hold_lot"
    __table_args__ = (
        ForeignKeyConstraint(["member_id", "hold_id"], ["hold.member_id", "hold.id"]),
        ForeignKeyConstraint(["member_id", "lot_id"], ["lot.member_id", "lot.id"]),
        CheckConstraint("points > 0", name="points_positive"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(primary_key=True)
    hold_id: Mapped[UUID] = mapped_column(primary_key=True)
    lot_id: Mapped[UUID] = mapped_column(primary_key=True)
    points: Mapped[int]


class ExpiryWarning(Base):
    """A warning that was sent: to whom, of what expiry, and the day it was for. Append-only, by trigger."""

    __tablename__ = "expiry_warning"
    __table_args__ = (
        ForeignKeyConstraint(["member_id"], ["point_account.member_id"]),
        CheckConstraint("points > 0", name="points_positive"),
        CheckConstraint("warned_for < expires_at", name="warned_before_expiry"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(primary_key=True)
    warned_for: Mapped[datetime] = mapped_column(primary_key=True)
    """The beginning of the day that the terms ask for."""
    points: Mapped[int]
    """How many there were, and not held, when it was sent."""
    recorded_at: Mapped[datetime]
