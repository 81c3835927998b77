"""Which rules of the terms a purchase has to ask: those in force then and there that are about anything it buys.

The others cost next to nothing, however many there are. A set of rules is an integer, bit n for the nth of the terms: a
thousand rules are 125 bytes. So there is a set for each day on which something changes, each weekday, hour, store,
channel, tender, minimum and name of goods that rules mention, and what all of these leave is found by `&`. Only what
the member does not meet is a list, for each purchase keeps it as one. Pure.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, time, timedelta
from fractions import Fraction
from itertools import accumulate
from operator import xor
from typing import Generic, TypeVar

from app.programs.basket import Line, Sale
from app.programs.conditions import WEEKDAYS, Goods, Occasion, When
from app.programs.earning import Rule

_KINDS = (("departments", "by_department"), ("categories", "by_category"), ("products", "by_product"))
"""How a rule names goods, and where a sale has them."""

_DAY = timedelta(days=1)


class Rulebook:
    """The rules of some terms, in their order, by when, where, on what and for how much they are in force."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        whens = [rule.when for rule in rules]
        self._rules = rules
        self._bits = {rule.code: 1 << number for number, rule in enumerate(rules)}
        self._days = _Turns(_those(not when.first_day for when in whens), map(_days_of, whens))
        self._weekdays = [_those(not when.weekdays or day in when.weekdays for when in whens) for day in WEEKDAYS]
        self._hours = _Turns(_those(_at_midnight(when) for when in whens), map(_hours_of, whens))
        self._overnight = _those(bool(_nights_end(when)) for when in whens)
        self._nights = _Turns(self._overnight, map(_nights_end, whens))
        self._stores = _Named([when.stores for when in whens])
        self._channels = _Named([when.channels for when in whens])
        self._tenders = _Named([when.tenders for when in whens])
        self._spend = _reached([when.minimum_spend for when in whens])
        self._quantity = _reached([when.minimum_quantity for when in whens])

        self._personal = _those(rule.personal for rule in rules)
        self._budgeted = _those(rule.budget is not None for rule in rules)
        self._for_some = _those(not rule.who.everybody for rule in rules)

        self._on, self._excluded = _Lines([rule.on for rule in rules]), _Lines([rule.excluded for rule in rules])
        self._goods = [(there, sets) for there, sets in self._on.by.items() if sets]
        self._one_by_one = _those(rule.on.mixed or not rule.excluded.empty for rule in rules)

    def personal(self, day: date) -> Sequence[Rule]:
        """Those that depend on the member, in force at some time of a day of the programme's zone."""
        in_force = self._days.of(day) | self._days.of(day - _DAY) & self._overnight
        return [self._rules[number] for number in _numbers(in_force & self._personal)]

    def about(self, sale: Sale, occasion: Occasion) -> list[tuple[Rule, Fraction | int]]:
        """Those in force then and there and for the member that are about any goods of a sale that earn, and what of
        these is eligible; no other gives anything for it."""
        return self._about(sale, self._here(occasion) & ~self._unmet(occasion))

    def budgeted(self, sale: Sale, occasion: Occasion) -> list[Rule]:
        """The same of those with a budget, whoever buys it."""
        return [rule for rule, _ in self._about(sale, self._here(occasion) & self._budgeted)]

    def _about(self, sale: Sale, among: int) -> list[tuple[Rule, Fraction | int]]:
        among &= self._reached_by(sale)
        alike = among & ~self._one_by_one
        found = dict.fromkeys(_numbers(alike & self._on.unnamed), sale.amount(sale.everything))
        for there, sets in self._goods:
            places_of = getattr(sale, there)
            for name in sets.keys() & places_of.keys():
                if chosen := alike & sets[name]:
                    amount = sale.amount(places_of[name])  # of no other name
                    for number in _numbers(chosen):
                        found[number] = found.get(number, 0) + amount
        if others := among & self._one_by_one:
            for number in _numbers(others & self._touched_by(sale)):
                found[number] = sale.amount(self._rules[number].places(sale))
        return [(self._rules[number], found[number]) for number in sorted(found)]

    def _here(self, occasion: Occasion) -> int:
        """Those of which no condition on time and place is unmet."""
        day, moment = occasion.at.date(), occasion.at.time()
        there = self._stores.of(occasion.store) & self._channels.of(occasion.channel) & self._hours.of(moment)
        of_yesterday = self._nights.of(moment) & there
        here = there & ~of_yesterday & self._on_day(day)
        return here | of_yesterday & self._on_day(day - _DAY) if of_yesterday else here

    def _on_day(self, day: date) -> int:
        return self._days.of(day) & self._weekdays[day.weekday()]

    def _unmet(self, occasion: Occasion) -> int:
        """Those that the member does not meet; a guest meets none that is not for everybody."""
        return sum([self._bits.get(code, 0) for code in occasion.unmet]) if occasion.known else self._for_some

    def _reached_by(self, sale: Sale) -> int:
        """Those of whose minima no part of the sale could fall short alone, and of whose tenders one has paid."""
        reached = self._spend.of(sale.base) & self._tenders.of(*sale.paid_by)
        return reached & self._quantity.of(sale.units) if self._quantity.moments else reached

    def _touched_by(self, sale: Sale) -> int:
        """Those with goods that earn, of which they do not exclude all."""
        touched = 0
        for place in sale.everything:
            line = sale.lines[place]
            touched |= (self._on.unnamed | self._on.of(line)) & ~self._excluded.of(line)
        return touched


def _days_of(when: When) -> list[date]:
    """On which a rule comes into force, and on which it is no more."""
    first = [when.first_day] if when.first_day else []
    after = [when.last_day + _DAY] if when.last_day and when.last_day < date.max else []
    return first + after


def _hours_of(when: When) -> list[time]:
    return [when.hours.begin, when.hours.end] if when.hours else []


def _at_midnight(when: When) -> bool:
    """Whether it is in force when a day ends, and so before any hour at which a rule begins or ends on the next."""
    return when.hours is None or when.hours.contain(time.max)


def _nights_end(when: When) -> list[time]:
    """To when a rule belongs to the day before."""
    return [when.hours.end] if when.hours and when.hours.overnight else []


_Moment = TypeVar("_Moment", date, time, int)


class _Turns(Generic[_Moment]):
    """Sets of rules over time, or as an amount grows: one `before` all moments, and one from each moment at which some
    come or go.

    `turns`: by rule, those of its own; at one of two equal moments it comes and goes, which is as if there were none.
    """

    def __init__(self, before: int, turns: Iterable[Sequence[_Moment]]) -> None:
        changes: dict[_Moment, int] = {}
        for number, moments in enumerate(turns):
            for moment in moments:
                changes[moment] = changes.get(moment, 0) ^ 1 << number
        self.moments: list[_Moment] = sorted(changes)
        self._sets = [*accumulate((changes[moment] for moment in self.moments), xor, initial=before)]

    def of(self, moment: _Moment) -> int:
        return self._sets[bisect_right(self.moments, moment)]


def _reached(minima: Sequence[int]) -> _Turns[int]:
    """Those whose minimum an amount reaches."""
    return _Turns(_those(not minimum for minimum in minima), ([minimum] if minimum else [] for minimum in minima))


class _Named:
    """Sets of rules by a name that they mention; those that mention none belong to all names."""

    def __init__(self, named: Sequence[Collection[str]]) -> None:
        self._of_none = _those(not names for names in named)
        self._sets = _sets(named)

    def of(self, *names: str | None) -> int:
        found = self._of_none
        for name in names:
            found |= _named(self._sets, name)
        return found


class _Lines:
    """Sets of rules by the goods that they name, in whatever way; and those that name none."""

    def __init__(self, goods: Sequence[Goods]) -> None:
        self.unnamed = _those(each.empty for each in goods)
        self.by = {there: _sets([getattr(each, kind) for each in goods]) for kind, there in _KINDS}
        self._departments, self._categories, self._products = self.by.values()

    def of(self, line: Line) -> int:
        by_product = self._products.get(line.product, 0)
        return by_product | _named(self._departments, line.department) | _named(self._categories, line.category)


def _sets(named: Iterable[Collection[str]]) -> dict[str, int]:
    """By name, which mention it."""
    sets: dict[str, int] = {}
    for number, names in enumerate(named):
        for name in names:
            sets[name] = sets.get(name, 0) | 1 << number
    return sets


def _named(sets: dict[str, int], name: str | None) -> int:
    return sets.get(name, 0) if name is not None else 0


def _those(belong: Iterable[bool]) -> int:
    return sum([1 << number for number, each in enumerate(belong) if each])


def _numbers(rules: int) -> Iterator[int]:
    while rules:
        lowest = rules & -rules
        yield lowest.bit_length() - 1
        rules ^= lowest
