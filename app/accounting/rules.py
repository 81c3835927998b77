"""How a sale's price is shared between goods and points, and which postings follow. Pure, exact arithmetic.

Sources: IFRS 15.73-86 (allocation by relative stand-alone selling price), B39-B43 (customer options), IE267-IE270
(Example 52); for the residual method IFRIC 13. Amounts are whole minor units, shares of them are `Fraction`s.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Literal
from uuid import UUID, uuid5

from app.money import Rounding, round_to_int, spread

Profile = Literal["adjustment", "full"]
"""`adjustment`: till or ERP books the sale, we post the deferral only. `full`: we post the whole sale."""

Method = Literal["relative", "residual"]
Cause = Literal["sale", "accrual"]
Funding = Literal["purchase"]
"""What pays for points: the purchase they came with."""

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
    residue = round((exact - share) * MILLION)
    return Allocation(share, residue, tuple(spread(consideration - share, _weights(goods_prices))))


def _weights(prices: Sequence[Fraction | int]) -> Sequence[Fraction | int]:
    return prices if any(prices) else [1] * len(prices)


def expected_points(points: int, rate: Fraction) -> int:
    """How many of `points` are expected to be used, in millionths of a point, half-even."""
    return round(points * rate * MILLION)


# --- cohorts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CohortKey:
    """The pool a lot's revenue is recognised from. Lots of one key share one redemption estimate."""

    program_id: UUID
    currency: str
    month: date
    """First day of the month of `occurred_at`, in the programme's zone."""
    funding: Funding
    estimate_class: str
    """The redemption rate in force at issue, as a fraction in lowest terms: `2/3`."""

    @property
    def id(self) -> UUID:
        """The cohort's id, the same wherever it is computed, so that no accrual has to look it up."""
        return uuid5(self.program_id, f"{self.currency}/{self.month:%Y-%m}/{self.funding}/{self.estimate_class}")


@dataclass(frozen=True, slots=True)
class CohortChange:
    """What one batch adds to one cohort: minor units, millionths of one, points, millionths of a point."""

    key: CohortKey
    allocated: int
    residue: int
    issued: int
    expected: int


def sum_changes(changes: Iterable[CohortChange]) -> list[CohortChange]:
    """One change per cohort, in the order of their ids."""
    sums: dict[CohortKey, CohortChange] = {}
    for change in changes:
        seen = sums.get(change.key)
        if seen is not None:
            change = CohortChange(  # noqa: PLW2901  # the running sum takes the item's place
                change.key,
                seen.allocated + change.allocated,
                seen.residue + change.residue,
                seen.issued + change.issued,
                seen.expected + change.expected,
            )
        sums[change.key] = change
    return sorted(sums.values(), key=lambda change: change.key.id)


# --- postings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Posting:
    """One row of the journal: `amount` minor units from the account `credit` to the account `debit`."""

    program_id: UUID
    debit: str
    credit: str
    amount: int
    currency: str
    cause: Cause
    cohort_id: UUID | None
    document_id: UUID
    occurred_at: datetime
    period: date
    """First day of the accounting month."""


@dataclass(frozen=True, slots=True)
class Sale:
    """A purchase as the journal sees it, minor units. `consideration` is net of VAT; `share` is the points' part."""

    program_id: UUID
    document_id: UUID
    currency: str
    occurred_at: datetime
    period: date
    consideration: int
    tax: int
    share: int
    cohort_id: UUID | None


def sale_postings(sale: Sale, profile: Profile, accounts: Chart) -> list[Posting]:
    """What a purchase posts. Nothing is posted for a part that is zero."""
    cash, goods = accounts["cash"], accounts["revenue_goods"]
    if profile == "adjustment":
        return grant_postings(sale, accounts)
    return _postings(
        sale,
        (cash, goods, sale.consideration - sale.share, "sale"),
        (cash, accounts["liability_points"], sale.share, "accrual"),
        (cash, accounts["vat"], sale.tax, "sale"),
    )


def grant_postings(sale: Sale, accounts: Chart) -> list[Posting]:
    """What deferring the points' part of an already booked sale posts."""
    return _postings(sale, (accounts["revenue_goods"], accounts["liability_points"], sale.share, "accrual"))


def _postings(sale: Sale, *legs: tuple[str, str, int, Cause]) -> list[Posting]:
    return [
        Posting(
            sale.program_id,
            debit,
            credit,
            amount,
            sale.currency,
            cause,
            sale.cohort_id if cause == "accrual" else None,
            sale.document_id,
            sale.occurred_at,
            sale.period,
        )
        for debit, credit, amount, cause in legs
        if amount
    ]
