"""Stamp cards, as terms promise them: what brings stamps, and how many make a card full. Pure.

A stamp is points that wait until its card is full. So a card is an earning rule whose points come in whole stamps: what
limits and explains rules does it for stamps.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from math import floor
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.programs.basket import Basket
from app.programs.conditions import Goods, Limit, Used, When, Who
from app.programs.earning import Fixed, PerItem, Points, Rule
from app.wire import Request, Text, Token, chosen_by

STAMPS = "stamps:"
"""What the code of a card follows in reasons; no code of a rule has a colon."""


class StampRule(Rule):
    """What a card's stamps are as points: always a multiple of `each`."""

    code: str
    each: int

    def room(self, at: datetime, used: Mapping[str, Used]) -> int | str | None:
        """In whole stamps, though terms may have changed meanwhile what one stands for."""
        room = super().room(at, used)
        return room if room is None or isinstance(room, str) else room - room % self.each or "limit"


class ForVisit(Request):
    """One stamp for a purchase that has any of the goods of the card."""

    type: Literal["visit"] = "visit"


class ForItems(Request):
    """One stamp for each `items` units of the goods; what is sold by weight counts by its whole units."""

    type: Literal["items"]
    items: Annotated[int, Field(ge=1, le=1_000_000)] = 1


def _for_each(value: Any) -> Any:
    return chosen_by("type", value, ForVisit, ForItems)


class StampCard(Request):
    """A card that is full after so many stamps. Then the points are available that its stamps stand for, and the next
    stamp begins another. A card stays as it was begun, whatever later terms say."""

    code: Annotated[Token, Field(examples=["coffee"])]
    """By which members' cards and reasons (`stamps:coffee`) name it. A card that means something else has another."""
    name: Text
    stamps: Annotated[int, Field(ge=2, le=100)]
    """How many fill the card."""
    head_start: Annotated[int, Field(ge=0, le=99)] = 0
    """How many of them are given when a member's first card is begun. They stay, whatever comes back: on each card they
    would pay whoever buys and returns."""
    points_per_stamp: Points
    """What each stamp stands for."""
    for_each: Annotated[ForVisit | ForItems, BeforeValidator(_for_each)] = ForVisit()
    on: Goods = Goods()
    excluded: Goods = Goods()
    """Goods that it is not for, though they are among the others."""
    when: When = When()
    who: Who = Who()
    most_per_purchase: Annotated[int, Field(ge=1, le=1000)] = 100
    most_per_day: Annotated[int | None, Field(ge=1, le=1000)] = None
    """Stamps for one member on a day of the programme's zone; null: no limit."""
    good_for_days: Annotated[int | None, Field(ge=1, le=18_250)] = None
    """A card that is not full by the end of the local day so many days after its first stamp expires; null: never."""

    @model_validator(mode="after")
    def _has_to_be_filled(self) -> Self:
        if self.head_start >= self.stamps:
            raise PydanticCustomError("head_start_fills_card", "the head start leaves at least one stamp to collect")
        return self

    @cached_property
    def rule(self) -> StampRule:
        """What brings stamps, as a rule for points."""
        each = self.points_per_stamp
        items = self.for_each.items if isinstance(self.for_each, ForItems) else None
        per_day = self.most_per_day
        return StampRule(
            code=f"{STAMPS}{self.code}",
            name=self.name,
            gives=Fixed(type="fixed", points=each)
            if items is None
            else PerItem(type="per_item", points=each, items=items),
            on=self.on,
            excluded=self.excluded,
            when=self.when,
            who=self.who,
            most=self.most_per_purchase * each,
            limits=[] if per_day is None else [Limit(per="day", points=per_day * each)],
            each=each,
        )

    def most_of(self, basket: Basket) -> int:
        """How many stamps a basket brings at most, whoever buys it."""
        if isinstance(self.for_each, ForVisit):
            return 1
        units = floor(sum(line.quantity for line in basket.lines))
        return min(units // self.for_each.items, self.most_per_purchase)
