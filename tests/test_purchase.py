"""A till posts a purchase: points, balance and the deferred-revenue entry."""

from tests.shop import Shop, purchase


def test_a_purchase_earns_and_defers(shop: Shop) -> None:
    """10.00 at one point per dollar: 10 points worth 0.10, 8 expected, so 10.00 x 0.08 / 10.08 = 0.079 is deferred."""
    answer = shop.post(purchase()).json()
    assert answer["points"] == {
        "earned": 10,
        "pending": 0,
        "qualifying": 10,
        "claimable": 0,
        "reasons": [{"rule": "base", "base": 1000, "points": 10}],
    }
    assert answer["balance"] == {"available": 10, "held": 0, "pending": 0, "debt": 0}
    assert answer["expiring_next"] == {"points": 10, "at": "2027-12-01T00:00:00-05:00"}
    assert answer["postings"] == [
        {"debit": "4000", "credit": "2100", "amount": 8, "currency": "USD", "cause": "accrual"}
    ]
    shop.prove()
