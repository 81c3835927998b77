"""What is on the database before anything is measured: a programme, keys, a reward, members, and real baskets."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from app import clients, db, insight, programs, schema, telemetry
from app.baskets import batches, purchase_body, read_baskets
from app.clients import Kind
from app.config import Settings
from app.db import Database
from app.demo import SAMPLE, TERMS
from app.ledger import open_accounts
from app.main import create_app
from app.members.models import Member, MemberIdentifier
from app.programs import Terms

PEPPER = "a pepper for benchmarks, of more than 32 characters"
REWARD: dict[str, Any] = {
    "code": "coffee",
    "name": "Coffee",
    "points": 50,
    "supplier": {"type": "own", "cost": 40},
    "currency": "USD",
}
SOURCE = "bench"
"""One register numbers all receipts."""

LEAST_TOTAL = 200
"""A smaller basket earns too little for a posting, so it writes fewer rows."""

AT_ONCE = 10_000
"""Members written in one transaction."""


@dataclass(frozen=True, slots=True)
class Shop:
    """A migrated database with one programme, and a key of each kind. `at`: when every basket was bought."""

    settings: Settings
    program_id: UUID
    keys: Mapping[Kind, str]
    clients: Mapping[Kind, UUID]
    at: datetime

    @property
    def url(self) -> str:
        return self.settings.database_url

    def moved_to(self, url: str) -> "Shop":
        """The same shop in a copy of its database."""
        settings = self.settings.model_copy(update={"database_url": url})
        return Shop(settings, self.program_id, self.keys, self.clients, self.at)


def furnish(url: str) -> Shop:
    """A shop on an empty database."""
    settings = Settings(database_url=url, key_pepper=PEPPER)
    database, now = Database(settings), datetime.now(UTC)
    schema.migrate(database)

    def write(session: Session) -> Shop:
        program = programs.create_program(session, "bench", "Bench", now)
        terms = Terms.model_validate(TERMS | {"expiry": {"months": 12, "round_up_to": "month"}})
        draft = programs.draft_terms(session, program.id, terms, now)
        programs.publish_terms(session, program.id, draft.version, now, datetime(2000, 1, 1, tzinfo=UTC))
        ids, keys = {}, {}
        for kind in clients.KINDS:
            person = "bench" if kind == "staff" else None
            ids[kind] = clients.create_client(session, kind, f"bench {kind}", now, program_id=program.id, person=person)
            keys[kind] = clients.create_key(session, ids[kind], settings.pepper, now).text
        return Shop(settings, program.id, keys, ids, now.replace(microsecond=0) - timedelta(hours=1))

    shop = database.write(write)
    database.close()
    return shop


# --- members --------------------------------------------------------------------------------------------------------


def card(number: int) -> str:
    return f"{number:012}"


MEMBER_PREFIX = "01900000-0000-7000-8000-"


def member_id(number: int) -> UUID:
    return UUID(f"{MEMBER_PREFIX}{number:012}")


def add_members(shop: Shop, count: int, after: int = 0) -> None:
    """Members number 1 (or the one `after`) to `count`, each with a card and an empty account."""
    database, now = Database(shop.settings), datetime.now(UTC)
    for first in range(after + 1, count + 1, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, count + 1))
        database.write(partial(_enrol, program_id=shop.program_id, numbers=numbers, now=now))
    database.close()


def _enrol(session: Session, program_id: UUID, numbers: Sequence[int], now: datetime) -> None:
    facts = {"program_id": program_id, "status": "active", "enrolled_at": now, "revision": 1}
    db.insert_rows(session, Member, [{"id": member_id(number)} | facts for number in numbers])
    identifiers = [
        {"program_id": program_id, "kind": "card", "value": card(number), "member_id": member_id(number)}
        for number in numbers
    ]
    db.insert_rows(session, MemberIdentifier, identifiers)
    open_accounts(session, program_id, [member_id(number) for number in numbers])


# --- baskets --------------------------------------------------------------------------------------------------------


def baskets(shop: Shop, sample: Path = SAMPLE) -> list[dict[str, Any]]:
    """Real baskets as bodies of purchases, bought an hour ago; only those that are large enough to earn."""
    at = shop.at.isoformat()
    bodies = [purchase_body(basket) | {"occurred_at": at} for basket in read_baskets(sample)]
    return [body | {"source": SOURCE} for body in bodies if body["total"] >= LEAST_TOTAL]


def large_basket(shop: Shop) -> dict[str, Any]:
    """A purchase that gives its member 10,000 points to spend."""
    total = 1_000_000
    return {
        "type": "purchase",
        "source": f"{SOURCE}-large",
        "external_id": "large",
        "occurred_at": shop.at.isoformat(),
        "currency": "USD",
        "lines": [{"line": 1, "product": "car", "quantity": "1", "amount": total}],
        "tenders": [{"type": "card", "amount": total}],
        "total": total,
    }


def old_basket(shop: Shop) -> dict[str, Any]:
    """A purchase so long ago that its points have expired."""
    at = (shop.at - timedelta(days=500)).isoformat()
    body = next(body for body in baskets(shop) if len(body["lines"]) == 1)
    return body | {"source": f"{SOURCE}-old", "external_id": "old", "occurred_at": at}


def spread(bodies: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` of them, from the smallest to the largest in equal steps."""
    ordered = sorted(bodies, key=lambda body: len(json.dumps(body)))
    step = len(ordered) / count
    return [ordered[int(step * (position + 0.5))] for position in range(count)]


@contextmanager
def in_process(shop: Shop, kind: Kind = "staff") -> Iterator[TestClient]:
    """The service without a network, for what comes before and after the measuring."""
    telemetry.configure_logging("error")
    headers = {"Authorization": f"Bearer {shop.keys[kind]}"}
    with TestClient(create_app(shop.settings), headers=headers) as http:
        yield http


def post_baskets(http: TestClient, bodies: list[dict[str, Any]]) -> None:
    """Posts each basket once, by a member of its own, so that its decision can be read."""
    for batch in batches(_own_members(bodies)):
        results = http.post("/v1/transactions/batch", json={"transactions": batch}).raise_for_status().json()["results"]
        refused = [result["problem"] for result in results if result["status"] != 201]
        if refused:
            raise RuntimeError(f"the service refused a basket: {refused[0]}")


def _own_members(bodies: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for position, body in enumerate(bodies):
        yield body | {"member": {"card": card(999_999_000_000 + position)}}


def add_reward(http: TestClient) -> str:
    """The reward's id."""
    answer = http.post("/v1/rewards", json=REWARD, headers={"Idempotency-Key": "reward"}).raise_for_status()
    reward_id: str = answer.json()["id"]
    return reward_id


def prove(shop: Shop) -> list[str]:
    """What the proof finds wrong: nothing, if all is well."""
    database = Database(shop.settings.for_jobs())
    proof = database.read(insight.prove)
    database.close()
    return [
        f"{check.name}: {check.differences} differ, {check.shown[:2]}" for check in proof.checks if check.differences
    ]
