"""What a key looks like and what a caller may do."""

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from app.errors import Forbidden, NotFound

Kind = Literal["terminal", "partner", "staff"]

SCOPES: dict[str, str] = {
    "transactions:write": "post and claim purchases",
    "transactions:read": "read purchases",
    "members:lookup": "find a member by identifier and read the balance",
    "members:read": "read members, their balances, entries and lots",
    "members:write": "enrol and change members",
    "programs:read": "read programmes and their terms",
    "programs:write": "change programmes: draft and publish terms",
    "programs:create": "create programmes; for keys that belong to no programme",
    "rewards:read": "read the catalogue of rewards",
    "rewards:write": "change the catalogue of rewards; cancel vouchers",
    "redemptions:read": "read redemptions, vouchers, and which rewards a member can have",
    "redemptions:write": "redeem, fulfil and cancel; burn vouchers",
    "accounting:read": "read the journal, balances, cohorts and the proof",
    "accounting:write": "recognise revenue now",
}

_REWARDS = frozenset({"rewards:read", "redemptions:read", "redemptions:write"})

KINDS: dict[Kind, frozenset[str]] = {
    "terminal": frozenset({"transactions:write", "transactions:read", "members:lookup"}) | _REWARDS,
    "partner": frozenset({"transactions:read", "members:lookup", "members:read", "members:write", "programs:read"})
    | _REWARDS,
    "staff": frozenset(SCOPES) - {"programs:create"},
}
"""The scopes a key of each kind gets unless told otherwise."""

_KEY = re.compile(r"(loy_(?:terminal|partner|staff)_([0-9a-f]{16})_([0-9a-f]{64}))_([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: one client, through one of its keys. `program_id` None is the installation's own key."""

    client_id: UUID
    kind: str
    program_id: UUID | None
    scopes: frozenset[str]
    stores: frozenset[str] | None

    @property
    def program(self) -> UUID:
        """The caller's programme. Forbidden for a key that belongs to none."""
        if self.program_id is None:
            raise Forbidden("this needs a key that belongs to a programme")
        return self.program_id

    def must_see_program(self, program_id: UUID) -> None:
        """NotFound when `program_id` is somebody else's."""
        if self.program_id not in (None, program_id):
            raise NotFound

    def sees_store(self, store: str | None) -> bool:
        """Whether the caller may act for `store`."""
        return self.stores is None or store in self.stores


@dataclass(frozen=True, slots=True)
class Secret:
    """A key in the clear. `text` is what the client sends; only `public_id` and a hash of `secret` are stored."""

    text: str
    public_id: str
    secret: str


def new_secret(kind: str) -> Secret:
    """A key with 256 random bits; the last part is a CRC-32 that lets scanners and tills spot a damaged key."""
    public_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    text = f"loy_{kind}_{public_id}_{secret}"
    return Secret(f"{text}_{_check(text)}", public_id, secret)


def read_secret(text: str) -> Secret | None:
    """The parts of a key, or None if it is not one."""
    match = _KEY.fullmatch(text)
    if match is None or match[4] != _check(match[1]):
        return None
    return Secret(text, match[2], match[3])


def hash_secret(secret: str, pepper: bytes) -> str:
    """HMAC-SHA256 in hex. A slow hash protects weak passwords; these are 256 random bits, and tills are many."""
    return hmac.new(pepper, secret.encode(), hashlib.sha256).hexdigest()


def unknown_scopes(scopes: Collection[str]) -> list[str]:
    return sorted(set(scopes) - set(SCOPES))


def _check(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
