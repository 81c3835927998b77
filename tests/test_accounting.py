"""The journal, the trial balance, the chart and the cohorts, as finance reads them."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from sqlalchemy import event

from app import accounting
from app.accounting import Chart, service
from app.ids import new_id
from app.worker import run_jobs
from tests.shop import TERMS, Shop, purchase
from tests.test_purchase import publish


def all_pages(shop: Shop, path: str, **query: Any) -> list[dict[str, Any]]:
    """Every row of a paged list, following the `Link` headers."""
    response = shop.http.get(path, params=query)
    items: list[dict[str, Any]] = response.json()["items"]
    while "next" in response.links:
        response = shop.http.get(response.links["next"]["url"])
        assert response.status_code == 200
        items += response.json()["items"]
    assert response.json()["next"] is None
    return items


def test_the_journal_is_paged_without_loss_or_repetition(shop: Shop) -> None:
    shop.batch([purchase(f"r{number}", 1000 + number) for number in range(25)])
    whole = all_pages(shop, "/v1/accounting/journal", limit=500)
    paged = all_pages(shop, "/v1/accounting/journal", limit=7)
    assert whole == paged
    assert len({row["id"] for row in whole}) == 25


def test_the_journal_is_filtered(shop: Shop) -> None:
    publish(shop, shop.clock(), posting_profile="full")
    shop.clock.forward(hours=1)
    now = shop.clock().isoformat()
    october = shop.post(purchase("oct", occurred_at="2026-10-31T23:30:00-04:00")).json()
    shop.post(purchase("nov", 3000, occurred_at=now))

    def amounts(**query: Any) -> list[int]:
        return sorted(row["amount"] for row in all_pages(shop, "/v1/accounting/journal", **query))

    assert amounts() == [8, 24, 2976]
    assert amounts(period_to="2026-10") == [8]
    assert amounts(period_from="2026-11") == [24, 2976]
    assert amounts(cause="sale") == [2976]
    assert amounts(account="1000") == [24, 2976]
    assert amounts(document_id=october["id"]) == [8]
    response = shop.http.get("/v1/accounting/journal", params={"period_from": "2026-13"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


def test_a_period_is_a_month_of_the_programmes_zone(shop: Shop) -> None:
    """23:30 on the last of October in New York is November in UTC, and an October sale."""
    shop.post(purchase(occurred_at="2026-11-01T03:30:00Z"))
    (row,) = shop.get("/v1/accounting/journal")["items"]
    (cohort,) = shop.get("/v1/accounting/cohorts")["items"]
    assert row["period"] == cohort["month"] == "2026-10"


def test_the_trial_balance_sums_to_zero_and_equals_the_journal(shop: Shop) -> None:
    publish(shop, shop.clock(), posting_profile="full")
    shop.clock.forward(hours=1)
    shop.batch([purchase(f"r{n}", 1000 + n, occurred_at=shop.clock().isoformat()) for n in range(20)])
    net: Counter[str] = Counter()
    for row in all_pages(shop, "/v1/accounting/journal"):
        net[row["debit"]] += row["amount"]
        net[row["credit"]] -= row["amount"]
    rows = shop.get("/v1/accounting/trial-balance")["items"]
    assert {row["code"]: row["balance"] for row in rows} == dict(net)
    assert sum(row["balance"] for row in rows) == 0
    assert [(row["code"], row["kind"]) for row in rows] == [("1000", "A"), ("2100", "L"), ("4000", "I")]
    assert shop.get("/v1/accounting/trial-balance", period_to="2026-10")["items"] == []


def test_a_programme_may_have_its_own_account_codes(shop: Shop) -> None:
    body = {"code": "own-chart", "name": "Own chart", "accounts": {"liability_points": "2207.01", "cash": "1001"}}
    created = shop.client("operator").post("/v1/programs", json=body)
    assert created.status_code == 201
    twice = shop.client("operator").post("/v1/programs", json=body | {"code": "x1", "accounts": {"cash": "4000"}})
    assert twice.json()["errors"][0]["code"] == "account_code_twice"
    unknown = shop.client("operator").post("/v1/programs", json=body | {"code": "x2", "accounts": {"petty": "1"}})
    assert unknown.json()["errors"][0]["code"] == "unknown_account"
    default = {row["role"]: row["code"] for row in shop.get("/v1/accounting/accounts")["items"]}
    assert default == accounting.default_codes()


def test_a_chart_is_read_once_and_only_a_whole_one_is_kept(shop: Shop) -> None:
    engine, asked = shop.database.engine, []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.extend([statement] if "FROM account" in statement else [])

    def charts(program_id: UUID) -> list[Chart]:
        return [shop.database.read(lambda session: service.chart(session, program_id)) for _ in range(3)]

    service._CHARTS.clear()
    assert charts(shop.program_id) == [accounting.default_codes()] * 3
    assert len(asked) == 1
    assert charts(new_id()) == [{}] * 3, "there may be such a programme the next time"
    assert len(asked) == 4


def test_a_new_redemption_rate_starts_a_new_cohort(shop: Shop) -> None:
    publish(shop, shop.clock(), redemption_rate={"numerator": 9, "denominator": 10})
    shop.clock.forward(hours=1)
    now = shop.clock().isoformat()
    shop.batch([purchase("old"), purchase("new", occurred_at=now), purchase("newer", occurred_at=now)])
    cohorts = shop.get("/v1/accounting/cohorts")["items"]
    assert [(c["estimate_class"], c["issued"], c["expected"]) for c in cohorts] == [
        ("4/5", 10, 8_000_000),
        ("9/10", 20, 18_000_000),
    ]


def test_a_fold_takes_up_every_change_once(shop: Shop) -> None:
    for number in range(6):
        shop.post(purchase(f"r{number}"))
    (before,) = shop.get("/v1/accounting/cohorts")["items"]
    assert (before["allocated"], before["unfolded"], before["waiting"]) == (48, 48, 6)
    assert run_jobs(shop.database, shop.clock())["fold-cohorts"] == 6
    assert run_jobs(shop.database, shop.clock())["fold-cohorts"] == 0
    shop.post(purchase("late"))
    (after,) = shop.get("/v1/accounting/cohorts")["items"]
    assert after == before | {"allocated": 56, "unfolded": 8, "waiting": 1, "issued": 70, "expected": 56_000_000} | {
        "residue": before["residue"] // 6 * 7
    }
    shop.prove()


def test_folds_at_once_and_accruals_meanwhile_lose_nothing(shop: Shop) -> None:
    stop = threading.Event()

    def fold() -> int:
        folded = 0
        while not stop.is_set():
            folded += accounting.fold(shop.database, shop.clock()).changes
        return folded + accounting.fold(shop.database, shop.clock()).changes

    def post(number: int) -> None:
        shop.batch([purchase(f"{number}-{card}", member={"card": str(card)}) for card in range(5)])

    with ThreadPoolExecutor(4) as pool:
        folds = [pool.submit(fold) for _ in range(2)]
        list(pool.map(post, range(20)))
        stop.set()
        total = sum(future.result() for future in folds)
    assert total == 20
    (cohort,) = shop.get("/v1/accounting/cohorts")["items"]
    assert (cohort["issued"], cohort["allocated"], cohort["unfolded"]) == (1000, 800, 0)
    shop.prove()


def test_terms_in_another_currency_are_accounted_apart(shop: Shop) -> None:
    """A country adopts the euro: from then on the terms are in it; nothing is added across currencies."""
    publish(shop, shop.clock(), currency="EUR", time_zone="Europe/Berlin")
    shop.clock.forward(hours=1)
    shop.batch([purchase("usd"), purchase("eur", currency="EUR", occurred_at=shop.clock().isoformat())])
    rows = shop.get("/v1/accounting/trial-balance")["items"]
    assert [(row["currency"], row["code"], row["balance"]) for row in rows] == [
        ("EUR", "2100", -8),
        ("EUR", "4000", 8),
        ("USD", "2100", -8),
        ("USD", "4000", 8),
    ]
    assert TERMS["currency"] == "USD"
    shop.prove()
