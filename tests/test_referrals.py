"""Referrals: who brought whom, said before the first purchase; and what campaigns give both for it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from app.worker import run_jobs
from tests.conftest import settings_for
from tests.points import balance, earn, events, publish
from tests.shop import Shop, TestClock, make_key, make_program, open_shop, purchase, returned, voided
from tests.test_campaigns import at, enrol, given, offering, set_status, with_, work

FRIENDS: dict[str, Any] = {
    "code": "friends",
    "name": "Bring a friend",
    "occasion": {"type": "referral", "referrer_points": 300, "minimum_spend": 2000, "wait_days": 7},
    "points": 200,
}


def name(shop: Shop, friend: UUID, card: str) -> Any:
    """Says that whoever has a card brought a member."""
    return shop.http.put(f"/v1/members/{friend}/referrer", json={"referrer": {"card": card}})


def check_problem(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def brought(shop: Shop, friends: int = 1) -> tuple[UUID, list[UUID]]:
    """A member, and friends whom they brought, cards `f0`, ..."""
    ann = enrol(shop, "ann")
    members = [enrol(shop, f"f{number}") for number in range(friends)]
    for member in members:
        assert name(shop, member, "ann").status_code == 200
    return ann, members


def buy(shop: Shop, external_id: str, total: int, card: str = "f0", when: str | None = None) -> None:
    body = purchase(external_id, total, occurred_at=when or shop.clock().isoformat(), member={"card": card})
    assert shop.post(body).status_code == 201


# --- who brought whom -----------------------------------------------------------------------------------------------


def test_who_brought_a_member_is_said_as_they_join(shop: Shop) -> None:
    ann = enrol(shop, "ann")
    body = {"identifiers": [{"kind": "card", "value": "bob"}], "referred_by": {"card": "ann"}}
    answer = shop.http.post("/v1/members", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 201, answer.text
    bob = answer.json()["id"]
    expected = {"member_id": bob, "referrer_id": str(ann), "recorded_at": shop.clock().isoformat()}
    assert shop.get(f"/v1/members/{bob}/referrer") == expected
    check_problem(shop.http.get(f"/v1/members/{ann}/referrer"), 404, "not_found")
    assert events(shop, "member.referred") == [{"referrer_id": str(ann)}]
    shop.prove()


@pytest.mark.parametrize(
    ("referrer", "status", "code"), [("nobody", 422, "unknown_member"), ("bob", 422, "referral_to_self")]
)
def test_who_joins_with_a_wrong_referrer_does_not_join(shop: Shop, referrer: str, status: int, code: str) -> None:
    body = {"identifiers": [{"kind": "card", "value": "bob"}], "referred_by": {"card": referrer}}
    answer = shop.http.post("/v1/members", json=body, headers={"Idempotency-Key": "k"})
    check_problem(answer, status, code)
    if code == "unknown_member":
        assert [each["pointer"] for each in answer.json()["errors"]] == ["#/referred_by"]
    assert shop.http.get("/v1/members/lookup", params={"card": "bob"}).status_code == 404


def test_or_later_but_before_they_buy(shop: Shop) -> None:
    ann, (bob,) = brought(shop)
    enrol(shop, "eve")
    late = earn(shop, "r1", 10, card="late")
    check_problem(name(shop, bob, "f0"), 422, "referral_to_self")
    check_problem(name(shop, bob, "nobody"), 422, "unknown_member")
    check_problem(name(shop, bob, "eve"), 409, "already_referred")
    check_problem(name(shop, late, "ann"), 409, "referral_too_late")
    check_problem(name(shop, uuid4(), "ann"), 404, "not_found")
    earn(shop, "r2", 10, card="f0")
    assert name(shop, bob, "ann").json()["referrer_id"] == str(ann), "the same again"


def test_a_purchase_that_earned_nothing_is_one(shop: Shop) -> None:
    enrol(shop, "ann")
    bob = enrol(shop, "bob")
    buy(shop, "r1", 1, "bob")
    check_problem(name(shop, bob, "ann"), 409, "referral_too_late")


def test_whoever_joined_later_brought_nobody(shop: Shop) -> None:
    """So two members cannot have brought each other."""
    ann = enrol(shop, "ann")
    shop.clock.forward(seconds=1)
    bob = enrol(shop, "bob")
    assert name(shop, bob, "ann").status_code == 200
    refused = name(shop, ann, "bob")
    check_problem(refused, 422, "referrer_joined_later")
    assert [each["pointer"] for each in refused.json()["errors"]] == ["#/referrer"]


@pytest.mark.parametrize("closed", ["ann", "bob"])
def test_closed_members_refer_nobody_and_are_referred_by_nobody(shop: Shop, closed: str) -> None:
    members = {card: enrol(shop, card) for card in ("ann", "bob")}
    set_status(shop, members[closed], "closed")
    check_problem(name(shop, members["bob"], "ann"), 409, "member_closed")


def test_members_of_another_programme_are_nobody(shop: Shop) -> None:
    """Neither by card nor by id."""
    bob = enrol(shop, "bob")
    other = shop.database.write(lambda s: make_program(s, with_(), shop.clock(), "other"))
    http = shop.client(shop.database.write(lambda s: make_key(s, "staff", shop.clock(), other)))
    body = {"identifiers": [{"kind": "card", "value": "ann"}]}
    ann = http.post("/v1/members", json=body, headers={"Idempotency-Key": "k"}).json()["id"]
    for reference in ({"card": "ann"}, {"id": ann}):
        answer = shop.http.put(f"/v1/members/{bob}/referrer", json={"referrer": reference})
        check_problem(answer, 422, "unknown_member")
    check_problem(http.put(f"/v1/members/{bob}/referrer", json={"referrer": {"card": "ann"}}), 404, "not_found")


def test_of_many_at_once_one_is_the_referrer(database_url: str, clock: TestClock) -> None:
    with open_shop(settings_for(database_url, lock_timeout_ms=30_000), clock) as shop:
        cards = [f"c{number}" for number in range(8)]
        for card in cards:
            enrol(shop, card)
        bob = enrol(shop, "bob")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda card: name(shop, bob, card), cards))
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
        shop.prove()


def test_the_database_refuses_what_is_wrong(shop: Shop) -> None:
    brought(shop)
    wrong = {
        "UPDATE member_referral SET referrer_id = member_id": "append-only",
        "DELETE FROM member_referral": "append-only",
        "INSERT INTO member_referral SELECT * FROM member_referral": r"(?i)unique|has that row",
        "INSERT INTO member_referral (member_id, program_id, referrer_id, recorded_at) "
        "SELECT referrer_id, program_id, referrer_id, recorded_at FROM member_referral": r"two_members|CHECK",
        "INSERT INTO member_referral (member_id, program_id, referrer_id, recorded_at) "
        "SELECT referrer_id, program_id, program_id, recorded_at FROM member_referral": r"(?i)foreign key",
    }
    for statement, words in wrong.items():
        with shop.database.engine.connect() as connection:
            with pytest.raises(DatabaseError, match=words):
                connection.execute(text(statement))
            connection.rollback()


# --- what both are given --------------------------------------------------------------------------------------------


def test_both_are_given_something_when_the_friend_has_bought_and_kept_it(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, FRIENDS) as shop:
        ann, (bob,) = brought(shop)
        buy(shop, "small", 1999)
        clock.forward(days=1)
        buy(shop, "large", 2000)
        clock.now = at("2026-11-29T23:59:59-05:00")
        assert run_jobs(shop.database, clock())["give-bonuses"] == 0
        clock.forward(seconds=1)
        assert run_jobs(shop.database, clock())["give-bonuses"] == 2
        assert given(shop, ann) == [("friends", str(bob), 300)]
        assert given(shop, bob) == [("friends", str(bob), 200)]
        assert balance(shop, ann)["available"] == 300
        (told,) = shop.get(f"/v1/members/{ann}/bonuses")["items"]
        assert (told["type"], told["day"], told["points"]) == ("referral", "2026-11-30", 300)
        buy(shop, "more", 5000)
        clock.forward(days=30)
        assert work(shop).rows == 0, "a friend is brought once"
        (campaign,) = shop.get("/v1/campaigns")["items"]
        assert (campaign["given"], campaign["grants"]) == (500, 2)


@pytest.mark.parametrize("how", ["returned", "void", "in part"])
def test_what_is_brought_back_earns_nobody_anything(database_url: str, clock: TestClock, how: str) -> None:
    with offering(database_url, clock, FRIENDS) as shop:
        brought(shop)
        buy(shop, "r1", 2000)
        clock.forward(days=5)
        now = clock().isoformat()
        back = {
            "returned": returned(occurred_at=now),
            "void": voided() | {"occurred_at": now},
            "in part": returned(occurred_at=now, total=1),
        }[how]
        assert shop.post(back).status_code == 201
        clock.forward(days=5)
        assert work(shop).rows == 0
        buy(shop, "r2", 2000)
        clock.forward(days=8)
        assert work(shop).rows == 2, "but the next that is kept does"


def test_a_return_that_was_voided_is_none(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, FRIENDS) as shop:
        brought(shop)
        buy(shop, "r1", 2000)
        now = clock().isoformat()
        assert shop.post(returned(occurred_at=now)).status_code == 201
        assert shop.post(voided(of="b1", type_="return") | {"occurred_at": now}).status_code == 201
        clock.forward(days=8)
        assert work(shop).rows == 2


def test_a_purchase_that_is_uploaded_late_counts(database_url: str, clock: TestClock) -> None:
    """Though the day of the bonus has been walked through already."""
    with offering(database_url, clock, FRIENDS) as shop:
        brought(shop)
        bought_at = clock()
        clock.forward(days=10)
        assert run_jobs(shop.database, clock())["give-bonuses"] == 0
        buy(shop, "r1", 2000, when=bought_at.isoformat())
        clock.forward(days=1)
        assert run_jobs(shop.database, clock())["give-bonuses"] == 2


def test_a_purchase_of_the_last_day_counts_when_the_campaign_is_over(database_url: str, clock: TestClock) -> None:
    """By the terms of the purchase; one of the day after does not."""
    with offering(database_url, clock, FRIENDS | {"last_day": "2026-11-22"}) as shop:
        brought(shop, 2)
        run_jobs(shop.database, clock())
        buy(shop, "r1", 2000)
        clock.forward(days=1)
        buy(shop, "r2", 2000, card="f1")
        clock.forward(seconds=1)
        publish(shop, with_(FRIENDS | {"points": 1}))
        clock.forward(days=20)
        assert run_jobs(shop.database, clock())["give-bonuses"] == 2
        assert sorted(points for _, _, points in given(shop)) == [200, 300]


def test_a_till_whose_clock_is_behind_sells_to_a_member(database_url: str, clock: TestClock) -> None:
    """What was bought on a day before joining is another matter."""
    with offering(database_url, clock, FRIENDS) as shop:
        brought(shop, 2)
        buy(shop, "r1", 2000, when="2026-11-22T06:59:00-05:00")
        buy(shop, "r2", 2000, card="f1", when="2026-11-21T12:00:00-05:00")
        clock.forward(days=8)
        assert work(shop).rows == 2


def test_a_campaign_that_comes_later_gives_nothing_for_what_was_bought_before(
    database_url: str, clock: TestClock
) -> None:
    """Nor for what is bought after: it is not the friend's first."""
    with offering(database_url, clock, FRIENDS) as shop:
        _, (bob,) = brought(shop)
        buy(shop, "r1", 2000)
        clock.forward(days=8)
        publish(shop, with_(FRIENDS, FRIENDS | {"code": "more"}))
        clock.forward(seconds=1)
        buy(shop, "r2", 2000)
        clock.forward(days=8)
        assert work(shop).rows == 2
        assert [code for code, _, _ in given(shop, bob)] == ["friends"]


@pytest.mark.parametrize(
    "limit", [{"occasion": FRIENDS["occasion"] | {"most_friends": 2}}, {"most_per_member": 2}], ids=str
)
def test_a_referrer_is_given_something_for_so_many_friends(
    database_url: str, clock: TestClock, limit: dict[str, Any]
) -> None:
    """The friends all the same."""
    offered = FRIENDS | limit
    with offering(database_url, clock, offered) as shop:
        ann, friends = brought(shop, 3)
        for number in range(3):
            buy(shop, f"r{number}", 2000, card=f"f{number}")
        clock.forward(days=8)
        assert work(shop).rows == 5
        assert len(given(shop, ann)) == 2
        assert [len(given(shop, friend)) for friend in friends] == [1, 1, 1]


@pytest.mark.parametrize(("who", "rows"), [("ann", 1), ("f0", 0)])
def test_who_may_not_earn_is_given_nothing(database_url: str, clock: TestClock, who: str, rows: int) -> None:
    """A friend who may not earn brings the referrer nothing; the other way round the friend is not to blame."""
    with offering(database_url, clock, FRIENDS) as shop:
        ann, (bob,) = brought(shop)
        buy(shop, "r1", 2000)
        set_status(shop, {"ann": ann, "f0": bob}[who], "suspended")
        clock.forward(days=8)
        assert work(shop).rows == rows
        assert given(shop, ann) == []


def test_a_budget_is_for_both(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, FRIENDS | {"budget": 999}) as shop:
        brought(shop, 2)
        for number in range(2):
            buy(shop, f"r{number}", 2000, card=f"f{number}")
        clock.forward(days=8)
        assert work(shop).rows == 2


def test_a_friend_may_bring_friends(database_url: str, clock: TestClock) -> None:
    """Given in one run: to each as a friend, and to each for a friend."""
    offered = FRIENDS | {"occasion": FRIENDS["occasion"] | {"most_friends": 1}}
    with offering(database_url, clock, offered) as shop:
        ann, (bob,) = brought(shop)
        eve = enrol(shop, "eve")
        assert name(shop, eve, "f0").status_code == 200
        buy(shop, "r1", 2000)
        buy(shop, "r2", 2000, card="eve")
        clock.forward(days=8)
        assert work(shop).rows == 4
        assert sorted(points for _, _, points in given(shop, bob)) == [200, 300]
        assert [points for _, _, points in given(shop, ann)] == [300]


def test_a_guests_purchase_counts_once_it_is_claimed(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, FRIENDS) as shop:
        brought(shop)
        guest = shop.post(purchase("g1", 2000, member=None, occurred_at=clock().isoformat())).json()
        answer = shop.http.post(f"/v1/transactions/{guest['id']}/claim", json={"member": {"card": "f0"}})
        assert answer.status_code == 201
        clock.forward(days=8)
        assert work(shop).rows == 2


def test_two_campaigns_of_one_group_give_a_friend_once(database_url: str, clock: TestClock) -> None:
    more = FRIENDS | {"code": "more", "group": "friends", "priority": 1, "points": 201}
    with offering(database_url, clock, FRIENDS | {"group": "friends"}, more) as shop:
        _, (bob,) = brought(shop)
        buy(shop, "r1", 2000)
        clock.forward(days=8)
        assert work(shop).rows == 2
        assert given(shop, bob) == [("more", str(bob), 201)]
