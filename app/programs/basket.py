"""What was bought and how it was paid, as rules see it. Pure; money in minor units."""

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property


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
