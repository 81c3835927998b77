"""What a basket is worth, earns, pays with points, and keeps of it all when goods come back.

Pure; money in minor units, exact shares as `Fraction`s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from math import ceil, gcd
from typing import NamedTuple

from app.errors import Finding, finding
from app.money import Rounding, round_to_int, rounded, spread
from app.programs.basket import Basket, Line, Sale
from app.programs.conditions import Need, Occasion
from app.programs.earning import Considered, paid_by, stacked, standing
from app.programs.schemas import BASE, PointValue, Terms


class Reason(NamedTuple):
    """One rule's part of the points, with the base it was given on."""

    rule: str
    base: int
    points: int


class Earning(NamedTuple):
    """Points earned, why, and each line's part of the earning base (they sum to the base). `units`: of the goods that
    count towards tiers."""

    points: int
    reasons: tuple[Reason, ...]
    line_bases: tuple[int, ...]
    units: int = 0


@dataclass(frozen=True, slots=True)
class Explained:
    """What became of a rule, or of the base: the `points` it gave on its `base` (minor units), or `why` it gave none.

    `rounding` is None where nothing is rounded; `capped` says that it would have given more.
    """

    rule: str
    name: str | None
    base: int
    points: int
    rounding: Rounding | None
    why: str | None
    capped: bool = False


# --- what a basket is worth -----------------------------------------------------------------------------------------


def paid(line: Line, terms: Terms) -> int:
    """What the customer pays for a line, tax included."""
    return line.amount - line.discount + (0 if terms.prices_include_tax else line.tax)


def net(line: Line, terms: Terms) -> int:
    """What a line brings in, without tax."""
    return line.amount - line.discount - (line.tax if terms.prices_include_tax else 0)


def consideration(basket: Basket, terms: Terms) -> int:
    """What goods and points are sold for together: net of VAT and discounts, without the part paid with points."""
    return _halves_up(_net(basket, terms) * cash_part(basket))


def net_paid_with_points(basket: Basket, terms: Terms) -> int:
    """What points paid for goods, net of its VAT: with `consideration`, the whole net price."""
    return _halves_down(_net(basket, terms) * (1 - cash_part(basket)))


def tax_of(basket: Basket) -> int:
    """The VAT in what was not paid with points: with `consideration`, all that was paid in money."""
    return _halves_down(basket.tax * cash_part(basket))


def cash_part(basket: Basket) -> Fraction | int:
    """The share of the total that was not paid with points. Points pay for all lines in proportion."""
    return 1 - Fraction(basket.tendered, basket.total) if basket.tendered and basket.total else 1


def _halves_up(exact: Fraction | int) -> int:
    return round_to_int(exact, "half_up")


def _halves_down(exact: Fraction | int) -> int:
    """For what is left beside a part rounded by `_halves_up`: no unit is lost or made."""
    return exact if isinstance(exact, int) else ceil(exact - Fraction(1, 2))


def _paid(basket: Basket, terms: Terms) -> int:
    return basket.discounted + (0 if terms.prices_include_tax else basket.tax)


def _net(basket: Basket, terms: Terms) -> int:
    return basket.discounted - (basket.tax if terms.prices_include_tax else 0)


def stand_alone_prices(basket: Basket, terms: Terms) -> list[Fraction | int]:
    """Each line's price before discounts, net of VAT, without the part paid with points.

    The VAT in a list price is taken at the rate actually charged; for a line given away, at that of the whole basket.
    """
    part = cash_part(basket)
    prices = _list_prices(basket, terms)
    return prices if part == 1 else [price * part for price in prices]


def _list_prices(basket: Basket, terms: Terms) -> list[Fraction | int]:
    if not terms.prices_include_tax:
        return [line.amount for line in basket.lines]
    untaxed = Fraction(_net(basket, terms), basket.discounted) if basket.discounted else Fraction(1)
    return [_before_tax(line, line.amount - line.discount, untaxed) for line in basket.lines]


def _before_tax(line: Line, discounted: int, untaxed: Fraction) -> Fraction | int:
    if discounted == 0:
        return line.amount * untaxed
    return Fraction(line.amount * (discounted - line.tax), discounted) if line.tax else line.amount


def check_basket(basket: Basket, terms: Terms) -> list[Finding]:
    """What does not add up in a basket; nothing if it does."""
    found = []
    for position, line in enumerate(basket.lines):
        place = ("lines", position)
        if line.discount > line.amount:
            found.append(finding((*place, "discount"), "discount_above_amount", "the discount exceeds the amount"))
        elif line.tax and net(line, terms) < 0:
            found.append(finding((*place, "tax"), "tax_above_amount", "the tax exceeds the discounted amount"))
    if (total := _paid(basket, terms)) != basket.total:
        found.append(finding(("total",), "total_differs", f"the lines come to {total}"))
    tendered = sum([tender.amount for tender in basket.tenders])
    if tendered != basket.total:
        found.append(finding(("tenders",), "tenders_differ", f"the tenders come to {tendered}"))
    return found


# --- earning --------------------------------------------------------------------------------------------------------


def earn(basket: Basket, terms: Terms, occasion: Occasion) -> Earning:
    """The points of a basket whose sums match (`check_basket`).

    The base is what eligible lines cost, less the part of them that tenders which do not earn paid for (those pay for
    all lines in proportion). It is spread over the lines by largest remainder, and rounded into points once. Rules give
    more on it (`programs.earning`), and so does the member's tier; where there is no base, there are no points.
    """
    sale = _sale(basket, terms)
    earning = favoured(_base(sale, terms, terms.earning.minimum_spend), terms, occasion.tier)
    if not terms.every_rule or not earning.reasons:
        return earning
    about = terms.rulebook.about(sale, occasion)
    considered = [rule.give(sale, occasion, amount) for rule, amount in about]
    return _with(earning, [_reason(each) for each in standing(considered, terms.stacking)])


def earn_at_least(basket: Basket, terms: Terms) -> Earning:
    """What a basket earns whoever buys it, by no rule."""
    return _base(_sale(basket, terms), terms, terms.earning.minimum_spend)


def favoured(earning: Earning, terms: Terms, tier: str | None) -> Earning:
    """What nobody's tier has added to yet, with what a member's does."""
    if not earning.reasons or not terms.favours(tier):
        return earning
    base, *others = earning.reasons
    more = _of_tier(base.base, terms, tier)
    reasons = (base, more, *others) if more.points else earning.reasons
    return earning._replace(points=earning.points + more.points, reasons=reasons)


def explain(basket: Basket, terms: Terms, occasion: Occasion) -> list[Explained]:
    """What `earn` comes to and why: the base, what the member's tier adds, then each rule of the terms in their order,
    what it gives or why it gives nothing."""
    sale, rule = _sale(basket, terms), terms.earning
    reason = next(iter(_base(sale, terms, rule.minimum_spend).reasons), None)
    if reason is None:
        missed = "minimum_spend" if _base(sale, terms, 0).reasons else "nothing_earns"
        base = Explained(BASE, None, 0, 0, rule.rounding, missed)
        given = [Considered(each, 0, 0, "no_base") for each in terms.every_rule]
    else:
        why = None if reason.points else "too_little"
        base = Explained(BASE, None, reason.base, reason.points, rule.rounding, why)
        given = stacked([each.consider(sale, occasion) for each in terms.every_rule], terms.stacking)
    return [base, *_tier_explained(base.base, terms, occasion), *map(_explained, given)]


def most(basket: Basket, terms: Terms, occasion: Occasion) -> dict[str, Need]:
    """What rules with a budget could give for a basket, whoever buys it and whatever other rules do."""
    if not terms.budgeted:
        return {}
    sale, found = _sale(basket, terms), {}
    for rule in terms.rulebook.budgeted(sale, occasion):
        given = rule.apply(sale, rule.when.minimum_spend, rule.when.minimum_quantity)
        if given.points and rule.budget is not None:
            found[rule.code] = Need(given.points, rule.budget)
    return found


TIER = "tier:"
"""What the code of a tier follows in reasons; no code of a rule has a colon."""


def _of_tier(base: int, terms: Terms, code: str | None) -> Reason:
    """What a tier that earns more than others adds to the points of a base, rounded as those are."""
    tier = terms.tier(code)
    assert tier is not None
    rule, added = terms.earning, tier.added
    points = rounded(base * rule.points * added.numerator, rule.per * added.denominator, rule.rounding)
    return Reason(f"{TIER}{tier.code}", base, points)


def _tier_explained(base: int, terms: Terms, occasion: Occasion) -> list[Explained]:
    """What the member's tier added, where it earns more than others."""
    tier = terms.tier(occasion.tier)
    if not base or tier is None or not terms.favours(tier.code):
        return []
    reason = _of_tier(base, terms, tier.code)
    why = None if reason.points else "too_little"
    return [Explained(reason.rule, tier.name, base, reason.points, terms.earning.rounding, why)]


def _explained(each: Considered) -> Explained:
    rule = each.rule
    rounding = getattr(rule.gives, "rounding", None)
    return Explained(rule.code, rule.name, each.base, each.points, rounding, each.why, each.capped)


def earning_part(basket: Basket, terms: Terms) -> Fraction | int:
    """The share of the total that was paid by tenders that earn."""
    if not basket.total:
        return 0
    withheld = sum(tender.amount for tender in basket.tenders if tender.type in terms.earning.non_earning_tenders)
    return Fraction(basket.total - withheld, basket.total) if withheld else 1


def _sale(basket: Basket, terms: Terms) -> Sale:
    """All of a basket, as rules see it."""
    return Sale(
        lines=basket.lines,
        eligible=_eligible(basket, terms),
        quantities=[line.quantity for line in basket.lines],
        part=earning_part(basket, terms),
        paid_by=paid_by(basket, terms.earning.non_earning_tenders) if terms.asks_for_tenders else {},
        points=terms.earning.points,
        per=terms.earning.per,
    )


def _base(sale: Sale, terms: Terms, minimum: int) -> Earning:
    """What is earned without any rules; nothing below the `minimum`."""
    rule = terms.earning
    base = sale.base if sale.base >= minimum else 0
    line_bases = spread(base, sale.eligible) if base else [0] * len(sale.eligible)
    points = rounded(base * rule.points, rule.per, rule.rounding)
    reasons = (Reason(BASE, base, points),) if base else ()
    return Earning(points, reasons, tuple(line_bases), _units(sale, terms))


def _units(sale: Sale, terms: Terms) -> int:
    """Whole units of the goods that count towards tiers."""
    if terms.tiers is None or terms.tiers.counted.empty:
        return 0
    return int(sum(Fraction(sale.quantities[place]) for place in terms.tiers.counted.places(sale)))


def _reason(each: Considered) -> Reason:
    return Reason(each.rule.code, each.base, each.points)


def _with(earning: Earning, more: Sequence[Reason]) -> Earning:
    points = earning.points + sum(reason.points for reason in more)
    return earning._replace(points=points, reasons=(*earning.reasons, *more))


def _eligible(basket: Basket, terms: Terms) -> list[int]:
    """What each line brings in, with its tax if that earns; nothing where goods are excluded or there are none."""
    excluded, chooses = terms.earning.excluded, not terms.earning.excluded.empty
    taxed = terms.earning.earn_on_tax - terms.prices_include_tax
    return [
        0
        if not line.quantity or (chooses and excluded.contain(line))
        else line.amount - line.discount + taxed * line.tax
        for line in basket.lines
    ]


# --- paying with points ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PointsTender:
    """The part of a basket paid with points: `amount` minor units of its total, and how many `points` that costs."""

    amount: int
    points: int


def check_points_tender(basket: Basket, terms: Terms) -> list[Finding]:
    """Why a basket cannot be paid with points like this; nothing if it can, or if no points are tendered."""
    amount = basket.tendered
    if not amount:
        return []
    place = ("tenders", [tender.type for tender in basket.tenders].index("points"), "amount")
    policy = terms.points_tender
    if policy is None:
        return [finding(place, "points_tender_not_offered", "points do not pay here")]
    found = []
    points = amount / policy.value.each
    if points < policy.minimum:
        found.append(finding(place, "points_tender_below_minimum", f"at least {policy.minimum} points are needed"))
    if points.denominator != 1:
        detail = f"not a whole number of points: {_nearest(amount, policy.value, 1)}"
        found.append(finding(place, "points_tender_not_whole", detail))
    elif points % policy.step:
        detail = f"not a multiple of {policy.step} points: {_nearest(amount, policy.value, policy.step)}"
        found.append(finding(place, "points_tender_not_in_steps", detail))
    most = basket.total * policy.largest_share.fraction
    if amount > most:
        found.append(finding(place, "points_tender_above_share", f"points may pay at most {int(most)}"))
    return found


def tender_of(basket: Basket, terms: Terms) -> PointsTender | None:
    """What a basket pays with points, if it does; of a basket that `check_points_tender` finds nothing wrong with."""
    amount = basket.tendered
    if not amount or terms.points_tender is None:
        return None
    return PointsTender(amount, int(amount / terms.points_tender.value.each))


def _nearest(amount: int, value: PointValue, step: int) -> str:
    """The amounts around `amount` that are worth multiples of `step` points."""
    unit = value.amount * step // gcd(value.amount * step, value.points)
    below = amount // unit * unit
    return f"{below} or {below + unit} would do" if below else f"{unit} would do"


# --- what comes back ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of a purchase after returns. Each figure is rounded once, from what came back in all.

    So it does not matter in how many returns that was, or in which order: what one return changes is the difference
    between two of these, never negative, and all returns together change what one would have.
    """

    lines: tuple[Fraction | int, ...]
    """The part of each line that the customer keeps."""
    earning: Earning
    """Of the lines kept, at most that of the whole."""
    total: int
    """What was paid for them, tax included."""
    consideration: int
    tax: int
    net_paid_with_points: int
    """As the verbs of these names say of the whole; `tax` as `tax_of`."""
    tender: PointsTender | None
    """What of it was paid with points."""


def kept(
    basket: Basket,
    terms: Terms,
    returned: Mapping[int, Decimal],
    returned_amount: int = 0,
    reasons: Sequence[Reason] = (),
) -> Kept:
    """What is left of a purchase when so much of it has come back, in all.

    `returned`: quantities by line number, at most those bought; a line of quantity 0 comes back by being named.
    `returned_amount`: refunds that name no line, minor units with tax; they are for all that is left, in proportion.
    `reasons`: what the purchase earned by; no other rule gives points for what is left, and none more than it gave.
    ValueError for more of a line than was bought. Tenders stay in the proportions in which they paid.
    """
    parts = _parts_kept(basket, terms, returned, returned_amount)
    lines = list(zip(basket.lines, parts, strict=True))
    total = sum(paid(line, terms) * part for line, part in lines)
    price = sum(net(line, terms) * part for line, part in lines)
    cash, tender = cash_part(basket), tender_of(basket, terms)
    return Kept(
        lines=parts,
        earning=_earning_kept(basket, terms, parts, reasons),
        total=round_to_int(total),
        consideration=_halves_up(price * cash),
        tax=_halves_down(sum(line.tax * part for line, part in lines) * cash),
        net_paid_with_points=_halves_down(price * (1 - cash)),
        tender=None if tender is None else _tender_kept(tender, Fraction(total) / basket.total),
    )


def _earning_kept(basket: Basket, terms: Terms, parts: Sequence[Fraction | int], reasons: Sequence[Reason]) -> Earning:
    whole = _sale(basket, terms)
    forgiven = terms.returns.minimum_spend == "kept" and _base(whole, terms, terms.earning.minimum_spend).reasons
    eligible = [amount * part for amount, part in zip(whole.eligible, parts, strict=True)]
    quantities = [Fraction(line.quantity) * part for line, part in zip(basket.lines, parts, strict=True)]
    left = replace(whole, eligible=eligible, quantities=quantities)
    earning = _base(left, terms, 0 if forgiven else terms.earning.minimum_spend)
    given = {reason.rule: reason for reason in reasons if reason.rule != BASE}
    if not earning.reasons or not given:
        return earning
    more = []
    for before in [reason for code, reason in given.items() if code.startswith(TIER)]:
        left_of_it = _of_tier(earning.reasons[0].base, terms, before.rule.removeprefix(TIER))
        more.append(left_of_it._replace(points=min(left_of_it.points, before.points)))
    for rule in terms.every_rule:
        if given_by := given.get(rule.code):
            when = rule.when
            after = rule.apply(left, *((0, 0) if forgiven else (when.minimum_spend, when.minimum_quantity)))
            more.append(Reason(rule.code, after.base, min(after.points, given_by.points)))
    return _with(earning, [reason for reason in more if reason.points])


def _parts_kept(
    basket: Basket, terms: Terms, returned: Mapping[int, Decimal], returned_amount: int
) -> tuple[Fraction | int, ...]:
    parts = [_part_kept(line, returned.get(line.number)) for line in basket.lines]
    if returned_amount == 0:
        return tuple(parts)
    left = Fraction(sum(paid(line, terms) * part for line, part in zip(basket.lines, parts, strict=True)))
    unrefunded = max(Fraction(0), 1 - returned_amount / left) if left else Fraction(0)
    return tuple(part * unrefunded for part in parts)


def _part_kept(line: Line, returned: Decimal | None) -> Fraction | int:
    if returned is None:
        return 1
    if not 0 <= returned <= line.quantity:
        raise ValueError("more of a line came back than was bought")
    if returned == line.quantity:
        return 0  # most lines come back whole: then nothing needs a fraction
    return 1 - Fraction(returned) / Fraction(line.quantity)


def _tender_kept(tender: PointsTender, part: Fraction) -> PointsTender:
    return PointsTender(round_to_int(tender.amount * part), round_to_int(tender.points * part))
