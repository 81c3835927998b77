"""Clubs with a fee: sold once, earned month by month, renewed, paid back; and what that posts."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.clubs import queries
from app.worker import run_jobs
from tests.clubs import PAID, PARKING, ask, belongs, buy, clubs, forward_to, history, member_of, pay, posted, topics
from tests.conftest import settings_for
from tests.points import events, publish
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase

__all__ = ["clubs"]  # a fixture


def test_a_fee_is_paid_for_the_membership_and_its_points(clubs: Shop) -> None:
    answer = pay(clubs)
    assert answer.status_code == 201, answer.text
    joined = answer.json()
    assert joined["begins_at"] == "2026-11-22T12:00:00+00:00"
    assert joined["until_at"] == joined["ends_at"] == "2027-11-22T05:00:00+00:00"
    # 100 points at 0.01, of which four of five are used: 0.80 beside 10.00
    assert (joined["fee"], joined["deferred"], joined["points"]) == (1000, 926, 100)
    assert [(row["debit"], row["credit"], row["amount"]) for row in joined["postings"]] == [
        ("4000", "2110", 926),
        ("4000", "2100", 74),
    ]
    assert joined["balance"]["available"] == 100
    friends = belongs(clubs)["friends"]
    assert friends["benefits"] == [PARKING | {"discount": None, "adds_nothing": False}]
    assert friends["fee"] == {"fee": 1000, "left": 926}
    assert friends["until"] == "2027-11-22T05:00:00+00:00"


def test_a_hundred_and_twenty_a_year_to_the_cent(database_url: str, clock: TestClock) -> None:
    """The worked example: 108.00 over twelve months, 12.00 for points; 9.00 after a month, and 108.00 in the end."""
    paid = PAID | {"joining": PAID["joining"] | {"fee": 12_000, "welcome_points": 1000}}
    worth = {"point_value": {"amount": 2000, "points": 1000}, "redemption_rate": {"numerator": 2, "denominator": 3}}
    terms = TERMS | worth | {"clubs": [paid], "posting_profile": "full", "currency": "CNY"}
    with open_shop(settings_for(database_url), clock, terms) as shop:
        assert pay(shop).status_code == 201
        assert posted(shop) == [("1000", "2110", 10_800), ("1000", "2100", 1_200)]
        forward_to(shop, "2026-12-22T05:00:00+00:00")
        run_jobs(shop.database, shop.clock())
        assert posted(shop, "membership") == [("2110", "4200", 900)]
        balances = {row["code"]: row["balance"] for row in shop.get("/v1/accounting/trial-balance")["items"]}
        assert {code: balances[code] for code in ("1000", "2110", "2100", "4200")} == {
            "1000": 12_000,
            "2110": -9_900,
            "2100": -1_200,
            "4200": -900,
        }
        forward_to(shop, "2027-11-22T05:00:00+00:00")
        run_jobs(shop.database, shop.clock())
        assert posted(shop, "membership") == [("2110", "4200", 900)] * 12
        shop.prove()


def test_the_till_and_we_together_post_the_whole_sale(database_url: str, clock: TestClock) -> None:
    """Tax, too: the till's entry, Dr 1000 / Cr 4000 net / Cr 2400, and ours are what the full profile posts alone."""
    paid = PAID | {"joining": PAID["joining"] | {"fee": 1160, "tax": 160}}
    net: dict[str, Counter[str]] = {
        "full": Counter(),
        "adjustment": Counter({"1000": 1160, "4000": -1000, "2400": -160}),
    }
    with open_shop(settings_for(database_url), clock, TERMS | {"clubs": [paid]}) as shop:
        for number, profile in enumerate(net):
            publish(shop, TERMS | {"clubs": [paid], "posting_profile": profile}, shop.clock())
            shop.clock.forward(seconds=1)
            made = {"identifiers": [{"kind": "card", "value": f"95{number}"}]}
            who = shop.http.post("/v1/members", json=made, headers={"Idempotency-Key": f"new-{profile}"}).json()["id"]
            receipt = {"receipt": {"source": "store-1", "external_id": profile}}
            path = f"/v1/members/{who}/clubs/friends"
            answer = shop.http.post(path, json=receipt, headers={"Idempotency-Key": profile})
            for row in answer.json()["postings"]:
                net[profile][row["debit"]] += row["amount"]
                net[profile][row["credit"]] -= row["amount"]
        assert net["full"] == {"1000": 1160, "2110": -926, "2100": -74, "2400": -160}
        assert {code: amount for code, amount in net["adjustment"].items() if amount} == net["full"]
        shop.prove()


def test_a_fee_is_earned_by_months_however_late_the_job_comes(clubs: Shop) -> None:
    """And each part as of its own end, in the month of its last day; running twice changes nothing."""
    pay(clubs)
    forward_to(clubs, "2027-03-01T00:00:00+00:00")
    assert belongs(clubs)["friends"]["fee"]["left"] == 926 - 232, "what is due has happened"
    for _ in range(2):
        run_jobs(clubs.database, clubs.clock())
        assert posted(clubs, "membership") == [("2110", "4200", 77), ("2110", "4200", 77), ("2110", "4200", 78)]
    rows = clubs.get("/v1/accounting/journal", cause="membership")["items"]
    assert [(row["occurred_at"], row["period"]) for row in rows] == [
        ("2026-12-22T05:00:00+00:00", "2026-12"),
        ("2027-01-22T05:00:00+00:00", "2027-01"),
        ("2027-02-22T05:00:00+00:00", "2027-02"),
    ]
    assert belongs(clubs)["friends"]["fee"]["left"] == 926 - 232


def test_welcome_points_are_sold_with_the_membership(clubs: Shop) -> None:
    """In the cohort of what purchases earn, not as marketing; and they count for no tier."""
    joined = pay(clubs).json()
    (lot,) = clubs.get(f"/v1/members/{member_of(clubs)}/lots")["items"]
    assert (lot["granted"], lot["remaining"]) == (100, 100)
    (cohort,) = clubs.get("/v1/accounting/cohorts")["items"]
    assert (cohort["funding"], cohort["allocated"], cohort["issued"]) == ("purchase", 74, 100)
    assert joined["balance"] | {"available": 0} == joined["balance"] | {"available": 0, "debt": 0, "pending": 0}


def test_a_receipt_pays_once(clubs: Shop) -> None:
    first = pay(clubs, "f1").json()
    again = pay(clubs, "f1")
    assert (again.status_code, again.json()["duplicate"], again.json()["id"]) == (200, True, first["id"])
    assert again.json()["postings"] == first["postings"]
    assert again.json()["balance"]["available"] == 100
    assert len(history(clubs)) == 1
    other = pay(clubs, "f1", "regulars")
    assert (other.status_code, other.json()["code"]) == (409, "membership_conflict")


def test_the_same_sale_under_two_numbers_is_no_renewal(clubs: Shop) -> None:
    pay(clubs, "f1")
    again = pay(clubs, "f2")
    assert (again.status_code, again.json()["code"]) == (409, "already_in_club")


def test_two_at_once_are_one(clubs: Shop) -> None:
    """Whether they carry two receipts or one."""
    member_of(clubs)
    for receipts in (["f1", "f2", "f3", "f4"], ["p1"] * 4):
        with ThreadPoolExecutor(4) as threads:
            if receipts[0] == "f1":
                answers = list(threads.map(lambda receipt: pay(clubs, receipt), receipts))
            else:
                answers = list(threads.map(lambda _: ask(clubs, "regulars", {}), receipts))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert [each["club"] for each in history(clubs)] == ["friends", "regulars"]


def test_one_receipt_in_two_processes_pays_once(clubs: Shop, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither sees what the other has not committed; then the database says who was second."""
    if engine == "sqlite":
        pytest.skip("one writer: nobody is at it at the same time")
    pay(clubs, "f1")
    monkeypatch.setattr(queries, "by_receipts", lambda *_: {})
    other = clubs.post(purchase("r1", member={"card": "901"})).json()["member"]["id"]
    receipt = {"receipt": {"source": "store-1", "external_id": "f1"}}
    answer = clubs.http.post(f"/v1/members/{other}/clubs/friends", json=receipt, headers={"Idempotency-Key": "other"})
    assert (answer.status_code, answer.json()["code"]) == (409, "membership_conflict")
    assert clubs.get(f"/v1/members/{other}/clubs/memberships")["items"] == []


def test_a_renewal_follows(clubs: Shop) -> None:
    first = pay(clubs, "f1").json()
    forward_to(clubs, "2027-11-01T12:00:00+00:00")
    second = pay(clubs, "f2").json()
    assert (second["follows_id"], second["points"]) == (first["id"], 50)
    assert second["begins_at"] == first["ends_at"]
    assert second["until_at"] == "2028-11-22T05:00:00+00:00"
    friends = belongs(clubs)["friends"]
    assert (friends["since"], friends["until"]) == (first["begins_at"], second["ends_at"])
    forward_to(clubs, "2027-11-23T12:00:00+00:00")
    assert belongs(clubs)["friends"]["since"] == first["begins_at"]
    run_jobs(clubs.database, clubs.clock())
    assert [each["ended_why"] for each in history(clubs)] == ["renewed", None]
    forward_to(clubs, "2028-11-22T05:00:00+00:00")
    assert belongs(clubs) == {}
    run_jobs(clubs.database, clubs.clock())
    assert [each["ended_why"] for each in history(clubs)] == ["renewed", "over"]
    assert topics(clubs) == [("joined", "fee"), ("renewed", "fee"), ("left", "over")]
    assert sum(amount for _, _, amount in posted(clubs, "membership")) == first["deferred"] + second["deferred"]


def test_leaving_with_a_refund_pays_back_what_is_not_earned(clubs: Shop) -> None:
    """After half a year six twelfths, and the share of the points with them."""
    pay(clubs)
    forward_to(clubs, "2027-05-22T04:00:00+00:00")
    tried = ask(clubs, "friends/leaving", {"reason": "moved", "refund": True}, dry_run=True).json()
    answer = ask(clubs, "friends/leaving", {"reason": "moved", "refund": True})
    assert answer.status_code == 200, answer.text
    left = answer.json()
    assert left["refund"] == tried["refund"] == {"amount": 463 + 74, "currency": "USD"}
    assert (left["taken_back"], left["balance"]["available"]) == (100, 0)
    assert [(each["ended_why"], each["ended_reason"]) for each in left["memberships"]] == [("refunded", "moved")]
    assert posted(clubs, "return") == [("2110", "4000", 463), ("2100", "4000", 74)]
    assert sum(amount for _, _, amount in posted(clubs, "membership")) == 463
    assert belongs(clubs) == {}
    forward_to(clubs, "2028-05-22T04:00:00+00:00")
    run_jobs(clubs.database, clubs.clock())
    assert sum(amount for _, _, amount in posted(clubs, "membership")) == 463
    assert topics(clubs) == [("joined", "fee"), ("left", "refunded")]
    assert ask(clubs, "friends/leaving", {"reason": "moved"}).json()["code"] == "not_in_club"


def test_a_sale_that_is_taken_back_at_once_leaves_nothing(database_url: str, clock: TestClock) -> None:
    """With its tax, and with the points; cash is where it was."""
    paid = PAID | {"joining": PAID["joining"] | {"fee": 1160, "tax": 160}}
    with open_shop(settings_for(database_url), clock, TERMS | {"clubs": [paid], "posting_profile": "full"}) as shop:
        pay(shop)
        left = ask(shop, "friends/leaving", {"reason": "mistake", "refund": True}).json()
        assert left["refund"] == {"amount": 1160, "currency": "USD"}
        assert posted(shop, "return") == [("2110", "1000", 926), ("2100", "1000", 74), ("2400", "1000", 160)]
        run_jobs(shop.database, shop.clock())
        assert {row["balance"] for row in shop.get("/v1/accounting/trial-balance")["items"]} == {0}
        shop.prove()


def test_spent_welcome_points_become_debt_or_stay(clubs: Shop) -> None:
    pay(clubs)
    member = member_of(clubs)
    hold = {"member": {"id": member}, "points": 60}
    held = clubs.http.post("/v1/holds", json=hold, headers={"Idempotency-Key": "h"}).json()["id"]
    clubs.http.post(f"/v1/holds/{held}/capture", json={}, headers={"Idempotency-Key": "c"})
    leaving = {"reason": "moved", "refund": True}
    kept = ask(clubs, "friends/leaving", leaving | {"points": "keep"}, dry_run=True).json()
    assert (kept["refund"]["amount"], kept["balance"]["available"], kept["taken_back"]) == (926, 40, 0)
    left = ask(clubs, "friends/leaving", leaving).json()
    assert (left["refund"]["amount"], left["balance"]["debt"], left["taken_back"]) == (1000, 60, 100)


def test_what_one_membership_lacks_the_other_stands_in_for(clubs: Shop) -> None:
    """Two fees are paid back at once, and of the points of both some are spent: no point is taken twice."""
    pay(clubs, "f1")
    forward_to(clubs, "2027-11-10T12:00:00+00:00")
    pay(clubs, "f2")
    hold = {"member": {"id": member_of(clubs)}, "points": 130}
    held = clubs.http.post("/v1/holds", json=hold, headers={"Idempotency-Key": "h"}).json()["id"]
    clubs.http.post(f"/v1/holds/{held}/capture", json={}, headers={"Idempotency-Key": "c"})
    left = ask(clubs, "friends/leaving", {"reason": "moved", "refund": True}).json()
    assert (left["taken_back"], left["balance"]["available"], left["balance"]["debt"]) == (150, 0, 130)


def test_leaving_without_a_refund_earns_the_rest(clubs: Shop) -> None:
    pay(clubs, "f1")
    forward_to(clubs, "2027-11-10T12:00:00+00:00")
    pay(clubs, "f2")
    left = ask(clubs, "friends/leaving", {"reason": "unhappy"}).json()
    assert left["refund"]["amount"] == 0
    assert [each["ended_why"] for each in left["memberships"]] == ["left", "left"]
    assert left["memberships"][1]["begins_at"] == left["memberships"][1]["ends_at"]
    assert sum(amount for _, _, amount in posted(clubs, "membership")) == 926 + 962
    assert left["balance"]["available"] == 150
    assert topics(clubs) == [("joined", "fee"), ("renewed", "fee"), ("left", "left")]
    assert pay(clubs, "f3").json()["follows_id"] is None


def test_members_are_told_ahead_of_an_end_once(clubs: Shop) -> None:
    """Thirty days before it; not who has renewed by then."""
    pay(clubs, "f1")
    ask(clubs, "regulars", {})
    buy(clubs, "r1", 4000)
    told = {"why": "promise", "club": "regulars", "until": "2027-02-22T05:00:00+00:00", "missing": 6000}
    for at, warned in (("2027-01-23T04:59:59+00:00", []), ("2027-01-23T05:00:00+00:00", [told])):
        forward_to(clubs, at)
        for _ in range(2):
            run_jobs(clubs.database, clubs.clock())
            found = [each for each in events(clubs, "member.club_will_end") if each.pop("membership_id")]
            assert found == warned
    forward_to(clubs, "2027-10-23T12:00:00+00:00")
    pay(clubs, "f2")
    forward_to(clubs, "2027-11-01T12:00:00+00:00")
    run_jobs(clubs.database, clubs.clock())
    assert len(events(clubs, "member.club_will_end")) == 1


def test_a_dry_run_joins_nobody(clubs: Shop) -> None:
    tried = pay(clubs, "f1", dry_run=True)
    assert (tried.status_code, tried.json()["id"], tried.json()["deferred"]) == (200, None, 926)
    assert [entry["points"] for entry in tried.json()["entries"]] == [100]
    assert history(clubs) == []
    assert pay(clubs, "f1").status_code == 201


def test_who_may_not_earn_joins_nothing(clubs: Shop) -> None:
    member = member_of(clubs)
    patched = clubs.http.patch(f"/v1/members/{member}", json={"status": "suspended"}, headers={"If-Match": '"1"'})
    assert patched.status_code == 200
    assert pay(clubs).json()["code"] == "member_may_not_earn"
    assert ask(clubs, "regulars", {}).json()["code"] == "member_may_not_earn"
    assert history(clubs) == []
