"""Points on hold: reserved, captured whole or in part, released, or free again when their time is up. One ending."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from app import ledger, programs
from app.clients.models import Client
from app.errors import Problem
from app.holds import rules, service
from app.holds.rules import HoldState, HoldTooLong
from app.holds.schemas import HoldIn
from app.holds.service import Asked, Ending, Standing
from app.ids import new_id
from app.ledger import Act
from app.ledger.models import PointEntry
from app.members import MemberRef
from app.programs import Terms
from app.transactions.models import Transaction
from tests.accounts import NOW
from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, make_key, make_program, open_shop, purchase, returned
from tests.test_access import check_problem

_KEYS = iter(range(10**9))


def keyed() -> dict[str, str]:
    """A key that was never used."""
    return {"Idempotency-Key": f"k{next(_KEYS)}"}


def earn(shop: Shop, points: int, card: str = "900", receipt: str | None = None) -> str:
    """Posts a purchase that earns `points`, an hour ago; answers the member's id."""
    at = (shop.clock() - timedelta(hours=1)).isoformat()
    body = purchase(receipt or f"r{next(_KEYS)}", points * 100, member={"card": card}, occurred_at=at)
    response = shop.post(body)
    assert response.status_code == 201, response.text
    id_: str = response.json()["member"]["id"]
    return id_


def hold(shop: Shop, points: int = 60, **changes: Any) -> Any:
    """Holds points of card 900 for an hour and answers the response."""
    body = {"member": {"card": "900"}, "points": points, "minutes": 60} | changes
    return shop.http.post("/v1/holds", json=body, headers=keyed())


def held(shop: Shop, points: int = 60, **changes: Any) -> dict[str, Any]:
    response = hold(shop, points, **changes)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


def end(shop: Shop, hold_id: str, how: str, body: dict[str, Any] | None = None, **query: Any) -> Any:
    return shop.http.post(f"/v1/holds/{hold_id}/{how}", json=body, headers=keyed(), params=query)


def balance(shop: Shop, member_id: str) -> dict[str, int]:
    answer: dict[str, int] = shop.get(f"/v1/members/{member_id}/balance")["balance"]
    return answer


def figures(available: int, held: int = 0) -> dict[str, int]:
    return {"available": available, "held": held, "pending": 0, "debt": 0}


# --- the story ------------------------------------------------------------------------------------------------------


def test_points_are_held_and_then_spent(shop: Shop) -> None:
    """100 points, 60 of them for a booking: nobody else can have those; captured, they are gone."""
    ada = earn(shop, 100)
    made = held(shop, 60, reference="booking-1")
    assert made["status"] == "open"
    assert made["member_id"] == ada
    assert made["reference"] == "booking-1"
    assert made["ends_at"] == "2026-11-22T13:00:00+00:00"
    assert made["balance"] == balance(shop, ada) == figures(40, held=60)
    check_problem(hold(shop, 41), 422, "insufficient_points")
    assert hold(shop, 41).json()["missing"] == 1

    captured = end(shop, made["id"], "capture")
    assert captured.status_code == 200
    assert captured.json()["status"] == "captured"
    assert captured.json()["captured"] == 60
    assert captured.json()["balance"] == balance(shop, ada) == figures(40)
    entries = shop.get(f"/v1/members/{ada}/entries")["items"]
    assert [entry["kind"] for entry in entries] == ["capture", "hold", "accrual"]
    assert {entry["document_id"] for entry in entries[:2]} == {made["id"]}
    shop.prove()


def test_a_part_is_captured_and_the_rest_is_free(shop: Shop) -> None:
    ada = earn(shop, 100)
    made = held(shop, 60)
    answer = end(shop, made["id"], "capture", {"points": 25}).json()
    assert (answer["status"], answer["points"], answer["captured"]) == ("captured", 60, 25)
    assert answer["balance"] == balance(shop, ada) == figures(75)
    entries = shop.get(f"/v1/members/{ada}/entries")["items"]
    assert [(entry["kind"], entry["points"]) for entry in entries[:2]] == [("release", 0), ("capture", -25)]
    shop.prove()


def test_a_hold_is_released(shop: Shop) -> None:
    ada = earn(shop, 100)
    made = held(shop, 60)
    answer = end(shop, made["id"], "release").json()
    assert (answer["status"], answer["captured"], answer["balance"]) == ("released", 0, figures(100))
    assert balance(shop, ada) == figures(100)
    shop.prove()


@pytest.mark.parametrize("how", ["capture", "release"])
@pytest.mark.parametrize("first", ["capture", "release"])
def test_a_hold_ends_once(shop: Shop, first: str, how: str) -> None:
    earn(shop, 100)
    made = held(shop, 60)
    assert end(shop, made["id"], first).status_code == 200
    check_problem(end(shop, made["id"], how), 409, "hold_ended")
    shop.prove()


def test_the_same_key_captures_once(shop: Shop) -> None:
    ada = earn(shop, 100)
    made, key = held(shop, 60), keyed()
    answers = [shop.http.post(f"/v1/holds/{made['id']}/capture", headers=key) for _ in range(3)]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[2].headers["Idempotent-Replayed"] == "true"
    assert balance(shop, ada) == figures(40)
    for path in ("", f"/{made['id']}/capture", f"/{made['id']}/release"):
        body = {"member": {"card": "900"}, "points": 1} if not path else None
        check_problem(shop.http.post(f"/v1/holds{path}", json=body), 400, "idempotency_key_missing")


def test_a_dry_run_holds_and_ends_nothing(shop: Shop) -> None:
    """It answers what would be, by the same code; what does not exist has no id."""
    ada = earn(shop, 100)
    body = {"member": {"card": "900"}, "points": 60, "minutes": 60}
    answer = shop.http.post("/v1/holds", json=body, headers=keyed(), params={"dry_run": True})
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["balance"]) == (None, figures(40, held=60))
    assert balance(shop, ada) == figures(100)
    made = held(shop, 60)
    assert answer.json() | {"id": made["id"], "dry_run": False, "entries": None} == made
    for how, status, left in (("capture", "captured", 40), ("release", "released", 100)):
        would = end(shop, made["id"], how, dry_run=True).json()
        assert (would["status"], would["balance"], would["dry_run"]) == (status, figures(left), True)
        assert shop.get(f"/v1/holds/{made['id']}")["status"] == "open"
    check_problem(end(shop, made["id"], "capture", {"points": 61}, dry_run=True), 422, "capture_above_hold")


# --- time -----------------------------------------------------------------------------------------------------------


def test_a_hold_past_its_end_is_free_with_no_job_running(shop: Shop) -> None:
    """One microsecond before its end it is open; at its end it has ended, on every page, and can be spent anew."""
    ada = earn(shop, 100)
    made = held(shop, 60)
    shop.clock.forward(hours=1, microseconds=-1)
    assert shop.get(f"/v1/holds/{made['id']}")["status"] == "open"
    shop.clock.forward(microseconds=1)
    read = shop.get(f"/v1/holds/{made['id']}")
    assert (read["status"], read["ended_at"], read["balance"]) == ("expired", made["ends_at"], figures(100))
    assert balance(shop, ada) == figures(100)
    assert [row["status"] for row in shop.get("/v1/holds", status="expired")["items"]] == ["expired"]
    assert shop.get("/v1/holds", status="open")["items"] == []
    check_problem(end(shop, made["id"], "capture"), 409, "hold_ended")
    check_problem(end(shop, made["id"], "release"), 409, "hold_ended")
    assert held(shop, 100)["balance"] == figures(0, held=100), "another hold takes all of them"
    read = shop.get(f"/v1/holds/{made['id']}")
    assert (read["status"], read["ended_at"]) == ("expired", made["ends_at"]), "the same, once it is written down"
    entries = shop.get(f"/v1/members/{ada}/entries")["items"]
    assert [entry["kind"] for entry in entries] == ["hold", "release", "hold", "accrual"]
    assert entries[1]["occurred_at"] == made["ends_at"]
    shop.prove()


LAST_DAY = datetime.fromisoformat("2027-11-30T23:30:00-05:00")
GONE = datetime.fromisoformat("2027-12-01T05:00:00+00:00")
"""Points of the test clock's month are gone from here."""


@pytest.mark.parametrize(
    ("ending", "body", "kinds"),
    [
        ("release", None, ["expiration", "release", "expiration", "hold", "accrual"]),
        ("capture", None, ["capture", "expiration", "hold", "accrual"]),
        ("capture", {"points": 20}, ["expiration", "release", "capture", "expiration", "hold", "accrual"]),
    ],
)
def test_held_points_do_not_expire_until_the_hold_ends(
    shop: Shop, ending: str, body: dict[str, Any] | None, kinds: list[str]
) -> None:
    """Held over the end of their last day, 60 of 100 points outlive the other 40; freed later, they go at once."""
    ada = earn(shop, 100)
    shop.clock.now = LAST_DAY
    made = held(shop, 60)
    shop.clock.forward(minutes=45)
    assert balance(shop, ada) == figures(0, held=60), "what is free has expired at midnight"
    answer = end(shop, made["id"], ending, body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["balance"] == balance(shop, ada) == figures(0)
    entries = shop.get(f"/v1/members/{ada}/entries")["items"]
    assert [entry["kind"] for entry in entries] == kinds
    *freed, free = [instant(entry) for entry in entries if entry["kind"] == "expiration"]
    assert free == GONE
    assert freed == [shop.clock()] * len(freed)
    shop.prove()


def test_points_held_over_their_last_day_go_when_the_time_of_the_hold_is_up(shop: Shop) -> None:
    """Nobody ends it and no job runs: its end frees and expires them, at that instant."""
    ada = earn(shop, 100)
    shop.clock.now = LAST_DAY
    made = held(shop, 60)
    shop.clock.forward(minutes=75)
    assert balance(shop, ada) == figures(0)
    earn(shop, 1)
    assert balance(shop, ada) == figures(1)
    entries = shop.get(f"/v1/members/{ada}/entries")["items"]
    assert [entry["kind"] for entry in entries[1:]] == ["expiration", "release", "expiration", "hold", "accrual"]
    ended = datetime.fromisoformat(made["ends_at"])
    assert [instant(entry) for entry in entries[1:4]] == [ended, ended, GONE]
    shop.prove()


def instant(entry: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(entry["occurred_at"])


def test_a_capture_is_activity_and_a_hold_is_not(database_url: str, clock: TestClock) -> None:
    """Points lapse 30 days after the last purchase or redemption. Held on the 20th day, captured on the 21st."""
    expiry = {"mode": "inactivity", "days": 30, "round_up_to": "day"}
    with open_shop(settings_for(database_url), clock, TERMS | {"expiry": expiry}) as shop:
        earn(shop, 100)
        clock.forward(days=20)
        made = held(shop, 60, minutes=2880)
        assert made["expiring_next"] == {"points": 40, "at": "2026-12-23T05:00:00+00:00"}
        clock.forward(days=1)
        answer = end(shop, made["id"], "capture").json()
        assert answer["expiring_next"] == {"points": 40, "at": "2027-01-13T05:00:00+00:00"}
        shop.prove()


@pytest.mark.parametrize(("minutes", "hours"), [(None, 24), (1, 1 / 60), (10_080, 168)])
def test_the_terms_say_how_long(minutes: int | None, hours: float) -> None:
    assert rules.ends_at(NOW, minutes, Terms.model_validate(TERMS)) == NOW + timedelta(hours=hours)


def test_not_longer_than_the_terms_say(shop: Shop) -> None:
    earn(shop, 100)
    refused = hold(shop, 1, minutes=10_081)
    check_problem(refused, 422, "hold_too_long")
    assert refused.json()["longest_minutes"] == 10_080
    with pytest.raises(HoldTooLong):
        rules.ends_at(NOW, 11, Terms.model_validate(TERMS | {"holds": {"default_minutes": 5, "longest_minutes": 10}}))


def test_a_hold_at_an_instant() -> None:
    """Time ends an open hold, and no other."""
    state = HoldState(new_id(), new_id(), 5, 0, "open", None, NOW, None, NOW - timedelta(hours=1))
    assert state.at(NOW - timedelta(microseconds=1)) is state
    assert (state.at(NOW).status, state.at(NOW).ended_at) == ("expired", NOW)
    captured = replace(state, status="captured", captured=5, ended_at=NOW - timedelta(minutes=1))
    assert captured.at(NOW) is captured


# --- lots -----------------------------------------------------------------------------------------------------------


def test_the_lots_behind_a_hold_are_shown(shop: Shop) -> None:
    """Two months' points: the hold reserves the first month's whole and a part of the second's; 45 of 60 are spent."""
    ada = earn(shop, 40)
    shop.clock.forward(days=30)
    earn(shop, 40)
    made = held(shop, 60)
    first, second = shop.get(f"/v1/members/{ada}/lots")["items"]
    lots = shop.get(f"/v1/holds/{made['id']}")["lots"]
    assert [(lot["lot_id"], lot["points"], lot["captured"]) for lot in lots] == [
        (first["id"], 40, 0),
        (second["id"], 20, 0),
    ]
    assert lots[0]["expires_at"] == first["expires_at"] < lots[1]["expires_at"]
    assert (first["held"], second["held"]) == (40, 20)
    end(shop, made["id"], "capture", {"points": 45})
    lots = shop.get(f"/v1/holds/{made['id']}")["lots"]
    assert [(lot["points"], lot["captured"]) for lot in lots] == [(40, 40), (20, 5)]
    paid = shop.database.read(lambda session: ledger.payments(session, UUID(made["id"])))
    assert {str(payment.lot_id): payment.points for payment in paid} == {first["id"]: 40, second["id"]: 5}
    shop.prove()


def test_debt_is_no_part_of_what_a_hold_paid(shop: Shop) -> None:
    """A return leaves a debt while points are held; released, they pay it, which is not what the hold is for."""
    ada = earn(shop, 50, receipt="spent")
    end(shop, held(shop, 50)["id"], "capture")
    earn(shop, 30)
    made = held(shop, 30)
    assert shop.post(returned(of="spent")).status_code == 201
    assert balance(shop, ada) == {"available": 0, "held": 30, "pending": 0, "debt": 50}
    answer = end(shop, made["id"], "capture", {"points": 10}).json()
    assert answer["balance"] == {"available": 0, "held": 0, "pending": 0, "debt": 30}
    (lot,) = shop.get(f"/v1/holds/{made['id']}")["lots"]
    assert (lot["points"], lot["captured"]) == (30, 10)
    (payment,) = shop.database.read(lambda session: ledger.payments(session, UUID(made["id"])))
    assert payment.points == 10
    shop.prove()


# --- who may, and what they see -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["earn_only", "suspended", "closed"])
def test_who_may_not_spend_may_not_hold_nor_capture(shop: Shop, status: str) -> None:
    """But what was held can be freed."""
    ada = earn(shop, 100)
    made = held(shop, 60)
    shop.http.patch(f"/v1/members/{ada}", json={"status": status}, headers={"If-Match": '"1"'})
    check_problem(hold(shop, 1), 422, "member_may_not_spend")
    check_problem(end(shop, made["id"], "capture"), 422, "member_may_not_spend")
    assert end(shop, made["id"], "release").json()["balance"] == figures(100)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"member": {"card": "unknown"}}, 422, "unknown_member"),
        ({"member": {"phone": "12"}}, 422, "identifier_invalid"),
        ({"points": 0}, 422, "invalid_request"),
        ({"points": 2**53}, 422, "invalid_request"),
        ({"points": True}, 422, "invalid_request"),
        ({"minutes": 0}, 422, "invalid_request"),
        ({"reference": "two\nlines"}, 422, "invalid_request"),
        ({"points": 2**53 - 1}, 422, "insufficient_points"),
    ],
)
def test_what_is_no_hold(shop: Shop, changes: dict[str, Any], status: int, code: str) -> None:
    earn(shop, 100)
    check_problem(hold(shop, **changes), status, code)


def test_more_than_is_held_cannot_be_captured(shop: Shop) -> None:
    ada = earn(shop, 100)
    made = held(shop, 60)
    check_problem(end(shop, made["id"], "capture", {"points": 61}), 422, "capture_above_hold")
    assert balance(shop, ada) == figures(40, held=60)


def test_an_order_s_points_are_not_to_be_ended_from_here(shop: Shop) -> None:
    """What nobody asked for here is not here: an ordered reward holds points by itself, and without an end."""
    ada = UUID(earn(shop, 100))

    def order(session: Session) -> UUID:
        zone = programs.zone_at(session, shop.program_id, shop.clock())
        document = session.scalars(select(Transaction.id)).one()
        account = ledger.claim(session, [ada], shop.clock(), zone, [ada])[ada]
        made = Act(shop.program_id, document, shop.clock(), shop.clock(), zone)
        ledger.write(session, [ledger.hold(account, document, 60, None, made)], shop.clock())
        return document

    hold_id = str(shop.database.write(order))
    check_problem(shop.http.get(f"/v1/holds/{hold_id}"), 404, "not_found")
    for how in ("capture", "release"):
        check_problem(end(shop, hold_id, how), 404, "not_found")
    assert shop.get("/v1/holds")["items"] == []
    assert balance(shop, str(ada)) == figures(40, held=60)


def test_another_programme_s_holds_are_not_found(shop: Shop) -> None:
    ada = earn(shop, 100)
    made = held(shop, 60)

    def furnish(session: Session) -> str:
        other = make_program(session, TERMS, shop.clock(), "other")
        return make_key(session, "staff", shop.clock(), other)

    stranger = shop.client(shop.database.write(furnish))
    check_problem(stranger.get(f"/v1/holds/{made['id']}"), 404, "not_found")
    for how in ("capture", "release"):
        check_problem(stranger.post(f"/v1/holds/{made['id']}/{how}", headers=keyed()), 404, "not_found")
    assert stranger.get("/v1/holds", params={"member_id": ada}).json()["items"] == []
    body = {"member": {"id": ada}, "points": 1}
    check_problem(stranger.post("/v1/holds", json=body, headers=keyed()), 422, "unknown_member")


@pytest.mark.parametrize("kind", ["terminal", "partner", "staff"])
def test_tills_partners_and_staff_hold(shop: Shop, kind: str) -> None:
    earn(shop, 100)
    client = shop.client(kind)
    body = {"member": {"card": "900"}, "points": 60}
    made = client.post("/v1/holds", json=body, headers=keyed())
    assert made.status_code == 201, made.text
    assert client.get(f"/v1/holds/{made.json()['id']}").status_code == 200
    assert client.post(f"/v1/holds/{made.json()['id']}/release", headers=keyed()).status_code == 200


def test_lists(shop: Shop) -> None:
    """By member, by how they stand, oldest first, in pages."""
    ada = earn(shop, 100)
    bob = earn(shop, 100, card="901")
    made = [held(shop, 10)["id"] for _ in range(5)]
    other = held(shop, 10, member={"card": "901"})["id"]
    end(shop, made[1], "capture")
    end(shop, made[2], "release")
    assert [row["id"] for row in shop.get("/v1/holds")["items"]] == [*made, other]
    assert [row["id"] for row in shop.get("/v1/holds", member_id=bob)["items"]] == [other]
    assert [row["id"] for row in shop.get("/v1/holds", member_id=ada, status="open")["items"]] == [made[0], *made[3:]]
    for status, id_ in (("captured", made[1]), ("released", made[2])):
        assert [row["id"] for row in shop.get("/v1/holds", status=status)["items"]] == [id_]
    seen, page = [], shop.http.get("/v1/holds", params={"limit": 2, "member_id": ada})
    while page.json()["next"]:
        seen += [row["id"] for row in page.json()["items"]]
        page = shop.http.get(page.links["next"]["url"])
    assert seen + [row["id"] for row in page.json()["items"]] == made
    check_problem(shop.http.get("/v1/holds", params={"cursor": "x"}), 400, "cursor_invalid")
    check_problem(shop.http.get("/v1/holds", params={"status": "lost"}), 422, "invalid_request")


def test_what_was_asked_for_never_changes(shop: Shop) -> None:
    earn(shop, 100)
    held(shop, 60, reference="a")
    with shop.database.engine.connect() as connection:
        for statement in ("UPDATE hold_request SET reference = 'b'", "DELETE FROM hold_request"):
            with pytest.raises(DatabaseError, match="append-only"):
                connection.execute(text(statement))
            connection.rollback()


# --- races ----------------------------------------------------------------------------------------------------------

ROUNDS = 200


def test_exactly_one_ending_whoever_races(shop: Shop) -> None:
    """Capture, release and the clock at once: somebody whose clock is ahead writes down that the time is up. Each hold
    ends once, by whoever came first, and the others are told that it has."""
    ada = UUID(earn(shop, 1000))
    now = shop.clock()
    with shop.database.engine.connect() as connection:
        client_id = UUID(str(connection.execute(select(Client.id).limit(1)).scalar_one()))
    asked = [Asked(client_id, HoldIn(member=MemberRef(id=ada), points=60, minutes=1))]
    endings: Counter[str] = Counter()

    def settle(session: Session, at: datetime) -> None:
        zone = programs.zone_at(session, shop.program_id, at)
        ledger.write(session, ledger.claim(session, [ada], at, zone).values(), at)

    with ThreadPoolExecutor(3) as pool:
        for _ in range(ROUNDS):
            (standing,) = shop.database.write(lambda session: service.hold(session, shop.program_id, asked, now))
            assert isinstance(standing, Standing)
            made = standing.hold
            racers: list[Callable[[Session], Any]] = [
                partial(service.capture, program_id=shop.program_id, endings=[Ending(made.id, 1)], now=now),
                partial(service.release, program_id=shop.program_id, hold_ids=[made.id], now=now),
                partial(settle, at=made.ends_at),
            ]
            first = sum(endings.values()) % 3
            outcomes = list(pool.map(lambda race: _outcome(shop, race), racers[first:] + racers[:first]))
            with shop.database.engine.connect() as connection:
                row = connection.execute(text("SELECT status, captured FROM hold ORDER BY id DESC LIMIT 1")).one()
            endings[row.status] += 1
            assert row.captured == (row.status == "captured")
            won = {"captured": 1, "released": 1, "expired": 0}[row.status]
            assert Counter(outcomes) == Counter({"done": 1 + won, "hold_ended": 2 - won}), outcomes
    assert sum(endings.values()) == ROUNDS
    assert set(endings) == {"captured", "released", "expired"}, "each of them wins now and then"
    assert balance(shop, str(ada)) == figures(1000 - endings["captured"])
    ends = select(PointEntry.kind).where(PointEntry.kind.in_(("capture", "release")), PointEntry.member_id == ada)
    with shop.database.engine.connect() as connection:
        kinds = Counter(connection.execute(ends).scalars())
    assert kinds == {"capture": endings["captured"], "release": ROUNDS}, "a capture of a part frees the rest"
    shop.prove()


def _outcome(shop: Shop, race: Callable[[Session], Any]) -> str:
    done = shop.database.write(race)
    return done[0].code if done and isinstance(done[0], Problem) else "done"


def test_many_holds_at_once_never_reserve_more_than_there_is(
    database_url: str, clock: TestClock, crowded: dict[str, int]
) -> None:
    with open_shop(settings_for(database_url, **crowded), clock) as shop:
        ada = earn(shop, 100)
        with ThreadPoolExecutor(8) as pool:
            statuses = Counter(response.status_code for response in pool.map(lambda _: hold(shop, 30), range(16)))
        assert statuses == {201: 3, 422: 13}
        assert balance(shop, ada) == figures(10, held=90)
        shop.prove()
