"""Terms as they are written, checked, stored and read: the same value everywhere. And the wire of programmes."""

from fractions import Fraction
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Self
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from phonenumbers import SUPPORTED_REGIONS
from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from app.accounting import ROLES, Method, Profile
from app.money import Rounding, is_currency
from app.programs.campaigns import Campaign
from app.programs.clubs import Club
from app.programs.conditions import Goods, Tokens
from app.programs.earning import Rule, Stacking
from app.programs.ends import Days, Expiry, FixedDatesExpiry, InactivityExpiry, PeriodExpiry, Span
from app.programs.names import misnomers
from app.programs.rulebook import Rulebook
from app.programs.stamps import StampCard
from app.programs.tiers import Tier, TierTerms
from app.wire import Answer, CurrencyCode, Minor, Request, Stamp, Text, Token, WireInstant, chosen_by

IdentifierKind = Literal["card", "phone", "email", "partner"]

Points = Annotated[int, Field(ge=1, le=10**12)]
BASE = "base"
"""The code of what every purchase earns, in reasons."""


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


class BaseEarning(Request):
    """Points per amount, on the earning base: eligible lines - discounts +- tax - tenders that do not earn."""

    points: Annotated[int, Field(ge=0, le=1_000_000)]
    """0: the base gives none, and what rules and stamp cards give is all."""
    per: Annotated[int, Field(ge=1, le=10**12, description="Minor units: `points` are earned for each `per`")]
    rounding: Literal["down", "half_up", "half_even", "up"] = "down"
    """One rounding per transaction, of base x points / per."""
    minimum_spend: Annotated[Minor, Field(description="Base below which nothing is earned, minor units")] = 0
    earn_on_tax: bool = True
    excluded: Goods = Goods()
    """What earns nothing."""
    non_earning_tenders: Tokens = ["points", "gift_card", "store_credit"]


class PointValue(Request):
    """What points are worth when used: `amount` minor units for `points` points, net of VAT and of public discounts."""

    amount: Annotated[int, Field(ge=1, le=10**12)]
    points: Annotated[int, Field(ge=1, le=10**9)]

    @cached_property
    def each(self) -> Fraction:
        return Fraction(self.amount, self.points)


class Rate(Request):
    """A part of a whole, as a fraction of whole numbers: 2/3, never 0.6667."""

    numerator: Annotated[int, Field(ge=1, le=10**9)]
    denominator: Annotated[int, Field(ge=1, le=10**9)]

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if self.numerator > self.denominator:
            raise PydanticCustomError("rate_above_one", "a part is not more than the whole")
        return self

    @cached_property
    def fraction(self) -> Fraction:
        return Fraction(self.numerator, self.denominator)


class AllocationPolicy(Request):
    """How the price is shared between goods and points."""

    method: Method = "relative"
    rounding: Rounding = "half_even"


class PendingDays(Request):
    """Points become available so many local days after the purchase, at its time of day."""

    mode: Literal["days"]
    days: Days

    @property
    def longest_days(self) -> int:
        return self.days


class PendingEvent(Request):
    """Points become available when something happens (`shipped`), and are cancelled if it has not after some days."""

    mode: Literal["event"]
    event: Token
    cancel_after_days: Days

    @property
    def longest_days(self) -> int:
        return self.cancel_after_days


Pending = PendingDays | PendingEvent


class PointsTenderPolicy(Request):
    """Paying with points at the till."""

    value: PointValue
    """What points pay there, as the till's prices are: with VAT where those contain it."""
    minimum: Points = 1
    """Fewest points in one purchase."""
    step: Points = 1
    """Only multiples of this many points."""
    largest_share: Rate = Rate(numerator=1, denominator=1)
    """Of the basket's total."""


class ReturnsPolicy(Request):
    """What a return does. Pinned at the purchase."""

    points_already_spent: Literal["debt", "withhold", "write_off"] = "debt"
    debt_limit: Annotated[int | None, Field(ge=0, le=10**12, description="Points; null: no limit")] = None
    without_receipt: Literal["refuse", "accept"] = "refuse"
    without_receipt_limit: Annotated[int, Field(ge=0, le=10**12, description="Points per return without receipt")] = 0
    expired_meanwhile: Literal["stay_expired", "grace_days", "new_lot"] = "grace_days"
    grace_days: Annotated[int, Field(ge=1, le=366)] = 14
    minimum_spend: Literal["lost", "kept"] = "lost"
    """What becomes of points when the rest of the purchase is below `earning.minimum_spend`."""
    withhold_value: PointValue | None = None
    """What a spent point takes off the refund; null: `point_value`."""
    waiting_alarm_days: Days = 7
    """How long a return may wait for its purchase before somebody is told."""

    @property
    def forgives(self) -> bool:
        """Whether points that are missing may be forgiven at once."""
        return self.points_already_spent != "debt" or self.debt_limit is not None


class HoldPolicy(Request):
    """How long points may be reserved."""

    default_minutes: Annotated[int, Field(ge=1, le=527_040)] = 1440
    longest_minutes: Annotated[int, Field(ge=1, le=527_040)] = 10_080

    @model_validator(mode="after")
    def _default_is_allowed(self) -> Self:
        if self.default_minutes > self.longest_minutes:
            raise PydanticCustomError("default_above_longest", "the default is longer than the longest")
        return self


class AdjustmentPolicy(Request):
    """What staff may correct. Points, added or taken, in one adjustment."""

    limit: Annotated[int, Field(ge=0, le=10**12)] = 1000
    """Above it a second person approves."""
    limits: Annotated[dict[Token, Annotated[int, Field(ge=0, le=10**12)]], Field(max_length=50)] = {}
    """The same for certain roles of staff."""
    concession_needs_consent: bool = True
    """Whether goodwill for a failed order is given only with the member's consent on record."""


class TransferPolicy(Request):
    """Points given from member to member."""

    minimum: Points = 1
    most_at_once: Points | None = None
    """null: no limit."""
    most_per_day: Points | None = None
    """By giver, in a local day; null: no limit."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if any(most is not None and most < self.minimum for most in (self.most_at_once, self.most_per_day)):
            raise PydanticCustomError("minimum_above_limit", "the least is more than the most")
        return self


class PoolPolicy(Request):
    """Members who put their points together."""

    most_members: Annotated[int, Field(ge=2, le=1000)] = 10


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
    rules: Annotated[list[Rule], Field(max_length=1000)] = []
    """What earns more than `earning`."""
    stacking: Annotated[dict[Token, Stacking], Field(max_length=100)] = {}
    """Which rules of each group stand when several apply."""
    stamp_cards: Annotated[list[StampCard], Field(max_length=20)] = []
    """Cards that members fill with stamps."""
    tiers: TierTerms | None = None
    """null: none."""
    clubs: Annotated[list[Club], Field(max_length=20)] = []
    """What members may join."""
    campaigns: Annotated[list[Campaign], Field(max_length=100)] = []
    """What members are given without a purchase."""
    point_value: PointValue
    point_cost: PointValue | None = None
    """What used points cost the programme, for points given without a purchase; null: `point_value`."""
    redemption_rate: Rate
    """The part of issued points expected to be used."""
    allocation: AllocationPolicy = AllocationPolicy()
    expiry: Annotated[Expiry | None, Field(validate_default=True)] = None
    """null: points never expire."""
    pending: Pending | None = None
    """null: points are available at once."""
    points_tender: PointsTenderPolicy | None = None
    """null: points do not pay at the till."""
    posting_profile: Profile = "adjustment"
    returns: ReturnsPolicy = ReturnsPolicy()
    holds: HoldPolicy = HoldPolicy()
    adjustments: AdjustmentPolicy = AdjustmentPolicy()
    transfers: TransferPolicy | None = None
    """null: not offered."""
    pools: PoolPolicy | None = None
    """null: not offered."""
    enrolment: EnrolmentPolicy = EnrolmentPolicy()
    uploads: UploadPolicy = UploadPolicy()

    # Chosen here and not by a discriminated union: terms of before modes have none, and findings point at the field.
    @field_validator("expiry", mode="before")
    @classmethod
    def _expiry_by_mode(cls, value: Any) -> Any:
        return None if value is None else chosen_by("mode", value, PeriodExpiry, FixedDatesExpiry, InactivityExpiry)

    @field_validator("pending", mode="before")
    @classmethod
    def _pending_by_mode(cls, value: Any) -> Any:
        return None if value is None else chosen_by("mode", value, PendingDays, PendingEvent)

    @field_validator("expiry")
    @classmethod
    def _by_date_if_tiers_have_their_own(cls, expiry: Expiry | None, info: ValidationInfo) -> Expiry | None:
        tiers = info.data.get("tiers")
        if tiers is not None and tiers.spans and (expiry is None or isinstance(expiry, InactivityExpiry)):
            text = "where a tier has an expiry of its own, points go by dates: period or fixed_dates"
            raise PydanticCustomError("tier_expiry_without_dates", text)
        return expiry

    @field_validator("pending")
    @classmethod
    def _available_before_they_expire(cls, pending: Pending | None, info: ValidationInfo) -> Pending | None:
        expiry, tiers = info.data.get("expiry"), info.data.get("tiers")
        ends = [] if expiry is None else [expiry, *(tiers.spans if tiers is not None else ())]
        if pending is not None and any(pending.longest_days > each.shortest_days for each in ends):
            raise PydanticCustomError("pending_beyond_expiry", "points could expire before they are available")
        return pending

    @model_validator(mode="wrap")
    @classmethod
    def _by_names_that_fit(cls, value: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Findings about names come with all others, unless the names that they should be among are wrong."""
        try:
            terms, found = read(value), list[ErrorDetails]()
        except ValidationError as error:
            terms, found = None, error.errors(include_url=False)
        broken = {each["loc"][0] for each in found if len(each["loc"]) > 0}
        wrong = [each for each in misnomers(value, BASE) if each.among not in broken or each.where[0] == each.among]
        if terms is not None and not wrong:
            return terms
        others = [_finding(each["type"], each["msg"], each["loc"], each["input"]) for each in found]
        about_names = [_finding(each.code, each.text, each.where, None) for each in wrong]
        raise ValidationError.from_exception_data(cls.__name__, [*others, *about_names], hide_input=True)

    def club(self, code: str) -> Club | None:
        return next((club for club in self.clubs if club.code == code), None)

    @cached_property
    def every_rule(self) -> tuple[Rule, ...]:
        """The rules, then what the stamp cards give, in the order of the terms."""
        return *self.rules, *(card.rule for card in self.stamp_cards)

    def card_of(self, reason: str) -> StampCard | None:
        """The stamp card whose stamps a reason is for; None: it is for something else."""
        return self._cards.get(reason)

    @cached_property
    def _cards(self) -> dict[str, StampCard]:
        return {card.rule.code: card for card in self.stamp_cards}

    @cached_property
    def rulebook(self) -> Rulebook:
        """`every_rule`, by when, where and on what they are in force."""
        return Rulebook(self.every_rule)

    @cached_property
    def personal(self) -> bool:
        """Whether what any rule gives depends on the member."""
        return any(rule.personal for rule in self.every_rule)

    @cached_property
    def asks_for_tenders(self) -> bool:
        """Whether any rule is about what was paid with certain tenders."""
        return any(rule.when.tenders for rule in self.every_rule)

    @cached_property
    def budgeted(self) -> bool:
        """Whether any rule has a budget for all members together."""
        return any(rule.budget is not None for rule in self.rules)

    def tier(self, code: str | None) -> Tier | None:
        return None if self.tiers is None else self.tiers.tier(code)

    def favours(self, tier: str | None) -> bool:
        """Whether members of a tier earn more on the base than others."""
        found = self.tier(tier)
        return found is not None and bool(found.added)

    def expiry_of(self, tier: str | None) -> Expiry | Span | None:
        """What decides how long points are good that members of a tier earn."""
        found = self.tier(tier)
        return self.expiry if found is None or found.expiry is None else found.expiry

    @cached_property
    def selective(self) -> bool:
        """Whether any rule is for certain members only."""
        return not all(rule.who.everybody for rule in self.every_rule)

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


def _finding(code: str, text: str, where: tuple[str | int, ...], value: Any) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(code, text), loc=where, input=value)


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


class BudgetOut(Answer):
    """An earning rule that has a budget, as the latest terms have it that know it; points."""

    rule: str
    name: str
    in_force: Annotated[bool, Field(description="Whether the terms in force have it; its days may be over")]
    budget: int
    given: Annotated[int, Field(description="Since the rule has had a budget; what came back is not taken off")]
    left: int


def budget_out(rule: Rule, given: int, in_force: bool) -> BudgetOut:
    budget = rule.budget or 0
    left = max(0, budget - given)
    return BudgetOut(rule=rule.code, name=rule.name, in_force=in_force, budget=budget, given=given, left=left)


class BudgetList(Answer):
    items: list[BudgetOut]


class PublishIn(Request):
    """From when the terms hold, by a purchase's `occurred_at`; null: now. A first version may start in the past."""

    effective_from: WireInstant | None = None


class TermsOut(Answer):
    """One version of a programme's terms. `effective_from` is null for what is not published."""

    id: UUID
    version: int
    status: Literal["draft", "published", "retired"]
    effective_from: Stamp | None
    published_at: Stamp | None
    retired_at: Stamp | None
    terms: Terms


class TermsList(Answer):
    items: list[TermsOut]


class ChangeOut(Answer):
    """One change: `path` is a JSON pointer into the new terms, into the old for a `remove`; `text` says it in words."""

    op: Literal["add", "remove", "replace", "move"]
    path: Annotated[str, Field(examples=["/rules/0/gives/times"])]
    old: Any
    new: Any
    text: Annotated[str, Field(examples=["rule triple_dairy, gives, times: 3 instead of 2"])]


class ChangeList(Answer):
    """What turns one version of the terms into another, in the order of the fields."""

    items: list[ChangeOut]


EXAMPLE_TERMS = {
    "currency": "USD",
    "time_zone": "America/New_York",
    "earning": {"points": 1, "per": 100, "excluded": {"departments": ["GIFT CARDS"]}},
    "point_value": {"amount": 1000, "points": 1000},
    "redemption_rate": {"numerator": 4, "denominator": 5},
    "expiry": {"months": 12, "round_up_to": "month"},
}
"""Terms that read well in the docs: 1 point per dollar, 1,000 points are worth 10.00, four of five are used."""
