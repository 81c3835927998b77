"""The wire of transactions."""

from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from app.accounting import PostingOut
from app.clubs import BroughtOut
from app.errors import Finding, ProblemBody, finding
from app.ledger import BalanceOut, ExpiringOut, PlannedEntries
from app.members import MemberRef
from app.money import Rounding
from app.programs import Basket, Line, Tender
from app.stamps import CardEffectOut
from app.tiers import BenefitOut
from app.transactions.return_rules import Return
from app.transactions.rules import Purchase
from app.wire import (
    LARGEST,
    Answer,
    CurrencyCode,
    ExternalId,
    JsonText,
    Minor,
    Quantity,
    Request,
    Source,
    Stamp,
    Text,
    Token,
    WireInstant,
    chosen_by,
)

SignedMinor = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
"""Minor units. A purchase has no negative ones; the rules say so, with a code of its own."""

TransactionType = Literal["purchase", "return", "void"]


class LineIn(Request):
    """One line. `amount` is the list price of the whole quantity before `discount`; `tax` is the tax on it."""

    line: Annotated[int, Field(ge=1, le=9999)]
    product: Text
    department: Text | None = None
    category: Text | None = None
    quantity: Quantity
    amount: SignedMinor
    discount: SignedMinor = 0
    tax: SignedMinor = 0


class TenderIn(Request):
    """One means of payment."""

    type: Token
    amount: SignedMinor


class PurchaseIn(Request):
    """A purchase. Amounts in minor units of `currency`; `total` is the sum of the lines and of the tenders."""

    type: Literal["purchase"]
    source: Source
    external_id: ExternalId
    occurred_at: WireInstant
    member: MemberRef | None = None
    store: Text | None = None
    terminal: Text | None = None
    cashier: Text | None = None
    channel: Token | None = None
    currency: CurrencyCode
    lines: Annotated[list[LineIn], Field(min_length=1, max_length=1000)]
    tenders: Annotated[list[TenderIn], Field(max_length=20)]
    total: SignedMinor


class ReturnedLine(Request):
    """How much of a line of the purchase comes back."""

    line: Annotated[int, Field(ge=1, le=9999)]
    quantity: Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,6})?$", examples=["1"])]


class OriginalIn(Request):
    """The transaction that comes back, by its natural key."""

    source: Source
    external_id: ExternalId
    type: Literal["purchase", "return"] = "purchase"


class ReturnIn(Request):
    """Goods that come back: `lines` by line number and quantity; or `total` alone, a refund of that many minor units;
    or neither, everything that is left. Without the receipt (no `original`), where the terms take that: `member`,
    `currency` and `total`."""

    type: Literal["return"]
    source: Source
    external_id: ExternalId
    occurred_at: WireInstant
    original: OriginalIn | None = None
    member: MemberRef | None = None
    store: Text | None = None
    terminal: Text | None = None
    cashier: Text | None = None
    channel: Token | None = None
    currency: CurrencyCode | None = None
    lines: Annotated[list[ReturnedLine], Field(min_length=1, max_length=1000)] | None = None
    total: Annotated[Minor, Field(ge=1, description="What is refunded, tax included")] | None = None

    @model_validator(mode="after")
    def _says_what(self) -> "ReturnIn":
        if self.original is None and (self.member is None or self.total is None or self.currency is None or self.lines):
            raise PydanticCustomError("without_receipt", "without `original` it takes member, currency and total alone")
        if self.original is not None and (self.original.type != "purchase" or self.member is not None):
            raise PydanticCustomError("original_purchase", "`original` is a purchase and names the member too")
        if self.lines is not None and len({item.line for item in self.lines}) < len(self.lines):
            raise PydanticCustomError("line_number_twice", "a line comes back once in one return")
        return self


class VoidIn(Request):
    """Takes back a whole transaction: a purchase, with whatever of it has not come back yet, or a return."""

    type: Literal["void"]
    source: Source
    external_id: ExternalId
    occurred_at: WireInstant
    original: OriginalIn
    store: Text | None = None
    terminal: Text | None = None
    cashier: Text | None = None
    channel: Token | None = None


def _by_type(value: Any) -> Any:
    return chosen_by("type", value, PurchaseIn, ReturnIn, VoidIn)


TransactionIn = Annotated[PurchaseIn | ReturnIn | VoidIn, BeforeValidator(_by_type)]
"""What a till posts."""


def basket_of(body: PurchaseIn) -> Basket:
    """What was bought and how it was paid, as the rules want it."""
    lines = tuple(
        Line(
            item.line,
            item.product,
            item.department,
            item.category,
            Decimal(item.quantity),
            item.amount,
            item.discount,
            item.tax,
        )
        for item in body.lines
    )
    return Basket(lines, tuple(Tender(tender.type, tender.amount) for tender in body.tenders), body.total)


def purchase_of(body: PurchaseIn) -> Purchase:
    """The wire's purchase as the rules want it."""
    return Purchase(
        type=body.type,
        source=body.source,
        external_id=body.external_id,
        occurred_at=body.occurred_at,
        store=body.store,
        channel=body.channel,
        currency=body.currency,
        basket=basket_of(body),
        member=body.member,
        content=_content(body),
    )


def _content(body: PurchaseIn | ReturnIn | VoidIn) -> JsonText:
    """What is compared and kept. Without defaults: a field that a later version adds must not make old content look
    different. In the order of the fields, for the same reason: a new one comes last."""
    return JsonText(body.model_dump_json(exclude={"member"}, exclude_defaults=True))


def return_of(body: ReturnIn | VoidIn) -> Return:
    """The wire's return or void as the rules want it."""
    original = body.original
    lines = body.lines if isinstance(body, ReturnIn) else None
    return Return(
        type=body.type,
        source=body.source,
        external_id=body.external_id,
        occurred_at=body.occurred_at,
        store=body.store,
        original=None if original is None else (original.source, original.external_id, original.type),
        lines=None if lines is None else {item.line: Decimal(item.quantity) for item in lines},
        total=body.total if isinstance(body, ReturnIn) else None,
        currency=body.currency if isinstance(body, ReturnIn) else None,
        member=body.member if isinstance(body, ReturnIn) else None,
        content=_content(body),
    )


def item_of(body: PurchaseIn | ReturnIn | VoidIn) -> Purchase | Return:
    return purchase_of(body) if isinstance(body, PurchaseIn) else return_of(body)


class Malformed(Answer):
    """An item of a batch that does not have the form of a transaction."""

    findings: tuple[Finding, ...]


def _apart(value: Any, validate: Any) -> Any:
    """Keeps one malformed item from refusing its neighbours."""
    try:
        return validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        return Malformed(findings=tuple(finding(item["loc"], item["type"], item["msg"]) for item in errors))


class BatchIn(Request):
    """Up to 500 transactions, each judged by itself, in order: a return may follow its purchase."""

    transactions: Annotated[list[Annotated[TransactionIn, WrapValidator(_apart)]], Field(min_length=1, max_length=500)]


class ClaimIn(Request):
    """Who gets the points of a guest's purchase."""

    member: MemberRef


# --- answers --------------------------------------------------------------------------------------------------------


class ReasonOut(Answer):
    """One rule's part: the earning base in minor units, and the points given for it."""

    rule: str
    base: int
    points: int


class ExplainedOut(Answer):
    """What became of a rule: the points it gave on its base (minor units), rounded so; or `why` it gave none. `capped`:
    it would have given more."""

    rule: str
    name: str | None
    base: int
    points: int
    rounding: Rounding | None
    why: str | None
    capped: bool


class PointsOut(Answer):
    """What was earned and why. `pending` of them are not available yet; `claimable` is what a guest's purchase gives to
    whoever claims it; `spent` is what points tendered cost. What a return takes back is negative."""

    earned: int
    pending: int
    spent: int
    qualifying: int
    claimable: int
    reasons: list[ReasonOut]


class TransactionMember(Answer):
    """`id` is null only in a dry run that would enrol; `enrolled` says whether this purchase made them a member."""

    id: UUID | None
    enrolled: bool


class ReturnOut(Answer):
    """What a return or a void came to. Of `taken_back` points `expired` had gone before, `debt` is owed now,
    `written_off` is forgiven, and `withheld` was taken off the refund as `withheld_amount`. `given_back` points had
    paid for the goods; `stay_expired` of them are gone, their lots having expired meanwhile, and `settled` make up for
    what was forgiven when the purchase that granted them came back before. `conceded` of those taken
    back had been given for the purchase when it went wrong. `refund` is what the
    customer gets in money. The void of a return answers what it undoes, as negative figures."""

    original_id: UUID | None
    taken_back: int
    expired: int
    debt: int
    written_off: int
    withheld: int
    withheld_amount: int
    given_back: int
    stay_expired: int
    settled: int
    conceded: int
    refund: int
    currency: str


class TierEffectOut(Answer):
    """The member's tier before and after; null: none. `earning_multiplier`: of the tier after, which the next purchase
    earns by."""

    before: str | None
    after: str | None
    earning_multiplier: str


class TransactionOut(Answer):
    """What a transaction did. For one that was known, `duplicate` is true and points, reasons and postings are those of
    the first time; `balance` is always the one at `balance_at`. A guest has no balance. A return that `waiting` says
    waits for its purchase has done nothing yet. `tier` is null for a guest, for what was known, and without tiers.
    `discounts`: what the member's tier and clubs of before are good for at the till; one of them holds. `clubs` are
    those it has brought, `cards` the stamp cards it has changed; none for what was known."""

    id: UUID | None
    type: TransactionType
    source: str
    external_id: str
    duplicate: bool
    dry_run: bool
    waiting: bool
    occurred_at: Stamp
    recorded_at: Stamp
    member: TransactionMember | None
    points: PointsOut
    returned: ReturnOut | None
    balance: BalanceOut | None
    balance_at: Stamp
    expiring_next: ExpiringOut | None
    explanation: Annotated[
        list[ExplainedOut] | None, Field(description="Of a dry run: what became of each rule; else null")
    ]
    tier: TierEffectOut | None
    discounts: list[BenefitOut]
    clubs: list[BroughtOut]
    cards: list[CardEffectOut]
    entries: PlannedEntries
    postings: list[PostingOut]


class BatchItem(Answer):
    """One item's outcome: `status` as if it had been posted alone, with its transaction or its problem."""

    index: int
    status: int
    transaction: TransactionOut | None = None
    problem: ProblemBody | None = None


class BatchOut(Answer):
    """One result per item, in order."""

    results: list[BatchItem]


class ClaimOut(Answer):
    """What a claim did. `taken_back`: points of goods that had come back before, gone again with the claim."""

    id: UUID | None
    transaction_id: UUID
    duplicate: bool
    dry_run: bool
    recorded_at: Stamp
    member: TransactionMember
    points: PointsOut
    taken_back: int
    balance: BalanceOut
    balance_at: Stamp
    expiring_next: ExpiringOut | None
    clubs: list[BroughtOut]
    cards: list[CardEffectOut]
    entries: PlannedEntries
    postings: list[PostingOut]


class ClaimRead(Answer):
    """Who claimed a guest's purchase, and when. `reasons` null: those of the purchase."""

    id: UUID
    member_id: UUID
    points: int
    reasons: list[ReasonOut] | None
    recorded_at: Stamp


class LineShare(Answer):
    """A line's part of the earning base, and of the price allocated to goods, minor units."""

    line: int
    base: int
    goods: int


class TransactionRead(Answer):
    """A transaction as it is stored. A guest's purchase that was claimed is the member's who did, with their points."""

    id: UUID
    type: TransactionType
    source: str
    external_id: str
    member_id: UUID | None
    terms_version: int
    occurred_at: Stamp
    recorded_at: Stamp
    points: PointsOut
    returned: ReturnOut | None
    content: Annotated[dict[str, Any], Field(description="What the till sent, less the member")]
    explanation: Annotated[
        list[ExplainedOut],
        Field(description="Every rule of a purchase's terms, the base first; for a guest who claimed it, as claimed"),
    ]
    shares: list[LineShare]
    postings: list[PostingOut]
    claim: ClaimRead | None
    returns: Annotated[list[UUID], Field(description="Returns and voids of it, in the order they were recorded")]


class WaitingOut(Answer):
    """A return that arrived before its purchase; it is applied with it."""

    source: str
    external_id: str
    original_source: str
    original_external_id: str
    store: str | None
    occurred_at: Stamp
    recorded_at: Stamp


class WaitingPage(Answer):
    items: list[WaitingOut]
    next: str | None


class EventIn(Request):
    """What has happened to a purchase whose points were pending: the event its terms name, or `cancelled`."""

    event: Annotated[Token, Field(examples=["shipped"])]


class EventOut(Answer):
    """Points that became available, or were cancelled, when the event first came; `duplicate` says that it had come
    before, and nothing happened now. `balance` is always the one at `balance_at`."""

    transaction_id: UUID
    event: str
    duplicate: bool
    dry_run: bool
    available: int
    cancelled: int
    balance: BalanceOut
    balance_at: Stamp
    entries: PlannedEntries
