"""Campaigns: points without a purchase, given by the worker; once an occasion, whoever runs how often."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DatabaseError

from app import campaigns, programs, schema
from app.campaigns.models import CampaignBudget, CampaignGrant
from app.db import Database
from app.worker import JOBS, Ended, run, run_jobs
from app.worker.service import LEASE
from tests.conftest import Engines, settings_for
from tests.gathered import locked
from tests.points import balance, earn, entries, events, ladder, publish
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned, voided
from tests.test_tokens import token_of

WELCOME: dict[str, Any] = {"code": "welcome", "name": "Welcome", "occasion": {"type": "sign_up"}, "points": 100}
BIRTHDAY: dict[str, Any] = {"code": "birthday", "name": "Birthday", "occasion": {"type": "birthday"}, "points": 50}
YEARS: dict[str, Any] = {"code": "years", "name": "Years", "occasion": {"type": "anniversary"}, "points": 20}
BACK: dict[str, Any] = {
    "code": "back",
    "name": "Come back",
    "occasion": {"type": "win_back", "after_days": 30, "again_after_days": 90},
    "points": 70,
}


def with_(*offered: dict[str, Any], **terms: Any) -> dict[str, Any]:
    return TERMS | {"campaigns": list(offered), "uploads": {"latest_days": None}} | terms


@contextmanager
def offering(url: str, clock: TestClock, *offered: dict[str, Any], **terms: Any) -> Iterator[Shop]:
    """A shop with campaigns; at its end the books are proven."""
    with open_shop(settings_for(url), clock, with_(*offered, **terms)) as shop:
        yield shop
        shop.prove()


def enrol(shop: Shop, card: str = "900", **profile: Any) -> UUID:
    body = {"identifiers": [{"kind": "card", "value": card}], "profile": profile}
    answer = shop.http.post("/v1/members", json=body, headers={"Idempotency-Key": f"enrol-{card}"})
    assert answer.status_code == 201, answer.text
    return UUID(answer.json()["id"])


def set_status(shop: Shop, member: UUID, status: str) -> None:
    revision = shop.http.get(f"/v1/members/{member}").headers["ETag"]
    answer = shop.http.patch(f"/v1/members/{member}", json={"status": status}, headers={"If-Match": revision})
    assert answer.status_code == 200, answer.text


def work(shop: Shop, **options: Any) -> Ended:
    """One run of the job, which looks at everything unless `since` says otherwise."""
    ended = run(shop.database, "give-bonuses", JOBS["give-bonuses"], shop.clock(), shop.clock, **options)
    assert ended is not None
    return ended


def given(shop: Shop, member: UUID | None = None) -> list[tuple[str, str, int]]:
    """Campaign, occasion and points of what was given, in that order."""
    rows = select(CampaignGrant.campaign, CampaignGrant.occasion, CampaignGrant.points)
    if member is not None:
        rows = rows.where(CampaignGrant.member_id == member)
    found = shop.database.read(lambda session: session.execute(rows).all())
    return sorted((campaign, occasion, points) for campaign, occasion, points in found)


def at(text_: str) -> datetime:
    return datetime.fromisoformat(text_).astimezone(UTC)


# --- occasions ------------------------------------------------------------------------------------------------------


def test_whoever_joins_is_welcomed_once(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, WELCOME) as shop:
        member = enrol(shop)
        joined = clock()
        clock.forward(seconds=30)
        assert run_jobs(shop.database, clock())["give-bonuses"] == 1
        assert run_jobs(shop.database, clock())["give-bonuses"] == 0
        assert work(shop).rows == 0, "though it looks at everything"
        assert given(shop, member) == [("welcome", "sign_up", 100)]
        (entry,) = entries(shop, member, "bonus")
        assert (entry.points, entry.qualifying, entry.lifetime) == (100, 0, 100)
        assert (entry.occurred_at, entry.recorded_at) == (joined, clock())
        assert balance(shop, member)["available"] == 100
        assert ladder(shop, member) == [("2027-12-01T05:00:00+00:00", 100)]
        (told,) = events(shop, "campaign.granted")
        assert {name: told[name] for name in ("campaign", "occasion", "points")} == {
            "campaign": "welcome",
            "occasion": "sign_up",
            "points": 100,
        }


def test_a_member_that_a_purchase_made_is_welcomed(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, WELCOME) as shop:
        member = earn(shop, "r1", 10)
        assert work(shop).rows == 1
        assert balance(shop, member)["available"] == 110


def test_a_birthday_is_given_as_its_day_begins(database_url: str, clock: TestClock) -> None:
    """In New York; and the year after again."""
    with offering(database_url, clock, BIRTHDAY) as shop:
        member = enrol(shop, born_on="1990-11-24")
        enrol(shop, "901")
        clock.now = at("2026-11-23T23:59:59-05:00")
        assert run_jobs(shop.database, clock())["give-bonuses"] == 0
        clock.forward(seconds=1)
        assert run_jobs(shop.database, clock())["give-bonuses"] == 1
        assert run_jobs(shop.database, clock())["give-bonuses"] == 0
        clock.now = at("2027-11-24T12:00:00-05:00")
        assert run_jobs(shop.database, clock())["give-bonuses"] == 1
        assert given(shop) == [("birthday", "2026", 50), ("birthday", "2027", 50)]
        assert [entry.occurred_at for entry in entries(shop, member, "bonus")] == [
            at("2026-11-24T00:00:00-05:00"),
            at("2027-11-24T00:00:00-05:00"),
        ]


def test_an_anniversary_is_that_of_joining(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, YEARS) as shop:
        enrol(shop)
        clock.now = at("2029-01-01T00:00:00-05:00")
        assert work(shop).rows == 2
        assert given(shop) == [("years", "2027", 20), ("years", "2028", 20)]


def test_whoever_stays_away_is_asked_back_once(database_url: str, clock: TestClock) -> None:
    """Until they buy again; and not sooner than 90 days after the last time."""
    with offering(database_url, clock, BACK) as shop:
        earn(shop, "r1", 10)
        enrol(shop, "901")  # never bought: there is nothing to come back to
        clock.now = at("2026-12-22T00:00:00-05:00")
        assert work(shop).rows == 1
        clock.forward(days=20)
        assert work(shop).rows == 0
        earn(shop, "r2", 10)
        clock.forward(days=35)
        assert work(shop).rows == 0, "away again, but it is too soon"
        clock.forward(days=30)
        earn(shop, "r3", 10)
        clock.forward(days=30)
        assert work(shop).rows == 1
        assert given(shop) == [("back", "2026-11-22", 70), ("back", "2027-03-17", 70)]


def test_a_purchase_that_was_voided_was_none(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, BACK) as shop:
        earn(shop, "r1", 10, "2026-11-20T12:00:00-05:00")
        earn(shop, "r2", 10, "2026-11-22T06:00:00-05:00")
        assert shop.post(voided(of="r2")).status_code == 201
        clock.now = at("2027-01-10T00:00:00-05:00")
        assert work(shop).rows == 1
        assert given(shop) == [("back", "2026-11-20", 70)]


def test_a_guests_purchase_counts_for_whoever_claimed_it(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, BACK) as shop:
        enrol(shop)
        guest = shop.post(purchase("g1", member=None)).json()
        answer = shop.http.post(f"/v1/transactions/{guest['id']}/claim", json={"member": {"card": "900"}})
        assert answer.status_code == 201
        clock.forward(days=60)
        assert work(shop).rows == 1


def test_only_the_audience_is_given_anything(database_url: str, clock: TestClock) -> None:
    who = {"attributes": {"occupation": ["student"]}, "segments": ["north", "south"]}
    with offering(database_url, clock, WELCOME | {"who": who}) as shop:
        student = enrol(shop, "900", attributes={"occupation": "student"}, segments=["south"])
        enrol(shop, "901", attributes={"occupation": "student"})
        enrol(shop, "902", segments=["south"])
        enrol(shop, "903")
        assert work(shop).rows == 1
        assert given(shop, student) == [("welcome", "sign_up", 100)]


# --- windows --------------------------------------------------------------------------------------------------------


def test_nothing_is_given_for_days_out_of_the_window(database_url: str, clock: TestClock) -> None:
    offered = BIRTHDAY | {"first_day": "2026-12-01", "last_day": "2026-12-31"}
    with offering(database_url, clock, offered) as shop:
        for card, born_on in (("1", "1990-11-30"), ("2", "1990-12-01"), ("3", "1990-12-31"), ("4", "1990-01-01")):
            enrol(shop, card, born_on=born_on)
        clock.now = at("2027-02-01T00:00:00-05:00")
        assert work(shop).rows == 2


def test_nothing_is_given_for_what_was_before_the_terms_or_is_after_them(database_url: str, clock: TestClock) -> None:
    """By the terms in force on the day, whenever the worker comes by."""
    with offering(database_url, clock) as shop:
        enrol(shop, "1", born_on="1990-11-25")
        enrol(shop, "2", born_on="1990-11-27")
        enrol(shop, "3", born_on="1990-11-29")
        clock.now = at("2026-11-26T09:00:00-05:00")
        publish(shop, with_(BIRTHDAY, WELCOME))
        late = enrol(shop, "4")
        clock.now = at("2026-11-28T09:00:00-05:00")
        publish(shop, with_(BIRTHDAY | {"points": 500}))
        enrol(shop, "5")
        clock.now = at("2026-12-05T09:00:00-05:00")
        assert work(shop).rows == 3
        assert given(shop) == [("birthday", "2026", 50), ("birthday", "2026", 500), ("welcome", "sign_up", 100)]
        assert given(shop, late) == [("welcome", "sign_up", 100)]


def test_a_worker_that_was_away_gives_what_was_due_meanwhile(database_url: str, clock: TestClock) -> None:
    """Each with its own day, its own month in the books, and the life it would have had."""
    with offering(database_url, clock, BIRTHDAY, YEARS) as shop:
        run_jobs(shop.database, clock())
        member = enrol(shop, born_on="1990-11-30")
        other = enrol(shop, "901", born_on="1990-12-02")
        clock.now = at("2026-12-05T09:00:00-05:00")
        assert run_jobs(shop.database, clock())["give-bonuses"] == 2
        assert ladder(shop, member) == [("2027-12-01T05:00:00+00:00", 50)]
        assert ladder(shop, other) == [("2028-01-01T05:00:00+00:00", 50)]
        postings = shop.get("/v1/accounting/journal", cause="provision")["items"]
        assert [(each["period"], each["occurred_at"]) for each in postings] == [
            ("2026-11", "2026-11-30T05:00:00+00:00"),
            ("2026-12", "2026-12-02T05:00:00+00:00"),
        ]


def test_what_has_expired_before_it_was_given_is_gone(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, BIRTHDAY | {"good_for_days": 3}) as shop:
        member = enrol(shop, born_on="1990-11-24")
        clock.now = at("2026-11-28T00:00:00-05:00")
        assert work(shop).rows == 1
        assert balance(shop, member)["available"] == 0
        (expired,) = entries(shop, member, "expiration")
        assert expired.occurred_at == at("2026-11-28T00:00:00-05:00")


def test_points_may_have_a_life_of_their_own(database_url: str, clock: TestClock) -> None:
    offered = WELCOME | {"good_for_days": 7}
    for_ever: dict[str, Any] = {"expiry": None}
    lapsing = {"expiry": {"mode": "inactivity", "months": 1, "round_up_to": "day"}}
    with offering(database_url, clock, offered, **for_ever) as shop:
        member = enrol(shop)
        work(shop)
        assert ladder(shop, member) == [("2026-11-30T05:00:00+00:00", 100)]
        clock.forward(hours=1)
        publish(shop, with_(offered, WELCOME | {"code": "more"}, **lapsing))
        other = enrol(shop, "901")
        work(shop)
        assert ladder(shop, other) == [("2026-11-30T05:00:00+00:00", 100), ("2026-12-23T05:00:00+00:00", 100)]


# --- who gets nothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "rows"), [("active", 1), ("earn_only", 1), ("spend_only", 0), ("suspended", 0), ("closed", 0)]
)
def test_who_may_not_earn_is_given_nothing(database_url: str, clock: TestClock, status: str, rows: int) -> None:
    with offering(database_url, clock, WELCOME) as shop:
        member = enrol(shop)
        if status != "active":
            set_status(shop, member, status)
        assert work(shop).rows == rows


def test_a_member_who_is_suspended_as_the_worker_looks_is_given_nothing(
    database_url: str, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the claim of the account."""
    with offering(database_url, clock, WELCOME) as shop:
        if shop.database.one_writer:
            pytest.skip("nobody else writes meanwhile")
        member = enrol(shop)
        claim = programs.claim

        def slow(*given: Any) -> Any:
            set_status(shop, member, "suspended")
            return claim(*given)

        monkeypatch.setattr(programs, "claim", slow)
        assert work(shop).rows == 0
        assert given(shop) == []


# --- limits ---------------------------------------------------------------------------------------------------------


def test_a_budget_is_never_exceeded(database_url: str, clock: TestClock) -> None:
    """What is left goes to whoever was first."""
    with offering(database_url, clock, WELCOME | {"budget": 250}) as shop:
        members = []
        for card in ("1", "2", "3"):
            members.append(enrol(shop, card))
            clock.forward(seconds=1)
        assert work(shop).rows == 2
        assert [len(given(shop, member)) for member in members] == [1, 1, 0]
        publish(shop, with_(WELCOME | {"budget": 300}))
        clock.forward(seconds=1)
        enrol(shop, "4")
        enrol(shop, "5")
        assert work(shop).rows == 1, "of one campaign, whatever version of the terms"
        rows = select(CampaignBudget.points, CampaignBudget.grants, CampaignBudget.budget)
        assert [tuple(row) for row in shop.database.read(lambda s: s.execute(rows).all())] == [(300, 3, 300)]


def test_most_per_member(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, YEARS | {"most_per_member": 2}) as shop:
        enrol(shop)
        clock.now = at("2031-01-01T00:00:00-05:00")
        assert work(shop).rows == 2
        assert work(shop).rows == 0


def test_of_a_group_the_first_stands(database_url: str, clock: TestClock) -> None:
    """On a member's day; on other days each does."""
    offered = (BIRTHDAY | {"group": "gifts"}, YEARS | {"group": "gifts", "priority": 10})
    with offering(database_url, clock, *offered) as shop:
        both = enrol(shop, "1", born_on="1990-11-22")
        apart = enrol(shop, "2", born_on="1990-11-23")
        clock.now = at("2027-11-30T00:00:00-05:00")
        assert work(shop).rows == 4
        assert given(shop, both) == [("years", "2027", 20)]
        assert given(shop, apart) == [("birthday", "2026", 50), ("birthday", "2027", 50), ("years", "2027", 20)]
        assert work(shop).rows == 0, "also when it looks again"


# --- the books ------------------------------------------------------------------------------------------------------


def test_points_without_a_purchase_are_a_provision_and_defer_no_revenue(database_url: str, clock: TestClock) -> None:
    """At cost: 100 points at 0.01, four of five expected to be used."""
    with offering(database_url, clock, WELCOME) as shop:
        member = enrol(shop)
        work(shop)
        (posting,) = shop.get("/v1/accounting/journal")["items"]
        assert (posting["debit"], posting["credit"], posting["amount"], posting["cause"]) == (
            "6100",
            "2300",
            80,
            "provision",
        )
        (grant,) = shop.database.read(lambda s: s.scalars(select(CampaignGrant.id)).all())
        assert posting["document_id"] == str(grant)
        reward = {
            "code": "mug",
            "name": "Mug",
            "points": 80,
            "currency": "USD",
            "supplier": {"type": "own", "cost": 60},
        }
        answer = shop.http.post("/v1/rewards", json=reward)
        assert answer.status_code == 201, answer.text
        body = {"member": {"id": str(member)}, "reward": {"code": "mug"}, "immediate": True}
        spent = shop.http.post("/v1/redemptions", json=body, headers={"Idempotency-Key": "k"})
        assert spent.status_code == 201, spent.text
        run_jobs(shop.database, clock())
        balances = {row["code"]: row["balance"] for row in shop.get("/v1/accounting/trial-balance")["items"]}
        assert balances.get("2300", 0) == 0, "all that was expected to be used is"
        assert balances.get("2100", 0) == 0


def test_a_bonus_pays_debt_first(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, BIRTHDAY) as shop:
        enrol(shop, born_on="1990-11-23")
        member = earn(shop, "r1", 30)
        hold = {"member": {"id": str(member)}, "points": 30}
        held = shop.http.post("/v1/holds", json=hold, headers={"Idempotency-Key": "h"}).json()["id"]
        shop.http.post(f"/v1/holds/{held}/capture", json={}, headers={"Idempotency-Key": "c"})
        assert shop.post(returned(occurred_at=clock().isoformat())).json()["balance"]["debt"] == 30
        clock.forward(days=1)
        assert work(shop).rows == 1
        after = balance(shop, member)
        assert (after["available"], after["debt"]) == (20, 0)


# --- what there is to read ------------------------------------------------------------------------------------------


def test_a_member_s_bonuses_say_what_for(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, YEARS) as shop:
        joined, member = clock(), enrol(shop)
        clock.now = at("2028-01-01T00:00:00-05:00")
        publish(shop, with_(YEARS | {"name": "Another year", "points": 30}))
        clock.now = at("2030-01-01T00:00:00-05:00")
        work(shop)
        first = shop.http.get(f"/v1/members/{member}/bonuses", params={"limit": 2})
        assert [(row["name"], row["occasion"], row["points"]) for row in first.json()["items"]] == [
            ("Years", "2027", 20),
            ("Another year", "2028", 30),
        ]
        assert 'rel="next"' in first.headers["Link"]
        rest = shop.get(f"/v1/members/{member}/bonuses", cursor=first.json()["next"])
        (last,) = rest["items"]
        assert rest["next"] is None
        (grant,) = shop.database.read(
            lambda s: s.scalars(select(CampaignGrant.id).where(CampaignGrant.occasion == "2029")).all()
        )
        assert last == {
            "id": str(grant),
            "campaign": "years",
            "name": "Another year",
            "type": "anniversary",
            "occasion": "2029",
            "day": "2029-11-22",
            "points": 30,
            "terms_version": 2,
            "occurred_at": "2029-11-22T05:00:00+00:00",
            "recorded_at": clock().isoformat(),
        }
        entry = entries(shop, member, "bonus")[-1]
        assert (entry.document_id, entry.points) == (grant, 30)
        assert joined < entry.occurred_at
        ada = shop.client(token_of(shop))
        own = ada.get("/v1/me/bonuses", params={"limit": 2})
        assert own.json() == first.json()
        assert ada.get(own.links["next"]["url"]).json() == rest


def test_a_campaign_s_budget_can_be_watched(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, WELCOME | {"budget": 250}, BACK | {"last_day": "2026-11-30"}) as shop:
        enrol(shop)
        work(shop)
        clock.forward(seconds=1)
        publish(shop, with_(WELCOME | {"budget": 90 + 10}))
        back, welcome = shop.get("/v1/campaigns")["items"]
        assert welcome == {
            "code": "welcome",
            "name": "Welcome",
            "type": "sign_up",
            "in_force": True,
            "first_day": None,
            "last_day": None,
            "points": 100,
            "budget": 100,
            "given": 100,
            "grants": 1,
            "left": 0,
        }
        assert (back["in_force"], back["last_day"], back["given"], back["left"]) == (False, "2026-11-30", 0, None)


# --- workers --------------------------------------------------------------------------------------------------------


@contextmanager
def second_service(shop: Shop) -> Iterator[Database]:
    url = shop.database.engine.url.render_as_string(hide_password=False)
    database = Database(settings_for(url, lock_timeout_ms=30_000))
    yield database
    database.close()


def crowd(shop: Shop, members: int) -> None:
    bodies = [purchase(f"r{card}", 100, member={"card": str(card)}) for card in range(members)]
    assert {result["status"] for result in shop.batch(bodies)} == {201}


@pytest.mark.parametrize("budget", [None, 5_000])
def test_two_workers_give_each_once_and_keep_the_budget(
    database_url: str, clock: TestClock, budget: int | None
) -> None:
    """Even if both had the lease: here each runs under a name of its own."""
    with offering(database_url, clock, WELCOME | {"budget": budget}) as shop:
        crowd(shop, 120)
        with second_service(shop) as other, ThreadPoolExecutor(2) as pool:
            both = [
                pool.submit(run, database, name, JOBS["give-bonuses"], clock(), clock)
                for name, database in (("one", shop.database), ("two", other))
            ]
            ended = [future.result(60) for future in both]
        work(shop)  # what met the other's lock
        assert all(each and each.status == "done" for each in ended)
        assert len(given(shop)) == (120 if budget is None else 50)
        rows = select(CampaignBudget.points)
        assert shop.database.read(lambda s: s.scalars(rows).all()) == [12_000 if budget is None else budget]


def test_one_killed_half_way_is_gone_on_with(
    database_url: str, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing catches it, so nothing ends the run, as with SIGKILL."""

    with offering(database_url, clock, WELCOME) as shop:
        crowd(shop, 130)
        give, slices = campaigns.give, [0]

        def killed(*arguments: Any) -> int:
            slices[0] += 1
            rows = give(*arguments)
            if slices[0] == 2:
                raise Killed
            return rows

        monkeypatch.setattr(campaigns, "give", killed)
        with pytest.raises(Killed):
            work(shop)
        monkeypatch.undo()
        assert len(given(shop)) == 50
        clock.forward(seconds=LEASE.total_seconds())
        assert run_jobs(shop.database, clock())["give-bonuses"] == 80
        assert len(given(shop)) == 130


def test_one_that_cannot_be_done_leaves_the_others_alone(
    database_url: str, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with offering(database_url, clock, WELCOME) as shop:
        crowd(shop, 60)
        bad = enrol(shop, "bad")
        give = campaigns.give

        def failing(session: Any, program_id: UUID, terms: Any, round_: Any, found: Sequence[UUID], *rest: Any) -> int:
            if bad in found:
                raise RuntimeError("broken")
            return give(session, program_id, terms, round_, found, *rest)

        monkeypatch.setattr(campaigns, "give", failing)
        ended = work(shop)
        assert (ended.status, ended.rows, ended.failures) == ("done", 60, 1)
        monkeypatch.undo()
        assert run_jobs(shop.database, clock())["give-bonuses"] == 1


def test_an_account_that_somebody_keeps_locked_leaves_the_others_alone(engines: Engines) -> None:
    with offering(engines.fresh("postgresql"), TestClock(), WELCOME) as shop:
        crowd(shop, 60)
        first = shop.get("/v1/members/lookup", card="0")["id"]
        with locked(shop, [first]):
            ended = work(shop)
        assert (ended.status, ended.rows, ended.failures) == ("done", 59, 1)
        assert run_jobs(shop.database, shop.clock())["give-bonuses"] == 1


def test_many_members_take_few_statements(database_url: str, clock: TestClock) -> None:
    offered = (WELCOME, BIRTHDAY, YEARS, BACK | {"budget": 10**6})
    with offering(database_url, clock, *offered) as shop:
        crowd(shop, 500)
        clock.forward(days=400)
        counts = [0]

        def count(*_: Any) -> None:
            counts[-1] += 1

        def begin(*_: Any) -> None:
            counts.append(0)

        event.listen(shop.database.engine, "before_cursor_execute", count)
        event.listen(shop.database.engine, "begin", begin)
        ended = work(shop)
        event.remove(shop.database.engine, "before_cursor_execute", count)
        event.remove(shop.database.engine, "begin", begin)
        assert (ended.rows, ended.failures) == (1500, 0)
        assert max(counts) <= 30, "statements of a transaction"


def test_who_joined_while_the_worker_ran_is_found_by_the_next_run(database_url: str, clock: TestClock) -> None:
    """A member's `enrolled_at` is when the request began; others see them when it has ended."""
    with offering(database_url, clock, WELCOME) as shop:
        began = clock()
        clock.forward(seconds=5)
        assert run_jobs(shop.database, clock())["give-bonuses"] == 0
        clock.now = began
        enrol(shop)
        clock.forward(seconds=65)
        assert run_jobs(shop.database, clock())["give-bonuses"] == 1


def test_days_are_walked_through_once(database_url: str, clock: TestClock) -> None:
    """Who has a birthday is looked for when a day has begun, not every minute."""
    with offering(database_url, clock, BIRTHDAY) as shop:
        timeline = shop.database.read(lambda s: programs.timeline(s, shop.program_id))
        noon = clock()
        assert campaigns.rounds(timeline, noon, noon + timedelta(hours=11)) == []
        assert len(campaigns.rounds(timeline, noon, noon + timedelta(hours=18))) == 1
        assert len(campaigns.rounds(timeline, None, noon)) == 1


# --- the schema -----------------------------------------------------------------------------------------------------


def test_the_database_refuses_what_is_wrong(database_url: str, clock: TestClock) -> None:
    with offering(database_url, clock, WELCOME | {"budget": 100}) as shop:
        enrol(shop)
        work(shop)
        columns = ", ".join(column.name for column in CampaignGrant.__table__.c if column.name not in ("id", "points"))
        again = "INSERT INTO campaign_grant (id, points, {0}) SELECT program_id, {1}, {2} FROM campaign_grant"
        wrong = {
            again.format(columns, 1, columns): r"(?i)unique|has that row",
            again.format(columns, 0, columns.replace("occasion", "'other'")): r"points_positive|CHECK",
            again.format(columns, 1, columns.replace("occasion", "''")): r"names_not_empty|CHECK",
            "UPDATE campaign_grant SET points = 1": "append-only",
            "DELETE FROM campaign_grant": "append-only",
            "UPDATE campaign_budget SET points = 101": r"points_within_budget|CHECK",
            "UPDATE campaign_budget SET points = -1": r"counts_not_negative|CHECK",
            "UPDATE campaign_budget SET grants = -1": r"counts_not_negative|CHECK",
        }
        for statement, words in wrong.items():
            with shop.database.engine.connect() as connection:
                with pytest.raises(DatabaseError, match=words):
                    connection.execute(text(statement))
                connection.rollback()


def test_a_bonus_stops_the_way_back(database_url: str, clock: TestClock) -> None:
    """The older schema has no such entry."""
    with offering(database_url, clock, WELCOME) as shop:
        enrol(shop)
        work(shop)
        with pytest.raises(DatabaseError, match=r"(?i)check"):
            schema.migrate(shop.database, "base")
        schema.migrate(shop.database)  # what went back before it was stopped
