"""Tables of clients and their keys."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Client(Base):
    """A till, a partner's back end or a person of staff."""

    __tablename__ = "client"
    __table_args__ = (
        CheckConstraint("kind IN ('terminal', 'partner', 'staff')", name="kind"),
        CheckConstraint("person IS NOT NULL OR (role IS NULL AND member_id IS NULL)", name="role_is_of_person"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID | None] = mapped_column(ForeignKey("program.id"))
    kind: Mapped[str]
    name: Mapped[str]
    stores: Mapped[list[str] | None]
    """Stores the client may act for; null: all."""
    person: Mapped[str | None]
    """Who acts through it, in one spelling (`rules.one_person`). Two clients of one person are one person."""
    role: Mapped[str | None]
    """What the person is here; terms set limits by it."""
    member_id: Mapped[UUID | None] = mapped_column(ForeignKey("member.id"))
    """The person's own membership, if they have one."""
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
