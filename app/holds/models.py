"""Table of what was said when points were held."""

from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import NO_ROWID, Base


class HoldRequest(Base):
    """Who asked for a hold, and what they call it. Append-only, by trigger."""

    __tablename__ = "hold_request"
    __table_args__ = (ForeignKeyConstraint(["member_id", "hold_id"], ["hold.member_id", "hold.id"]), NO_ROWID)

    member_id: Mapped[UUID] = mapped_column(primary_key=True)
    hold_id: Mapped[UUID] = mapped_column(primary_key=True)
    client_id: Mapped[UUID] = mapped_column(ForeignKey("client.id"))
    reference: Mapped[str | None]
    """The caller's own number of whatever the points are held for."""
