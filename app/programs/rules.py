"""What a basket earns, and until when. Pure; money in minor units, exact shares as `Fraction`s."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction

from app.errors import Finding, finding
from app.money import round_to_int, spread
from app.programs.schemas import Terms


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a purchase. `amount` is the list price of the whole quantity, before `discount`."""

    number: int
    product: str
    department: str | None
    category: str | None
    quantity: Decimal
    amount: int
    discount: int
    tax: int


@dataclass(frozen=True, slots=True)
class Tender:
    """One means of payment."""

    type: str
    amount: int


@dataclass(frozen=True, slots=True)
class Basket:
    """What was bought and how it was paid."""

    lines: tuple[Line, ...]
    tenders: tuple[Tender, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule's part of the points, with the base it was given on."""

    rule: str
    base: int
    points: int


@dataclass(frozen=True, slots=True)
class Earning:
    """Points earned, why, and each line's part of the earning base (they sum to the base)."""

    points: int
    reasons: tuple[Reason, ...]
    line_bases: tuple[int, ...]


# --- what a basket is worth -----------------------------------------------------------------------------------------


def paid(line: Line, terms: Terms) -> int:
    """What the customer pays for a line, tax included."""
    return line.amount - line.discount + (0 if terms.prices_include_tax else line.tax)


def net(line: Line, terms: Terms) -> int:
    """What a line brings in, without tax."""
    return line.amount - line.discount - (line.tax if terms.prices_include_tax else 0)


def consideration(basket: Basket, terms: Terms) -> int:
    """What goods and points are sold for together, net of VAT and discounts."""
    return sum(net(line, terms) for line in basket.lines)


def tax_of(basket: Basket) -> int:
    return sum(line.tax for line in basket.lines)


def stand_alone_prices(basket: Basket, terms: Terms) -> list[Fraction | int]:
    """Each line's price before discounts, net of VAT. The VAT in a list price is taken at the rate actually charged;
    for a line given away, at that of the whole basket."""
    if not terms.prices_include_tax:
        return [line.amount for line in basket.lines]
    paid_in_all = sum(paid(line, terms) for line in basket.lines)
    kept = Fraction(paid_in_all - tax_of(basket), paid_in_all) if paid_in_all else Fraction(1)
    return [_before_tax(line, line.amount - line.discount, kept) for line in basket.lines]


def _before_tax(line: Line, discounted: int, kept: Fraction) -> Fraction | int:
    if discounted == 0:
        return line.amount * kept
    return Fraction(line.amount * (discounted - line.tax), discounted) if line.tax else line.amount


def check_basket(basket: Basket, terms: Terms) -> list[Finding]:
    """What does not add up in a basket; nothing if it does."""
    found = []
    for position, line in enumerate(basket.lines):
        place = ("lines", position)
        if line.discount > line.amount:
            found.append(finding((*place, "discount"), "discount_above_amount", "the discount exceeds the amount"))
        elif net(line, terms) < 0:
            found.append(finding((*place, "tax"), "tax_above_amount", "the tax exceeds the discounted amount"))
    total = sum(paid(line, terms) for line in basket.lines)
    if total != basket.total:
        found.append(finding(("total",), "total_differs", f"the lines come to {total}"))
    tendered = sum(tender.amount for tender in basket.tenders)
    if tendered != basket.total:
        found.append(finding(("tenders",), "tenders_differ", f"the tenders come to {tendered}"))
    return found


# --- earning --------------------------------------------------------------------------------------------------------


def earn(basket: Basket, terms: Terms) -> Earning:
    """The points of a basket whose sums match (`check_basket`).

    The base is what eligible lines cost, less the part of them that tenders which do not earn paid for (those pay for
    all lines in proportion). It is spread over the lines by largest remainder, and rounded into points once.
    """
    rule = terms.earning
    eligible = [_eligible(line, terms) for line in basket.lines]
    withheld = sum(tender.amount for tender in basket.tenders if tender.type in rule.non_earning_tenders)
    earning_part = Fraction(basket.total - withheld, basket.total) if basket.total else Fraction(0)
    base = round_to_int(sum(eligible) * earning_part)
    if base < rule.minimum_spend:
        base = 0
    line_bases = spread(base, eligible) if base else [0] * len(eligible)
    points = round_to_int(Fraction(base * rule.points, rule.per), rule.rounding)
    return Earning(points, (Reason("base", base, points),) if base else (), tuple(line_bases))


def _eligible(line: Line, terms: Terms) -> int:
    excluded = terms.earning.excluded
    if (
        line.quantity == 0
        or line.department in excluded.departments
        or line.category in excluded.categories
        or line.product in excluded.products
    ):
        return 0
    return net(line, terms) + (line.tax if terms.earning.earn_on_tax else 0)


# --- time -----------------------------------------------------------------------------------------------------------


def local_month(instant: datetime, terms: Terms) -> date:
    """First day of the month `instant` falls in, in the programme's zone."""
    return instant.astimezone(terms.zone).date().replace(day=1)


def expires_at(occurred_at: datetime, terms: Terms) -> datetime | None:
    """The first instant at which points earned at `occurred_at` are gone, in UTC; None if they stay.

    They are good to the end of a day of the programme's zone: the one `months` later (the last of its month where it
    has no such day), or the last of the month, quarter or year that day falls in.
    """
    if terms.expiry is None:
        return None
    last = _add_months(occurred_at.astimezone(terms.zone).date(), terms.expiry.months)
    span = {"day": 0, "month": 1, "quarter": 3, "year": 12}[terms.expiry.round_up_to]
    if span:
        first_of_next = _add_months(last.replace(day=1), span - (last.month - 1) % span)
    else:
        first_of_next = last + timedelta(days=1)
    return datetime.combine(first_of_next, time(), terms.zone).astimezone(UTC)


def _add_months(day: date, months: int) -> date:
    years, month = divmod(day.month - 1 + months, 12)
    first = date(day.year + years, month + 1, 1)
    following = (first + timedelta(days=31)).replace(day=1)
    return min(first + timedelta(days=day.day - 1), following - timedelta(days=1))
