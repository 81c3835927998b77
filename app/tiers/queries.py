"""Read where members stand, what counted for them, and what was decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import RowMapping, Select, and_, select
from sqlalchemy.orm import Session

from app import db
from app.members import Member
from app.programs import MEASURES, Sums
from app.tiers.kept import Followed, Kept
from app.tiers.models import MemberTier, QualifyingEntry, TierChange, TierDecision
from app.tiers.record import Credit, Decision
from app.tiers.rules import State

_STATE = ("earned", "earned_since", "begins_at", "spared_until", "short_since")
"""How a row calls what makes a `State`, in that order."""

_SAME = Kept._fields[:-2]
"""What a stored standing and its row call the same: all but its `State` and its `Sums`."""

_STORED = (*_SAME, *_STATE, *MEASURES)


class Found(NamedTuple):
    """A member, and where they stand if anything ever counted."""

    program_id: UUID
    status: str
    joined_at: datetime
    kept: Kept | None


@dataclass(frozen=True, slots=True)
class Read:
    """A member's record, or the part of it that was asked for."""

    credits: list[Credit] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)


def added(member_id: UUID, followed: Followed, now: datetime) -> dict[str, Any]:
    """What of a member's row changes when only the sums do."""
    return {
        "member_id": member_id,
        "reached_at": followed.reached_at,
        "recorded_at": now,
        **followed.counted._asdict(),
    }


def columns_of(kept: Kept) -> dict[str, Any]:
    """A standing as a row has it."""
    *plain, state, sums = kept
    return dict(zip(_STORED, (*plain, *state, *sums), strict=True))


def _kept(stored: Sequence[Any]) -> Kept | None:
    """A standing from the columns `_STORED`; None: there is no row."""
    plain, state, sums = stored[: len(_SAME)], stored[len(_SAME) : -len(MEASURES)], stored[-len(MEASURES) :]
    return None if plain[0] is None else Kept._make((*plain, State._make(state), Sums._make(sums)))


def members(session: Session, member_ids: Sequence[UUID]) -> dict[UUID, Found]:
    """Those of these ids that are members."""
    rows = db.found(session, _standings, ids=member_ids) if member_ids else ()
    return {id_: Found(program, status, joined, _kept(stored)) for id_, program, status, joined, *stored in rows}


def _standings(engine: str) -> Select[*tuple[Any, ...]]:
    stored = [MemberTier.__table__.c[name] for name in _STORED]
    rows = select(Member.id, Member.program_id, Member.status, Member.enrolled_at, *stored)
    return rows.outerjoin(MemberTier, MemberTier.member_id == Member.id).where(
        db.one_of(engine, Member.id.expression, "ids")
    )


def records(session: Session, since: Mapping[UUID, datetime]) -> dict[UUID, Read]:
    """What counted for members from an instant on, each from another, and all that was decided for them."""
    if not since:
        return {}
    found = {member_id: Read() for member_id in since}
    asked = db.rows_of(session, _SINCE, sorted(since.items()))
    for row in db.found(session, _entries, **asked):
        sums = Sums(row.points, row.spend, row.visits, row.units)
        credit = Credit(row.document_id, row.counted_at, row.occurred_at, row.recorded_at, sums)
        found[row.member_id].credits.append(credit)
    for row in db.found(session, _decisions, ids=sorted(since)):
        decision = Decision(row.id, row.kind, row.tier, row.decided_at, row.until, row.ended_at)
        found[row.member_id].decisions.append(decision)
    return found


_SINCE = (("id", QualifyingEntry.document_id.type), ("since", QualifyingEntry.counted_at.type))


def _entries(engine: str) -> Select[*tuple[Any, ...]]:
    wanted = db.given(engine, _SINCE)
    theirs = and_(QualifyingEntry.member_id == wanted.c.id, QualifyingEntry.counted_at >= wanted.c.since)
    return select(*QualifyingEntry.__table__.c).select_from(wanted).join(QualifyingEntry, theirs)


def _decisions(engine: str) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, TierDecision.member_id.expression, "ids")
    return select(*TierDecision.__table__.c).where(mine).order_by(TierDecision.id)


def changes(session: Session, member_id: UUID, before: UUID | None, limit: int) -> Sequence[RowMapping]:
    """A member's history, the latest first."""
    rows = select(*TierChange.__table__.c).where(TierChange.member_id == member_id)
    if before is not None:
        rows = rows.where(TierChange.id < before)
    return session.execute(rows.order_by(TierChange.id.desc()).limit(limit)).mappings().all()


def decisions(session: Session, member_id: UUID, before: UUID | None, limit: int) -> Sequence[RowMapping]:
    """What was decided of a member, the latest first."""
    rows = select(*TierDecision.__table__.c).where(TierDecision.member_id == member_id)
    if before is not None:
        rows = rows.where(TierDecision.id < before)
    return session.execute(rows.order_by(TierDecision.id.desc()).limit(limit)).mappings().all()


@dataclass(frozen=True, slots=True)
class DueReview:
    """A member whose tier may change with time at `review_at`, or who has to be warned then."""

    review_at: datetime
    member_id: UUID


def due_reviews(
    session: Session, program_id: UUID, as_of: datetime, after: DueReview | None, limit: int
) -> list[DueReview]:
    """Those of a programme that are due by `as_of`, the longest due first, from the one after `after`."""
    key = (MemberTier.review_at.expression, MemberTier.member_id.expression)
    rows = select(*key).where(MemberTier.program_id == program_id, MemberTier.review_at <= as_of)
    if after is not None:
        rows = rows.where(db.beyond(key, (after.review_at, after.member_id)))
    found = session.execute(rows.order_by(*key).limit(limit))
    return [DueReview(review_at, member_id) for review_at, member_id in found if review_at is not None]


def outdated(
    session: Session, program_id: UUID, same: Sequence[UUID], after: UUID | None, limit: int
) -> Sequence[UUID]:
    """Members who stand by other versions of terms than the `same`, by id, from the one after `after`."""
    rows = select(MemberTier.member_id).where(MemberTier.program_id == program_id, MemberTier.terms_id.not_in(same))
    if after is not None:
        rows = rows.where(MemberTier.member_id > after)
    return session.scalars(rows.order_by(MemberTier.member_id).limit(limit)).all()
