"""The table of adjustments: what staff asked for never changes, and it ends once."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class Adjustment(Base):
    """What a person of staff asked for, and how it ended. Its facts, and its end, are kept by triggers."""

    __tablename__ = "adjustment"
    __table_args__ = (
        ForeignKeyConstraint(["member_id", "lot_id"], ["lot.member_id", "lot.id"]),
        CheckConstraint(
            "class IN ('goodwill', 'sign_up', 'referral', 'promotion', 'correction', 'concession', 'debt_write_off', "
            "'extension', 'reinstatement')",
            name="class",
        ),
        CheckConstraint("status IN ('waiting', 'applied', 'rejected')", name="status"),
        CheckConstraint("points <> 0", name="points_not_zero"),
        CheckConstraint("points > 0 OR class = 'correction'", name="only_corrections_take"),
        CheckConstraint("(class = 'concession') = (order_id IS NOT NULL)", name="concession_has_order"),
        CheckConstraint("consented_at IS NULL OR class = 'concession'", name="consent_is_to_concession"),
        CheckConstraint(
            "(class IN ('extension', 'reinstatement')) = (lot_id IS NOT NULL)", name="lot_classes_have_lot"
        ),
        CheckConstraint("(lot_id IS NULL) = (expires_at IS NULL)", name="lot_has_expiry"),
        CheckConstraint(
            "(status = 'waiting') = (ended_at IS NULL) AND (ended_at IS NULL) = (ended_by IS NULL) "
            "AND (ended_at IS NULL) = (ended_person IS NULL)",
            name="ended_has_who_and_when",
        ),
        CheckConstraint("(status = 'applied') = (terms_id IS NOT NULL)", name="applied_has_terms"),
        CheckConstraint("ended_reason IS NULL OR status = 'rejected'", name="rejection_has_reason"),
        CheckConstraint("needs_approval OR status = 'applied'", name="only_approvals_wait"),
        CheckConstraint(
            "NOT needs_approval OR ended_person IS NULL OR ended_person <> requested_person", name="two_persons"
        ),
        Index(None, "program_id", "id"),
        Index(None, "member_id"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    class_: Mapped[str] = mapped_column("class")
    points: Mapped[int]
    """Given; taken if negative; forgiven, extended or reinstated, as the class says."""
    reason: Mapped[str]
    note: Mapped[str | None]
    order_id: Mapped[UUID | None] = mapped_column(ForeignKey("transaction.id"))
    """The purchase that a concession makes up for."""
    consented_at: Mapped[datetime | None]
    """When the member agreed to points instead of their money."""
    lot_id: Mapped[UUID | None]
    """What is extended or reinstated."""
    expires_at: Mapped[datetime | None]
    """Until when it is good then."""
    needs_approval: Mapped[bool]
    requested_by: Mapped[UUID] = mapped_column(ForeignKey("client.id"))
    requested_person: Mapped[str]
    requested_at: Mapped[datetime]
    status: Mapped[str]
    ended_by: Mapped[UUID | None] = mapped_column(ForeignKey("client.id"))
    ended_person: Mapped[str | None]
    ended_at: Mapped[datetime | None]
    """When it was applied, or rejected."""
    ended_reason: Mapped[str | None]
    """Why it was rejected."""
    terms_id: Mapped[UUID | None] = mapped_column(ForeignKey("program_terms.id"))
    """The version of terms it was applied under."""
