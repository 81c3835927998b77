"""Real baskets as purchases: reads the sample's format (`samples/README.md`) and makes request bodies of it."""

import gzip
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

_ZONE = ZoneInfo("America/New_York")
"""The data has local times without a zone; the grocer's is assumed."""


def read_baskets(path: Path) -> Iterator[dict[str, Any]]:
    """The baskets of a file, one JSON object per line, gzipped or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            yield json.loads(line)


def purchase_body(basket: dict[str, Any]) -> dict[str, Any]:
    """A basket as the body of `POST /v1/transactions`. `sales` is what was received for a line, after discounts."""
    lines = [_line(number, line) for number, line in enumerate(basket["lines"], 1)]
    total = sum(line["amount"] - line["discount"] for line in lines)
    return {
        "type": "purchase",
        "source": f"store-{basket['store_id']}",
        "external_id": basket["basket_id"],
        "occurred_at": datetime.fromisoformat(basket["at"]).replace(tzinfo=_ZONE).isoformat(),
        "member": {"card": basket["household_id"]},
        "store": basket["store_id"],
        "channel": "pos",
        "currency": "USD",
        "lines": lines,
        "tenders": [{"type": "cash", "amount": total}],
        "total": total,
    }


def _line(number: int, line: dict[str, Any]) -> dict[str, Any]:
    discount = line["retail_discount"] + line["coupon_discount"]
    body = {
        "line": number,
        "product": line["product_id"],
        "department": line["department"],
        "category": line["category"],
        "quantity": str(line["quantity"]),
        "amount": line["sales"] + discount,
        "discount": discount,
    }
    return {name: value for name, value in body.items() if value is not None and value != ""}


def batches(bodies: Iterable[dict[str, Any]], items: int = 200, size: int = 900_000) -> Iterator[list[dict[str, Any]]]:
    """`bodies` in batches of at most `items` and `size` bytes of JSON: what the batch endpoint takes at once."""
    batch: list[dict[str, Any]] = []
    filled = 0
    for body in bodies:
        length = len(json.dumps(body)) + 2
        if batch and (len(batch) == items or filled + length > size):
            yield batch
            batch, filled = [], 0
        batch.append(body)
        filled += length
    if batch:
        yield batch
