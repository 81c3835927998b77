"""A shop with clubs to test with, and what its member does there."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from app.accounting import JournalPosting
from app.clubs.models import ClubMembership
from app.outbox import OutboxEvent
from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase

PARKING = {"code": "parking", "name": "A place to park", "kind": "hard"}
PAID: dict[str, Any] = {
    "code": "friends",
    "name": "Friends of the house",
    "joining": {"type": "fee", "fee": 1000, "tax": 0, "months": 12, "welcome_points": 100, "renewal_points": 50},
    "benefits": [PARKING],
}
PROMISED: dict[str, Any] = {
    "code": "regulars",
    "name": "Regulars",
    "joining": {"type": "promise", "spend": 10_000, "months": 3},
}
BOUGHT: dict[str, Any] = {
    "code": "gardeners",
    "name": "Gardeners",
    "joining": {"type": "purchase", "minimum_spend": 5000, "on": {"departments": ["GARDEN"]}, "months": 6},
}
CLUBS: dict[str, Any] = TERMS | {
    "clubs": [PAID, PROMISED, BOUGHT],
    "uploads": {"latest_days": None},
    "rules": [
        {
            "code": "club_day",
            "name": "Ten points for members of clubs",
            "gives": {"type": "fixed", "points": 10},
            "who": {"clubs": ["friends", "regulars", "gardeners"]},
        }
    ],
}


@pytest.fixture
def clubs(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, CLUBS) as shop:
        yield shop
        shop.prove()


def buy(shop: Shop, external_id: str, total: int = 1000, department: str = "FOOD", **changes: Any) -> dict[str, Any]:
    """A purchase of now, of one department."""
    changes = {"occurred_at": shop.clock().isoformat()} | changes
    body = purchase(external_id, total, **changes)
    body["lines"][0]["department"] = department
    answer = shop.post(body)
    assert answer.status_code == 201, answer.text
    bought: dict[str, Any] = answer.json()
    return bought


def member_of(shop: Shop, card: str = "900") -> str:
    found = shop.http.get("/v1/members/lookup", params={"card": card})
    if found.status_code == 200:
        return str(found.json()["id"])
    made = shop.http.post(
        "/v1/members", json={"identifiers": [{"kind": "card", "value": card}]}, headers={"Idempotency-Key": card}
    )
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def ask(shop: Shop, path: str, body: dict[str, Any], **query: Any) -> Any:
    """Posts to a member's clubs, under a key of its own."""
    headers = {"Idempotency-Key": uuid4().hex}
    return shop.http.post(f"/v1/members/{member_of(shop)}/clubs/{path}", json=body, headers=headers, params=query)


def pay(shop: Shop, receipt: str = "f1", club: str = "friends", **query: Any) -> Any:
    return ask(shop, club, {"receipt": {"source": "store-1", "external_id": receipt}}, **query)


def belongs(shop: Shop) -> dict[str, dict[str, Any]]:
    """The clubs of the member, by code."""
    items = shop.get(f"/v1/members/{member_of(shop)}/clubs")["items"]
    return {item["code"]: item for item in items}


def posted(shop: Shop, cause: str | None = None) -> list[tuple[str, str, int]]:
    """Debit, credit and amount of the postings of fees so far, of one cause or all, in their order."""
    fees = select(ClubMembership.id)
    rows = select(JournalPosting).where(JournalPosting.document_id.in_(fees)).order_by(JournalPosting.id)
    found = shop.database.read(lambda session: session.scalars(rows).all())
    return [(row.debit, row.credit, row.amount) for row in found if cause in (None, row.cause)]


def forward_to(shop: Shop, text: str) -> None:
    shop.clock.now = datetime.fromisoformat(text)


def topics(shop: Shop) -> list[tuple[str, str]]:
    """What the world was told of clubs so far: of which, and why."""
    found = []
    rows = select(OutboxEvent).where(OutboxEvent.topic.like("member.%_club")).order_by(OutboxEvent.id)
    for row in shop.database.read(lambda session: session.scalars(rows).all()):
        found.append((row.topic.removeprefix("member.").removesuffix("_club"), row.payload["why"]))
    return found


def history(shop: Shop) -> list[dict[str, Any]]:
    """The member's memberships, the first first."""
    items: list[dict[str, Any]] = shop.get(f"/v1/members/{member_of(shop)}/clubs/memberships")["items"]
    return items[::-1]


def bonus(answer: dict[str, Any]) -> int:
    """What the rule for members of clubs gave for a purchase."""
    return sum(reason["points"] for reason in answer["points"]["reasons"] if reason["rule"] == "club_day")
