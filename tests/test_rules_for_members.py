"""Earning rules for certain members: a first purchase, a birthday, attributes, segments; guests, until they claim."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import settings_for
from tests.points import publish
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned
from tests.test_rule_limits import given

FIRST = {"code": "first", "gives": {"type": "fixed", "points": 500}, "who": {"first_purchase": True}}
BIRTHDAY = {
    "code": "birthday",
    "gives": {"type": "multiply", "times": 2},
    "who": {"birthday": {"days_before": 3, "days_after": 3}},
}
STUDENTS = {
    "code": "students",
    "gives": {"type": "fixed", "points": 3},
    "who": {"attributes": {"occupation": ["student", "pupil"]}, "segments": ["north", "south"]},
}
RULES = [rule | {"name": str(rule["code"])} for rule in (FIRST, BIRTHDAY, STUDENTS)]
SELECTIVE = TERMS | {"rules": RULES}
PROFILE: dict[str, Any] = {"born_on": "1990-11-24", "attributes": {"occupation": "student"}, "segments": ["south"]}


@pytest.fixture
def selective(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, SELECTIVE) as shop:
        yield shop
        shop.prove()


def enrol(shop: Shop, card: str = "900", **profile: Any) -> str:
    body = {"identifiers": [{"kind": "card", "value": card}], "profile": profile}
    answer = shop.http.post("/v1/members", json=body, headers={"Idempotency-Key": f"enrol-{card}"})
    assert answer.status_code == 201, answer.text
    id_: str = answer.json()["id"]
    return id_


def test_a_members_profile_decides(selective: Shop) -> None:
    enrol(selective, **PROFILE)
    assert given(selective.post(purchase()).json()) == {"first": 500, "birthday": 10, "students": 3}
    assert given(selective.post(purchase("r2", member={"card": "901"})).json()) == {"first": 500}


def test_a_first_purchase_is_the_first_that_is_recorded(selective: Shop) -> None:
    """Not the first to have happened, nor the first of a batch that is refused; and once, though it came back."""
    results = selective.batch([purchase("bad", total=-1), purchase("r1"), purchase("r2")])
    assert results[0]["status"] == 422
    assert [given(each["transaction"]) for each in results[1:]] == [{"first": 500}, {}]
    assert given(selective.post(purchase("r3", occurred_at="2026-11-20T12:00:00-05:00")).json()) == {}
    selective.post(returned("b1", "r1"))
    assert given(selective.post(purchase("r4")).json()) == {}


def test_whoever_bought_before_the_rule_makes_no_first_purchase(database_url: str, clock: TestClock) -> None:
    """Though what they bought earned nothing."""
    with open_shop(settings_for(database_url), clock) as shop:
        shop.post(purchase("old", total=1))
        clock.forward(seconds=1)
        publish(shop, SELECTIVE)
        clock.forward(hours=1)
        now = clock().isoformat()
        assert given(shop.post(purchase("r1", occurred_at=now)).json()) == {}
        assert given(shop.post(purchase("r2", occurred_at=now, member={"card": "901"})).json()) == {"first": 500}


def test_of_many_first_purchases_at_once_one_is(database_url: str, clock: TestClock, crowded: dict[str, int]) -> None:
    with open_shop(settings_for(database_url, **crowded), clock, SELECTIVE) as shop:
        with ThreadPoolExecutor(8) as pool:
            answers = [answer.json() for answer in pool.map(lambda n: shop.post(purchase(f"r{n}")), range(16))]
        assert sorted(given(answer).get("first", 0) for answer in answers) == [0] * 15 + [500]


def test_a_guest_is_nobody_until_the_purchase_is_claimed(selective: Shop) -> None:
    enrol(selective, **PROFILE)
    guests = [selective.post(purchase(f"g{n}", member=None)).json() for n in range(2)]
    assert [guest["points"]["claimable"] for guest in guests] == [10, 10]
    claims = [
        selective.http.post(
            f"/v1/transactions/{guest['id']}/claim",
            json={"member": {"card": "900"}},
            headers={"Idempotency-Key": guest["id"]},
        ).json()
        for guest in [*guests, guests[0]]
    ]
    first = {"first": 500, "birthday": 10, "students": 3}
    assert [given(claim) for claim in claims] == [first, {"birthday": 10, "students": 3}, first]
    assert [claim["points"]["earned"] for claim in claims] == [523, 23, 523]
    read = selective.get("/v1/transactions/store-1/g0")
    assert {each["rule"]: each["points"] for each in read["claim"]["reasons"]} == {"base": 10} | first
    assert read["member_id"] == claims[0]["member"]["id"]
    assert read["points"] == claims[0]["points"]
    explained = {each["rule"]: each["points"] for each in read["explanation"] if each["points"]}
    assert explained == {each["rule"]: each["points"] for each in read["points"]["reasons"]} == {"base": 10} | first
    assert {each["rule"]: each["points"] for each in read["explanation"]} == {"base": 10} | first
    assert selective.post(returned("b0", "g0")).json()["points"]["earned"] == -523
    assert given(selective.post(purchase("r1")).json()) == {"birthday": 10, "students": 3}


def test_a_dry_run_foresees_it_for_somebody_new(selective: Shop) -> None:
    for _ in range(2):
        assert given(selective.post(purchase(), dry_run=True).json()) == {"first": 500}
    assert given(selective.post(purchase()).json()) == {"first": 500}
    assert given(selective.post(purchase("r2"), dry_run=True).json()) == {}


def test_what_a_member_was_is_explained_when_they_are_no_more(selective: Shop) -> None:
    """And a guest is told what only a member gets."""
    member = enrol(selective, **PROFILE)
    selective.post(purchase("r1"))
    etag = selective.http.get(f"/v1/members/{member}").headers["ETag"]
    changed: dict[str, Any] = {"profile": {"born_on": None, "attributes": {}, "segments": []}}
    assert selective.http.patch(f"/v1/members/{member}", json=changed, headers={"If-Match": etag}).status_code == 200
    selective.post(purchase("r2"))
    selective.post(purchase("g1", member=None))
    said = [
        {each["rule"]: each["why"] for each in selective.get(f"/v1/transactions/store-1/{id_}")["explanation"][1:]}
        for id_ in ("r1", "r2", "g1")
    ]
    assert said == [
        {"first": None, "birthday": None, "students": None},
        {"first": "first_purchase", "birthday": "birthday", "students": "attributes"},
        {"first": "guest", "birthday": "guest", "students": "guest"},
    ]


def test_profiles_are_read_as_they_were_written(selective: Shop) -> None:
    member = enrol(selective, name="Ann", **PROFILE)
    read = selective.get(f"/v1/members/{member}")
    assert read["profile"] == {"name": "Ann", "language": None, **PROFILE}
    etag = selective.http.get(f"/v1/members/{member}").headers["ETag"]
    answer = selective.http.patch(
        f"/v1/members/{member}", json={"profile": {"segments": ["north"]}}, headers={"If-Match": etag}
    )
    assert answer.json()["profile"] == {"name": "Ann", "language": None, **PROFILE, "segments": ["north"]}


@pytest.mark.parametrize(
    ("profile", "pointer"),
    [
        ({"born_on": "1990-02-30"}, "#/profile/born_on"),
        ({"born_on": 19900101}, "#/profile/born_on"),
        ({"attributes": {"Sex": "f"}}, "#/profile/attributes/Sex"),
        ({"attributes": {"sex": 1}}, "#/profile/attributes/sex"),
        ({"segments": "vip"}, "#/profile/segments"),
        ({"segments": ["Not A Token"]}, "#/profile/segments/0"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(selective: Shop, profile: dict[str, Any], pointer: str) -> None:
    body = {"identifiers": [{"kind": "card", "value": "900"}], "profile": profile}
    answer = selective.http.post("/v1/members", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 422
    assert [error["pointer"].removesuffix("/[key]") for error in answer.json()["errors"]] == [pointer]
