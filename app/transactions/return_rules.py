"""What a return comes to. Pure: a purchase, what came back of it before, and what comes back now.

Everything is cumulative: a figure is what all returns together change (`programs.kept`), less what earlier ones have
changed already. So any number of returns, in any order, ends exactly as one return of everything.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from math import ceil
from typing import Any

from app.errors import Problem, finding
from app.members import MemberRef
from app.money import round_to_int
from app.programs import Basket, Earning, Kept, Reason, Terms, Version, kept
from app.wire import JsonText

Key = tuple[str, str, str]


class NothingToReturn(Problem):
    """All of the purchase has come back already, or it was voided."""

    status, code, title, final = 422, "nothing_to_return", "Nothing is left to return", True


class ReturnTooLarge(Problem):
    """More would come back than was bought; `errors` says of which line, and how much is left."""

    status, code, title, final = 422, "return_too_large", "That is more than was bought", True


class RefundDiffers(Problem):
    """The `total` of a return by lines is what was paid for them; leave it out to let the service say it."""

    status, code, title, final = 422, "refund_differs", "The refund is not what was paid for the lines", True


class ReceiptNeeded(Problem):
    """The programme takes no return without the purchase it belongs to. Name it as `original`."""

    status, code, title, final = 422, "receipt_needed", "The return must name its purchase", True


class AlreadyVoided(Problem):
    """A transaction is voided once."""

    status, code, title, final = 409, "already_voided", "It is voided already", True


class UnknownOriginal(Problem):
    """What is to be voided is not known. A purchase that comes later can be voided then."""

    status, code, title, final = 422, "unknown_original", "There is no such transaction to void", True


@dataclass(frozen=True, slots=True)
class Return:
    """What a till posts when goods come back, or when it takes back a whole transaction (`type` void).

    `lines` are quantities by line number; None with no `total`: everything that is left. `total` alone: a refund of
    that many minor units. `original` None: without the receipt.
    """

    type: str
    source: str
    external_id: str
    occurred_at: datetime
    store: str | None
    original: Key | None
    lines: Mapping[int, Decimal] | None
    total: int | None
    currency: str | None
    member: MemberRef | None
    content: JsonText

    @property
    def key(self) -> Key:
        """The natural key, within the programme."""
        return self.source, self.external_id, self.type


@dataclass(frozen=True, slots=True)
class Figures:
    """What of a purchase has come back, as one return's part or in all.

    Minor units; `tendered_points` in points. `consideration` and `tax` are of the part paid in money,
    `net_paid_with_points` is net of VAT; `total` is all of it, tax included, `tendered` the part paid with points.
    `base` and `units` are of what counts for points and tiers; `visits` is 1 when nothing is left of the purchase.
    """

    total: int = 0
    consideration: int = 0
    tax: int = 0
    net_paid_with_points: int = 0
    tendered: int = 0
    tendered_points: int = 0
    base: int = 0
    visits: int = 0
    units: int = 0

    @property
    def possible(self) -> "Figures":
        """As a return can be. The void of another takes away what that was rounded to, which may leave this one a unit
        too few; the next has it again."""
        points, base = max(0, self.tendered_points), max(0, self.base)
        visits, units = max(0, self.visits), max(0, self.units)
        if self.total <= 0:
            return Figures(tendered_points=points, base=base, visits=visits, units=units)
        tendered, tax = min(max(0, self.tendered), self.total), max(0, self.tax)
        consideration = self.total - tendered - tax
        net_paid = max(0, self.net_paid_with_points)
        return Figures(self.total, consideration, tax, net_paid, tendered, points, base, visits, units)

    def less(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, name) - getattr(other, name) for name in FIGURES))

    def plus(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, name) + getattr(other, name) for name in FIGURES))

    def document(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in FIGURES}


FIGURES = tuple(each.name for each in fields(Figures))


@dataclass(frozen=True, slots=True)
class Before:
    """What has come back of a purchase so far: quantities by line, refunds that named no line, and figures in all."""

    lines: Mapping[int, Decimal]
    amount: int
    figures: Figures
    voided: bool


@dataclass(frozen=True, slots=True)
class Coming:
    """What a return changes: its figures, what the customer may keep of the earning, and the quantities it names."""

    figures: Figures
    kept: Earning
    lines: Mapping[int, Decimal]
    amount: int


def left(basket: Basket, terms: Terms, before: Before, reasons: Sequence[Reason] = ()) -> Kept:
    """What the customer keeps of a purchase that earned by `reasons` after what came back `before`; nothing of one that
    was voided."""
    if before.voided:
        return kept(basket, terms, {line.number: line.quantity for line in basket.lines})
    return kept(basket, terms, before.lines, before.amount, reasons)


def whole(basket: Basket, terms: Terms) -> Figures:
    """The figures of a whole purchase."""
    return _figures(kept(basket, terms, {}))


def _figures(state: Kept) -> Figures:
    tendered, points = (0, 0) if state.tender is None else (state.tender.amount, state.tender.points)
    consideration = state.total - tendered - state.tax  # so that what is posted is what is refunded, to the unit
    return Figures(
        total=state.total,
        consideration=consideration,
        tax=state.tax,
        net_paid_with_points=state.net_paid_with_points,
        tendered=tendered,
        tendered_points=points,
        base=sum(state.earning.line_bases),
        visits=int(any(state.lines)),
        units=state.earning.units,
    )


def coming(item: Return, basket: Basket, version: Version, before: Before, reasons: Sequence[Reason]) -> Coming:
    """What `item` changes of a purchase that earned by `reasons`. NothingToReturn, ReturnTooLarge, RefundDiffers."""
    terms = version.terms
    if before.voided:
        raise NothingToReturn
    bought = whole(basket, terms)
    lines, amount = _named(item, basket, terms, before, bought.total)
    after = kept(basket, terms, _sum(before.lines, lines), before.amount + amount, reasons)
    figures = bought.less(_figures(after)).less(before.figures).possible
    if item.type == "return" and item.lines is not None and item.total not in (None, figures.total):
        detail = f"what was paid for these lines is {figures.total}"
        raise RefundDiffers(findings=[finding(("total",), "refund_differs", detail)])
    return Coming(figures, after.earning, lines, amount)


def _named(item: Return, basket: Basket, terms: Terms, before: Before, paid: int) -> tuple[Mapping[int, Decimal], int]:
    """The quantities and the amount that come back now, of a purchase for which so much was `paid`."""
    unrefunded = left(basket, terms, before).total if before.lines or before.amount else paid
    # the void of an earlier return gave money back that the return of all the rest has left to it
    open_ = paid - before.figures.total if unrefunded == 0 else 0
    if item.lines is None and item.total is not None and item.type == "return":
        if item.total > unrefunded and item.total != open_:
            detail = f"{unrefunded or open_} is left of the purchase"
            raise ReturnTooLarge(findings=[finding(("total",), "return_too_large", detail)])
        return {}, min(item.total, unrefunded)
    remaining = {line.number: line.quantity - before.lines.get(line.number, Decimal(0)) for line in basket.lines}
    if item.lines is None:
        # a line of quantity 0 comes back by being named, once
        lines = {
            line.number: remaining[line.number]
            for line in basket.lines
            if remaining[line.number] or (line.quantity == 0 and line.number not in before.lines)
        }
        if not lines or (unrefunded == 0 and before.amount):
            if open_ <= 0:
                raise NothingToReturn
            return {}, 0
        return lines, 0
    wrong = [
        finding(("lines", position), "return_too_large", f"{remaining.get(number, 0)} of line {number} is left")
        for position, (number, quantity) in enumerate(item.lines.items())
        if quantity > remaining.get(number, Decimal(-1)) or (quantity == 0 and remaining[number] != 0)
    ]
    if wrong:
        raise ReturnTooLarge(findings=wrong)
    return item.lines, 0


def _sum(first: Mapping[int, Decimal], second: Mapping[int, Decimal]) -> dict[int, Decimal]:
    zero = Decimal(0)
    return {number: first.get(number, zero) + second.get(number, zero) for number in first.keys() | second.keys()}


def before(past: Iterable[Any]) -> Before:
    """What returns and voids of one purchase, given as their rows, add up to."""
    rows = list(past)
    undone = {row["original_id"] for row in rows if row["type"] == "void"}
    lines: dict[int, Decimal] = {}
    amount, figures = 0, Figures()
    for row in rows:
        outcome = row["outcome"]
        figures = figures.plus(Figures(**outcome["figures"]))
        if row["type"] == "return" and row["id"] not in undone:
            lines = _sum(lines, {int(number): Decimal(quantity) for number, quantity in outcome["lines"].items()})
            amount += outcome["amount"]
    voided = any(row["type"] == "void" and row["original_id"] == row["purchase_id"] for row in rows)
    return Before(lines, amount, figures, voided)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a return did to points and money, as it is kept and answered.

    `taken_back` points in all, of which `expired` had gone before, `debt` is owed now, `written_off` is forgiven and
    `withheld` was taken off the refund (`withheld_amount` minor units). `given_back` points had paid for the goods;
    of them `stay_expired` are gone because their lots have expired, and `settled` make up for what was forgiven when
    the purchase that had granted them came back before. `conceded` of those taken back had been given for the purchase
    when it went wrong.
    """

    taken_back: int = 0
    expired: int = 0
    debt: int = 0
    written_off: int = 0
    withheld: int = 0
    withheld_amount: int = 0
    given_back: int = 0
    stay_expired: int = 0
    conceded: int = 0
    settled: int = 0

    def plus(self, other: "Outcome") -> "Outcome":
        return Outcome(*(getattr(self, name) + getattr(other, name) for name in OUTCOMES))

    def document(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in OUTCOMES}


OUTCOMES = tuple(each.name for each in fields(Outcome))


def outcome_so_far(past: Iterable[Any]) -> Outcome:
    """What returns and voids of one purchase, given as their rows, have done so far."""
    return reduce(Outcome.plus, (outcome_of(row) for row in past), Outcome())


def outcome_of(row: Any) -> Outcome:
    """What a return or void did, as it is kept."""
    return Outcome(**{name: row["outcome"].get(name, 0) for name in OUTCOMES})


def withheld(forgiven: int, refund: int, before: Outcome, terms: Terms) -> tuple[int, int]:
    """How many of `forgiven` points, earned with the goods and not to be had back, are kept back of a refund of so many
    minor units, and how much that is: never more than the refund.

    The amount is rounded for all that was forgiven so far (`before`), so that it does not depend on how a return is
    split; what one refund was too small for comes off the next.
    """
    value = Fraction((terms.returns.withhold_value or terms.point_value).each)
    owed = max(0, round_to_int((before.withheld + before.written_off + forgiven) * value) - before.withheld_amount)
    if owed <= refund:
        return forgiven, owed
    return min(forgiven, max(0, ceil((before.withheld_amount + refund) / value) - before.withheld)), refund
