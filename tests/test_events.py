"""Events that partners and apps report of members: recorded once, worth what campaigns promise, never deferred."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.accounting.models import JournalPosting
from app.campaigns import rules
from app.campaigns.models import CampaignGrant, MemberEvent
from app.ids import new_id
from app.members import Person
from app.programs import Customer, Terms, Timeline, Version
from tests.conftest import settings_for
from tests.points import balance, entries, events, publish
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase
from tests.test_campaigns import enrol, set_status
from tests.test_rewards import added, ordered

REVIEW: dict[str, Any] = {
    "code": "reviews",
    "name": "Thirty points a review, for two at most",
    "occasion": {"type": "event", "event": "review_written"},
    "points": 30,
    "most_per_member": 2,
}
STUDENTS: dict[str, Any] = {
    "code": "students",
    "name": "Ten more for students",
    "occasion": {"type": "event", "event": "review_written"},
    "points": 10,
    "who": {"attributes": {"occupation": ["student"]}},
}
SURVEY: dict[str, Any] = {
    "code": "survey",
    "name": "The first two surveys",
    "occasion": {"type": "event", "event": "survey"},
    "points": 50,
    "budget": 120,
}
OFFERED = TERMS | {"campaigns": [REVIEW, STUDENTS, SURVEY]}


@pytest.fixture
def offering(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, OFFERED) as shop:
        yield shop
        shop.prove()


def body(number: int = 1, event: str = "review_written", card: str = "900", **changes: Any) -> dict[str, Any]:
    return {
        "source": "app",
        "external_id": f"e{number}",
        "event": event,
        "member": {"card": card},
        "occurred_at": "2026-11-22T06:30:00-05:00",
    } | changes


def send(shop: Shop, number: int = 1, event: str = "review_written", **more: Any) -> Any:
    """Reports an event; `dry_run` as a query, the rest changes the body."""
    query = {"dry_run": more.pop("dry_run")} if "dry_run" in more else {}
    return shop.http.post("/v1/events", json=body(number, event, **more), params=query)


def given(answer: Any) -> list[tuple[str, int]]:
    assert answer.is_success, answer.text
    return [(each["campaign"], each["points"]) for each in answer.json()["bonuses"]]


def joined(shop: Shop, card: str = "900", **profile: Any) -> UUID:
    """A member of before the events."""
    shop.clock.forward(hours=-2)
    member = enrol(shop, card, **profile)
    shop.clock.forward(hours=2)
    return member


def test_an_event_gives_at_once_what_campaigns_promise(offering: Shop) -> None:
    member = joined(offering, attributes={"occupation": "student"})
    answer = send(offering)
    assert answer.status_code == 201
    assert given(answer) == [("reviews", 30), ("students", 10)]
    assert answer.json()["balance"]["available"] == balance(offering, member)["available"] == 40
    (first, _) = entries(offering, member, "bonus")
    assert (first.points, first.qualifying) == (30, 0)
    (listed, _) = offering.get(f"/v1/members/{member}/bonuses")["items"]
    assert (listed["campaign"], listed["type"], listed["occasion"]) == ("reviews", "event", "app/e1")
    assert [told["campaign"] for told in events(offering, "campaign.granted")] == ["reviews", "students"]


def test_what_is_traded_in_becomes_a_voucher(offering: Shop) -> None:
    """An old thing brought back is an event, and what that gives buys a voucher, which burns at the till."""
    publish(offering, OFFERED | {"campaigns": [REVIEW | {"occasion": {"type": "event", "event": "coat_traded_in"}}]})
    added(offering, code="coat", points=30, item={"kind": "voucher", "value": 500, "valid_days": 30})
    offering.clock.forward(seconds=1)
    member = joined(offering)
    assert given(send(offering, event="coat_traded_in", occurred_at=offering.clock().isoformat())) == [("reviews", 30)]
    (voucher,) = ordered(offering, str(member), "coat", immediate=True)["vouchers"]
    receipt = {"source": "store-1", "external_id": "r1"}
    burnt = offering.client("terminal").post(f"/v1/vouchers/{voucher['code']}/burn", json=receipt)
    assert (burnt.json()["status"], burnt.json()["value"]["amount"]) == ("burnt", 500)
    assert balance(offering, member)["available"] == 0


def test_points_for_an_event_are_never_deferred_revenue(offering: Shop) -> None:
    """30 points of 1 cent, four fifths of them used: 24 cents of marketing, put aside."""
    joined(offering)
    send(offering)
    rows = select(JournalPosting.debit, JournalPosting.credit, JournalPosting.amount)
    posted = offering.database.read(lambda session: [tuple(row) for row in session.execute(rows)])
    assert posted == [("6100", "2300", 24)]


def test_the_same_number_again_gets_the_first_answer(offering: Shop) -> None:
    joined(offering)
    first, again = send(offering), send(offering)
    assert (first.status_code, again.status_code) == (201, 200)
    assert (first.json()["duplicate"], again.json()["duplicate"]) == (False, True)
    for name in ("id", "bonuses", "balance", "recorded_at"):
        assert first.json()[name] == again.json()[name]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"event": "survey"}, "/event"),
        ({"card": "901"}, "/member"),
        ({"occurred_at": "2026-11-22T06:31:00-05:00"}, "/occurred_at"),
    ],
)
def test_another_content_under_the_same_number_is_refused(
    offering: Shop, changes: dict[str, Any], pointer: str
) -> None:
    joined(offering)
    joined(offering, "901")
    send(offering)
    refused = send(offering, **changes)
    assert (refused.status_code, refused.json()["code"]) == (409, "event_conflict")
    assert [each["pointer"] for each in refused.json()["errors"]] == ["#" + pointer]


def test_a_member_is_given_so_much_and_no_more(offering: Shop) -> None:
    joined(offering)
    assert [given(send(offering, number)) for number in range(3)] == [[("reviews", 30)], [("reviews", 30)], []]


def test_a_budget_ends(offering: Shop) -> None:
    """Who comes when it is not enough for one more is given nothing."""
    for card in ("900", "901", "902"):
        joined(offering, card)
    got = [given(send(offering, n, "survey", card=card)) for n, card in enumerate(("900", "901", "902"))]
    assert got == [[("survey", 50)], [("survey", 50)], []]


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"event": "clapped"}, "event_not_awaited", "/event"),
        ({"card": "999"}, "unknown_member", "/member"),
        ({"occurred_at": "2026-11-22T08:00:00-05:00"}, "occurred_in_future", "/occurred_at"),
        ({"occurred_at": "2026-01-01T08:00:00-05:00"}, "occurred_too_long_ago", "/occurred_at"),
        ({"occurred_at": "1999-01-01T08:00:00-05:00"}, "no_terms", None),
        ({"event": "Not a name"}, "invalid_request", "/event"),
        ({"source": ""}, "invalid_request", "/source"),
    ],
)
def test_what_cannot_be_is_refused_and_may_be_sent_again(
    offering: Shop, changes: dict[str, Any], code: str, pointer: str | None
) -> None:
    joined(offering)
    refused = send(offering, **changes)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert [each["pointer"] for each in refused.json().get("errors", [])] == (
        [] if pointer is None else ["#" + pointer]
    )
    kept = offering.database.read(lambda session: session.scalars(select(MemberEvent)).all())
    assert kept == []
    assert given(send(offering)) == [("reviews", 30)]


def test_who_may_not_earn_is_given_nothing(offering: Shop) -> None:
    member = joined(offering)
    set_status(offering, member, "suspended")
    assert given(send(offering)) == []


def test_an_event_of_before_joining_is_worth_nothing(offering: Shop) -> None:
    joined(offering)
    assert given(send(offering, occurred_at="2026-11-21T12:00:00-05:00")) == []


def test_the_terms_of_when_it_happened_decide(offering: Shop) -> None:
    joined(offering)
    publish(offering, TERMS | {"campaigns": [REVIEW | {"points": 99}]})
    offering.clock.forward(minutes=10)
    assert given(send(offering, 1)) == [("reviews", 30)]
    assert given(send(offering, 2, occurred_at=offering.clock().isoformat())) == [("reviews", 99)]


def test_a_dry_run_tells_the_same_and_writes_nothing(offering: Shop) -> None:
    member = joined(offering)
    tried, done = send(offering, dry_run=True), send(offering)
    assert tried.status_code == 200
    assert given(tried) == given(done)
    assert tried.json()["balance"] == done.json()["balance"]
    (planned,) = tried.json()["entries"]
    assert (planned["kind"], planned["points"]) == ("bonus", 30)
    assert len(entries(offering, member, "bonus")) == 1
    assert send(offering, dry_run=True).json()["entries"] == []


def test_a_debt_is_paid_first(offering: Shop) -> None:
    member = joined(offering)
    offering.post(purchase("r1", 2000, occurred_at="2026-11-22T05:30:00-05:00"))
    offering.http.post("/v1/rewards", json=MUG, headers={"Idempotency-Key": "mug"}).raise_for_status()
    order = {"member": {"card": "900"}, "reward": {"code": "mug"}}
    offering.http.post("/v1/redemptions", json=order, headers={"Idempotency-Key": "order"}).raise_for_status()
    back = {"type": "return", "source": "store-1", "external_id": "b1", "occurred_at": "2026-11-22T06:10:00-05:00"}
    offering.post(back | {"original": {"source": "store-1", "external_id": "r1"}}).raise_for_status()
    assert balance(offering, member)["debt"] == 20
    assert send(offering).json()["balance"]["available"] == 10


MUG = {
    "code": "mug",
    "name": "Mug",
    "points": 20,
    "currency": "USD",
    "supplier": {"type": "own", "cost": 10},
}


def test_many_reports_at_once_record_each_once(database_url: str, clock: TestClock, crowded: dict[str, int]) -> None:
    """Five events, each reported six times at the same moment, by one member: two of them are worth something."""
    with open_shop(settings_for(database_url, **crowded), clock, OFFERED) as shop:
        joined(shop)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: send(shop, n % 5), range(30)))
        assert sorted(answer.status_code for answer in answers) == [200] * 25 + [201] * 5
        points = shop.database.read(lambda session: session.scalars(select(CampaignGrant.points)).all())
        assert points == [30, 30]
        count = shop.database.read(lambda session: session.scalar(text("SELECT count(*) FROM member_event")))
        assert count == 5
        shop.prove()


def test_two_members_events_of_one_number_at_once(database_url: str, clock: TestClock, crowded: dict[str, int]) -> None:
    """One is recorded; the other is told so, or to send it again."""
    with open_shop(settings_for(database_url, **crowded), clock, OFFERED) as shop:
        cards = [str(900 + n) for n in range(8)]
        for card in cards:
            joined(shop, card)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda card: send(shop, 1, card=card), cards))
        assert [answer.status_code for answer in answers].count(201) == 1
        assert {answer.json().get("code") for answer in answers} <= {None, "event_conflict", "busy"}
        assert {send(shop, 1, card=card).json().get("code") for card in cards} == {None, "event_conflict"}
        shop.prove()


# --- rules ----------------------------------------------------------------------------------------------------------

TERMS_THEN = Terms.model_validate(OFFERED)


def due_for(person: Person, event: str, clock: TestClock) -> list[str]:
    terms = Timeline((Version(new_id(), 1, clock(), TERMS_THEN),))
    return [due.window.campaign.code for due in rules.due_for(person, terms, event, "app/1", clock())]


@pytest.mark.parametrize(
    ("occupation", "status", "event", "codes"),
    [
        ("student", "active", "review_written", ["reviews", "students"]),
        ("teacher", "active", "review_written", ["reviews"]),
        ("student", "active", "survey", ["survey"]),
        ("student", "active", "clapped", []),
        ("student", "suspended", "survey", []),
    ],
)
def test_which_campaigns_an_event_is_for(
    occupation: str, status: str, event: str, codes: list[str], clock: TestClock
) -> None:
    person = Person(new_id(), status, clock(), Customer(False, None, {"occupation": occupation}))
    assert due_for(person, event, clock) == codes
