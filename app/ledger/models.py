"""Tables of points. A member's rows live together: the keys begin with `member_id`."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class PointAccount(Base):
    """A member's balances, points. With `Lot.remaining` the only rows here that change."""

    __tablename__ = "point_account"
    __table_args__ = (
        *(
            CheckConstraint(f"{name} >= 0", name=f"{name}_not_negative")
            for name in ("available", "held", "pending", "debt", "qualifying", "lifetime", "last_entry")
        ),
        CheckConstraint("held <= available", name="held_at_most_available"),
    )

    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"), primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    available: Mapped[int]
    """Sum of the lots' remaining points: what can be spent, less what is due to expire and not written down yet."""
    held: Mapped[int]
    pending: Mapped[int]
    debt: Mapped[int]
    qualifying: Mapped[int]
    lifetime: Mapped[int]
    last_entry: Mapped[int]
    """Number of the account's last entry; numbers have no gaps."""
    next_due_at: Mapped[datetime | None]
    """When the first of the account's lots expires; until then nothing has to be looked up."""


class Lot(Base):
    """Points earned together, with the money deferred for them."""

    __tablename__ = "lot"
    __table_args__ = (
        ForeignKeyConstraint(["member_id"], ["point_account.member_id"]),
        ForeignKeyConstraint(["member_id", "entry_id"], ["point_entry.member_id", "point_entry.id"]),
        UniqueConstraint("member_id", "entry_id"),
        CheckConstraint("granted > 0", name="granted_positive"),
        CheckConstraint("remaining BETWEEN 0 AND granted", name="remaining_within_granted"),
        CheckConstraint("allocated >= 0", name="allocated_not_negative"),
        CheckConstraint("residue BETWEEN -1000000 AND 1000000", name="residue_within_one_unit"),
        CheckConstraint("expected BETWEEN 0 AND granted * 1000000", name="expected_within_granted"),
        CheckConstraint("expires_at > available_from", name="expires_after_available"),
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
    available_from: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    """The first instant at which the points are gone; null: they stay."""
    cohort_id: Mapped[UUID]
    currency: Mapped[str]
    allocated: Mapped[int]
    """Share of the price deferred for these points, minor units. It never changes."""
    residue: Mapped[int]
    """What rounding cut off the exact share, in millionths of a minor unit."""
    expected: Mapped[int]
    """Points expected to be used when they were issued, in millionths of a point."""
    document_id: Mapped[UUID]
    """What granted them: a transaction, or the claim of one."""
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]

    @property
    def allocated_exact(self) -> str:
        """The share before rounding: minor units with six decimals."""
        whole, millionths = divmod(self.allocated * 1_000_000 + self.residue, 1_000_000)
        return f"{whole}.{millionths:06}"


class PointEntry(Base):
    """One movement on an account. Append-only, by trigger."""

    __tablename__ = "point_entry"
    __table_args__ = (
        ForeignKeyConstraint(["member_id"], ["point_account.member_id"]),
        UniqueConstraint("member_id", "number"),
        CheckConstraint("kind IN ('accrual')", name="kind"),
        CheckConstraint("number > 0", name="number_positive"),
        CheckConstraint("points <> 0", name="points_not_zero"),
        CheckConstraint("balance_after >= 0", name="balance_after_not_negative"),
        NO_ROWID,
    )

    member_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int]
    kind: Mapped[str]
    points: Mapped[int]
    balance_after: Mapped[int]
    document_id: Mapped[UUID]
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]
