"""The chart of accounts, and how much of a price is put aside for points and given back with them. Pure, exact.

Sources: IFRS 15.73-86 (allocation by relative stand-alone selling price), B39-B43 (customer options), IE267-IE270
(Example 52); for the residual method IFRIC 13. Amounts are whole minor units, shares of them are `Fraction`s. What is
posted stands in `postings`, when the points' share becomes revenue in `recognition`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from app.money import Rounding, round_to_int, spread

Profile = Literal["adjustment", "full"]
"""`adjustment`: till or ERP books the sale, we post the deferral only. `full`: we post the whole sale."""

Method = Literal["relative", "residual"]
Cause = Literal[
    "sale",
    "accrual",
    "return",
    "redemption",
    "expiry",
    "estimate",
    "tender",
    "fulfilment",
    "write_off",
    "provision",
    "concession",
    "rounding",
    "membership",
]
"""Why something was posted. Membership: a part of its time has passed."""

Funding = Literal["purchase", "concession", "marketing"]
"""What pays for points: the purchase they came with, the price of a failed order, or our marketing."""

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Role:
    """What an account is for. `kind`: A asset, L liability, I income, X expense. `code` is the default code."""

    code: str
    name: str
    kind: Literal["A", "L", "I", "X"]


ROLES: dict[str, Role] = {
    "cash": Role("1000", "Cash and tender clearing", "A"),
    "receivable_partners": Role("1100", "Receivable: partners", "A"),
    "inventory_rewards": Role("1400", "Inventory: rewards", "A"),
    "liability_points": Role("2100", "Contract liability: points", "L"),
    "liability_membership": Role("2110", "Contract liability: membership", "L"),
    "liability_tier_status": Role("2120", "Contract liability: tier status", "L"),
    "points_tender_clearing": Role("2190", "Points-tender clearing", "L"),
    "payable_partners": Role("2200", "Payable: partners", "L"),
    "payable_unclaimed": Role("2250", "Payable: unclaimed points", "L"),
    "provision_points": Role("2300", "Provision: points given without a purchase", "L"),
    "vat": Role("2400", "Output VAT", "L"),
    "revenue_goods": Role("4000", "Revenue: goods", "I"),
    "revenue_points": Role("4100", "Revenue: points", "I"),
    "revenue_third_party_points": Role("4110", "Revenue: third-party points", "I"),
    "revenue_membership": Role("4200", "Revenue: membership", "I"),
    "revenue_partner_marketing": Role("4300", "Revenue: partner marketing", "I"),
    "revenue_commission": Role("4400", "Revenue: commission", "I"),
    "cost_goods": Role("5000", "Cost: goods", "X"),
    "cost_rewards": Role("5100", "Cost: rewards", "X"),
    "cost_third_party_points": Role("5200", "Cost: third-party points", "X"),
    "marketing_points": Role("6100", "Marketing: points", "X"),
}
"""The chart of accounts every programme starts with; a programme may choose its own codes."""

Chart = Mapping[str, str]
"""A programme's account codes by role."""


def default_codes() -> dict[str, str]:
    return {name: role.code for name, role in ROLES.items()}


# --- allocation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Allocation:
    """A price shared out: `points + sum(goods)` is the consideration, in minor units.

    `residue` is what rounding cut off the points' exact share, in millionths of a minor unit, within half a unit
    either way (a whole one in the rounding modes `up` and `down`): the exact share is `points + residue / 1,000,000`.
    """

    points: int
    residue: int
    goods: tuple[int, ...]


def allocate(
    consideration: int,
    goods_prices: Sequence[Fraction | int],
    points_price: Fraction,
    method: Method = "relative",
    rounding: Rounding = "half_even",
) -> Allocation:
    """Shares `consideration` between the lines of goods and the points sold with them.

    `consideration`: what was paid for both, minor units, net of VAT and discounts. `goods_prices`: each line's
    stand-alone price before discounts, net of VAT. `points_price`: the points' stand-alone price, that is points x
    value per point x redemption rate. The points get

        relative   consideration x points_price / (sum(goods_prices) + points_price)      IFRS 15.76
        residual   points_price, at most the consideration                                IFRIC 13

    rounded to the minor unit; goods get the rest, over the lines by largest remainder, ties to the earlier line.
    """
    together = points_price + sum(goods_prices)
    if method == "residual":
        exact = min(points_price, Fraction(consideration))
    else:
        exact = consideration * points_price / together if together else Fraction(0)
    share = round_to_int(exact, rounding)  # at most the consideration, which is a whole number
    above = exact.numerator - share * exact.denominator
    residue = round(Fraction(above * MILLION, exact.denominator))
    return Allocation(share, residue, tuple(spread(consideration - share, _weights(goods_prices))))


def _weights(prices: Sequence[Fraction | int]) -> Sequence[Fraction | int]:
    return prices if any(prices) else [1] * len(prices)


def expected_points(points: int, rate: Fraction) -> int:
    """How many of `points` are expected to be used, in millionths of a point, half-even."""
    return round(points * rate * MILLION)


def set_aside(points: int, rate: Fraction, each: Fraction, at_most: int | None = None) -> Allocation:
    """What is put aside for `points` that came with no purchase of their own, minor units: points x rate x each.

    `rate`: the part expected to be used. `each`: what one point costs us (a provision, IAS 37), or what it is worth to
    the member (a price concession, IFRS 15.51), which is `at_most` what was paid for the order it makes up for.
    """
    exact = points * rate * each
    if at_most is not None:
        exact = min(exact, Fraction(at_most))
    share = round(exact)
    return Allocation(share, round((exact - share) * MILLION), ())


def returned_part(amount: int, taken_back: int, granted: int, already: int) -> int:
    """How much of `amount` this return takes back: points `taken_back` so far, this return's included, of `granted`.

    Cumulative, so that any split into returns ends exactly as one: what the points taken back come to in all,
    half-even, less what earlier returns took `already`. 1.97 for 150 points goes back in thirds as 0.66, 0.65, 0.66.
    """
    return round(Fraction(amount * taken_back, granted)) - already
