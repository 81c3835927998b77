"""Get tokens for members, and look after who holds one."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from app import members
from app.clients import MemberCaller
from app.errors import Unauthenticated
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
