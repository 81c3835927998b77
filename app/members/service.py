"""Enrol, find and change members."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from app import db, ledger, outbox
from app.errors import NotFound, PreconditionFailed, Problem, finding, or_problem
from app.ids import new_id
from app.members.models import Member, MemberIdentifier, MemberProfile, MemberReferral
from app.members.rules import (
    AlreadyReferred,
    Identifier,
    IdentifierTaken,
    LastIdentifier,
    MemberClosed,
    ReferralTooLate,
    ReferralToSelf,
    ReferrerJoinedLater,
    UnknownMember,
)
from app.members.schemas import MemberRef, identifier_in
from app.programs import Customer, look, timeline

EMPTY: Mapping[str, Any] = dict.fromkeys(("name", "language", "born_on", "attributes", "segments"))
"""The profile of a member of whom nothing is known."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A member with everything personal about them."""

    member: Member
    identifiers: Sequence[MemberIdentifier]
    profile: MemberProfile


def find(session: Session, program_id: UUID, identifiers: Collection[Identifier]) -> dict[Identifier, UUID]:
    """The members of a programme behind `identifiers`; those that nobody has are absent."""
    ours = {UUID(identifier.value): identifier for identifier in identifiers if identifier.kind == "id"}
    others = sorted(identifier for identifier in identifiers if identifier.kind != "id")
    found: dict[Identifier, UUID] = {}
    if others:
        given = db.texts(session, [(other.kind, other.value) for other in others])
        theirs = db.found(session, _identified, program_id=program_id, **given)
        found |= {Identifier(row.kind, row.value): row.member_id for row in theirs}
    if ours:
        matching = db.any_of(session, Member.id.expression, sorted(ours))
        mine = select(Member.id).where(Member.program_id == program_id, matching)
        found |= {ours[id_]: id_ for id_ in session.scalars(mine)}
    return found


def _identified(engine: str) -> Select[str, str, UUID]:
    kind, value = MemberIdentifier.kind.expression, MemberIdentifier.value.expression
    ours = MemberIdentifier.program_id == bindparam("program_id", type_=MemberIdentifier.program_id.type)
    return select(kind, value, MemberIdentifier.member_id).where(ours, db.one_row_of(engine, [kind, value]))


def named(
    session: Session, program_id: UUID, references: Mapping[str, MemberRef], phone_region: str | None
) -> list[UUID]:
    """The members that fields of a body refer to, in their order. IdentifierInvalid, or UnknownMember, which says for
    which fields."""
    (found,) = named_each(session, program_id, [references], phone_region)
    if isinstance(found, Problem):
        raise found
    return found


def named_each(
    session: Session, program_id: UUID, bodies: Sequence[Mapping[str, MemberRef]], phone_region: str | None
) -> list[list[UUID] | Problem]:
    """What `named` answers for each of some bodies, or refuses."""

    def read(references: Mapping[str, MemberRef]) -> dict[str, Identifier]:
        return {field: identifier_in(reference, phone_region, field) for field, reference in references.items()}

    meant = [or_problem(read, references) for references in bodies]
    asked = {identifier for each in meant if not isinstance(each, Problem) for identifier in each.values()}
    found = find(session, program_id, asked)
    return [each if isinstance(each, Problem) else _those(each, found) for each in meant]


def _those(meant: Mapping[str, Identifier], found: Mapping[Identifier, UUID]) -> list[UUID] | Problem:
    unknown = [field for field, identifier in meant.items() if identifier not in found]
    if unknown:
        return UnknownMember(findings=[finding((field,), "unknown", "nobody has it") for field in unknown])
    return [found[identifier] for identifier in meant.values()]


def statuses(session: Session, member_ids: Iterable[UUID]) -> dict[UUID, str]:
    """Each member's status. Read it after claiming their accounts: a change of status claims them too."""
    return dict(db.found(session, _statuses, ids=sorted(set(member_ids))))


def _statuses(engine: str) -> Select[UUID, str]:
    return select(Member.id, Member.status).where(db.one_of(engine, Member.id.expression, "ids"))


def standings(
    session: Session, program_id: UUID, member_ids: Sequence[UUID], now: datetime
) -> list[ledger.Account | Problem]:
    """The account of each member at `now`; NotFound where the programme has no such member."""
    accounts = look(session, program_id, member_ids, now)
    ours = {id_: account for id_, account in accounts.items() if account.program_id == program_id}
    return [ours.get(member_id) or NotFound() for member_id in member_ids]


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What a till may know of a member."""

    member_id: UUID
    status: str
    account: ledger.Account


def look_up(
    session: Session, program_id: UUID, references: Sequence[MemberRef], now: datetime
) -> list[LookedUp | Problem]:
    """The member behind each reference. IdentifierInvalid, or NotFound where nobody has it."""
    terms = timeline(session, program_id)
    version = terms.at(now)
    region = None if version is None else version.terms.enrolment.phone_region
    meant = [or_problem(identifier_in, reference, region, None) for reference in references]
    found = find(session, program_id, {each for each in meant if not isinstance(each, Problem)})
    status = statuses(session, found.values())
    accounts = look(session, program_id, found.values(), now)

    def answer(identifier: Identifier | Problem) -> LookedUp | Problem:
        if isinstance(identifier, Problem):
            return identifier
        member_id = found.get(identifier)
        return NotFound() if member_id is None else LookedUp(member_id, status[member_id], accounts[member_id])

    return [answer(identifier) for identifier in meant]


def status_in(session: Session, program_id: UUID, member_id: UUID) -> str | None:
    """The status of a programme's member; None if it has no such member."""
    mine = select(Member.status).where(Member.id == member_id, Member.program_id == program_id)
    return session.scalars(mine).one_or_none()


def phone_region(session: Session, program_id: UUID, now: datetime) -> str | None:
    """Where a phone number without `+` is from, by the terms in force at `now`; None: such numbers are refused."""
    version = timeline(session, program_id).at(now)
    return None if version is None else version.terms.enrolment.phone_region


def enrol_unknown(
    session: Session, program_id: UUID, identifiers: Collection[Identifier], now: datetime
) -> tuple[dict[Identifier, UUID], set[UUID]]:
    """Enrols a member for each identifier that nobody has; answers the members behind all, and which of them are new.

    Two batches that meet the same new card make one member: the second waits for the first and finds theirs.
    """
    if not identifiers:
        return {}, set()
    rows = [
        {"program_id": program_id, "kind": identifier.kind, "value": identifier.value, "member_id": new_id()}
        for identifier in sorted(identifiers)
    ]
    won = db.claim_rows(session, MemberIdentifier, rows, ["kind", "value", "member_id"])
    members = {Identifier(row["kind"], row["value"]): row["member_id"] for row in won}
    new = set(members.values())
    _write_members(session, program_id, sorted(new), now)
    if len(members) < len(rows):
        members |= find(session, program_id, set(identifiers) - set(members))
    return members, new


def enrol(
    session: Session,
    program_id: UUID,
    identifiers: Collection[Identifier],
    now: datetime,
    profile: Mapping[str, Any] = EMPTY,
) -> UUID:
    """Enrols one member under all `identifiers`; answers the id. IdentifierTaken if any belongs to somebody."""
    member_id = new_id()
    _take_identifiers(session, program_id, member_id, identifiers)
    _write_members(session, program_id, [member_id], now)
    if any(value is not None for value in profile.values()):
        db.insert_rows(session, MemberProfile, [{"member_id": member_id, **EMPTY, **profile}])
    return member_id


def _write_members(session: Session, program_id: UUID, member_ids: Sequence[UUID], now: datetime) -> None:
    fixed = {"program_id": program_id, "status": "active", "enrolled_at": now, "revision": 1}
    db.insert_rows(session, Member, [{"id": member_id, **fixed} for member_id in member_ids])
    ledger.open_accounts(session, program_id, member_ids)
    outbox.put(session, [outbox.Event(program_id, "member.enrolled", id_, {}) for id_ in member_ids], now)


def _take_identifiers(session: Session, program_id: UUID, member_id: UUID, identifiers: Collection[Identifier]) -> None:
    rows = [
        {"program_id": program_id, "kind": identifier.kind, "value": identifier.value, "member_id": member_id}
        for identifier in sorted(set(identifiers))
    ]
    if len(db.claim_rows(session, MemberIdentifier, rows, ["kind"])) < len(rows):
        raise IdentifierTaken


def read(session: Session, program_id: UUID, member_id: UUID) -> Enrolled:
    """One member. NotFound if the programme has no such member."""
    member = session.get(Member, member_id)
    if member is None or member.program_id != program_id:
        raise NotFound
    theirs = select(MemberIdentifier).where(MemberIdentifier.member_id == member_id)
    identifiers = session.scalars(theirs.order_by(MemberIdentifier.kind, MemberIdentifier.value)).all()
    profile = session.get(MemberProfile, member_id) or MemberProfile(member_id=member_id, **EMPTY)
    return Enrolled(member, identifiers, profile)


def customers(session: Session, member_ids: Collection[UUID]) -> dict[UUID, Customer]:
    """What earning rules may ask about these members' profiles, of those who have one."""
    rows = db.found(session, _profiles, ids=sorted(member_ids))
    return {row.member_id: _customer(row) for row in rows}


def _customer(profile: Any) -> Customer:
    return Customer(False, profile.born_on, profile.attributes or {}, profile.segments or ())


def _profiles(engine: str) -> Select[*tuple[Any, ...]]:
    columns = (MemberProfile.member_id, MemberProfile.born_on, MemberProfile.attributes, MemberProfile.segments)
    return select(*columns).where(db.one_of(engine, MemberProfile.member_id.expression, "ids"))


@dataclass(frozen=True, slots=True)
class Person:
    """What campaigns ask about a member."""

    id: UUID
    status: str
    enrolled_at: datetime
    customer: Customer


def persons(session: Session, member_ids: Collection[UUID]) -> list[Person]:
    """These members, as campaigns see them, by id."""
    rows = db.found(session, _persons, ids=sorted(member_ids))
    return [
        Person(
            row.id, row.status, row.enrolled_at, Customer(False, row.born_on, row.attributes or {}, row.segments or ())
        )
        for row in rows
    ]


def _persons(engine: str) -> Select[*tuple[Any, ...]]:
    profile = (MemberProfile.born_on, MemberProfile.attributes, MemberProfile.segments)
    rows = select(Member.id, Member.status, Member.enrolled_at, *profile)
    rows = rows.outerjoin(MemberProfile, MemberProfile.member_id == Member.id)
    return rows.where(db.one_of(engine, Member.id.expression, "ids")).order_by(Member.id)


def names(session: Session, program_id: UUID, member_ids: Collection[UUID], before: datetime) -> dict[UUID, str | None]:
    """Those members who joined the programme `before` an instant, in the order of their ids, each with their name."""
    return dict(db.found(session, _names, program_id=program_id, before=before, ids=list(member_ids)))


def _names(engine: str) -> Select[UUID, str | None]:
    profile = MemberProfile.member_id == Member.id
    rows = select(Member.id, MemberProfile.name).outerjoin(MemberProfile, profile).where(*_joined())
    return rows.where(db.one_of(engine, Member.id.expression, "ids")).order_by(Member.id)


def joined(
    session: Session, program_id: UUID, before: datetime, after: UUID | None, limit: int, since: datetime | None = None
) -> Sequence[UUID]:
    """The members who joined the programme `before` an instant (and not before `since`), by id, from the one after
    `after`; at most `limit`."""
    rows = select(Member.id).where(*_joined())
    if after is not None:
        rows = rows.where(Member.id > after)
    if since is not None:
        rows = rows.where(Member.enrolled_at >= since)
    given = {"program_id": program_id, "before": before}
    return session.scalars(rows.order_by(Member.id).limit(limit), given).all()


def _joined() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    program_id = bindparam("program_id", type_=Member.program_id.type)
    return Member.program_id == program_id, Member.enrolled_at < bindparam("before", type_=Member.enrolled_at.type)


def change(
    session: Session,
    program_id: UUID,
    member_id: UUID,
    revision: int,
    now: datetime,
    *,
    status: str | None,
    profile: dict[str, Any] | None,
) -> Enrolled:
    """Changes status or profile of a member still at `revision`, else PreconditionFailed. Closing is for good."""
    ledger.lock(session, [member_id])
    member = read(session, program_id, member_id).member
    if member.revision != revision:
        raise PreconditionFailed
    if member.status == "closed" and status not in (None, "closed"):
        raise MemberClosed
    new_status = status or member.status
    session.execute(update(Member).where(Member.id == member_id).values(status=new_status, revision=revision + 1))
    if profile is not None:
        row = {"member_id": member_id, **EMPTY, **profile}
        if not db.claim_rows(session, MemberProfile, [row], ["member_id"]) and profile:
            session.execute(update(MemberProfile).where(MemberProfile.member_id == member_id).values(profile))
    if new_status != member.status:
        event = outbox.Event(program_id, "member.status_changed", member_id, {"status": new_status})
        outbox.put(session, [event], now)
    session.expire_all()
    return read(session, program_id, member_id)


def add_identifier(session: Session, program_id: UUID, member_id: UUID, identifier: Identifier) -> Enrolled:
    """Adds one way to recognise a member; adding it again changes nothing. IdentifierTaken if it is another's."""
    enrolled = read(session, program_id, member_id)
    if all((has.kind, has.value) != (identifier.kind, identifier.value) for has in enrolled.identifiers):
        _take_identifiers(session, program_id, member_id, [identifier])
    return read(session, program_id, member_id)


def remove_identifier(session: Session, program_id: UUID, member_id: UUID, identifier: Identifier) -> None:
    """Forgets one identifier. NotFound if the member has no such one, LastIdentifier for the only one.

    A closed member may lose even that, so that the card can be enrolled anew.
    """
    ledger.lock(session, [member_id])
    closed = read(session, program_id, member_id).member.status == "closed"
    theirs = select(func.count()).where(MemberIdentifier.member_id == member_id)
    this = delete(MemberIdentifier).where(
        MemberIdentifier.program_id == program_id,
        MemberIdentifier.member_id == member_id,
        MemberIdentifier.kind == identifier.kind,
        MemberIdentifier.value == identifier.value,
    )
    if not getattr(session.execute(this), "rowcount", 0):
        raise NotFound
    if not closed and session.execute(theirs).scalar_one() == 0:
        raise LastIdentifier


# --- who brought whom -----------------------------------------------------------------------------------------------


def refer(
    session: Session, program_id: UUID, member_id: UUID, referrer_id: UUID, now: datetime, *, bought: bool
) -> MemberReferral:
    """Notes down that a member was brought by another; the same again changes nothing. The member's account is claimed.

    `bought`: whether the member has made a purchase. NotFound, ReferralToSelf, AlreadyReferred, ReferralTooLate,
    ReferrerJoinedLater, MemberClosed.
    """
    member, referrer = (read(session, program_id, id_).member for id_ in (member_id, referrer_id))
    known = session.get(MemberReferral, member_id)
    if known is not None and known.referrer_id == referrer_id:
        return known
    if member_id == referrer_id:
        raise ReferralToSelf(findings=[finding(("referrer",), "oneself", "that is the member")])
    if known is not None:
        raise AlreadyReferred
    if bought:
        raise ReferralTooLate
    if referrer.enrolled_at > member.enrolled_at:
        raise ReferrerJoinedLater(findings=[finding(("referrer",), "joined_later", "joined after the member")])
    if member.status == "closed":
        raise MemberClosed
    return refer_new(session, program_id, member_id, referrer_id, now)


def refer_new(session: Session, program_id: UUID, member_id: UUID, referrer_id: UUID, now: datetime) -> MemberReferral:
    """The same of whoever is becoming a member in this transaction. ReferralToSelf, MemberClosed."""
    if member_id == referrer_id:
        raise ReferralToSelf(findings=[finding(("referred_by",), "oneself", "that is the member")])
    if status_in(session, program_id, referrer_id) == "closed":
        raise MemberClosed
    row = {"member_id": member_id, "program_id": program_id, "referrer_id": referrer_id, "recorded_at": now}
    db.insert_rows(session, MemberReferral, [row])
    payload = {"referrer_id": str(referrer_id)}
    outbox.put(session, [outbox.Event(program_id, "member.referred", member_id, payload)], now)
    return MemberReferral(**row)


def referral(session: Session, program_id: UUID, member_id: UUID) -> MemberReferral:
    """Who brought a member. NotFound if nobody did, or the programme has no such member."""
    read(session, program_id, member_id)
    known = session.get(MemberReferral, member_id)
    if known is None:
        raise NotFound
    return known


def referrers(session: Session, member_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Who brought each of these members, of those whom somebody did."""
    return dict(db.found(session, _referrers, ids=sorted(member_ids)))


def _referrers(engine: str) -> Select[UUID, UUID]:
    rows = select(MemberReferral.member_id, MemberReferral.referrer_id)
    return rows.where(db.one_of(engine, MemberReferral.member_id.expression, "ids"))
