"""What staff decide of a member's tier: give one, lock it, end that early. Each has a person, a reason and an end."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import clients, db, ledger
from app.clients import Caller
from app.errors import NotFound, Problem, finding
from app.ids import new_id
from app.programs import TierTerms, timeline
from app.tiers import queries
from app.tiers.models import TierDecision
from app.tiers.record import Decision
from app.tiers.schemas import DecisionIn
from app.tiers.service import Standings, load

Done = tuple[Mapping[str, Any], str | None, str | None]
"""A decision as it is stored, and the member's tier before and after it."""

_OPEN = dict.fromkeys(("ended_by", "ended_person", "ended_at", "ended_reason"))


class TierUnknown(Problem):
    """The terms in force have no such tier, or none by invitation of this code."""

    status, code, title, final = 422, "tier_unknown", "There is no such tier", True


class UntilNotLater(Problem):
    """A tier is given or locked for some time: `until` has to be later than now."""

    status, code, title, final = 422, "until_not_later", "The end is not in the future", True


class DecisionEnded(Problem):
    """It has ended, by itself or because somebody ended it."""

    status, code, title, final = 409, "decision_ended", "The decision has ended", True


def decide(session: Session, caller: Caller, member_id: UUID, asked: DecisionIn, now: datetime) -> Done:
    """Gives a member a tier, or locks the one they have. NoPerson, OwnAccount, NotFound, TierUnknown, UntilNotLater."""
    found = _claimed(session, caller, member_id, now)
    version = timeline(session, caller.program).at(now)
    _check(asked, None if version is None else version.terms.tiers, now)
    row = {
        "id": new_id(),
        "program_id": caller.program,
        "member_id": member_id,
        "kind": asked.kind,
        "tier": found.tier(member_id) if asked.kind == "lock" else asked.tier,
        "reason": asked.reason,
        "note": asked.note,
        "decided_by": caller.client_id,
        "decided_person": caller.person,
        "decided_at": now,
        "until": asked.until.astimezone(UTC),
    } | _OPEN
    new = Decision(row["id"], asked.kind, row["tier"], now, row["until"])
    effect = found.decide(member_id, [*found.decisions(member_id), new], asked.kind, new.id)
    with db.together(session):
        db.insert_rows(session, TierDecision, [row])
        found.write(session)
    return row, effect.before, effect.after


def end(session: Session, caller: Caller, member_id: UUID, id_: UUID, reason: str, now: datetime) -> Done:
    """Ends a decision before its time. NoPerson, OwnAccount, NotFound, DecisionEnded."""
    found = _claimed(session, caller, member_id, now)
    mine = (TierDecision.id == id_) & (TierDecision.member_id == member_id)
    row = session.execute(select(*TierDecision.__table__.c).where(mine)).mappings().one_or_none()
    if row is None:
        raise NotFound
    if row["ended_at"] is not None or row["until"] <= now:
        raise DecisionEnded
    ended = {"ended_by": caller.client_id, "ended_person": caller.person, "ended_at": now, "ended_reason": reason}
    session.execute(update(TierDecision).where(mine).values(ended))
    left = [replace(each, ended_at=now) if each.id == id_ else each for each in found.decisions(member_id)]
    effect = found.decide(member_id, left, "ended", id_)
    with db.together(session):
        found.write(session)
    return {**row, **ended}, effect.before, effect.after


def _claimed(session: Session, caller: Caller, member_id: UUID, now: datetime) -> Standings:
    """A member of the caller's programme, whose account is claimed and whose whole record was read; not the caller."""
    persons = [] if caller.person is None else [caller.person]
    clients.check_person(caller, member_id, clients.memberships(session, caller.program, persons))
    ledger.lock(session, [member_id])
    member = queries.members(session, [member_id]).get(member_id)
    if member is None or member.program_id != caller.program:
        raise NotFound
    terms = timeline(session, caller.program)
    found = load(session, caller.program, terms, {}, [member_id], now)
    if not found:
        raise TierUnknown
    return found


def _check(asked: DecisionIn, tiers: TierTerms | None, now: datetime) -> None:
    if asked.until <= now:
        raise UntilNotLater(findings=[finding(("until",), "not_later", "that is in the past")])
    tier = None if tiers is None else tiers.tier(asked.tier)
    if tiers is None or (asked.kind != "lock" and tier is None):
        raise TierUnknown(findings=[finding(("tier",), "unknown", "the terms in force do not have it")])
    if asked.kind == "invitation" and tier is not None and tier.qualification is not None:
        raise TierUnknown(findings=[finding(("tier",), "not_by_invitation", "this tier is earned")])
