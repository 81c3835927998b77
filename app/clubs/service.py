"""Follow memberships of a batch: read which there are, let what is decided change them, write what that comes to.

Everything here is changed only while a member's account is claimed. A programme that never had clubs is asked nothing
and told nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import accounting, db, ledger, members, outbox
from app.accounting import Chart, Event, Posting
from app.clubs import fees, queries, rules
from app.clubs.models import ClubCredit, ClubMembership
from app.clubs.queries import Due
from app.clubs.rules import Belonging, Joining, Membership
from app.clubs.schemas import BelongingList, BelongingOut, belonging_out
from app.errors import NotFound, Problem
from app.members import Housemate, Identifier
from app.programs import Line, Timeline, Version, timeline
from app.tiers import Credit


@dataclass(frozen=True, slots=True)
class Bought:
    """What a purchase was, or what is left of it: its document, its lines, and each line's part of the earning base
    (minor units); `at`: when it happened, or came back."""

    document_id: UUID
    version: Version
    lines: Sequence[Line]
    bases: Sequence[int]
    at: datetime


class Memberships:
    """Memberships of a batch's members, as they were read and as they follow what is decided."""

    def __init__(
        self,
        program_id: UUID,
        terms: Timeline,
        now: datetime,
        read: Mapping[UUID, list[Membership]],
        house: "Mapping[UUID, Sequence[_Housemate]]" = MappingProxyType({}),
    ) -> None:
        self._program_id, self._terms, self._now, self._house = program_id, terms, now, house
        self._offered = offers(terms)
        self._read = {each.id: each for theirs in read.values() for each in theirs}
        self._known = {member_id: {each.id: each for each in theirs} for member_id, theirs in read.items()}
        self._credits: list[db.Row] = []
        self._warnings: list[outbox.Event] = []
        for member_id in read:
            self._settle(member_id)

    def of(self, member_id: UUID) -> list[Membership]:
        """Those of one member, oldest first."""
        theirs = self._known.get(member_id, {}).values()
        return sorted(theirs, key=lambda each: (each.begins_at, each.id))

    def clubs_at(self, member_id: UUID, at: datetime) -> list[str]:
        """The clubs that a member belonged to at an instant, as known now."""
        return [each.club for each in self.belongings(member_id, at)] if self._offered else []

    def belongings(self, member_id: UUID, at: datetime) -> list[Belonging]:
        """The same, with since and until when, and by what: an own membership, or that of somebody in the household."""
        found = {each.club: each for each in rules.belongings(self.of(member_id), at)}
        for mate, theirs in self._house.get(member_id, ()):
            for each in rules.belongings(theirs, at) if mate.since <= at else ():
                club = version_of(each.by, self._terms).terms.club(each.club)
                if club is not None and club.household and each.club not in found:
                    found[each.club] = replace(each, since=max(each.since, mate.since), household=True)
        return [found[code] for code in sorted(found)]

    def put(self, memberships: Iterable[Membership]) -> None:
        """Takes memberships, new ones or others in the place of those that are known."""
        for each in memberships:
            self._known.setdefault(each.member_id, {})[each.id] = each

    def bring(self, member_id: UUID, bought: Bought) -> Sequence[Membership]:
        """Lets a purchase bring what it is enough for; answers that."""
        if not bought.version.terms.clubs:
            return ()
        joining = Joining(self._program_id, member_id, bought.document_id, min(bought.at, self._now), self._now)
        new = rules.brought(joining, bought.version, bought.lines, bought.bases, self.of(member_id))
        if new:
            self.put(new)
            self._settle(member_id)  # what was bought long ago may be over
        return [self._known[member_id][each.id] for each in new]

    def has_brought(self, member_id: UUID, document_id: UUID) -> bool:
        """Whether a purchase brought any of a member's."""
        return any(each.document_id == document_id for each in self.of(member_id))

    def keep(self, member_id: UUID, left: Bought) -> None:
        """Ends what a purchase has brought if what is left of it is not enough for that, or lets it go on again."""
        at = min(left.at, self._now)
        brought = [each for each in self.of(member_id) if each.document_id == left.document_id]
        self.put([rules.kept(each, left.version, left.lines, left.bases, at, self._now) for each in brought])

    def count(self, member_id: UUID, credit: Credit) -> None:
        """Lets what counts for tiers count for a member's promises."""
        spend = credit.sums.spend
        for each in self.of(member_id) if spend and self._offered else ():
            if rules.counts_for(each, credit.counted_at, credit.occurred_at):
                self.put([replace(each, spent=each.spent + spend)])
                row = {"membership_id": each.id, "document_id": credit.document_id, "spend": spend}
                self._credits.append(row | {"recorded_at": self._now})

    def warn(self) -> None:
        """Tells of ends that are ahead by now and that nothing follows, once."""
        for each in list(self._all()):
            if each.open and each.warn_at is not None and each.warn_at <= self._now:
                self.put([replace(each, warn_at=None)])
                if rules.ending(each, self.of(each.member_id)):
                    missing = None if each.promised is None else max(0, each.promised - each.spent)
                    self._warnings.append(self._event("club_will_end", each, {"why": each.why, "missing": missing}))

    def write(self, session: Session) -> None:
        """Writes what was decided. Nothing of it may have been written before."""
        self.write_changes(session)
        db.insert_rows(session, ClubMembership, [each.row() for each in self.new])
        self.write_rest(session)

    def write_changes(self, session: Session) -> None:
        """Of what was decided, how memberships that were there have changed."""
        changed = [each for each in self._all() if each.id in self._read and each != self._read[each.id]]
        rows = [{name: getattr(each, name) for name in ("id", *_CHANGING)} for each in changed]
        db.update_rows(session, ClubMembership, ["id"], rows)

    def write_rest(self, session: Session) -> None:
        """Of what was decided, what counts for promises, and the events."""
        db.insert_rows(session, ClubCredit, self._credits)
        outbox.put(session, [*self._events(), *self._warnings], self._now)

    @property
    def new(self) -> list[Membership]:
        """Those that are not written yet."""
        return [each for each in self._all() if each.id not in self._read]

    def _all(self) -> Iterator[Membership]:
        for _, theirs in sorted(self._known.items()):
            yield from sorted(theirs.values(), key=lambda each: (each.begins_at, each.id))

    def _settle(self, member_id: UUID) -> None:
        self.put(rules.settled(self.of(member_id), self._terms, self._now))

    def _events(self) -> Iterator[outbox.Event]:
        for each in self._all():
            before = self._read.get(each.id)
            others = [other for other in self.of(each.member_id) if other.club == each.club and other.id != each.id]
            if before is None:
                goes_on = any(other.begins_at < each.begins_at and other.lasts_to(each.begins_at) for other in others)
                yield self._event("renewed_club" if goes_on else "joined_club", each, {"why": each.why})
            ended = each.ended_why is not None and (before is None or before.ended_why is None)
            never_began = each.follows_id is not None and each.begins_at == each.ends_at
            if ended and not never_began and rules.ending(each, others):
                yield self._event("left_club", each, {"why": each.ended_why})

    def _event(self, what: str, each: Membership, more: dict[str, Any]) -> outbox.Event:
        until = None if each.ends_at is None else each.ends_at.isoformat()
        payload = {"membership_id": str(each.id), "club": each.club, "until": until} | more
        return outbox.Event(self._program_id, f"member.{what}", each.member_id, payload)


_CHANGING = (
    "ends_at",
    "ended_why",
    "ended_at",
    "ended_reason",
    "spent",
    "recognised",
    "refunded",
    "passed",
    "earns_at",
    "warn_at",
)


BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def offers(terms: Timeline) -> bool:
    """Whether a programme has clubs, had them, or will."""
    return any(version.terms.clubs for version in terms.versions)


def load(
    session: Session,
    program_id: UUID,
    terms: Timeline,
    member_ids: Collection[UUID],
    since: datetime,
    now: datetime,
    document_ids: Collection[UUID] = (),
) -> Memberships:
    """The memberships of members from an instant on, and those that one of some documents brought. To be called when
    the accounts are claimed. One statement, however many members these are, and two more for households; none without
    clubs."""
    if not member_ids or not offers(terms):
        return Memberships(program_id, terms, now, {})
    found = queries.memberships(session, member_ids, since, document_ids)
    return Memberships(program_id, terms, now, found, _house(session, terms, member_ids, since, now))


_Housemate = tuple[Housemate, list[Membership]]
"""Somebody in a household, and their memberships, which nobody else changes."""


def _house(
    session: Session, terms: Timeline, member_ids: Collection[UUID], since: datetime, now: datetime
) -> dict[UUID, list[_Housemate]]:
    """By member, the others in their household. Nothing is read where no club is for households."""
    if not any(club.household for version in terms.versions for club in version.terms.clubs):
        return {}
    mates = members.households(session, member_ids)
    theirs = queries.memberships(session, {mate.id for each in mates.values() for mate in each}, since)
    settled = {id_: rules.settled(each, terms, now) for id_, each in theirs.items()}
    return {id_: [(mate, settled.get(mate.id, [])) for mate in each] for id_, each in mates.items()}


# --- jobs -----------------------------------------------------------------------------------------------------------


def end(session: Session, program_id: UUID, terms: Timeline, due: Sequence[Due], now: datetime) -> int:
    """Ends memberships whose time is over, lets promises that were kept go on, and tells of ends that are ahead.
    Answers how many were due."""
    member_ids = {each.member_id for each in due}
    ledger.lock(session, member_ids)
    found = load(session, program_id, terms, member_ids, min(each.at for each in due), now)
    found.warn()
    with db.together(session):
        found.write(session)
    return len(due)


def recognise(session: Session, terms: Timeline, due: Sequence[Due], now: datetime) -> int:
    """Recognises the months of memberships that have passed, each at its own instant; answers how many memberships
    that were."""
    ledger.lock(session, {each.member_id for each in due})
    found = queries.by_ids(session, [each.id for each in due])
    chart = accounting.chart(session, found[0].program_id)
    postings: list[Posting] = []
    rows = []
    for each in found:
        passed, posted = passed_months(each, terms, chart, now)
        postings += posted
        rows.append({"id": each.id} | {name: getattr(passed, name) for name in ("recognised", "passed", "earns_at")})
    with db.together(session):
        db.update_rows(session, ClubMembership, ["id"], rows)
        accounting.post(session, postings, now)
    return len(found)


def passed_months(
    membership: Membership, terms: Timeline, chart: Chart, now: datetime
) -> tuple[Membership, list[Posting]]:
    """A membership at `now`, and what the months of it that have passed meanwhile post."""
    after, earned = fees.recognised(membership, version_of(membership, terms).terms.zone, now)
    postings = []
    for each in earned:
        event = Event(membership.program_id, membership.id, membership.currency, each.at, each.period)
        postings += accounting.membership_postings(event, each.amount, chart)
    return after, postings


def version_of(membership: Membership, terms: Timeline) -> Version:
    """The terms that a membership is under."""
    return next(version for version in terms.versions if version.id == membership.terms_id)


# --- read -----------------------------------------------------------------------------------------------------------


def belongings(
    session: Session, program_id: UUID, member_ids: Sequence[UUID], now: datetime
) -> list[BelongingList | Problem]:
    """The clubs that each member belongs to at `now`; NotFound where the programme has no such member."""
    terms = timeline(session, program_id)
    named = {Identifier("id", str(member_id)) for member_id in member_ids}
    ours = set(members.find(session, program_id, named).values())
    found = load(session, program_id, terms, ours, BEGINNING, now)
    told: dict[UUID, BelongingList | Problem] = {
        id_: BelongingList(member_id=id_, at=now, items=_told(found, id_, terms, now)) for id_ in ours
    }
    return [told.get(member_id) or NotFound() for member_id in member_ids]


def _told(found: Memberships, member_id: UUID, terms: Timeline, now: datetime) -> list[BelongingOut]:
    return [_belonging(each, terms, now) for each in found.belongings(member_id, now)]


def _belonging(belonging: Belonging, terms: Timeline, now: datetime) -> BelongingOut:
    version = version_of(belonging.by, terms)
    club = version.terms.club(belonging.club)
    assert club is not None
    passed, _ = fees.recognised(belonging.by, version.terms.zone, now)
    return belonging_out(belonging, club, passed.left)
