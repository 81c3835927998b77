"""Earning rules: what earns more than every purchase does. Each is a value that says when it applies and what it gives.

Pure; points whole, money in minor units. For one purchase, in this order:

1. The base (`Terms.earning`) is what eligible lines cost, less what was paid by tenders that do not earn.
2. Each rule in force takes its part of that: the lines it is about, the part that its tenders paid. It gives nothing
   where one of its conditions does not hold or that part is 0. Its points are rounded once, then capped.
3. Of the rules of one group those are dropped that its policy (`Terms.stacking`) does not let stand.

A rule multiplies the points of the base, never those of another rule: so their order does not matter.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import floor
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.money import Rounding, round_to_int, rounded
from app.programs.basket import Basket, Sale
from app.programs.conditions import BUDGET, LIFETIME, Customer, Goods, Limit, Occasion, Used, When, Who
from app.wire import Request, Text, Token, chosen_by

Points = Annotated[int, Field(ge=1, le=1_000_000)]
Stacking = Literal["all", "best", "priority"]
"""Which rules of a group stand: all; the one that gives most; the one with the lowest `priority`. Of equals the first
in the terms."""


class Considered(NamedTuple):  # which takes a third of the time that a frozen dataclass takes to make
    """What became of a rule: the `base` it was given on (minor units) and its `points`; or `why` it gave none."""

    rule: "Rule"
    base: int
    points: int
    why: str | None = None
    capped: bool = False


# --- what a rule gives ----------------------------------------------------------------------------------------------


class PerAmount(Request):
    """Points for each `per` minor units that the goods of the rule cost, beside those of the base."""

    type: Literal["per_amount"]
    points: Points
    per: Annotated[int, Field(ge=1, le=10**12, description="Minor units")]
    rounding: Rounding = "down"

    def points_for(self, base: int, _sale: Sale, _rule: "Rule") -> int:
        return rounded(base * self.points, self.per, self.rounding)


class PerItem(Request):
    """Points for each `items` units of the goods of the rule; what is sold by weight counts by its whole units."""

    type: Literal["per_item"]
    points: Points
    items: Annotated[int, Field(ge=1, le=1_000_000)] = 1

    def points_for(self, _base: int, sale: Sale, rule: "Rule") -> int:
        return floor(rule.quantity(sale)) // self.items * self.points


class Fixed(Request):
    """Points for a purchase that has any of the goods of the rule: for a visit, where it is about all goods."""

    type: Literal["fixed"]
    points: Points

    def points_for(self, _base: int, _sale: Sale, _rule: "Rule") -> int:
        return self.points


class Multiply(Request):
    """The points of the base for the goods of the rule become `times` / `divisor` as many: 3 are triple points, 3/2
    half as many more. What the rule gives is what is added."""

    type: Literal["multiply"]
    times: Annotated[int, Field(ge=2, le=1000)]
    divisor: Annotated[int, Field(ge=1, le=1000)] = 1
    rounding: Rounding = "down"

    @model_validator(mode="after")
    def _adds_something(self) -> Self:
        if self.times <= self.divisor:
            raise PydanticCustomError("adds_nothing", "`times` must be more than `divisor`")
        return self

    def points_for(self, base: int, sale: Sale, _rule: "Rule") -> int:
        return rounded(base * sale.points * (self.times - self.divisor), sale.per * self.divisor, self.rounding)


def _gives(value: Any) -> Any:
    return chosen_by("type", value, Fixed, PerAmount, PerItem, Multiply)


Gives = Annotated[Fixed | PerAmount | PerItem | Multiply, BeforeValidator(_gives)]


class Rule(Request):
    """What earns more than the base: what it `gives`, `on` which goods (all, if it names none), and `when`."""

    code: Annotated[Token, Field(examples=["triple_dairy"])]
    """By which reasons and reports name it. A rule that means something else has another code."""
    name: Text
    gives: Gives
    on: Goods = Goods()
    excluded: Goods = Goods()
    """Goods that it is not about, though they are among the others."""
    when: When = When()
    who: Who = Who()
    most: Annotated[int | None, Field(ge=1, le=10**9)] = None
    """Points of one purchase, at most; null: no limit."""
    limits: Annotated[list[Limit], Field(max_length=10)] = []
    """For one member over time."""
    budget: Annotated[int | None, Field(ge=1, le=10**15)] = None
    """Points for all members together, at most; null: no limit."""
    cooldown_hours: Annotated[int | None, Field(ge=1, le=87_600)] = None
    """How long before and after a purchase it gives the same member nothing more, once it did: purchases may come
    late."""
    group: Token | None = None
    """Rules of one group compete, as `stacking` of the terms says; null: with none."""
    priority: Annotated[int, Field(ge=0, le=1000)] = 100

    def consider(self, sale: Sale, occasion: Occasion) -> Considered:
        """What it gives for a purchase, whatever other rules do."""
        if why := self.when.unmet(occasion) or self._unmet(occasion):
            return Considered(self, 0, 0, why)
        return self.give(sale, occasion, sale.amount(self.places(sale)))

    def give(self, sale: Sale, occasion: Occasion, amount: Fraction | int) -> Considered:
        """The same of a rule that is in force then and there and for the member, of whose goods so much is eligible."""
        given = self._give(sale, amount, *self._asked)
        if not occasion.allowed or (room := occasion.allowed.get(self.code)) is None or given.points <= room:
            return given
        return given._replace(points=room, capped=True)

    def apply(self, sale: Sale, minimum_spend: int, minimum_quantity: int) -> Considered:
        """The same, when time and place are right."""
        return self._give(sale, sale.amount(self.places(sale)), minimum_spend, minimum_quantity)

    def _give(self, sale: Sale, amount: Fraction | int, minimum_spend: int, minimum_quantity: int) -> Considered:
        tenders, points_for, most = self._gives
        part = self._part(sale) if tenders else sale.part
        if not part:
            return Considered(self, 0, 0, "tenders" if tenders else "nothing_earns")
        base = round_to_int(amount * part)
        if base <= 0:
            return Considered(self, 0, 0, "goods")
        if base < minimum_spend:
            return Considered(self, base, 0, "minimum_spend")
        if minimum_quantity and self.quantity(sale) < minimum_quantity:
            return Considered(self, base, 0, "minimum_quantity")
        points = points_for(base, sale, self)
        if most is not None and points > most:
            return Considered(self, base, most, capped=True)
        return Considered(self, base, points, None if points else "too_little")

    @cached_property
    def _asked(self) -> tuple[int, int]:
        """What each purchase is asked, looked up once: a third of the time of a rule went into that."""
        return self.when.minimum_spend, self.when.minimum_quantity

    @cached_property
    def _gives(self) -> tuple[Sequence[str], Callable[[int, Sale, "Rule"], int], int | None]:
        """And what it is given by."""
        return self.when.tenders, self.gives.points_for, self.most

    def _unmet(self, occasion: Occasion) -> str | None:
        if not occasion.known:
            return None if self.who.everybody else "guest"
        return occasion.unmet.get(self.code)

    @cached_property
    def personal(self) -> bool:
        """Whether what it gives depends on the member."""
        limited = bool(self.limits) or self.cooldown_hours is not None or self.budget is not None
        return limited or not self.who.everybody

    def periods(self, at: datetime) -> set[str]:
        """The periods in which what it gives at an instant is counted."""
        periods = {limit.period(at.date()) for limit in self.limits}
        periods |= {LIFETIME, self._spell(at)} if self.cooldown_hours else set()
        return periods | ({BUDGET} if self.budget is not None else set())

    def asked(self, at: datetime) -> set[str]:
        """The periods of which must be known what it has given, for it to give anything at an instant."""
        return self.periods(at) | ({self._spell(at, -1), self._spell(at, 1)} if self.cooldown_hours else set())

    def _spell(self, at: datetime, later: int = 0) -> str:
        """All time is cut into spells as long as the cooldown: so in each it gives a member something once at most, and
        whatever is too near is in the same one or beside it (decision 23). `LIFETIME` knows the latest, by whatever
        cooldown."""
        assert self.cooldown_hours is not None
        number = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(hours=self.cooldown_hours)
        return f"{self.cooldown_hours}h:{number + later}"

    def room(self, at: datetime, used: Mapping[str, Used]) -> int | str | None:
        """How many points its limits leave, None: as many as there are; or why it gives nothing. `used`: by period."""
        if self.cooldown_hours:
            utc, cooldown = at.astimezone(UTC), timedelta(hours=self.cooldown_hours)  # clocks that are put back mislead
            if any(each.last_at and abs(utc - each.last_at) < cooldown for each in used.values()):
                return "cooldown"
        rooms = [limit.room(used.get(limit.period(at.date()), Used())) for limit in self.limits]
        least = min((room for room in rooms if room is not None), default=None)
        return "limit" if least == 0 else least

    def _part(self, sale: Sale) -> Fraction | int:
        return sum(sale.paid_by.get(tender, 0) for tender in set(self.when.tenders))

    def places(self, sale: Sale) -> Collection[int]:
        """The positions of the lines that it is about."""
        places = sale.everything if self.on.empty else self.on.places(sale)
        return places if self.excluded.empty else set(places) - self.excluded.places(sale)

    def quantity(self, sale: Sale) -> Fraction | Decimal:
        """How many units these are. Of a sale all are decimals, of what is left of one all are fractions."""
        return sum([sale.quantities[place] for place in self.places(sale)])  # type: ignore[return-value]  # not empty


def known(
    rules: Iterable[Rule],
    occasion: Occasion,
    customer: Customer,
    used: Mapping[tuple[str, str], Used],
    recalled: Mapping[str, str | None] = MappingProxyType({}),
    left: Mapping[str, int] = MappingProxyType({}),
) -> Occasion:
    """The occasion with what is known of the member: what they are like, and what rules have given them (`used`, by
    rule and period). `recalled`: by rule, what was found before of what they are like; that is not asked again. `left`:
    points by rule, where a budget leaves less than the rule could give."""
    unmet: dict[str, str] = {}
    allowed: dict[str, int] = {}
    for rule in rules:
        theirs = {period: each for (code, period), each in used.items() if code == rule.code}
        asked = recalled[rule.code] if rule.code in recalled else rule.who.unmet(customer, occasion)
        found = asked or _within(rule.room(occasion.at, theirs), left.get(rule.code))
        if isinstance(found, str):
            unmet[rule.code] = found
        elif found is not None:
            allowed[rule.code] = found
    return occasion._replace(known=True, unmet=unmet, allowed=allowed)


def _within(room: int | str | None, left: int | None) -> int | str | None:
    """What limits leave of a budget, if that has an end in sight."""
    if left is None or isinstance(room, str):
        return room
    return min(left, left if room is None else room) or "budget"


def standing(considered: Iterable[Considered], stacking: Mapping[str, Stacking]) -> list[Considered]:
    """Those that give points, and that their group lets stand."""
    given = [each for each in considered if each.points]
    best = _best(given, stacking)
    return [each for each in given if best.get(each.rule.group, each) is each]


def stacked(considered: Sequence[Considered], stacking: Mapping[str, Stacking]) -> list[Considered]:
    """All of them, where those that their group does not let stand give nothing: `outdone`."""
    stand = standing(considered, stacking)
    return [each if not each.points or any(each is one for one in stand) else _outdone(each) for each in considered]


def _best(given: Iterable[Considered], stacking: Mapping[str, Stacking]) -> dict[str | None, Considered]:
    """By group of which only one stands, that one."""
    found: dict[str | None, Considered] = {}
    for each in given:
        group = each.rule.group
        if group is not None and stacking[group] != "all":
            best = found.get(group)
            if best is None or _beats(each, best, stacking[group]):
                found[group] = each
    return found


def _beats(one: Considered, other: Considered, policy: Stacking) -> bool:
    if policy == "best" and one.points != other.points:
        return one.points > other.points
    return one.rule.priority < other.rule.priority


def _outdone(each: Considered) -> Considered:
    return each._replace(points=0, why="outdone", capped=False)


def paid_by(basket: Basket, non_earning: Sequence[str]) -> dict[str, Fraction | int]:
    """The share of the total that each tender paid, of those that earn."""
    shares: dict[str, Fraction | int] = {}
    for tender in basket.tenders:
        if tender.type not in non_earning and tender.amount:
            shares[tender.type] = shares.get(tender.type, 0) + Fraction(tender.amount, basket.total)
    return shares
