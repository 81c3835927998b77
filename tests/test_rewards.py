"""The catalogue of rewards, and redeeming them: who pays, when it counts, and that it ends once."""

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from app import ledger
from app.redemptions import catalogue
from app.redemptions.models import RewardRow
from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, make_key, make_program, open_shop, purchase
from tests.test_purchase import statements

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
        "tiers": [],
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


# --- redeeming ------------------------------------------------------------------------------------------------------


def redeem(shop: Shop, member: str, reward: str = "mug", *, key: str | None = None, **rest: Any) -> Any:
    """Orders a reward for a member, under a key of its own unless given one, and answers the response."""
    query = {name: rest.pop(name) for name in ("dry_run",) if name in rest}
    body = {"member": {"id": member}, "reward": {"code": reward}} | rest
    return _redeem(shop, body, key, **query)


def _redeem(shop: Shop, body: dict[str, Any], key: str | None = None, **query: Any) -> Any:
    headers = {"Idempotency-Key": key or uuid4().hex}
    return shop.http.post("/v1/redemptions", json=body, params=query, headers=headers)


def ordered(shop: Shop, member: str, reward: str = "mug", **rest: Any) -> dict[str, Any]:
    response = redeem(shop, member, reward, **rest)
    assert response.status_code == 201, response.text
    redemption: dict[str, Any] = response.json()
    return redemption


def end(shop: Shop, redemption: dict[str, Any], how: str, *, key: str | None = None, **query: Any) -> Any:
    """Ends a redemption by `fulfilment` or `cancellation` and answers the response."""
    headers = {"Idempotency-Key": key or uuid4().hex}
    return shop.http.post(f"/v1/redemptions/{redemption['id']}/{how}", params=query, headers=headers)


def balance(shop: Shop, member: str) -> dict[str, int]:
    figures: dict[str, int] = shop.get(f"/v1/members/{member}/balance")["balance"]
    return figures


def kinds(shop: Shop, member: str) -> list[tuple[str, int]]:
    """A member's entries, oldest first: kind, and net change of the balance."""
    entries = shop.get(f"/v1/members/{member}/entries")["items"]
    return [(entry["kind"], entry["points"]) for entry in reversed(entries)]


def journal(shop: Shop, redemption: dict[str, Any]) -> list[tuple[str, str, int, str]]:
    rows = shop.get("/v1/accounting/journal", document_id=redemption["id"])["items"]
    return [(row["debit"], row["credit"], row["amount"], row["cause"]) for row in rows]


def events(shop: Shop) -> list[str]:
    """The topics about redemptions and vouchers that left, oldest first."""
    statement = text("SELECT topic FROM outbox WHERE topic LIKE 'redemption.%' OR topic LIKE 'voucher.%' ORDER BY id")
    return list(shop.database.read(lambda session: session.execute(statement).scalars().all()))


def used(shop: Shop) -> int:
    """Points that count as used in the cohorts, folded or not."""
    shop.http.post("/v1/accounting/recognitions")
    return sum(cohort["used"] for cohort in shop.get("/v1/accounting/cohorts")["items"])


def test_at_a_till_it_is_ordered_and_handed_over_at_once(shop: Shop) -> None:
    mug, member = added(shop), member_with(shop, 1500)
    redemption = ordered(shop, member, immediate=True)
    lot = shop.get(f"/v1/members/{member}/lots")["items"][0]
    assert redemption == {
        "id": redemption["id"],
        "status": "fulfilled",
        "member_id": member,
        "reward": {"id": mug["id"], "code": "mug", "name": "Enamel mug"},
        "quantity": 1,
        "points": 1000,
        "ordered_at": "2026-11-22T12:00:00+00:00",
        "ended_at": "2026-11-22T12:00:00+00:00",
        "paid_by": [{"lot_id": lot["id"], "points": 1000}],
        "vouchers": [],
        "postings": [{"debit": "5100", "credit": "1400", "amount": 350, "currency": "USD", "cause": "fulfilment"}],
        "dry_run": False,
        "balance": {"available": 500, "held": 0, "pending": 0, "debt": 0},
        "balance_at": "2026-11-22T12:00:00+00:00",
        "entries": None,
    }
    assert lot["remaining"] == 500
    assert kinds(shop, member) == [("accrual", 1500), ("redemption", -1000)]
    done_only = {"dry_run", "balance", "balance_at", "entries"}
    stored = {name: value for name, value in redemption.items() if name not in done_only}
    assert shop.get(f"/v1/redemptions/{redemption['id']}") == stored
    assert events(shop) == ["redemption.ordered", "redemption.fulfilled"]
    shop.prove()


def test_cost_and_release_follow_fulfilment(shop: Shop) -> None:
    """A reward that was ordered and not handed over keeps its deferral (IFRS 15.B40: until goods are transferred)."""
    added(shop)
    member = member_with(shop, 2500)
    order = ordered(shop, member, quantity=2)
    assert (order["status"], order["ended_at"], order["postings"]) == ("ordered", None, [])
    assert balance(shop, member) == {"available": 500, "held": 2000, "pending": 0, "debt": 0}
    assert (used(shop), journal(shop, order)) == (0, [])
    shop.prove()

    shop.clock.forward(days=3)
    done = end(shop, order, "fulfilment")
    assert done.status_code == 200
    assert (done.json()["status"], done.json()["ended_at"]) == ("fulfilled", "2026-11-25T12:00:00+00:00")
    assert done.json()["paid_by"] == order["paid_by"]
    assert balance(shop, member) == {"available": 500, "held": 0, "pending": 0, "debt": 0}
    assert (used(shop), journal(shop, order)) == (2000, [("5100", "1400", 700, "fulfilment")])
    assert kinds(shop, member) == [("accrual", 2500), ("hold", 0), ("capture", -2000)]
    assert events(shop) == ["redemption.ordered", "redemption.fulfilled"]
    shop.prove()


def test_a_cancelled_order_leaves_nothing_behind(shop: Shop) -> None:
    added(shop, supply=1, limits={"in_all": 1})
    member = member_with(shop, 1000)
    order = ordered(shop, member)
    assert refusal(redeem(shop, member)) == (422, "reward_limit_reached")
    done = end(shop, order, "cancellation").json()
    assert (done["status"], done["paid_by"], done["postings"]) == ("cancelled", [], [])
    assert balance(shop, member) == {"available": 1000, "held": 0, "pending": 0, "debt": 0}
    assert shop.get("/v1/rewards")["items"][0]["left"] == 1
    assert used(shop) == 0
    assert ordered(shop, member)["status"] == "ordered", "points, piece and share are there again"
    assert events(shop) == ["redemption.ordered", "redemption.cancelled", "redemption.ordered"]
    shop.prove()


@pytest.mark.parametrize(
    ("supplier", "posted"),
    [
        ({"type": "own", "cost": 350}, [("5100", "1400", 700, "fulfilment")]),
        ({"type": "own", "cost": 0}, []),
        ({"type": "principal", "name": "Gym", "charge": 92}, [("5100", "2200", 184, "fulfilment")]),
        ({"type": "agent", "name": "Gym", "charge": 92}, [("4400", "2200", 184, "fulfilment")]),
    ],
)
@pytest.mark.parametrize("immediate", [True, False])
def test_what_a_reward_costs(shop: Shop, supplier: dict[str, Any], posted: list[Any], immediate: bool) -> None:
    """A partner's charge is a cost when we answer for the reward; as agent it comes off the commission."""
    added(shop, supplier=supplier)
    redemption = ordered(shop, member_with(shop, 2000), quantity=2, immediate=immediate)
    if not immediate:
        redemption = end(shop, redemption, "fulfilment").json()
    assert journal(shop, redemption) == posted
    used(shop)
    recognised = {row["credit"] for row in shop.get("/v1/accounting/journal", cause="redemption")["items"]}
    assert recognised == {"4400" if supplier["type"] == "agent" else "4100"}
    shop.prove()


def test_999_of_1000_are_refused_and_the_answer_says_what_is_missing(shop: Shop) -> None:
    added(shop)
    member = member_with(shop, 999)
    response = redeem(shop, member)
    assert refusal(response) == (422, "insufficient_points")
    assert response.json()["missing"] == 1
    assert response.json()["errors"] == [
        {"pointer": "#/quantity", "code": "insufficient_points", "detail": "1 points are missing"}
    ]
    assert kinds(shop, member) == [("accrual", 999)]


def test_a_reserved_point_buys_nothing_else(shop: Shop) -> None:
    added(shop)
    added(shop, code="cup", points=600)
    member = member_with(shop, 1500)
    ordered(shop, member)
    response = redeem(shop, member, "cup")
    assert (refusal(response), response.json()["missing"]) == ((422, "insufficient_points"), 100)


def test_an_ordered_reward_is_safe_from_expiry(shop: Shop) -> None:
    """Held points do not expire; when the order is cancelled after their time, they expire then."""
    added(shop)
    kept, lost = member_with(shop, 1200), member_with(shop, 1200, card="901")
    orders = [ordered(shop, kept), ordered(shop, lost)]
    shop.clock.forward(days=400)
    assert balance(shop, kept) == {"available": 0, "held": 1000, "pending": 0, "debt": 0}
    assert end(shop, orders[0], "fulfilment").status_code == 200
    assert end(shop, orders[1], "cancellation").json()["balance"]["available"] == 0
    assert kinds(shop, kept) == [("accrual", 1200), ("hold", 0), ("expiration", -200), ("capture", -1000)]
    assert [kind for kind, _ in kinds(shop, lost)] == ["accrual", "hold", "expiration", "release", "expiration"]
    shop.prove()


@pytest.mark.parametrize(("activities", "left"), [(["purchase"], 0), (["purchase", "redemption"], 500)])
def test_redeeming_keeps_points_alive_where_the_terms_say_so(
    database_url: str, clock: TestClock, activities: list[str], left: int
) -> None:
    """A member's points lapse a year after the last thing that counts as activity."""
    expiry = {"mode": "inactivity", "months": 12, "activities": activities}
    with open_shop(settings_for(database_url), clock, TERMS | {"expiry": expiry}) as shop:
        added(shop)
        member = member_with(shop, 1500)
        clock.forward(days=200)
        ordered(shop, member, immediate=True)
        clock.forward(days=200)
        assert balance(shop, member)["available"] == left
        shop.prove()


def test_soonest_expiring_points_pay_and_both_sides_say_so(shop: Shop) -> None:
    added(shop)
    member = member_with(shop, 700)
    shop.clock.forward(days=40)
    later = purchase("later", 70_000, occurred_at="2027-01-01T11:00:00Z")
    assert shop.post(later).status_code == 201
    paid = ordered(shop, member, immediate=True)["paid_by"]
    lots = {lot["id"]: lot for lot in shop.get(f"/v1/members/{member}/lots")["items"]}
    assert [(lots[part["lot_id"]]["expires_at"], part["points"]) for part in paid] == [
        ("2027-12-01T05:00:00+00:00", 700),
        ("2028-02-01T05:00:00+00:00", 300),
    ]
    assert sorted(lot["remaining"] for lot in lots.values()) == [0, 400]


def test_an_order_keeps_what_it_was_promised(shop: Shop) -> None:
    """The reward became dearer and was retired since: price and cost are those of the order."""
    mug = added(shop)
    order = ordered(shop, member_with(shop, 1000))
    change(shop, mug, 1, points=5000, supplier={"type": "own", "cost": 9999})
    retire(shop, mug)
    done = end(shop, order, "fulfilment").json()
    assert (done["points"], done["postings"][0]["amount"]) == (1000, 350)


@pytest.mark.parametrize(
    ("reward", "code"),
    [
        ({"active": False}, "reward_unavailable"),
        ({"available_from": "2026-11-23T00:00:00Z"}, "reward_unavailable"),
        ({"blackout_dates": ["11-22"]}, "reward_blacked_out"),
        ({"supply": 0}, "reward_out_of_stock"),
    ],
)
def test_not_to_be_had(shop: Shop, reward: dict[str, Any], code: str) -> None:
    added(shop, **reward)
    member = member_with(shop, 1000)
    assert refusal(redeem(shop, member)) == (422, code)
    assert kinds(shop, member) == [("accrual", 1000)]


def test_nobody_nothing_and_the_retired(shop: Shop) -> None:
    mug = added(shop)
    member = member_with(shop, 1000)
    assert refusal(redeem(shop, str(uuid4()))) == (422, "unknown_member")
    assert refusal(redeem(shop, member, "no-such")) == (422, "unknown_reward")
    assert refusal(_redeem(shop, {"member": {"card": "!"}, "reward": {"id": mug["id"]}})) == (422, "identifier_invalid")
    retire(shop, mug)
    assert refusal(redeem(shop, member)) == (409, "reward_retired")
    shop.http.patch(f"/v1/members/{member}", json={"status": "earn_only"}, headers={"If-Match": '"1"'})
    cup = added(shop, code="cup")
    body = {"member": {"card": "900"}, "reward": {"id": cup["id"]}}
    assert refusal(_redeem(shop, body)) == (422, "member_may_not_spend")


def test_a_monthly_limit_ends_with_the_month_in_the_programmes_zone(shop: Shop) -> None:
    added(shop, points=10, limits={"per_month": 2})
    member = member_with(shop, 1000)
    assert redeem(shop, member, quantity=2).status_code == 201
    response = redeem(shop, member)
    assert (refusal(response), response.json()["again_at"]) == (
        (422, "reward_limit_reached"),
        "2026-12-01T00:00:00-05:00",
    )
    shop.clock.forward(days=8, hours=16, minutes=59)  # 23:59 on 30 November in New York
    assert refusal(redeem(shop, member)) == (422, "reward_limit_reached")
    shop.clock.forward(minutes=1)
    assert redeem(shop, member).status_code == 201


def test_supply_counts_orders_whatever_it_is_set_to(shop: Shop) -> None:
    mug = added(shop, supply=3)
    member = member_with(shop, 9000)
    order = ordered(shop, member, quantity=2)
    response = redeem(shop, member, quantity=2)
    assert (refusal(response), response.json()["left"]) == ((422, "reward_out_of_stock"), 1)
    too_small = change(shop, mug, 1, supply=1)
    assert (refusal(too_small), too_small.json()["taken"]) == ((409, "supply_too_small"), 2)
    assert change(shop, mug, 1, supply=2).json()["left"] == 0
    assert refusal(redeem(shop, member)) == (422, "reward_out_of_stock")
    assert change(shop, mug, 2, supply=None).json()["left"] is None
    assert redeem(shop, member).status_code == 201
    end(shop, order, "cancellation")
    assert change(shop, mug, 3, supply=1).json()["left"] == 1, "the unlimited one was not counted"


# --- a dry run, and again -------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_and_writes_nothing(shop: Shop) -> None:
    added(shop, supply=5)
    member = member_with(shop, 1500)
    told = redeem(shop, member, immediate=True, dry_run=True)
    assert (told.status_code, told.json()["id"], told.json()["dry_run"]) == (200, None, True)
    assert told.json()["balance"]["available"] == 500
    assert told.json()["postings"][0]["amount"] == 350
    assert kinds(shop, member) == [("accrual", 1500)]
    order = ordered(shop, member)
    for how, available in (("fulfilment", 500), ("cancellation", 1500)):
        told = end(shop, order, how, dry_run=True)
        assert (told.json()["id"], told.json()["balance"]["available"]) == (order["id"], available)
    assert shop.get(f"/v1/redemptions/{order['id']}")["status"] == "ordered"
    assert balance(shop, member)["held"] == 1000
    assert shop.get("/v1/rewards")["items"][0]["left"] == 4
    assert refusal(redeem(shop, member, dry_run=True)) == (422, "insufficient_points")
    assert len(shop.get("/v1/redemptions")["items"]) == 1
    shop.prove()


def test_the_same_key_redeems_once(shop: Shop) -> None:
    added(shop)
    member = member_with(shop, 3000)
    first, again = redeem(shop, member, key="k"), redeem(shop, member, key="k")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert refusal(redeem(shop, member, key="k", quantity=2)) == (422, "idempotency_key_reused")
    ends = [end(shop, first.json(), "fulfilment", key="e") for _ in range(2)]
    assert ends[0].json() == ends[1].json()
    assert balance(shop, member)["available"] == 2000


def test_a_refusal_is_final_for_its_key(shop: Shop) -> None:
    """Else a late duplicate of a refused redemption would succeed after points have arrived."""
    added(shop)
    member = member_with(shop, 10)
    assert refusal(redeem(shop, member, key="k")) == (422, "insufficient_points")
    member_with(shop, 5000)
    again = redeem(shop, member, key="k")
    assert (refusal(again), again.json()["missing"]) == ((422, "insufficient_points"), 990)
    assert redeem(shop, member).status_code == 201


@pytest.mark.parametrize(
    "path", ["/v1/redemptions", "/v1/redemptions/{id}/fulfilment", "/v1/redemptions/{id}/cancellation"]
)
def test_a_key_is_needed(shop: Shop, path: str) -> None:
    body = {"member": {"card": "900"}, "reward": {"code": "mug"}}
    response = shop.http.post(path.format(id=uuid4()), json=body if path == "/v1/redemptions" else None)
    assert refusal(response) == (400, "idempotency_key_missing")


# --- it ends once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["fulfilment", "cancellation"])
def test_what_has_ended_cannot_end_again(shop: Shop, first: str) -> None:
    added(shop)
    member = member_with(shop, 1000)
    order = ordered(shop, member)
    assert end(shop, order, first).status_code == 200
    before = balance(shop, member)
    code = {"fulfilment": "redemption_fulfilled", "cancellation": "redemption_cancelled"}[first]
    for how in ("fulfilment", "cancellation"):
        assert refusal(end(shop, order, how)) == (409, code)
    assert balance(shop, member) == before
    shop.prove()


def test_fulfilment_and_cancellation_race_and_one_wins(shop: Shop) -> None:
    added(shop, supply=100)
    member = member_with(shop, 12_000)
    orders = [ordered(shop, member) for _ in range(12)]
    tries = [(order, how) for order in orders for how in ("fulfilment", "cancellation", "fulfilment")]
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda each: (each[0]["id"], end(shop, *each).status_code), tries))
    for order in orders:
        assert sorted(status for id_, status in statuses if id_ == order["id"]) == [200, 409, 409]
    done = [row["status"] for row in shop.get("/v1/redemptions")["items"]]
    assert balance(shop, member)["available"] == 1000 * done.count("cancelled")
    assert shop.get("/v1/rewards")["items"][0]["taken"] == done.count("fulfilled")
    assert used(shop) == 1000 * done.count("fulfilled")
    shop.prove()


def test_the_last_pieces_go_to_as_many_members_as_there_are_pieces(shop: Shop) -> None:
    added(shop, points=10, supply=5)
    members = [member_with(shop, 10, card=str(number)) for number in range(20)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda member: redeem(shop, member), members))
    assert Counter(answer.status_code for answer in answers) == {201: 5, 422: 15}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {"reward_out_of_stock"}
    assert shop.get("/v1/rewards")["items"][0]["left"] == 0
    shop.prove()


def test_pieces_of_many_rewards_are_one_statement(shop: Shop) -> None:
    """However many they are. The first reward that runs short is named, and nothing of those is taken."""
    one, two, three, endless = sorted(UUID(added(shop, code=f"r{number}", supply=3)["id"]) for number in range(4))
    change(shop, {"id": endless}, 1, supply=None)
    with statements(shop.database) as noted:
        wanted = {endless: 9, three: 4, two: 4, one: 3}
        assert shop.database.write(lambda session: catalogue.take(session, wanted)) == two
        assert shop.database.write(lambda session: catalogue.take(session, {one: 1, two: 3})) == one
        shop.database.write(lambda session: catalogue.give_back(session, {two: 2, one: 1}))
    assert len([text for text in noted if "UPDATE reward" in text]) == 3
    taken = {UUID(row["id"]): row["taken"] for row in shop.get("/v1/rewards")["items"]}
    assert taken == {one: 2, two: 1, three: 0, endless: 9}


def test_batches_take_pieces_in_one_order_and_never_wait_in_a_circle(shop: Shop) -> None:
    """In whatever order they name the rewards: nobody is a deadlock's victim, so nothing runs again."""
    ids = [UUID(added(shop, code=f"r{number}", supply=1000)["id"]) for number in range(12)]
    runs = Counter[str]()

    def take(name: str, rewards: list[UUID]) -> None:
        def work(session: Session) -> None:
            runs[name] += 1
            assert catalogue.take(session, dict.fromkeys(rewards, 1)) is None

        for _ in range(40):
            shop.database.write(work)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(take, ("forth", "back"), (ids, ids[::-1])))
    assert runs == {"forth": 40, "back": 40}
    assert {row["taken"] for row in shop.get("/v1/rewards")["items"]} == {80}


def naive_take(session: Session, pieces: Mapping[UUID, int]) -> UUID | None:
    """The mistake: reads how many are left, then writes what it has reckoned."""
    ((reward_id, quantity),) = pieces.items()
    row = session.execute(select(RewardRow.taken, RewardRow.supply).where(RewardRow.id == reward_id)).one()
    time.sleep(0.02)
    session.execute(update(RewardRow).where(RewardRow.id == reward_id).values(taken=row.taken + quantity))
    return None if row.supply is not None and row.taken + quantity <= row.supply else reward_id


def test_without_the_condition_pieces_would_be_given_out_twice(
    ungathered: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control. SQLite needs no condition: its writers take turns by themselves."""
    shop = ungathered
    if shop.database.engine.dialect.name == "sqlite":
        pytest.skip("the transaction itself is the lock")
    added(shop, points=10, supply=5)
    members = [member_with(shop, 10, card=str(number)) for number in range(20)]
    monkeypatch.setattr(catalogue, "take", naive_take)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda member: redeem(shop, member), members))
    assert Counter(answer.status_code for answer in answers)[201] > 5


def test_without_the_lock_points_would_be_spent_twice(ungathered: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: two orders number their entries alike, and the database refuses one of them."""
    shop = ungathered
    if shop.database.engine.dialect.name == "sqlite":
        pytest.skip("the transaction itself is the lock")
    added(shop, points=10)
    member = member_with(shop, 500)
    monkeypatch.setattr(ledger, "claim", ledger.look)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: redeem(shop, member), range(40)))
    assert Counter(answer.status_code for answer in answers)[500] > 0
    shop.prove()


def test_one_members_points_and_share_are_not_spent_twice(shop: Shop) -> None:
    """KNOWN: parallel gifts from one balance all succeed; a limit read before the lock lets two through."""
    added(shop, points=100, limits={"in_all": 7})
    member = member_with(shop, 500)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: redeem(shop, member), range(20)))
    assert Counter(answer.status_code for answer in answers) == {201: 5, 422: 15}
    member_with(shop, 5000)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: redeem(shop, member), range(20)))
    assert Counter(answer.status_code for answer in answers) == {201: 2, 422: 18}
    assert balance(shop, member)["held"] == 700
    shop.prove()


# --- lists, and who may ---------------------------------------------------------------------------------------------


def test_lists_of_redemptions(shop: Shop) -> None:
    added(shop, points=10)
    first, second = member_with(shop, 100), member_with(shop, 100, card="901")
    orders = [ordered(shop, member)["id"] for member in (first, second, first)]
    assert end(shop, {"id": orders[0]}, "fulfilment").status_code == 200

    def ids(**query: Any) -> list[str]:
        return [item["id"] for item in shop.get("/v1/redemptions", **query)["items"]]

    assert ids() == orders
    assert ids(member_id=first) == [orders[0], orders[2]]
    assert ids(status="ordered") == orders[1:]
    page = shop.http.get("/v1/redemptions", params={"member_id": first, "limit": 1})
    assert f"member_id={first}" in page.headers["Link"]
    assert ids(member_id=first, limit=1, cursor=page.json()["next"]) == [orders[2]]
    assert refusal(shop.http.get("/v1/redemptions", params={"status": "lost"})) == (422, "invalid_request")


def test_another_programmes_redemption_is_not_there(shop: Shop) -> None:
    added(shop)
    order = ordered(shop, member_with(shop, 1000))
    program = shop.database.write(lambda session: make_program(session, TERMS, shop.clock(), "other"))
    key = shop.database.write(lambda session: make_key(session, "staff", shop.clock(), program))
    other = shop.client(key)
    answers = [other.get(f"/v1/redemptions/{order['id']}")]
    for how in ("fulfilment", "cancellation"):
        answers.append(other.post(f"/v1/redemptions/{order['id']}/{how}", headers={"Idempotency-Key": how}))
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert other.get("/v1/redemptions").json()["items"] == []


@pytest.mark.parametrize("kind", ["terminal", "partner"])
def test_tills_and_partners_redeem(shop: Shop, kind: str) -> None:
    added(shop)
    member_with(shop, 1000)
    body = {"member": {"card": "900"}, "reward": {"code": "mug"}, "immediate": True}
    response = shop.client(kind).post("/v1/redemptions", json=body, headers={"Idempotency-Key": "k"})
    assert response.status_code == 201
