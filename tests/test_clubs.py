"""Clubs through the API: by a promise or a purchase, ended by time and returns; earned by, told, shared."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from app import programs
from app.insight import Period, replay
from app.worker import run_jobs
from tests.clubs import (
    BOUGHT,
    CLUBS,
    PAID,
    PARKING,
    PROMISED,
    ask,
    belongs,
    bonus,
    buy,
    clubs,
    forward_to,
    history,
    member_of,
    pay,
    topics,
)
from tests.conftest import settings_for
from tests.shop import Shop, TestClock, open_shop, purchase, returned, voided

__all__ = ["clubs"]  # a fixture


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


def test_the_till_is_told_which_club_a_purchase_has_brought(clubs: Shop) -> None:
    """A dry run, the purchase, and the claim of a guest's; not again for what was known."""
    gardeners = {"code": "gardeners", "name": "Gardeners", "until": "2027-05-22T04:00:00+00:00"}
    body = purchase("r1", 5000, occurred_at=clubs.clock().isoformat())
    body["lines"][0]["department"] = "GARDEN"
    assert clubs.post(body, dry_run=True).json()["clubs"] == [gardeners]
    assert [clubs.post(body).json()["clubs"] for _ in range(2)] == [[gardeners], []]
    assert buy(clubs, "r2", 4999, "GARDEN")["clubs"] == []
    guest = buy(clubs, "r3", 5000, "GARDEN", member=None)
    assert guest["clubs"] == []
    path, headers = f"/v1/transactions/{guest['id']}/claim", {"Idempotency-Key": "claim"}
    claimed = clubs.http.post(path, json={"member": {"card": "901"}}, headers=headers)
    assert claimed.json()["clubs"] == [gardeners]


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
        assert (item["code"], item["household"], item["fee"], item["benefits"]) == (
            "friends",
            True,
            None,
            [PARKING | {"discount": None, "adds_nothing": False}],
        )
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
