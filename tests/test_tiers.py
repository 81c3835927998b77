"""Tiers through the API: reached, kept, lost and told, by purchases, returns, claims; now and for any past."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, func, select

from app import programs, tiers
from app.db import Base
from app.outbox import OutboxEvent
from app.tiers import queries
from app.tiers.kept import BEGINNING
from app.tiers.models import MemberTier, QualifyingEntry, TierChange
from app.worker import run_jobs
from tests.conftest import settings_for
from tests.points import publish
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned, voided

SILVER = {"code": "silver", "name": "Silver", "qualification": {"spend": 50_000}}
GOLD = {
    "code": "gold",
    "name": "Gold",
    "qualification": {"spend": 100_000},
    "benefits": [{"code": "parking", "name": "A place to park", "kind": "hard"}],
}
THREE_MONTHS = {"type": "rolling", "months": 3}
YEARLY: dict[str, Any] = TERMS | {
    "tiers": {"levels": [SILVER, GOLD]},
    "uploads": {"latest_days": None},
    "expiry": None,
    "returns": {"without_receipt": "accept", "without_receipt_limit": 100_000},
}
ROLLING = YEARLY | {"tiers": {"levels": [SILVER, GOLD], "window": THREE_MONTHS}}


@pytest.fixture
def yearly(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, YEARLY) as shop:
        yield shop
        check_history(shop)
        shop.prove()


@pytest.fixture
def rolling(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, ROLLING) as shop:
        yield shop
        check_history(shop)
        shop.prove()


def buy(shop: Shop, external_id: str, total: int, at: str | None = None, card: str = "900", **query: Any) -> Any:
    """A purchase, now or at an instant past."""
    body = purchase(external_id, total, occurred_at=at or shop.clock().isoformat(), member={"card": card})
    answer = shop.post(body, **query)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def effect(before: str | None, after: str | None) -> dict[str, Any]:
    return {"before": before, "after": after, "earning_multiplier": "1"}


def member_of(shop: Shop, card: str = "900") -> str:
    id_: str = shop.get("/v1/members/lookup", card=card)["id"]
    return id_


def tier(shop: Shop, card: str = "900", **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = shop.get(f"/v1/members/{member_of(shop, card)}/tier", **query)
    return found


def code(shop: Shop, card: str = "900", **query: Any) -> str | None:
    found = tier(shop, card, **query)["tier"]
    return None if found is None else found["code"]


def history(shop: Shop, card: str = "900") -> list[tuple[str | None, str | None, str]]:
    """The oldest first: from, to, why."""
    items = shop.get(f"/v1/members/{member_of(shop, card)}/tier/history")["items"]
    return [(each["from_tier"], each["to_tier"], each["why"]) for each in reversed(items)]


def events(shop: Shop, topic: str) -> list[dict[str, Any]]:
    rows = select(OutboxEvent.payload).where(OutboxEvent.topic == topic).order_by(OutboxEvent.id)
    return shop.database.read(lambda session: list(session.scalars(rows)))


def stored(shop: Shop, table: type[Base]) -> int:
    """How many rows a table has."""
    rows = select(func.count()).select_from(table)
    return shop.database.read(lambda session: session.execute(rows).scalar_one())


def until(shop: Shop, day: str) -> None:
    """Moves the clock to noon of a day in New York."""
    shop.clock.now = datetime.fromisoformat(f"{day}T17:00:00+00:00")


def check_history(shop: Shop) -> None:
    """For every member and a lot of dates: the history that was written is the standing as known then; and what is
    stored is what the record comes to now."""
    now = shop.clock()

    def check(session: Any) -> None:
        terms = programs.timeline(session, shop.program_id)
        for member_id, found in queries.members(session, list(session.scalars(select(MemberTier.member_id)))).items():
            read = queries.records(session, {member_id: BEGINNING})[member_id]
            record = tiers.Record(found.joined_at, read.credits, read.decisions)
            assert found.kept is not None
            stored = found.kept
            assert tiers.standing(record, terms, stored.recorded_at, stored.recorded_at).tier == stored.tier
            rows = list(reversed(queries.changes(session, member_id, None, 1000)))
            instants = {row["changed_at"] for row in rows} | {credit.recorded_at for credit in read.credits}
            for at in {each + step for each in instants for step in (-timedelta(seconds=1), timedelta())}:
                told = [row["to_tier"] for row in rows if row["changed_at"] <= at]
                assert tiers.standing(record, terms, at, at).tier == (told[-1] if told else None), at
                assert at <= now

    shop.database.read(check)


# --- reached and lost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amounts", [(50_000,), (30_000, 20_000)])
def test_five_hundred_within_three_months(rolling: Shop, amounts: tuple[int, ...]) -> None:
    """499.99 are not enough, 500.00 are; three months later they are not any more."""
    assert buy(rolling, "r0", 49_999, card="901")["tier"] == effect(None, None)
    for number, amount in enumerate(amounts):
        answer = buy(rolling, f"r{number + 1}", amount)
    assert answer["tier"] == effect(None, "silver")
    assert (code(rolling, "901"), code(rolling)) == (None, "silver")
    stands = tier(rolling)
    assert stands["until"] == "2027-02-22T05:00:00+00:00"
    assert (stands["projected"], stands["falls"]) == (None, True)
    assert stands["next"] == {
        "code": "gold",
        "name": "Gold",
        "missing": {"need": "any", "points": None, "spend": 50_000, "visits": None, "units": None},
    }
    until(rolling, "2027-02-22")
    assert code(rolling) is None
    assert buy(rolling, "later", 100)["tier"] == effect(None, None)
    assert history(rolling) == [(None, "silver", "earned"), ("silver", None, "review")]


def test_a_first_purchase_takes_the_tier_it_is_enough_for_and_no_other(yearly: Shop) -> None:
    """Elsewhere a first purchase skips to the second tier, whatever the minimum."""
    for card, total, expected in (("1", 100, None), ("2", 60_000, "silver"), ("3", 100_000, "gold")):
        buy(yearly, f"r{card}", total, card=card)
        assert code(yearly, card) == expected


def test_spending_points_lowers_no_tier(database_url: str, clock: TestClock) -> None:
    """Tiers go by what counted, never by a balance."""
    levels = [{"code": "silver", "name": "Silver", "qualification": {"points": 500}}]
    spending = {"tiers": {"levels": levels}, "points_tender": {"value": {"amount": 1, "points": 1}}}
    with open_shop(settings_for(database_url), clock, YEARLY | spending) as shop:
        buy(shop, "r1", 50_000)
        assert code(shop) == "silver"
        tenders = [{"type": "points", "amount": 500}]
        assert shop.post(purchase("r2", 500, tenders=tenders)).status_code == 201
        assert shop.get(f"/v1/members/{member_of(shop)}/balance")["balance"]["available"] == 0
        assert (code(shop), tier(shop)["counted"]["points"]) == ("silver", 500)
        check_history(shop)


def test_points_to_the_next_tier_are_those_that_count(yearly: Shop) -> None:
    """Not the balance: neither points given by staff nor spent ones are among them."""
    buy(yearly, "r1", 20_000)
    body = {"member": {"card": "900"}, "points": 500, "class": "goodwill", "reason": "long_queue"}
    assert yearly.http.post("/v1/adjustments", json=body, headers={"Idempotency-Key": "k"}).status_code == 201
    stands = tier(yearly)
    assert stands["counted"] == {"points": 200, "spend": 20_000, "visits": 1, "units": 0}
    assert stands["next"]["missing"]["spend"] == 30_000


def test_a_year_later(yearly: Shop) -> None:
    buy(yearly, "r1", 100_000)
    until(yearly, "2027-06-01")
    buy(yearly, "r2", 60_000)
    stands = tier(yearly)
    assert (stands["tier"]["code"], stands["until"], stands["projected"]) == (
        "gold",
        "2028-01-01T05:00:00+00:00",
        "silver",
    )
    assert stands["keep"] == {"need": "any", "points": None, "spend": 40_000, "visits": None, "units": None}
    parking = {"code": "parking", "name": "A place to park", "kind": "hard"}
    assert stands["tier"]["benefits"] == [parking | {"discount": None, "adds_nothing": False}]
    until(yearly, "2028-01-01")
    assert code(yearly) == "silver"
    until(yearly, "2029-03-01")
    assert code(yearly) is None
    buy(yearly, "r3", 100)
    assert history(yearly) == [
        (None, "gold", "earned"),
        ("gold", "silver", "review"),
        ("silver", None, "review"),
    ]
    told = [event["at"] for event in events(yearly, "member.tier_downgraded")]
    assert told == ["2028-01-01T05:00:00+00:00", "2029-01-01T05:00:00+00:00"]
    assert [(each["from"], each["to"]) for each in events(yearly, "member.tier_upgraded")] == [(None, "gold")]


# --- what comes back, late, again -----------------------------------------------------------------------------------


def test_tiers_follow_returns_and_voids(yearly: Shop) -> None:
    buy(yearly, "r1", 60_000)
    now = yearly.clock().isoformat()
    assert yearly.post(returned("b1", "r1", total=20_000, occurred_at=now)).json()["tier"] == effect("silver", None)
    assert yearly.post(voided("v1", "b1", "return")).json()["tier"] == effect(None, "silver")
    assert yearly.post(voided("v2", "r1")).json()["tier"] == effect("silver", None)
    assert tier(yearly)["counted"] == {"points": 0, "spend": 0, "visits": 0, "units": 0}
    assert [why for _, _, why in history(yearly)] == ["earned", "returned", "returned", "returned"]


def test_in_one_batch_as_one_by_one(yearly: Shop) -> None:
    """And what waits for its purchase comes back with it."""
    early = returned("b0", "r3")
    assert yearly.post(early).status_code == 202
    bodies = [purchase("r1", 30_000), purchase("r2", 30_000), returned("b1", "r1"), purchase("r3", 90_000)]
    results = [each["transaction"]["tier"] for each in yearly.batch(bodies)]
    assert [each["after"] for each in results] == [None, "silver", None, None]
    assert tier(yearly)["counted"] == {"points": 300, "spend": 30_000, "visits": 1, "units": 0}


def test_a_return_without_its_receipt_counts_where_it_happens(yearly: Shop) -> None:
    buy(yearly, "r1", 50_000)
    body = returned("b1", original=None, member={"card": "900"}, total=1, currency="USD")
    assert yearly.post(body).json()["tier"] == effect("silver", None)


def test_what_came_back_without_a_receipt_leaves_the_window_like_a_purchase(rolling: Shop) -> None:
    """Then what it took counts again, though nobody buys anything."""
    body = returned("b1", original=None, member={"card": "900"}, total=9_000, currency="USD")
    buy(rolling, "r1", 100)
    assert rolling.post(body).status_code == 201
    until(rolling, "2027-01-10")
    assert buy(rolling, "r2", 55_000)["tier"] == effect(None, None)
    assert tier(rolling)["until"] == "2027-02-22T05:00:00+00:00"
    until(rolling, "2027-02-23")
    assert (code(rolling), tier(rolling)["since"]) == ("silver", "2027-02-22T05:00:00+00:00")
    until(rolling, "2027-08-01")
    assert buy(rolling, "r3", 50_000)["tier"] == effect(None, "silver")


def test_late_uploads_in_order_count_in_the_window_of_their_day(database_url: str, clock: TestClock) -> None:
    """300.00 of 22 November count on 20 February, though not any more when that is uploaded."""
    graceful = {"levels": [SILVER, GOLD], "window": THREE_MONTHS, "grace_days": 14}
    with open_shop(settings_for(database_url), clock, ROLLING | {"tiers": graceful}) as shop:
        until(shop, "2027-02-23")
        buy(shop, "r1", 30_000, "2026-11-22T12:00:00-05:00")
        assert buy(shop, "r2", 25_000, "2027-02-20T12:00:00-05:00")["tier"] == effect(None, "silver")
        assert tier(shop)["since"] == "2027-02-20T17:00:00+00:00"
        check_history(shop)


def test_late_uploads_count_when_they_happened(yearly: Shop) -> None:
    """A December bought in time, uploaded in January: the member never fell, though it was known so for some days."""
    buy(yearly, "r1", 50_000, "2025-05-01T12:00:00-04:00")
    assert code(yearly) == "silver"
    until(yearly, "2027-01-03")
    assert code(yearly) is None
    assert buy(yearly, "late", 50_000, "2026-12-31T23:59:59-05:00")["tier"] == effect(None, "silver")
    then = {"as_of": "2027-01-02T12:00:00-05:00"}
    assert code(yearly, **then) == "silver"
    assert code(yearly, **then, known_at="2027-01-02T12:00:00-05:00") is None
    assert tier(yearly)["since"] == "2025-05-01T16:00:00+00:00"
    assert history(yearly) == [(None, "silver", "earned"), ("silver", None, "review"), (None, "silver", "earned")]


def test_a_guests_purchase_counts_when_it_is_claimed(yearly: Shop) -> None:
    guest = yearly.post(purchase("g1", 60_000, member=None)).json()
    assert guest["tier"] is None
    yearly.post(returned("b1", "g1", total=5_000))
    path, body = f"/v1/transactions/{guest['id']}/claim", {"member": {"card": "900"}}
    assert yearly.http.post(path, json=body, headers={"Idempotency-Key": "k"}).status_code == 201
    assert tier(yearly)["counted"] == {"points": 550, "spend": 55_000, "visits": 1, "units": 0}
    assert code(yearly) == "silver"
    assert yearly.post(returned("b2", "g1", total=5_001)).json()["tier"] == effect("silver", None)
    assert yearly.post(returned("b3", "g1")).status_code == 201
    assert tier(yearly)["counted"] == {"points": 0, "spend": 0, "visits": 0, "units": 0}


def test_what_earns_nothing_counts_for_nothing_but_a_visit(database_url: str, clock: TestClock) -> None:
    """Gift cards bought or paid with are no spend."""
    levels = [{"code": "silver", "name": "Silver", "qualification": {"spend": 100, "visits": 3, "need": "all"}}]
    earning = {"points": 1, "per": 100, "excluded": {"departments": ["D1"]}}
    with open_shop(settings_for(database_url), clock, YEARLY | {"tiers": {"levels": levels}}) as shop:
        buy(shop, "r1", 50)
        shop.post(purchase("r2", 50_000, tenders=[{"type": "gift_card", "amount": 50_000}]))
        assert tier(shop)["counted"] == {"points": 0, "spend": 50, "visits": 2, "units": 0}
        clock.forward(hours=1)
        publish(shop, YEARLY | {"tiers": {"levels": levels}, "earning": earning})
        clock.forward(hours=1)
        buy(shop, "r3", 50_000)
        stands = tier(shop)
        assert stands["counted"] == {"points": 0, "spend": 50, "visits": 3, "units": 0}
        assert stands["next"]["missing"] == {"need": "all", "points": None, "spend": 50, "visits": None, "units": None}
        check_history(shop)


# --- terms that change ----------------------------------------------------------------------------------------------


def test_a_tier_is_inserted_between_two_of_members(yearly: Shop) -> None:
    """Who has bought enough is there from that instant on, with nothing to do; nobody else moves."""
    buy(yearly, "r1", 90_000)
    buy(yearly, "r2", 100_000, card="901")
    pearl = {"code": "pearl", "name": "Pearl", "qualification": {"spend": 80_000}}
    publish(yearly, YEARLY | {"tiers": {"levels": [SILVER, pearl, GOLD]}}, yearly.clock() + timedelta(hours=1))
    assert (code(yearly), code(yearly, "901")) == ("silver", "gold")
    yearly.clock.forward(hours=1)
    assert (code(yearly), code(yearly, "901")) == ("pearl", "gold")
    buy(yearly, "r3", 100)
    assert history(yearly) == [(None, "silver", "earned"), ("silver", "pearl", "terms")]


def test_what_terms_to_come_will_do_is_told(database_url: str, clock: TestClock) -> None:
    """By all that will count then, not by what counts now."""
    monthly = {"levels": [SILVER], "window": {"type": "rolling", "months": 1}}
    with open_shop(settings_for(database_url), clock, YEARLY | {"tiers": monthly}) as shop:
        until(shop, "2026-11-25")
        buy(shop, "r1", 30_000)
        until(shop, "2027-01-05")
        run_jobs(shop.database, shop.clock())
        buy(shop, "r2", 30_000)
        shop.clock.forward(minutes=1)
        wide = {"levels": [SILVER], "window": THREE_MONTHS}
        publish(shop, YEARLY | {"tiers": wide}, datetime.fromisoformat("2027-01-10T05:00:00+00:00"))
        told = tier(shop)
        assert (told["tier"], told["until"], told["projected"]) == (None, "2027-01-10T05:00:00+00:00", "silver")
        assert told == tier(shop, as_of=shop.clock().isoformat())
        until(shop, "2027-01-11")
        assert code(shop) == "silver"
        check_history(shop)


def test_terms_to_come_leave_the_time_before_them_open(yearly: Shop) -> None:
    """Pearl is published for later, then a lower gold for the time until then."""
    levels = {
        "pearl": {"code": "pearl", "name": "Pearl", "qualification": {"spend": 60_000}},
        "gold": {"code": "gold", "name": "Gold", "qualification": {"spend": 80_000}},
    }
    buy(yearly, "r1", 90_000)
    publish(yearly, YEARLY | {"tiers": {"levels": [SILVER, levels["pearl"]]}}, yearly.clock() + timedelta(hours=3))
    yearly.clock.forward(minutes=1)
    publish(yearly, YEARLY | {"tiers": {"levels": [SILVER, levels["gold"]]}}, yearly.clock() + timedelta(hours=1))
    for number, expected in enumerate(["silver", "gold", "gold", "pearl"]):
        assert code(yearly) == expected
        buy(yearly, f"s{number}", 100)
        yearly.clock.forward(hours=1)
    assert [(before, after) for before, after, _ in history(yearly)] == [
        (None, "silver"),
        ("silver", "gold"),
        ("gold", "pearl"),
    ]
    check_history(yearly)


def test_whose_tier_there_is_no_more_has_fallen_to_the_next_lower_one(yearly: Shop) -> None:
    """And that is what members are told, though the terms of now know nothing of where they come from."""
    buy(yearly, "r1", 100_000)
    publish(yearly, YEARLY | {"tiers": {"levels": [SILVER]}}, yearly.clock() + timedelta(hours=1))
    yearly.clock.forward(hours=1)
    buy(yearly, "r2", 100)
    assert history(yearly) == [(None, "gold", "earned"), ("gold", "silver", "terms")]
    assert [told["to"] for told in events(yearly, "member.tier_upgraded")] == ["gold"]
    assert [(told["from"], told["to"]) for told in events(yearly, "member.tier_downgraded")] == [("gold", "silver")]


def test_without_tiers_nothing_is_counted_and_nothing_asked(database_url: str, clock: TestClock) -> None:
    """What was bought before tiers were published does not count, nor what comes back of it."""
    with open_shop(settings_for(database_url), clock) as shop:
        assert buy(shop, "r1", 60_000)["tier"] is None
        stands = tier(shop)
        assert (stands["tier"], stands["window"], stands["next"]) == (None, None, None)
        clock.forward(hours=1)
        publish(shop, YEARLY)
        clock.forward(hours=1)
        assert shop.post(returned("b1", "r1", total=100)).json()["tier"] == effect(None, None)
        assert buy(shop, "r2", 50_000)["tier"] == effect(None, "silver")
        assert stored(shop, QualifyingEntry) == 1


# --- how it is done -------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_the_tier_and_writes_nothing(yearly: Shop) -> None:
    for _ in range(2):
        assert buy(yearly, "r1", 60_000, dry_run=True)["tier"] == effect(None, "silver")
    assert [stored(yearly, table) for table in (QualifyingEntry, MemberTier, TierChange)] == [0, 0, 0]
    buy(yearly, "r1", 60_000)
    assert buy(yearly, "r2", 60_000, dry_run=True)["tier"] == effect("silver", "gold")
    assert code(yearly) == "silver"


def test_as_many_statements_for_many_members_as_for_few(yearly: Shop) -> None:
    def statements(bodies: list[dict[str, Any]]) -> int:
        made: list[str] = []

        def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            made.append(statement)

        event.listen(yearly.database.engine, "before_cursor_execute", count)
        yearly.batch(bodies)
        event.remove(yearly.database.engine, "before_cursor_execute", count)
        return len(made)

    for first, many in (("a", 2), ("b", 40)):
        yearly.batch([purchase(f"{first}{n}", 60_000, member={"card": f"{first}{n}"}) for n in range(many)])
    few, lots = (
        statements(
            [purchase(f"again-{first}{n}", 60_000, member={"card": f"{first}{n}"}) for n in range(many)]
            + [returned(f"back-{first}{n}", f"{first}{n}") for n in range(many)]
        )
        for first, many in (("a", 2), ("b", 40))
    )
    assert few == lots


def test_many_purchases_of_one_member_at_once_count_each_once(
    database_url: str, clock: TestClock, crowded: dict[str, int]
) -> None:
    with open_shop(settings_for(database_url, **crowded), clock, ROLLING) as shop:
        buy(shop, "r0", 100)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: buy(shop, f"r{n}", 5_000), range(1, 17)))
        assert tier(shop)["counted"] == {"points": 801, "spend": 80_100, "visits": 17, "units": 0}
        risen = [answer["tier"] for answer in answers if answer["tier"]["before"] != answer["tier"]["after"]]
        assert risen == [effect(None, "silver")]
        assert history(shop) == [(None, "silver", "earned")]
        shop.prove()


def test_members_see_their_own_tier(yearly: Shop) -> None:
    buy(yearly, "r1", 60_000)
    token = yearly.http.post("/v1/oauth/token", json={"member": {"card": "900"}}).json()["access_token"]
    ada = yearly.client(token)
    told = ada.get("/v1/me/tier")
    assert told.json() == tier(yearly)
    tag = {"If-None-Match": told.headers["ETag"]}
    yearly.clock.forward(minutes=1)
    assert ada.get("/v1/me/tier", headers=tag).status_code == 304
    buy(yearly, "r2", 100)
    assert ada.get("/v1/me/tier", headers=tag).status_code == 200


def test_history_by_pages(rolling: Shop) -> None:
    for number in range(3):
        buy(rolling, f"r{number}", 60_000)
        rolling.post(returned(f"b{number}", f"r{number}"))
    path = f"/v1/members/{member_of(rolling)}/tier/history"
    found: list[UUID] = []
    cursor: dict[str, str] = {}
    while True:
        answer = rolling.get(path, limit=4, **cursor)
        found += [UUID(each["id"]) for each in answer["items"]]
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
    assert len(found) == 6
    assert found == sorted(found, reverse=True)
