"""What tiers earn: more on the base, by the tier before the purchase; rules for tiers; explained and replayed."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import settings_for
from tests.shop import Shop, TestClock, open_shop, purchase, returned
from tests.test_replay import replayed
from tests.test_rule_limits import given
from tests.test_tiers import GOLD, SILVER, YEARLY, buy, check_history, code

VIP = {
    "code": "vip",
    "name": "Seven points for gold",
    "gives": {"type": "fixed", "points": 7},
    "who": {"tiers": ["gold"]},
}
LEVELS = [SILVER | {"earning_multiplier": "1.25"}, GOLD | {"earning_multiplier": "2"}]
EARNING: dict[str, Any] = YEARLY | {"tiers": {"levels": LEVELS}, "rules": [VIP]}


@pytest.fixture
def earning(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, EARNING) as shop:
        yield shop
        check_history(shop)
        shop.prove()


def test_a_purchase_earns_by_the_tier_before_it(earning: Shop) -> None:
    """2.5 points more are 2: rounded as the base is. The purchase that lifts a member does not earn by it."""
    assert given(buy(earning, "r1", 60_000)) == {}
    answer = buy(earning, "r2", 1_000)
    assert (answer["points"]["earned"], given(answer)) == (12, {"tier:silver": 2})
    assert given(buy(earning, "r3", 50_000)) == {"tier:silver": 125}
    assert given(buy(earning, "r4", 1_000)) == {"tier:gold": 10, "vip": 7}


def test_in_one_batch_as_one_by_one(earning: Shop) -> None:
    later = purchase("r3", occurred_at=earning.clock().isoformat())
    results = earning.batch([purchase("r1", 100_000), purchase("r2"), returned("b1", "r1"), later, purchase("r4")])
    assert given(results[1]["transaction"]) == {"tier:gold": 10, "vip": 7}
    assert given(results[3]["transaction"]) == {}
    assert given(results[4]["transaction"]) == {"tier:gold": 10, "vip": 7}, "it was made before the goods came back"


def test_a_preview_shows_the_upgrade_and_what_it_changes(earning: Shop) -> None:
    """Consequences of consequences: what the next purchase earns by."""
    for _ in range(2):
        told = buy(earning, "r1", 100_000, dry_run=True)["tier"]
        assert told == {"before": None, "after": "gold", "earning_multiplier": "2"}
    assert given(buy(earning, "r2", 1_000, dry_run=True)) == {}
    bodies = [purchase("r1", 100_000), purchase("r2")]
    previewed = earning.batch(bodies, dry_run=True)
    posted = earning.batch(bodies)
    for one, other in zip(previewed, posted, strict=True):
        for part in ("points", "tier", "balance"):
            assert one["transaction"][part] == other["transaction"][part]


def test_bonus_points_of_a_tier_are_deferred_and_come_back_with_the_goods(earning: Shop) -> None:
    buy(earning, "r1", 100_000)
    plain = buy(earning, "r2", 1_000, card="901")["postings"][0]["amount"]
    bonus = buy(earning, "r3", 1_000)["postings"][0]["amount"]
    assert bonus > 2 * plain
    half = earning.post(returned("b1", "r3", total=500)).json()
    assert half["points"]["earned"] == -10
    assert earning.post(returned("b2", "r3")).json()["points"]["earned"] == -17


def test_a_late_upload_earns_by_the_tier_of_its_time(earning: Shop) -> None:
    buy(earning, "r1", 60_000, "2026-06-01T12:00:00-04:00")
    assert given(buy(earning, "before", 1_000, "2026-05-31T12:00:00-04:00")) == {}
    assert given(buy(earning, "after", 1_000, "2026-06-02T12:00:00-04:00")) == {"tier:silver": 2}


def test_a_late_upload_earns_by_the_tier_of_its_time_though_that_was_lost_since(earning: Shop) -> None:
    """In October nobody knew what would come back in November; nor what a guest had bought in June."""
    buy(earning, "r1", 100_000, "2026-06-01T12:00:00-04:00")
    guest = earning.post(purchase("g1", 100_000, member=None, occurred_at="2026-06-01T12:00:00-04:00")).json()
    buy(earning, "r2", 100, card="901")
    earning.post(returned("b1", "r1", total=60_000))
    path, headers = f"/v1/transactions/{guest['id']}/claim", {"Idempotency-Key": "k1"}
    assert earning.http.post(path, json={"member": {"card": "901"}}, headers=headers).status_code == 201
    october = "2026-10-01T12:00:00-04:00"
    assert (code(earning), given(buy(earning, "late", 1_000, october))) == (None, {"tier:gold": 10, "vip": 7})
    assert (code(earning, "901"), given(buy(earning, "l2", 1_000, october, card="901"))) == ("gold", {})


def test_a_claimed_purchase_earns_by_the_tier_of_its_time(earning: Shop) -> None:
    buy(earning, "r1", 100_000, "2026-06-01T12:00:00-04:00")
    guest = earning.post(purchase("g1", member=None)).json()
    path, body = f"/v1/transactions/{guest['id']}/claim", {"member": {"card": "900"}}
    for key in ("k1", "k2"):
        claim = earning.http.post(path, json=body, headers={"Idempotency-Key": key}).json()
        assert given(claim) == {"tier:gold": 10, "vip": 7}
    explained = earning.get("/v1/transactions/store-1/g1")["explanation"]
    assert [(each["rule"], each["points"]) for each in explained] == [("base", 10), ("tier:gold", 10), ("vip", 7)]


def test_it_is_explained_when_the_tier_is_gone(earning: Shop) -> None:
    """From what is stored, to the point; and who had no such tier is told so."""
    buy(earning, "r1", 60_000)
    buy(earning, "r2", 1_000)
    earning.post(returned("b1", "r1"))
    assert code(earning) is None
    read = earning.get("/v1/transactions/store-1/r2")
    told = [(each["rule"], each["name"], each["points"], each["why"]) for each in read["explanation"]]
    assert told == [
        ("base", None, 10, None),
        ("tier:silver", "Silver", 2, None),
        ("vip", "Seven points for gold", 0, "tier"),
    ]
    assert sum(each["points"] for each in read["explanation"]) == read["points"]["earned"]


def test_a_replay_of_what_was_published_is_what_was_granted(earning: Shop) -> None:
    """By the tier that stood then, which is on record."""
    for number, total in enumerate((60_000, 1_000, 50_000, 3_300)):
        buy(earning, f"r{number}", total)
    earning.post(returned("b1", "r1"))
    same = replayed(earning.database, earning.program_id, EARNING)
    assert same.all.published == same.all.draft
    assert same.assumed == 0
    less = replayed(earning.database, earning.program_id, EARNING | {"tiers": {"levels": [SILVER, GOLD]}}).all
    assert less.published.points - less.draft.points == 2 + 125 + 33


def test_a_rule_is_for_tiers_there_are(earning: Shop) -> None:
    path = f"/v1/programs/{earning.program_id}/terms"
    for tiers in ({"levels": [SILVER]}, None):
        answer = earning.http.post(path, json=EARNING | {"tiers": tiers})
        assert answer.status_code == 422
        assert [(each["pointer"], each["code"]) for each in answer.json()["errors"]] == [
            ("#/rules/0/who/tiers/0", "unknown_tier")
        ]


def test_a_replay_says_what_it_assumes_of_purchases_from_before_there_were_tiers(
    database_url: str, clock: TestClock
) -> None:
    with open_shop(settings_for(database_url), clock) as shop:
        shop.post(purchase())
        assert replayed(shop.database, shop.program_id, EARNING).assumed == 1
