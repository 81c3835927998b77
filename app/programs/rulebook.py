"""Which rules of the terms to ask about a purchase: those in force then and there, about anything that is sold.

However many others there are, they cost nothing: day, time and place are looked up, and so are names of goods. Pure.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

from app.programs.basket import Chosen, Sale
from app.programs.conditions import Occasion
from app.programs.earning import Considered, Rule

_KINDS = (("departments", "by_department"), ("categories", "by_category"), ("products", "by_product"))
"""How a rule names goods, and where a sale has them."""

_KEPT = 1000
"""Times and places for which the rules in force are kept at once; thirty rules take some 10 kB."""


@dataclass(frozen=True)  # without slots: its index is kept
class InForce:
    """The rules in force at one time and place, in the order of the terms."""

    rules: tuple[Rule, ...]

    def consider(self, sale: Sale, occasion: Occasion) -> list[Considered]:
        """What those that are about any of its goods give for a sale."""
        return [rule.give(sale, occasion, chosen) for rule, chosen in self.about(sale)]

    def about(self, sale: Sale) -> list[tuple[Rule, Chosen]]:
        """Those that are about any goods of a sale that earn, and which these are; no other gives anything for it."""
        everything, mixed, excluding, by_kind = self._index
        found = dict.fromkeys(everything, sale.everything)
        for number in mixed:
            if places := self.rules[number].on.places(sale):
                found[number] = sale.at(places)
        for there, index in by_kind:
            chosen = getattr(sale, there)
            for name in index.keys() & chosen.keys():
                for number in index[name]:
                    others = found.get(number)
                    found[number] = chosen[name] if others is None else others.plus(chosen[name])
        for number in found.keys() & excluding:
            found[number] = self.rules[number].left_of(found[number], sale)
        return [(self.rules[number], found[number]) for number in sorted(found)]

    @cached_property
    def _index(self) -> tuple[list[int], list[int], set[int], list[tuple[str, dict[str, list[int]]]]]:
        """The positions of rules about all goods; of those about names of several kinds; of those that exclude any; and
        by kind of name, those of the others."""
        by_kind: list[tuple[str, dict[str, list[int]]]] = []
        for kind, there in _KINDS:
            index: dict[str, list[int]] = {}
            for place, rule in enumerate(self.rules):
                for name in () if rule.on.mixed else set(getattr(rule.on, kind)):
                    index.setdefault(name, []).append(place)
            if index:
                by_kind.append((there, index))
        everything = [place for place, rule in enumerate(self.rules) if rule.on.empty]
        mixed = [place for place, rule in enumerate(self.rules) if rule.on.mixed]
        excluding = {place for place, rule in enumerate(self.rules) if not rule.excluded.empty}
        return everything, mixed, excluding, by_kind


class Rulebook:
    """The rules of some terms, by when and where they are in force.

    All conditions on time and place are the same between two `turns` (days on which a rule comes into force or goes),
    on one day of the week, between two hours that a rule names, and at places that no rule names. What was found for
    one such purchase is kept for the next.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        whens = [rule.when for rule in rules]
        after = {when.last_day + timedelta(days=1) for when in whens if when.last_day}
        self._turns = sorted(after | {when.first_day for when in whens if when.first_day})
        self._by_turn = [tuple(r for r in rules if r.when.in_force(day)) for day in (date.min, *self._turns)]
        self._hours = sorted({each for when in whens if (h := when.hours) for each in (h.begin, h.end)})
        self._stores = frozenset(store for when in whens for store in when.stores)
        self._channels = frozenset(channel for when in whens for channel in when.channels)
        self._kept: dict[tuple[int, int, int, str | None, str | None], InForce] = {}

    def on(self, day: date) -> tuple[Rule, ...]:
        """The rules in force on a day of the programme's zone, at whatever time and place."""
        return self._by_turn[bisect_right(self._turns, day)]

    def at(self, occasion: Occasion) -> InForce:
        """Those of which no condition on time and place is unmet."""
        at, store, channel = occasion.at, occasion.store, occasion.channel
        kept = (
            bisect_right(self._turns, at.date()),
            at.weekday(),
            bisect_right(self._hours, at.time()),
            store if store in self._stores else None,
            channel if channel in self._channels else None,
        )
        found = self._kept.get(kept)
        if found is None:
            found = InForce(tuple(rule for rule in self._by_turn[kept[0]] if rule.when.unmet(occasion) is None))
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[kept] = found
        return found
