"""The wire of transactions."""

from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, ValidationError, WrapValidator

from app.errors import Finding, ProblemBody, finding
from app.ledger import BalanceOut, ExpiringOut
from app.members import MemberRef
from app.programs import Basket, Line, Tender
from app.transactions.rules import Purchase
from app.wire import LARGEST, Answer, CurrencyCode, Quantity, Request, Stamp, Text, Token, WireInstant

SignedMinor = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
"""Minor units. A purchase has no negative ones; the rules say so, with a code of its own."""

Source = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$", examples=["store-330"])]
"""Whoever numbers the receipts: a store system, not a key and not a till."""

ExternalId = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$", examples=["31198570044"])]
"""The receipt's number, unique within its source."""

TransactionType = Literal["purchase"]


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

    type: TransactionType
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
        currency=body.currency,
        basket=basket_of(body),
        member=body.member,
        # without defaults: a field that a later version adds must not make old content look different
        content=body.model_dump(mode="json", exclude={"member"}, exclude_defaults=True),
    )


class Malformed(Answer):
    """An item of a batch that does not have the form of a purchase."""

    findings: tuple[Finding, ...]


def _apart(value: Any, validate: Any) -> Any:
    """Keeps one malformed item from refusing its neighbours."""
    try:
        return validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        return Malformed(findings=tuple(finding(item["loc"], item["type"], item["msg"]) for item in errors))


class BatchIn(Request):
    """Up to 500 purchases, each judged by itself."""

    transactions: Annotated[list[Annotated[PurchaseIn, WrapValidator(_apart)]], Field(min_length=1, max_length=500)]


class ClaimIn(Request):
    """Who gets the points of a guest's purchase."""

    member: MemberRef


# --- answers --------------------------------------------------------------------------------------------------------


class ReasonOut(Answer):
    """One rule's part: the earning base in minor units, and the points given for it."""

    rule: str
    base: int
    points: int


class PointsOut(Answer):
    """What was earned and why. `claimable` is what a guest's purchase gives to whoever claims it."""

    earned: int
    pending: int
    qualifying: int
    claimable: int
    reasons: list[ReasonOut]


class PostingOut(Answer):
    """One row of the journal: `amount` minor units from account `credit` to account `debit`."""

    debit: str
    credit: str
    amount: int
    currency: str
    cause: str


class TransactionMember(Answer):
    """`id` is null only in a dry run that would enrol; `enrolled` says whether this purchase made them a member."""

    id: UUID | None
    enrolled: bool


class TransactionOut(Answer):
    """What a purchase did. For one that was known, `duplicate` is true and points, reasons and postings are those of
    the first time; `balance` is always the one at `balance_at`. A guest has no balance."""

    id: UUID | None
    type: TransactionType
    source: str
    external_id: str
    duplicate: bool
    dry_run: bool
    occurred_at: Stamp
    recorded_at: Stamp
    member: TransactionMember | None
    points: PointsOut
    balance: BalanceOut | None
    balance_at: Stamp
    expiring_next: ExpiringOut | None
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
    """What a claim did."""

    id: UUID | None
    transaction_id: UUID
    duplicate: bool
    dry_run: bool
    recorded_at: Stamp
    member: TransactionMember
    points: PointsOut
    balance: BalanceOut
    balance_at: Stamp
    expiring_next: ExpiringOut | None
    postings: list[PostingOut]


class ClaimRead(Answer):
    """Who claimed a guest's purchase, and when."""

    id: UUID
    member_id: UUID
    points: int
    recorded_at: Stamp


class LineShare(Answer):
    """A line's part of the earning base, and of the price allocated to goods, minor units."""

    line: int
    base: int
    goods: int


class TransactionRead(Answer):
    """A transaction as it is stored."""

    id: UUID
    type: TransactionType
    source: str
    external_id: str
    member_id: UUID | None
    terms_version: int
    occurred_at: Stamp
    recorded_at: Stamp
    points: PointsOut
    content: Annotated[dict[str, Any], Field(description="What the till sent, less the member")]
    shares: list[LineShare]
    postings: list[PostingOut]
    claim: ClaimRead | None
