"""Tiers that staff give or lock: by whom, why and until when; by invitation; and what is left when it ends."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from app import clients
from app.worker import run_jobs
from tests.conftest import settings_for
from tests.points import publish
from tests.shop import Shop, TestClock, make_key, open_shop, returned
from tests.test_tiers import GOLD, SILVER, YEARLY, buy, check_history, code, history, member_of, tier, until

BLACK = {"code": "black", "name": "Black"}
INVITING = YEARLY | {"tiers": {"levels": [SILVER, GOLD, BLACK]}}


@pytest.fixture
def shop(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, INVITING) as shop:
        buy(shop, "r0", 100)
        yield shop
        check_history(shop)
        shop.prove()


def decide(shop: Shop, kind: str = "manual", tier: str | None = "gold", by: Any = None, **changes: Any) -> Any:
    body = {"kind": kind, "tier": tier, "until": "2027-02-01T00:00:00-05:00", "reason": "complaint"} | changes
    body = {name: value for name, value in body.items() if value is not None}
    path = f"/v1/members/{member_of(shop)}/tier/decisions"
    return (by or shop.http).post(path, json=body, headers={"Idempotency-Key": uuid4().hex})


def end(shop: Shop, decision: dict[str, Any]) -> Any:
    path = f"/v1/members/{decision['member_id']}/tier/decisions/{decision['id']}/ending"
    return shop.http.post(path, json={"reason": "mistake"}, headers={"Idempotency-Key": uuid4().hex})


def test_a_manual_tier_is_no_floor_for_ever(shop: Shop) -> None:
    """It has an end, and then the member is where purchases have put them."""
    made = decide(shop)
    assert (made.status_code, made.json()["before"], made.json()["after"]) == (201, None, "gold")
    assert made.json()["decided_by"] == "somebody"
    stands = tier(shop)
    assert (stands["tier"]["code"], stands["decided"]) == ("gold", True)
    assert (stands["until"], stands["projected"]) == ("2027-02-01T05:00:00+00:00", None)
    assert buy(shop, "r1", 60_000)["tier"]["after"] == "gold"
    assert tier(shop)["projected"] == "silver"
    until(shop, "2027-02-01")
    assert code(shop) == "silver"
    assert run_jobs(shop.database, shop.clock())["review-tiers"] == 1
    assert history(shop) == [(None, "gold", "manual"), ("gold", "silver", "ended")]
    assert decide(shop, until=None).status_code == 422


def test_a_given_tier_goes_with_the_terms_that_have_it_no_more(shop: Shop) -> None:
    """When they take effect, whenever that is written down."""
    assert decide(shop).status_code == 201
    shop.clock.forward(hours=1)
    publish(shop, INVITING | {"tiers": {"levels": [SILVER]}})
    shop.clock.forward(minutes=1)
    run_jobs(shop.database, shop.clock())
    assert history(shop)[-1] == ("gold", None, "terms")
    changed = shop.get(f"/v1/members/{member_of(shop)}/tier/history")["items"][0]["changed_at"]
    assert changed == "2026-11-22T13:00:00+00:00"


def test_a_given_tier_is_the_least_a_locked_one_the_very_one(shop: Shop) -> None:
    decide(shop, tier="silver")
    assert buy(shop, "r1", 100_000)["tier"]["after"] == "gold"
    lock = decide(shop, "lock", None).json()
    assert (lock["tier"], lock["before"], lock["after"]) == ("gold", "gold", "gold")
    assert shop.post(returned("b1", "r1")).json()["tier"]["after"] == "gold"
    ended = end(shop, lock)
    assert (ended.status_code, ended.json()["after"], ended.json()["ended_reason"]) == (200, "silver", "mistake")
    assert [why for *_, why in history(shop)] == ["manual", "earned", "ended"]
    assert end(shop, lock).json()["code"] == "decision_ended"


def test_a_lock_on_having_none(shop: Shop) -> None:
    decide(shop, "lock", None)
    assert buy(shop, "r1", 100_000)["tier"]["after"] is None
    until(shop, "2027-02-02")
    assert code(shop) == "gold"


def test_some_tiers_are_by_invitation_only(shop: Shop) -> None:
    assert buy(shop, "r1", 10_000_000)["tier"]["after"] == "gold"
    assert tier(shop)["next"] is None
    made = decide(shop, "invitation", "black")
    assert made.json()["after"] == "black"
    listed = shop.get(f"/v1/members/{member_of(shop)}/tier/decisions")["items"]
    facts = made.json()
    assert listed == [{name: facts[name] for name in listed[0]}]


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        ({"tier": "diamond"}, 422, "tier_unknown"),
        ({"kind": "invitation", "tier": "gold"}, 422, "tier_unknown"),
        ({"until": "2026-11-22T12:00:00Z"}, 422, "until_not_later"),
        ({"kind": "lock"}, 422, "invalid_request"),
        ({"tier": None}, 422, "invalid_request"),
        ({"reason": None}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_decided(shop: Shop, body: dict[str, Any], status: int, problem: str) -> None:
    answer = decide(shop, **body)
    assert (answer.status_code, answer.json()["code"]) == (status, problem)
    assert history(shop) == []


def test_by_people_who_have_a_name_and_not_for_themselves(shop: Shop) -> None:
    """Nor by tills and partners; another programme's staff do not know the member."""
    member = member_of(shop)

    def key(kind: clients.Kind = "staff", **options: Any) -> Any:
        def make(session: Any) -> str:
            return make_key(session, kind, shop.clock(), shop.program_id, **options)

        return shop.client(shop.database.write(make))

    assert decide(shop, by=key(person=None)).json()["code"] == "no_person"
    assert decide(shop, by=key(person="eve", member_id=UUID(member))).json()["code"] == "own_account"
    assert decide(shop, by=key("partner")).status_code == 403
    assert code(shop) is None


def test_a_repeated_request_decides_once(shop: Shop) -> None:
    path = f"/v1/members/{member_of(shop)}/tier/decisions"
    body = {"kind": "manual", "tier": "gold", "until": "2027-02-01T00:00:00-05:00", "reason": "complaint"}
    first, second = (shop.http.post(path, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json() == second.json()
    assert len(shop.get(path)["items"]) == 1
    assert shop.http.post(path, json=body).json()["code"] == "idempotency_key_missing"
