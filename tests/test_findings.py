"""What is wrong with a document is said at the place that is wrong, with what would do, and all of it at once."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import finding
from app.programs import Terms
from tests.shop import TERMS, Shop, purchase

FIVE = {"type": "fixed", "points": 5}
LEVELS = [{"code": "gold", "name": "Gold", "qualification": {"points": 10}}]


def rule(code: str, gives: Any = FIVE, **more: Any) -> dict[str, Any]:
    return {"code": code, "name": code, "gives": gives} | more


WRONG: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    # in terms that have this too: where, and what is said
    "a kind that there is not": (
        {"rules": [rule("a", {"type": "fixd", "points": 5})]},
        [("#/rules/0/gives/type", "one of fixed, per_amount, per_item, multiply is needed")],
    ),
    "no kind": (
        {"rules": [rule("a", {"points": 5})]},
        [("#/rules/0/gives/type", "one of fixed, per_amount, per_item, multiply is needed")],
    ),
    "a kind that is no text": (
        {"rules": [rule("a", {"type": [1], "points": 5})]},
        [("#/rules/0/gives/type", "one of fixed, per_amount, per_item, multiply is needed")],
    ),
    "null": ({"rules": [rule("a", None)]}, [("#/rules/0/gives", "an object is needed")]),
    "a list": ({"rules": [rule("a", [])]}, [("#/rules/0/gives", "an object is needed")]),
    "null for a window": ({"tiers": {"levels": LEVELS, "window": None}}, [("#/tiers/window", "an object is needed")]),
    "a window of another kind": (
        {"tiers": {"levels": LEVELS, "window": {"type": "lunar"}}},
        [
            (
                "#/tiers/window/type",
                "one of calendar_year, program_year, anniversary, since_last_change, rolling is needed",
            )
        ],
    ),
    "null for joining": (
        {"clubs": [{"code": "c", "name": "C", "joining": None}]},
        [("#/clubs/0/joining", "an object is needed")],
    ),
    "an occasion that there is not": (
        {"campaigns": [{"code": "c", "name": "C", "points": 5, "occasion": {"type": "full_moon"}}]},
        [
            (
                "#/campaigns/0/occasion/type",
                "one of sign_up, birthday, anniversary, win_back, referral, event is needed",
            )
        ],
    ),
    "a mode that there is not": (
        {"expiry": {"mode": "never"}},
        [("#/expiry/mode", "one of period, fixed_dates, inactivity is needed")],
    ),
    "with all that is wrong elsewhere": (
        {"rules": [rule("a", {"type": "fixd"}), rule("b", most=0)], "stacking": {"no group": "best"}},
        [
            ("#/rules/0/gives/type", "one of fixed, per_amount, per_item, multiply is needed"),
            ("#/rules/1/most", "Input should be greater than or equal to 1"),
            ("#/stacking/no group", "its name: String should match pattern '^[a-z0-9_]+$'"),
        ],
    ),
    "no name at all": (
        {"stacking": {"": "best"}},
        [("#/stacking/", "its name: String should have at least 1 character")],
    ),
    "the name of an attribute": (
        {"rules": [rule("a", who={"attributes": {"a/b": ["c"]}})]},
        [("#/rules/0/who/attributes/a~1b", "its name: String should match pattern '^[a-z0-9_]+$'")],
    ),
}


@pytest.mark.parametrize(("part", "said"), WRONG.values(), ids=WRONG.keys())
def test_terms_say_where_they_are_wrong(part: dict[str, Any], said: list[tuple[str, str]]) -> None:
    with pytest.raises(ValidationError) as caught:
        Terms.model_validate(TERMS | part)
    found = [finding(each["loc"], each["type"], each["msg"]) for each in caught.value.errors()]
    assert [(each.pointer, each.detail) for each in found] == said


def test_what_need_not_be_named_is_not() -> None:
    assert Terms.model_validate(TERMS | {"expiry": {"months": 12}}).expiry is not None
    assert Terms.model_validate(TERMS | {"expiry": None, "pending": None}).expiry is None


def problem_of(answer: Any) -> tuple[str, list[str]]:
    return answer.json()["code"], [each["pointer"] for each in answer.json().get("errors", [])]


@pytest.mark.parametrize("value", [None, "purchase", []])
def test_a_transaction_is_an_object(shop: Shop, value: Any) -> None:
    (result,) = shop.http.post("/v1/transactions/batch", json={"transactions": [value]}).json()["results"]
    assert result["problem"]["errors"] == [
        {"pointer": "#/transactions/0", "code": "model_type", "detail": "an object is needed"}
    ]


def test_a_transaction_of_another_type(shop: Shop) -> None:
    (error,) = shop.post(purchase("r1", type="gift")).json()["errors"]
    assert (error["pointer"], error["detail"]) == ("#/type", "one of purchase, return, void is needed")


def test_who_is_meant_is_pointed_at(shop: Shop) -> None:
    nobody = {"phone": "12"}
    assert problem_of(shop.post(purchase("r1", member=nobody))) == ("identifier_invalid", ["#/member/phone"])
    (result,) = shop.batch([purchase("r2", member=nobody)])
    assert [each["pointer"] for each in result["problem"]["errors"]] == ["#/transactions/0/member/phone"]
    enrolled = shop.client("staff").post(
        "/v1/members",
        json={"identifiers": [{"kind": "card", "value": "902"}, {"kind": "phone", "value": "12"}]},
        headers={"Idempotency-Key": "enrol"},
    )
    assert problem_of(enrolled) == ("identifier_invalid", ["#/identifiers/1/value"])
    looked_up = shop.http.get("/v1/members/lookup", params=nobody)
    assert problem_of(looked_up) == ("identifier_invalid", ["phone"])
    member = shop.post(purchase("r3")).json()["member"]["id"]
    assert problem_of(refer(shop, member, nobody)) == ("identifier_invalid", ["#/referrer/phone"])
    assert problem_of(refer(shop, member, {"id": member})) == ("referral_to_self", ["#/referrer"])


def refer(shop: Shop, member: str, referrer: Mapping[str, str]) -> Any:
    return shop.client("staff").put(
        f"/v1/members/{member}/referrer",
        json={"referrer": referrer},
        headers={"Idempotency-Key": f"{referrer}".replace(" ", "")},
    )


def test_a_header_is_pointed_at_by_its_name(shop: Shop) -> None:
    member = {"member": {"id": shop.post(purchase("r1")).json()["member"]["id"]}}
    asked = member | {"reward": {"code": "coffee"}}
    assert problem_of(shop.http.post("/v1/redemptions", json=asked)) == ("idempotency_key_missing", ["Idempotency-Key"])
    malformed = shop.http.post("/v1/redemptions", json=asked, headers={"Idempotency-Key": "a b"})
    assert problem_of(malformed) == ("idempotency_key_invalid", ["Idempotency-Key"])
