"""Members: who they are and how a till recognises them.

Owns members, their identifiers (card, phone, e-mail, partner id; normalised, unique per programme) and their
profiles. Personal data lives in `member_identifier` and `member_profile` only; everything else knows a member's id.
A status says separately whether a member may earn and whether they may spend.
"""

from app.members.rules import (
    GATES,
    Gates,
    Identifier,
    IdentifierInvalid,
    MemberClosed,
    MemberMayNotEarn,
    MemberMayNotSpend,
    Status,
    UnknownMember,
    normalise,
)
from app.members.schemas import IdentifierIn, MemberRef, ProfileOut, identifier_in, lookup_query
from app.members.service import (
    Enrolled,
    Person,
    customers,
    enrol,
    enrol_unknown,
    find,
    joined,
    named,
    named_each,
    names,
    persons,
    phone_region,
    read,
    status_in,
    statuses,
)

__all__ = [
    "GATES",
    "Enrolled",
    "Gates",
    "Identifier",
    "IdentifierIn",
    "IdentifierInvalid",
    "MemberClosed",
    "MemberMayNotEarn",
    "MemberMayNotSpend",
    "MemberRef",
    "Person",
    "ProfileOut",
    "Status",
    "UnknownMember",
    "customers",
    "enrol",
    "enrol_unknown",
    "find",
    "identifier_in",
    "joined",
    "lookup_query",
    "named",
    "named_each",
    "names",
    "normalise",
    "persons",
    "phone_region",
    "read",
    "status_in",
    "statuses",
]
