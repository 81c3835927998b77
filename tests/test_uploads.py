"""An upload is what its items are one after the other: the same answers, rows, entries and books, whatever it buys,
pays with points, returns and voids of its own; and its statements do not grow with what is in it."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from app import db
from tests.conftest import Engines, settings_for
from tests.gathered import ID, locked, written
from tests.points import use
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned, voided
from tests.test_holds import earn
from tests.test_purchase import statements
from tests.test_returns import FEW, bought, member_of, shop_with

Body = dict[str, Any]

DEADLOCK = "40P01"

CARDS = ["1", "2", None]

POLICIES: list[dict[str, Any]] = [
    {"points_already_spent": "debt"},
    {"points_already_spent": "debt", "debt_limit": 300},
    {"points_already_spent": "withhold", "expired_meanwhile": "new_lot"},
    {"points_already_spent": "write_off", "expired_meanwhile": "stay_expired"},
]
"""What becomes of points that a return finds spent."""


@contextmanager
def shops(engines: Engines, engine: str, terms: Body) -> Iterator[list[Shop]]:
    """Two shops alike: one is given uploads, the other item by item."""
    with ExitStack() as stack:
        urls = (engines.fresh(engine), engines.fresh(engine))
        yield [stack.enter_context(open_shop(settings_for(url), TestClock(), terms)) for url in urls]


def documents(random: Random, count: int, names: str) -> list[Body]:
    """Purchases, returns and voids of each other, in an order in which nearly anything may come: a return before its
    purchase, one thing twice, more than there is."""
    buys = [f"{names}{number}" for number in range(count // 3)]
    others = [f"{names}b{number}" for number in range(count // 3)]

    def buying(id_: str) -> Body:
        card, points = random.choice(CARDS), random.choice([0, 0, 50, 400])
        body = bought(id_, random.randrange(100, 900), random.randrange(500, 1500), points=points if card else 0)
        return body | {"member": {"card": card}} if card else {**body, "member": None}

    def returning(id_: str) -> Body:
        of = random.choice(buys)
        lines = [{"line": random.choice([1, 2]), "quantity": "1"}]
        return random.choice(
            [
                returned(id_, of),
                returned(id_, of, total=random.randrange(1, 900)),
                returned(id_, of, lines=lines),
                returned(id_, of, lines=lines),
            ]
        )

    made = [buying(id_) for id_ in buys] + [returning(id_) for id_ in others]
    made += [voided(f"{names}v{number}", random.choice(others), "return") for number in range(count // 6)]
    made += [voided(f"{names}w{number}", random.choice(buys)) for number in range(count // 12)]
    order = sorted(made, key=lambda body: {"purchase": 0, "return": 4, "void": 8}[body["type"]] + random.randrange(12))
    return order + random.sample(order, 3)


def told(results: list[Body]) -> list[str]:
    """What an upload answers, but for ids."""
    kept = ("type", "points", "returned", "duplicate", "balance")
    answers = []
    for each in results:
        answer = each["transaction"] or each["problem"] or {}
        body = {name: answer.get(name) for name in (*kept, "code", "postings")}
        answers.append(ID.sub("", json.dumps([each["status"], body])))
    return answers


@pytest.mark.parametrize("seed", range(12))
def test_an_upload_is_what_its_items_are_one_after_the_other(engines: Engines, engine: str, seed: int) -> None:
    random = Random(seed)
    terms = TERMS | FEW | {"returns": POLICIES[seed % len(POLICIES)]}
    before, now = documents(random, 18, "a"), documents(random, 36, "z")
    with shops(engines, engine, terms) as both:
        for shop in both:
            for body in (bought("seed1", 900, member={"card": "1"}), bought("seed2", 900, member={"card": "2"})):
                assert shop.post(body).status_code == 201
            for body in before:
                shop.post(body)
            for card in ("1", "2"):
                has = shop.get("/v1/members/lookup", card=card)["balance"]["available"]
                if has > 100:
                    use(shop, UUID(member_of(shop, card)), has - 100)
        at_once, one_by_one = both
        answers = at_once.batch(now)
        expected = []
        for body in now:
            one_by_one.clock.forward(microseconds=1)  # which came first is known by when
            expected += one_by_one.batch([body])
        assert told(answers) == told(expected)
        assert written(at_once) == written(one_by_one)
        for shop in both:
            shop.prove()


def test_one_key_waits_for_one_purchase(engines: Engines, engine: str) -> None:
    """A return that waits, then another under its key: that is a conflict, and never applied instead."""
    first, same = returned("b1", "one", total=100), returned("b1", "one", total=100)
    bodies = [first, returned("b1", "two", total=200), same, bought("two", 900), bought("one", 900)]
    with shops(engines, engine, TERMS | FEW) as both:
        at_once, one_by_one = both
        answers = at_once.batch(bodies)
        assert told(answers) == told([result for body in bodies for result in one_by_one.batch([body])])
        assert [answer["status"] for answer in answers] == [202, 409, 202, 201, 201]
        assert written(at_once) == written(one_by_one)


# --- statements -----------------------------------------------------------------------------------------------------

MIXES: dict[str, Callable[[int], list[Body]]] = {
    "a purchase that comes back at once": lambda n: [bought(f"n{n}", 300), returned(f"b{n}", f"n{n}", total=100)],
    "a return of one purchase": lambda n: [returned(f"b{n}", "old0", total=1)],
    "a return of one of many": lambda n: [returned(f"b{n}", f"old{n}", total=1)],
    "the void of a return": lambda n: [voided(f"v{n}", f"back{n}", "return")],
    "a return and its void": lambda n: [returned(f"b{n}", "old0", total=1), voided(f"v{n}", f"b{n}", "return")],
    "a return before its purchase": lambda n: [returned(f"b{n}", f"n{n}", total=100), bought(f"n{n}", 300, points=10)],
}
"""What the number makes one of."""


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
def test_the_statements_of_an_upload_do_not_grow_with_it(
    engines: Engines, engine: str, mix: Callable[[int], list[Body]]
) -> None:
    counts = []
    with shop_with(engines, engine, **FEW) as shop:
        shop.batch([bought(f"old{number}", 300) for number in range(20)])
        shop.batch([returned(f"back{number}", f"old{number}", total=1) for number in range(20)])
        for numbers in (range(1, 3), range(3, 20)):
            with statements(shop.database) as sent:
                results = shop.batch([body for number in numbers for body in mix(number)])
            assert {result["status"] for result in results} <= {201, 202}, results
            counts.append(len(sent))
    assert counts[0] == counts[1]


# --- locks ----------------------------------------------------------------------------------------------------------


def test_uploads_that_cross_do_not_deadlock(ungathered: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Purchases and their returns in one upload, of two members in opposite orders: an upload takes all its keys, then
    all its members' accounts, whatever order they came in. Locks are waited for until the database would break it."""
    monkeypatch.setitem(db._MS, db.Patience.BRIEF, 30_000)
    failed: list[str | None] = []

    def note(error: ExceptionContext) -> None:
        failed.append(getattr(error.original_exception, "sqlstate", None))

    event.listen(ungathered.database.engine, "handle_error", note)
    for card in ("1", "2"):
        ungathered.post(purchase(f"first{card}", member={"card": card}))

    def upload(number: int) -> list[int]:
        one, two = ("1", "2") if number % 2 else ("2", "1")
        bodies = [
            purchase(f"{number}a", member={"card": one}),
            returned(f"{number}b", f"{number}a"),
            purchase(f"{number}c", member={"card": two}),
            returned(f"{number}d", f"{number}c", total=1),
        ]
        return [result["status"] for result in ungathered.batch(bodies)]

    with ThreadPoolExecutor(8) as pool:
        assert {status for statuses in pool.map(upload, range(40)) for status in statuses} == {201}
    assert DEADLOCK not in failed
    ungathered.prove()


def test_an_upload_waits_for_no_account_but_the_one_that_is_locked(engines: Engines) -> None:
    """Somebody has locked one of two customers' accounts: the other's receipts are recorded, those of the first are
    refused for now, and are recorded when they are sent again under the same key."""
    with open_shop(settings_for(engines.fresh("postgresql"), lock_timeout_ms=300), TestClock()) as shop:
        ids = [earn(shop, 100, card) for card in ("900", "901")]
        bodies = [purchase(f"{number}", member={"card": ("900", "901")[number % 2]}) for number in range(20)]
        bodies += [returned("r0", "0", total=1), returned("r1", "1", total=1)]
        with locked(shop, ids[:1]):
            statuses = [result["status"] for result in shop.batch(bodies, key="an-upload")]
        assert statuses == [503, 201] * 11
        again = [result["status"] for result in shop.batch(bodies, key="an-upload")]
        assert again == [201, 200] * 11
        shop.prove()


def test_an_upload_keeps_the_order_of_a_member_who_was_locked_for_a_while(engines: Engines) -> None:
    """What comes back of his purchase comes after it, and so does what undoes that."""
    with open_shop(settings_for(engines.fresh("postgresql"), lock_timeout_ms=20_000), TestClock()) as shop:
        ids = [earn(shop, 100, card) for card in ("900", "901")]
        bodies = [
            purchase("1", member={"card": "900"}),
            purchase("2", member={"card": "901"}),
            returned("3", "1", total=100),
            voided("4", "3", "return"),
            purchase("5", member={"card": "900"}),
            returned("6", "2", total=100),
        ]
        with ThreadPoolExecutor(1) as pool, locked(shop, ids[:1]) as let_go:
            upload = pool.submit(shop.batch, bodies)
            while shop.http.get("/v1/transactions/store-1/2").status_code == 404:
                time.sleep(0.01)
            let_go()
            assert [result["status"] for result in upload.result()] == [201] * 6
        shop.prove()


def test_uploads_that_wait_for_a_lock_take_no_connection_from_others(engines: Engines) -> None:
    """More of them than there are connections, all about one account: what others ask is answered meanwhile."""
    settings = settings_for(engines.fresh("postgresql"), lock_timeout_ms=3000, pool_size=2, pool_wait_seconds=10)
    with open_shop(settings, TestClock()) as shop:
        ids = [earn(shop, 100)]
        with ThreadPoolExecutor(8) as pool, locked(shop, ids):
            uploads = [pool.submit(shop.batch, [purchase(f"{number}")]) for number in range(8)]
            time.sleep(1)
            started = time.monotonic()
            assert shop.http.get("/v1/holds").status_code == 200
            assert time.monotonic() - started < 1
            assert {result["status"] for upload in uploads for result in upload.result()} == {503}


def test_an_upload_of_many_who_are_locked_waits_no_longer(engines: Engines) -> None:
    with open_shop(settings_for(engines.fresh("postgresql"), lock_timeout_ms=500), TestClock()) as shop:
        ids = [earn(shop, 100, f"{number}") for number in range(120)]
        with locked(shop, ids):
            started = time.monotonic()
            results = shop.batch([purchase(f"p{number}", member={"card": f"{number}"}) for number in range(120)])
            assert time.monotonic() - started < 2.5
        assert {result["status"] for result in results} == {503}
