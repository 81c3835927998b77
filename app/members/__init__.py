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
    MemberMayNotEarn,
    MemberMayNotSpend,
    UnknownMember,
    normalise,
)
from app.members.schemas import IdentifierIn, MemberRef, identifier_in, lookup_query
from app.members.service import Enrolled, enrol, enrol_unknown, find, statuses

__all__ = [
    "GATES",
    "Enrolled",
    "Gates",
    "Identifier",
    "IdentifierIn",
    "IdentifierInvalid",
    "MemberMayNotEarn",
    "MemberMayNotSpend",
    "MemberRef",
    "UnknownMember",
    "enrol",
    "enrol_unknown",
    "find",
    "identifier_in",
    "lookup_query",
    "normalise",
    "statuses",
]
