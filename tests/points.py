"""What happens to points, for tests: members who earn, hold and spend, and terms that change."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import ledger, programs
from app.ids import new_id
from app.ledger import Account, Act
from app.ledger.models import PointEntry
from app.outbox import OutboxEvent
from tests.shop import TERMS, Shop, purchase

STAYS = TERMS | {"expiry": None, "uploads": {"latest_days": None}}
"""Points stay; purchases of any age."""

EXPIRING = TERMS | {"uploads": {"latest_days": None}}
"""Good for a year, to the end of a month; purchases of any age."""


def publish(shop: Shop, terms: dict[str, Any], since: datetime | None = None) -> None:
    """New terms from now on, or from a later instant."""

    def write(session: Session) -> None:
        now = shop.clock()
        draft = programs.draft_terms(session, shop.program_id, programs.Terms.model_validate(terms), now)
        programs.publish_terms(session, shop.program_id, draft.version, now, since)

    shop.database.write(write)


def earn(shop: Shop, external_id: str, points: int, at: str | None = None, card: str = "900") -> UUID:
    """A purchase that earns `points`, now or at an instant past; answers the member."""
    occurred_at = at or shop.clock().isoformat()
    body = purchase(external_id, points * 100, occurred_at=occurred_at, member={"card": card})
    response = shop.post(body)
    assert response.status_code == 201, response.text
    return UUID(response.json()["member"]["id"])


def move(shop: Shop, member_id: UUID, verb: Any) -> None:
    """Claims a member's account with its lots, does `verb(account, act)` to it, and writes it."""

    def write(session: Session) -> None:
        now = shop.clock()
        zone = programs.zone_at(session, shop.program_id, now)
        account = programs.claim(session, shop.program_id, [member_id], now, [member_id])[member_id]
        ledger.write(session, [verb(account, Act(shop.program_id, new_id(), now, now, zone))], now)

    shop.database.write(write)


def reserve(shop: Shop, member_id: UUID, points: int, ends_at: datetime | None) -> UUID:
    """Holds points until `ends_at`; answers the hold."""
    hold_id = new_id()
    move(shop, member_id, lambda account, act: ledger.hold(account, hold_id, points, ends_at, act))
    return hold_id


def use(shop: Shop, member_id: UUID, points: int) -> None:
    """Spends points."""
    move(shop, member_id, lambda account, act: ledger.spend(account, points, act))


def look(shop: Shop, member_id: UUID) -> Account:
    """The account as it is now, with its lots."""

    def read(session: Session) -> Account:
        return programs.look(session, shop.program_id, [member_id], shop.clock(), [member_id])[member_id]

    return shop.database.read(read)


def balance(shop: Shop, member_id: UUID) -> dict[str, int]:
    """What the API answers."""
    answer: dict[str, int] = shop.get(f"/v1/members/{member_id}/balance")["balance"]
    return answer


def ladder(shop: Shop, member_id: UUID) -> list[tuple[str, int]]:
    """When how many points expire, as the API answers."""
    steps = shop.get(f"/v1/members/{member_id}/lots")["expiring"]
    return [(step["at"], step["points"]) for step in steps]


def entries(shop: Shop, member_id: UUID, kind: str) -> list[PointEntry]:
    """The entries of a kind that are written down, oldest first."""
    rows = select(PointEntry).where(PointEntry.member_id == member_id, PointEntry.kind == kind)
    return list(shop.database.read(lambda session: session.scalars(rows.order_by(PointEntry.number)).all()))


def events(shop: Shop, topic: str) -> list[dict[str, Any]]:
    """The payloads of a topic, in the order they were written."""
    rows = select(OutboxEvent.payload).where(OutboxEvent.topic == topic).order_by(OutboxEvent.id)
    return list(shop.database.read(lambda session: session.scalars(rows).all()))
