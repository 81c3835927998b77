"""Which rules of the terms a purchase has to ask: those in force then and there that are about anything it buys.

The others cost next to nothing, however many there are. A set of rules is an integer, bit n for the nth of the terms: a
thousand rules are 125 bytes. So there is a set for each day on which something changes, each weekday, hour, store,
channel and name of goods that rules mention, and what all of these leave is found by `&`. Pure.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import date, time, timedelta
from fractions import Fraction
from typing import Generic, TypeVar

from app.programs.basket import Sale
from app.programs.conditions import WEEKDAYS, Occasion
from app.programs.earning import Rule

_KINDS = (("departments", "by_department"), ("categories", "by_category"), ("products", "by_product"))
"""How a rule names goods, and where a sale has them."""


class Rulebook:
    """The rules of some terms, in their order, by when, where and on what they are in force."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        whens = [rule.when for rule in rules]
        hours = [each.hours for each in whens]
        first_days = {when.first_day for when in whens if when.first_day}
        last_days = {when.last_day for when in whens if when.last_day} - {date.max}  # on which nothing follows
        days = first_days | {day + timedelta(days=1) for day in last_days}
        ends = {end for each in hours if each for end in (each.begin, each.end)}
        self._rules = rules
        self._days = _Turns(days, date.min, lambda day: _those(when.in_force(day) for when in whens))
        self._hours = _Turns(ends, time.min, lambda at: _those(each is None or each.contain(at) for each in hours))
        self._weekdays = [_those(not when.weekdays or day in when.weekdays for when in whens) for day in WEEKDAYS]
        self._stores = _Named([when.stores for when in whens])
        self._channels = _Named([when.channels for when in whens])

        self._on_days = [[rules[number] for number in _numbers(each)] for each in self._days.sets]
        self._everything = _those(rule.on.empty for rule in rules)
        self._mixed = _those(rule.on.mixed for rule in rules)
        self._excluding = {number for number, rule in enumerate(rules) if not rule.excluded.empty}
        goods = [(there, [() if rule.on.mixed else getattr(rule.on, kind) for rule in rules]) for kind, there in _KINDS]
        self._goods = [(there, _Named(names).sets) for there, names in goods if any(names)]

    def on(self, day: date) -> Sequence[Rule]:
        """The rules in force on a day of the programme's zone, at whatever time and place."""
        return self._on_days[self._days.turn(day)]

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


_Moment = TypeVar("_Moment", date, time)


class _Turns(Generic[_Moment]):
    """Sets of rules over time: one before the first of some moments at which any comes or goes, and one from each."""

    def __init__(self, moments: Iterable[_Moment], earliest: _Moment, then: Callable[[_Moment], int]) -> None:
        self._moments: list[_Moment] = sorted(moments)
        self.sets = [then(earliest), *map(then, self._moments)]

    def turn(self, moment: _Moment) -> int:
        return bisect_right(self._moments, moment)

    def of(self, moment: _Moment) -> int:
        return self.sets[bisect_right(self._moments, moment)]


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
