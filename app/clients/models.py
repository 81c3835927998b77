"""Tables of clients and their keys."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Client(Base):
    """A till, a partner's back end or a person of staff."""

    __tablename__ = "client"
    __table_args__ = (CheckConstraint("kind IN ('terminal', 'partner', 'staff')", name="kind"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID | None] = mapped_column(ForeignKey("program.id"))
    kind: Mapped[str]
    name: Mapped[str]
    stores: Mapped[list[str] | None]
    """Stores the client may act for; null: all."""
    created_at: Mapped[datetime]


class ApiKey(Base):
    """One key of a client; the secret itself is not stored."""

    __tablename__ = "api_key"

    public_id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[UUID] = mapped_column(ForeignKey("client.id"), index=True)
    secret_hash: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
