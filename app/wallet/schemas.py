"""The wire of what members see."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from app.members import MemberRef, ProfileOut, Status
from app.wire import Answer, Request


class TokenIn(Request):
    """Whose token: a member by any one identifier."""

    member: MemberRef


class TokenOut(Answer):
    """RFC 6749, 5.1. `expires_in` is in seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # a word of the standard
    expires_in: Annotated[int, Field(examples=[900])]


class JwkOut(Answer):
    """An Ed25519 public key (RFC 8037)."""

    kty: str
    crv: str
    x: str
    kid: str
    use: str
    alg: str


class JwkSetOut(Answer):
    """RFC 7517, 5."""

    keys: list[JwkOut]


class MeOut(Answer):
    """A member to themselves."""

    id: UUID
    status: Status
    may_earn: bool
    may_spend: bool
    profile: ProfileOut
