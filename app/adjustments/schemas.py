"""The wire of adjustments."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.accounting import PostingOut
from app.adjustments.rules import AdjustmentClass, GrantClass
from app.ledger import MOST_GRANTED, BalanceOut, ExpiringOut, PlannedEntries
from app.members import MemberRef
from app.wire import Answer, ExternalId, Request, Source, Stamp, Text, Token, WireInstant

AdjustmentStatus = Literal["waiting", "applied", "rejected"]

Points = Annotated[int, Field(ge=1, le=MOST_GRANTED)]
Reason = Annotated[Token, Field(description="Why, as a short word of yours", examples=["late_delivery"])]
Note = Annotated[Text, Field(description="For colleagues; no personal data")]


class OrderIn(Request):
    """The purchase that went wrong, by its natural key."""

    source: Source
    external_id: ExternalId


class AdjustmentIn(Request):
    """Points to give, or by a `correction` to take. A `concession` names the `order` it makes up for, and when the
    member consented to points instead of their money."""

    member: MemberRef
    points: Annotated[int, Field(ge=-MOST_GRANTED, le=MOST_GRANTED)]
    class_: Annotated[GrantClass, Field(alias="class")]
    reason: Reason
    note: Note | None = None
    order: OrderIn | None = None
    consent: WireInstant | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> "AdjustmentIn":
        if self.points == 0 or (self.points < 0 and self.class_ != "correction"):
            raise PydanticCustomError("points_by_class", "points are given; a correction may take them; never 0")
        if (self.order is not None) != (self.class_ == "concession"):
            raise PydanticCustomError("order_of_concession", "a concession, and nothing else, names an order")
        if self.consent is not None and self.class_ != "concession":
            raise PydanticCustomError("consent_to_concession", "only a concession takes the member's consent")
        return self


class WriteOffIn(Request):
    """Debt to forgive; all of it without `points`."""

    points: Points | None = None
    reason: Reason
    note: Note | None = None


class ExtensionIn(Request):
    """Until when the points of a lot are good instead."""

    expires_at: WireInstant
    reason: Reason
    note: Note | None = None


class ReinstatementIn(Request):
    """Expired points of a lot that live again until `expires_at`; all of them without `points`."""

    points: Points | None = None
    expires_at: WireInstant
    reason: Reason
    note: Note | None = None


class RejectionIn(Request):
    """Why not."""

    reason: Reason | None = None


class AdjustmentRead(Answer):
    """What was asked for, by whom, and how it ended. `points` are given, or taken if negative; forgiven, extended or
    reinstated, as the class says. `ended_at` is when it was applied or rejected, `ended_by` by whom."""

    id: UUID | None
    member_id: UUID
    class_: Annotated[AdjustmentClass, Field(serialization_alias="class")]
    points: int
    reason: str
    note: str | None
    order_id: UUID | None
    consented_at: Stamp | None
    lot_id: UUID | None
    expires_at: Stamp | None
    requested_by: str
    requested_at: Stamp
    status: AdjustmentStatus
    ended_by: str | None
    ended_at: Stamp | None
    ended_reason: str | None


class AdjustmentOut(AdjustmentRead):
    """An adjustment, what it posted, and the member's balance at `balance_at`. A dry run has no id; one that waits has
    posted nothing yet."""

    dry_run: bool
    balance: BalanceOut
    balance_at: Stamp
    expiring_next: ExpiringOut | None
    entries: PlannedEntries
    postings: list[PostingOut]


class AdjustmentPage(Answer):
    items: list[AdjustmentRead]
    next: str | None
