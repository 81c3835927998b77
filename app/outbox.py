"""Events for the world outside, written in the transaction that caused them; delivery reads them from here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Mapped, Session, mapped_column

from app import db
from app.ids import new_id


class OutboxEvent(db.Base):
    """One event. The payload holds ids and figures, never personal data."""

    __tablename__ = "outbox"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    program_id: Mapped[UUID]
    topic: Mapped[str]
    member_id: Mapped[UUID | None]
    payload: Mapped[dict[str, Any]]
    recorded_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened (`transaction.recorded`), to which member, with which ids and figures."""

    program_id: UUID
    topic: str
    member_id: UUID | None
    payload: dict[str, Any]


def put(session: Session, events: Sequence[Event], now: datetime) -> None:
    """Writes `events`; they leave only if the transaction commits."""
    rows = [
        {
            "id": new_id(),
            "program_id": event.program_id,
            "topic": event.topic,
            "member_id": event.member_id,
            "payload": event.payload,
            "recorded_at": now,
        }
        for event in events
    ]
    db.insert_rows(session, OutboxEvent, rows)
