"""Stamp cards: what members have on them, and what put it there.

Owns the cards that members fill, and a record of every stamp. A stamp is points that wait for its card to be full: they
are in the ledger from the purchase on, each purchase's stamps of a card as a lot of its own, and here is only how many
they are. `load` answers the cards of a batch's members; they follow what is decided (`earn`, `move`) and are written
with it. `stampings` says which stamps a purchase brought, so that a return can take them.
"""

from app.stamps.queries import stampings
from app.stamps.rules import Effect, Stamping, taken_back
from app.stamps.schemas import CardEffectOut, CardList, effect_out
from app.stamps.service import Cards, Earned, cards_of, load

__all__ = [
    "CardEffectOut",
    "CardList",
    "Cards",
    "Earned",
    "Effect",
    "Stamping",
    "cards_of",
    "effect_out",
    "load",
    "stampings",
    "taken_back",
]
