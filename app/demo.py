"""`make demo`: the life of points on real baskets, through a real service on a fresh database; then books and proof.

Baskets are posted, some come back, members redeem, what is due expires, revenue is recognised.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import typer
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from app import blueprints, clients, schema, telemetry, worker
from app.baskets import batches, purchase_body, read_baskets
from app.blueprints import Blueprint
from app.config import Settings
from app.db import Database, read_url
from app.money import show
from app.programs import BASE, TIER, Club, JoinedByFee, JoinedByPurchase, Terms

SAMPLE = Path(__file__).parent.parent / "samples" / "pos-2017-01-first-1000.jsonl.gz"
EXAMPLES = {path.stem: path for path in sorted((Path(__file__).parent.parent / "docs" / "examples").glob("*.yaml"))}
"""Programmes to try, by name."""

TERMS: dict[str, Any] = {
    "currency": "USD",
    "time_zone": "America/New_York",
    "earning": {"points": 1, "per": 100},
    "point_value": {"amount": 1000, "points": 1000},
    "redemption_rate": {"numerator": 4, "denominator": 5},
    "uploads": {"latest_days": None},
}
"""One point per dollar, 1,000 points are worth 10.00, four of five are expected to be used. The baskets are from 2017,
so purchases of any age are accepted, and points live just so long that those of the first day have expired by today."""

REWARD = {
    "code": "coffee",
    "name": "Coffee",
    "points": 50,
    "supplier": {"type": "own", "cost": 40},
    "currency": "USD",
}
COMES_BACK = 25
"""Every so many-th purchase that earned points comes back."""

JOINS = 10
"""Every so many-th member pays for each club that has a fee."""


@dataclass(slots=True)
class Tally:
    """What the service answered."""

    recorded: int = 0
    points: int = 0
    returned: int = 0
    taken_back: int = 0
    redeemed: int = 0
    joined: int = 0
    reward: str = ""
    members: set[str] = field(default_factory=set)
    earned: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)
    """Points by what gave them: the base, a tier, a rule, a stamp card."""
    times: Counter[str] = field(default_factory=Counter)
    """For how many purchases."""
    full: Counter[str] = field(default_factory=Counter)
    """Which stamp cards purchases have filled."""
    brought: Counter[str] = field(default_factory=Counter)
    """Which clubs purchases have brought."""

    def add(self, results: list[dict[str, Any]]) -> None:
        for result in results:
            if (transaction := result["transaction"]) is None:
                self.refused[result["problem"]["code"]] += 1
                continue
            if transaction["type"] == "return":
                self.returned += 1
                self.taken_back += transaction["returned"]["taken_back"]
                continue
            self.recorded += 1
            self.points += transaction["points"]["earned"]
            self.earned.append(transaction)
            self._explain(transaction)
            if transaction["member"] is not None:
                self.members.add(transaction["member"]["id"])

    def _explain(self, purchase: dict[str, Any]) -> None:
        for reason in purchase["points"]["reasons"]:
            self.given[reason["rule"]] += reason["points"]
            self.times[reason["rule"]] += 1
        self.full.update(card["code"] for card in purchase["cards"] if card["released"])
        self.brought.update(club["code"] for club in purchase["clubs"])


def example(name: str) -> Blueprint:
    """One of the `EXAMPLES`, or a file's. NotABlueprint, OSError."""
    return blueprints.read(EXAMPLES.get(name, Path(name)).read_text(encoding="utf-8"))


def run(data: Path, database_url: str | None, programme: Blueprint | None = None) -> bool:
    """Posts the baskets of `data` to a `programme`, or the demo's own, and prints what came of it; answers whether all
    was taken and the proof holds."""
    telemetry.configure_logging("warning")
    bodies = [purchase_body(basket) for basket in read_baskets(data)]
    with tempfile.TemporaryDirectory() as folder, _fresh_database(database_url, Path(folder)) as url:
        settings = Settings(database_url=url, key_pepper=os.urandom(24).hex(), port=free_port())
        database = Database(settings)
        schema.migrate(database)
        operator = _key(database, settings, {"programs:create", "programs:read", "programs:write"})
        with serving(settings):
            base_url = f"http://127.0.0.1:{settings.port}"
            with httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {operator}"}, timeout=60) as http:
                first = bodies[0]["occurred_at"]
                program_id = _program(http, first) if programme is None else _founded(database, programme, first)
            staff = _key(database, settings, None, program_id)
            with httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {staff}"}, timeout=300) as http:
                tally, seconds = _post(http, bodies)
                _return_some(http, tally)
                if programme is None:
                    http.post("/v1/rewards", json=REWARD).raise_for_status()
                _redeem(http, tally)
                _join_clubs(http, tally, [] if programme is None else programme.terms.clubs)
                worker.run_jobs(database, datetime.now(UTC))
                holds = _report(http, tally, seconds, None if programme is None else programme.terms)
        database.close()
    return holds and not tally.refused


def _post(http: httpx.Client, bodies: list[dict[str, Any]]) -> tuple[Tally, float]:
    tally, start = Tally(), time.perf_counter()
    with typer.progressbar(length=len(bodies), label="posting baskets", file=sys.stderr) as bar:
        for batch in batches(bodies):
            tally.add(post_batch(http, batch))
            bar.update(len(batch))
    return tally, time.perf_counter() - start


def _return_some(http: httpx.Client, tally: Tally) -> None:
    purchases = [transaction for transaction in tally.earned if transaction["points"]["earned"]][::COMES_BACK]
    returns = [
        {
            "type": "return",
            "source": bought["source"],
            "external_id": f"{bought['external_id']}-back",
            "occurred_at": bought["occurred_at"],
            "original": {"source": bought["source"], "external_id": bought["external_id"]},
        }
        for bought in purchases
    ]
    for batch in batches(returns):
        tally.add(post_batch(http, batch))


def _redeem(http: httpx.Client, tally: Tally) -> None:
    """Everybody tries for the cheapest reward that is for all; many have too few points left."""
    rewards = [each for each in http.get("/v1/rewards").raise_for_status().json()["items"] if not each["tiers"]]
    tally.reward = min(rewards, key=lambda reward: int(reward["points"]))["code"]
    for member in sorted(tally.members):
        order = {"member": {"id": member}, "reward": {"code": tally.reward}, "immediate": True}
        answer = http.post("/v1/redemptions", json=order, headers={"Idempotency-Key": f"{tally.reward}-{member}"})
        if answer.status_code == 201:
            tally.redeemed += 1
        elif answer.json()["code"] != "insufficient_points":
            tally.refused[answer.json()["code"]] += 1


def _join_clubs(http: httpx.Client, tally: Tally, clubs: Sequence[Club]) -> None:
    for club in clubs:
        for member in sorted(tally.members)[::JOINS] if isinstance(club.joining, JoinedByFee) else ():
            receipt = {"receipt": {"source": "demo", "external_id": f"{club.code}-{member}"}}
            path, headers = f"/v1/members/{member}/clubs/{club.code}", {"Idempotency-Key": f"{club.code}-{member}"}
            http.post(path, json=receipt, headers=headers).raise_for_status()
            tally.joined += 1


def post_batch(http: httpx.Client, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of a batch, sent again while the service is busy."""
    while True:
        response = http.post("/v1/transactions/batch", json={"transactions": batch})
        if response.status_code != 503:
            results: list[dict[str, Any]] = response.raise_for_status().json()["results"]
            return results
        time.sleep(float(response.headers["Retry-After"]))


def _report(http: httpx.Client, tally: Tally, seconds: float, terms: Terms | None) -> bool:
    balance = http.get("/v1/accounting/trial-balance").raise_for_status().json()["items"]
    proof = http.get("/v1/proof").raise_for_status().json()
    cohorts = http.get("/v1/accounting/cohorts").raise_for_status().json()["items"]
    by_code = {row["code"]: -row["balance"] for row in balance}
    print(f"purchases            {tally.recorded:>14,}")
    print(f"members              {len(tally.members):>14,}")
    print(f"points earned        {tally.points:>14,}")
    print(f"  taken back         {tally.taken_back:>14,}  by {tally.returned} returns")
    print(f"  used               {sum(row['used'] for row in cohorts):>14,}  for {tally.redeemed} × {tally.reward}")
    print(f"  expired            {sum(row['expired'] for row in cohorts):>14,}")
    if tally.joined:
        print(f"memberships sold     {tally.joined:>14,}")
    print(f"recognised           {show(by_code.get('4100', 0), 'USD'):>14} USD")
    if "4400" in by_code:
        print(f"  for partners       {show(by_code['4400'], 'USD'):>14} USD  less what they are owed")
    print(f"contract liability   {show(by_code.get('2100', 0), 'USD'):>14} USD")
    if terms is not None:
        _report_programme(tally, terms)
    print("\ntrial balance                            debits         credits")
    for row in balance:
        debit, credit = show(row["debits"], row["currency"]), show(row["credits"], row["currency"])
        print(f"  {row['code']} {row['name']:<26} {debit:>14}  {credit:>14}")
    print("\nproof")
    for check in proof["checks"]:
        verdict = "holds" if check["differences"] == 0 else f"{check['differences']} DIFFER: {check['shown'][:3]}"
        print(f"  {check['name']:<36} {verdict}")
    for code, count in tally.refused.items():
        print(f"REFUSED {count}: {code}")
    print(f"\n{tally.recorded / seconds:,.0f} purchases per second, posted one batch at a time")
    return bool(proof["holds"])


def _report_programme(tally: Tally, terms: Terms) -> None:
    """What the programme's own rules, tiers, stamp cards and clubs have done to purchases."""
    tiers = [] if terms.tiers is None else [tier.code for tier in terms.tiers.levels if tier.added]
    codes = [BASE, *(f"{TIER}{code}" for code in tiers), *(rule.code for rule in terms.every_rule)]
    print("\npoints by rule                 purchases          points")
    for code in codes:
        print(f"  {code:<28}{tally.times[code]:>10,}  {tally.given[code]:>14,}")
    for card in terms.stamp_cards:
        print(f"cards filled: {card.code:<26}{tally.full[card.code]:>14,}")
    for club in terms.clubs:
        if isinstance(club.joining, JoinedByPurchase):
            print(f"clubs opened: {club.code:<26}{tally.brought[club.code]:>14,}")


# --- a service to talk to -------------------------------------------------------------------------------------------


@contextmanager
def _fresh_database(database_url: str | None, folder: Path) -> Iterator[str]:
    """A database nobody has used: a file that goes away, or a new database beside the one named, dropped at the end."""
    if database_url is None:
        yield f"sqlite:///{folder}/demo.db"
        return
    url = read_url(database_url)
    if url.get_backend_name() == "sqlite":
        if url.database and Path(url.database).exists():
            raise typer.BadParameter(f"{url.database} exists; the demo wants a fresh file")
        yield database_url
        return
    name = f"loyalty_demo_{os.getpid()}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()


@contextmanager
def serving(settings: Settings) -> Iterator[None]:
    """The service as processes of its own, ready, until the block ends."""
    environment = os.environ | {
        "DATABASE_URL": settings.database_url,
        "LOYALTY_KEY_PEPPER": settings.key_pepper.get_secret_value(),
        "LOYALTY_LOG_LEVEL": "warning",
        "LOYALTY_WORKERS": str(settings.workers),
        "PORT": str(settings.port),
    }
    server = subprocess.Popen([sys.executable, "-m", "app.cli", "serve"], env=environment)  # our own
    try:
        _wait_until_ready(f"http://127.0.0.1:{settings.port}/readyz", server)
        yield
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the service did not start")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _key(database: Database, settings: Settings, scopes: set[str] | None, program_id: str | None = None) -> str:
    now = datetime.now(UTC)

    def create(session: Session) -> clients.NewKey:
        id_ = None if program_id is None else UUID(program_id)
        client_id = clients.create_client(session, "staff", "demo", now, program_id=id_, person="demo")
        return clients.create_key(session, client_id, settings.pepper, now, scopes=scopes)

    return database.write(create).text


def _program(http: httpx.Client, first: str) -> str:
    terms = TERMS | {"expiry": _expiry(first, ZoneInfo(TERMS["time_zone"]))}
    program = http.post("/v1/programs", json={"code": "demo", "name": "Demo grocer"}).raise_for_status().json()
    path = f"/v1/programs/{program['id']}/terms"
    version = http.post(path, json=terms).raise_for_status().json()["version"]
    start = {"effective_from": "2000-01-01T00:00:00Z"}
    http.post(f"{path}/{version}/publish", json=start).raise_for_status()
    program_id: str = program["id"]
    return program_id


def _expiry(first: str, zone: ZoneInfo) -> dict[str, Any]:
    """By which the points of the first day have just expired."""
    age = (datetime.now(zone).date() - datetime.fromisoformat(first).date()).days
    return {"days": age - 1, "round_up_to": "day"}


def _founded(database: Database, programme: Blueprint, first: str) -> str:
    """A programme as its file says, but that it takes baskets of any age, whose points live as long as the demo's."""
    document = programme.document()
    document["terms"]["uploads"] = document["terms"].get("uploads", {}) | {"latest_days": None}
    document["terms"]["expiry"] = _expiry(first, programme.terms.zone)
    wanted, start = Blueprint.model_validate(document), datetime(2000, 1, 1, tzinfo=UTC)

    def found(session: Session) -> UUID:
        return blueprints.apply(session, wanted, blueprints.plan(session, wanted), datetime.now(UTC), start)

    return str(database.write(found))
