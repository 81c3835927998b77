"""Balances and entries as of one instant, as known at another: from the entries alone, and the same for ever."""

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from app import ledger
from app.db import Database
from app.ids import new_id
from app.ledger import Account, Act
from app.programs import zone_at
from tests.conftest import Engines, settings_for
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned, voided
from tests.test_access import check_problem

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def balance(shop: Shop, member: str, **query: str) -> dict[str, int]:
    figures: dict[str, int] = shop.get(f"/v1/members/{member}/balance", **query)["balance"]
    return figures


def available(shop: Shop, member: str, **query: str) -> int:
    return balance(shop, member, **query)["available"]


# --- what is answered -----------------------------------------------------------------------------------------------


def test_a_late_upload_was_not_known_then(shop: Shop) -> None:
    """Bought on the 20th, uploaded on the 22nd: it counts as of the 21st, but nobody knew on the 21st."""
    member = shop.post(purchase("r1", occurred_at="2026-11-22T06:00:00-05:00")).json()["member"]["id"]
    shop.clock.forward(days=1)
    shop.post(purchase("r2", total=500, occurred_at="2026-11-20T06:00:00-05:00"))
    assert available(shop, member) == 15
    assert available(shop, member, as_of="2026-11-19T00:00:00Z") == 0
    assert available(shop, member, as_of="2026-11-21T00:00:00Z") == 5
    assert available(shop, member, as_of="2026-11-22T12:00:00Z") == 15
    assert available(shop, member, known_at="2026-11-22T12:00:00Z") == 10
    assert available(shop, member, as_of="2026-11-21T00:00:00Z", known_at="2026-11-22T12:00:00Z") == 0
    answer = shop.get(f"/v1/members/{member}/balance", as_of="2026-11-21T01:00:00+01:00")
    assert (answer["at"], answer["lifetime"]) == ("2026-11-21T00:00:00+00:00", 5)


def test_entries_as_of_and_as_known(shop: Shop) -> None:
    member = shop.post(purchase("r1")).json()["member"]["id"]
    shop.clock.forward(days=1)
    shop.post(purchase("r2", occurred_at="2026-11-20T06:00:00-05:00"))
    shop.post(purchase("r3", occurred_at="2026-11-23T06:00:00-05:00"))

    def numbers(**query: str) -> list[int]:
        return [entry["number"] for entry in shop.get(f"/v1/members/{member}/entries", **query)["items"]]

    assert numbers() == [3, 2, 1]
    assert numbers(as_of="2026-11-21T00:00:00Z") == [2]
    assert numbers(as_of="2026-11-22T11:00:00Z") == [2, 1], "the instant itself counts"
    assert numbers(known_at="2026-11-22T12:00:00Z") == [1]
    page = shop.http.get(f"/v1/members/{member}/entries", params={"as_of": "2026-11-23T00:00:00Z", "limit": 1})
    assert [entry["number"] for entry in page.json()["items"]] == [2]
    page = shop.http.get(page.links["next"]["url"])
    assert [entry["number"] for entry in page.json()["items"]] == [1], "the next page is of the same past"


def test_what_was_due_had_happened(shop: Shop) -> None:
    """Points that had expired by then are gone, though nobody had written it down, and come back for no later job."""
    member = shop.post(purchase()).json()["member"]["id"]
    shop.clock.now = at("2027-12-05T12:00:00Z")
    before, after = "2027-12-01T04:59:59Z", "2027-12-01T05:00:00Z"
    assert (available(shop, member, as_of=before), available(shop, member, as_of=after)) == (10, 0)
    shop.clock.forward(hours=1)
    shop.post(purchase("r2", total=300, occurred_at="2027-12-05T12:00:00Z"))
    assert (available(shop, member, as_of=before), available(shop, member, as_of=after)) == (10, 0)
    assert available(shop, member, known_at="2027-12-05T12:00:00Z") == 0
    assert available(shop, member) == 3


def test_a_till_whose_clock_is_ahead_counts_from_when_it_was_heard(shop: Shop) -> None:
    """Its points are pending until the instant it says, and the account as of now is the account."""
    member = shop.post(purchase(occurred_at="2026-11-22T07:05:00-05:00")).json()["member"]["id"]
    assert balance(shop, member, as_of="2026-11-22T12:00:00Z") == balance(shop, member)
    assert balance(shop, member)["pending"] == 10
    shop.clock.forward(minutes=5)
    assert available(shop, member, as_of="2026-11-22T12:05:00Z") == available(shop, member) == 10


def test_the_past_of_a_member_on_their_phone(shop: Shop) -> None:
    shop.post(purchase())
    shop.clock.forward(days=1)
    token = shop.client("partner").post("/v1/oauth/token", json={"member": {"card": "900"}}).json()["access_token"]
    ada = shop.client(token)
    past = ada.get("/v1/me/balance", params={"as_of": "2026-11-22T10:00:00Z"}).json()
    assert (past["balance"]["available"], ada.get("/v1/me/balance").json()["balance"]["available"]) == (0, 10)


@pytest.mark.parametrize("name", ["as_of", "known_at"])
@pytest.mark.parametrize("path", ["balance", "entries"])
def test_the_future_is_not_known(shop: Shop, path: str, name: str) -> None:
    member = shop.post(purchase()).json()["member"]["id"]
    response = shop.http.get(f"/v1/members/{member}/{path}", params={name: "2026-11-22T12:00:00.000001Z"})
    check_problem(response, 422, "invalid_request")
    assert [(e["pointer"], e["code"]) for e in response.json()["errors"]] == [(name, "in_future")]
    for wrong in ("yesterday", "2026-11-22", "2026-11-22T12:00:00", "0001-01-01T00:00:00Z"):
        check_problem(shop.http.get(f"/v1/members/{member}/{path}", params={name: wrong}), 422, "invalid_request")


def test_points_spent_before_they_were_earned_are_debt_as_of_then(engines: Engines, engine: str) -> None:
    """An offline till takes points on the 23rd and uploads on the 27th; a purchase of the 25th had paid for them."""
    value = {"amount": 1, "points": 1}
    terms = TERMS | {"points_tender": {"value": value}}
    with open_shop(settings_for(engines.fresh(engine)), TestClock(), terms) as shop:
        shop.clock.now = at("2026-11-25T12:00:00Z")
        member = shop.post(purchase("r1", occurred_at="2026-11-25T11:00:00Z")).json()["member"]["id"]
        shop.clock.now = at("2026-11-27T12:00:00Z")
        tender = [{"type": "points", "amount": 4}]
        paid = shop.post(purchase("r2", total=4, tenders=tender, occurred_at="2026-11-23T11:00:00Z"))
        assert paid.status_code == 201, paid.text
        then = {"available": 0, "held": 0, "pending": 0, "debt": 4}
        assert balance(shop, member, as_of="2026-11-24T00:00:00Z") == then
        assert balance(shop, member, as_of="2026-11-25T12:00:00Z") == then | {"available": 6, "debt": 0}
        assert balance(shop, member) == then | {"available": 6, "debt": 0}


@pytest.mark.parametrize("left", [20, 0], ids=["some are left", "used up"])
def test_debt_paid_before_it_was_owed_was_not_paid_yet(shop: Shop, left: int) -> None:
    """Debt of the 22nd is paid by a purchase of the 20th that arrives on the 23rd: on the 21st all of it was there."""
    member = shop.post(purchase("r1")).json()["member"]["id"]
    act_on(shop, member, lambda account, act: ledger.spend(account, 10, act))
    shop.post(returned("b1", "r1"))
    assert balance(shop, member)["debt"] == 10
    shop.clock.forward(days=1)
    shop.post(purchase("r2", total=1000 + 100 * left, occurred_at="2026-11-20T12:00:00Z"))
    assert balance(shop, member, as_of="2026-11-21T00:00:00Z") == {
        "available": 10 + left,
        "held": 0,
        "pending": 0,
        "debt": 0,
    }
    assert balance(shop, member) == {"available": left, "held": 0, "pending": 0, "debt": 0}


# --- any history ----------------------------------------------------------------------------------------------------

VALUE = {"amount": 1, "points": 1}
LIVES: dict[str, dict[str, Any]] = {
    "dated": {"expiry": {"days": 20, "round_up_to": "day"}, "pending": None},
    "pending days": {"expiry": {"days": 12, "round_up_to": "day"}, "pending": {"mode": "days", "days": 4}},
    "pending event": {
        "expiry": {"days": 15, "round_up_to": "day"},
        "pending": {"mode": "event", "event": "shipped", "cancel_after_days": 9},
    },
    "inactivity": {"expiry": {"mode": "inactivity", "days": 6, "round_up_to": "day"}, "pending": None},
}
"""Terms under which points come and go quickly."""


def act_on(shop: Shop, member: str, verb: Callable[[Account, Act], Account], **facts: Any) -> None:
    """Changes a member's account by a verb of the ledger, now, unless it refuses."""
    now, id_ = shop.clock(), UUID(member)

    def work(session: Session) -> None:
        zone = zone_at(session, shop.program_id, now)
        account = ledger.claim(session, [id_], now, zone, [id_])[id_]
        act = Act(shop.program_id, facts.get("document_id", new_id()), facts.get("occurred_at", now), now, zone)
        with suppress(ledger.InsufficientPoints, ledger.HoldEnded):
            account = verb(account, act)
        ledger.write(session, [account], now)

    shop.database.write(work)


class History:
    """Random acts on two members, always the same on both; only the second's account is settled by jobs."""

    def __init__(self, shop: Shop, seed: int, cards: tuple[str, str] = ("900", "901")):
        self.shop, self.random, self.cards = shop, random.Random(seed), cards
        self.members = [self.buy(card, "first", 5000, START)["member"]["id"] for card in cards]
        self.holds: list[dict[str, UUID]] = []
        self.bought: list[str] = ["first"]
        self.returns: list[str] = []

    def buy(self, card: str, name: str, total: int, occurred_at: datetime, points: int = 0) -> Any:
        tenders = [{"type": "points", "amount": points}, {"type": "cash", "amount": total - points}]
        body = purchase(
            f"{card}-{name}",
            total=total,
            member={"card": card},
            tenders=tenders if points else tenders[1:],
            occurred_at=occurred_at.isoformat(),
        )
        return self.shop.post(body).json()

    def step(self, number: int) -> None:
        """Something happens to both, some time after the last thing."""
        chance, shop = self.random, self.shop
        shop.clock.forward(hours=chance.choice([1, 7, 30, 90]), seconds=chance.randint(1, 59))
        kind = chance.choice(["buy", "buy", "late", "tender", "return", "void", "spend", "hold", "end", "end", "move"])
        now, points = shop.clock(), chance.randint(1, 40)
        back = timedelta(hours=chance.choice([0, 1, 50, 200, 400]))
        name, chosen = f"n{number}", chance.random()
        if chance.random() < 0.3:
            act_on(shop, self.members[1], lambda account, _act: account)  # a job
        if kind == "hold":
            self.holds.append({card: new_id() for card in self.cards})
        for card, member in zip(self.cards, self.members, strict=True):
            if kind in ("buy", "late", "tender"):
                tendered = points if kind == "tender" else 0
                self.buy(card, name, 100 * points, now if kind == "buy" else now - back, tendered)
            elif kind in ("return", "void"):
                self.take_back(card, name, kind, chosen, points, max(now - back, START))
            else:
                self.move(card, member, kind, chosen, points)
        if kind in ("buy", "late", "tender"):
            self.bought.append(name)
        if kind == "return":
            self.returns.append(name)

    def take_back(self, card: str, name: str, kind: str, chosen: float, points: int, when: datetime) -> None:
        """A return of a purchase, or the void of a return."""
        if kind == "return":
            of = self.bought[int(chosen * len(self.bought))]
            refund = {"total": 50 * points} if chosen < 0.5 else {}
            self.shop.post(returned(f"{card}-{name}", f"{card}-{of}", occurred_at=when.isoformat(), **refund))
        elif self.returns:
            of = self.returns[int(chosen * len(self.returns))]
            void = voided(f"{card}-{name}", f"{card}-{of}", "return")
            self.shop.post(void | {"occurred_at": self.shop.clock().isoformat()})

    def move(self, card: str, member: str, kind: str, chosen: float, points: int) -> None:
        """What no till does: a reward, a hold and its end, a longer life."""
        until = self.shop.clock() + timedelta(days=3) if chosen < 0.5 else None

        def reserve(account: Account, act: Act) -> Account:
            return ledger.hold(account, self.holds[-1][card], points, until, act)

        match kind:
            case "spend":
                act_on(self.shop, member, lambda account, act: ledger.spend(account, points, act))
            case "hold":
                act_on(self.shop, member, reserve)
            case "end" if self.holds:
                self.end(member, self.holds[int(chosen * len(self.holds))][card], chosen)
            case "move":
                act_on(self.shop, member, _extended)

    def end(self, member: str, hold_id: UUID, chosen: float) -> None:
        def verb(account: Account, act: Act) -> Account:
            if hold_id in account.holds and chosen < 0.6:
                return ledger.capture(account, hold_id, 1 + account.holds[hold_id].points // 2, act)
            return ledger.release(account, hold_id, act)

        act_on(self.shop, member, verb, document_id=hold_id)


def _extended(account: Account, act: Act) -> Account:
    free = sorted(lot.id for lot in account.lots.values() if lot.free and not lot.pending)
    return ledger.extend(account, free[0], act.occurred_at + timedelta(days=9), act) if free else account


def figures(account: Account) -> dict[str, Any]:
    """All that an account says, but for ids and what is not written yet."""
    names = ("available", "held", "pending", "debt", "qualifying", "lifetime", "last_entry", "lapses_at")
    return {name: getattr(account, name) for name in names} | {
        "expiring": ledger.expiry_ladder(account),
        "next": account.expiring_next,
        "holds": sorted(hold.points for hold in account.holds.values()),
    }


def asked(database: Database, shop: Shop, member: str, as_of: datetime, known_at: datetime) -> Account:
    def read(session: Session) -> Account:
        zone = zone_at(session, shop.program_id, known_at)
        return ledger.as_of(session, [UUID(member)], ledger.Past(as_of, known_at), zone)[UUID(member)]

    return database.read(read)


def looked(shop: Shop, member: str) -> Account:
    now, id_ = shop.clock(), UUID(member)
    return shop.database.read(
        lambda session: ledger.look(session, [id_], now, zone_at(session, shop.program_id, now), [id_])[id_]
    )


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("seed", range(4))
def test_any_history_is_told_the_same_for_ever(engines: Engines, engine: str, life: str, seed: int) -> None:
    """As of now, known now: the account. Asked again later: the same, whoever wrote down what when."""
    terms = TERMS | LIVES[life] | {"points_tender": {"value": VALUE}}
    with open_shop(settings_for(engines.fresh(engine)), TestClock(), terms) as shop:
        history = History(shop, seed)
        told: dict[tuple[datetime, datetime], dict[str, Any]] = {}
        for number in range(30):
            history.step(number)
            shop.clock.forward(seconds=1)
            now = shop.clock()
            for member in history.members:
                account, found = looked(shop, member), asked(shop.database, shop, member, now, now)
                assert figures(found) == figures(account), f"step {number}"
                there = {id_: lot for id_, lot in account.lots.items() if lot.remaining}
                assert {id_: lot for id_, lot in found.lots.items() if lot.remaining} == there
                assert found.holds == account.holds
            for as_of in (now, now - timedelta(hours=history.random.randint(1, 900))):
                told[as_of, now] = figures(asked(shop.database, shop, history.members[0], as_of, now))
            shop.clock.forward(seconds=1)
        shop.clock.forward(days=60)
        act_on(shop, history.members[0], lambda account, _act: account)
        for (as_of, known_at), first in told.items():
            for member in history.members:
                again = asked(shop.database, shop, member, as_of, known_at)
                written = {} if as_of == known_at else {"last_entry": again.last_entry}
                assert figures(again) == first | written
                assert min(again.available, again.held, again.pending, again.debt) >= 0
                ladder = ledger.expiry_ladder(again)
                steps = sum(step.points for step in ladder.steps) + ladder.stay
                assert steps == again.available + again.held + again.pending
