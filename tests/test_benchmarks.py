"""The hand-written SQL of the benchmarks writes the rows that the service writes, and reads what it answers; what is
measured is kept."""

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.db import Database
from app.programs import Terms
from benchmarks import __main__ as main
from benchmarks import baseline, report, rows, shop
from benchmarks.figures import jobs, spending, tiers
from benchmarks.figures.rules import published
from benchmarks.loop import Loop, baskets
from benchmarks.shop import Shop
from tests.conftest import Engines

MEMBERS = 20

_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T")


@dataclass(frozen=True, slots=True)
class Staged:
    shop: Shop
    database: Database
    bodies: list[dict[str, Any]]
    decided: list[dict[str, str]]

    def by_service(self, path: str, body: dict[str, Any], **headers: str) -> Any:
        before = rows.snapshot(self.database)
        with shop.in_process(self.shop) as http:
            http.post(path, json=body, headers=headers).raise_for_status()
        return rows.comparable(rows.written(before, rows.snapshot(self.database)))

    def three(self, prefix: str, *, after: int, baskets: int) -> dict[str, str]:
        """Parameters of three purchases, number 3 to 5, of `baskets` baskets after the first `after`."""
        return self.some(range(3, 6), prefix, after, baskets)

    def some(self, numbers: range, prefix: str, after: int, baskets: int) -> dict[str, str]:
        """The same of other purchases."""
        given = {"lowest": numbers[0], "highest": numbers[-1], "members": MEMBERS, "prefix": prefix}
        given |= {"after": after, "baskets": baskets}
        return {name: str(value) for name, value in given.items()} | {"program_id": str(self.shop.program_id)}

    def told(self, month: str) -> list[dict[str, Any]]:
        """The statements of a month by the service."""
        with shop.in_process(self.shop, "partner") as http:
            page = http.get(f"/v1/statements/{month}", params={"limit": 500}).raise_for_status().json()
        assert page["next"] is None
        items: list[dict[str, Any]] = page["items"]
        return items

    def by_sql(self, name: str, given: dict[str, str]) -> Any:
        return self.by_text(baseline.script(name, "18"), given)

    def by_text(self, text: str, given: dict[str, str]) -> Any:
        before = rows.snapshot(self.database)
        with psycopg.connect(self.shop.url) as connection:
            baseline.run_once(connection, text, given)
        return rows.comparable(rows.written(before, rows.snapshot(self.database)))


@pytest.fixture
def staged(engines: Engines) -> Iterator[Staged]:
    made = shop.furnish(engines.empty("postgresql"))
    shop.add_members(made, MEMBERS)
    bodies = shop.spread(shop.baskets(made), 3)
    with shop.in_process(made) as http:
        shop.post_baskets(http, [*bodies, shop.large_basket(made), shop.old_basket(made)])
        shop.add_reward(http)
    database = Database(made.settings)
    yield Staged(made, database, bodies, baseline.stage_baskets(made.url))
    assert shop.prove(made) == []
    database.close()


def test_purchase(staged: Staged) -> None:
    body = staged.bodies[1] | {"external_id": "by-service", "member": {"card": shop.card(1)}}
    by_service = staged.by_service("/v1/transactions", body)
    assert staged.by_sql("purchase", staged.decided[1] | {"number": "1", "member": "2"}) == by_service
    assert {"lot", "point_entry", "point_account", "journal_posting", "cohort_change", "outbox"} <= by_service.keys()


def test_purchase_under_tiers(staged: Staged) -> None:
    """Of members who bought before, and whom it does not move."""
    with psycopg.connect(staged.shop.url) as connection:
        ((terms,),) = connection.execute("SELECT terms FROM program_terms").fetchall()
        tiered = published(staged.shop, tiers.tiered(Terms.model_validate(terms)))
        query = "SELECT id::text FROM program_terms ORDER BY version DESC LIMIT 1"
        ((terms_id,),) = connection.execute(query).fetchall()
    first = staged.bodies[1] | {"occurred_at": tiered.at.isoformat()}
    for number in (1, 2):
        own = {"external_id": f"before-{number}", "member": {"card": shop.card(number)}}
        staged.by_service("/v1/transactions", first | own)
    later = f"{tiered.at + timedelta(milliseconds=1):%Y-%m-%dT%H:%M:%S.%fZ}"
    again = {"external_id": "by-service", "member": {"card": shop.card(1)}, "occurred_at": later}
    by_service = staged.by_service("/v1/transactions", first | again)
    given = staged.decided[1] | {"number": "1", "member": "2", "occurred_at": later, "terms_id": terms_id}
    given["content"] = json.dumps(json.loads(given["content"]) | {"occurred_at": later})
    text = tiers.counting(baseline.script("purchase", "18"), baseline.script("counted", "18"))
    assert staged.by_text(text, given) == by_service
    assert {"qualifying_entry", "member_tier"} <= by_service.keys()


def test_batch(staged: Staged) -> None:
    own = [{"external_id": f"by-service-{number}", "member": {"card": shop.card(number)}} for number in (1, 2, 3)]
    bodies = [body | mine for body, mine in zip(staged.bodies, own, strict=True)]
    by_service = staged.by_service("/v1/transactions/batch", {"transactions": bodies})
    assert staged.by_sql("purchases", staged.three("by-sql-", after=0, baskets=3)) == by_service


@pytest.mark.parametrize("act", ["redemption", "hold"])
def test_spending(staged: Staged, act: str) -> None:
    staged.by_sql("purchases", staged.three("fill-", after=3, baskets=1))
    path, body = spending.BODIES[act]
    one, other = (number * 7919 % MEMBERS + 1 for number in (3, 4))
    by_member = {"member": {"card": shop.card(one)}}
    by_service = staged.by_service(path, body | by_member, **{"Idempotency-Key": "by-service"})
    own = {"number": "4", "member": str(other)}
    given = spending.spend_parameters(staged.shop, "the answer") | own
    assert staged.by_sql(act, given) == by_service


def test_return(staged: Staged) -> None:
    """The same basket for two members: one comes back through the service, the other by SQL."""
    staged.by_sql("purchases", staged.three("fill-", after=1, baskets=1))
    numbers = [f"{number:012}" for number in (3, 4)]
    body = spending.return_body(staged.shop, numbers[0], numbers[0])
    by_service = staged.by_service("/v1/transactions", body)
    given = spending.return_parameters(staged.shop) | {"number": "4"}
    assert staged.by_sql("return", given) == by_service


def test_statements(staged: Staged) -> None:
    """Of members with holds and spends, and with points that were gone without anybody's having written that down."""
    staged.by_sql("purchases", staged.some(range(20), "gone-", after=0, baskets=3))
    staged.by_sql("purchases", staged.some(range(20, 40), "large-", after=3, baskets=1))
    staged.by_sql("purchases", staged.some(range(40, 200), "then-", after=0, baskets=3))
    with shop.in_process(staged.shop) as http:
        for number in range(1, MEMBERS, 2):
            path, body = list(spending.BODIES.values())[number // 2 % 2]
            mine = {"member": {"card": shop.card(number)}}
            http.post(path, json=body | mine, headers={"Idempotency-Key": str(number)}).raise_for_status()
    staged.by_sql("purchases", staged.some(range(200, 360), "later-", after=0, baskets=3))
    staged.by_sql("aged", {})
    month = jobs.last_month()
    begins_at = datetime.fromisoformat(month["begins_at"])
    ((statement, _),) = baseline.statements(baseline.script("statements", "18"))
    given = {"program_id": staged.shop.program_id, **month}
    with psycopg.connect(staged.shop.url, options="-c timezone=UTC") as connection:
        end = _expire_at(connection, begins_at + timedelta(days=9), begins_at - timedelta(days=9))
        by_service = staged.told(month["month"])
        by_sql = [row[0] for row in connection.execute(baseline.for_psycopg(statement), given)]
        _expire_at(connection, end, end)
    moved = [movement for told in by_service for movement in told["movements"]]
    assert {movement["kind"] for movement in moved} >= {"accrual", "expiration"}
    assert {told["closing"]["held"] for told in by_service} == {0, 50}
    assert [_read(told) for told in by_sql] == [_read(told) for told in by_service]


def _expire_at(connection: psycopg.Connection[Any], early: datetime, late: datetime) -> datetime:
    """Lets points that are to be gone expire at one instant for the first half of the members, at another for the
    others; answers when they did before."""
    gone = b"document_id IN (SELECT id FROM transaction WHERE starts_with(external_id, 'gone-'))"
    before = connection.execute(b"SELECT expires_at FROM lot WHERE " + gone).fetchall()[0][0]
    instant = b"CASE WHEN member_id <= %(middle)s THEN %(early)s ELSE %(late)s END"
    given = {"early": early, "late": late, "middle": shop.member_id(MEMBERS // 2)}
    connection.execute(b"ALTER TABLE lot DISABLE TRIGGER USER")
    connection.execute(b"UPDATE lot SET expires_at = " + instant + b" WHERE " + gone, given)
    connection.execute(b"ALTER TABLE lot ENABLE TRIGGER USER")
    connection.commit()
    assert isinstance(before, datetime)
    return before


def _read(value: Any) -> Any:
    """With instants instead of texts: the two sides write them with more digits or fewer."""
    if isinstance(value, dict):
        return {name: _read(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_read(part) for part in value]
    return datetime.fromisoformat(value) if isinstance(value, str) and _INSTANT.match(value) else value


# --- what is kept ---------------------------------------------------------------------------------------------------

WITH = {"machine": "this one", "python": "3.11.7"}


def measured(path: Path, versions: dict[str, str], ran: list[str], **ratios: float | None) -> dict[str, dict[str, Any]]:
    """The rows that are kept after a run that measured these figures, by name."""
    figures = [
        report.Figure(name, "/s", None, [1.0], [1.0], [ratio])
        if ratio
        else report.Figure(name, "", None, note="Refused")
        for name, ratio in ratios.items()
    ]
    report.write(figures, versions, ran, path)
    kept = json.loads(path.read_text())
    assert kept.keys() == {"machine", "versions", "date", "results"}
    assert kept["versions"] == versions
    return {row["name"]: row for row in kept["results"]}


def test_what_was_not_measured_again_is_kept_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    first = measured(path, WITH, ["purchases", "growth"], one=0.5, two=0.9, large=0.8)
    assert {(name, row["ratio"]) for name, row in first.items()} == {("one", 0.5), ("two", 0.9), ("large", 0.8)}
    long_ago = json.loads(path.read_text()) | {"date": "2026-01-01T00:00:00+00:00"}
    for row in long_ago["results"]:
        assert row.pop("date") > long_ago["date"]
    path.write_text(json.dumps(long_ago))
    second = measured(path, WITH, ["purchases"], one=0.6, two=None)
    assert list(second) == ["one", "two", "large"]
    assert [(row["ratio"], row["date"] == long_ago["date"]) for row in second.values()] == [
        (0.6, False),
        (None, False),
        (0.8, True),
    ]
    assert not any("versions" in row for row in second.values())


def test_what_was_measured_with_other_versions_says_so(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    measured(path, WITH, ["growth"], large=0.8)
    newer = WITH | {"python": "3.14.0"}
    assert measured(path, newer, ["purchases"], one=0.6)["large"]["versions"] == {"python": "3.11.7"}
    third = measured(path, newer | {"machine": "another"}, ["balance"], read=0.7)
    assert third["large"]["versions"] == {"python": "3.11.7", "machine": "this one"}
    assert third["one"]["versions"] == {"machine": "this one"}
    assert "versions" not in third["read"]


def test_a_group_that_was_missing_is_no_longer_when_it_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert measured(path, WITH, ["growth"], growth=None).keys() == {"growth"}
    assert measured(path, WITH, ["growth"], large=0.8).keys() == {"large"}


def test_a_look_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A quick run measures too little to take the place of a whole one."""
    measured_by = report.Figure("one", "/s", None, [1.0], [1.0], [1.0])
    monkeypatch.setattr(main, "ON_POSTGRESQL", {"purchases": lambda _bench: [measured_by]})
    monkeypatch.setattr(main, "prepared", lambda *_: nullcontext())
    monkeypatch.setattr(main, "postgres_server", lambda: nullcontext("a server"))
    monkeypatch.setattr(main, "versions_of", lambda _bench: WITH)
    path = tmp_path / "results.json"
    monkeypatch.setattr(report.write, "__defaults__", (path,))
    monkeypatch.delenv("ONLY", raising=False)
    monkeypatch.setenv("QUICK", "1")
    assert main.main() == 0
    assert not path.exists()
    monkeypatch.delenv("QUICK")
    assert main.main() == 0
    assert path.exists()


# --- on SQLite ------------------------------------------------------------------------------------------------------


def test_purchase_on_sqlite(engines: Engines) -> None:
    made = shop.furnish(engines.empty("sqlite"))
    shop.add_members(made, MEMBERS)
    (body,) = shop.spread(shop.baskets(made), 1)
    with shop.in_process(made) as http:
        shop.post_baskets(http, [body])
    database = Database(made.settings)
    by_service = Staged(made, database, [], []).by_service(
        "/v1/transactions", body | {"external_id": "by-service", "member": {"card": shop.card(1)}}
    )
    before = rows.snapshot(database)
    loop = Loop(made.url, baskets(made.url), MEMBERS, 1)
    loop.commit()
    loop.close()
    assert rows.comparable(rows.written(before, rows.snapshot(database))) == by_service
    assert shop.prove(made) == []
    database.close()
