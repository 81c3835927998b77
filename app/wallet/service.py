"""Get tokens for members, look after who holds one, and read many balances at a time."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from app import clubs, ledger, members, programs, tiers
from app.clients import MemberCaller
from app.errors import Problem, Unauthenticated
from app.members import MemberClosed, MemberRef, UnknownMember


def member_for_token(session: Session, program_id: UUID, reference: MemberRef, now: datetime) -> MemberCaller:
    """The member of a programme that a token may be made for. UnknownMember, MemberClosed, IdentifierInvalid."""
    identifier = members.identifier_in(reference, members.phone_region(session, program_id, now))
    member_id = members.find(session, program_id, [identifier]).get(identifier)
    if member_id is None:
        raise UnknownMember
    if members.status_in(session, program_id, member_id) == "closed":
        raise MemberClosed
    return MemberCaller(member_id, program_id)


def check_member(session: Session, member: MemberCaller) -> None:
    """Unauthenticated unless the programme still has the member: a token outlives a closing by minutes otherwise."""
    if members.status_in(session, member.program_id, member.member_id) in (None, "closed"):
        raise Unauthenticated


def balances(
    session: Session, program_id: UUID, member_ids: Sequence[UUID], now: datetime
) -> list[ledger.Account | Problem]:
    """The account of each member at `now`; Unauthenticated where `check_member` says so."""
    accounts = programs.look(session, program_id, _open(session, program_id, member_ids), now)
    return [accounts.get(member_id) or Unauthenticated() for member_id in member_ids]


def tiers_of(
    session: Session, program_id: UUID, member_ids: Sequence[UUID], now: datetime
) -> list[tiers.StandingOut | Problem]:
    """Where each member stands at `now`; Unauthenticated where `check_member` says so."""
    open_ = sorted(_open(session, program_id, member_ids))
    found = dict(zip(open_, tiers.standings(session, program_id, open_, now), strict=True))
    return [found.get(member_id) or Unauthenticated() for member_id in member_ids]


def clubs_of(
    session: Session, program_id: UUID, member_ids: Sequence[UUID], now: datetime
) -> list[clubs.BelongingList | Problem]:
    """The clubs of each member at `now`; Unauthenticated where `check_member` says so."""
    open_ = sorted(_open(session, program_id, member_ids))
    found = dict(zip(open_, clubs.belongings(session, program_id, open_, now), strict=True))
    return [found.get(member_id) or Unauthenticated() for member_id in member_ids]


def _open(session: Session, program_id: UUID, member_ids: Sequence[UUID]) -> set[UUID]:
    """Those who may look at what is theirs."""
    ids = {members.Identifier("id", str(member_id)) for member_id in member_ids}
    ours = set(members.find(session, program_id, ids).values())
    statuses = members.statuses(session, ours)
    return {member_id for member_id in ours if statuses[member_id] != "closed"}
