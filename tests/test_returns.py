"""Goods come back: what happens to the points they earned and the points they cost, over HTTP, on both engines.

The first tests are named after what other loyalty systems got wrong.
"""

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.orm import Session

from app import accounting, ledger
from tests.conftest import Engines, settings_for
from tests.points import events, publish
from tests.shop import TERMS, Shop, TestClock, make_key, open_shop, purchase, returned, voided
from tests.test_rewards import added, redeem

TENDER = {"points_tender": {"value": {"amount": 1, "points": 1}}}
"""A point pays a cent."""

FEW = {"earning": {"points": 1, "per": 1}} | TENDER
"""A point per cent, which pays a cent."""


@contextmanager
def shop_with(engines: Engines, engine: str, **terms: Any) -> Iterator[Shop]:
    with open_shop(settings_for(engines.fresh(engine)), TestClock(), TERMS | terms) as shop:
        yield shop
        shop.prove()


def post(shop: Shop, body: dict[str, Any], status: int = 201) -> Any:
    """The answer to a transaction that must have this status; the books hold after it."""
    answer = shop.post(body)
    assert answer.status_code == status, answer.text
    shop.prove()
    return answer.json()


def balance(shop: Shop, card: str = "900") -> dict[str, int]:
    """What a member has, and owes."""
    id_ = UUID(member_of(shop, card))
    account = shop.database.read(lambda session: ledger.look(session, [id_], shop.clock(), UTC))[id_]
    return {name: getattr(account, name) for name in ("available", "pending", "debt", "qualifying")}


def member_of(shop: Shop, card: str = "900") -> str:
    id_: str = shop.get("/v1/members/lookup", card=card)["id"]
    return id_


def bought(external_id: str = "r1", *amounts: int, points: int = 0, **changes: Any) -> dict[str, Any]:
    """A purchase of lines of one unit each, so much of it paid with points."""
    lines = [
        {"line": number, "product": f"p{number}", "department": f"D{number}", "quantity": "1", "amount": amount}
        for number, amount in enumerate(amounts, start=1)
    ]
    total = sum(amounts)
    tenders = [{"type": "points", "amount": points}, {"type": "cash", "amount": total - points}]
    paid = [tender for tender in tenders if tender["amount"]]
    return purchase(external_id, total, lines=lines, tenders=paid, **changes)


def lines(*numbers: int) -> list[dict[str, Any]]:
    return [{"line": number, "quantity": "1"} for number in numbers]


@pytest.mark.parametrize("quantity", ["-1", "-0.5", "-0", "1e1", ""])
def test_a_quantity_that_comes_back_is_not_negative(shop: Shop, quantity: str) -> None:
    """Neither of a purchase that is there, nor to wait for one, nor of a line it does not have."""
    post(shop, purchase())
    for of, line in (("r1", 1), ("later", 1), ("r1", 9)):
        body = returned("b1", of, lines=[{"line": line, "quantity": quantity}])
        refused = post(shop, body, 422)
        assert (refused["code"], refused["errors"][0]["pointer"]) == ("invalid_request", "#/lines/0/quantity")
    assert shop.get("/v1/transactions/waiting")["items"] == []


# --- what others got wrong ------------------------------------------------------------------------------------------


def test_buy_refund_and_keep_the_points_for_ever(shop: Shop) -> None:
    """Not here: the return takes back what its purchase earned, every time."""
    for number in range(3):
        post(shop, purchase(f"r{number}"))
        answer = post(shop, returned(f"b{number}", f"r{number}"))
        assert (answer["points"]["earned"], answer["returned"]["taken_back"], answer["returned"]["refund"]) == (
            -10,
            10,
            1000,
        )
        assert balance(shop) == {"available": 0, "pending": 0, "debt": 0, "qualifying": 0}


def test_points_given_away_are_owed_when_their_purchase_comes_back(engines: Engines, engine: str) -> None:
    """A friend's account is no place to keep them: who bought and gave owes what the friend may go on to spend."""
    with shop_with(engines, engine, **FEW, transfers={}) as shop:
        post(shop, purchase("r1", 500))
        post(shop, purchase("friend", 1, member={"card": "901"}))
        write(shop, "/v1/transfers", {"from": {"card": "900"}, "to": {"card": "901"}, "points": 500})
        assert post(shop, returned())["returned"]["debt"] == 500
        assert (balance(shop)["debt"], balance(shop, "901")["available"]) == (500, 501)
        write(shop, "/v1/transfers", {"from": {"card": "901"}, "to": {"card": "900"}, "points": 500})
        assert balance(shop) == {"available": 0, "pending": 0, "debt": 0, "qualifying": 0}


def test_points_of_an_order_are_owed_until_it_is_called_off(engines: Engines, engine: str) -> None:
    """The purchase comes back while an order reserves its points; they pay when the order gives them back."""
    with shop_with(engines, engine, **FEW) as shop:
        post(shop, purchase("r1", 500))
        write(shop, "/v1/rewards", {"code": "pen", "name": "Pen", "points": 400} | OWN)
        order = write(shop, "/v1/redemptions", {"member": {"card": "900"}, "reward": {"code": "pen"}})
        assert post(shop, returned())["returned"]["debt"] == 400
        assert balance(shop) == {"available": 0, "pending": 0, "debt": 400, "qualifying": 0}
        write(shop, f"/v1/redemptions/{order['id']}/cancellation", None, 200)
        assert balance(shop) == {"available": 0, "pending": 0, "debt": 0, "qualifying": 0}


OWN = {"supplier": {"type": "own"}, "currency": "USD"}


def write(shop: Shop, path: str, body: dict[str, Any] | None, status: int = 201) -> Any:
    """The answer to a write that takes a key; the books hold after it."""
    answer = shop.http.post(path, json=body, headers={"Idempotency-Key": uuid4().hex})
    assert answer.status_code == status, answer.text
    shop.prove()
    return answer.json()


def test_spent_points_come_back_once(engines: Engines, engine: str) -> None:
    """Not twice, and not taken a second time: they are in their lot again, with its expiry."""
    with shop_with(engines, engine, **FEW) as shop:
        post(shop, purchase("first", 500))
        post(shop, bought("r1", 500, points=500))
        before = shop.get(f"/v1/members/{member_of(shop)}/lots")["items"]
        assert balance(shop)["available"] == 0
        answer = post(shop, returned())
        assert (answer["returned"]["given_back"], answer["returned"]["refund"]) == (500, 0)
        assert balance(shop)["available"] == 500
        after = shop.get(f"/v1/members/{member_of(shop)}/lots")["items"]
        assert [lot["expires_at"] for lot in after] == [lot["expires_at"] for lot in before]
        assert shop.post(returned()).json()["duplicate"]
        assert post(shop, returned("b2"), 422)["code"] == "nothing_to_return"
        assert balance(shop)["available"] == 500


@pytest.mark.parametrize(
    ("policy", "available", "stay_expired"), [("stay_expired", 0, 500), ("grace_days", 500, 0), ("new_lot", 500, 0)]
)
def test_points_whose_lot_has_expired_meanwhile_come_back_by_the_terms(
    engines: Engines, engine: str, policy: str, available: int, stay_expired: int
) -> None:
    rules = FEW | {"expiry": {"days": 2, "round_up_to": "day"}, "returns": {"expired_meanwhile": policy}}
    with shop_with(engines, engine, **rules) as shop:
        post(shop, purchase("first", 500))
        post(shop, bought("r1", 500, points=500))
        shop.clock.forward(days=5)
        answer = post(shop, returned(occurred_at=shop.clock().isoformat()))
        assert (answer["returned"]["given_back"], answer["returned"]["stay_expired"]) == (500, stay_expired)
        assert balance(shop)["available"] == available
        if available:
            shop.clock.forward(days=13)
            assert balance(shop)["available"] == (500 if policy == "grace_days" else 0)
        shop.clock.forward(days=2)
        assert balance(shop)["available"] == 0


def test_returning_an_item_that_earned_nothing_takes_nothing(engines: Engines, engine: str) -> None:
    """Not by the ratio of amounts: line by line."""
    with shop_with(engines, engine, earning={"points": 1, "per": 100, "excluded": {"departments": ["D2"]}}) as shop:
        post(shop, bought("r1", 2000, 1000))
        assert post(shop, returned(lines=lines(2)))["returned"]["taken_back"] == 0
        assert post(shop, returned("b2", lines=lines(1)))["returned"]["taken_back"] == 20


def test_five_and_five_take_as_much_as_ten(engines: Engines, engine: str) -> None:
    """Not: each refund rounded down, so that two of half a point take none."""
    with shop_with(engines, engine, earning={"points": 1, "per": 10}) as shop:
        post(shop, bought("r1", 5, 5))
        answers = [post(shop, returned(f"b{number}", lines=lines(number))) for number in (1, 2)]
        assert [answer["returned"]["taken_back"] for answer in answers] == [1, 0]
        assert balance(shop)["available"] == 0


@pytest.mark.parametrize(
    "earning",
    [
        pytest.param({"points": 50, "per": 100}, id="the rule has changed"),
        pytest.param({"points": 1, "per": 100, "excluded": {"departments": ["D1"]}}, id="there is no rule any more"),
    ],
)
def test_claw_back_is_by_the_terms_of_the_purchase(shop: Shop, earning: dict[str, Any]) -> None:
    """Not by today's: the points that were earned are taken back, whatever such a purchase would earn now."""
    post(shop, purchase())
    draft = shop.http.post(f"/v1/programs/{shop.program_id}/terms", json=TERMS | {"earning": earning}).json()
    path = f"/v1/programs/{shop.program_id}/terms/{draft['version']}/publish"
    assert shop.http.post(path, json={}).status_code == 200
    shop.clock.forward(hours=1)
    answer = post(shop, returned(occurred_at="2026-11-22T07:30:00-05:00"))
    assert answer["returned"]["taken_back"] == 10
    assert balance(shop)["available"] == 0


def spent(engines: Engines, engine: str, **policy: Any) -> Any:
    """A shop where a member bought for 500 points and spent 400 of them."""
    return shop_with(engines, engine, **FEW, returns=policy)


def spend_400(shop: Shop) -> None:
    post(shop, purchase("r1", 500))
    post(shop, bought("spent", 400, points=400))


def test_a_return_is_not_refused_because_the_points_were_spent(engines: Engines, engine: str) -> None:
    """They become debt, which the next credit pays first."""
    with spent(engines, engine) as shop:
        spend_400(shop)
        assert post(shop, returned())["returned"]["debt"] == 400
        assert balance(shop) == {"available": 0, "pending": 0, "debt": 400, "qualifying": 0}
        post(shop, purchase("next", 450))
        assert balance(shop) == {"available": 50, "pending": 0, "debt": 0, "qualifying": 450}


def test_withheld_points_are_taken_off_the_refund(engines: Engines, engine: str) -> None:
    with spent(engines, engine, points_already_spent="withhold") as shop:
        spend_400(shop)
        answer = post(shop, returned())["returned"]
        assert (answer["withheld"], answer["withheld_amount"], answer["refund"], answer["debt"]) == (400, 400, 100, 0)
        assert balance(shop)["debt"] == 0


@pytest.mark.parametrize(("limit", "owed"), [(None, 400), (150, 150)])
def test_nothing_is_withheld_from_a_void(engines: Engines, engine: str, limit: int | None, owed: int) -> None:
    """The till undoes the whole payment of a sale that did not happen; what is missing is owed, up to the limit."""
    with spent(engines, engine, points_already_spent="withhold", debt_limit=limit) as shop:
        spend_400(shop)
        answer = post(shop, voided())["returned"]
        assert (answer["withheld"], answer["withheld_amount"], answer["refund"]) == (0, 0, 500)
        assert (answer["debt"], answer["written_off"]) == (owed, 400 - owed)
        assert balance(shop)["debt"] == owed


def test_no_more_is_withheld_than_is_refunded(engines: Engines, engine: str) -> None:
    """Points may be worth more than what they were earned with; nobody pays to bring goods back."""
    value = {"amount": 3, "points": 1}
    with spent(engines, engine, points_already_spent="withhold", withhold_value=value) as shop:
        spend_400(shop)
        answer = post(shop, returned())["returned"]
        assert (answer["withheld"], answer["withheld_amount"], answer["refund"]) == (167, 500, 0)
        assert answer["written_off"] == 400 - 167


def test_written_off_points_are_forgiven(engines: Engines, engine: str) -> None:
    with spent(engines, engine, points_already_spent="write_off") as shop:
        spend_400(shop)
        answer = post(shop, returned())["returned"]
        assert (answer["written_off"], answer["refund"], answer["debt"]) == (400, 500, 0)
        assert "write_off" not in {posting["cause"] for posting in shop.post(returned()).json()["postings"]}
        assert balance(shop)["debt"] == 0
        shop.prove()


REWARDS = [
    pytest.param({"type": "own", "cost": 90}, 70, id="own"),
    pytest.param({"type": "principal", "name": "Hotel", "charge": 90}, 70, id="a partner's, sold by us"),
    pytest.param({"type": "agent", "name": "Hotel", "charge": 90}, 0, id="a partner's, brokered"),
    pytest.param({"type": "own", "cost": 0}, 0, id="for nothing"),
]


@pytest.mark.parametrize(("supplier", "forgiven"), REWARDS)
def test_forgiving_moves_the_cost_of_rewards_that_was_booked(
    engines: Engines, engine: str, supplier: dict[str, Any], forgiven: int
) -> None:
    """Of 500 points 150 paid at the till and 350, with 100 of another purchase, for a reward that cost 90: they have
    cost 70. Its other 100 are taken, and 400 forgiven: first those that bought the reward."""
    policy = {"points_already_spent": "write_off"}
    with spent(engines, engine, **policy) as shop:
        added(shop, points=450, supplier=supplier)
        post(shop, purchase("r1", 500))
        post(shop, bought("spent", 150, points=150))
        post(shop, purchase("r2", 200))
        assert redeem(shop, member_of(shop), immediate=True).status_code == 201
        before = trial(shop)
        post(shop, returned("b1", "r1", total=250))
        post(shop, returned("b2", "r1"))
        moved = {code: trial(shop)[code] - before[code] for code in ("5100", "6100")}
        assert moved == {"5100": -forgiven, "6100": forgiven}
        shop.prove()


def test_a_cost_that_many_purchases_share_is_rounded_once(engines: Engines, engine: str) -> None:
    """Ten purchases of 10 points paid for a reward that cost 55: 5.5 each, and 55 in all."""
    with spent(engines, engine, points_already_spent="write_off") as shop:
        added(shop, points=100, supplier={"type": "own", "cost": 55})
        for number in range(10):
            post(shop, purchase(f"r{number}", 10))
        assert redeem(shop, member_of(shop), immediate=True).status_code == 201
        for number in range(10):
            post(shop, returned(f"b{number}", f"r{number}"))
        assert (trial(shop)["6100"], trial(shop)["5100"]) == (55, 0)


def _two_spends(shop: Shop) -> None:
    """100 points, half of them spent on a reward that cost 700, half at the till."""
    added(shop, points=50, supplier={"type": "own", "cost": 700})
    post(shop, purchase("r1", 100))
    assert redeem(shop, member_of(shop), immediate=True).status_code == 201
    post(shop, bought("till", 50, points=50))


ORDERS = [
    [returned("b1", "till"), returned("b2", "r1", total=50), returned("b3", "r1")],
    [returned("b1", "r1", total=50), returned("b2", "till"), returned("b3", "r1")],
    [returned("b1", "r1"), returned("b2", "till")],
    [returned("b1", "r1"), returned("b2", "till"), voided("v1", "b1", "return"), returned("b3", "r1")],
]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("bodies", ORDERS, ids=["till first", "half, till, half", "till last", "with a void"])
def test_what_forgiving_costs_does_not_depend_on_the_order(
    engines: Engines, engine: str, bodies: list[dict[str, Any]], at_once: bool
) -> None:
    with spent(engines, engine, points_already_spent="write_off") as shop:
        _two_spends(shop)
        if at_once:
            assert {result["status"] for result in shop.batch(bodies)} == {201}
        else:
            for body in bodies:
                post(shop, body)
        assert (trial(shop)["6100"], trial(shop)["5100"]) == (700, 0)


def test_a_void_takes_back_what_forgiving_moved(engines: Engines, engine: str) -> None:
    """Debt written off by hand: the return did not happen, nothing was owed; as often as that is repeated."""
    with spent(engines, engine) as shop:
        _two_spends(shop)
        for number in range(3):
            post(shop, returned(f"b{number}", "r1"))
            write(shop, f"/v1/members/{member_of(shop)}/debt/write-off", {"reason": "x"})
            assert (trial(shop)["6100"], trial(shop)["5100"]) == (700, 0)
            post(shop, voided(f"v{number}", f"b{number}", "return"))
            assert (trial(shop)["6100"], trial(shop)["5100"]) == (0, 700)


def trial(shop: Shop) -> Counter[str]:
    return Counter({row["code"]: row["balance"] for row in shop.get("/v1/accounting/trial-balance")["items"]})


def test_debt_has_a_limit_where_the_terms_set_one(engines: Engines, engine: str) -> None:
    with spent(engines, engine, debt_limit=300) as shop:
        spend_400(shop)
        answer = post(shop, returned())["returned"]
        assert (answer["debt"], answer["written_off"]) == (300, 100)


def test_a_negative_balance_does_not_switch_expiry_off(engines: Engines, engine: str) -> None:
    """Debt is a number of its own: what is pending beside it becomes available, pays it, and the rest expires."""
    rules = FEW | {"expiry": {"days": 3, "round_up_to": "day"}, "pending": {"mode": "days", "days": 2}}
    with shop_with(engines, engine, **rules) as shop:
        post(shop, purchase("r1", 500))
        shop.clock.forward(days=2)
        now = {"occurred_at": shop.clock().isoformat()}
        post(shop, bought("spent", 400, points=400) | now)
        post(shop, returned() | now)
        post(shop, purchase("next", 450) | now)
        assert balance(shop) == {"available": 0, "pending": 450, "debt": 400, "qualifying": 450}
        shop.clock.forward(days=2)
        assert balance(shop) == {"available": 50, "pending": 0, "debt": 0, "qualifying": 450}
        shop.clock.forward(days=2)
        assert balance(shop) == {"available": 0, "pending": 0, "debt": 0, "qualifying": 450}


def test_no_value_leaks_at_zero(engines: Engines, engine: str) -> None:
    """Not clamped: of 200 points spent half were earned with goods that came back, and are owed; paid by the next
    purchase, they are owed anew when that comes back."""
    with shop_with(engines, engine, **FEW) as shop:
        post(shop, purchase("gift", 100))
        for number in range(3):
            post(shop, purchase(f"r{number}", 100))
            available = balance(shop)["available"]
            if available:
                post(shop, bought(f"s{number}", available, points=available))
            post(shop, returned(f"b{number}", f"r{number}"))
        assert balance(shop)["debt"] == 100
        post(shop, purchase("last", 100))
        assert balance(shop) == {"available": 0, "pending": 0, "debt": 0, "qualifying": 200}


def test_qualifying_points_follow_the_return(shop: Shop) -> None:
    post(shop, bought("r1", 600, 400))
    assert balance(shop)["qualifying"] == 10
    post(shop, returned(lines=lines(2)))
    assert balance(shop)["qualifying"] == 6


def test_a_return_can_be_voided(shop: Shop) -> None:
    post(shop, purchase())
    post(shop, returned())
    answer = post(shop, voided(of="b1", type_="return"))
    assert (answer["points"]["earned"], answer["returned"]["refund"]) == (10, -1000)
    assert balance(shop) == {"available": 10, "pending": 0, "debt": 0, "qualifying": 10}
    assert post(shop, voided("v2", "b1", "return"), 409)["code"] == "already_voided"
    post(shop, returned("b2"))
    assert balance(shop)["available"] == 0


# --- what is due has happened ---------------------------------------------------------------------------------------


SHORT = FEW | {"expiry": {"days": 2, "round_up_to": "day"}}


@pytest.mark.parametrize("job_ran", [False, True])
def test_points_that_have_expired_are_not_taken_twice(engines: Engines, engine: str, job_ran: bool) -> None:
    """The points of a return that expired before cost nothing, whether or not a job has written that down."""
    with shop_with(engines, engine, **SHORT) as shop:
        post(shop, purchase("r1", 500))
        shop.clock.forward(days=4)
        if job_ran:
            settle(shop)
        answer = post(shop, returned(occurred_at=shop.clock().isoformat()))["returned"]
        assert (answer["taken_back"], answer["expired"], answer["debt"]) == (500, 500, 0)
        assert balance(shop) == {"available": 0, "pending": 0, "debt": 0, "qualifying": 0}


def settle(shop: Shop) -> None:
    """What a job does: writes down what is due."""
    id_ = UUID(member_of(shop))

    def work(session: Session) -> None:
        ledger.write(session, ledger.claim(session, [id_], shop.clock(), UTC).values(), shop.clock())

    shop.database.write(work)


def test_a_void_gives_pending_points_back_that_are_due(engines: Engines, engine: str) -> None:
    """A part was returned while all was pending; the rest became available before the return was voided."""
    with shop_with(engines, engine, **FEW, pending={"mode": "days", "days": 2}) as shop:
        post(shop, bought("r1", 300, 200))
        post(shop, returned(lines=lines(2)))
        assert balance(shop)["pending"] == 300
        shop.clock.forward(days=3)
        post(shop, voided(of="b1", type_="return") | {"occurred_at": shop.clock().isoformat()})
        assert balance(shop) == {"available": 500, "pending": 0, "debt": 0, "qualifying": 500}


def test_one_batch_ends_as_single_posts_do(engines: Engines, engine: str) -> None:
    """What a return finds used follows what the same batch spent and returned before."""
    bodies = [
        purchase("r1", 500),
        bought("s1", 400, points=400),
        returned("b1", "r1"),
        returned("b2", "s1"),
    ]
    ends = []
    for whole in (True, False):
        with shop_with(engines, engine, **FEW) as shop:
            post(shop, purchase("first", 10))
            answers = shop.batch(bodies) if whole else [{"transaction": post(shop, body)} for body in bodies]
            figures = [answer["transaction"]["returned"] for answer in answers[2:]]
            shop.prove()
            accounting.fold(shop.database, shop.clock())
            cohort = shop.get("/v1/accounting/cohorts")["items"][0]
            ends.append((balance(shop), [[each["taken_back"], each["debt"]] for each in figures], figures_of(cohort)))
    assert ends[0] == ends[1]


def figures_of(cohort: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cohort.items() if isinstance(value, int)}


# --- voids of returns -----------------------------------------------------------------------------------------------


def test_what_came_back_and_stayed_expired_can_be_voided_and_come_back_again(engines: Engines, engine: str) -> None:
    with shop_with(engines, engine, **SHORT, returns={"expired_meanwhile": "stay_expired"}) as shop:
        post(shop, purchase("first", 500))
        post(shop, bought("r1", 500, points=500))
        shop.clock.forward(days=4)
        later = {"occurred_at": shop.clock().isoformat()}
        post(shop, returned() | later)
        post(shop, voided(of="b1", type_="return") | later)
        assert balance(shop)["debt"] == 0
        answer = post(shop, returned("b2") | later)["returned"]
        assert (answer["given_back"], answer["stay_expired"]) == (500, 500)


@pytest.mark.parametrize("paid", [False, True])
def test_what_came_back_and_was_spent_is_owed_when_the_return_is_voided(
    engines: Engines, engine: str, paid: bool
) -> None:
    """And when the goods come back after all, the debt goes with them; if it was paid, the points come back."""
    with shop_with(engines, engine, **FEW) as shop:
        post(shop, purchase("first", 500))
        post(shop, bought("r1", 500, points=500))
        post(shop, returned())
        post(shop, bought("other", 500, points=500))
        post(shop, voided(of="b1", type_="return"))
        assert (balance(shop)["available"], balance(shop)["debt"]) == (0, 500)
        if paid:
            post(shop, purchase("next", 600))
            assert (balance(shop)["available"], balance(shop)["debt"]) == (100, 0)
        assert post(shop, returned("b2"))["returned"]["given_back"] == 500
        assert (balance(shop)["available"], balance(shop)["debt"]) == (600 if paid else 0, 0)


@pytest.mark.parametrize("paid", [False, True])
def test_the_void_of_a_return_takes_its_debt_away(engines: Engines, engine: str, paid: bool) -> None:
    with shop_with(engines, engine, **FEW) as shop:
        spend_400(shop)
        post(shop, returned())
        if paid:
            post(shop, purchase("next", 450))
        post(shop, voided(of="b1", type_="return"))
        assert (balance(shop)["available"], balance(shop)["debt"]) == (550 if paid else 100, 0)


def test_a_void_leaves_no_cent_behind(engines: Engines, engine: str) -> None:
    """A third of 1.00 is 0.33 or 0.34, whichever comes first; the void of the first leaves the second a cent too much,
    which a line that cost nothing cannot give."""
    with shop_with(engines, engine, **FEW) as shop:
        thirds = [
            {"line": 1, "product": "p1", "quantity": "3", "amount": 100},
            {"line": 2, "product": "free", "quantity": "1", "amount": 0},
        ]
        post(shop, purchase("r1", 100, lines=thirds))
        refunds = [post(shop, returned(f"b{number}", lines=lines(1)))["returned"]["refund"] for number in (1, 2)]
        assert refunds == [33, 34]
        post(shop, voided(of="b1", type_="return"))
        assert post(shop, returned("b3", lines=lines(2)))["returned"]["refund"] == 0
        assert post(shop, returned("b4"))["returned"]["refund"] == 66
        assert balance(shop)["available"] == 0


def test_a_purchase_is_voided_whole(shop: Shop) -> None:
    post(shop, bought("r1", 600, 400))
    post(shop, returned(lines=lines(2)))
    answer = post(shop, voided())
    assert (answer["returned"]["taken_back"], answer["returned"]["refund"]) == (6, 600)
    assert post(shop, voided("v2"), 409)["code"] == "already_voided"
    assert post(shop, returned("b2"), 422)["code"] == "nothing_to_return"
    assert post(shop, voided("v3", "b1", "return"), 422)["code"] == "nothing_to_return"


# --- shapes ---------------------------------------------------------------------------------------------------------


def test_by_line_and_quantity(shop: Shop) -> None:
    post(shop, purchase(lines=[{"line": 1, "product": "p1", "quantity": "2.5", "amount": 1000}]))
    answer = post(shop, returned(lines=[{"line": 1, "quantity": "0.5"}], total=200))["returned"]
    assert (answer["taken_back"], answer["refund"]) == (2, 200)
    assert post(shop, returned("b2", lines=[{"line": 1, "quantity": "2.1"}]), 422)["code"] == "return_too_large"
    assert post(shop, returned("b3"))["returned"]["refund"] == 800


def test_by_amount(shop: Shop) -> None:
    post(shop, purchase())
    assert post(shop, returned(total=250))["returned"]["taken_back"] == 3  # 7 of 7.50 are kept
    assert post(shop, returned("b2", total=751), 422)["code"] == "return_too_large"
    assert post(shop, returned("b3", total=750))["returned"]["taken_back"] == 7


def test_an_exchange_is_a_return_and_a_purchase_in_one_batch(shop: Shop) -> None:
    post(shop, purchase())
    results = shop.batch([returned(), purchase("r2", 1500)])
    assert [result["status"] for result in results] == [201, 201]
    assert balance(shop)["available"] == 15
    shop.prove()


def test_without_the_receipt_it_is_refused_unless_the_terms_say_otherwise(shop: Shop) -> None:
    post(shop, purchase())
    body = returned(original=None, member={"card": "900"}, currency="USD", total=300)
    assert post(shop, body, 422)["code"] == "receipt_needed"
    assert balance(shop)["available"] == 10


def without_receipt(external_id: str, total: int) -> dict[str, Any]:
    return returned(external_id, original=None, member={"card": "900"}, currency="USD", total=total)


@pytest.mark.parametrize(("total", "taken"), [(300, 3), (500, 5), (100, 1)])
def test_without_the_receipt_within_a_limit(engines: Engines, engine: str, total: int, taken: int) -> None:
    policy = {"without_receipt": "accept", "without_receipt_limit": 5}
    with shop_with(engines, engine, returns=policy) as shop:
        post(shop, purchase())
        body = without_receipt("b1", total)
        assert post(shop, body)["returned"]["taken_back"] == taken
        assert balance(shop)["available"] == 10 - taken
        assert shop.post(body).json()["duplicate"]
        other = body | {"external_id": "b2", "currency": "EUR"}
        assert post(shop, other, 422)["code"] == "currency_mismatch"


@pytest.mark.parametrize(("tender", "status"), [("cash", 201), ("points", 422)])
def test_without_the_receipt_of_somebody_unknown_it_is_refused_whatever_follows_it(
    engines: Engines, engine: str, tender: str, status: int
) -> None:
    """As one by one: a later purchase of the batch makes nobody a member before it, least of all a refused one."""
    policy = {"without_receipt": "accept", "without_receipt_limit": 8}
    paying = {"points_tender": {"value": {"amount": 1, "points": 1}}}
    with shop_with(engines, engine, returns=policy, **paying) as shop:
        bought = purchase("r1", tenders=[{"type": tender, "amount": 1000}])
        results = shop.batch([without_receipt("b1", 800), bought])
        assert [each["status"] for each in results] == [422, status]
        assert results[0]["problem"]["code"] == "unknown_member"
        shop.prove()


def test_without_the_receipt_nobody_gets_more_than_the_limit_back_and_keeps_the_points(
    engines: Engines, engine: str
) -> None:
    """Above the limit it takes the receipt; below, points that are not there are owed."""
    policy = {"without_receipt": "accept", "without_receipt_limit": 8}
    with shop_with(engines, engine, returns=policy) as shop:
        post(shop, purchase())
        assert post(shop, without_receipt("b1", 900), 422)["code"] == "receipt_needed"
        assert balance(shop)["available"] == 10
        for number, left in ((2, (2, 0)), (3, (0, 6))):
            assert post(shop, without_receipt(f"b{number}", 800))["returned"]["taken_back"] == 8
            assert (balance(shop)["available"], balance(shop)["debt"]) == left
        shop.prove()


@pytest.mark.parametrize(("spent_already", "kept_back", "forgiven"), [("withhold", 700, 0), ("write_off", 0, 7)])
def test_without_the_receipt_missing_points_are_withheld_or_forgiven(
    engines: Engines, engine: str, spent_already: str, kept_back: int, forgiven: int
) -> None:
    policy = {"without_receipt": "accept", "without_receipt_limit": 8, "points_already_spent": spent_already}
    with shop_with(engines, engine, returns=policy | {"withhold_value": {"amount": 100, "points": 1}}) as shop:
        post(shop, purchase("r1", 100))
        answer = post(shop, without_receipt("b1", 800))["returned"]
        assert (answer["withheld_amount"], answer["refund"], answer["written_off"]) == (
            kept_back,
            800 - kept_back,
            forgiven,
        )
        shop.prove()


def test_points_and_cash_come_back_in_proportion(engines: Engines, engine: str) -> None:
    with shop_with(engines, engine, **FEW) as shop:
        post(shop, purchase("first", 500))
        post(shop, bought("r1", 600, 400, points=300))
        assert balance(shop)["available"] == 200 + 700
        answer = post(shop, returned(lines=lines(2)))["returned"]
        assert (answer["given_back"], answer["taken_back"], answer["refund"]) == (120, 280, 280)
        answer = post(shop, returned("b2"))["returned"]
        assert (answer["given_back"], answer["taken_back"], answer["refund"]) == (180, 420, 420)
        assert balance(shop)["available"] == 500


def test_a_guests_purchase_comes_back_without_points(shop: Shop) -> None:
    post(shop, purchase(member=None))
    answer = post(shop, returned())
    assert (answer["returned"]["taken_back"], answer["returned"]["refund"], answer["member"]) == (0, 1000, None)


def test_a_claimed_purchase_comes_back_from_whoever_claimed_it(shop: Shop) -> None:
    id_ = post(shop, purchase(member=None))["id"]
    claim = shop.http.post(f"/v1/transactions/{id_}/claim", json={"member": {"card": "901"}})
    assert claim.status_code == 201, claim.text
    assert post(shop, returned())["returned"]["taken_back"] == 10
    assert balance(shop, "901") == {"available": 0, "pending": 0, "debt": 0, "qualifying": 0}


def claim(shop: Shop, id_: str, **query: Any) -> Any:
    return shop.http.post(f"/v1/transactions/{id_}/claim", json={"member": {"card": "900"}}, params=query)


FIRST = [returned("b1", lines=lines(2)), returned("b2", total=150)]
LATER: dict[str, list[dict[str, Any]]] = {
    "nothing more": [],
    "another line": [returned("b3", lines=lines(1))],
    "the rest": [returned("b3")],
    "the rest in parts": [returned("b3", lines=lines(1)), returned("b4", total=1), returned("b5")],
    "the rest, voided": [voided()],
    "one was a mistake": [voided("v1", "b1", "return")],
    "one was a mistake, and comes back": [voided("v1", "b1", "return"), returned("b3", lines=lines(2))],
    "all was a mistake": [voided("v1", "b1", "return"), voided("v2", "b2", "return")],
    "all was a mistake, and comes back": [voided("v1", "b1", "return"), voided("v2", "b2", "return"), returned("b3")],
}


@pytest.mark.parametrize(
    ("owed", "terms"),
    [
        pytest.param(True, {"posting_profile": "full"}, id="in debt, full profile"),
        pytest.param(False, {"pending": {"mode": "days", "days": 2}}, id="pending"),
    ],
)
@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_a_claim_after_a_return_ends_as_if_both_had_been_the_members(
    engines: Engines, engine: str, later: list[dict[str, Any]], owed: bool, terms: dict[str, Any]
) -> None:
    """Points, every account of the journal and the cohort, whatever comes back after the claim."""

    def end(card: dict[str, str] | None) -> Any:
        with shop_with(engines, engine, earning={"points": 3, "per": 7}, **TENDER, **terms) as shop:
            if owed:
                post(shop, purchase("old", 70))
                shop.clock.forward(days=3)
                post(shop, bought("spends", 30, points=30, occurred_at=shop.clock().isoformat()))
                post(shop, returned("back", "old", occurred_at=shop.clock().isoformat()))
            day = {"occurred_at": shop.clock().isoformat()}
            id_ = post(shop, bought("r1", 301, 202, 403, member=card) | day)["id"]
            for body in FIRST:
                post(shop, body | day)
            if card is None:
                assert claim(shop, id_).status_code == 201
                shop.prove()
            between = balance(shop)
            answers = [post(shop, body | day) for body in later]
            accounting.fold(shop.database, shop.clock())
            trial = {row["code"]: row["balance"] for row in shop.get("/v1/accounting/trial-balance")["items"]}
            cohorts = [figures_of(item) for item in shop.get("/v1/accounting/cohorts")["items"]]
            taken = [answer["returned"]["taken_back"] for answer in answers]
            return between, balance(shop), trial, cohorts, taken

    assert end(None) == end({"card": "900"})


@pytest.mark.parametrize("policy", ["debt", "withhold", "write_off"])
def test_what_came_back_before_the_claim_pays_no_debt(engines: Engines, engine: str, policy: str) -> None:
    """Whatever becomes of points already spent: these were not, and nobody forgives what they have paid."""
    with shop_with(engines, engine, **FEW, returns={"points_already_spent": "debt"}) as shop:
        spend_400(shop)
        post(shop, returned())
        assert balance(shop)["debt"] == 400
        publish(shop, TERMS | FEW | {"returns": {"points_already_spent": policy}})
        shop.clock.forward(hours=1)
        day = {"occurred_at": shop.clock().isoformat()}
        id_ = post(shop, bought("g1", 300, 200, member=None) | day)["id"]
        post(shop, returned("b2", "g1", lines=lines(1)) | day)
        answer = claim(shop, id_).json()
        assert (answer["points"]["earned"], answer["taken_back"]) == (500, 300)
        assert balance(shop)["debt"] == 200


def test_a_claim_after_a_return_is_answered_the_same_again_and_in_a_dry_run(shop: Shop) -> None:
    id_ = post(shop, bought("r1", 600, 400, member=None))["id"]
    post(shop, returned(lines=lines(1)))
    dry = claim(shop, id_, dry_run=True).json()
    assert [(entry["kind"], entry["points"]) for entry in dry["entries"]] == [("accrual", 10), ("reversal", -6)]
    first = claim(shop, id_).json()
    post(shop, returned("b2"))
    again = claim(shop, id_).json()
    assert (first["taken_back"], first["balance"]["available"], len(first["postings"])) == (6, 4, 2)
    same = ("points", "taken_back", "postings")
    assert [[answer[name] for name in same] for answer in (dry, again)] == [[first[name] for name in same]] * 2
    assert again["balance"]["available"] == 0


@pytest.mark.parametrize(
    "back",
    [
        pytest.param([returned()], id="at once"),
        pytest.param([returned(lines=lines(1)), returned("b2", lines=lines(2))], id="line by line"),
        pytest.param([returned(lines=lines(1)), returned("b2", total=400)], id="the rest by amount"),
        pytest.param([voided()], id="voided"),
        pytest.param([returned(lines=lines(1)), voided()], id="a line, and the rest voided"),
    ],
)
def test_nothing_is_claimed_of_what_came_back_wholly(shop: Shop, back: list[dict[str, Any]]) -> None:
    id_ = post(shop, bought("r1", 600, 400, member=None))["id"]
    for body in back:
        post(shop, body)
    answer = claim(shop, id_)
    assert (answer.status_code, answer.json()["code"]) == (422, "nothing_to_return")


def test_what_came_back_by_mistake_is_claimed_whole(shop: Shop) -> None:
    id_ = post(shop, purchase(member=None))["id"]
    post(shop, returned())
    post(shop, voided(of="b1", type_="return"))
    assert claim(shop, id_).json()["taken_back"] == 0
    assert balance(shop)["available"] == 10


# --- early and late -------------------------------------------------------------------------------------------------


def test_a_return_before_its_purchase_waits_for_it(shop: Shop) -> None:
    first = post(shop, returned(lines=lines(1)), 202)
    assert (first["waiting"], first["duplicate"], first["id"]) == (True, False, None)
    assert post(shop, returned(lines=lines(1)), 202)["duplicate"]
    assert post(shop, returned(), 409)["code"] == "transaction_conflict"
    listed = shop.get("/v1/transactions/waiting")["items"]
    assert [(item["external_id"], item["original_external_id"]) for item in listed] == [("b1", "r1")]
    post(shop, bought("r1", 600, 400))
    assert shop.get("/v1/transactions/waiting")["items"] == []
    assert balance(shop)["available"] == 4
    again = post(shop, returned(lines=lines(1)), 200)
    assert (again["duplicate"], again["waiting"], again["returned"]["taken_back"]) == (True, False, 6)


def test_several_returns_wait_for_one_purchase(shop: Shop) -> None:
    for number in (1, 2):
        post(shop, returned(f"b{number}", lines=lines(number)), 202)
    path = "/v1/transactions/waiting"
    first = shop.get(path, limit=1)
    pages = [first, shop.get(path, limit=1, cursor=first["next"])]
    assert [item["external_id"] for page in pages for item in page["items"]] == ["b1", "b2"]
    post(shop, bought("r1", 600, 400))
    assert balance(shop)["available"] == 0
    assert shop.get("/v1/transactions/waiting")["items"] == []


def test_a_batch_may_bring_the_return_before_its_purchase(shop: Shop) -> None:
    results = shop.batch([returned(), purchase()])
    assert [result["status"] for result in results] == [202, 201]
    assert balance(shop)["available"] == 0
    assert shop.get("/v1/transactions/waiting")["items"] == []
    shop.prove()


def test_what_waited_and_cannot_be_applied_goes_on_waiting(shop: Shop) -> None:
    post(shop, returned(lines=lines(3)), 202)
    post(shop, bought("r1", 600, 400))
    assert [item["external_id"] for item in shop.get("/v1/transactions/waiting")["items"]] == ["b1"]
    assert post(shop, returned(lines=lines(3)), 422)["code"] == "return_too_large"
    post(shop, returned(lines=lines(1)))
    assert shop.get("/v1/transactions/waiting")["items"] == []


def dismiss(shop: Shop, external_id: str = "b1", key: str = "staff") -> Any:
    return shop.client(key).delete(f"/v1/transactions/waiting/store-1/{external_id}")


def test_what_waits_in_vain_is_dismissed(shop: Shop) -> None:
    """Its purchase came, and came back wholly by another return; staff end the wait, and the world hears of it."""
    post(shop, returned(lines=lines(1)), 202)
    post(shop, returned("b0"), 202)
    post(shop, bought("r1", 600, 400))
    assert [item["external_id"] for item in shop.get("/v1/transactions/waiting")["items"]] == ["b1"]
    assert dismiss(shop, key="terminal").status_code == 403
    assert dismiss(shop).status_code == 204
    assert shop.get("/v1/transactions/waiting")["items"] == []
    (told,) = events(shop, "return.dismissed")
    assert told.pop("client_id")
    assert told.pop("recorded_at") == shop.clock().isoformat()
    assert told == {
        "source": "store-1",
        "external_id": "b1",
        "original_source": "store-1",
        "original_external_id": "r1",
        "store": "1",
        "lines": lines(1),
        "total": None,
        "person": "somebody",
    }
    assert (dismiss(shop).status_code, len(events(shop, "return.dismissed"))) == (404, 1)
    assert post(shop, returned(lines=lines(1)), 422)["code"] == "return_too_large", "nothing of it is left"


def test_what_was_dismissed_may_come_again(shop: Shop) -> None:
    """And its purchase alone does not bring it back."""
    post(shop, returned(lines=lines(1)), 202)
    assert dismiss(shop).status_code == 204
    post(shop, bought("r1", 600, 400))
    assert balance(shop)["available"] == 10
    assert post(shop, returned(lines=lines(1)))["returned"]["taken_back"] == 6
    answer = dismiss(shop)
    assert (answer.status_code, answer.json()["code"]) == (409, "return_not_waiting")
    assert balance(shop)["available"] == 4


def test_a_return_is_dismissed_by_its_own_stores(shop: Shop) -> None:
    def key(store: str) -> str:
        options: dict[str, Any] = {"stores": [store], "scopes": {"transactions:dismiss"}}
        return shop.database.write(lambda session: make_key(session, "staff", shop.clock(), shop.program_id, **options))

    theirs, ours = key("2"), key("1")
    post(shop, returned(), 202)
    assert dismiss(shop, key=theirs).status_code == 404
    assert dismiss(shop, key=ours).status_code == 204
    post(shop, purchase())
    post(shop, returned())
    assert (dismiss(shop, key=theirs).status_code, dismiss(shop, key=ours).status_code) == (404, 409)


def test_a_return_and_its_purchase_at_once_never_miss_each_other(shop: Shop) -> None:
    for number in range(12):
        bodies = [purchase(f"r{number}"), returned(f"b{number}", f"r{number}")]
        with ThreadPoolExecutor(2) as pool:
            answers = [answer.status_code for answer in pool.map(shop.post, bodies)]
        assert answers[0] == 201
        assert answers[1] in (201, 202)
    assert shop.get("/v1/transactions/waiting")["items"] == []
    assert balance(shop)["available"] == 0
    shop.prove()


def test_returns_of_one_purchase_at_once_never_take_more_than_was_bought(shop: Shop) -> None:
    post(shop, purchase(lines=[{"line": 1, "product": "p1", "quantity": "3", "amount": 1000}]))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: shop.post(returned(f"b{n}", lines=lines(1))), range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [422] * 3
    assert sum(answer.json()["returned"]["refund"] for answer in answers if answer.status_code == 201) == 1000
    assert balance(shop)["available"] == 0
    shop.prove()


def test_points_that_paid_come_back_once_whoever_asks(database_url: str, crowded: dict[str, int]) -> None:
    """Two desks and the till that voids, all at once: one gives the points back, once."""
    with open_shop(settings_for(database_url, **crowded), TestClock(), TERMS | FEW) as shop:
        post(shop, purchase("first", 500))
        for round_ in range(5):
            receipt = f"r{round_}"
            post(shop, bought(receipt, 500, points=500))
            bodies = [returned(f"{receipt}-b{number}", receipt) for number in range(4)]
            bodies += [voided(f"{receipt}-v{number}", receipt) for number in range(4)]
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(shop.post, bodies))
            assert sorted({answer.status_code for answer in answers}) in ([201, 409, 422], [201, 422])
            given = [answer.json()["returned"]["given_back"] for answer in answers if answer.status_code == 201]
            assert given == [500]
            assert balance(shop)["available"] == 500
            shop.prove()


def test_a_duplicate_is_answered_what_the_first_was(shop: Shop) -> None:
    post(shop, bought("r1", 600, 400))
    first = post(shop, returned(lines=lines(1)))
    post(shop, returned("b2"))
    again = post(shop, returned(lines=lines(1)), 200)
    today = {"duplicate": False, "balance": None, "expiring_next": None}
    assert again | today == first | today
    assert post(shop, returned(lines=lines(2)), 409)["code"] == "transaction_conflict"


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(returned("x", lines=[{"line": 1, "quantity": "2"}]), 422, "return_too_large", id="more of a line"),
        pytest.param(returned("x", lines=[{"line": 9, "quantity": "1"}]), 422, "return_too_large", id="no such line"),
        pytest.param(returned("x", lines=[{"line": 1, "quantity": "0"}]), 422, "return_too_large", id="none of a line"),
        pytest.param(returned("x", total=1001), 422, "return_too_large", id="more money"),
        pytest.param(returned("x", lines=lines(1), total=599), 422, "refund_differs", id="another refund"),
        pytest.param(returned("x", currency="EUR"), 422, "currency_mismatch", id="another currency"),
        pytest.param(voided("x", "nobody"), 422, "unknown_original", id="void of nothing"),
        pytest.param(voided("x", "nobody", "return"), 422, "unknown_original", id="void of no return"),
        pytest.param(
            returned("x", original=None, member={"card": "900"}, currency="USD", total=1), 422, "receipt_needed",
            id="no receipt",
        ),
    ],
)  # fmt: skip
def test_refused(shop: Shop, body: dict[str, Any], status: int, code: str) -> None:
    post(shop, bought("r1", 600, 400))
    assert post(shop, body, status)["code"] == code
    assert shop.post(body).status_code == status, "its number is not taken"
    assert balance(shop)["available"] == 10


# --- any split ends as one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["adjustment", "full"])
@pytest.mark.parametrize("seed", range(4))
def test_any_split_and_order_ends_as_one_return(engines: Engines, engine: str, profile: str, seed: int) -> None:
    """Points, every account of the journal and the cohort: to the point, the minor unit and the millionth."""
    chance = random.Random(seed)
    goods: list[dict[str, Any]] = [
        {
            "line": number,
            "product": f"p{number}",
            "quantity": str(chance.randint(1, 4)),
            "amount": chance.randint(1, 999),
            "tax": chance.randint(0, 1),
        }
        for number in range(1, 5)
    ]
    total = sum(line["amount"] for line in goods)
    tendered = chance.randint(1, total)
    tenders = [{"type": "points", "amount": tendered}, {"type": "cash", "amount": total - tendered}]
    body = purchase("r1", total, lines=goods, tenders=[tender for tender in tenders if tender["amount"]])
    units = [line["line"] for line in goods for _ in range(int(line["quantity"]))]
    chance.shuffle(units)
    rules = FEW | {"posting_profile": profile, "earning": {"points": 3, "per": 7}}

    def end(bodies: list[dict[str, Any]]) -> Any:
        with shop_with(engines, engine, **rules) as shop:
            post(shop, purchase("first", 5000))
            post(shop, body)
            results = shop.batch(bodies)
            assert {result["status"] for result in results} == {201}, results
            shop.prove()
            accounting.fold(shop.database, shop.clock())
            trial = shop.get("/v1/accounting/trial-balance")
            cohorts = [figures_of(item) for item in shop.get("/v1/accounting/cohorts")["items"]]
            return balance(shop), {row["code"]: row["balance"] for row in trial["items"]}, cohorts

    whole = end([returned()])
    single = end([returned(f"b{number}", lines=lines(unit)) for number, unit in enumerate(units)])
    half = end([returned("b1", lines=lines(units[0])), returned("b2", total=1), voided()])
    assert single == whole
    assert half == whole


VALUES = [{"amount": 2, "points": 3}, {"amount": 40, "points": 100}, {"amount": 1, "points": 3}]


@pytest.mark.parametrize("value", VALUES, ids=["two thirds", "two fifths", "a third"])
@pytest.mark.parametrize("spent_already", ["withhold", "write_off"])
def test_what_is_withheld_or_forgiven_is_the_same_in_ten_parts(
    engines: Engines, engine: str, spent_already: str, value: dict[str, int]
) -> None:
    """10 points, all spent; each of ten returns would round for itself."""
    terms = TENDER | {"point_value": value, "returns": {"points_already_spent": spent_already}}

    def end(parts: list[int]) -> Any:
        with shop_with(engines, engine, **terms) as shop:
            post(shop, purchase("r1", 1000))
            post(shop, purchase("r2", 10, tenders=[{"type": "points", "amount": 10}]))
            answers = [post(shop, returned(f"b{part}", "r1", total=total)) for part, total in enumerate(parts)]
            shop.prove()
            names = ("withheld", "withheld_amount", "written_off", "refund")
            sums = {name: sum(answer["returned"][name] for answer in answers) for name in names}
            trial = shop.get("/v1/accounting/trial-balance")["items"]
            return sums, {row["code"]: row["balance"] for row in trial}

    assert end([100] * 10) == end([1000])


def test_a_refund_too_small_to_withhold_from_leaves_it_to_the_next(engines: Engines, engine: str) -> None:
    policy = {"points_already_spent": "withhold", "withhold_value": {"amount": 100, "points": 1}}
    with shop_with(engines, engine, **TENDER, returns=policy) as shop:
        post(shop, purchase("r1", 1000))
        post(shop, purchase("r2", 10, tenders=[{"type": "points", "amount": 10}]))
        answers = [post(shop, returned(f"b{total}", "r1", total=total))["returned"] for total in (250, 750)]
        assert [answer["refund"] for answer in answers] == [0, 0]
        assert [answer["withheld"] + answer["written_off"] for answer in answers] == [
            answer["taken_back"] for answer in answers
        ]
        shop.prove()


def test_a_purchase_answers_the_balance_after_the_return_that_waited_for_it(shop: Shop) -> None:
    post(shop, returned("b1", "r1"), 202)
    answer = post(shop, purchase("r1"))
    assert answer["balance"] == {"available": 0, "held": 0, "pending": 0, "debt": 0}
    assert answer["expiring_next"] is None


def test_a_till_whose_clock_is_behind_returns_in_the_month_of_the_purchase(shop: Shop) -> None:
    """What was never deferred cannot be taken back: the fold goes by months."""
    shop.clock.now = datetime(2026, 12, 1, 12, tzinfo=UTC)
    post(shop, purchase("r1", occurred_at="2026-12-01T00:01:00-05:00"))
    post(shop, returned("b1", occurred_at="2026-11-30T23:59:50-05:00"))
    answer = shop.http.post("/v1/accounting/recognitions")
    assert answer.json()["left"] == 0, answer.text
    (cohort,) = shop.get("/v1/accounting/cohorts")["items"]
    assert (cohort["allocated"], cohort["recognised"]) == (0, 0)
    shop.prove()


ENDS = {
    "owed to the end": ["earns", "pays"],
    "paid by other points": ["more", "earns", "pays"],
    "paid by later points": ["earns", "more", "pays"],
    "paid by points that come back, too": ["more", "earns", "less", "pays"],
    "paid later by points that come back, too": ["earns", "more", "less", "pays"],
    "undone and done again": ["earns", "more", "not earns", "earns", "pays"],
    "undone when it was paid and spent": ["earns", "more", "pays", "not earns", "earns"],
}
"""What happens after a purchase earned points that paid for another one: returns, their voids, a purchase that earns
`more` and its return (`less`)."""


@pytest.mark.parametrize("order", ENDS.values(), ids=ENDS.keys())
def test_what_was_earned_and_what_it_paid_for_come_back_in_either_order(
    engines: Engines, engine: str, order: list[str]
) -> None:
    """Points spent are owed, or taken from others, when their purchase comes back; that is undone when what they paid
    for comes back. Nobody else's deferred revenue is touched, and none is recognised, in whatever order."""

    def end(names: list[str]) -> Any:
        with shop_with(engines, engine, **TENDER) as shop:
            post(shop, purchase("other", 100_000, member={"card": "901"}))
            post(shop, purchase("earns", 10_000))
            post(shop, purchase("pays", 100, tenders=[{"type": "points", "amount": 100}]))
            for number, name in enumerate(names):
                last = next((each for each in range(number - 1, -1, -1) if names[each] == name.removeprefix("not ")), 0)
                post(shop, step(name, number, last))
            accounting.fold(shop.database, shop.clock())
            shop.prove()
            trial = {row["code"]: row["balance"] for row in shop.get("/v1/accounting/trial-balance")["items"]}
            cohorts = [figures_of(item) for item in shop.get("/v1/accounting/cohorts")["items"]]
            return trial, cohorts, balance(shop), balance(shop, "901")["available"]

    def step(name: str, number: int, last: int) -> dict[str, Any]:
        if name == "more":
            return purchase("more", 15_000)
        if name.startswith("not "):
            return voided(f"step-{number}", f"step-{last}", "return")
        return returned(f"step-{number}", "more" if name == "less" else name)

    kept = [name for name in order if name in ("more", "less")]
    assert end(order) == end(["pays", "earns", *kept])


@pytest.mark.parametrize("undone", [False, True])
def test_points_that_live_on_elsewhere_are_paid_by_points_that_leave(
    engines: Engines, engine: str, undone: bool
) -> None:
    """Given away, they stay issued; so whatever pays for them, at once or later as debt, is issued no more."""

    def end(*names: str) -> Any:
        with shop_with(engines, engine, transfers={}) as shop:
            post(shop, purchase("other", member={"card": "901"}))
            post(shop, purchase("earns", 10_000))
            gift = {"from": {"card": "900"}, "to": {"card": "901"}, "points": 100}
            answer = shop.http.post("/v1/transfers", json=gift, headers={"Idempotency-Key": "gift"})
            assert answer.status_code == 201, answer.text
            for name in names:
                post(shop, returned("of-earns", "earns") if name == "earns" else purchase("more", 15_000))
            if undone:
                post(shop, voided(of="of-earns", type_="return"))
            accounting.fold(shop.database, shop.clock())
            shop.prove()
            issued = sum(item["issued"] for item in shop.get("/v1/accounting/cohorts")["items"])
            assert issued == balance(shop)["available"] + balance(shop, "901")["available"]
            return [figures_of(item) for item in shop.get("/v1/accounting/cohorts")["items"]], balance(shop)

    assert end("earns", "more") == end("more", "earns")


def test_what_a_void_gives_back_after_the_rest_was_returned_can_come_back(engines: Engines, engine: str) -> None:
    """A refund, then all the rest, then the refund did not happen after all: that much is with the shop."""
    with shop_with(engines, engine) as shop:
        post(shop, purchase("r1", 1_000))
        post(shop, returned("b1", "r1", total=300))
        post(shop, returned("b2", "r1"))
        post(shop, voided("v1", "b1", "return"))
        assert shop.post(returned("b3", "r1", total=301)).json()["code"] == "return_too_large"
        assert shop.post(returned("b3", "r1", total=299)).json()["code"] == "return_too_large"
        assert post(shop, returned("b3", "r1", total=300))["returned"]["refund"] == 300
        assert shop.post(returned("b4", "r1")).json()["code"] == "nothing_to_return"
        post(shop, voided("v3", "b3", "return"))
        assert post(shop, voided("v4", "r1"))["returned"]["refund"] == 300
        assert balance(shop)["available"] == 0
        assert {row["balance"] for row in shop.get("/v1/accounting/trial-balance")["items"]} == {0}


def test_points_come_back_twice_to_one_lot_and_pay_once(engines: Engines, engine: str) -> None:
    """Some of the spent points still count as used, for others the same lot stands in; there is debt for more."""
    with shop_with(engines, engine, **TENDER, transfers={}) as shop:
        post(shop, purchase("r1", 1_000))
        post(shop, purchase("r2", 500))
        gift = {"from": {"card": "900"}, "to": {"card": "901"}, "points": 7}
        post(shop, purchase("other", 100, member={"card": "901"}))
        answer = shop.http.post("/v1/transfers", json=gift, headers={"Idempotency-Key": "gift"})
        assert answer.status_code == 201, answer.text
        post(shop, purchase("sp", 5, tenders=[{"type": "points", "amount": 5}]))
        post(shop, returned("b1", "r1"))
        tried = shop.post(returned("b2", "sp"), dry_run=True).json()
        done = post(shop, returned("b2", "sp"))
        assert tried["balance"] == done["balance"] == {"available": 0, "held": 0, "pending": 0, "debt": 2}
        shop.prove()


@pytest.mark.parametrize("undone", [False, True])
def test_forgiven_points_do_not_come_back(engines: Engines, engine: str, undone: bool) -> None:
    """They were given up when their purchase came back; what they paid for makes up for that when it does. In the other
    order nothing is forgiven at all, and the books are the same."""

    def end(*names: str) -> Any:
        with shop_with(engines, engine, **TENDER, returns={"points_already_spent": "write_off"}) as shop:
            post(shop, purchase("earns", 10_000))
            post(shop, purchase("pays", 2_000, tenders=[{"type": "points", "amount": 70}, CASH]))
            answers = {name: post(shop, returned(f"of-{name}", name))["returned"] for name in names}
            if undone:
                for name in reversed(names):
                    post(shop, voided(f"not-{name}", f"of-{name}", "return"))
            accounting.fold(shop.database, shop.clock())
            shop.prove()
            rows = shop.get("/v1/accounting/trial-balance")["items"]
            trial = {row["code"]: row["balance"] for row in rows if row["balance"]}
            return answers, (trial, balance(shop), [figures_of(each) for each in _cohorts(shop)])

    answers, state = end("earns", "pays")
    assert (answers["earns"]["written_off"], answers["pays"]["given_back"], answers["pays"]["settled"]) == (51, 70, 51)
    assert state == end("pays", "earns")[1]


CASH = {"type": "cash", "amount": 1_930}


def _cohorts(shop: Shop) -> Any:
    return shop.get("/v1/accounting/cohorts")["items"]


def test_held_points_that_are_forgiven_leave_the_books_in_order(engines: Engines, engine: str) -> None:
    with shop_with(engines, engine, **TENDER, returns={"points_already_spent": "write_off"}) as shop:
        post(shop, purchase("r1", 10_000))
        post(shop, purchase("sp", 2_000, tenders=[{"type": "points", "amount": 70}, CASH]))
        hold = {"member": {"card": "900"}, "points": 40}
        assert shop.http.post("/v1/holds", json=hold, headers={"Idempotency-Key": "hold"}).status_code == 201
        post(shop, returned("b1", "r1"))
        post(shop, returned("b2", "sp"))
        shop.prove()
