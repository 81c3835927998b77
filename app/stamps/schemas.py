"""Stamp cards on the wire."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from app.programs import StampCard, Timeline
from app.stamps.rules import Card, Effect
from app.wire import Answer, Stamp

CardStatus = Literal["open", "full", "expired", "new"]


class CardOut(Answer):
    """A member's last card of a code: `stamps` of `of`, the `head_start` included. `new`: it is begun with the next
    stamp. An open one is over at `ends_at`; null: never. `filled`: how many of these the member has filled."""

    id: UUID | None
    code: str
    name: str
    number: int
    status: CardStatus
    stamps: int
    of: int
    head_start: int
    points_per_stamp: Annotated[int | None, Field(description="Of the next stamp; null: the terms bring none any more")]
    begun_at: Stamp | None
    ends_at: Stamp | None
    full_at: Stamp | None
    filled: int


class CardList(Answer):
    items: list[CardOut]


class CardEffectOut(Answer):
    """What a transaction did to a card: stamps `added` (negative: taken off), how many there are now, and the points
    `released` because they filled it."""

    code: str
    number: int
    added: int
    stamps: int
    of: int
    full: bool
    released: int
    ends_at: Stamp | None


def effect_out(effect: Effect) -> CardEffectOut:
    card = effect.card
    return CardEffectOut(
        code=card.code,
        number=card.number,
        added=effect.added,
        stamps=card.stamps,
        of=card.size,
        full=card.full_at is not None,
        released=effect.released,
        ends_at=card.ends_at,
    )


def card_list(last: Sequence[Card], filled: Mapping[str, int], terms: Timeline, now: datetime) -> CardList:
    """The last cards of a member in the order of the terms in force, then others; and cards not begun yet."""
    version = terms.at(now)
    promised = {} if version is None else {card.code: card for card in version.terms.stamp_cards}
    names = {card.code: card.name for each in terms.versions for card in each.terms.stamp_cards}
    theirs = {card.code: card for card in last}
    codes = [*promised, *(code for code in sorted(theirs) if code not in promised)]
    items = [
        _card(theirs[code], names[code], promised.get(code), filled.get(code, 0), now)
        if code in theirs
        else _new(promised[code])
        for code in codes
    ]
    return CardList(items=items)


def _card(card: Card, name: str, promise: StampCard | None, filled: int, now: datetime) -> CardOut:
    status: CardStatus = "full" if card.full_at else "open" if card.open_at(now) else "expired"
    return CardOut(
        id=card.id,
        code=card.code,
        name=name,
        number=card.number,
        status=status,
        stamps=card.stamps,
        of=card.size,
        head_start=card.head_start,
        points_per_stamp=None if promise is None else promise.points_per_stamp,
        begun_at=card.begun_at,
        ends_at=card.ends_at,
        full_at=card.full_at,
        filled=filled,
    )


def _new(promise: StampCard) -> CardOut:
    return CardOut(
        id=None,
        code=promise.code,
        name=promise.name,
        number=1,
        status="new",
        stamps=promise.head_start,
        of=promise.stamps,
        head_start=promise.head_start,
        points_per_stamp=promise.points_per_stamp,
        begun_at=None,
        ends_at=None,
        full_at=None,
        filled=0,
    )
