"""What was bought and how it was paid, as rules see it. Pure; money in minor units."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import floor

from app.money import round_to_int


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


@dataclass(frozen=True)  # without slots: its sums are kept
class Basket:
    """What was bought and how it was paid."""

    lines: tuple[Line, ...]
    tenders: tuple[Tender, ...]
    total: int

    @cached_property
    def discounted(self) -> int:
        """What the lines come to after discounts, with tax or without, as the terms have prices."""
        return sum([line.amount - line.discount for line in self.lines])

    @cached_property
    def tax(self) -> int:
        return sum([line.tax for line in self.lines])

    @cached_property
    def tendered(self) -> int:
        """What was paid with points, tax included."""
        return sum([tender.amount for tender in self.tenders if tender.type == "points"])


@dataclass(frozen=True)  # without slots: where its goods are is kept
class Sale:
    """A purchase, or what is left of one, for rules to look at.

    By line: what of it is `eligible` for points, in minor units, and the `quantities`. `part` is the share of the total
    that was paid by tenders that earn; `paid_by` that of each of these. The base gives `points` `per` minor units.
    """

    lines: Sequence[Line]
    eligible: Sequence[Fraction | int]
    quantities: Sequence[Fraction | Decimal]
    part: Fraction | int
    paid_by: Mapping[str, Fraction | int]
    points: int
    per: int

    def amount(self, places: Iterable[int]) -> Fraction | int:
        """What of the lines at some positions is eligible for points."""
        return sum([self.eligible[place] for place in places])

    @cached_property
    def base(self) -> int:
        """What all of it earns on."""
        return round_to_int(sum(self.eligible) * self.part)

    @cached_property
    def units(self) -> int:
        """How many there are of all that earns, whole ones."""
        return floor(sum([self.quantities[place] for place in self.everything]))

    @cached_property
    def everything(self) -> list[int]:
        """The positions of the lines that earn."""
        return [place for place, amount in enumerate(self.eligible) if amount]

    @cached_property
    def by_department(self) -> dict[str | None, list[int]]:
        """The same by department; so too by category and product."""
        return self._by([line.department for line in self.lines])

    @cached_property
    def by_category(self) -> dict[str | None, list[int]]:
        return self._by([line.category for line in self.lines])

    @cached_property
    def by_product(self) -> dict[str | None, list[int]]:
        return self._by([line.product for line in self.lines])

    def _by(self, names: Sequence[str | None]) -> dict[str | None, list[int]]:
        found: dict[str | None, list[int]] = {}
        for place in self.everything:
            found.setdefault(names[place], []).append(place)
        return found
