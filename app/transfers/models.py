"""Table of transfers. It holds no personal data: words are codes of whoever integrates."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class Transfer(Base):
    """Points that went from one member to another. Append-only, by trigger."""

    __tablename__ = "transfer"
    __table_args__ = (
        CheckConstraint("points > 0", name="points_positive"),
        CheckConstraint("from_member_id <> to_member_id", name="two_members"),
        Index(None, "from_member_id", "occurred_at"),
        Index(None, "to_member_id"),
        NO_ROWID,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID] = mapped_column(ForeignKey("program.id"))
    from_member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    to_member_id: Mapped[UUID] = mapped_column(ForeignKey("member.id"))
    points: Mapped[int]
    note: Mapped[str | None]
    """What it was for, as a code: `birthday`."""
    pool_id: Mapped[UUID | None] = mapped_column(ForeignKey("pool.id"))
    """The pool it was drawn from; null: a gift, which counts towards the limits."""
    client_id: Mapped[UUID] = mapped_column(ForeignKey("client.id"))
    occurred_at: Mapped[datetime]
    recorded_at: Mapped[datetime]
