"""Clubs through the API: joined by a purchase, a promise or a fee; renewed, left, ended by time; told and earned by."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select, text
from sqlalchemy.exc import DatabaseError

from app import programs
from app.accounting import JournalPosting
from app.clubs import queries
from app.clubs.models import ClubMembership
from app.ids import new_id
from app.insight import Period, replay
from app.outbox import OutboxEvent
from app.worker import run_jobs
from tests.conftest import settings_for
from tests.points import events, publish
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned, voided

PARKING = {"code": "parking", "name": "A place to park", "kind": "hard"}
PAID: dict[str, Any] = {
    "code": "friends",
    "name": "Friends of the house",
    "joining": {"type": "fee", "fee": 1000, "tax": 0, "months": 12, "welcome_points": 100, "renewal_points": 50},
    "benefits": [PARKING],
}
PROMISED: dict[str, Any] = {
    "code": "regulars",
    "name": "Regulars",
    "joining": {"type": "promise", "spend": 10_000, "months": 3},
}
BOUGHT: dict[str, Any] = {
    "code": "gardeners",
    "name": "Gardeners",
    "joining": {"type": "purchase", "minimum_spend": 5000, "on": {"departments": ["GARDEN"]}, "months": 6},
}
CLUBS: dict[str, Any] = TERMS | {
    "clubs": [PAID, PROMISED, BOUGHT],
    "uploads": {"latest_days": None},
    "rules": [
        {
            "code": "club_day",
            "name": "Ten points for members of clubs",
            "gives": {"type": "fixed", "points": 10},
            "who": {"clubs": ["friends", "regulars", "gardeners"]},
        }
    ],
}


@pytest.fixture
def clubs(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, CLUBS) as shop:
        yield shop
        shop.prove()


def buy(shop: Shop, external_id: str, total: int = 1000, department: str = "FOOD", **changes: Any) -> dict[str, Any]:
    """A purchase of now, of one department."""
    changes = {"occurred_at": shop.clock().isoformat()} | changes
    body = purchase(external_id, total, **changes)
    body["lines"][0]["department"] = department
    answer = shop.post(body)
    assert answer.status_code == 201, answer.text
    bought: dict[str, Any] = answer.json()
    return bought


def member_of(shop: Shop, card: str = "900") -> str:
    found = shop.http.get("/v1/members/lookup", params={"card": card})
    if found.status_code == 200:
        return str(found.json()["id"])
    made = shop.http.post(
        "/v1/members", json={"identifiers": [{"kind": "card", "value": card}]}, headers={"Idempotency-Key": card}
    )
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def ask(shop: Shop, path: str, body: dict[str, Any], key: str | None = None, **query: Any) -> Any:
    """Posts to a member's clubs, under a key of its own unless one is given."""
    ask.count += 1  # type: ignore[attr-defined]
    headers = {"Idempotency-Key": key or f"ask-{ask.count}"}  # type: ignore[attr-defined]
    return shop.http.post(f"/v1/members/{member_of(shop)}/clubs/{path}", json=body, headers=headers, params=query)


ask.count = 0  # type: ignore[attr-defined]


def pay(shop: Shop, receipt: str = "f1", club: str = "friends", **query: Any) -> Any:
    return ask(shop, club, {"receipt": {"source": "store-1", "external_id": receipt}}, **query)


def belongs(shop: Shop) -> dict[str, dict[str, Any]]:
    """The clubs of the member, by code."""
    items = shop.get(f"/v1/members/{member_of(shop)}/clubs")["items"]
    return {item["code"]: item for item in items}


def posted(shop: Shop, cause: str | None = None) -> list[tuple[str, str, int]]:
    """Debit, credit and amount of the postings of fees so far, of one cause or all, in their order."""
    fees = select(ClubMembership.id)
    rows = select(JournalPosting).where(JournalPosting.document_id.in_(fees)).order_by(JournalPosting.id)
    found = shop.database.read(lambda session: session.scalars(rows).all())
    return [(row.debit, row.credit, row.amount) for row in found if cause in (None, row.cause)]


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
    assert friends["benefits"] == [PARKING]
    assert friends["fee"] == {"fee": 1000, "left": 926}
    assert friends["until"] == "2027-11-22T05:00:00+00:00"


def forward_to(shop: Shop, text: str) -> None:
    shop.clock.now = datetime.fromisoformat(text)


def topics(shop: Shop) -> list[tuple[str, str]]:
    """What the world was told of clubs so far: of which, and why."""
    found = []
    rows = select(OutboxEvent).where(OutboxEvent.topic.like("member.%_club")).order_by(OutboxEvent.id)
    for row in shop.database.read(lambda session: session.scalars(rows).all()):
        found.append((row.topic.removeprefix("member.").removesuffix("_club"), row.payload["why"]))
    return found


def history(shop: Shop) -> list[dict[str, Any]]:
    """The member's memberships, the first first."""
    items: list[dict[str, Any]] = shop.get(f"/v1/members/{member_of(shop)}/clubs/memberships")["items"]
    return items[::-1]


def bonus(answer: dict[str, Any]) -> int:
    """What the rule for members of clubs gave for a purchase."""
    return sum(reason["points"] for reason in answer["points"]["reasons"] if reason["rule"] == "club_day")


# --- by a fee -------------------------------------------------------------------------------------------------------


def test_a_hundred_and_twenty_a_year_to_the_cent(database_url: str, clock: TestClock) -> None:
    """The published example: 108.00 over twelve months, 12.00 for points; 9.00 after a month, and 108.00 in the end."""
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


# --- by a promise ---------------------------------------------------------------------------------------------------


def test_a_promise_that_is_kept_goes_on(clubs: Shop) -> None:
    joined = ask(clubs, "regulars", {}).json()
    assert (joined["promised"], joined["until_at"]) == (10_000, "2027-02-22T05:00:00+00:00")
    buy(clubs, "r1", 7000)
    promise = belongs(clubs)["regulars"]["promise"]
    assert promise == {"promised": 10_000, "spent": 7000, "missing": 3000, "by": "2027-02-22T05:00:00+00:00"}
    buy(clubs, "r2", 3000)
    forward_to(clubs, "2027-02-22T05:00:00+00:00")
    renewed = belongs(clubs)["regulars"]
    assert renewed["promise"]["missing"] == 10_000, "before any job has looked"
    assert (renewed["since"], renewed["until"]) == (joined["begins_at"], "2027-05-22T04:00:00+00:00")
    run_jobs(clubs.database, clubs.clock())
    assert belongs(clubs)["regulars"] == renewed
    assert [each["ended_why"] for each in history(clubs)] == ["renewed", None]
    forward_to(clubs, "2027-05-22T04:00:00+00:00")
    run_jobs(clubs.database, clubs.clock())
    assert [each["ended_why"] for each in history(clubs)] == ["renewed", "not_kept"]
    assert topics(clubs) == [("joined", "promise"), ("renewed", "promise"), ("left", "not_kept")]


def test_what_comes_back_in_time_was_not_bought(clubs: Shop) -> None:
    ask(clubs, "regulars", {})
    buy(clubs, "r1", 10_000)
    back = returned(total=1, occurred_at=clubs.clock().isoformat())
    assert clubs.post(back).status_code == 201
    assert belongs(clubs)["regulars"]["promise"]["missing"] == 1
    assert clubs.post(voided(of="b1", type_="return") | {"occurred_at": clubs.clock().isoformat()}).status_code == 201
    assert belongs(clubs)["regulars"]["promise"]["missing"] == 0
    assert clubs.post(returned("b2", total=1, occurred_at=clubs.clock().isoformat())).status_code == 201
    forward_to(clubs, "2027-02-22T05:00:00+00:00")
    run_jobs(clubs.database, clubs.clock())
    assert belongs(clubs) == {}


def test_what_comes_back_later_leaves_a_promise_kept(clubs: Shop) -> None:
    ask(clubs, "regulars", {})
    buy(clubs, "r1", 10_000)
    forward_to(clubs, "2027-02-22T05:00:00+00:00")
    assert clubs.post(returned(occurred_at=clubs.clock().isoformat())).status_code == 201
    regulars = belongs(clubs)["regulars"]
    assert regulars["promise"]["spent"] == 0, "that of the next time"
    assert history(clubs)[0]["spent"] == 10_000


def test_a_purchase_finds_a_promise_at_its_end(clubs: Shop) -> None:
    """The till is there before any job: the promise was not kept, and what is bought now does not count for it."""
    ask(clubs, "regulars", {})
    buy(clubs, "r1", 9_999)
    forward_to(clubs, "2027-02-22T05:00:00+00:00")
    assert bonus(buy(clubs, "r2", 10_000)) == 0
    (ended,) = history(clubs)
    assert (ended["ended_why"], ended["spent"]) == ("not_kept", 9_999)
    late = buy(clubs, "r3", 5000, occurred_at="2027-02-21T12:00:00-05:00")
    assert bonus(late) == 10, "as of then they belonged to it"
    assert history(clubs)[0]["spent"] == 9_999


def test_purchases_from_before_the_promise_do_not_count(clubs: Shop) -> None:
    ask(clubs, "regulars", {})
    buy(clubs, "r1", 5000, occurred_at="2026-11-22T06:00:00-05:00")
    assert belongs(clubs)["regulars"]["promise"]["spent"] == 0
    assert clubs.post(returned(occurred_at=clubs.clock().isoformat())).status_code == 201
    assert belongs(clubs)["regulars"]["promise"]["spent"] == 0


def test_a_claimed_purchase_counts(clubs: Shop) -> None:
    ask(clubs, "regulars", {})
    guest = purchase("g1", 6000, member=None, occurred_at=clubs.clock().isoformat())
    guest["lines"][0]["department"] = "GARDEN"
    id_ = clubs.post(guest).json()["id"]
    clubs.clock.forward(hours=1)
    claimed = clubs.http.post(f"/v1/transactions/{id_}/claim", json={"member": {"card": "900"}})
    assert claimed.status_code == 201, claimed.text
    assert belongs(clubs)["regulars"]["promise"]["spent"] == 6000
    assert belongs(clubs)["gardeners"]["since"] == "2026-11-22T12:00:00+00:00"


# --- by a purchase --------------------------------------------------------------------------------------------------


def test_whoever_buys_joins_from_then_on(clubs: Shop) -> None:
    assert bonus(buy(clubs, "r1", 4999, "GARDEN")) == 0
    assert belongs(clubs) == {}
    assert bonus(buy(clubs, "r2", 5000, "GARDEN")) == 0, "it does not earn by what it brings"
    gardeners = belongs(clubs)["gardeners"]
    assert (gardeners["why"], gardeners["until"]) == ("purchase", "2027-05-22T04:00:00+00:00")
    clubs.clock.forward(seconds=1)
    assert bonus(buy(clubs, "r3", 100)) == 10
    forward_to(clubs, "2027-05-21T12:00:00+00:00")
    buy(clubs, "r4", 5000, "GARDEN")
    assert belongs(clubs)["gardeners"]["until"] == "2027-11-21T05:00:00+00:00"
    forward_to(clubs, "2027-11-21T05:00:00+00:00")
    assert bonus(buy(clubs, "r5", 100)) == 0
    run_jobs(clubs.database, clubs.clock())
    assert [each["ended_why"] for each in history(clubs)] == ["renewed", "over"]
    assert topics(clubs) == [("joined", "purchase"), ("renewed", "purchase"), ("left", "over")]


def test_in_a_batch_each_follows_its_predecessors(clubs: Shop) -> None:
    at = clubs.clock().isoformat()
    big = purchase("r1", 6000, occurred_at=at)
    big["lines"][0]["department"] = "GARDEN"
    results = clubs.batch([big, purchase("r2", 100, occurred_at=at), purchase("r3", 100, member={"card": "901"})])
    assert [bonus(result["transaction"]) for result in results] == [0, 10, 0]


def test_a_late_upload_earns_as_of_its_own_time(clubs: Shop) -> None:
    buy(clubs, "r1", 5000, "GARDEN")
    assert bonus(buy(clubs, "r2", 100, occurred_at="2026-11-21T12:00:00-05:00")) == 0
    buy(clubs, "r3", 5000, "GARDEN", occurred_at="2026-11-20T12:00:00-05:00")
    assert bonus(buy(clubs, "r4", 100, occurred_at="2026-11-21T12:00:00-05:00")) == 10
    assert belongs(clubs)["gardeners"]["since"] == "2026-11-20T17:00:00+00:00"
    buy(clubs, "r5", 5000, "GARDEN", occurred_at="2025-01-20T12:00:00-05:00")
    assert history(clubs)[-1]["ended_why"] == "over", "long ago"


@pytest.mark.parametrize("body", [voided(), returned(), returned(total=1)], ids=["void", "return", "a part"])
def test_a_membership_goes_with_the_purchase_that_brought_it(clubs: Shop, body: dict[str, Any]) -> None:
    buy(clubs, "r1", 5000, "GARDEN")
    clubs.clock.forward(hours=2)
    assert clubs.post(body | {"occurred_at": clubs.clock().isoformat()}).status_code == 201
    assert belongs(clubs) == {}
    (ended,) = history(clubs)
    assert (ended["ended_why"], ended["ends_at"]) == ("returned", clubs.clock().isoformat())
    assert topics(clubs) == [("joined", "purchase"), ("left", "returned")]
    assert bonus(buy(clubs, "r2", 100)) == 0


def test_the_void_of_a_return_lets_it_go_on(clubs: Shop) -> None:
    buy(clubs, "r1", 5000, "GARDEN")
    clubs.clock.forward(hours=2)
    at = clubs.clock().isoformat()
    clubs.post(returned(total=1, occurred_at=at))
    assert clubs.post(voided(of="b1", type_="return") | {"occurred_at": at}).status_code == 201
    assert belongs(clubs)["gardeners"]["until"] == "2027-05-22T04:00:00+00:00"


def test_a_sale_that_was_voided_and_posted_anew_joins_again(clubs: Shop) -> None:
    at = clubs.clock().isoformat()
    buy(clubs, "r1", 5000, "GARDEN", occurred_at=at)
    clubs.post(voided() | {"occurred_at": at})
    buy(clubs, "r2", 5000, "GARDEN", occurred_at=at)
    assert [each["ended_why"] for each in history(clubs)] == ["returned", None]
    assert list(belongs(clubs)) == ["gardeners"]


# --- earning --------------------------------------------------------------------------------------------------------


def test_an_explanation_knows_the_clubs_of_then(clubs: Shop) -> None:
    ask(clubs, "regulars", {})
    assert bonus(buy(clubs, "r1", 100)) == 10
    assert bonus(buy(clubs, "r2", 100, member={"card": "901"})) == 0
    ask(clubs, "regulars/leaving", {"reason": "unhappy"})
    why = {
        number: {each["rule"]: each["why"] for each in clubs.get(f"/v1/transactions/store-1/{number}")["explanation"]}
        for number in ("r1", "r2")
    }
    assert (why["r1"]["club_day"], why["r2"]["club_day"]) == (None, "club")


def test_a_replay_takes_the_clubs_as_they_were(clubs: Shop) -> None:
    ask(clubs, "regulars", {})
    buy(clubs, "r1", 100)
    ask(clubs, "regulars/leaving", {"reason": "unhappy"})
    buy(clubs, "r2", 100)
    since, until = clubs.clock() - timedelta(days=1), clubs.clock() + timedelta(days=1)
    terms = clubs.database.read(lambda session: programs.timeline(session, clubs.program_id))
    draft = terms.versions[-1].terms
    *_, totals = replay(clubs.database, clubs.program_id, draft, Period(since, until), clubs.clock())
    assert (totals.all.published.points, totals.all.draft.points, totals.assumed) == (12, 12, 0)


# --- households -----------------------------------------------------------------------------------------------------


def test_a_household_enjoys_it_too(database_url: str, clock: TestClock) -> None:
    """Those in the pool of the member, from when both are in it; and nobody learns what was paid."""
    terms = CLUBS | {"pools": {}, "clubs": [PAID | {"household": True}, PROMISED, BOUGHT]}
    with open_shop(settings_for(database_url), clock, terms) as shop:
        pay(shop)
        ask(shop, "regulars", {})
        for card in ("901", "902"):
            buy(shop, f"r{card}", 100, member={"card": card})
        pool = shop.http.post("/v1/pools", json={}, headers={"Idempotency-Key": "pool"}).json()["id"]
        for card in ("900", "901"):
            joining = {"member": {"card": card}}
            answer = shop.http.post(
                f"/v1/pools/{pool}/members", json=joining, headers={"Idempotency-Key": f"in-{card}"}
            )
            assert answer.is_success, answer.text
        shop.clock.forward(hours=1)
        assert bonus(buy(shop, "r1", 100, member={"card": "901"})) == 10
        assert bonus(buy(shop, "r2", 100, member={"card": "902"})) == 0
        assert bonus(buy(shop, "r3", 100, member={"card": "901"}, occurred_at="2026-11-22T11:59:00+00:00")) == 0
        mate = shop.get("/v1/members/lookup", card="901")["id"]
        (item,) = shop.get(f"/v1/members/{mate}/clubs")["items"]
        assert (item["code"], item["household"], item["fee"], item["benefits"]) == ("friends", True, None, [PARKING])
        shop.http.delete(f"/v1/pools/{pool}/members/{mate}", headers={"Idempotency-Key": "gone"})
        assert shop.get(f"/v1/members/{mate}/clubs")["items"] == []
        shop.prove()


# --- who is asked nothing -------------------------------------------------------------------------------------------


@contextmanager
def statements(shop: Shop) -> Iterator[list[str]]:
    """What is executed within the block."""
    told: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        told.append(statement)

    for engine in shop.database.engines:
        event.listen(engine, "before_cursor_execute", listen)
    try:
        yield told
    finally:
        for engine in shop.database.engines:
            event.remove(engine, "before_cursor_execute", listen)


def about_clubs(told: list[str]) -> list[str]:
    assert told
    return [statement for statement in told if "club_" in statement or "pool" in statement]


def test_without_clubs_nothing_is_asked_nor_told(shop: Shop) -> None:
    with statements(shop) as told:
        buy(shop, "r1", 100)
        run_jobs(shop.database, shop.clock())
        shop.post(returned(occurred_at=shop.clock().isoformat()))
    assert about_clubs(told) == []


def test_with_clubs_it_is_one_statement(clubs: Shop) -> None:
    buy(clubs, "r0", 100)
    with statements(clubs) as told:
        buy(clubs, "r1", 100)
    assert len(about_clubs(told)) == 1


def test_the_number_of_statements_does_not_depend_on_that_of_members(clubs: Shop) -> None:
    """Purchases that join, and jobs that end and recognise."""
    buy(clubs, "r0", 100)  # from now on the key is known
    counts = []
    for number, size in enumerate((2, 30)):
        bodies = [purchase(f"r{number}-{each}", 6000, member={"card": f"new{number}{each}"}) for each in range(size)]
        for body in bodies:
            body["lines"][0]["department"] = "GARDEN"
        with statements(clubs) as told:
            clubs.batch(bodies)
        counts.append(len(told))
        forward_to(clubs, f"20{27 + number}-06-01T00:00:00+00:00")
        with statements(clubs) as told:
            run_jobs(clubs.database, clubs.clock())
        counts.append(len(about_clubs(told)))
        forward_to(clubs, "2026-11-22T12:00:00+00:00")
    assert (counts[0], counts[1]) == (counts[2], counts[3])


# --- own memberships ------------------------------------------------------------------------------------------------


def test_a_member_reads_their_own(clubs: Shop) -> None:
    pay(clubs)
    token = clubs.http.post("/v1/oauth/token", json={"member": {"card": "900"}}).json()["access_token"]
    ada = clubs.client(token)
    told = ada.get("/v1/me/clubs")
    assert told.json()["items"] == clubs.get(f"/v1/members/{member_of(clubs)}/clubs")["items"]
    tag = {"If-None-Match": told.headers["etag"]}
    assert ada.get("/v1/me/clubs", headers=tag).status_code == 304
    clubs.clock.now = datetime(2026, 12, 22, 5, 0, tzinfo=UTC)
    assert ada.get("/v1/me/clubs", headers=tag).status_code == 401, "the token is over"


# --- what the database refuses --------------------------------------------------------------------------------------


REFUSED = {
    "why": "why = 'whim', fee = 0, tax = 0, deferred = 0, source = NULL, external_id = NULL",
    "club_not_empty": "club = ''",
    "ended_why": "ended_why = 'whim', ended_at = recorded_at",
    "ended_has_when": "ended_at = recorded_at",
    "lasts": "until_at = begins_at, ends_at = begins_at",
    "agreed_has_end": "until_at = NULL",
    "ends_in_time": "ends_at = recorded_at, begins_at = until_at, until_at = NULL, why = 'purchase', fee = 0, tax = 0, "
    "deferred = 0, recognised = 0, source = NULL, external_id = NULL",
    "ends_when_agreed": "ends_at = NULL",
    "promise_says_how_much": "promised = 1",
    "fee_positive": "fee = 0, tax = 0, deferred = 0, recognised = 0",
    "fee_has_receipt": "external_id = NULL",
    "deferred_within_fee": "tax = fee",
    "points_not_negative": "points = -1",
    "left_not_negative": "recognised = deferred, refunded = 1",
    "passed_within_months": "passed = 13",
    "warned_in_time": "warn_at = begins_at",
    "what_is_left_is_due": "earns_at = NULL",
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_database_refuses(clubs: Shop, name: str) -> None:
    pay(clubs)
    with clubs.database.engine.connect() as connection:
        _without_facts(connection)
        with pytest.raises(DatabaseError, match=f"ck_club_membership_{name}"):
            connection.execute(text(f"UPDATE club_membership SET {REFUSED[name]}"))
        connection.rollback()


def test_the_database_refuses_a_promise_of_nothing(clubs: Shop) -> None:
    ask(clubs, "regulars", {})
    with clubs.database.engine.connect() as connection:
        _without_facts(connection)
        with pytest.raises(DatabaseError, match="promised_positive"):
            connection.execute(text("UPDATE club_membership SET promised = 0"))
        connection.rollback()


def _without_facts(connection: Connection) -> None:
    """Lets facts be changed, so that what else refuses a statement shows."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("DROP TRIGGER club_membership_facts ON club_membership"))
    else:
        connection.execute(text("DROP TRIGGER club_membership_facts"))


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("UPDATE club_membership SET fee = fee + 1", "append-only"),
        ("UPDATE club_membership SET begins_at = recorded_at", "append-only"),
        ("DELETE FROM club_membership", "append-only"),
        ("UPDATE club_credit SET spend = spend + 1", "append-only"),
        ("DELETE FROM club_credit", "append-only"),
        ("INSERT INTO club_credit SELECT membership_id, program_id, 0, recorded_at FROM OTHER", "counts_something"),
    ],
)
def test_facts_stay(clubs: Shop, statement: str, match: str) -> None:
    ask(clubs, "regulars", {})
    buy(clubs, "r1", 100)
    statement = statement.replace("SELECT membership_id, program_id", "SELECT id, program_id")
    statement = statement.replace("OTHER", "club_membership")
    with clubs.database.engine.connect() as connection:
        with pytest.raises(DatabaseError, match=match):
            connection.execute(text(statement))
        connection.rollback()


def test_two_open_memberships_cannot_be_written(clubs: Shop) -> None:
    """Whatever the service decides: one that nobody has ended per member and club, and one that follows another."""
    pay(clubs)
    table = ClubMembership.__table__
    columns = [column.name for column in table.columns]
    for changes in ({"follows_id": None}, {"external_id": "f1", "club": "other"}):
        with clubs.database.engine.connect() as connection:
            row = dict(connection.execute(select(*table.columns)).mappings().one())
            new = row | {"id": new_id(), "document_id": new_id(), "external_id": "f9"} | changes
            with pytest.raises(DatabaseError, match=r"(?i)unique|has that row"):
                connection.execute(insert(ClubMembership).values({name: new[name] for name in columns}))
            connection.rollback()
