"""Points given from member to member, and households that spend together: the total never changes."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from app.errors import Problem
from app.ledger import InsufficientPoints
from app.programs import Terms
from app.transfers import rules
from app.worker import run_jobs
from tests.accounts import NOW, member
from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, make_key, make_program, open_shop, returned
from tests.test_access import check_problem
from tests.test_holds import balance, earn, figures, held, keyed

GENEROUS: dict[str, Any] = TERMS | {"transfers": {}, "pools": {"most_members": 4}}
"""Terms by which members may give what they like, and up to four may be a household."""


@pytest.fixture
def generous(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, GENEROUS) as shop:
        yield shop


def limited(shop: Shop, **policy: int) -> None:
    """From now on gifts are limited."""
    terms = f"/v1/programs/{shop.program_id}/terms"
    version = shop.http.post(terms, json=GENEROUS | {"transfers": policy}).json()["version"]
    assert shop.http.post(f"{terms}/{version}/publish", json={}).status_code == 200


def give(shop: Shop, points: int, giver: str = "900", receiver: str = "901", **changes: Any) -> Any:
    body = {"from": {"card": giver}, "to": {"card": receiver}, "points": points} | changes
    return shop.http.post("/v1/transfers", json=body, headers=keyed())


def given(shop: Shop, points: int, giver: str = "900", receiver: str = "901", **changes: Any) -> dict[str, Any]:
    response = give(shop, points, giver, receiver, **changes)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


# --- gifts ----------------------------------------------------------------------------------------------------------


def test_a_gift(generous: Shop) -> None:
    """Ada gives Bob 30 of her 100 points. Both sides show the same document; nothing is posted."""
    ada, bob = earn(generous, 100), earn(generous, 5, card="901")
    postings = generous.get("/v1/accounting/journal")["items"]
    made = given(generous, 30, note="birthday")
    assert (made["from_member_id"], made["to_member_id"], made["points"]) == (ada, bob, 30)
    assert (made["note"], made["pool_id"], made["dry_run"]) == ("birthday", None, False)
    assert made["balance"] == balance(generous, ada) == figures(70)
    assert balance(generous, bob) == figures(35)
    for id_, kind, points in ((ada, "transfer_out", -30), (bob, "transfer_in", 30)):
        entry = generous.get(f"/v1/members/{id_}/entries")["items"][0]
        assert (entry["kind"], entry["points"], entry["document_id"]) == (kind, points, made["id"])
    read = generous.get(f"/v1/transfers/{made['id']}")
    assert read == {name: made[name] for name in read}
    assert generous.get("/v1/accounting/journal")["items"] == postings
    generous.prove()


def test_lots_keep_expiry_and_cohort(generous: Shop) -> None:
    """The soonest-expiring points go first, and what was deferred for them stays where it was."""
    ada, bob = earn(generous, 40), earn(generous, 1, card="901")
    generous.clock.forward(days=30)
    earn(generous, 40)
    given(generous, 60)
    first, second = generous.get(f"/v1/members/{ada}/lots")["items"]
    _, *arrived = generous.get(f"/v1/members/{bob}/lots")["items"]
    assert (first["remaining"], second["remaining"]) == (0, 20)
    for lot, source, points in zip(arrived, (first, second), (40, 20), strict=True):
        kept = ("expires_at", "cohort_id", "occurred_at", "available_from")
        assert {name: lot[name] for name in kept} == {name: source[name] for name in kept}
        assert (lot["granted"], lot["allocated"], lot["source_lot_id"]) == (points, 0, source["id"])
    generous.clock.now = datetime.fromisoformat("2027-12-01T00:00:00-05:00")
    assert balance(generous, bob)["available"] == 20, "the gift expires when it would have, and not a day later"
    run_jobs(generous.database, generous.clock())
    generous.prove()


def owing(shop: Shop, card: str) -> str:
    """A member who owes 50 points: they were spent, and the goods that earned them came back. Answers the id."""
    member_id = earn(shop, 50, card=card, receipt="spent")
    made = held(shop, 50, member={"card": card})
    shop.http.post(f"/v1/holds/{made['id']}/capture", headers=keyed())
    assert shop.post(returned(of="spent")).status_code == 201
    assert balance(shop, member_id) == figures(0) | {"debt": 50}
    return member_id


def test_a_gift_pays_debt_first(generous: Shop) -> None:
    earn(generous, 100)
    bob = owing(generous, "901")
    given(generous, 30)
    assert balance(generous, bob) == figures(0) | {"debt": 20}
    given(generous, 30)
    assert balance(generous, bob) == figures(10)
    run_jobs(generous.database, generous.clock())
    generous.prove()


def test_a_dry_run_gives_nothing(generous: Shop) -> None:
    ada, bob = earn(generous, 100), earn(generous, 5, card="901")
    body = {"from": {"card": "900"}, "to": {"card": "901"}, "points": 30}
    answer = generous.http.post("/v1/transfers", json=body, headers=keyed(), params={"dry_run": True})
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["balance"]) == (None, figures(70))
    assert (balance(generous, ada), balance(generous, bob)) == (figures(100), figures(5))
    assert generous.get(f"/v1/members/{ada}/transfers")["items"] == []
    check_problem(
        generous.http.post("/v1/transfers", json=body | {"points": 101}, headers=keyed(), params={"dry_run": True}),
        422,
        "insufficient_points",
    )


def test_the_same_key_gives_once(generous: Shop) -> None:
    ada, _ = earn(generous, 100), earn(generous, 5, card="901")
    body, key = {"from": {"card": "900"}, "to": {"card": "901"}, "points": 30}, keyed()
    answers = [generous.http.post("/v1/transfers", json=body, headers=key) for _ in range(3)]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert balance(generous, ada) == figures(70)
    check_problem(generous.http.post("/v1/transfers", json=body), 400, "idempotency_key_missing")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": {"card": "900"}}, "transfer_to_self"),
        ({"to": {"card": "unknown"}}, "unknown_member"),
        ({"from": {"card": "unknown"}}, "unknown_member"),
        ({"from": {"card": "900", "phone": "+14155550100"}}, "invalid_request"),
        ({"to": {"phone": "12"}}, "identifier_invalid"),
        ({"points": 101}, "insufficient_points"),
        ({"points": 0}, "invalid_request"),
        ({"points": -1}, "invalid_request"),
        ({"points": 2**53}, "invalid_request"),
        ({"note": "Happy birthday, Bob"}, "invalid_request"),
    ],
)
def test_what_is_no_gift(generous: Shop, changes: dict[str, Any], code: str) -> None:
    ada, bob = earn(generous, 100), earn(generous, 5, card="901")
    refused = give(generous, **({"points": 30} | changes))
    check_problem(refused, 422, code)
    if code == "unknown_member":
        assert [error["pointer"] for error in refused.json()["errors"]] == [f"#/{next(iter(changes))}"]
    assert (balance(generous, ada), balance(generous, bob)) == (figures(100), figures(5))


def test_one_member_by_two_identifiers_is_one_member(generous: Shop) -> None:
    ada = earn(generous, 100)
    check_problem(give(generous, 30, to={"id": ada}), 422, "transfer_to_self")


def test_members_may_give_only_where_the_terms_say_so(shop: Shop) -> None:
    earn(shop, 100)
    earn(shop, 5, card="901")
    check_problem(give(shop, 30), 422, "transfer_not_offered")


@pytest.mark.parametrize(
    ("status", "gives", "receives"),
    [("active", True, True), ("spend_only", True, False), ("earn_only", False, True), ("suspended", False, False)],
)
def test_who_spends_may_give_and_who_earns_may_receive(
    generous: Shop, status: str, gives: bool, receives: bool
) -> None:
    ada, _ = earn(generous, 100), earn(generous, 100, card="901")
    generous.http.patch(f"/v1/members/{ada}", json={"status": status}, headers={"If-Match": '"1"'})
    for answer, may, code in (
        (give(generous, 30), gives, "member_may_not_spend"),
        (give(generous, 30, "901", "900"), receives, "member_may_not_earn"),
    ):
        if may:
            assert answer.status_code == 201
        else:
            check_problem(answer, 422, code)


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "points", "today", "refusal"),
    [
        ({}, 1, 10**9, None),
        ({"minimum": 100}, 100, 0, None),
        ({"minimum": 100}, 99, 0, rules.TransferBelowMinimum),
        ({"most_at_once": 50}, 50, 10**9, None),
        ({"most_at_once": 50}, 51, 0, rules.TransferAboveLimit),
        ({"most_per_day": 50}, 50, 0, None),
        ({"most_per_day": 50}, 50, 1, rules.TransferAboveLimit),
        ({"most_per_day": 50}, 1, 49, None),
        ({"most_per_day": 50}, 1, 60, rules.TransferAboveLimit),
        ({"most_at_once": 30, "most_per_day": 50}, 31, 0, rules.TransferAboveLimit),
        (None, 1, 0, rules.TransferNotOffered),
    ],
)
def test_limits(policy: dict[str, int] | None, points: int, today: int, refusal: type[Problem] | None) -> None:
    terms = Terms.model_validate(TERMS | {"transfers": policy})
    if refusal is None:
        rules.check_gift(points, today, terms)
    else:
        with pytest.raises(refusal):
            rules.check_gift(points, today, terms)


def test_a_day_s_limit_is_of_the_local_day(generous: Shop) -> None:
    """New York's day ends at 5:00 UTC. What was received, or drawn from a pool, does not count."""
    earn(generous, 300)
    earn(generous, 300, card="901")
    limited(generous, most_per_day=100)
    generous.clock.now = datetime.fromisoformat("2026-11-23T04:59:59.999999+00:00")
    given(generous, 60)
    given(generous, 100, "901", "900")
    refused = give(generous, 41)
    check_problem(refused, 422, "transfer_above_limit")
    assert refused.json()["left"] == 40
    given(generous, 40)
    check_problem(give(generous, 1), 422, "transfer_above_limit")
    generous.clock.forward(microseconds=1)
    given(generous, 100)
    check_problem(give(generous, 1), 422, "transfer_above_limit")
    generous.prove()


def test_a_day_s_limit_holds_for_gifts_at_once(generous: Shop) -> None:
    earn(generous, 1000)
    earn(generous, 5, card="901")
    limited(generous, most_per_day=100)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: give(generous, 30), range(16)))
    assert Counter(answer.status_code for answer in answers) == {201: 3, 422: 13}
    assert {answer.json()["left"] for answer in answers if answer.status_code == 422} == {10}


# --- reading --------------------------------------------------------------------------------------------------------


def test_lists(generous: Shop) -> None:
    """What one gave and received, oldest first, in pages."""
    ada, bob = earn(generous, 100), earn(generous, 100, card="901")
    cy = earn(generous, 100, card="902")
    made = [given(generous, 10)["id"], given(generous, 10, "901", "900")["id"], given(generous, 10, "902", "900")["id"]]
    assert [row["id"] for row in generous.get(f"/v1/members/{ada}/transfers")["items"]] == made
    assert [row["id"] for row in generous.get(f"/v1/members/{bob}/transfers")["items"]] == made[:2]
    assert [row["id"] for row in generous.get(f"/v1/members/{cy}/transfers")["items"]] == made[2:]
    page = generous.http.get(f"/v1/members/{ada}/transfers", params={"limit": 2})
    assert [row["id"] for row in page.json()["items"]] == made[:2]
    assert [row["id"] for row in generous.http.get(page.links["next"]["url"]).json()["items"]] == made[2:]
    path = f"/v1/members/{ada}/transfers"
    check_problem(generous.http.get(path, params={"cursor": "x"}), 400, "cursor_invalid")


def stranger_of(shop: Shop) -> TestClient:
    """The staff of another programme, in which all of this is offered too."""

    def furnish(session: Session) -> str:
        other = make_program(session, GENEROUS, shop.clock(), "other")
        return make_key(session, "staff", shop.clock(), other)

    return shop.client(shop.database.write(furnish))


def test_another_programme_s_are_not_found(generous: Shop) -> None:
    ada, bob = earn(generous, 100), earn(generous, 100, card="901")
    made, pool = given(generous, 10)["id"], household(generous, "900", "901")
    stranger = stranger_of(generous)
    for path in (
        f"transfers/{made}",
        f"members/{ada}/transfers",
        f"members/{ada}/pool",
        f"pools/{pool}",
    ):
        check_problem(stranger.get(f"/v1/{path}"), 404, "not_found")
    body = {"from": {"id": ada}, "to": {"id": bob}, "points": 1}
    check_problem(stranger.post("/v1/transfers", json=body, headers=keyed()), 422, "unknown_member")
    person = {"member": {"id": ada}}
    check_problem(stranger.post(f"/v1/pools/{pool}/members", json=person), 404, "not_found")
    check_problem(stranger.delete(f"/v1/pools/{pool}/members/{ada}"), 404, "not_found")
    draw_body = person | {"points": 1}
    check_problem(stranger.post(f"/v1/pools/{pool}/draws", json=draw_body, headers=keyed()), 404, "not_found")


def test_a_transfer_never_changes_and_is_between_two(generous: Shop) -> None:
    earn(generous, 100)
    earn(generous, 5, card="901")
    given(generous, 10)
    attempts = {
        "UPDATE transfer SET points = 11": "append-only",
        "DELETE FROM transfer": "append-only",
        _copy("points", "0"): "ck_transfer_points_positive",
        _copy("to_member_id", "from_member_id"): "ck_transfer_two_members",
    }
    with generous.database.engine.connect() as connection:
        for statement, guard in attempts.items():
            fresh = "'0199aaaa00007000800000000000000a'"
            if connection.dialect.name == "postgresql":
                fresh = f"CAST({fresh} AS uuid)"
            with pytest.raises(DatabaseError, match=guard):
                connection.execute(text(statement.replace("FRESH", fresh)))
            connection.rollback()


def _copy(column: str, value: str) -> str:
    names = "id program_id from_member_id to_member_id points client_id occurred_at recorded_at".split()
    values = ["FRESH" if name == "id" else value if name == column else name for name in names]
    return f"INSERT INTO transfer ({', '.join(names)}) SELECT {', '.join(values)} FROM transfer LIMIT 1"


# --- many at once ---------------------------------------------------------------------------------------------------


def test_of_twenty_gifts_at_once_from_a_balance_for_one_exactly_one_succeeds(generous: Shop) -> None:
    """20 parallel gifts of 100 from a balance of 100."""
    ada, bob = earn(generous, 100), earn(generous, 1, card="901")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: give(generous, 100), range(20)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 422: 19}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {"insufficient_points"}
    assert (balance(generous, ada), balance(generous, bob)) == (figures(0), figures(101))
    generous.prove()


def test_the_total_never_moves(generous: Shop) -> None:
    """Eight members give each other points at random from six threads, both ways at once, while two readers sum up what
    there is; some draw on a pool meanwhile. Whoever looks, whenever: it is the same total."""
    cards = [str(900 + number) for number in range(8)]
    for card in cards:
        earn(generous, 100, card=card)
    pool_id = household(generous, *cards[:4])
    stop, totals = threading.Event(), set()

    def watch() -> None:
        summed = text("SELECT sum(available), sum(held + pending + debt) FROM point_account")
        remaining = text("SELECT sum(remaining) FROM lot")
        while not stop.is_set():
            stop.wait(0.01)
            totals.add(
                generous.database.read(
                    lambda session: (*map(int, session.execute(summed).one()), int(session.scalar(remaining) or 0))
                )
            )

    def act(seed: int) -> Counter[int]:
        chance, statuses = random.Random(seed), Counter[int]()
        for _ in range(25):
            giver, receiver = chance.sample(cards, 2)
            if chance.random() < 0.2:
                answer = draw(generous, pool_id, chance.choice(cards[:4]), chance.randint(1, 250))
            else:
                answer = give(generous, chance.randint(1, 80), giver, receiver)
            statuses[answer.status_code] += 1
        return statuses

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            statuses = sum(pool.map(act, range(6)), Counter[int]())
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    assert totals == {(800, 0, 800)}
    assert statuses.keys() <= {200, 201, 409, 422}, "409: to be repeated, since others held the file for too long"
    assert statuses[201] > 20
    generous.prove()


# --- households -----------------------------------------------------------------------------------------------------


def household(shop: Shop, *cards: str) -> str:
    """A pool of these members; answers its id."""
    made = shop.http.post("/v1/pools", json={"name": "household_1"}, headers=keyed())
    assert made.status_code == 201, made.text
    pool_id: str = made.json()["id"]
    for card in cards:
        joined = join(shop, pool_id, card)
        assert joined.status_code == 200, joined.text
    return pool_id


def join(shop: Shop, pool_id: str, card: str) -> Any:
    return shop.http.post(f"/v1/pools/{pool_id}/members", json={"member": {"card": card}}, headers=keyed())


def draw(shop: Shop, pool_id: str, card: str, points: int, **query: Any) -> Any:
    body = {"member": {"card": card}, "points": points}
    return shop.http.post(f"/v1/pools/{pool_id}/draws", json=body, headers=keyed(), params=query)


def available(pooled: dict[str, Any]) -> dict[str, int]:
    """What each member of a pool can spend."""
    return {row["member_id"]: row["balance"]["available"] for row in pooled["members"]}


def test_a_household_spends_together(generous: Shop) -> None:
    """Ada has 100 points, Bob 50, Cy 30. Bob wants something for 120: he lacks 70, and gets what expires soonest."""
    cy = earn(generous, 30, card="902")
    generous.clock.forward(days=30)
    ada, bob = earn(generous, 100), earn(generous, 50, card="901")
    pool_id = household(generous, "900", "901", "902")
    pooled = generous.get(f"/v1/pools/{pool_id}")
    assert available(pooled) == {ada: 100, bob: 50, cy: 30}
    assert pooled["balance"] == figures(180)
    assert pooled["name"] == "household_1"

    drawn = draw(generous, pool_id, "901", 120)
    assert drawn.status_code == 200, drawn.text
    assert (drawn.json()["member_id"], drawn.json()["collected"]) == (bob, 70)
    parts = {made["from_member_id"]: made["points"] for made in drawn.json()["transfers"]}
    assert parts == {cy: 30, ada: 40}
    assert drawn.json()["balance"] == balance(generous, bob) == figures(120)
    after = generous.get(f"/v1/pools/{pool_id}")
    assert after["balance"] == figures(180), "the total is what it was"
    assert available(after) == {ada: 60, bob: 120, cy: 0}
    for made in drawn.json()["transfers"]:
        assert generous.get(f"/v1/transfers/{made['id']}") == made
        assert made["pool_id"] == pool_id
    lots = generous.get(f"/v1/members/{bob}/lots")["items"]
    assert {lot["granted"]: lot["expires_at"][:7] for lot in lots} == {50: "2028-01", 30: "2027-12", 40: "2028-01"}
    assert held(generous, 120, member={"card": "901"})["balance"] == figures(0, held=120)
    generous.prove()


def test_nothing_is_collected_that_is_not_missing(generous: Shop) -> None:
    ada, _ = earn(generous, 100), earn(generous, 50, card="901")
    pool_id = household(generous, "900", "901")
    answer = draw(generous, pool_id, "901", 50).json()
    assert (answer["collected"], answer["transfers"], answer["balance"]) == (0, [], figures(50))
    assert balance(generous, ada) == figures(100)


def test_all_or_nothing(generous: Shop) -> None:
    """What is held, and what is of a member who may not spend, cannot be drawn."""
    ada, bob = earn(generous, 100), earn(generous, 50, card="901")
    cy = earn(generous, 30, card="902")
    pool_id = household(generous, "900", "901", "902")
    held(generous, 10)
    generous.http.patch(f"/v1/members/{cy}", json={"status": "suspended"}, headers={"If-Match": '"1"'})
    pooled = generous.get(f"/v1/pools/{pool_id}")["members"]
    assert {row["member_id"]: row["may_spend"] for row in pooled} == {ada: True, bob: True, cy: False}
    refused = draw(generous, pool_id, "901", 141)
    check_problem(refused, 422, "insufficient_points")
    assert refused.json()["missing"] == 1
    assert (balance(generous, ada), balance(generous, bob)) == (figures(90, held=10), figures(50))
    check_problem(draw(generous, pool_id, "902", 31), 422, "member_may_not_spend")
    assert draw(generous, pool_id, "901", 140).json()["balance"] == figures(140)
    generous.prove()


def test_a_draw_pays_debt_first_and_collects_for_it(generous: Shop) -> None:
    """Who owes 50 and wants 20 lacks 70."""
    earn(generous, 100)
    bob = owing(generous, "901")
    pool_id = household(generous, "900", "901")
    refused = draw(generous, pool_id, "901", 51)
    check_problem(refused, 422, "insufficient_points")
    assert refused.json()["missing"] == 1
    assert draw(generous, pool_id, "901", 20).json()["collected"] == 70
    assert balance(generous, bob) == figures(20)
    run_jobs(generous.database, generous.clock())
    generous.prove()


def test_a_dry_run_draws_nothing(generous: Shop) -> None:
    ada, bob = earn(generous, 100), earn(generous, 50, card="901")
    pool_id = household(generous, "900", "901")
    would = draw(generous, pool_id, "901", 120, dry_run=True).json()
    assert (would["collected"], would["balance"], would["dry_run"]) == (70, figures(120), True)
    assert [made["id"] for made in would["transfers"]] == [None]
    assert (balance(generous, ada), balance(generous, bob)) == (figures(100), figures(50))


def test_a_draw_is_no_gift(generous: Shop) -> None:
    """Gifts are limited, and draws neither obey that limit nor use it up."""
    earn(generous, 100)
    earn(generous, 5, card="901")
    pool_id = household(generous, "900", "901")
    limited(generous, minimum=10, most_at_once=20, most_per_day=20)
    assert draw(generous, pool_id, "901", 55).json()["collected"] == 50
    given(generous, 20)
    check_problem(give(generous, 10), 422, "transfer_above_limit")


def test_who_is_in_a_pool(generous: Shop) -> None:
    """One pool at most, up to so many in it; joining again changes nothing; who leaves takes their points along."""
    ada, *_ = [earn(generous, 10, card=str(900 + number)) for number in range(6)]
    first, second = household(generous, "900", "901", "902", "903"), household(generous)
    assert generous.get(f"/v1/members/{ada}/pool")["id"] == first
    check_problem(join(generous, first, "904"), 409, "pool_full")
    again = join(generous, first, "903")
    assert again.status_code == 200
    assert len(again.json()["members"]) == 4
    check_problem(join(generous, second, "900"), 409, "already_in_pool")
    check_problem(draw(generous, second, "900", 20), 422, "not_in_pool")
    path = f"/v1/pools/{first}/members/{ada}"
    assert generous.http.delete(path).status_code == 204
    check_problem(generous.http.delete(path), 404, "not_found")
    check_problem(generous.http.get(f"/v1/members/{ada}/pool"), 404, "not_found")
    assert balance(generous, ada) == figures(10)
    assert join(generous, second, "900").status_code == 200
    assert join(generous, first, "904").status_code == 200
    check_problem(join(generous, first, "unknown"), 422, "unknown_member")
    closed = generous.get("/v1/members/lookup", card="905")["id"]
    generous.http.patch(f"/v1/members/{closed}", json={"status": "closed"}, headers={"If-Match": '"1"'})
    check_problem(join(generous, second, "905"), 409, "member_closed")


def test_the_last_place_and_the_one_pool_hold_when_many_join_at_once(generous: Shop) -> None:
    cards = [str(900 + number) for number in range(8)]
    for card in cards:
        earn(generous, 1, card=card)
    full = household(generous)
    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(answer.status_code for answer in pool.map(lambda card: join(generous, full, card), cards))
    assert statuses == {200: 4, 409: 4}
    inside = {row["member_id"] for row in generous.get(f"/v1/pools/{full}")["members"]}
    outside = next(card for card in cards if generous.get("/v1/members/lookup", card=card)["id"] not in inside)
    pools = [household(generous) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        statuses = Counter(answer.status_code for answer in pool.map(lambda id_: join(generous, id_, outside), pools))
    assert statuses == {200: 1, 409: 5}


def test_pools_only_where_the_terms_say_so(shop: Shop) -> None:
    check_problem(shop.http.post("/v1/pools", json={}, headers=keyed()), 422, "pool_not_offered")
    check_problem(shop.http.post("/v1/pools", json={}), 400, "idempotency_key_missing")


def test_a_member_is_in_one_pool_by_constraint(generous: Shop) -> None:
    earn(generous, 10)
    household(generous, "900")
    again = (
        "INSERT INTO pool_member (member_id, pool_id, joined_at) SELECT member_id, pool_id, joined_at FROM pool_member"
    )
    with generous.database.engine.connect() as connection, pytest.raises(DatabaseError, match=r"(?i)unique"):
        connection.execute(text(again))


@pytest.mark.parametrize("kind", ["terminal", "partner"])
def test_a_till_draws_but_neither_gives_nor_changes_households(generous: Shop, kind: str) -> None:
    ada, _ = earn(generous, 100), earn(generous, 50, card="901")
    pool_id = household(generous, "900", "901")
    client, person = generous.client(kind), {"member": {"card": "901"}}
    assert client.get(f"/v1/members/{ada}/pool").json()["id"] == pool_id
    drawn = client.post(f"/v1/pools/{pool_id}/draws", json=person | {"points": 60}, headers=keyed())
    assert drawn.status_code == 200
    gift = {"from": {"card": "900"}, "to": {"card": "901"}, "points": 1}
    for path, body in (("transfers", gift), ("pools", {}), (f"pools/{pool_id}/members", person)):
        answer = client.post(f"/v1/{path}", json=body, headers=keyed())
        assert answer.status_code == 403 if kind == "terminal" else answer.is_success


# --- who gives how much ---------------------------------------------------------------------------------------------

SOON, LATE = NOW + timedelta(days=30), NOW + timedelta(days=90)


@pytest.mark.parametrize(
    ("lots", "points", "parts"),
    [
        ([[(10, SOON)], [(10, LATE)]], 10, [10, 0]),
        ([[(10, LATE)], [(10, SOON)]], 10, [0, 10]),
        ([[(10, LATE)], [(10, SOON)]], 15, [5, 10]),
        ([[(10, None)], [(10, LATE)]], 15, [5, 10]),
        ([[(10, SOON)], [(10, SOON)]], 15, [10, 5]),
        ([[(10, LATE), (10, SOON)], [(10, SOON), (10, LATE)]], 25, [15, 10]),
        ([[(10, SOON)], []], 10, [10, 0]),
        ([[(10, SOON)], [(10, SOON)]], 0, [0, 0]),
    ],
)
def test_the_soonest_expiring_go_first_whosever_they_are(
    lots: list[list[tuple[int, datetime | None]]], points: int, parts: list[int]
) -> None:
    givers = sorted((member(*theirs) for theirs in lots), key=lambda giver: giver.member_id)
    for order in (givers, givers[::-1]):
        shared = rules.shares(order, points)
        assert [shared.get(giver.member_id, 0) for giver in givers] == parts


def test_what_all_of_them_lack() -> None:
    with pytest.raises(InsufficientPoints) as refused:
        rules.shares([member((10, SOON)), member((10, None))], 27)
    assert refused.value.extra == {"missing": 7}


def test_what_a_member_lacks() -> None:
    """Arriving points pay debt first, so that is missing too."""
    rich, poor = member((100, SOON)), member()
    assert (rules.missing(rich, 100), rules.missing(rich, 130), rules.missing(poor, 1)) == (0, 30, 1)
