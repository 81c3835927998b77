"""A dry run tells the entries it would make, lot by lot; the same request then makes exactly those."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import Base
from app.ledger.models import Hold, HoldLot, Lot, LotUse, PointAccount, PointEntry
from tests import points
from tests.conftest import Engines, settings_for
from tests.shop import TERMS, Shop, TestClock, make_key, open_shop, purchase, returned, voided
from tests.test_adjustments import staff
from tests.test_holds import earn, held, keyed
from tests.test_rewards import added, ordered
from tests.test_transfers import household

ALL: dict[str, Any] = TERMS | {
    "uploads": {"latest_days": None},
    "points_tender": {"value": {"amount": 1, "points": 1}},
    "transfers": {},
    "campaigns": [
        {"code": "review", "name": "Review", "occasion": {"type": "event", "event": "review_written"}, "points": 30}
    ],
    "pools": {"most_members": 4},
    "adjustments": {"limit": 1000},
    "holds": {"longest_minutes": 50_000},
}
"""Whatever can be done with points, and purchases of any age."""
CLUB = ALL | {
    "clubs": [
        {"code": "club", "name": "A club", "joining": {"type": "fee", "fee": 1000, "months": 12, "welcome_points": 80}}
    ]
}
EVENT = ALL | {"pending": {"mode": "event", "event": "shipped", "cancel_after_days": 300}}
LAPSING = ALL | {"expiry": {"mode": "inactivity", "days": 60, "round_up_to": "day"}}

FIGURES = ("kind", "points", "available", "held", "pending", "debt", "balance_after")
Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: what its path names, its body, and who asks, if not the shop's own member of staff."""

    body: dict[str, Any] | None
    names: dict[str, str] = field(default_factory=dict)
    caller: TestClient | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A request, made after `arrange`, and the kinds of entries it makes."""

    story: str
    route: str
    kinds: list[str]
    arrange: Callable[[Shop], Asked]
    terms: dict[str, Any] = field(default_factory=lambda: ALL)

    def ask(self, shop: Shop, asked: Asked, **query: Any) -> Any:
        caller = asked.caller or shop.http
        return caller.post(self.route.format(**asked.names), json=asked.body, headers=keyed(), params=query)


# --- what is asked for ----------------------------------------------------------------------------------------------


def tendered(external_id: str, points: int = 50) -> dict[str, Any]:
    """A purchase of 10.00 of which points pay a part."""
    tenders = [{"type": "points", "amount": points}, {"type": "cash", "amount": 1000 - points}]
    return purchase(external_id, 1000, tenders=tenders)


def posted(body: dict[str, Any], *before: dict[str, Any]) -> Callable[[Shop], Asked]:
    """Posts `before`, then asks to post `body`."""

    def arrange(shop: Shop) -> Asked:
        for each in before:
            assert shop.post(each).status_code in (201, 202)
        return Asked(body)

    return arrange


def owing(shop: Shop, card: str) -> str:
    """A member who has spent all points, and owes 50 for goods that came back. Answers the id."""
    member_id = earn(shop, 50, card, "spent")
    all_of_it = held(shop, 57, member={"card": card})
    assert shop.http.post(f"/v1/holds/{all_of_it['id']}/capture", headers=keyed()).status_code == 200
    assert shop.post(returned(of="spent")).json()["returned"]["debt"] == 50
    return member_id


def in_debt(shop: Shop) -> Asked:
    owing(shop, "900")
    return Asked(purchase("p", 8000))


def batch(shop: Shop) -> Asked:
    """Two members; what is known, refused and new; and a return, and what came in another batch."""
    shop.post(purchase("known", 3000))
    shop.post(purchase("bought", 4000, member={"card": "901"}))
    bodies = [
        purchase("a"),
        purchase("known", 3000),
        purchase("refused", currency="EUR"),
        purchase("b", 2000, member={"card": "901"}),
        tendered("c", 40),
        returned("d", "bought", total=1500),
        purchase("e", member={"card": "of somebody new"}),
        purchase("f", member={"card": "of somebody new"}),
        purchase("g", member=None),
    ]
    return Asked({"transactions": bodies})


def claimed(card: str, *after: dict[str, Any]) -> Callable[[Shop], Asked]:
    def arrange(shop: Shop) -> Asked:
        bought = shop.post(purchase("guest", member=None)).json()
        for each in after:
            assert shop.post(each).status_code == 201
        return Asked({"member": {"card": card}}, {"transaction_id": bought["id"]})

    return arrange


def happened(event: str) -> Callable[[Shop], Asked]:
    def arrange(shop: Shop) -> Asked:
        return Asked({"event": event}, {"transaction_id": shop.post(purchase("r")).json()["id"]})

    return arrange


def redeemed(*, immediate: bool) -> Callable[[Shop], Asked]:
    def arrange(shop: Shop) -> Asked:
        added(shop, points=100)
        earn(shop, 120)
        return Asked({"member": {"card": "900"}, "reward": {"code": "mug"}, "immediate": immediate})

    return arrange


def order(shop: Shop) -> Asked:
    added(shop, points=100)
    return Asked(None, {"redemption_id": ordered(shop, earn(shop, 120))["id"]})


def held_points(shop: Shop) -> Asked:
    earn(shop, 100)
    return Asked({"member": {"card": "900"}, "points": 60, "minutes": 60})


def hold(body: dict[str, Any] | None) -> Callable[[Shop], Asked]:
    def arrange(shop: Shop) -> Asked:
        earn(shop, 100)
        return Asked(body, {"hold_id": held(shop, 60, minutes=60 * 24 * 30)["id"]})

    return arrange


def gift(shop: Shop) -> Asked:
    earn(shop, 100)
    return Asked({"from": {"card": "900"}, "to": {"card": "901"}, "points": 60})


def reported(shop: Shop) -> Asked:
    event = {"source": "app", "external_id": "review", "event": "review_written", "member": {"card": "900"}}
    return Asked(event | {"occurred_at": shop.clock().isoformat()})


def gift_to_debtor(shop: Shop) -> Asked:
    owing(shop, "901")
    return gift(shop)


def drawn(shop: Shop) -> Asked:
    earn(shop, 100)
    earn(shop, 30, card="902")
    body = {"member": {"card": "901"}, "points": 90}
    return Asked(body, {"pool_id": household(shop, "900", "901", "902")})


PAID = {"receipt": {"source": "store-1", "external_id": "fee"}}


def joining(shop: Shop) -> Asked:
    return Asked(PAID, {"member_id": earn(shop, 5), "code": "club"})


def joining_in_debt(shop: Shop) -> Asked:
    return Asked(PAID, {"member_id": owing(shop, "900"), "code": "club"})


def leaving(shop: Shop) -> Asked:
    names = joining(shop).names
    path = "/v1/members/{member_id}/clubs/{code}".format(**names)
    assert shop.http.post(path, json=PAID, headers=keyed()).status_code == 201
    return Asked({"reason": "moved_away", "refund": True}, names)


def adjusted(class_: str = "goodwill", points: int = 200, **more: Any) -> Callable[[Shop], Asked]:
    def arrange(shop: Shop) -> Asked:
        shop.post(purchase("failed", 10_000))
        body = {"member": {"card": "900"}, "points": points, "class": class_, "reason": "sorry"}
        return Asked(body | more)

    return arrange


def debtor(shop: Shop) -> Asked:
    return Asked({"points": 30, "reason": "kindness"}, {"member_id": owing(shop, "900")})


def lot(at: str, until: str) -> Callable[[Shop], Asked]:
    """A lot of a purchase at an instant, to be good until another."""

    def arrange(shop: Shop) -> Asked:
        member_id = points.earn(shop, "r", 40, at=at)
        lot_id = shop.get(f"/v1/members/{member_id}/lots")["items"][-1]["id"]
        body = {"expires_at": until, "reason": "kindness"}
        return Asked(body, {"member_id": str(member_id), "lot_id": lot_id})

    return arrange


def approval(shop: Shop) -> Asked:
    body = {"member": {"card": "900"}, "points": 1001, "class": "goodwill", "reason": "sorry"}
    waiting = shop.http.post("/v1/adjustments", json=body, headers=keyed())
    assert waiting.status_code == 202
    return Asked(None, {"adjustment_id": waiting.json()["id"]}, staff(shop, "Bob"))


POST, BATCH = "/v1/transactions", "/v1/transactions/batch"
CLAIM, EVENTS = "/v1/transactions/{transaction_id}/claim", "/v1/transactions/{transaction_id}/events"
CAPTURE, RELEASE = "/v1/holds/{hold_id}/capture", "/v1/holds/{hold_id}/release"
ORDER = {"source": "store-1", "external_id": "failed"}
AGREED = "2026-11-22T06:45:00-05:00"
CASES = [
    Case("earns", POST, ["accrual"], posted(purchase("p"))),
    Case("earns and enrols", POST, ["accrual"], posted(purchase("p", member={"card": "of somebody new"}))),
    Case("earns and pays debt", POST, ["accrual", "debt_payment"], in_debt),
    Case("pays with points", POST, ["redemption", "accrual"], posted(tendered("p"), purchase("r", 8000))),
    Case(
        "comes too late",
        POST,
        ["accrual", "expiration"],
        posted(purchase("p", occurred_at="2025-01-10T12:00:00Z")),
    ),
    Case("is a guest's", POST, [], posted(purchase("p", member=None))),
    Case("puts off the lapse", POST, ["accrual"], posted(purchase("p"), purchase("r")), LAPSING),
    Case("is pending", POST, ["accrual"], posted(purchase("p")), EVENT),
    Case("a return", POST, ["reversal"], posted(returned("b", total=400), purchase("r1"))),
    Case(
        "a return of what points paid",
        POST,
        ["restoration", "reversal"],
        posted(returned("b", "p"), purchase("r1", 8000), tendered("p")),
    ),
    Case(
        "a return of points spent since",
        POST,
        ["reversal"],
        posted(returned("b", "r1"), purchase("r1", 8000), tendered("p", 70)),
    ),
    Case("a return that waits", POST, [], posted(returned("b", "to-come"))),
    Case("a void", POST, ["reversal"], posted(voided(), purchase("r1"))),
    Case("a return's void", POST, ["reversal"], posted(voided("v", "b1", "return"), purchase("r1"), returned())),
    Case(
        "a batch",
        BATCH,
        ["accrual", "accrual", "redemption", "accrual", "reversal", "accrual", "accrual"],
        batch,
    ),
    Case(
        "a purchase that two returns wait for",
        POST,
        ["accrual", "reversal", "reversal"],
        posted(purchase("p", 3000), returned("a", "p", total=1000), returned("b", "p", total=500)),
    ),
    Case(
        "a purchase paid with points, all of which is returned",
        POST,
        ["redemption", "accrual", "reversal", "restoration", "reversal", "restoration"],
        posted(tendered("p"), purchase("first", 10_000), returned("a", "p", total=400), returned("b", "p")),
    ),
    Case(
        "a purchase of less than the return that waits for it",
        POST,
        ["accrual"],
        posted(purchase("p"), returned("a", "p", total=1001)),
    ),
    Case(
        "a newcomer's purchase that a return waits for",
        POST,
        ["accrual", "reversal"],
        posted(purchase("p", member={"card": "of somebody new"}), returned("a", "p", total=400)),
    ),
    Case(
        "a guest's purchase that a return waits for", POST, [], posted(purchase("p", member=None), returned("a", "p"))
    ),
    Case(
        "a batch with a return before its purchase",
        BATCH,
        ["accrual", "redemption", "accrual", "reversal"],
        lambda shop: Asked({"transactions": [returned("a", "p", total=400), purchase("p"), tendered("q", 7)]}),
    ),
    Case("a claim", CLAIM, ["accrual"], claimed("900")),
    Case("a claim that enrols", CLAIM, ["accrual"], claimed("of somebody new")),
    Case(
        "a claim of what has come back in part",
        CLAIM,
        ["accrual", "reversal"],
        claimed("900", returned("b", "guest", total=400)),
    ),
    Case("shipped", EVENTS, ["activation"], happened("shipped"), EVENT),
    Case("not to be shipped", EVENTS, ["cancellation"], happened("cancelled"), EVENT),
    Case("an order", "/v1/redemptions", ["hold"], redeemed(immediate=False)),
    Case("at the till", "/v1/redemptions", ["redemption"], redeemed(immediate=True)),
    Case("handed over", "/v1/redemptions/{redemption_id}/fulfilment", ["capture"], order),
    Case("called off", "/v1/redemptions/{redemption_id}/cancellation", ["release"], order),
    Case("a hold", "/v1/holds", ["hold"], held_points),
    Case("all of a hold", CAPTURE, ["capture"], hold({})),
    Case("a part of a hold", CAPTURE, ["capture", "release"], hold({"points": 20})),
    Case("nothing of a hold", RELEASE, ["release"], hold(None)),
    Case("a gift", "/v1/transfers", ["transfer_out", "transfer_in"], gift),
    Case("a review", "/v1/events", ["bonus"], reported),
    Case("a gift to a debtor", "/v1/transfers", ["transfer_out", "transfer_in", "debt_payment"], gift_to_debtor),
    Case(
        "a draw",
        "/v1/pools/{pool_id}/draws",
        ["transfer_in", "transfer_in", "transfer_out", "transfer_out"],
        drawn,
    ),
    Case("a membership", "/v1/members/{member_id}/clubs/{code}", ["accrual"], joining, CLUB),
    Case(
        "one that pays debt", "/v1/members/{member_id}/clubs/{code}", ["accrual", "debt_payment"], joining_in_debt, CLUB
    ),
    Case("a refund of it", "/v1/members/{member_id}/clubs/{code}/leaving", ["reversal"], leaving, CLUB),
    Case("goodwill", "/v1/adjustments", ["adjustment"], adjusted()),
    Case("a correction", "/v1/adjustments", ["adjustment"], adjusted("correction", -20)),
    Case("a concession", "/v1/adjustments", ["adjustment"], adjusted("concession", order=ORDER, consent=AGREED)),
    Case("more than one may give", "/v1/adjustments", [], adjusted(points=1001)),
    Case("approved", "/v1/adjustments/{adjustment_id}/approval", ["adjustment"], approval),
    Case("forgiven", "/v1/members/{member_id}/debt/write-off", ["write_off"], debtor),
    Case(
        "extended",
        "/v1/members/{member_id}/lots/{lot_id}/extension",
        ["extension"],
        lot("2026-11-22T11:00:00Z", "2030-01-01T00:00:00Z"),
    ),
    Case(
        "reinstated",
        "/v1/members/{member_id}/lots/{lot_id}/reinstatement",
        ["reinstatement"],
        lot("2025-01-10T12:00:00Z", "2030-01-01T00:00:00Z"),
    ),
]


@contextmanager
def opened(url: str, terms: dict[str, Any]) -> Iterator[Shop]:
    """A shop in which the cards 900, 901 and 902 have 7 points each, good until December; all its proof holds."""
    clock = TestClock()
    clock.forward(hours=-2)
    with open_shop(settings_for(url), clock, ALL) as shop:
        for card in ("900", "901", "902"):
            points.earn(shop, f"old-{card}", 7, "2025-11-10T12:00:00Z", card)
        if terms != ALL:
            points.publish(shop, terms)
        clock.forward(hours=2)
        yield shop
        shop.prove()


def become_due(shop: Shop) -> None:
    """Everybody's 7 points expire, and 2 of card 900 were held until a few days before: no job writes it down."""
    member_id = member_of(shop, "900")
    if points.look(shop, member_id).available:
        points.reserve(shop, member_id, 2, shop.clock() + timedelta(days=1))
    shop.clock.forward(days=15)


def due_members(shop: Shop) -> set[str]:
    """To whom something has happened that is not written down."""
    rows = select(PointAccount.member_id).where(PointAccount.next_due_at <= shop.clock())
    return {str(member_id) for member_id in shop.database.read(lambda session: session.scalars(rows).all())}


def member_of(shop: Shop, card: str) -> UUID:
    return UUID(shop.get("/v1/members/lookup", card=card)["id"])


# --- what is there --------------------------------------------------------------------------------------------------


def everything(shop: Shop) -> dict[str, int]:
    """How many rows each table has, and what the accounts come to."""

    def read(session: Session) -> dict[str, int]:
        tables = {
            table.name: session.execute(select(func.count()).select_from(table)).scalar_one()
            for table in Base.metadata.sorted_tables
        }
        sums = [func.coalesce(func.sum(getattr(PointAccount, name)), 0) for name in ("available", "held", "last_entry")]
        return tables | {f"sum {at}": int(figure) for at, figure in enumerate(session.execute(select(*sums)).one())}

    return shop.database.read(read)


def balances(shop: Shop) -> dict[str | None, int]:
    """By member: the balance as it is written down."""
    rows = select(PointAccount)
    accounts = shop.database.read(lambda session: session.scalars(rows).all())
    return {str(each.member_id): each.available + each.held + each.pending - each.debt for each in accounts}


def written(shop: Shop, before: set[UUID]) -> list[Entry]:
    """The entries that were not there `before`, with what they did to lots, as a dry run tells it. A lot they made has
    no id there, and a member of whom nothing was there has none either."""

    def read(session: Session) -> list[Entry]:
        rows = session.scalars(select(PointEntry).order_by(PointEntry.member_id, PointEntry.number)).all()
        known = {row.member_id for row in rows if row.id in before}
        lots = _lots(session, before)
        return [
            {name: getattr(row, name) for name in FIGURES}
            | {"member_id": str(row.member_id) if row.member_id in known else None}
            | {"occurred_at": row.occurred_at.isoformat(), "lots": sorted(lots[row.id], key=str)}
            for row in rows
            if row.id not in before
        ]

    return shop.database.read(read)


def _lots(session: Session, before: set[UUID]) -> dict[UUID, list[dict[str, Any]]]:
    lots = {each.id: each for each in session.scalars(select(Lot))}
    accounts = {each.member_id: each for each in session.scalars(select(PointAccount))}
    done: list[tuple[UUID, UUID, int, str]] = [
        (each.entry_id, each.id, each.granted, "granted") for each in lots.values()
    ]
    done += [(use.entry_id, use.lot_id, -use.points, use.effect) for use in session.scalars(select(LotUse))]
    reserved = select(Hold.entry_id, HoldLot.lot_id, HoldLot.points).join(Hold, Hold.id == HoldLot.hold_id)
    done += [(entry_id, lot_id, points, "held") for entry_id, lot_id, points in session.execute(reserved)]
    found: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    for entry_id, lot_id, change, effect in done:
        lot = lots[lot_id]
        expiry = accounts[lot.member_id].lapses_at if lot.lapses else lot.expires_at
        found[entry_id].append(
            {
                "lot_id": str(lot_id) if lot.entry_id in before else None,
                "points": change,
                "effect": effect,
                "expires_at": None if expiry is None else expiry.isoformat(),
            }
        )
    return found


def entry_ids(shop: Shop) -> set[UUID]:
    return shop.database.read(lambda session: set(session.scalars(select(PointEntry.id))))


def told(answer: dict[str, Any]) -> list[Entry]:
    """The entries an answer tells, those of a batch together; by member, in their order."""
    answers = [each["transaction"] for each in answer["results"]] if "results" in answer else [answer]
    entries = [entry for each in answers if each is not None for entry in each["entries"]]
    return [entry | {"lots": sorted(entry["lots"], key=str)} for entry in by_member(entries)]


def balances_told(answer: dict[str, Any]) -> list[Any]:
    """The balances an answer tells."""
    answers = [each["transaction"] for each in answer["results"]] if "results" in answer else [answer]
    return [each.get("balance") for each in answers if each is not None]


def by_member(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry["member_id"] or "")


# --- the same twice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("due", [False, True], ids=["", "after something was due"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.story)
def test_what_a_dry_run_tells_is_what_is_then_written(engines: Engines, engine: str, case: Case, due: bool) -> None:
    with opened(engines.fresh(engine), case.terms) as shop:
        asked = case.arrange(shop)
        if due:
            become_due(shop)
        rows, ids, before, late = everything(shop), entry_ids(shop), balances(shop), due_members(shop)
        dry = case.ask(shop, asked, dry_run=True)
        assert dry.status_code == 200, dry.text
        assert everything(shop) == rows, "a dry run writes nothing"
        entries = told(dry.json())
        real = case.ask(shop, asked)
        assert real.status_code in (200, 201, 202), real.text
        assert "entries" not in real.json() or real.json()["entries"] is None
        assert entries == by_member(written(shop, ids))
        assert balances_told(dry.json()) == balances_told(real.json())
        if not due:
            assert sorted(entry["kind"] for entry in entries) == sorted(case.kinds)
        caught_up = {entry["member_id"] for entry in entries if entry["kind"] in ("expiration", "release")}
        assert caught_up >= late & {entry["member_id"] for entry in entries}
        check_sums(entries, before, balances(shop))
        check_list(shop, entries)


def check_sums(entries: list[Entry], before: dict[str | None, int], after: dict[str | None, int]) -> None:
    """By member the entries come to the change of the balance; each comes to what it does to its lots."""
    moved: dict[str | None, int] = defaultdict(int)
    for entry in entries:
        moved[entry["member_id"]] += entry["points"]
        changed = sum(lot["points"] for lot in entry["lots"] if lot["effect"] != "held")
        assert changed == entry["available"] + entry["held"] + entry["pending"]
        assert entry["points"] == changed - entry["debt"]
    new = sum(balance for member_id, balance in after.items() if member_id not in before)
    assert moved.pop(None, 0) == new
    assert {id_: balance for id_, balance in after.items() if id_ in before} == {
        id_: balance + moved[id_] for id_, balance in before.items()
    }


def check_list(shop: Shop, entries: list[Entry]) -> None:
    """The list of each member's entries begins with them."""
    names = {*FIGURES, "occurred_at"}
    for member_id in {entry["member_id"] for entry in entries} - {None}:
        mine = [{name: entry[name] for name in names} for entry in entries if entry["member_id"] == member_id]
        newest = shop.get(f"/v1/members/{member_id}/entries", limit=len(mine))["items"]
        assert [{name: entry[name] for name in names} for entry in reversed(newest)] == mine


def test_every_route_with_a_dry_run_is_among_them(shop: Shop) -> None:
    described = shop.app.openapi()["paths"]
    routes = {
        path
        for path, methods in described.items()
        for method in methods.values()
        if any(parameter["name"] == "dry_run" for parameter in method.get("parameters", []))
    }
    assert routes == {case.route for case in CASES}


# --- item by item ---------------------------------------------------------------------------------------------------


def kinds_of(result: dict[str, Any]) -> list[str] | None:
    return None if result["transaction"] is None else [entry["kind"] for entry in result["transaction"]["entries"]]


def test_each_item_of_a_batch_tells_its_own(engines: Engines, engine: str) -> None:
    """What was due is told with the member's first item that is new. The balance goes on from item to item."""
    with opened(engines.fresh(engine), ALL) as shop:
        asked = batch(shop)
        become_due(shop)
        results = shop.http.post(BATCH, json=asked.body, params={"dry_run": True}).json()["results"]
    assert [kinds_of(result) for result in results] == [
        ["release", "expiration", "accrual"],
        [],
        None,
        ["expiration", "accrual"],
        ["redemption", "accrual"],
        ["reversal"],
        ["accrual"],
        ["accrual"],
        [],
    ]
    entries = [entry for result in results if result["transaction"] for entry in result["transaction"]["entries"]]
    ada = [entry["balance_after"] for entry in entries if entry["member_id"] == entries[0]["member_id"]]
    assert ada == [37, 30, 40, 0, 9]
    assert [entry["balance_after"] for entry in entries if entry["member_id"] is None] == [10, 20]


def test_a_batch_tells_what_was_due_once(engines: Engines, engine: str) -> None:
    """With the first item that moves points, whatever else is in the batch: returns, a void, one thing twice."""
    with opened(engines.fresh(engine), ALL) as shop:
        for body in (purchase("r1", 4000), returned("b1", "r1", total=1000), purchase("r2", 3000)):
            assert shop.post(body).status_code == 201
        become_due(shop)
        bodies = [purchase("a"), voided("v", "b1", "return"), returned("b2", "r2"), purchase("c"), purchase("a")]
        ids = entry_ids(shop)
        dry = shop.batch(bodies, dry_run=True)
        shop.batch(bodies)
        assert told({"results": dry}) == by_member(written(shop, ids))
        assert [kinds_of(result) for result in dry] == [
            ["release", "expiration", "accrual"],
            ["reversal"],
            ["reversal"],
            ["accrual"],
            [],
        ]


# --- nothing to tell ------------------------------------------------------------------------------------------------


def known(shop: Shop) -> list[tuple[str, dict[str, Any]]]:
    """Requests that were carried out before: path and body."""
    bought = shop.post(purchase("r1")).json()
    guest = shop.post(purchase("g1", member=None)).json()
    done = [
        (POST, purchase("r1")),
        (POST, returned("b1", "r1")),
        (BATCH, {"transactions": [returned("b1", "r1"), purchase("r1"), purchase("no", currency="EUR")]}),
        (f"/v1/transactions/{guest['id']}/claim", {"member": {"card": "900"}}),
        (f"/v1/transactions/{bought['id']}/events", {"event": "cancelled"}),
    ]
    for path, body in (done[4], done[1], done[3]):
        assert shop.http.post(path, json=body).status_code in (200, 201)
    return done


def test_what_is_known_or_refused_writes_nothing_and_tells_nothing(engines: Engines, engine: str) -> None:
    """Not even what was due: somebody else writes that down."""
    with opened(engines.fresh(engine), EVENT) as shop:
        done = known(shop)
        become_due(shop)
        for path, body in done:
            before = entry_ids(shop)
            dry = shop.http.post(path, json=body, params={"dry_run": True}).json()
            assert told(dry) == [], path
            assert shop.http.post(path, json=body).status_code == 200
            assert entry_ids(shop) == before, path


# --- whose entries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrange", [gift, drawn])
def test_the_other_side_is_told_to_those_who_may_read_entries(
    engines: Engines, engine: str, arrange: Callable[[Shop], Asked]
) -> None:
    """A key that may move points between members and not read them learns nothing of the others."""
    case = next(case for case in CASES if case.arrange is arrange)
    with opened(engines.fresh(engine), ALL) as shop:
        scopes = {"transfers:write", "pools:draw"}
        narrow = shop.database.write(
            lambda session: make_key(session, "partner", shop.clock(), shop.program_id, scopes=scopes)
        )
        asked = arrange(shop)
        whole = case.ask(shop, asked, dry_run=True).json()
        shown = case.ask(shop, replace(asked, caller=shop.client(narrow)), dry_run=True).json()
    mine = shown["from_member_id" if arrange is gift else "member_id"]
    assert {entry["member_id"] for entry in whole["entries"]} > {mine}
    assert shown["entries"] == [entry for entry in whole["entries"] if entry["member_id"] == mine]
