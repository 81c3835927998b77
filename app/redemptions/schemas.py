"""The wire of rewards, redemptions and vouchers. What a reward offers is stored as it is written here."""

from datetime import date
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.accounting import PostingOut
from app.errors import ProblemBody
from app.ledger import BalanceOut, PlannedEntries
from app.members import MemberRef
from app.wire import (
    Answer,
    CurrencyCode,
    ExternalId,
    Minor,
    Money,
    Request,
    Source,
    Stamp,
    Text,
    Token,
    WireId,
    WireInstant,
)

RewardCode = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", examples=["mug"])]
Pieces = Annotated[int, Field(ge=1, le=1_000_000_000)]
Quantity = Annotated[int, Field(ge=1, le=100, description="Pieces")]


def _day(text: str) -> str:
    try:
        date.fromisoformat(text if len(text) == 10 else f"2000-{text}")  # a leap year: 29 February is a yearly date too
    except ValueError:
        raise PydanticCustomError("no_such_date", "a date is needed: 2026-12-24, or 12-24 for every year") from None
    return text


BlackoutDate = Annotated[
    str, Field(pattern=r"^([0-9]{4}-)?[0-9]{2}-[0-9]{2}$", examples=["12-24"]), AfterValidator(_day)
]
"""A local date in the programme's zone; without a year, that day of every year."""


class Goods(Request):
    """Something handed over."""

    kind: Literal["goods"] = "goods"


class Voucher(Request):
    """A code worth `value` minor units, good until the end of the local day `valid_days` after it was issued."""

    kind: Literal["voucher"]
    value: Annotated[int, Field(ge=1, le=10**12)]
    valid_days: Annotated[int, Field(ge=1, le=3660)]


class Own(Request):
    """Ours: `cost` is that of one piece, minor units."""

    type: Literal["own"] = "own"
    cost: Minor = 0

    @property
    def each(self) -> int:
        return self.cost


class Partner(Request):
    """A partner's, who charges us `charge` minor units for each piece. We answer for it (`principal`) or only arrange
    it (`agent`)."""

    type: Literal["principal", "agent"]
    name: Text
    reference: Text | None = None
    charge: Minor

    @property
    def each(self) -> int:
        return self.charge


class Limits(Request):
    """How many pieces one member may have; null: any number. Months are calendar months in the programme's zone."""

    in_all: Pieces | None = None
    per_month: Pieces | None = None


class Offer(Request):
    """What a reward is, costs and requires. Money in minor units of the reward's currency."""

    name: Text
    points: Annotated[int, Field(ge=1, le=10**9, description="Points for one piece")]
    item: Annotated[Goods | Voucher, Field(discriminator="kind")] = Goods()
    supplier: Annotated[Own | Partner, Field(discriminator="type")] = Own()
    active: bool = True
    """Switched off, it is not offered for the time being."""
    available_from: WireInstant | None = None
    available_until: WireInstant | None = None
    """The first instant at which it is not offered any more."""
    blackout_dates: Annotated[list[BlackoutDate], Field(max_length=400)] = []
    limits: Limits = Limits()
    tiers: Annotated[list[Token], Field(max_length=50)] = []
    """Only for members who are in one of these when they order it; for all if none is named."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.available_from and self.available_until and self.available_from >= self.available_until:
            raise PydanticCustomError("never_available", "available_until must come after available_from")
        return self


class RewardChange(Offer):
    """A reward without its code, which stays."""

    currency: CurrencyCode
    supply: Annotated[int | None, Field(ge=0, le=10**9, description="Pieces to give out in all; null: any number")] = (
        None
    )


class RewardIn(RewardChange):
    """A new reward. `code` is unique in the programme, for ever."""

    code: RewardCode


class RewardRef(Request):
    """A reward by its code or its id."""

    code: RewardCode | None = None
    id: WireId | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.code is None) == (self.id is None):
            raise PydanticCustomError("one_reference", "give exactly one of code, id")
        return self


class RedemptionIn(Request):
    """Points for `quantity` pieces of a reward. `immediate`: handed over at once, as at a till."""

    member: MemberRef
    reward: RewardRef
    quantity: Quantity = 1
    immediate: bool = False


class BurnIn(Request):
    """The receipt a voucher is used on: whoever numbers the receipts, and the number."""

    source: Source
    external_id: ExternalId


# --- answers --------------------------------------------------------------------------------------------------------


class RewardOut(Answer):
    """A reward. `taken` counts the pieces ordered from a limited `supply`, `left` is what remains of it. `supplier`,
    with what it costs us, is shown to those who may change rewards."""

    id: UUID
    code: str
    name: str
    points: int
    item: Goods | Voucher
    supplier: Own | Partner | None
    currency: str
    supply: int | None
    taken: int
    left: int | None
    active: bool
    available_from: Stamp | None
    available_until: Stamp | None
    blackout_dates: list[str]
    limits: Limits
    tiers: list[str]
    created_at: Stamp
    retired_at: Stamp | None


class RewardPage(Answer):
    items: list[RewardOut]
    next: str | None


class ChoiceOut(Answer):
    """A reward as one member sees it: whether they can have a piece now, and every reason why not."""

    id: UUID
    code: str
    name: str
    points: int
    item: Goods | Voucher
    currency: str
    possible: bool
    refusals: list[ProblemBody]


class ChoicePage(Answer):
    items: list[ChoiceOut]
    next: str | None


class VoucherIssued(Answer):
    """A voucher of a redemption. `code` is in the answer that issued it, and nowhere else."""

    id: UUID | None
    code: Annotated[str | None, Field(examples=["7Z3K-0QF2-9XWA-MM4T-C81P"])]
    value: Money
    issued_at: Stamp
    expires_at: Stamp
    status: Literal["issued", "burnt", "cancelled"]


class PaidBy(Answer):
    """Points a redemption takes, or reserves while it is ordered, from one lot."""

    lot_id: UUID
    points: int


class RewardBrief(Answer):
    id: UUID
    code: str
    name: str


class RedemptionOut(Answer):
    """A redemption as it is stored. `ended_at` is when it was fulfilled or cancelled."""

    id: UUID | None
    status: Literal["ordered", "fulfilled", "cancelled"]
    member_id: UUID
    reward: RewardBrief
    quantity: int
    points: int
    ordered_at: Stamp
    ended_at: Stamp | None
    paid_by: list[PaidBy]
    vouchers: list[VoucherIssued]
    postings: list[PostingOut]


class RedemptionDone(RedemptionOut):
    """What a redemption, its fulfilment or its cancellation did. In a dry run, what is new has no `id`."""

    dry_run: bool
    balance: BalanceOut
    balance_at: Stamp
    entries: PlannedEntries


class RedemptionRow(Answer):
    """A redemption in a list."""

    id: UUID
    status: Literal["ordered", "fulfilled", "cancelled"]
    member_id: UUID
    reward_id: UUID
    quantity: int
    points: int
    ordered_at: Stamp
    ended_at: Stamp | None


class RedemptionPage(Answer):
    items: list[RedemptionRow]
    next: str | None


class VoucherOut(Answer):
    """What a till needs to know about a voucher. `valid`: it can be burnt now."""

    id: UUID
    valid: bool
    status: Literal["issued", "burnt", "cancelled"]
    value: Money
    issued_at: Stamp
    expires_at: Stamp
    ended_at: Annotated[Stamp | None, Field(description="When it was burnt or cancelled")]
    source: Annotated[str | None, Field(description="Of the receipt it was burnt on")]
    external_id: str | None
