"""Follow members of a batch: read where they stand, let what is decided count, write what that comes to.

Everything here is read and changed only while a member's account is claimed. A programme that never had tiers is asked
nothing and told nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app import db, ledger, outbox
from app.errors import NotFound, Problem
from app.ids import new_id
from app.ledger import Past
from app.programs import Timeline, timeline
from app.tiers import queries
from app.tiers.kept import (
    BEGINNING,
    Coming,
    Followed,
    Kept,
    Moved,
    Present,
    Why,
    asked_from,
    found_again,
    needed_from,
    resumed,
)
from app.tiers.models import MemberTier, QualifyingEntry, TierChange
from app.tiers.record import Credit, Decision, Record
from app.tiers.schemas import StandingOut, standing_out
from app.tiers.standing import Standing, standing


class Effect(NamedTuple):
    """The tier before and after something counted; None: none."""

    before: str | None
    after: str | None


class Standings:
    """Where members of a batch stand, as it was read and as it follows what is decided."""

    def __init__(
        self,
        program_id: UUID,
        terms: Timeline,
        now: datetime,
        members: dict[UUID, Followed],
        statuses: Mapping[UUID, str] = MappingProxyType({}),
    ) -> None:
        self._program_id, self._terms, self._now, self._members = program_id, terms, now, members
        self.statuses = statuses
        """Of the members that were read: who has been asked for here need not be asked for again."""

    def __bool__(self) -> bool:
        """Whether there are tiers, and anybody to follow."""
        return bool(self._members)

    def tier_at(self, member_id: UUID, at: datetime) -> str | None:
        """The tier that stood at an instant, as known now."""
        followed = self._members.get(member_id)
        return None if followed is None else followed.tier_at(at)

    def tier(self, member_id: UUID) -> str | None:
        """The tier now."""
        followed = self._members.get(member_id)
        return None if followed is None else followed.tier

    def count(self, member_id: UUID, credit: Credit, why: Why, of: UUID | None = None) -> Effect | None:
        """Lets something count for a member. `of`: what it takes back; that counts for nothing which never counted.
        None where there are no tiers."""
        followed = self._members.get(member_id)
        if followed is None:
            return None
        before = followed.tier
        if (of is None or followed.has(of)) and any(credit.sums):
            followed.count(credit, why)
        return Effect(before, followed.tier)

    def decide(self, member_id: UUID, decisions: Sequence[Decision], why: Why, document_id: UUID) -> Effect:
        """Puts other decisions in the place of a member's; of one whose whole record was read."""
        followed = self._members[member_id]
        before = followed.tier
        followed.decide(decisions, why, document_id)
        return Effect(before, followed.tier)

    def decisions(self, member_id: UUID) -> Sequence[Decision]:
        return self._members[member_id].decisions

    def settle(self) -> None:
        """Where members stand is written though nothing of it has changed: it need not be looked at again."""
        for followed in self._members.values():
            followed.changed = followed.stands is not None

    def write(self, session: Session) -> None:
        """Writes what was decided. Nothing of it may have been written before."""
        members = sorted(self._members.items())
        changed = {id_: each for id_, each in members if each.changed or each.moved or each.warned}
        anew = {id_: each for id_, each in changed.items() if each.stands is not None}
        rows = [self._row(id_, each.kept) for id_, each in anew.items() if each.kept is not None]
        known = {id_ for id_, each in anew.items() if each.stored is not None}
        added = [queries.added(id_, each, self._now) for id_, each in changed.items() if id_ not in anew]
        entries = [_entry(id_, credit) for id_, each in changed.items() for credit in each.new]
        db.insert_rows(session, QualifyingEntry, entries)
        db.insert_rows(session, MemberTier, [row for row in rows if row["member_id"] not in known])
        db.update_rows(session, MemberTier, ["member_id"], [row for row in rows if row["member_id"] in known])
        db.update_rows(session, MemberTier, ["member_id"], added)
        moves = [(id_, each.kept, moved) for id_, each in changed.items() if each.kept for moved in each.moved]
        db.insert_rows(session, TierChange, [self._change(*move) for move in moves])
        warned = [(id_, stands) for id_, each in changed.items() if (stands := each.warned) is not None]
        events = [self._event(id_, moved) for id_, _, moved in moves]
        outbox.put(session, [*events, *(self._warning(*each) for each in warned)], self._now)

    def _row(self, member_id: UUID, kept: Kept) -> dict[str, Any]:
        return {"member_id": member_id, "program_id": self._program_id, **queries.columns_of(kept)}

    def _change(self, member_id: UUID, kept: Kept, moved: Moved) -> dict[str, Any]:
        return {
            "id": new_id(),
            "program_id": self._program_id,
            "member_id": member_id,
            "from_tier": moved.before,
            "to_tier": moved.after,
            "why": moved.why,
            "document_id": moved.document_id,
            "terms_id": kept.terms_id,
            "changed_at": moved.at,
            "recorded_at": self._now,
        }

    def _event(self, member_id: UUID, moved: Moved) -> outbox.Event:
        payload = {"from": moved.before, "to": moved.after, "why": moved.why, "at": moved.at.isoformat()}
        topic = f"member.tier_{'upgraded' if self._rises(moved) else 'downgraded'}"
        return outbox.Event(self._program_id, topic, member_id, payload)

    def _rises(self, moved: Moved) -> bool:
        """Nobody rises from a tier that there is no more: they are left in the next lower one that stays."""
        version = self._terms.at(self._now)
        tiers = None if version is None else version.terms.tiers
        dropped = moved.before is not None and (tiers is None or tiers.tier(moved.before) is None)
        return tiers is not None and not dropped and tiers.rank(moved.after) > tiers.rank(moved.before)

    def _warning(self, member_id: UUID, stands: Standing) -> outbox.Event:
        assert stands.until is not None
        payload = {
            "from": stands.tier,
            "to": stands.projected,
            "at": stands.until.isoformat(),
            "keep": dict(stands.keep),
        }
        return outbox.Event(self._program_id, "member.tier_will_downgrade", member_id, payload)


def _entry(member_id: UUID, credit: Credit) -> dict[str, Any]:
    return {
        "member_id": member_id,
        "document_id": credit.document_id,
        "points": credit.sums.points,
        "spend": credit.sums.spend,
        "visits": credit.sums.visits,
        "units": credit.sums.units,
        "counted_at": credit.counted_at,
        "occurred_at": credit.occurred_at,
        "recorded_at": credit.recorded_at,
    }


def counts(terms: Timeline) -> bool:
    """Whether a programme has tiers, had them, or will."""
    return any(version.terms.tiers is not None for version in terms.versions)


def load(
    session: Session,
    program_id: UUID,
    terms: Timeline,
    coming: Mapping[UUID, Sequence[Coming]],
    whole: Collection[UUID],
    now: datetime,
    newcomers: Collection[UUID] = (),
) -> Standings:
    """The standings of members for whom something is `coming`, in its order, or for whom anything may (`whole`).

    `newcomers` joined just now; those whom nobody has written yet are among them. To be called when the accounts are
    claimed. Two or three statements, however many members these are; none without tiers.
    """
    wanted = coming.keys() | set(whole)
    if not counts(terms) or not wanted:
        return Standings(program_id, terms, now, {})
    found, present = queries.members(session, sorted(wanted - set(newcomers))), Present(terms, now)
    since: dict[UUID, datetime] = {}
    for id_, each in found.items():
        if each.kept is not None:
            read = BEGINNING if id_ in whole else needed_from(each.kept, present, coming.get(id_, ()))
            if read is not None:
                since[id_] = read
    records = queries.records(session, since)
    members = {id_: Followed(now, present, None) for id_ in wanted - found.keys()}
    for id_, each in found.items():
        members[id_] = _followed(each, present, records.get(id_), since.get(id_))
    return Standings(program_id, terms, now, members, {id_: each.status for id_, each in found.items()})


def _followed(member: queries.Found, present: Present, read: queries.Read | None, since: datetime | None) -> Followed:
    if read is None:
        return Followed(member.joined_at, present, member.kept)
    credits_, decisions = list(read.credits), list(read.decisions)
    return Followed(member.joined_at, present, member.kept, credits_, decisions, since == BEGINNING)


# --- review ---------------------------------------------------------------------------------------------------------


def outdated(
    session: Session, program_id: UUID, terms: Timeline, as_of: datetime, after: UUID | None, limit: int
) -> Sequence[UUID]:
    """Members who stand by other tiers than those in force at `as_of`, by id, from the one after `after`."""
    return queries.outdated(session, program_id, Present(terms, as_of).same, after, limit)


def review(session: Session, program_id: UUID, terms: Timeline, member_ids: Sequence[UUID], now: datetime) -> int:
    """Writes down where members stand at `now`, each change at its own instant; answers how many that were. Tells of
    falls that are ahead."""
    ledger.lock(session, member_ids)
    found = load(session, program_id, terms, dict.fromkeys(member_ids, ()), (), now)
    found.settle()
    with db.together(session):
        found.write(session)
    return len(member_ids)


# --- read -----------------------------------------------------------------------------------------------------------


def standings(
    session: Session, program_id: UUID, member_ids: Sequence[UUID], now: datetime
) -> list[StandingOut | Problem]:
    """Where each member stands at `now`, exactly; NotFound where the programme has no such member."""
    present = Present(timeline(session, program_id), now)
    found = queries.members(session, sorted(set(member_ids)))
    ours = {id_: each for id_, each in found.items() if each.program_id == program_id}
    reads = {id_: asked_from(each.kept, present) for id_, each in ours.items() if each.kept is not None}
    records = queries.records(session, {id_: since for id_, since in reads.items() if since is not None})
    told: dict[UUID, StandingOut | Problem] = {
        id_: standing_out(id_, _standing(each, records.get(id_), reads.get(id_), present), present.tiers, now)
        for id_, each in ours.items()
    }
    return [told.get(member_id) or NotFound() for member_id in member_ids]


def _standing(member: queries.Found, read: queries.Read | None, since: datetime | None, present: Present) -> Standing:
    if member.kept is not None and read is None:
        return resumed(member.kept, member.joined_at, present)
    record = Record(member.joined_at) if read is None else Record(member.joined_at, read.credits, read.decisions)
    return found_again(record, present, None if since == BEGINNING else member.kept)


def records(session: Session, member_ids: Sequence[UUID]) -> dict[UUID, Record]:
    """All that is known of members. Three statements, however many these are."""
    found = queries.members(session, member_ids)
    reads = queries.records(session, dict.fromkeys(found, BEGINNING))
    return {id_: Record(each.joined_at, reads[id_].credits, reads[id_].decisions) for id_, each in found.items()}


def past(program_id: UUID, member_id: UUID, asked: Past, session: Session) -> StandingOut:
    """Where a member stood. NotFound."""
    terms = timeline(session, program_id)
    member = queries.members(session, [member_id]).get(member_id)
    if member is None or member.program_id != program_id:
        raise NotFound
    version = terms.at(asked.as_of)
    stands = standing(records(session, [member_id])[member_id], terms, asked.as_of, asked.known_at)
    return standing_out(member_id, stands, None if version is None else version.terms.tiers, asked.as_of)
