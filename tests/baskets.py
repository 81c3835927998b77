"""Baskets to try rules on, made by hand or at random, and terms for them. No database."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from app.programs import Basket, Line, Occasion, Tender, Terms
from tests.shop import TERMS

OCCASION = Occasion(datetime.fromisoformat("2026-11-22T11:30:00-05:00"), "7", "pos")
"""A Sunday morning at the till."""

examples = settings(deadline=None, max_examples=100)


def terms(earning: dict[str, Any] | None = None, **changes: Any) -> Terms:
    """A point per 1.00, unless told otherwise."""
    return Terms.model_validate(TERMS | {"earning": {"points": 1, "per": 100} | (earning or {})} | changes)


def line(
    amount: int,
    *,
    number: int = 1,
    discount: int = 0,
    tax: int = 0,
    product: str = "bread",
    department: str | None = "Food",
    category: str | None = None,
    quantity: str = "1",
) -> Line:
    return Line(number, product, department, category, Decimal(quantity), amount, discount, tax)


def basket(*lines: Line, tax_on_top: bool = False, **tenders: int) -> Basket:
    """A basket whose sums match: what `tenders` leave open is paid in cash."""
    total = sum(line.amount - line.discount + (line.tax if tax_on_top else 0) for line in lines)
    paid = tenders | {"cash": total - sum(tenders.values())}
    return Basket(lines, tuple(Tender(type_, amount) for type_, amount in paid.items() if amount), total)


money = st.integers(0, 60) | st.integers(0, 10**9)
rules = st.builds(
    lambda on_tax, included, rounding, points, per, minimum: terms(
        {
            "points": points,
            "per": per,
            "rounding": rounding,
            "minimum_spend": minimum,
            "earn_on_tax": on_tax,
            "excluded": {"departments": ["Gift cards"], "categories": ["Tobacco"], "products": ["deposit"]},
        },
        prices_include_tax=included,
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["down", "half_up", "half_even", "up"]),
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.just(0) | st.integers(0, 2000),
)


@st.composite
def lines(draw: st.DrawFn) -> Line:
    amount = draw(money)
    discount = draw(st.integers(0, amount))
    return line(
        amount,
        discount=discount,
        tax=draw(st.just(0) | st.integers(0, amount - discount)),
        product=draw(st.sampled_from(["bread", "deposit"])),
        department=draw(st.sampled_from([None, "Food", "Gift cards"])),
        category=draw(st.sampled_from([None, "Tobacco"])),
        quantity=draw(st.sampled_from(["1", "0", "2.5"])),
    )


@st.composite
def baskets(draw: st.DrawFn, rule: Terms) -> Basket:
    """A basket as the service accepts it under `rule`."""
    bought = basket(*draw(st.lists(lines(), min_size=1, max_size=6)), tax_on_top=not rule.prices_include_tax)
    gift_card = draw(st.just(0) | st.just(bought.total) | st.integers(0, bought.total))
    tenders = (Tender("gift_card", gift_card), Tender("cash", bought.total - gift_card))
    return Basket(bought.lines, tenders, bought.total)
