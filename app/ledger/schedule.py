"""What the clock does to accounts, many at a time: settle what is due, date points that never expired, warn.

Each verb deals with one slice; the walks answer the next slice after the last one's end, in an order that does not
change under them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Select, and_, bindparam, func, or_, select, tuple_
from sqlalchemy.orm import Session

from app import db, outbox
from app.ledger.models import ExpiryWarning, Lot, PointAccount, PointEntry
from app.ledger.queries import expiry
from app.ledger.service import claim, write

Span = tuple[datetime, datetime]
"""From an instant, and before another."""


# --- what is due ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Due:
    """An account to which something happens by itself, and when."""

    at: datetime
    member_id: UUID


def due_accounts(session: Session, program_id: UUID, until: datetime, after: Due | None, limit: int) -> list[Due]:
    """The accounts with something due by `until` that is not written down, the longest due first."""
    walked = {} if after is None else {"at": after.at, "member_id": after.member_id}
    rows = db.found(session, _due, after is None, program_id=program_id, until=until, limit=limit, **walked)
    return [Due(at, member_id) for at, member_id in rows]


def _due(_engine: str, from_the_first: bool) -> Select[*tuple[Any, ...]]:
    program_id, at, member_id = (
        column.expression for column in (PointAccount.program_id, PointAccount.next_due_at, PointAccount.member_id)
    )
    rows = select(at, member_id).where(
        program_id == bindparam("program_id", type_=program_id.type), at <= bindparam("until", type_=at.type)
    )
    if not from_the_first:
        last = tuple_(bindparam("at", type_=at.type), bindparam("member_id", type_=member_id.type))
        rows = rows.where(tuple_(at, member_id) > last)
    return rows.order_by(at, member_id).limit(bindparam("limit", type_=Integer))


def settle_due(session: Session, member_ids: Sequence[UUID], until: datetime, now: datetime, zone: tzinfo) -> int:
    """Writes down what was due by `until`, each at its own instant; answers how many entries that made."""
    accounts = claim(session, member_ids, now, zone, until=until).values()
    write(session, accounts, now)
    still = [account for account in accounts if not account.rows.entries]  # an activity has moved their lapse
    rows = [{"member_id": account.member_id, "next_due_at": account.next_due_at} for account in still]
    db.update_rows(session, PointAccount, ["member_id"], rows)
    return sum(len(account.rows.entries) for account in accounts)


# --- expiry switched on ---------------------------------------------------------------------------------------------


def _staying(granted: Sequence[Span]) -> ColumnElement[bool]:
    """Points that never expire, granted in one of the spans; extended ones are left as they are, and so are those that
    wait for an event: they get their end with it.

    A till's clock may be ahead: what was recorded before a span ended belongs to it, whatever the till says.
    """
    return and_(
        Lot.expires_at.is_(None),
        Lot.lapses.is_(False),
        or_(Lot.pending.is_(False), Lot.available_from.is_not(None)),
        PointEntry.kind != "extension",
        or_(
            *(
                and_(Lot.occurred_at >= since, or_(Lot.occurred_at < until, Lot.recorded_at <= until))
                for since, until in granted
            )
        ),
    )


_ENTRY = (PointEntry.member_id == Lot.member_id) & (PointEntry.id == Lot.entry_id)
_ACCOUNT = PointAccount.member_id == Lot.member_id


def staying_members(
    session: Session, program_id: UUID, granted: Sequence[Span], after: UUID | None, limit: int
) -> Sequence[UUID]:
    """The members of a programme with free points that never expire, granted in one of the spans."""
    rows = select(Lot.member_id).distinct().join(PointEntry, _ENTRY).join(PointAccount, _ACCOUNT)
    rows = rows.where(PointAccount.program_id == program_id, Lot.remaining > Lot.held, _staying(granted))
    if after is not None:
        rows = rows.where(Lot.member_id > after)
    return session.scalars(rows.order_by(Lot.member_id).limit(limit)).all()


def staying_lots(session: Session, granted: Span, member_ids: Collection[UUID]) -> Mapping[UUID, list[UUID]]:
    """The open lots in which these members have such points, held ones too."""
    mine = db.any_of(session, Lot.member_id.expression, sorted(member_ids)) & (Lot.remaining > 0)
    rows = select(Lot.member_id, Lot.id).join(PointEntry, _ENTRY).where(mine, _staying([granted]))
    found: dict[UUID, list[UUID]] = {member_id: [] for member_id in member_ids}
    for member_id, lot_id in session.execute(rows.order_by(Lot.id)):
        found[member_id].append(lot_id)
    return found


def staying(session: Session, granted: Span, member_ids: Collection[UUID], lot_ids: Collection[UUID]) -> set[UUID]:
    """Which of these members' lots have, or had, such points."""
    mine = db.any_of(session, Lot.member_id.expression, sorted(member_ids))
    chosen = db.any_of(session, Lot.id.expression, sorted(lot_ids))
    return set(session.scalars(select(Lot.id).join(PointEntry, _ENTRY).where(mine, chosen, _staying([granted]))))


# --- warnings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ahead:
    """Points of a member that expire together at `expires_at`; the oldest of them were granted at `granted_at`."""

    member_id: UUID
    expires_at: datetime
    points: int
    granted_at: datetime


def expiring_ahead(
    session: Session, program_id: UUID, expiring: Sequence[Span], after: Ahead | None, limit: int
) -> list[Ahead]:
    """What expires in one of the spans, by member and instant: what can be spent until then. Held points cannot."""
    at = expiry()
    key: tuple[ColumnElement[Any], ...] = (Lot.member_id.expression, at)
    rows = (
        select(Lot.member_id, at, func.sum(Lot.remaining - Lot.held), func.min(Lot.occurred_at))
        .join(PointAccount, _ACCOUNT)
        .where(
            PointAccount.program_id == program_id,
            Lot.remaining > Lot.held,
            or_(Lot.pending.is_(False), Lot.available_from.is_not(None)),
            or_(*(and_(at >= since, at < until) for since, until in expiring)),
        )
    )
    if after is not None:
        # the first follows from the second, but an index only knows the first
        rows = rows.where(Lot.member_id >= after.member_id, db.beyond(key, (after.member_id, after.expires_at)))
    found = session.execute(rows.group_by(*key).order_by(*key).limit(limit))
    return [Ahead(member_id, at, int(points), granted_at) for member_id, at, points, granted_at in found if at]


def warn(session: Session, program_id: UUID, warnings: Sequence[tuple[Ahead, datetime]], now: datetime) -> int:
    """Sends `points.expiring` for each warning and the day it is for, unless that was sent before; answers how many."""
    rows = [
        {
            "member_id": ahead.member_id,
            "expires_at": ahead.expires_at,
            "warned_for": warned_for,
            "points": ahead.points,
            "recorded_at": now,
        }
        for ahead, warned_for in warnings
    ]
    names = ("member_id", "expires_at", "points")
    new = db.claim_rows(session, ExpiryWarning, rows, names)
    outbox.put(session, [_event(program_id, *(row[name] for name in names)) for row in new], now)
    return len(new)


def _event(program_id: UUID, member_id: UUID, expires_at: datetime, points: int) -> outbox.Event:
    payload = {"points": points, "expires_at": expires_at.isoformat()}
    return outbox.Event(program_id, "points.expiring", member_id, payload)
