"""Which rules of the terms a purchase has to ask: those in force then and there that are about anything it buys.

The others cost next to nothing, however many there are. A set of rules is an integer, bit n for the nth of the terms: a
thousand rules are 125 bytes. So there is a set for each day on which something changes, each weekday, hour, store,
channel and name of goods that rules mention, and what all of these leave is found by `&`. Pure.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, time, timedelta
from fractions import Fraction
from itertools import accumulate
from operator import xor
from typing import Generic, TypeVar

from app.programs.basket import Sale
from app.programs.conditions import WEEKDAYS, Occasion, When
from app.programs.earning import Rule

_KINDS = (("departments", "by_department"), ("categories", "by_category"), ("products", "by_product"))
"""How a rule names goods, and where a sale has them."""


class Rulebook:
    """The rules of some terms, in their order, by when, where and on what they are in force."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        whens = [rule.when for rule in rules]
        self._rules = rules
        self._days = _Turns(_those(not when.first_day for when in whens), enumerate(map(_days_of, whens)))
        self._hours = _Turns(_those(_at_midnight(when) for when in whens), enumerate(map(_hours_of, whens)))
        self._weekdays = [_those(not when.weekdays or day in when.weekdays for when in whens) for day in WEEKDAYS]
        self._stores = _Named([when.stores for when in whens])
        self._channels = _Named([when.channels for when in whens])

        self._personal = _those(rule.personal for rule in rules)
        self._everything = _those(rule.on.empty for rule in rules)
        self._mixed = _those(rule.on.mixed for rule in rules)
        self._excluding = {number for number, rule in enumerate(rules) if not rule.excluded.empty}
        goods = [(there, [() if rule.on.mixed else getattr(rule.on, kind) for rule in rules]) for kind, there in _KINDS]
        self._goods = [(there, _Named(names).sets) for there, names in goods if any(names)]

    def personal(self, day: date) -> Sequence[Rule]:
        """Those that depend on the member, in force on a day of the programme's zone at whatever time and place."""
        return [self._rules[number] for number in _numbers(self._days.of(day) & self._personal)]

    def about(self, sale: Sale, occasion: Occasion) -> list[tuple[Rule, Fraction | int]]:
        """Those in force then and there that are about any goods of a sale that earn, and what of these is eligible; no
        other gives anything for it."""
        rules, here = self._rules, self._here(occasion)
        found = dict.fromkeys(_numbers(here & self._everything), sale.amount(sale.everything))
        for number in _numbers(here & self._mixed):
            if places := rules[number].on.places(sale):
                found[number] = sale.amount(places)
        for there, sets in self._goods:
            places_of = getattr(sale, there)
            for name in sets.keys() & places_of.keys():
                if chosen := here & sets[name]:
                    amount = sale.amount(places_of[name])  # of no other name
                    for number in _numbers(chosen):
                        found[number] = found.get(number, 0) + amount
        for number in found.keys() & self._excluding:
            found[number] = sale.amount(rules[number].places(sale))
        return [(rules[number], found[number]) for number in sorted(found)]

    def _here(self, occasion: Occasion) -> int:
        """Those of which no condition on time and place is unmet."""
        at = occasion.at
        there = self._stores.of(occasion.store) & self._channels.of(occasion.channel)
        return there & self._days.of(at.date()) & self._weekdays[at.weekday()] & self._hours.of(at.time())


def _days_of(when: When) -> list[date]:
    """On which a rule comes into force, and on which it is no more."""
    first = [when.first_day] if when.first_day else []
    after = [when.last_day + timedelta(days=1)] if when.last_day and when.last_day < date.max else []
    return first + after


def _hours_of(when: When) -> list[time]:
    return [when.hours.begin, when.hours.end] if when.hours else []


def _at_midnight(when: When) -> bool:
    """Whether it is in force when a day ends, and so before any hour at which a rule begins or ends on the next."""
    return when.hours is None or when.hours.contain(time.max)


_Moment = TypeVar("_Moment", date, time)


class _Turns(Generic[_Moment]):
    """Sets of rules over time: one `before` all moments, and one from each moment at which some come or go.

    `turns`: by rule, those of its own; at one of two equal moments it comes and goes, which is as if there were none.
    """

    def __init__(self, before: int, turns: Iterable[tuple[int, Sequence[_Moment]]]) -> None:
        changes: dict[_Moment, int] = {}
        for number, moments in turns:
            for moment in moments:
                changes[moment] = changes.get(moment, 0) ^ 1 << number
        self._moments: list[_Moment] = sorted(changes)
        self._sets = [*accumulate((changes[moment] for moment in sorted(changes)), xor, initial=before)]

    def of(self, moment: _Moment) -> int:
        return self._sets[bisect_right(self._moments, moment)]


class _Named:
    """Sets of rules by a name that they mention; those that mention none belong to all names."""

    def __init__(self, named: Sequence[Collection[str]]) -> None:
        self.of_none = _those(not names for names in named)
        self.sets: dict[str, int] = {}
        for number, names in enumerate(named):
            for name in names:
                self.sets[name] = self.sets.get(name, 0) | 1 << number

    def of(self, name: str | None) -> int:
        return self.of_none | self.sets.get(name, 0) if name is not None else self.of_none


def _those(belong: Iterable[bool]) -> int:
    return sum([1 << number for number, each in enumerate(belong) if each])


def _numbers(rules: int) -> Iterator[int]:
    while rules:
        lowest = rules & -rules
        yield lowest.bit_length() - 1
        rules ^= lowest
