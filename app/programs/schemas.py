"""Terms as they are written, checked, stored and read: the same value everywhere. And the wire of programmes."""

from fractions import Fraction
from functools import cache
from typing import Annotated, Literal, Self
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from phonenumbers import SUPPORTED_REGIONS
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.accounting import ROLES, Method, Profile
from app.money import Rounding, is_currency
from app.wire import Answer, CurrencyCode, Minor, Request, Stamp, Text, Token, WireInstant

Names = Annotated[list[Text], Field(max_length=1000)]
Tenders = Annotated[list[Token], Field(max_length=50)]
IdentifierKind = Literal["card", "phone", "email", "partner"]


def _currency(code: str) -> str:
    if not is_currency(code):
        raise PydanticCustomError("unknown_currency", "not an active ISO 4217 currency")
    return code


@cache
def _zones() -> frozenset[str]:
    # "localtime" is whatever this machine is set to, "Factory" a placeholder
    return frozenset(available_timezones() - {"localtime", "Factory"})


def _zone(name: str) -> str:
    if name not in _zones():
        raise PydanticCustomError("unknown_time_zone", "not a time zone of the IANA database")
    return name


def _region(code: str) -> str:
    if code not in SUPPORTED_REGIONS:
        raise PydanticCustomError("unknown_region", "not a region with a phone numbering plan (ISO 3166-1 alpha-2)")
    return code


class Exclusions(Request):
    """What earns nothing: lines of these departments, categories or products, spelled as the till sends them."""

    departments: Names = []
    categories: Names = []
    products: Names = []


class BaseEarning(Request):
    """Points per amount, on the earning base: eligible lines - discounts +- tax - tenders that do not earn."""

    points: Annotated[int, Field(ge=1, le=1_000_000)]
    per: Annotated[int, Field(ge=1, le=10**12, description="Minor units: `points` are earned for each `per`")]
    rounding: Literal["down", "half_up", "half_even", "up"] = "down"
    """One rounding per transaction, of base x points / per."""
    minimum_spend: Annotated[Minor, Field(description="Base below which nothing is earned, minor units")] = 0
    earn_on_tax: bool = True
    excluded: Exclusions = Exclusions()
    non_earning_tenders: Tenders = ["points", "gift_card", "store_credit"]


class PointValue(Request):
    """What points are worth when used: `amount` minor units for `points` points, net of VAT and of public discounts."""

    amount: Annotated[int, Field(ge=1, le=10**12)]
    points: Annotated[int, Field(ge=1, le=10**9)]

    @property
    def each(self) -> Fraction:
        return Fraction(self.amount, self.points)


class Rate(Request):
    """The part of issued points expected to be used, as a fraction of whole numbers: 2/3, never 0.6667."""

    numerator: Annotated[int, Field(ge=1, le=10**9)]
    denominator: Annotated[int, Field(ge=1, le=10**9)]

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if self.numerator > self.denominator:
            raise PydanticCustomError("rate_above_one", "more points cannot be used than were issued")
        return self

    @property
    def fraction(self) -> Fraction:
        return Fraction(self.numerator, self.denominator)


class AllocationPolicy(Request):
    """How the price is shared between goods and points."""

    method: Method = "relative"
    rounding: Rounding = "half_even"


class Expiry(Request):
    """Points are good until the end of the local day `months` after they were earned, or of the period it falls in."""

    months: Annotated[int, Field(ge=1, le=600)]
    round_up_to: Literal["day", "month", "quarter", "year"] = "month"


class ReturnsPolicy(Request):
    """What a return does. Pinned at the purchase."""

    points_already_spent: Literal["debt", "withhold", "write_off"] = "debt"
    debt_limit: Annotated[int | None, Field(ge=0, le=10**12, description="Points; null: no limit")] = None
    without_receipt: Literal["refuse", "accept"] = "refuse"
    without_receipt_limit: Annotated[int, Field(ge=0, le=10**12, description="Points per return without receipt")] = 0
    expired_meanwhile: Literal["stay_expired", "grace_days", "new_lot"] = "grace_days"
    grace_days: Annotated[int, Field(ge=1, le=366)] = 14


class EnrolmentPolicy(Request):
    """Who becomes a member by a first purchase."""

    automatic: bool = True
    identifiers: Annotated[list[IdentifierKind], Field(min_length=1, max_length=4)] = ["card"]
    """Kinds of identifier a till may enrol with."""
    phone_region: Annotated[str, Field(pattern="^[A-Z]{2}$"), AfterValidator(_region)] | None = None
    """Where a phone number without `+` is from; null: refuse those."""


class UploadPolicy(Request):
    """Which purchases a till may post."""

    latest_days: Annotated[int | None, Field(ge=1, le=36_500, description="null: however old")] = 45
    future_minutes: Annotated[int, Field(ge=0, le=1440)] = 10
    """How far a till's clock may be ahead."""
    largest_total: Annotated[int, Field(ge=1, le=10**13, description="Minor units; more is taken for a mistake")] = (
        10**10
    )


class Terms(Request):
    """What a programme promises, and how it is accounted for. Money in minor units of `currency`."""

    currency: Annotated[CurrencyCode, AfterValidator(_currency)]
    time_zone: Annotated[Text, AfterValidator(_zone), Field(examples=["America/New_York"])]
    prices_include_tax: bool = True
    """Whether a line's `amount` contains its `tax`."""
    earning: BaseEarning
    point_value: PointValue
    redemption_rate: Rate
    allocation: AllocationPolicy = AllocationPolicy()
    expiry: Expiry | None = None
    """null: points never expire."""
    posting_profile: Profile = "adjustment"
    returns: ReturnsPolicy = ReturnsPolicy()
    enrolment: EnrolmentPolicy = EnrolmentPolicy()
    uploads: UploadPolicy = UploadPolicy()

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


def _account_codes(codes: dict[str, str]) -> dict[str, str]:
    for role in codes:
        if role not in ROLES:
            raise PydanticCustomError("unknown_account", "not a role of the chart of accounts")
    chosen = [codes.get(role, default.code) for role, default in ROLES.items()]
    if len(set(chosen)) != len(chosen):
        raise PydanticCustomError("account_code_twice", "two accounts would have the same code")
    return codes


AccountCode = Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]{1,40}$")]


class ProgramIn(Request):
    """A new programme. `accounts` replaces account codes by role; the default chart has the others."""

    code: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{1,39}$", examples=["corner-grocer"])]
    name: Text
    accounts: Annotated[dict[str, AccountCode], AfterValidator(_account_codes)] = {}


class ProgramOut(Answer):
    id: UUID
    code: str
    name: str
    created_at: Stamp


class ProgramList(Answer):
    items: list[ProgramOut]


class PublishIn(Request):
    """From when the terms hold, by a purchase's `occurred_at`; null: now. A first version may start in the past."""

    effective_from: WireInstant | None = None


class TermsOut(Answer):
    """One version of a programme's terms. `effective_from` is null for a draft."""

    id: UUID
    version: int
    status: Literal["draft", "published"]
    effective_from: Stamp | None
    published_at: Stamp | None
    terms: Terms


class TermsList(Answer):
    items: list[TermsOut]


EXAMPLE_TERMS = {
    "currency": "USD",
    "time_zone": "America/New_York",
    "earning": {"points": 1, "per": 100, "excluded": {"departments": ["GIFT CARDS"]}},
    "point_value": {"amount": 1000, "points": 1000},
    "redemption_rate": {"numerator": 4, "denominator": 5},
    "expiry": {"months": 12, "round_up_to": "month"},
}
"""Terms that read well in the docs: 1 point per dollar, 1,000 points are worth 10.00, four of five are used."""
