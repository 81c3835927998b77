"""Adjustments: points without a purchase, for a failed order, corrections; debt, extension, reinstatement; approval."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from app import accounting, ledger
from app.accounting import Event
from app.db import Base
from app.ids import new_id
from app.ledger import Act
from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, make_key, make_program, open_shop, purchase, returned, voided
from tests.test_rewards import added, redeem

FILE = Path(__file__).parents[2] / "shared" / "accounting" / "vectors.json"
needs_file = pytest.mark.skipif(
    not FILE.exists(),
    reason="THE WORKED EXAMPLES WERE NOT RUN: ../shared/accounting/vectors.json is not beside the repository",
)

ADJUSTING = TERMS | {
    "point_cost": {"amount": 4, "points": 5},
    "point_value": {"amount": 2, "points": 1},
    "adjustments": {"limit": 1000, "limits": {"trainee": 20, "lead": 5000}},
}
"""A point costs 0.008 and is worth 0.02; four of five are used; above 1,000 points a second person approves."""

_numbers = count()


def key() -> dict[str, str]:
    return {"Idempotency-Key": f"k{next(_numbers)}"}


@dataclass(frozen=True, slots=True)
class Desk:
    """Where staff adjust points: Ann asks, Bob approves. Card 900 bought for 100.00 (`r1`) and has 100 points."""

    shop: Shop
    member: str
    ann: TestClient
    bob: TestClient

    def staff(self, person: str | None, **options: Any) -> TestClient:
        """One more key, of a client of its own."""
        return staff(self.shop, person, **options)

    def ask(
        self, who: TestClient | None = None, *, class_: str = "goodwill", dry_run: bool = False, **changes: Any
    ) -> Any:
        """Asks for goodwill of 500 points for the member, or what `changes` say."""
        body = {"member": {"card": "900"}, "points": 500, "class": class_, "reason": "sorry"} | changes
        body = {name: value for name, value in body.items() if value is not None}
        return (who or self.ann).post("/v1/adjustments", json=body, headers=key(), params={"dry_run": dry_run})

    def concede(self, points: int = 500, order: str = "r1", **changes: Any) -> Any:
        """Asks for points to make up for a purchase, with consent."""
        named = {"source": "store-1", "external_id": order}
        agreed = {"consent": "2026-11-22T06:45:00-05:00"} | changes
        return self.ask(class_="concession", points=points, order=named, **agreed)

    def end(self, id_: str, how: str = "approval", who: TestClient | None = None, **query: Any) -> Any:
        """Bob's decision, or somebody else's."""
        body = {"reason": "too_much"} if how == "rejection" else None
        path = f"/v1/adjustments/{id_}/{how}"
        return (who or self.bob).post(path, json=body, headers=key(), params=query)

    def on_member(self, path: str, **body: Any) -> Any:
        """Writes off, extends or reinstates."""
        path = f"/v1/members/{self.member}/{path}"
        return self.ann.post(path, json={"reason": "kindness"} | body, headers=key())

    def balance(self) -> dict[str, int]:
        found: dict[str, int] = self.shop.get(f"/v1/members/{self.member}/balance")["balance"]
        return found

    def available(self) -> int:
        return self.balance()["available"]

    def spend(self, points: int) -> None:
        spend(self.shop, self.member, points)

    def lots(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.shop.get(f"/v1/members/{self.member}/lots")["items"]
        return found

    def kinds(self) -> list[tuple[str, int, int]]:
        """Kind, available and debt of each entry after the first purchase's, oldest first."""
        entries = self.shop.get(f"/v1/members/{self.member}/entries")["items"][-2::-1]
        return [(entry["kind"], entry["available"], entry["debt"]) for entry in entries]


def staff(shop: Shop, person: str | None, **options: Any) -> TestClient:
    """A caller with a key of a new client of staff."""

    def make(session: Session) -> str:
        return make_key(session, "staff", shop.clock(), shop.program_id, person=person, **options)

    return shop.client(shop.database.write(make))


def spend(shop: Shop, member: str, points: int) -> None:
    """Points go, for a reward that nobody books here; 0 only writes down what was due."""
    member_id, now = UUID(member), shop.clock()

    def act(session: Session) -> None:
        account = ledger.claim(session, [member_id], now, UTC, [member_id])[member_id]
        if points:
            account = ledger.spend(account, points, Act(shop.program_id, new_id(), now, now, UTC))
        ledger.write(session, [account], now)

    shop.database.write(act)


def net(shop: Shop) -> Counter[str]:
    """Minor units by account code, debit positive, after recognition."""
    accounting.fold(shop.database, shop.clock())
    return Counter({row["code"]: row["balance"] for row in shop.get("/v1/accounting/trial-balance")["items"]})


def change(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    return {code: after[code] - before[code] for code in after.keys() | before.keys() if after[code] != before[code]}


@contextmanager
def open_desk(url: str, clock: TestClock, settings: Mapping[str, int] | None = None, **terms: Any) -> Iterator[Desk]:
    with open_shop(settings_for(url, **settings or {}), clock, ADJUSTING | terms) as shop:
        member = shop.post(purchase("r1", 10_000)).json()["member"]["id"]
        yield Desk(shop, member, staff(shop, "Ann"), staff(shop, "Bob"))
        shop.prove()


@pytest.fixture
def desk(database_url: str, clock: TestClock) -> Iterator[Desk]:
    with open_desk(database_url, clock) as desk:
        yield desk


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


# --- points without a purchase --------------------------------------------------------------------------------------


def test_goodwill_is_marketing_at_cost(desk: Desk) -> None:
    before = net(desk.shop)
    answer = desk.ask(note="queued for an hour").json()
    assert (answer["class"], answer["points"], answer["status"]) == ("goodwill", 500, "applied")
    assert (answer["requested_by"], answer["ended_by"], answer["note"]) == ("ann", "ann", "queued for an hour")
    assert answer["balance"]["available"] == 600
    posting = {"debit": "6100", "credit": "2300", "amount": 320, "currency": "USD", "cause": "provision"}
    assert answer["postings"] == [posting]
    assert change(before, net(desk.shop)) == {"6100": 320, "2300": -320}
    standing = desk.shop.get(f"/v1/members/{desk.member}/balance")
    assert (standing["qualifying"], standing["lifetime"]) == (100, 600), "they count for no tier"
    lot = desk.lots()[-1]
    assert (lot["document_id"], lot["expires_at"]) == (answer["id"], "2027-12-01T05:00:00+00:00")
    assert desk.kinds() == [("adjustment", 500, 0)]


@pytest.mark.parametrize("class_", ["goodwill", "sign_up", "referral", "promotion", "correction"])
def test_a_grant_without_a_purchase_never_defers(desk: Desk, class_: str) -> None:
    before = net(desk.shop)
    assert desk.ask(class_=class_).status_code == 201
    assert change(before, net(desk.shop)) == {"6100": 320, "2300": -320}


def test_a_correction_takes_points_and_never_more_than_there_are(desk: Desk) -> None:
    """They are forfeited: all the price deferred for them becomes revenue once nothing is left."""
    before = net(desk.shop)
    refused = desk.ask(points=-101, class_="correction")
    assert code(refused) == (422, "insufficient_points")
    assert refused.json()["missing"] == 1
    taken = desk.ask(points=-100, class_="correction").json()
    assert (taken["balance"]["available"], taken["postings"]) == (0, [])
    assert change(before, net(desk.shop)) == {"2100": 157, "4100": -157}


def test_a_grant_pays_debt_first(desk: Desk) -> None:
    desk.spend(100)
    desk.shop.post(returned())
    assert desk.balance() == {"available": 0, "held": 0, "pending": 0, "debt": 100}
    assert desk.ask().json()["balance"] == {"available": 400, "held": 0, "pending": 0, "debt": 0}
    assert desk.kinds()[-2:] == [("adjustment", 500, 0), ("debt_payment", -100, -100)]


def test_a_dry_run_answers_the_same_and_writes_nothing(desk: Desk) -> None:
    imagined = desk.ask(dry_run=True)
    assert imagined.status_code == 200
    assert imagined.json()["id"] is None
    assert desk.available() == 100
    assert desk.shop.get("/v1/adjustments")["items"] == []
    real = desk.ask().json()
    for name in ("points", "status", "balance", "expiring_next", "postings"):
        assert imagined.json()[name] == real[name]


def test_the_same_key_adjusts_once(desk: Desk) -> None:
    body = {"member": {"card": "900"}, "points": 5, "class": "goodwill", "reason": "sorry"}
    first, again = (desk.ann.post("/v1/adjustments", json=body, headers={"Idempotency-Key": "x"}) for _ in range(2))
    assert (first.json(), again.headers["Idempotent-Replayed"]) == (again.json(), "true")
    assert desk.available() == 105
    assert code(desk.ann.post("/v1/adjustments", json=body)) == (400, "idempotency_key_missing")


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"points": 0}, "points_by_class"),
        ({"points": -1}, "points_by_class"),
        ({"class": "concession"}, "order_of_concession"),
        ({"order": {"source": "store-1", "external_id": "r1"}}, "order_of_concession"),
        ({"consent": "2026-11-22T06:45:00-05:00"}, "consent_to_concession"),
        ({"class": "whim"}, "literal_error"),
        ({"points": 10**10 + 1}, "less_than_equal"),
        ({"reason": "because of rain"}, "string_pattern_mismatch"),
    ],
)
def test_what_does_not_belong_together_is_refused(desk: Desk, changes: dict[str, Any], finding: str) -> None:
    refused = desk.ask(**changes)
    assert code(refused) == (422, "invalid_request")
    assert [error["code"] for error in refused.json()["errors"]] == [finding]


def test_an_unknown_member_has_nothing_to_adjust(desk: Desk) -> None:
    assert code(desk.ask(member={"card": "901"})) == (422, "unknown_member")
    assert code(desk.ann.post(f"/v1/members/{new_id()}/debt/write-off", json={"reason": "x"}, headers=key())) == (
        404,
        "not_found",
    )


def test_a_closed_member_gets_nothing_but_may_be_corrected(desk: Desk) -> None:
    tag = desk.shop.http.get(f"/v1/members/{desk.member}").headers["ETag"]
    desk.shop.http.patch(f"/v1/members/{desk.member}", json={"status": "closed"}, headers={"If-Match": tag})
    assert code(desk.ask(member={"id": desk.member})) == (409, "member_closed")
    taken = desk.ask(member={"id": desk.member}, points=-1, class_="correction")
    assert taken.json()["balance"]["available"] == 99


def test_points_for_somebody_who_never_bought_lapse_too(database_url: str, clock: TestClock) -> None:
    """Where inactivity decides, the clock of a new member starts with what they were given, and that of one whose
    points have lapsed starts anew: else a gift would stay for ever, or be gone at once."""
    inactivity = {"mode": "inactivity", "months": 6, "round_up_to": "day"}
    with open_desk(database_url, clock, expiry=inactivity) as desk:
        desk.shop.http.post(
            "/v1/members", json={"identifiers": [{"kind": "card", "value": "901"}]}, headers=key()
        ).raise_for_status()
        gift = desk.ask(member={"card": "901"}, class_="sign_up").json()
        assert gift["expiring_next"] == {"points": 500, "at": "2027-05-23T04:00:00+00:00"}
        clock.forward(days=365)
        late = desk.ask(member={"card": "901"}).json()
        assert late["balance"]["available"] == 500
        assert late["expiring_next"] == {"points": 500, "at": "2028-05-23T04:00:00+00:00"}


# --- worked examples ------------------------------------------------------------------------------------------------

VECTORS = (
    {vector["id"]: vector for vector in json.loads(FILE.read_text(encoding="utf-8"))["vectors"]}
    if FILE.exists()
    else {}
)


def journal_of(step: dict[str, Any]) -> dict[str, int]:
    """What a step of an example posts, net by account code, minor units."""
    found: Counter[str] = Counter()
    for row in step["journal"]:
        amount = round(100 * (float(row["dr"] or 0) - float(row["cr"] or 0)))
        found[row["account"].split("-")[0]] += amount
    return {account: amount for account, amount in found.items() if amount}


def hand_over(shop: Shop, cost: int) -> None:
    """A reward of our own stock is handed over."""

    def act(session: Session) -> None:
        now = shop.clock()
        event = Event(shop.program_id, new_id(), "CNY", now, now.date().replace(day=1))
        postings = accounting.fulfilment_postings(event, cost, "own", accounting.chart(session, shop.program_id))
        accounting.post(session, postings, now)

    shop.database.write(act)


@needs_file
@pytest.mark.parametrize("profile", ["adjustment", "full"])
@pytest.mark.parametrize(
    ("id_", "used"), [("constructed-goodwill-points", 400), ("constructed-goodwill-less-redeemed", 300)]
)
def test_goodwill_of_the_worked_examples(
    database_url: str, clock: TestClock, profile: str, id_: str, used: int
) -> None:
    """500 points at 0.008, four of five expected to be used: rewards use the provision up, or the rest goes back."""
    granted, redeemed, expired = VECTORS[id_]["steps"]
    with open_shop(settings_for(database_url), clock, ADJUSTING | {"currency": "CNY", "posting_profile": profile}) as s:
        body = {"identifiers": [{"kind": "card", "value": "900"}]}
        member = s.http.post("/v1/members", json=body, headers=key()).json()["id"]
        desk, start = Desk(s, member, staff(s, "Ann"), staff(s, "Bob")), net(s)
        assert desk.ask().status_code == 201
        after_grant = net(s)
        assert change(start, after_grant) == journal_of(granted)
        desk.spend(used)
        hand_over(s, used * 8 // 10)
        after_use = net(s)
        assert change(after_grant, after_use) == journal_of(redeemed)
        clock.forward(days=400)
        desk.spend(0)
        assert change(after_use, net(s)) == journal_of(expired)
        assert desk.available() == 0
        s.prove()


@needs_file
@pytest.mark.parametrize("profile", ["adjustment", "full"])
def test_price_concession_of_the_worked_example(database_url: str, clock: TestClock, profile: str) -> None:
    """500 points worth 0.02, four of five expected to be used: 8.00 of the order's price becomes theirs."""
    (step,) = VECTORS["constructed-goodwill-price-concession"]["steps"]
    with open_desk(database_url, clock, posting_profile=profile) as desk:
        before = net(desk.shop)
        assert desk.concede().status_code == 201
        assert change(before, net(desk.shop)) == journal_of(step)


# --- points for an order that failed --------------------------------------------------------------------------------


def test_concessions_are_capped_by_what_was_paid_for_the_order(desk: Desk) -> None:
    """An order of 10.00: the first concession takes 8.00 off it, the second the rest, and then nothing is left."""
    desk.shop.post(purchase("r2", 1000))
    assert [posting["amount"] for posting in desk.concede(order="r2").json()["postings"]] == [800]
    assert [posting["amount"] for posting in desk.concede(order="r2").json()["postings"]] == [200]
    assert code(desk.concede(1, order="r2")) == (422, "nothing_to_concede")
    assert desk.concede(1).status_code == 201, "another order has its own price"


@pytest.mark.parametrize("how", ["at once", "line by line", "void"])
def test_a_concession_goes_back_with_its_order(desk: Desk, how: str) -> None:
    """Whatever the parts, at the end neither its points nor a trace of it in the books are left."""
    before = net(desk.shop)
    two = [{"line": n, "product": f"p{n}", "quantity": "1", "amount": 1000} for n in (1, 2)]
    tenders = [{"type": "cash", "amount": 2000}]
    desk.shop.post(purchase("r2", 2000, lines=two, tenders=tenders))
    assert desk.concede(333, order="r2").status_code == 201
    if how == "line by line":
        back = desk.shop.post(returned("b1", "r2", lines=[{"line": 1, "quantity": "1"}])).json()["returned"]
        assert (back["taken_back"], back["conceded"]) == (10 + 166, 166), "half of it, half to even"
        back = desk.shop.post(returned("b2", "r2", lines=[{"line": 2, "quantity": "1"}])).json()["returned"]
        assert (back["taken_back"], back["conceded"]) == (10 + 167, 167)
    else:
        answer = desk.shop.post(returned("b1", "r2") if how == "at once" else voided("b1", "r2")).json()
        assert answer["returned"]["conceded"] == 333
        assert answer["points"] == {
            "earned": -353,
            "pending": 0,
            "spent": 0,
            "qualifying": -20,
            "claimable": 0,
            "reasons": [],
        }
    assert desk.available() == 100
    assert change(before, net(desk.shop)) == {}


def test_a_return_that_did_not_happen_gives_the_concession_back(desk: Desk) -> None:
    desk.concede()
    before, balance = net(desk.shop), desk.balance()
    desk.spend(300)
    desk.shop.post(returned(total=9000))
    assert desk.balance() == {"available": 0, "held": 0, "pending": 0, "debt": 240}
    assert desk.shop.post(voided("v1", "b1", "return")).status_code == 201
    assert desk.available() == balance["available"] - 300
    assert net(desk.shop)["2100"] + net(desk.shop)["4100"] == before["2100"]


def test_what_came_back_before_cannot_be_conceded_and_takes_nothing_along(desk: Desk) -> None:
    desk.shop.post(returned("b1", total=9900))
    conceded = desk.concede().json()
    assert [posting["amount"] for posting in conceded["postings"]] == [100]
    assert desk.shop.post(returned("b2", total=50)).json()["returned"]["conceded"] == 250
    assert desk.shop.post(returned("b3")).json()["returned"]["conceded"] == 250
    assert code(desk.concede()) == (422, "nothing_to_concede")


def test_only_the_members_own_order_is_made_up_for(desk: Desk) -> None:
    desk.shop.post(purchase("r2", member={"card": "901"}))
    desk.shop.post(purchase("r3", member=None))
    for order in ("r2", "r3", "r4"):
        assert code(desk.concede(order=order)) == (422, "unknown_order")


def test_consent_is_needed_where_the_terms_say_so(database_url: str, clock: TestClock) -> None:
    with open_desk(database_url, clock) as desk:
        assert code(desk.concede(consent=None)) == (422, "consent_missing")
        assert code(desk.concede(consent="2026-11-23T00:00:00Z")) == (422, "consent_missing")
        assert desk.concede().json()["consented_at"] == "2026-11-22T06:45:00-05:00"


def test_consent_is_not_needed_where_they_do_not(database_url: str, clock: TestClock) -> None:
    policy = ADJUSTING["adjustments"] | {"concession_needs_consent": False}
    with open_desk(database_url, clock, adjustments=policy) as desk:
        assert desk.concede(consent=None).json()["consented_at"] is None


def test_what_expired_unnoticed_costs_nothing_when_its_purchase_comes_back(desk: Desk) -> None:
    """No job has written the expiry down: the return finds it, and takes neither other points nor makes debt."""
    desk.shop.clock.forward(days=400)
    desk.ask(points=70)
    back = desk.shop.post(returned("b1", occurred_at="2027-12-20T06:30:00-05:00")).json()
    assert (back["returned"]["expired"], back["returned"]["debt"]) == (100, 0)
    assert back["balance"]["available"] == 70


# --- a second person ------------------------------------------------------------------------------------------------


def test_above_the_limit_a_second_person_approves(desk: Desk) -> None:
    before = net(desk.shop)
    asked = desk.ask(points=1001)
    assert (asked.status_code, asked.json()["status"], asked.json()["postings"]) == (202, "waiting", [])
    id_ = asked.json()["id"]
    assert (desk.available(), change(before, net(desk.shop))) == (100, {})
    assert [row["id"] for row in desk.shop.get("/v1/adjustments", status="waiting")["items"]] == [id_]
    imagined = desk.end(id_, dry_run=True).json()
    assert (imagined["status"], desk.available()) == ("applied", 100)
    approved = desk.end(id_)
    assert (approved.status_code, approved.json()["ended_by"]) == (200, "bob")
    assert approved.json()["postings"] == imagined["postings"]
    assert desk.available() == 1101
    assert code(desk.end(id_)) == (409, "adjustment_ended")
    assert code(desk.end(id_, "rejection")) == (409, "adjustment_ended")
    read = desk.shop.get(f"/v1/adjustments/{id_}")
    assert read == approved.json()


def test_exactly_the_limit_needs_nobody(desk: Desk) -> None:
    assert desk.ask(points=1000).status_code == 201
    assert desk.ask(points=-1001, class_="correction").status_code == 202


def test_roles_have_limits_of_their_own(desk: Desk) -> None:
    trainee, lead, other = (desk.staff("Tom", role=role) for role in ("trainee", "lead", "night_shift"))
    assert [desk.ask(trainee, points=points).status_code for points in (20, 21)] == [201, 202]
    assert [desk.ask(lead, points=points).status_code for points in (5000, 5001)] == [201, 202]
    assert [desk.ask(other, points=points).status_code for points in (1000, 1001)] == [201, 202]


def test_what_is_rejected_never_happens(desk: Desk) -> None:
    id_ = desk.ask(points=5000).json()["id"]
    rejected = desk.end(id_, "rejection").json()
    assert (rejected["status"], rejected["ended_by"], rejected["ended_reason"]) == ("rejected", "bob", "too_much")
    assert code(desk.end(id_)) == (409, "adjustment_ended")
    assert desk.available() == 100


def test_the_same_person_with_another_key_is_the_same_person(desk: Desk) -> None:
    id_ = desk.ask(points=5000).json()["id"]
    for again in (desk.ann, desk.staff("Ann"), desk.staff(" ANN ", role="lead")):
        for how in ("approval", "rejection"):
            assert code(desk.end(id_, how, again)) == (403, "same_person")
    assert desk.end(id_).status_code == 200


def test_nobody_adjusts_their_own_account(desk: Desk) -> None:
    """Nor with a key that does not say whose account that is, when another one of theirs does."""
    mine = desk.staff("Mia", member_id=UUID(desk.member))
    forgetful = desk.staff("Mia")
    for who in (mine, forgetful):
        assert code(desk.ask(who)) == (403, "own_account")
    id_ = desk.ask(points=5000).json()["id"]
    for who in (mine, forgetful):
        for how in ("approval", "rejection"):
            assert code(desk.end(id_, how, who)) == (403, "own_account")
    desk.shop.post(purchase("r2", member={"card": "901"}))
    assert desk.ask(mine, member={"card": "901"}).status_code == 201
    assert desk.available() == 100


def test_a_key_without_a_person_adjusts_nothing(desk: Desk) -> None:
    nobody = desk.staff(None)
    assert code(desk.ask(nobody)) == (403, "no_person")
    id_ = desk.ask(points=5000).json()["id"]
    assert code(desk.end(id_, "approval", nobody)) == (403, "no_person")


def test_another_programme_sees_nothing(desk: Desk) -> None:
    id_ = desk.ask(points=5000).json()["id"]
    shop = desk.shop

    def make(session: Session) -> str:
        other = make_program(session, TERMS, shop.clock(), "other")
        return make_key(session, "staff", shop.clock(), other, person="eve")

    theirs = shop.client(shop.database.write(make))
    assert code(desk.end(id_, "approval", theirs)) == (404, "not_found")
    assert code(theirs.get(f"/v1/adjustments/{id_}")) == (404, "not_found")
    assert theirs.get("/v1/adjustments").json()["items"] == []
    assert code(desk.ask(theirs, member={"id": desk.member})) == (422, "unknown_member")


def test_it_is_applied_at_the_time_and_under_the_terms_of_the_approval(desk: Desk) -> None:
    id_ = desk.ask(points=5000).json()["id"]
    path = f"/v1/programs/{desk.shop.program_id}/terms"
    dearer = ADJUSTING | {"point_cost": {"amount": 1, "points": 1}}
    assert desk.shop.http.post(path, json=dearer).status_code == 201
    desk.shop.clock.forward(days=40)
    assert desk.shop.http.post(f"{path}/2/publish", json={}).status_code == 200
    approved = desk.end(id_).json()
    assert [posting["amount"] for posting in approved["postings"]] == [4000]
    assert approved["requested_at"] < approved["ended_at"]
    entry = desk.shop.get(f"/v1/members/{desk.member}/entries")["items"][0]
    assert entry["occurred_at"] == approved["ended_at"]


def test_what_cannot_be_done_any_more_goes_on_waiting(desk: Desk) -> None:
    desk.ask(points=1000)
    id_ = desk.ask(points=-1100, class_="correction").json()["id"]
    desk.spend(1)
    assert code(desk.end(id_)) == (422, "insufficient_points")
    desk.ask(points=1)
    assert desk.end(id_).json()["balance"]["available"] == 0


def test_a_list_in_pages(desk: Desk) -> None:
    desk.shop.post(purchase("r2", member={"card": "901"}))
    ids = [desk.ask(points=points).json()["id"] for points in (1, 2, 5000)]
    desk.ask(points=3, member={"card": "901"})
    first = desk.shop.http.get("/v1/adjustments", params={"member_id": desk.member, "limit": 2})
    rest = desk.shop.http.get(first.headers["Link"].split(">")[0][1:])
    assert [row["id"] for row in (*first.json()["items"], *rest.json()["items"])] == ids
    assert rest.json()["next"] is None


def test_racing_approvals_and_rejections_end_it_once(desk: Desk) -> None:
    deciders = [desk.staff(f"person {n}") for n in range(4)]
    for _ in range(3):
        before = desk.available()
        id_ = desk.ask(points=2000).json()["id"]

        def decide(n: int, id_: str = id_) -> Any:
            return desk.end(id_, "approval" if n % 2 else "rejection", deciders[n % 4])

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(decide, range(8)))
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses == {200: 1, 409: 7}, [answer.json() for answer in answers]
        (won,) = [answer.json()["status"] for answer in answers if answer.status_code == 200]
        assert desk.available() - before == (2000 if won == "applied" else 0)


def test_racing_concessions_never_pass_what_was_paid(desk: Desk) -> None:
    desk.shop.post(purchase("r2", 1000))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: desk.concede(200, order="r2"), range(6)))
    posted = [posting["amount"] for answer in answers for posting in answer.json().get("postings", [])]
    assert (sum(posted), sorted(posted)) == (1000, [40, 320, 320, 320])
    assert Counter(answer.status_code for answer in answers) == {201: 4, 422: 2}


def test_a_concession_and_the_return_of_its_goods_at_once_leave_no_points(
    database_url: str, clock: TestClock, crowded: dict[str, int]
) -> None:
    """Whichever comes first: what is conceded goes with the goods, and nothing is conceded on goods that are gone."""
    with open_desk(database_url, clock, crowded) as desk:
        before = net(desk.shop)
        for number in range(8):
            order = f"order-{number}"
            desk.shop.post(purchase(order, 1000))
            acts = [lambda: desk.concede(200, order=order), lambda: desk.shop.post(returned(f"b{number}", order))]  # noqa: B023  # done before the next turn
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda act: act(), [*acts, acts[0]][:: 1 if number % 2 else -1]))
            refused = {answer.json()["code"] for answer in answers if answer.status_code != 201}
            assert refused <= {"nothing_to_concede"}
            assert desk.available() == 100
        assert change(before, net(desk.shop)) == {}


# --- debt -----------------------------------------------------------------------------------------------------------


def test_debt_is_written_off_at_the_cost_of_what_it_bought(desk: Desk) -> None:
    added(desk.shop, points=100, supplier={"type": "own", "cost": 80})
    assert redeem(desk.shop, desk.member, immediate=True).status_code == 201
    desk.shop.post(returned())
    before = net(desk.shop)
    assert code(desk.on_member("debt/write-off", points=101)) == (422, "nothing_to_write_off")
    part = desk.on_member("debt/write-off", points=40).json()
    assert (part["class"], part["points"], part["balance"]["debt"]) == ("debt_write_off", 40, 60)
    rest = desk.on_member("debt/write-off").json()
    assert (rest["points"], rest["balance"]["debt"]) == (60, 0)
    assert change(before, net(desk.shop)) == {"6100": 80, "5100": -80}
    assert desk.kinds()[-2:] == [("write_off", 0, -40), ("write_off", 0, -60)]
    assert code(desk.on_member("debt/write-off")) == (422, "nothing_to_write_off")


def test_much_debt_needs_a_second_person(desk: Desk) -> None:
    desk.ask(points=1000)
    desk.shop.post(purchase("r2", 200_000))
    desk.spend(3100)
    desk.shop.post(returned("b2", "r2"))
    assert desk.balance()["debt"] == 2000
    asked = desk.on_member("debt/write-off")
    assert (asked.status_code, asked.json()["points"]) == (202, 2000)
    assert desk.end(asked.json()["id"]).json()["balance"]["debt"] == 0


# --- lots that live longer, or again --------------------------------------------------------------------------------


def test_a_lot_is_extended(desk: Desk) -> None:
    before, (lot,) = net(desk.shop), desk.lots()
    desk.spend(30)
    path = f"lots/{lot['id']}/extension"
    answer = desk.on_member(path, expires_at="2029-01-01T00:00:00Z").json()
    assert (answer["class"], answer["points"], answer["postings"]) == ("extension", 70, [])
    assert answer["expiring_next"] == {"points": 70, "at": "2029-01-01T00:00:00+00:00"}
    assert code(desk.on_member(path, expires_at="2030-01-01T00:00:00Z")) == (422, "nothing_to_extend")
    old, new = desk.lots()
    assert (old["remaining"], new["remaining"], new["source_lot_id"]) == (0, 70, lot["id"])
    desk.shop.clock.forward(days=700)
    assert desk.available() == 70
    desk.shop.clock.forward(days=100)
    assert desk.available() == 0
    desk.spend(0)
    assert change(before, net(desk.shop)) == {"2100": 157, "4100": -157}


@pytest.mark.parametrize("expires_at", ["2027-12-01T05:00:00Z", "2027-01-01T00:00:00Z", "2020-01-01T00:00:00Z"])
def test_an_extension_never_shortens(desk: Desk, expires_at: str) -> None:
    (lot,) = desk.lots()
    refused = desk.on_member(f"lots/{lot['id']}/extension", expires_at=expires_at)
    assert code(refused) == (422, "expiry_not_later")


def test_points_that_stay_for_ever_are_not_extended(database_url: str, clock: TestClock) -> None:
    with open_desk(database_url, clock, expiry=None) as desk:
        (lot,) = desk.lots()
        refused = desk.on_member(f"lots/{lot['id']}/extension", expires_at="2029-01-01T00:00:00Z")
        assert code(refused) == (422, "expiry_not_later")


def test_somebody_elses_lot_is_not_found(desk: Desk) -> None:
    other = desk.shop.post(purchase("r2", member={"card": "901"})).json()["member"]["id"]
    (lot,) = desk.shop.get(f"/v1/members/{other}/lots")["items"]
    for verb in ("extension", "reinstatement"):
        refused = desk.on_member(f"lots/{lot['id']}/{verb}", expires_at="2029-01-01T00:00:00Z")
        assert code(refused) == (404, "not_found")


@pytest.mark.parametrize("written", [True, False], ids=["written down", "not written down yet"])
def test_expired_points_live_again(desk: Desk, written: bool) -> None:
    """What the expiry made revenue is deferred again: Z falls."""
    (lot,), shop = desk.lots(), desk.shop
    desk.spend(30)
    before = net(shop)
    path = f"lots/{lot['id']}/reinstatement"
    soon = {"expires_at": "2028-06-01T00:00:00Z"}
    assert code(desk.on_member(path, **soon)) == (422, "nothing_to_reinstate")
    shop.clock.forward(days=400)
    if written:
        desk.spend(0)
        assert net(shop)["2100"] == 0, "nothing is outstanding"
    assert code(desk.on_member(path, points=71, **soon)) == (422, "nothing_to_reinstate")
    assert code(desk.on_member(path, expires_at="2027-12-24T00:00:00Z")) == (422, "expiry_not_later")
    first = desk.on_member(path, points=20, **soon).json()
    assert (first["class"], first["points"], first["balance"]["available"]) == ("reinstatement", 20, 20)
    second = desk.on_member(path, **soon).json()
    assert (second["points"], second["balance"]["available"], second["postings"]) == (50, 70, [])
    assert change(before, net(shop)) == {}, "as if they had never expired"
    assert code(desk.on_member(path, **soon)) == (422, "nothing_to_reinstate")
    shop.clock.forward(days=200)
    assert desk.available() == 0


def test_many_points_live_again_with_a_second_person(desk: Desk) -> None:
    desk.shop.post(purchase("r2", 200_000))
    lot = desk.lots()[-1]
    desk.shop.clock.forward(days=400)
    asked = desk.on_member(f"lots/{lot['id']}/reinstatement", expires_at="2028-06-01T00:00:00Z")
    assert (asked.status_code, asked.json()["points"], desk.available()) == (202, 2000, 0)
    assert desk.end(asked.json()["id"]).json()["balance"]["available"] == 2000


# --- what cannot be written -----------------------------------------------------------------------------------------

ENDED = "ended_by = requested_by, ended_at = requested_at"

WRONG = {
    "two_persons": f"status = 'rejected', ended_person = requested_person, {ENDED}",
    "applied_has_terms": f"status = 'applied', ended_person = 'x', {ENDED}",
    "ended_has_who_and_when": "status = 'rejected'",
    "rejection_has_reason": "ended_reason = 'x'",
    "status": f"status = 'forgotten', ended_person = 'x', {ENDED}",
}


def test_the_database_refuses_what_no_code_should_write(desk: Desk) -> None:
    desk.ask(points=1)
    desk.ask(points=5000)
    engine = desk.shop.database.engine
    with engine.connect() as connection:
        for name, values in WRONG.items():
            with pytest.raises(DatabaseError, match=f"ck_adjustment_{name}"):
                connection.execute(text(f"UPDATE adjustment SET {values} WHERE status = 'waiting'"))
            connection.rollback()
        for statement in (
            "UPDATE adjustment SET points = points + 1 WHERE status = 'waiting'",
            "UPDATE adjustment SET requested_person = 'x' WHERE status = 'waiting'",
            "UPDATE adjustment SET ended_reason = 'x' WHERE status = 'applied'",
            "DELETE FROM adjustment",
        ):
            with pytest.raises(DatabaseError, match=r"append-only|ends once|refused"):
                connection.execute(text(statement))
            connection.rollback()


INSERTED = {
    "class": {"class": "'whim'"},
    "points_not_zero": {"points": "0", "class": "'correction'"},
    "only_corrections_take": {"points": "-1"},
    "concession_has_order": {"class": "'concession'"},
    "consent_is_to_concession": {"consented_at": "requested_at"},
    "lot_classes_have_lot": {"class": "'extension'"},
    "lot_has_expiry": {"expires_at": "requested_at"},
    "only_approvals_wait": {
        "status": "'waiting'",
        "ended_at": "NULL",
        "ended_by": "NULL",
        "ended_person": "NULL",
        "terms_id": "NULL",
    },
}


def test_the_database_refuses_what_does_not_belong_together(desk: Desk) -> None:
    desk.ask(points=1)
    engine = desk.shop.database.engine
    fresh = "'0199aaaa-0000-7000-8000-000000000001'"
    fresh = fresh.replace("-", "") if engine.dialect.name == "sqlite" else f"CAST({fresh} AS uuid)"
    names = [column.name for column in Base.metadata.tables["adjustment"].columns]
    with engine.connect() as connection:
        for name, changes in INSERTED.items():
            values = ", ".join(({"id": fresh} | changes).get(column, column) for column in names)
            with pytest.raises(DatabaseError, match=f"ck_adjustment_{name}"):
                connection.execute(
                    text(f"INSERT INTO adjustment ({', '.join(names)}) SELECT {values} FROM adjustment LIMIT 1")
                )
            connection.rollback()


def test_a_role_and_a_membership_are_those_of_a_person(desk: Desk) -> None:
    with desk.shop.database.engine.connect() as connection:
        with pytest.raises(DatabaseError, match="ck_client_role_is_of_person"):
            connection.execute(text("UPDATE client SET person = NULL, role = 'lead'"))
        connection.rollback()


def test_a_concession_is_noted_for_good(desk: Desk) -> None:
    desk.concede()
    with desk.shop.database.engine.connect() as connection:
        for statement, guard in (
            ("UPDATE transaction_concession SET price_left = 1", "append-only"),
            ("DELETE FROM transaction_concession", "append-only"),
            (
                "INSERT INTO transaction_concession SELECT purchase_id, purchase_id, 0, recorded_at "
                "FROM transaction_concession",
                "ck_transaction_concession_price_left_positive",
            ),
        ):
            with pytest.raises(DatabaseError, match=guard):
                connection.execute(text(statement))
            connection.rollback()
