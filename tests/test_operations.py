"""What operations rely on: health, metrics, logs, limits, the command line."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app import clients, schema, telemetry
from app.baskets import read_baskets
from app.db import Database
from app.demo import SAMPLE, free_port, serving
from app.edge import Edge
from app.errors import Busy
from app.ids import new_id
from app.insight import CHECKS
from tests.conftest import Engines, settings_for
from tests.postgres import WHY_NONE
from tests.shop import PEPPER, TERMS, Shop, make_program, purchase


def test_alive_and_ready(shop: Shop) -> None:
    assert shop.get("/livez") == {"status": "alive"}
    assert shop.get("/readyz") == {"status": "ready"}


def test_not_ready_without_the_schema(shop: Shop) -> None:
    schema.migrate(shop.database, "base")
    response = shop.http.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "busy")
    assert response.headers["Retry-After"] == "1"
    assert shop.http.get("/livez").status_code == 200


def test_every_answer_carries_a_request_id(shop: Shop) -> None:
    assert len(shop.http.get("/livez").headers["x-request-id"]) == 32
    mine = {"X-Request-Id": "till-4-receipt-17"}
    response = shop.http.get("/v1/members/lookup", params={"card": "nobody"}, headers=mine)
    assert response.headers["x-request-id"] == response.json()["request_id"] == "till-4-receipt-17"
    bad = shop.http.get("/livez", headers={"X-Request-Id": "two words\t<script>"})
    assert len(bad.headers["x-request-id"]) == 32


def test_requests_are_counted_by_route_and_refusals_by_code(shop: Shop) -> None:
    shop.post(purchase())
    shop.post(purchase("r2", currency="EUR"))
    shop.http.get("/v1/members/0199d3a6-b1f0-7c1e-8a52-000000000000/balance")
    metrics = shop.http.get("/metrics").text
    assert 'loyalty_http_requests_total{method="POST",route="/v1/transactions",status="201"}' in metrics
    assert 'route="/v1/members/{member_id}/balance",status="404"' in metrics
    assert 'loyalty_problems_total{code="currency_mismatch"}' in metrics
    assert "0199d3a6" not in metrics


def test_methods_nobody_knows_share_one_label(shop: Shop) -> None:
    """Else whoever invents words fills the memory with counters."""
    for method in ("BREW", "X" * 200):
        assert shop.http.request(method, "/livez").status_code == 405
    metrics = shop.http.get("/metrics").text
    assert 'loyalty_http_requests_total{method="other",route="/livez",status="405"}' in metrics
    assert "BREW" not in metrics
    assert "XXX" not in metrics


def test_log_lines_are_json_with_route_and_trace(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    telemetry.configure_logging("info")
    try:
        trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
        shop.http.get("/v1/members/lookup", params={"card": "secret-card-77"}, headers=trace)
    finally:
        telemetry.configure_logging("error")
    telemetry.LINES.flush()
    printed = capfd.readouterr().err
    (line,) = [json.loads(line) for line in printed.splitlines() if '"request"' in line]
    assert (line["route"], line["status"], line["problem"]) == ("/v1/members/lookup", 404, "not_found")
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert "secret" not in printed


def test_head_is_answered_as_get_without_a_body(engines: Engines) -> None:
    """By a real server: load balancers ask that way. What has no GET has no HEAD either."""
    settings = settings_for(engines.fresh("sqlite"), port=free_port())
    with serving(settings), httpx.Client(base_url=f"http://127.0.0.1:{settings.port}") as http:
        for path in ("/livez", "/readyz", "/problems/busy", "/problems/no_such_problem", "/v1/programs", "/v1/nowhere"):
            got, asked = http.get(path), http.head(path)
            assert (asked.status_code, asked.content) == (got.status_code, b""), path
            assert asked.headers["content-length"] == got.headers["content-length"]
            assert asked.headers["content-type"] == got.headers["content-type"]
        assert http.head("/v1/transactions").status_code == 405
        assert 'requests_total{method="HEAD",route="/livez",status="200"} 1.0' in http.get("/metrics").text


def test_a_path_has_one_spelling(shop: Shop) -> None:
    """A slash more is another path: 404, without a redirect to follow."""
    for method, path in (("GET", "/livez/"), ("GET", "/v1/programs/"), ("POST", "/v1/members/"), ("GET", "/v1/proof/")):
        response = shop.http.request(method, path, follow_redirects=False)
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), path


# --- limits ---------------------------------------------------------------------------------------------------------


def call(edge: Edge, messages: list[Any], scope: dict[str, Any] | None = None) -> list[Any]:
    """One request through the edge: `messages` are what the client sends (None: nothing more, ever)."""
    sent: list[Any] = []
    queue = list(messages)

    async def receive() -> Any:
        if not queue:
            await asyncio.sleep(3600)
        return queue.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    request = {"type": "http", "method": "POST", "path": "/x", "headers": [], "state": {}} | (scope or {})
    asyncio.run(edge(request, receive, send))
    return sent


async def slow(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await asyncio.sleep(0.2)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def code_of(sent: list[Any]) -> str:
    code: str = json.loads(sent[1]["body"])["code"]
    return code


def test_a_body_that_never_comes_is_408() -> None:
    edge = Edge(slow, max_concurrency=5, body_seconds=0.05, body_bytes={})
    sent = call(edge, [{"type": "http.request", "body": b"{", "more_body": True}])
    assert (sent[0]["status"], code_of(sent)) == (408, "body_timeout")


def test_one_request_too_many_is_503_with_retry_after() -> None:
    edge = Edge(slow, max_concurrency=1, body_seconds=1, body_bytes={})

    async def two() -> list[int]:
        async def one() -> int:
            sent: list[Any] = []

            async def receive() -> Any:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Any) -> None:
                sent.append(message)

            await edge({"type": "http", "method": "POST", "path": "/x", "headers": [], "state": {}}, receive, send)
            status: int = sent[0]["status"]
            if status == 503:
                assert (b"retry-after", b"1") in sent[0]["headers"]
                assert code_of(sent) == Busy.code
            return status

        return list(await asyncio.gather(one(), one()))

    assert sorted(asyncio.run(two())) == [200, 503]
    assert call(edge, [{"type": "http.request", "body": b"", "more_body": False}])[0]["status"] == 200


def test_a_huge_body_is_answered_before_it_is_read_and_the_answer_arrives(engines: Engines) -> None:
    """60 MB at a real server, by a client that sends everything before it listens: it still gets the 413."""
    settings = settings_for(engines.fresh("sqlite"), port=free_port())
    with serving(settings), socket.create_connection(("127.0.0.1", settings.port)) as connection:
        head = "POST /v1/transactions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 60000000\r\n\r\n".encode())
        time.sleep(0.2)
        connection.settimeout(5)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413"), "answered before the body was sent"
        connection.sendall(b"x" * 60_000_000)


def test_a_connection_pool_that_is_empty_is_503(engines: Engines, engine: str) -> None:
    database = Database(settings_for(engines.fresh(engine), pool_size=1, pool_wait_seconds=0.1))
    with database.engine.connect(), pytest.raises(Busy):
        database.read(lambda session: session.execute(text("SELECT 1")))
    with pytest.raises(Busy), database.engine.connect():
        database.write(lambda session: session.execute(text("SELECT 1")))
    database.close()


def test_reads_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)read.?only"):
        database.read(lambda session: session.execute(text("DELETE FROM program")))


# --- the command line -----------------------------------------------------------------------------------------------


class Loyalty:
    """The command line on one database."""

    def __init__(self, url: str, folder: Path):
        self.environment = os.environ | {"DATABASE_URL": url, "LOYALTY_KEY_PEPPER": PEPPER}
        self.folder = folder

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli", *words]
        paths = {"PYTHONPATH": str(Path(__file__).parents[1])}
        environment = self.environment | paths | environment
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.folder, check=False)


@pytest.fixture
def loyalty(database_url: str, tmp_path: Path) -> Loyalty:
    return Loyalty(database_url, tmp_path)


def test_nobody_waits_for_jobs_and_the_proof(loyalty: Loyalty) -> None:
    """So what bounds the statements of others does not bound theirs."""
    short = {"LOYALTY_STATEMENT_TIMEOUT_MS": "1"}
    assert loyalty("proof", **short).returncode == 0
    assert loyalty("jobs", "run", "settle", **short).returncode == 0


def test_keys_are_created_listed_and_revoked(loyalty: Loyalty, database: Database) -> None:
    database.write(lambda session: make_program(session, TERMS, datetime.now(UTC)))
    made = loyalty("keys", "create", "--kind", "terminal", "--name", "till 4", "--program", "shop", "--store", "1")
    assert made.returncode == 0, made.stderr
    fields = dict(line.split(None, 1) for line in made.stdout.splitlines()[:3])
    second = loyalty("keys", "create", "--client", fields["client"])
    assert second.returncode == 0, second.stderr
    third = loyalty("keys", "create", "--client", fields["client"])
    assert third.returncode != 0
    assert "too_many_keys" in third.stderr
    listed = loyalty("keys", "list").stdout
    assert fields["id"] in listed
    scopes = " ".join(sorted(clients.KINDS["terminal"]))
    assert listed.count(scopes) == 2, "a second key may do the same"
    assert listed.count("till 4") == 2
    assert fields["key"].split("_")[3] not in listed, "the secret is not shown again"
    assert loyalty("keys", "revoke", fields["id"]).returncode == 0
    assert loyalty("keys", "revoke", fields["id"]).returncode != 0
    assert "revoked" in loyalty("keys", "list").stdout
    wrong = loyalty("keys", "create", "--kind", "robot", "--name", "x")
    assert wrong.returncode != 0
    assert "kind is one of" in wrong.stderr


def test_a_staff_key_names_a_person(loyalty: Loyalty, database: Database) -> None:
    database.write(lambda session: make_program(session, TERMS, datetime.now(UTC)))
    staff = ("keys", "create", "--kind", "staff", "--name", "desk 2", "--program", "shop")
    for wrong, why in (
        (staff, "--person is needed"),
        ((*staff, "--person", "j. doe", "--role", "Team Lead"), "a short word"),
        ((*staff, "--person", "j. doe", "--member", "900"), "no member 900"),
        ((*staff, "--person", "j. doe", "--member", str(new_id())), "in that programme"),
    ):
        refused = loyalty(*wrong)
        assert refused.returncode != 0
        assert why in " ".join(refused.stderr.replace("│", " ").split()), refused.stderr
    made = loyalty(*staff, "--person", " J.  Doe ", "--role", "agent")
    assert made.returncode == 0, made.stderr
    with database.engine.connect() as connection:
        (known,) = connection.execute(text("SELECT person, role FROM client")).all()
    assert tuple(known) == ("j. doe", "agent"), "one spelling, so that their next client is known to be theirs"
    assert "agent j. doe)" in loyalty("keys", "list").stdout


def test_settings_that_will_not_do_are_a_sentence(loyalty: Loyalty) -> None:
    wrong = [
        ("serve", {"LOYALTY_KEY_PEPPER": "short"}, "at least 32 characters"),
        ("serve", {"LOYALTY_KEY_PEPPER_FILE": "nowhere"}, "nowhere"),
        ("serve", {"LOYALTY_WORKERS": "many"}, "workers"),
        ("proof", {"DATABASE_URL": "no url"}, "parse"),
        ("proof", {"DATABASE_URL": "sqlite:///empty.db"}, "loyalty migrate"),
        ("proof", {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}, "loyalty migrate"),
    ]
    for command, environment, words in wrong:
        failed = loyalty(command, **environment)
        assert failed.returncode != 0, environment
        assert words in failed.stderr, failed.stderr
        assert "Traceback" not in failed.stderr, failed.stderr


def test_the_proof_command_fails_when_the_books_differ(loyalty: Loyalty, shop: Shop) -> None:
    shop.post(purchase())
    good = loyalty("proof", "--program", "shop")
    assert (good.returncode, good.stdout.count(" holds\n")) == (0, len(CHECKS))
    with shop.database.engine.begin() as connection:
        connection.execute(text("UPDATE point_account SET available = available + 1"))
    bad = loyalty("proof")
    assert bad.returncode == 1
    assert "accounts_are_sums_of_entries         1 differ" in bad.stdout


@pytest.fixture
def postgres_server(engines: Engines) -> str:
    if engines.postgres_url is None:
        pytest.skip(WHY_NONE)
    return engines.postgres_url


def test_the_demo_proves_the_books_of_real_baskets(loyalty: Loyalty) -> None:
    del loyalty.environment["DATABASE_URL"]
    shown = loyalty("demo")
    assert shown.returncode == 0, shown.stderr
    for words in ("purchases                     1,000", "members                         711", "purchases per second"):
        assert words in shown.stdout
    assert "DIFFER" not in shown.stdout


def test_the_demo_runs_on_postgresql_and_cleans_up(postgres_server: str, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps(basket) + "\n" for basket in islice(read_baskets(SAMPLE), 50)))
    shown = Loyalty(postgres_server, tmp_path)("demo", "--data", str(few))
    assert shown.returncode == 0, shown.stderr
    assert "purchases                        50" in shown.stdout
    database = Database(settings_for(postgres_server))
    with database.engine.connect() as connection:
        left = connection.execute(text("SELECT count(*) FROM pg_database WHERE datname LIKE 'loyalty_demo_%'"))
        assert left.scalar_one() == 0
    database.close()


def test_two_processes_count_in_one_place(engines: Engines) -> None:
    settings = settings_for(engines.fresh("sqlite"), port=free_port(), workers=2)
    with serving(settings):
        url = f"http://127.0.0.1:{settings.port}"
        for _ in range(20):
            httpx.get(f"{url}/livez")
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        line = next(line for line in lines if "requests_total" in line and 'route="/livez"' in line)
        assert float(line.rsplit(" ", 1)[1]) >= 20


def test_the_worker_runs_jobs_and_stops_when_told(loyalty: Loyalty, shop: Shop) -> None:
    shop.post(purchase())
    environment = loyalty.environment | {"PYTHONPATH": str(Path(__file__).parents[1])}
    worker = subprocess.Popen([sys.executable, "-m", "app.cli", "worker"], env=environment, cwd=loyalty.folder)
    try:
        deadline = time.monotonic() + 20
        while shop.get("/v1/accounting/cohorts")["items"][0]["unfolded"] and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        worker.terminate()
    assert worker.wait(timeout=10) == 0
    assert shop.get("/v1/accounting/cohorts")["items"][0]["unfolded"] == 0
