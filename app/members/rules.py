"""How identifiers are spelled, and what a status permits. Pure."""

import re
from dataclasses import dataclass
from typing import Literal

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from app.errors import Problem

IdentifierKind = Literal["card", "phone", "email", "partner", "id"]
Status = Literal["active", "earn_only", "spend_only", "suspended", "closed"]


class UnknownMember(Problem):
    """No member has this identifier, and the programme's terms do not enrol by it. Enrol the member first."""

    status, code, title, final = 422, "unknown_member", "Nobody has this identifier", True


class IdentifierInvalid(Problem):
    """The identifier is not one of its kind: a card of letters and digits, an E.164 phone number, an e-mail address."""

    status, code, title, final = 422, "identifier_invalid", "The identifier is malformed", True


class IdentifierTaken(Problem):
    """Another member of the programme has this identifier."""

    status, code, title, final = 409, "identifier_taken", "The identifier belongs to another member", True


class MemberMayNotEarn(Problem):
    """The member's status does not let them earn points."""

    status, code, title, final = 422, "member_may_not_earn", "The member may not earn points", True


class MemberMayNotSpend(Problem):
    """The member's status does not let them spend points."""

    status, code, title, final = 422, "member_may_not_spend", "The member may not spend points", True


class MemberClosed(Problem):
    """A closed membership stays closed. Enrol the person anew."""

    status, code, title, final = 409, "member_closed", "The membership is closed", True


class ReferralToSelf(Problem):
    """Nobody brings themselves, by whichever identifier."""

    status, code, title, final = 422, "referral_to_self", "Members cannot refer themselves", True


class ReferrerJoinedLater(Problem):
    """Whoever brought a member was a member before."""

    status, code, title, final = 422, "referrer_joined_later", "The referrer joined after the member", True


class AlreadyReferred(Problem):
    """Somebody else brought this member. That does not change."""

    status, code, title, final = 409, "already_referred", "The member has another referrer", True


class ReferralTooLate(Problem):
    """The member has made a purchase. Who brought them is said before that."""

    status, code, title, final = 409, "referral_too_late", "The member has bought already", True


class LastIdentifier(Problem):
    """A member keeps at least one identifier. Add the new one first."""

    status, code, title, final = 409, "last_identifier", "This is the member's only identifier", True


@dataclass(frozen=True, slots=True)
class Gates:
    """What a status permits."""

    earn: bool
    spend: bool


GATES: dict[str, Gates] = {
    "active": Gates(earn=True, spend=True),
    "earn_only": Gates(earn=True, spend=False),
    "spend_only": Gates(earn=False, spend=True),
    "suspended": Gates(earn=False, spend=False),
    "closed": Gates(earn=False, spend=False),
}


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """One way to recognise a member, in its one spelling. Kind `id` is our own."""

    kind: str
    value: str


def normalise(kind: str, value: str, phone_region: str | None = None) -> Identifier:
    """The identifier in its one spelling: cards without spaces and hyphens in capitals, phones as E.164, e-mail
    addresses in lower case. `phone_region` reads numbers without `+`. IdentifierInvalid if it is not one."""
    if kind == "phone":
        text = _phone(value, phone_region)
    else:
        text = {"card": _card, "email": _email, "partner": _partner}[kind](value)
    if not text:
        raise IdentifierInvalid
    return Identifier(kind, text)


def _card(value: str) -> str:
    text = re.sub(r"[\s-]", "", value)
    if not re.fullmatch(r"[A-Za-z0-9]{1,64}", text):
        raise IdentifierInvalid("a card number has letters and digits only")
    return text.upper()


def _partner(value: str) -> str:
    return value.strip()


def _phone(value: str, region: str | None) -> str:
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        raise IdentifierInvalid("a phone number is needed, with its country code: +14155550100") from None
    # not a local number either, which a till reads out without its area code: it is several people's
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        raise IdentifierInvalid("no phone number has this length")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _email(value: str) -> str:
    try:
        return validate_email(value, check_deliverability=False).normalized.lower()
    except EmailNotValidError:
        raise IdentifierInvalid("an e-mail address is needed") from None
