"""Tables of what tills posted. Append-only; a key may be given back by the transaction that took it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base

DOCUMENT = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class TransactionKey(Base):
    """The natural key of a transaction. Unique for ever: this is what makes a purchase earn once."""

    __tablename__ = "transaction_key"
    __table_args__ = (UniqueConstraint("transaction_id"), NO_ROWID)

    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"), primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    external_id: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(primary_key=True)
    # Deferred: the key is taken before the transaction is decided and written.
    transaction_id: Mapped[UUID] = mapped_column(ForeignKey("transaction.id", deferrable=True, initially="DEFERRED"))


class Transaction(Base):
    """A purchase as the till sent it, without personal data, and what was decided for it. Append-only, by trigger."""

    __tablename__ = "transaction"
    __table_args__ = (
        CheckConstraint("type IN ('purchase', 'return', 'void')", name="type"),
        CheckConstraint("total >= 0 OR type = 'void'", name="total_not_negative"),
        CheckConstraint("points >= 0 OR type <> 'purchase'", name="points_not_negative"),
        CheckConstraint(
            "type <> 'purchase' OR (purchase_id IS NULL AND original_id IS NULL)", name="purchase_is_first"
        ),
        CheckConstraint("type <> 'void' OR original_id IS NOT NULL", name="void_has_original"),
        CheckConstraint("member_id IS NOT NULL OR points = 0", name="guest_has_no_points"),
        CheckConstraint("member_id IS NULL OR claimable = 0", name="member_has_nothing_claimable"),
        Index(None, "program_id", "id"),
        Index(None, "member_id", "occurred_at"),
        Index(None, "purchase_id"),
        Index(
            "uq_transaction_voided",
            "original_id",
            unique=True,
            postgresql_where=text("type = 'void'"),
            sqlite_where=text("type = 'void'"),
        ),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    type: Mapped[str]
    source: Mapped[str]
    external_id: Mapped[str]
    fingerprint: Mapped[str]
    """SHA-256 of the content, canonical, without the member."""
    member_id: Mapped[UUID | None] = mapped_column(ForeignKey("member.id"))
    enrolled: Mapped[bool]
    """Whether this purchase made the member one."""
    terms_id: Mapped[UUID] = mapped_column(ForeignKey("program_terms.id"))
    """The version it was decided under; pinned for all that follows."""
    store: Mapped[str | None]
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]
    currency: Mapped[str]
    total: Mapped[int]
    points: Mapped[int]
    """Earned; what a return takes back is negative."""
    claimable: Mapped[int]
    """Points a guest's purchase would earn whoever claims it."""
    content: Mapped[dict[str, Any]]
    """What the till sent: lines, tenders and all, less the member."""
    reasons: Mapped[list[dict[str, Any]]] = mapped_column(DOCUMENT)
    """Each rule's part of the points."""
    shares: Mapped[list[dict[str, Any]]] = mapped_column(DOCUMENT)
    """Per line: its part of the earning base, and of the price allocated to goods (minor units)."""
    purchase_id: Mapped[UUID | None] = mapped_column(ForeignKey("transaction.id"))
    """The purchase a return or a void is about; null for a purchase, and for a return without the receipt."""
    original_id: Mapped[UUID | None] = mapped_column(ForeignKey("transaction.id"))
    """The transaction it takes back: the purchase, or for the void of a return that return."""
    facts: Mapped[dict[str, Any] | None]
    """What was known of the member when it was decided (`programs.Occasion`: `unmet`, `allowed`, `tier`); null: nothing
    that terms ask for."""
    outcome: Mapped[dict[str, Any] | None]
    """What points paid for, or what a return came to (`return_rules.Figures`, `return_rules.Outcome`)."""


class TransactionClaim(Base):
    """A guest's purchase, claimed by a member later. At most one per transaction. Append-only, by trigger."""

    __tablename__ = "transaction_claim"
    __table_args__ = (
        UniqueConstraint("transaction_id"),
        CheckConstraint("points >= 0", name="points_not_negative"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    transaction_id: Mapped[UUID] = mapped_column(ForeignKey("transaction.id"))
    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"), index=True)
    points: Mapped[int]
    reasons: Mapped[list[dict[str, Any]] | None] = mapped_column(DOCUMENT)
    """Each rule's part of the points; null: those of the purchase."""
    facts: Mapped[dict[str, Any] | None]
    """What was known of the member at the claim, as of a purchase."""
    recorded_at: Mapped[datetime]


class TransactionConcession(Base):
    """Points given for a purchase that went wrong, as a part of its price. Append-only, by trigger."""

    __tablename__ = "transaction_concession"
    __table_args__ = (CheckConstraint("price_left > 0", name="price_left_positive"), NO_ROWID)

    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    """What gave the points."""
    purchase_id: Mapped[UUID] = mapped_column(ForeignKey("transaction.id"), index=True)
    price_left: Mapped[int]
    """What the customer had paid for the goods they still had, in money and net of VAT, minor units. What comes back
    of it takes the points along, in proportion."""
    recorded_at: Mapped[datetime]


class WaitingReturn(Base):
    """A return that arrived before its purchase, until that comes."""

    __tablename__ = "waiting_return"
    __table_args__ = (Index("ix_waiting_return_original", "program_id", "original_source", "original_external_id"),)

    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"), primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    external_id: Mapped[str] = mapped_column(primary_key=True)
    original_source: Mapped[str]
    original_external_id: Mapped[str]
    store: Mapped[str | None]
    fingerprint: Mapped[str]
    content: Mapped[dict[str, Any]]
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]
    alarmed_at: Mapped[datetime | None]
    """When somebody was told that it waits for too long."""
