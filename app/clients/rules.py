"""What a key and a token look like, and what a caller may do."""

import hashlib
import hmac
import json
import re
import secrets
import unicodedata
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jwt.algorithms import OKPAlgorithm
from jwt.utils import base64url_encode

from app.errors import Forbidden, NotFound, Problem
from app.ids import new_id

Kind = Literal["terminal", "partner", "staff"]

SCOPES: dict[str, str] = {
    "transactions:write": "post purchases, returns and voids; claim purchases",
    "transactions:read": "read purchases",
    "transactions:dismiss": "dismiss returns that wait for their purchase in vain",
    "holds:write": "hold points, capture and release them",
    "holds:read": "read holds",
    "events:write": "report what happened to members, for campaigns",
    "transfers:write": "give points from member to member",
    "transfers:read": "read transfers",
    "pools:write": "make pools, let members join and leave",
    "pools:draw": "collect a pool's points for a spend of one member",
    "pools:read": "read pools and the balances in them",
    "members:lookup": "find a member by identifier and read the balance",
    "members:read": "read members, their balances, entries, lots and statements",
    "members:write": "enrol and change members",
    "tokens:write": "get tokens with which members read their own points",
    "programs:read": "read programmes and their terms",
    "programs:write": "change programmes: draft and publish terms",
    "programs:create": "create programmes; for keys that belong to no programme",
    "rewards:read": "read the catalogue of rewards",
    "rewards:write": "change the catalogue of rewards; cancel vouchers",
    "redemptions:read": "read redemptions, vouchers, and which rewards a member can have",
    "redemptions:write": "redeem, fulfil and cancel; burn vouchers",
    "accounting:read": "read the journal, balances, cohorts and the proof",
    "accounting:write": "recognise revenue now",
    "adjustments:write": "adjust points, write off debt, extend and reinstate lots; for keys that name a person",
    "adjustments:approve": "approve or reject what another person asked for; for keys that name a person",
    "adjustments:read": "read adjustments",
    "clubs:write": "let members join clubs, sell memberships, end them",
    "tiers:write": "give and lock tiers, and end that; for keys that name a person",
}

_REWARDS = frozenset({"rewards:read", "redemptions:read", "redemptions:write"})

KINDS: dict[Kind, frozenset[str]] = {
    "terminal": frozenset(
        {
            "transactions:write",
            "transactions:read",
            "holds:write",
            "holds:read",
            "pools:draw",
            "pools:read",
            "clubs:write",
            "members:lookup",
        }
    )
    | _REWARDS,
    "partner": frozenset(
        {
            "transactions:read",
            "holds:write",
            "holds:read",
            "transfers:write",
            "transfers:read",
            "pools:write",
            "pools:draw",
            "pools:read",
            "events:write",
            "clubs:write",
            "members:lookup",
            "members:read",
            "members:write",
            "tokens:write",
            "programs:read",
        }
    )
    | _REWARDS,
    "staff": frozenset(SCOPES) - {"programs:create"},
}
"""The scopes a key of each kind gets unless told otherwise."""

_KEY = re.compile(r"(loy_(?:terminal|partner|staff)_([0-9a-f]{16})_([0-9a-f]{64}))_([0-9a-f]{8})")


class NoPerson(Problem):
    """The key names no person. Whoever changes points or tiers must have a name: `loyalty keys create --person`."""

    status, code, title = 403, "no_person", "The key names no person"


class OwnAccount(Problem):
    """Nobody changes their own points or tier, nor approves that, whichever of their keys they take."""

    status, code, title = 403, "own_account", "This is your own account"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: one client, through one of its keys. `program_id` None is the installation's own key."""

    client_id: UUID
    kind: str
    program_id: UUID | None
    scopes: frozenset[str]
    stores: frozenset[str] | None
    person: str | None = None
    """Whoever is behind the client, if it names a person: the same for all clients of theirs."""
    role: str | None = None
    member_id: UUID | None = None
    """The person's own membership, as far as this client knows."""
    expires_at: datetime | None = None
    """When the key ends, if it does by itself."""

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


def check_person(caller: Caller, member_id: UUID, own: Mapping[str, Collection[UUID]]) -> None:
    """NoPerson, or OwnAccount: what a caller changes of a member, and which memberships are people's `own`."""
    if caller.person is None:
        raise NoPerson
    if member_id in own[caller.person]:
        raise OwnAccount


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


# --- tokens of members ----------------------------------------------------------------------------------------------


TOKEN_LIFE = timedelta(minutes=15)

_ISSUER, _AUDIENCE, _TYPE = "loyalty", "loyalty/me", "at+jwt"
_ALGORITHM = "EdDSA"
_LONGEST_TOKEN = 1024
_CLAIMS = ("iss", "aud", "sub", "program", "client_id", "iat", "exp", "jti")


@dataclass(frozen=True, slots=True)
class MemberCaller:
    """Who is calling: a member, for themselves, through a token."""

    member_id: UUID
    program_id: UUID


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 key. `id` is the thumbprint of its public half (RFC 7638)."""

    private: Ed25519PrivateKey
    public: Ed25519PublicKey
    id: str

    def public_jwk(self) -> dict[str, str]:
        """The public half as a JSON Web Key (RFC 8037)."""
        return _jwk(self.public) | {"kid": self.id, "use": "sig", "alg": _ALGORITHM}


@lru_cache(maxsize=4)
def signing_key(pepper: bytes) -> SigningKey:
    """The key that signs tokens: derived, so that all processes agree on it and nobody keeps a second secret."""
    seed = HKDF(SHA256(), length=32, salt=None, info=b"loyalty: member tokens, Ed25519, 1").derive(pepper)
    private = Ed25519PrivateKey.from_private_bytes(seed)
    canonical = json.dumps(_jwk(private.public_key()), sort_keys=True, separators=(",", ":"))
    thumbprint = base64url_encode(hashlib.sha256(canonical.encode()).digest()).decode()
    return SigningKey(private, private.public_key(), thumbprint)


def _jwk(public: Ed25519PublicKey) -> dict[str, str]:
    known = OKPAlgorithm.to_jwk(public, as_dict=True)
    return {name: known[name] for name in ("kty", "crv", "x")}


def sign_token(key: SigningKey, member: MemberCaller, client_id: UUID, now: datetime) -> str:
    """A JWT access token (RFC 9068) for `member`, good for `TOKEN_LIFE` from `now`, asked for by a client."""
    claims = {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "sub": str(member.member_id),
        "program": str(member.program_id),
        "client_id": str(client_id),
        "iat": int(now.timestamp()),
        "exp": int((now + TOKEN_LIFE).timestamp()),
        "jti": new_id().hex,
    }
    return jwt.encode(claims, key.private, _ALGORITHM, headers={"typ": _TYPE, "kid": key.id})


def read_token(key: SigningKey, text: str, now: datetime) -> MemberCaller | None:
    """The member a token speaks for at `now`, or None if it is not one of ours, or not good any more or yet.

    The times are compared here, by the service's clock and to the second: the library would take the machine's.
    """
    if len(text) > _LONGEST_TOKEN:
        return None
    own_clock: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
    wanted: Any = {"require": list(_CLAIMS), "strict_aud": True}
    try:
        token = jwt.decode_complete(
            text, key.public, [_ALGORITHM], options=own_clock | wanted, audience=_AUDIENCE, issuer=_ISSUER
        )
        header, claims = token["header"], token["payload"]
        if (header.get("typ"), header.get("kid")) != (_TYPE, key.id):
            return None
        if not claims["iat"] <= now.timestamp() < claims["exp"]:
            return None
        return MemberCaller(UUID(claims["sub"]), UUID(claims["program"]))
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None


def unknown_scopes(scopes: Collection[str]) -> list[str]:
    return sorted(set(scopes) - set(SCOPES))


def one_person(name: str) -> str:
    """A person's name in one spelling: two clients of one person are known to be theirs. ValueError if empty."""
    spelling = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    if not spelling:
        raise ValueError("a person needs a name")
    return spelling


def _check(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
