"""Reads of holds that were asked for. Those without a request are not ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import Session

from app import db
from app.errors import NotFound
from app.holds.models import HoldRequest
from app.holds.rules import HoldState, Status
from app.ledger import Hold

_STATE: tuple[Any, ...] = (
    Hold.id,
    Hold.member_id,
    Hold.points,
    Hold.captured,
    Hold.status,
    HoldRequest.reference,
    Hold.ends_at,
    Hold.ended_at,
    Hold.recorded_at,
)
"""The columns of a `HoldState`, in its order."""


def _states(program_id: UUID) -> Select[*tuple[Any, ...]]:
    asked = and_(HoldRequest.member_id == Hold.member_id, HoldRequest.hold_id == Hold.id)
    return select(*_STATE).join(HoldRequest, asked).where(Hold.program_id == program_id)


def find(session: Session, program_id: UUID, hold_id: UUID, now: datetime) -> HoldState:
    """One hold at `now`. NotFound if the programme has no such hold, or nobody asked for it here."""
    found = find_each(session, program_id, [hold_id], now)
    if hold_id not in found:
        raise NotFound
    return found[hold_id]


def find_each(session: Session, program_id: UUID, hold_ids: Sequence[UUID], now: datetime) -> dict[UUID, HoldState]:
    """Those of some holds that the programme has and somebody asked for here, at `now`."""
    rows = session.execute(_states(program_id).where(db.any_of(session, Hold.id.expression, sorted(set(hold_ids)))))
    return {state.id: state for state in (HoldState(*row).at(now) for row in rows)}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which holds to list; None: any."""

    member_id: UUID | None
    status: Status | None


def holds(
    session: Session, program_id: UUID, chosen: Chosen, after: UUID | None, limit: int, now: datetime
) -> Sequence[HoldState]:
    """Holds at `now`, oldest first, from the one after `after`; at most `limit`."""
    rows = _states(program_id)
    if chosen.member_id is not None:
        rows = rows.where(Hold.member_id == chosen.member_id)
    if chosen.status is not None:
        rows = rows.where(_stands(chosen.status, now))
    if after is not None:
        rows = rows.where(Hold.id > after)
    return [HoldState(*row).at(now) for row in session.execute(rows.order_by(Hold.id).limit(limit))]


def _stands(status: Status, now: datetime) -> ColumnElement[bool]:
    """What `HoldState.at` answers, as a condition."""
    over = and_(Hold.status == "open", Hold.ends_at <= now)
    match status:
        case "open":
            return and_(Hold.status == "open", Hold.ends_at > now)
        case "expired":
            return or_(Hold.status == "expired", over)
        case _:
            return Hold.status == status
