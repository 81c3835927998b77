"""A shop to test with: terms, purchases, and the service with keys for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from app import clients, programs
from app.config import Settings
from app.db import Database
from app.main import create_app
from app.programs import Terms

PEPPER = "a pepper for tests, of more than 32 characters"

TERMS: dict[str, Any] = {
    "currency": "USD",
    "time_zone": "America/New_York",
    "earning": {"points": 1, "per": 100},
    "point_value": {"amount": 1000, "points": 1000},
    "redemption_rate": {"numerator": 4, "denominator": 5},
    "expiry": {"months": 12, "round_up_to": "month"},
}
"""One point per dollar; 1,000 points are worth 10.00; four of five are used; good for a year, to the end of a month."""

FOREVER = TERMS | {"expiry": None, "uploads": {"latest_days": None}}
"""The same for old purchases: of any age, and the points stay."""


class TestClock:
    """A clock that shows what it is set to."""

    __test__ = False

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


def purchase(external_id: str = "r1", total: int = 1000, **changes: Any) -> dict[str, Any]:
    """The body of a purchase of one line, by card 900, an hour before the test clock starts."""
    body = {
        "type": "purchase",
        "source": "store-1",
        "external_id": external_id,
        "occurred_at": "2026-11-22T06:00:00-05:00",
        "member": {"card": "900"},
        "store": "1",
        "currency": "USD",
        "lines": [{"line": 1, "product": "p1", "department": "D1", "quantity": "1", "amount": total}],
        "tenders": [{"type": "cash", "amount": total}],
        "total": total,
    } | changes
    return {name: value for name, value in body.items() if value is not None}


def returned(external_id: str = "b1", of: str = "r1", **changes: Any) -> dict[str, Any]:
    """The body of a return of everything that is left of a purchase, half an hour before the test clock starts."""
    body = {
        "type": "return",
        "source": "store-1",
        "external_id": external_id,
        "occurred_at": "2026-11-22T06:30:00-05:00",
        "original": {"source": "store-1", "external_id": of},
        "store": "1",
    } | changes
    return {name: value for name, value in body.items() if value is not None}


def voided(external_id: str = "v1", of: str = "r1", type_: str = "purchase") -> dict[str, Any]:
    """The body of a void."""
    original = {"source": "store-1", "external_id": of, "type": type_}
    return returned(external_id, type="void", original=original)


@dataclass(frozen=True, slots=True)
class Shop:
    """The service, one programme, and callers. `http` is a member of staff with every scope of the programme."""

    app: FastAPI
    clock: TestClock
    program_id: UUID
    http: TestClient
    keys: dict[str, str]
    """A key of each kind, and `operator`: the installation's own."""

    @property
    def database(self) -> Database:
        database: Database = self.app.state.database
        return database

    def client(self, key: str) -> TestClient:
        """A caller with another key: one of `keys`, or a key's text."""
        return TestClient(
            self.app,
            headers={"Authorization": f"Bearer {self.keys.get(key, key)}"},
            raise_server_exceptions=False,
        )

    def post(self, body: dict[str, Any], **query: Any) -> Any:
        """Posts one purchase and answers the response."""
        return self.http.post("/v1/transactions", json=body, params=query)

    def batch(self, bodies: list[dict[str, Any]], key: str | None = None, **query: Any) -> list[dict[str, Any]]:
        """Posts a batch, under an `Idempotency-Key` if one is given, and answers its results."""
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"transactions": bodies}
        response = self.http.post("/v1/transactions/batch", json=body, params=query, headers=headers)
        assert response.status_code == 200, response.text
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET that must succeed."""
        response = self.http.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def prove(self) -> None:
        """The proof holds."""
        proof = self.get("/v1/proof")
        assert proof["holds"], [check for check in proof["checks"] if check["differences"]]


def make_program(
    session: Session, terms: dict[str, Any], now: datetime, code: str = "shop", since: datetime | None = None
) -> UUID:
    """A programme with `terms` published since the year 2000, or `since`."""
    program = programs.create_program(session, code, f"The {code}", now)
    draft = programs.draft_terms(session, program.id, Terms.model_validate(terms), now)
    programs.publish_terms(session, program.id, draft.version, now, since or datetime(2000, 1, 1, tzinfo=UTC))
    return program.id


def make_key(session: Session, kind: clients.Kind, now: datetime, program_id: UUID | None, **options: Any) -> str:
    """A key of a new client; one of staff names a person, `somebody` unless the options say."""
    if kind == "staff":
        options.setdefault("person", "somebody")
    scopes = options.pop("scopes", None)
    expires_at = options.pop("expires_at", None)
    client_id = clients.create_client(session, kind, f"test {kind}", now, program_id=program_id, **options)
    return clients.create_key(session, client_id, PEPPER.encode(), now, scopes=scopes, expires_at=expires_at).text


@contextmanager
def open_shop(settings: Settings, clock: TestClock, terms: dict[str, Any] = TERMS) -> Iterator[Shop]:
    """The service on a migrated database, with one programme."""
    app = create_app(settings, clock)
    database: Database = app.state.database

    def furnish(session: Session) -> tuple[UUID, dict[str, str]]:
        program_id = make_program(session, terms, clock())
        keys: dict[str, str] = {kind: make_key(session, kind, clock(), program_id) for kind in clients.KINDS}
        operator = {"programs:create", "programs:read", "programs:write"}
        keys["operator"] = make_key(session, "staff", clock(), None, scopes=operator)
        return program_id, keys

    program_id, keys = database.write(furnish)
    http = TestClient(app, headers={"Authorization": f"Bearer {keys['staff']}"}, raise_server_exceptions=False)
    with http:
        yield Shop(app, clock, program_id, http, keys)
