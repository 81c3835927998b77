"""Clients: who calls us, and what they may do.

Owns clients (a till, a partner's back end, a person of staff) and their API keys. A key is shown once and stored as
an HMAC; a client may hold two live keys, so that keys rotate without a gap. A route says what it needs with
`Annotated[Caller, needs("members:read")]`; `check_routes` refuses an application in which one says nothing.
"""

from app.clients.routes import check_routes, keyed, needs, public, scope_of
from app.clients.rules import KINDS, SCOPES, Caller, Kind
from app.clients.service import (
    NewKey,
    TooManyKeys,
    create_client,
    create_key,
    find_client,
    is_live,
    list_keys,
    revoke_key,
)

__all__ = [
    "KINDS",
    "SCOPES",
    "Caller",
    "Kind",
    "NewKey",
    "TooManyKeys",
    "check_routes",
    "create_client",
    "create_key",
    "find_client",
    "is_live",
    "keyed",
    "list_keys",
    "needs",
    "public",
    "revoke_key",
    "scope_of",
]
