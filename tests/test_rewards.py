"""The catalogue of rewards, and redeeming them: who pays, when it counts, and that it ends once."""

from typing import Any
from uuid import UUID, uuid4

from tests.shop import TERMS, Shop, make_key, make_program, purchase

MUG: dict[str, Any] = {
    "code": "mug",
    "name": "Enamel mug",
    "points": 1000,
    "supplier": {"type": "own", "cost": 350},
    "currency": "USD",
}


def add(shop: Shop, **changes: Any) -> Any:
    """Adds a mug for 1,000 points, or something like it, and answers the response."""
    return shop.http.post("/v1/rewards", json=MUG | changes)


def added(shop: Shop, **changes: Any) -> dict[str, Any]:
    response = add(shop, **changes)
    assert response.status_code == 201, response.text
    reward: dict[str, Any] = response.json()
    return reward


def change(shop: Shop, reward: dict[str, Any], revision: int | None, **changes: Any) -> Any:
    body = {name: value for name, value in (MUG | changes).items() if name != "code"}
    headers = {} if revision is None else {"If-Match": f'"{revision}"'}
    return shop.http.put(f"/v1/rewards/{reward['id']}", json=body, headers=headers)


def retire(shop: Shop, reward: dict[str, Any]) -> Any:
    return shop.http.post(f"/v1/rewards/{reward['id']}/retirement")


def member_with(shop: Shop, points: int, card: str = "900") -> str:
    """A member who earned `points` by one purchase."""
    answer = shop.post(purchase(f"earn-{uuid4().hex}", points * 100, member={"card": card}))
    assert answer.status_code == 201, answer.text
    member: str = answer.json()["member"]["id"]
    return member


def refusal(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


# --- the catalogue --------------------------------------------------------------------------------------------------


def test_a_reward_is_added_read_and_listed(shop: Shop) -> None:
    response = add(shop, supply=200, blackout_dates=["12-24"], limits={"per_month": 2})
    assert (response.status_code, response.headers["ETag"]) == (201, '"1"')
    mug = response.json()
    assert mug == {
        "id": mug["id"],
        "code": "mug",
        "name": "Enamel mug",
        "points": 1000,
        "item": {"kind": "goods"},
        "supplier": {"type": "own", "cost": 350},
        "currency": "USD",
        "supply": 200,
        "taken": 0,
        "left": 200,
        "active": True,
        "available_from": None,
        "available_until": None,
        "blackout_dates": ["12-24"],
        "limits": {"in_all": None, "per_month": 2},
        "created_at": "2026-11-22T12:00:00+00:00",
        "retired_at": None,
    }
    read = shop.http.get(f"/v1/rewards/{mug['id']}")
    assert (read.json(), read.headers["ETag"]) == (mug, '"1"')
    assert shop.get("/v1/rewards") == {"items": [mug], "next": None}


def test_a_reward_is_changed_by_whoever_read_it_last(shop: Shop) -> None:
    mug = added(shop)
    changed = change(shop, mug, 1, points=1200, supply=10)
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert (changed.json()["points"], changed.json()["left"], changed.json()["code"]) == (1200, 10, "mug")
    assert refusal(change(shop, mug, 1, points=1)) == (412, "precondition_failed")
    assert refusal(change(shop, mug, None, points=1)) == (428, "precondition_required")
    assert shop.get(f"/v1/rewards/{mug['id']}") == changed.json()


def test_a_code_is_taken_for_ever(shop: Shop) -> None:
    mug = added(shop)
    assert refusal(add(shop)) == (409, "reward_exists")
    assert retire(shop, mug).status_code == 200
    assert refusal(add(shop)) == (409, "reward_exists")


def test_a_retired_reward_stays_as_it_was(shop: Shop) -> None:
    mug, cup = added(shop), added(shop, code="cup")
    shop.clock.forward(days=1)
    retired = retire(shop, mug)
    assert retired.json()["retired_at"] == "2026-11-23T12:00:00+00:00"
    shop.clock.forward(days=1)
    assert retire(shop, mug).json() == retired.json(), "again changes nothing"
    assert refusal(change(shop, mug, 2)) == (409, "reward_retired")
    assert [item["id"] for item in shop.get("/v1/rewards")["items"]] == [cup["id"]]
    assert [item["id"] for item in shop.get("/v1/rewards", retired=True)["items"]] == [mug["id"]]


def test_money_is_in_the_currency_of_the_terms(shop: Shop) -> None:
    response = add(shop, currency="EUR")
    assert refusal(response) == (422, "invalid_request")
    assert response.json()["errors"][0]["pointer"] == "#/currency"
    assert refusal(change(shop, added(shop), 1, currency="EUR")) == (422, "invalid_request")


def test_without_terms_there_are_no_rewards(shop: Shop) -> None:
    operator = shop.client("operator")
    program = operator.post("/v1/programs", json={"code": "bare", "name": "Bare"}).json()["id"]
    key = shop.database.write(lambda session: make_key(session, "staff", shop.clock(), UUID(program)))
    assert refusal(shop.client(key).post("/v1/rewards", json=MUG)) == (422, "no_terms")


def test_pages_of_rewards(shop: Shop) -> None:
    codes = [added(shop, code=f"r{number}")["code"] for number in range(5)]
    first = shop.http.get("/v1/rewards", params={"limit": 2})
    seen, cursor = [item["code"] for item in first.json()["items"]], first.json()["next"]
    assert f"cursor={cursor}" in first.headers["Link"]
    while cursor:
        following = shop.get("/v1/rewards", limit=2, cursor=cursor)
        seen += [item["code"] for item in following["items"]]
        cursor = following["next"]
    assert seen == codes
    assert refusal(shop.http.get("/v1/rewards", params={"cursor": "x"})) == (400, "cursor_invalid")


def test_what_a_reward_costs_us_is_for_those_who_set_it(shop: Shop) -> None:
    mug = added(shop)
    for caller in (shop.client("terminal"), shop.client("partner")):
        shown = caller.get(f"/v1/rewards/{mug['id']}").json()
        assert shown == mug | {"supplier": None}
        assert caller.get("/v1/rewards").json()["items"] == [shown]
        assert caller.post("/v1/rewards", json=MUG).status_code == 403


def test_another_programmes_reward_is_not_there(shop: Shop) -> None:
    mug = added(shop)
    program = shop.database.write(lambda session: make_program(session, TERMS, shop.clock(), "other"))
    key = shop.database.write(lambda session: make_key(session, "staff", shop.clock(), program))
    other = shop.client(key)
    paths = ["", "/retirement"]
    answers = [other.get(f"/v1/rewards/{mug['id']}"), other.post(f"/v1/rewards/{mug['id']}{paths[1]}")]
    body = {name: value for name, value in MUG.items() if name != "code"}
    answers.append(other.put(f"/v1/rewards/{mug['id']}", json=body, headers={"If-Match": '"1"'}))
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert other.post("/v1/rewards", json=MUG).status_code == 201, "a code is unique within its programme only"


def test_adding_again_with_the_same_key_adds_once(shop: Shop) -> None:
    headers = {"Idempotency-Key": "once"}
    first = shop.http.post("/v1/rewards", json=MUG, headers=headers)
    again = shop.http.post("/v1/rewards", json=MUG, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["ETag"] == first.headers["ETag"] == '"1"'


# --- which can I get, and why not the others ------------------------------------------------------------------------


def test_a_member_sees_what_they_can_get_and_why_not_the_others(shop: Shop) -> None:
    added(shop)
    added(shop, code="cup", points=400)
    added(shop, code="gone", supply=0)
    retire(shop, added(shop, code="old"))
    member = member_with(shop, 999)
    choices = shop.get(f"/v1/members/{member}/rewards")["items"]
    assert [(item["code"], item["possible"]) for item in choices] == [("mug", False), ("cup", True), ("gone", False)]
    assert [[why["code"] for why in item["refusals"]] for item in choices] == [
        ["insufficient_points"],
        [],
        ["reward_out_of_stock", "insufficient_points"],
    ]
    assert choices[0]["refusals"][0]["missing"] == 1
    shop.http.patch(f"/v1/members/{member}", json={"status": "earn_only"}, headers={"If-Match": '"1"'})
    choices = shop.get(f"/v1/members/{member}/rewards", limit=2)
    assert [item["possible"] for item in choices["items"]] == [False, False]
    assert choices["items"][1]["refusals"][0]["code"] == "member_may_not_spend"
    rest = shop.get(f"/v1/members/{member}/rewards", limit=2, cursor=choices["next"])
    assert ([item["code"] for item in rest["items"]], rest["next"]) == (["gone"], None)


def test_nobodys_choices(shop: Shop) -> None:
    assert refusal(shop.http.get(f"/v1/members/{uuid4()}/rewards")) == (404, "not_found")


def test_points_that_have_expired_buy_nothing(shop: Shop) -> None:
    added(shop)
    member = member_with(shop, 1000)
    assert shop.get(f"/v1/members/{member}/rewards")["items"][0]["possible"]
    shop.clock.forward(days=400)
    refused = shop.get(f"/v1/members/{member}/rewards")["items"][0]["refusals"]
    assert [(why["code"], why["missing"]) for why in refused] == [("insufficient_points", 1000)]
