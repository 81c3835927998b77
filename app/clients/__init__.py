"""Clients: who calls us, and what they may do.

Owns clients (a till, a partner's back end, a person of staff) and their API keys. A key is shown once and stored as
an HMAC; a client may hold two live keys, so that keys rotate without a gap. A route says what it needs with
`Annotated[Caller, needs("members:read")]`; `check_routes` refuses an application in which one says nothing.

A member calls with a token that a client got for them: a JWT, signed with a key derived from the pepper, kept nowhere.
"""

from app.clients.routes import check_routes, keyed, member_token, needs, public, scope_of, takes_token
from app.clients.rules import (
    KINDS,
    SCOPES,
    TOKEN_LIFE,
    Caller,
    Kind,
    MemberCaller,
    NoPerson,
    OwnAccount,
    check_person,
    sign_token,
    signing_key,
)
from app.clients.service import (
    KnownKeys,
    NewKey,
    TooManyKeys,
    create_client,
    create_key,
    find_client,
    is_live,
    list_keys,
    memberships,
    revoke_key,
)

__all__ = [
    "KINDS",
    "SCOPES",
    "TOKEN_LIFE",
    "Caller",
    "Kind",
    "KnownKeys",
    "MemberCaller",
    "NewKey",
    "NoPerson",
    "OwnAccount",
    "TooManyKeys",
    "check_person",
    "check_routes",
    "create_client",
    "create_key",
    "find_client",
    "is_live",
    "keyed",
    "list_keys",
    "member_token",
    "memberships",
    "needs",
    "public",
    "revoke_key",
    "scope_of",
    "sign_token",
    "signing_key",
    "takes_token",
]
