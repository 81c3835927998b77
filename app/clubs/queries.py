"""Read who belongs to which club."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, Select, bindparam, or_, select
from sqlalchemy.orm import Session

from app import db
from app.clubs.models import ClubMembership
from app.clubs.rules import COLUMNS, Membership

_COLUMNS = tuple(getattr(ClubMembership, name).expression for name in COLUMNS)


def memberships(
    session: Session, member_ids: Collection[UUID], since: datetime, document_ids: Collection[UUID] = ()
) -> dict[UUID, list[Membership]]:
    """By member, the memberships that nobody has ended or that end from an instant on, and those which one of some
    documents brought; oldest first."""
    found: dict[UUID, list[Membership]] = {}
    given = {"ids": sorted(member_ids), "since": since, "documents": sorted(document_ids)}
    for row in db.found(session, _of_members, **given) if member_ids else ():
        found.setdefault(row.member_id, []).append(Membership(**row._asdict()))
    return found


def _of_members(engine: str) -> Select[*tuple[Any, ...]]:
    theirs = db.one_of(engine, ClubMembership.member_id.expression, "ids")
    lasting = ClubMembership.ends_at >= bindparam("since", type_=ClubMembership.begins_at.type)
    by = db.one_of(engine, ClubMembership.document_id.expression, "documents")
    wanted = or_(ClubMembership.ended_why.is_(None), lasting, by)
    return select(*_COLUMNS).where(theirs, wanted).order_by(ClubMembership.begins_at, ClubMembership.id)


def by_receipts(session: Session, program_id: UUID, receipts: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """The memberships whose fee was paid on one of some receipts, by source and number."""
    if not receipts:
        return {}
    key = [ClubMembership.source.expression, ClubMembership.external_id.expression]
    mine = select(*_COLUMNS).where(ClubMembership.program_id == program_id, db.any_row_of(session, key, receipts))
    return {(row["source"], row["external_id"]): Membership(**row) for row in session.execute(mine).mappings()}


def history(session: Session, member_id: UUID, before: UUID | None, limit: int) -> Sequence[RowMapping]:
    """A member's memberships, the latest recorded first, from the one before `before`."""
    rows = select(*_COLUMNS).where(ClubMembership.member_id == member_id)
    if before is not None:
        rows = rows.where(ClubMembership.id < before)
    return session.execute(rows.order_by(ClubMembership.id.desc()).limit(limit)).mappings().all()


@dataclass(frozen=True, slots=True)
class Due:
    """A membership that something happens to at an instant."""

    at: datetime
    id: UUID
    member_id: UUID


def over(session: Session, program_id: UUID, as_of: datetime, after: Due | None, limit: int) -> list[Due]:
    """Those of a programme whose time is over by `as_of` and that nobody has ended, the longest over first."""
    return _due(session, program_id, ClubMembership.ends_at, ClubMembership.ended_why.is_(None), as_of, after, limit)


def ending(session: Session, program_id: UUID, as_of: datetime, after: Due | None, limit: int) -> list[Due]:
    """Those of a programme of whose end somebody has to be told by `as_of`, the longest due first."""
    waiting = ClubMembership.warn_at.is_not(None) & ClubMembership.ended_why.is_(None)
    return _due(session, program_id, ClubMembership.warn_at, waiting, as_of, after, limit)


def earning(session: Session, program_id: UUID, as_of: datetime, after: Due | None, limit: int) -> list[Due]:
    """Those of a programme of which a month has passed by `as_of` and is not recognised, the longest ago first."""
    return _due(session, program_id, ClubMembership.earns_at, ClubMembership.earns_at.is_not(None), as_of, after, limit)


def _due(
    session: Session, program_id: UUID, at: Any, waiting: Any, as_of: datetime, after: Due | None, limit: int
) -> list[Due]:
    key = (at.expression, ClubMembership.id.expression)
    rows = select(*key, ClubMembership.member_id).where(ClubMembership.program_id == program_id, waiting, at <= as_of)
    if after is not None:
        rows = rows.where(db.beyond(key, (after.at, after.id)))
    return [Due(*row) for row in session.execute(rows.order_by(*key).limit(limit))]


def by_ids(session: Session, ids: Collection[UUID]) -> list[Membership]:
    """Some memberships, as they are now."""
    chosen = db.any_of(session, ClubMembership.id.expression, sorted(ids))
    rows = session.execute(select(*_COLUMNS).where(chosen).order_by(ClubMembership.id)).mappings()
    return [Membership(**row) for row in rows]
