"""Clubs, as terms promise them: how members join, for how long, and what they are good for. Pure."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.programs.basket import Line
from app.programs.conditions import Goods
from app.programs.tiers import Benefit
from app.wire import Minor, Request, Text, Token, chosen_by

Months = Annotated[int, Field(ge=1, le=120)]
WelcomePoints = Annotated[int, Field(ge=0, le=10**9, description="Points")]


class JoinedByPurchase(Request):
    """Whoever buys belongs to it from then on; each later purchase that is enough renews it."""

    type: Literal["purchase"]
    minimum_spend: Minor = 0
    """Of the goods it is about: minor units of what counts for points."""
    on: Goods = Goods()
    """All goods, if it names none."""
    months: Months | None = None
    """For so long; null: for good."""

    def met(self, lines: Sequence[Line], bases: Sequence[int]) -> bool:
        """Whether so much bought is enough; `bases`: each line's part of the earning base, minor units."""
        amounts = [base for line, base in zip(lines, bases, strict=True) if self.on.empty or self.on.contain(line)]
        return sum(amounts) >= max(self.minimum_spend, 1)


class JoinedByPromise(Request):
    """Whoever promises to buy so much belongs to it at once. At the end it is seen whether the promise was kept."""

    type: Literal["promise"]
    spend: Annotated[int, Field(ge=1, le=10**12, description="Minor units of what counts for points")]
    months: Months
    renews: bool = True
    """Whether a promise that was kept is one for another such time; else the membership ends."""


class JoinedByFee(Request):
    """Whoever pays belongs to it. The fee is earned month by month."""

    type: Literal["fee"]
    fee: Annotated[int, Field(ge=1, le=10**12, description="Minor units with tax")]
    tax: Minor = 0
    """What of the fee is tax."""
    months: Months
    sold_ahead_days: Annotated[int, Field(ge=0, le=366)] = 30
    """So many days before the end the next membership may be sold, which follows this one."""
    welcome_points: WelcomePoints = 0
    """For whoever joins, or has not renewed in time; a part of the fee is theirs."""
    renewal_points: WelcomePoints = 0
    """The same with each membership that follows another."""

    @model_validator(mode="after")
    def _tax_within_fee(self) -> Self:
        if self.tax > self.fee:
            raise PydanticCustomError("tax_above_fee", "the tax is more than the fee")
        return self


Joining = JoinedByPurchase | JoinedByPromise | JoinedByFee


def _joining(value: Any) -> Any:
    return chosen_by("type", value, JoinedByPurchase, JoinedByPromise, JoinedByFee)


class Club(Request):
    """A club of members."""

    code: Annotated[Token, Field(examples=["friends"])]
    """By which memberships name it: a club that means something else has another code."""
    name: Text
    joining: Annotated[Joining, BeforeValidator(_joining)]
    benefits: Annotated[list[Benefit], Field(max_length=50)] = []
    warn_days: Annotated[int | None, Field(ge=1, le=366)] = 30
    """How many days ahead of the end a warning event is sent, if nothing follows; null: never."""
    household: bool = False
    """Whether everybody in the member's pool has what it is good for."""
