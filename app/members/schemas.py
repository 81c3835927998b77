"""The wire of members."""

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.errors import Finding, InvalidRequest
from app.ledger import BalanceOut, ExpiringOut
from app.members.rules import Identifier, IdentifierInvalid, IdentifierKind, Status, normalise
from app.wire import Answer, Day, Request, Stamp, Text, Token, WireId

Value = Annotated[Text, Field(max_length=128)]


class MemberRef(Request):
    """A member by exactly one identifier."""

    card: Value | None = None
    phone: Value | None = None
    email: Value | None = None
    partner: Value | None = None
    id: WireId | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "MemberRef":
        if len(self.given()) != 1:
            raise PydanticCustomError("one_identifier", "give exactly one of card, phone, email, partner, id")
        return self

    def given(self) -> list[tuple[IdentifierKind, str]]:
        pairs: list[tuple[IdentifierKind, Any]] = [
            ("card", self.card),
            ("phone", self.phone),
            ("email", self.email),
            ("partner", self.partner),
            ("id", self.id),
        ]
        return [(kind, str(value)) for kind, value in pairs if value is not None]


def identifier_in(reference: MemberRef, phone_region: str | None, field: str | None = "member") -> Identifier:
    """The identifier that a `field` of a body names, or a query (None), in its one spelling. IdentifierInvalid if it is
    not one of its kind."""
    kind, value = reference.given()[0]
    if kind == "id":
        return Identifier(kind, value)
    return identifier_at(kind if field is None else f"#/{field}/{kind}", kind, value, phone_region)


def identifier_at(pointer: str, kind: IdentifierKind, value: str, phone_region: str | None) -> Identifier:
    """The same of one that is given at a place of its own."""
    try:
        return normalise(kind, value, phone_region)
    except IdentifierInvalid as wrong:
        raise IdentifierInvalid(wrong.detail, findings=[Finding(pointer, "malformed", wrong.detail)]) from None


async def lookup_query(
    card: Annotated[Value | None, Query()] = None,
    phone: Annotated[Value | None, Query()] = None,
    email: Annotated[Value | None, Query()] = None,
    partner: Annotated[Value | None, Query()] = None,
) -> MemberRef:
    """The reference in a query string, as `?card=900`."""
    given = {"card": card, "phone": phone, "email": email, "partner": partner}
    if sum(value is not None for value in given.values()) != 1:
        raise InvalidRequest(findings=[Finding("query", "one_identifier", "give one of card, phone, email, partner")])
    return MemberRef.model_validate(given)


class IdentifierIn(Request):
    """One identifier to add: `{"kind": "card", "value": "900"}`."""

    kind: Literal["card", "phone", "email", "partner"]
    value: Value


class ProfileIn(Request):
    """Personal data, all optional. Earning rules may ask for the last three; each replaces what was there."""

    name: Text | None = None
    language: Annotated[str, Field(pattern="^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)] | None = None
    born_on: Day | None = None
    attributes: Annotated[dict[Token, Text], Field(max_length=50)] | None = None
    segments: Annotated[list[Token], Field(max_length=200)] | None = None


class MemberIn(Request):
    """A new member with at least one identifier."""

    identifiers: Annotated[list[IdentifierIn], Field(min_length=1, max_length=10)]
    profile: ProfileIn = ProfileIn()
    referred_by: MemberRef | None = None
    """The member who brought them."""


class ReferralIn(Request):
    """Who brought a member."""

    referrer: MemberRef


class ReferralOut(Answer):
    """Who brought a member, and since when that is known."""

    member_id: UUID
    referrer_id: UUID
    recorded_at: Stamp


class MemberChange(Request):
    """What to change; what is absent stays."""

    status: Status | None = None
    profile: ProfileIn | None = None


class IdentifierOut(Answer):
    kind: str
    value: str


class ProfileOut(Answer):
    name: str | None
    language: str | None
    born_on: date | None
    attributes: dict[str, str] | None
    segments: list[str] | None


class MemberBrief(Answer):
    """A member without their personal data: such answers are kept for retries."""

    id: UUID
    status: Status
    may_earn: bool
    may_spend: bool
    enrolled_at: Stamp


class MemberOut(Answer):
    """A member with their personal data."""

    id: UUID
    status: Status
    may_earn: bool
    may_spend: bool
    enrolled_at: Stamp
    identifiers: list[IdentifierOut]
    profile: ProfileOut


class LookupOut(Answer):
    """What a till needs to know about the member in front of it."""

    id: UUID
    status: Status
    may_earn: bool
    may_spend: bool
    balance: BalanceOut
    expiring_next: ExpiringOut | None
