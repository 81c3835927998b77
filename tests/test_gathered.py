"""Every verb that takes many requests at a time answers and writes what it would if they came one by one."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from sqlalchemy import event, insert, select

from app import db
from app.ledger.models import PointEntry
from app.main import create_app
from app.transactions.models import Transaction, TransactionKey
from tests.conftest import Engines, settings_for
from tests.gathered import PATIENT, Call, at_once, locked, send, together, told, written
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned
from tests.test_adjustments import staff
from tests.test_holds import earn
from tests.test_purchase import statements
from tests.test_tokens import change, token_of
from tests.test_transfers import household

OFFERING = TERMS | {
    "transfers": {"most_per_day": 100, "minimum": 2},
    "pools": {"most_members": 4},
    "adjustments": {"limit": 1000, "limits": {"trainee": 20}},
}
"""Terms by which members give each other points, and put them together; trainees may adjust little."""

MANY = 30


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests of one kind. `mixed`: some that depend on each other and some that are refused; `alike`: so many that
    succeed, each of a member of its own; `decide`: where one of them is decided."""

    mixed: Callable[[Shop], list[Call]]
    alike: Callable[[Shop, int, str], list[Call]]
    decide: str
    terms: Mapping[str, Any] = field(default_factory=dict)


def opened(engines: Engines, engine: str, kind: Kind, **changes: Any) -> Any:
    terms = OFFERING | dict(kind.terms)
    return open_shop(settings_for(engines.fresh(engine), **PATIENT | changes), TestClock(), terms)


@pytest.fixture
def gathering(engines: Engines, engine: str, kind: Kind) -> Iterator[Shop]:
    with opened(engines, engine, kind) as shop:
        yield shop


# --- gifts ----------------------------------------------------------------------------------------------------------


def gift(points: int, giver: str = "900", receiver: str = "901", **rest: Any) -> Call:
    return Call("/v1/transfers", {"from": {"card": giver}, "to": {"card": receiver}, "points": points}, **rest)


def gifts(shop: Shop) -> list[Call]:
    """Ada gives on what she got just now; Bob has 100 points, and may not give more than that in a day."""
    for card, points in (("900", 5), ("901", 300), ("902", 1)):
        earn(shop, points, card)
    again = gift(10, "901", "902")
    return [
        gift(50, "900", "901"),  # more than she has
        gift(60, "901", "900"),
        gift(50, "900", "902"),
        again,
        gift(31, "901", "900"),  # more than is left of the day
        again,
        gift(11, "901", "902", key=again.key),
        gift(30, "901", "900"),
        gift(1, "902", "900"),  # less than can be given
        gift(5, "900", "900"),
        gift(5, "900", "nobody"),
        Call("/v1/transfers", {"from": {"phone": "1"}, "to": {"card": "900"}, "points": 5}),
        gift(51, "902", "901"),
    ]


def many_gifts(shop: Shop, number: int, name: str) -> list[Call]:
    cards = [(f"{name}{n}", f"{name}{n}b") for n in range(number)]
    for giver, receiver in cards:
        earn(shop, 10, giver)
        earn(shop, 1, receiver)
    return [gift(10, *pair) for pair in cards]


# --- draws on pools -------------------------------------------------------------------------------------------------


def drawing(pool_id: str, points: int, card: str = "900") -> Call:
    return Call(f"/v1/pools/{pool_id}/draws", {"member": {"card": card}, "points": points})


def drawings(shop: Shop) -> list[Call]:
    """Two households. What one of them collects, the next one may collect back."""
    for card in ("900", "901", "902", "903"):
        earn(shop, 50, card)
    one, other = household(shop, "900", "901"), household(shop, "902", "903")
    calls = [drawing(one, 80), drawing(one, 90, "901"), drawing(one, 101), drawing(other, 60, "903"), drawing(one, 1)]
    again = drawing(one, 100)
    calls += [drawing(other, 10), drawing(str(UUID(int=7)), 10), drawing(one, 10, "nobody"), again, again]
    return [*calls, Call(f"/v1/pools/{one}/draws", {"member": {"phone": "1"}, "points": 5}), drawing(other, 99, "902")]


def many_drawings(shop: Shop, number: int, name: str) -> list[Call]:
    pools = []
    for n in range(number):
        earn(shop, 10, f"{name}{n}")
        earn(shop, 10, f"{name}{n}b")
        pools.append((household(shop, f"{name}{n}", f"{name}{n}b"), f"{name}{n}"))
    return [drawing(pool_id, 15, card) for pool_id, card in pools]


# --- adjustments ----------------------------------------------------------------------------------------------------


def adjustment(points: int, class_: str = "goodwill", card: str = "900", by: Any = None, **rest: Any) -> Call:
    body = {"member": {"card": card}, "points": points, "class": class_, "reason": "sorry"}
    return Call("/v1/adjustments", body | rest, by)


def concession(points: int, order: str, card: str = "900") -> Call:
    named = {"source": "store-1", "external_id": order}
    return adjustment(points, "concession", card, order=named, consent="2026-11-22T06:45:00-05:00")


def adjustments(shop: Shop) -> list[Call]:
    """What is left of an order's price goes to whoever comes first; a correction finds what was given just before."""
    earn(shop, 10, receipt="r1")
    earn(shop, 10, "901", receipt="r2")
    ann, nobody = staff(shop, "Ann", role="trainee"), staff(shop, None)
    return [
        adjustment(-11, "correction"),
        adjustment(15),
        adjustment(-20, "correction"),
        adjustment(20, by=ann),
        adjustment(21, by=ann),
        adjustment(21, by=nobody),
        adjustment(1001),
        concession(800, "r1"),
        concession(800, "r1"),
        concession(800, "r1"),
        concession(10, "r1", "901"),
        concession(10, "r2", "901"),
        concession(10, "r3", "901"),
        adjustment(5, card="nobody"),
        adjustment(-6, "correction"),
    ]


def many_adjustments(shop: Shop, number: int, name: str) -> list[Call]:
    orders = [(f"{name}r{n}", f"{name}{n}") for n in range(number)]
    for receipt, card in orders:
        earn(shop, 10, card, receipt)
    return [concession(10, *order) for order in orders]


def owing(shop: Shop, points: int, card: str) -> str:
    """A member who owes points: they were spent, and the goods that earned them came back. Answers the id."""
    member_id = earn(shop, points, card, receipt=f"{card}-spent")
    made = send(shop, Call("/v1/holds", {"member": {"card": card}, "points": points, "minutes": 60})).json()
    assert send(shop, Call(f"/v1/holds/{made['id']}/capture")).status_code == 200
    assert shop.post(returned(f"{card}-back", f"{card}-spent")).status_code == 201
    return member_id


def write_off(member_id: str, points: int | None = None) -> Call:
    body = {"reason": "uncollectable"} | ({} if points is None else {"points": points})
    return Call(f"/v1/members/{member_id}/debt/write-off", body)


def write_offs(shop: Shop) -> list[Call]:
    ada = owing(shop, 30, "900")
    return [write_off(ada, 20), write_off(ada, 20), write_off(str(UUID(int=7)), 1), write_off(ada), write_off(ada)]


def many_write_offs(shop: Shop, number: int, name: str) -> list[Call]:
    return [write_off(owing(shop, 10, f"{name}{n}")) for n in range(number)]


# --- orders and vouchers --------------------------------------------------------------------------------------------

MUG = {"code": "mug", "name": "Mug", "points": 10, "supplier": {"type": "own", "cost": 3}, "currency": "USD"}
VOUCHER = MUG | {"code": "voucher", "item": {"kind": "voucher", "value": 500, "valid_days": 90}, "supplier": None}


def stocked(shop: Shop) -> None:
    """A catalogue of a mug, of which there are 100, and a voucher."""
    for reward in (MUG | {"supply": 100}, {name: value for name, value in VOUCHER.items() if value is not None}):
        assert shop.http.post("/v1/rewards", json=reward).status_code in (201, 409)


def ordered(shop: Shop, reward: str, card: str = "900", **rest: Any) -> dict[str, Any]:
    body = {"member": {"card": card}, "reward": {"code": reward}} | rest
    answer = send(shop, Call("/v1/redemptions", body))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def ending(order: str, how: str) -> Call:
    return Call(f"/v1/redemptions/{order}/{how}")


def endings(shop: Shop, how: str) -> list[Call]:
    """Three orders of one member and one of another; some end twice, one has ended, and one is nobody's."""
    stocked(shop)
    earn(shop, 100)
    earn(shop, 100, "901")
    ids = [ordered(shop, reward, quantity=2)["id"] for reward in ("mug", "voucher", "mug")]
    ids.append(ordered(shop, "mug", "901")["id"])
    done = [ordered(shop, "mug")["id"] for _ in range(2)]
    for id_, other in zip(done, ("fulfilment", "cancellation"), strict=True):
        assert send(shop, ending(id_, other)).status_code == 200
    again = ending(ids[3], how)
    return [*(ending(id_, how) for id_ in (*ids[:3], ids[0], str(UUID(int=7)), *done)), again, again]


def many_endings(shop: Shop, number: int, name: str, how: str) -> list[Call]:
    stocked(shop)
    for n in range(number):
        earn(shop, 10, f"{name}{n}")
    orders = [ordered(shop, "voucher" if how == "fulfilment" else "mug", f"{name}{n}") for n in range(number)]
    return [ending(order["id"], how) for order in orders]


def burning(code: str, receipt: str = "r1", **rest: Any) -> Call:
    body = {"source": "store-1", "external_id": receipt}
    return Call(f"/v1/vouchers/{code}/burn", body, **{"key": None} | rest)


def codes(shop: Shop, number: int, card: str) -> list[str]:
    stocked(shop)
    earn(shop, 10 * number, card)
    made = ordered(shop, "voucher", card, quantity=number, immediate=True)["vouchers"]
    return [voucher["code"] for voucher in made]


def burnings(shop: Shop) -> list[Call]:
    """The same receipt again gets the same answer, another one does not."""
    first, second, third = codes(shop, 3, "900")
    assert send(shop, Call(f"/v1/vouchers/{third}/cancellation")).status_code == 200
    keyed = burning(second, key="k")
    calls = [burning(first), burning(first.lower().replace("-", "")), burning(first, "r2"), burning("nothing")]
    return [*calls, keyed, keyed, burning(second, "r2", key="k"), burning(third), burning(first)]


def many_burnings(shop: Shop, number: int, name: str) -> list[Call]:
    return [burning(codes(shop, 1, f"{name}{n}")[0]) for n in range(number)]


# --- guests' purchases, and what happens to purchases ---------------------------------------------------------------


def bought(shop: Shop, external_id: str, card: str | None) -> str:
    """A purchase that earns 10 points, of a member or a guest. Answers its id."""
    answer = shop.post(purchase(external_id, member=None if card is None else {"card": card}))
    assert answer.status_code == 201, answer.text
    id_: str = answer.json()["id"]
    return id_


def claiming(transaction_id: str, card: str, key: str | None = None) -> Call:
    return Call(f"/v1/transactions/{transaction_id}/claim", {"member": {"card": card}}, key=key)


def claimings(shop: Shop) -> list[Call]:
    """Whoever comes first has it. Cards that nobody has make a member each, unless the purchase is another's."""
    theirs = bought(shop, "r1", "900")
    bought(shop, "r2", "901")
    first, second, third, back, last = (bought(shop, f"g{n}", None) for n in range(5))
    assert shop.post(returned("b1", "g3", total=100)).status_code == 201
    calls = [claiming(first, "900"), claiming(first, "900"), claiming(first, "901"), claiming(theirs, "901")]
    calls += [claiming(second, "new"), claiming(third, "new"), claiming(second, "new"), claiming(back, "900")]
    calls += [claiming(str(UUID(int=7)), "900"), claiming(last, "901", "k"), claiming(last, "901", "k")]
    return [*calls, claiming(last, "900", "k")]


def claimings_of_strangers(shop: Shop) -> list[Call]:
    """A card that nobody has is too late: it must not be a member for that."""
    calls = claimings(shop)
    return [*calls, claiming(bought(shop, "g5", None), "other"), Call(calls[0].path, {"member": {"card": "late"}})]


def many_claimings(shop: Shop, number: int, name: str) -> list[Call]:
    return [claiming(bought(shop, f"{name}{n}", None), f"{name}{n}") for n in range(number)]


PENDING = {"pending": {"mode": "event", "event": "shipped", "cancel_after_days": 30}}


def event_of(transaction_id: str, what: str = "shipped", key: str | None = None) -> Call:
    return Call(f"/v1/transactions/{transaction_id}/events", {"event": what}, key=key)


def events(shop: Shop) -> list[Call]:
    """Shipped or cancelled, whichever comes first; again it is the same answer."""
    one, two, three, four = (bought(shop, f"r{n}", "900") for n in range(4))
    guest, claimed = bought(shop, "g1", None), bought(shop, "g2", None)
    assert send(shop, claiming(claimed, "901")).status_code == 201
    assert send(shop, event_of(four)).status_code == 200
    calls = [event_of(one), event_of(two, "cancelled"), event_of(one), event_of(two), event_of(one, "cancelled")]
    calls += [event_of(two, "cancelled"), event_of(three, "eaten"), event_of(guest), event_of(claimed), event_of(four)]
    return [*calls, event_of(four, "cancelled"), event_of(three, key="k"), event_of(three, key="k")]


def many_events(shop: Shop, number: int, name: str) -> list[Call]:
    return [event_of(bought(shop, f"{name}{n}", f"{name}{n // 2}")) for n in range(number)]


# --- all of them ----------------------------------------------------------------------------------------------------

KINDS = {
    "gifts": Kind(gifts, many_gifts, "app.transfers.service._give"),
    "draws": Kind(drawings, many_drawings, "app.transfers.pools._draw"),
    "adjustments": Kind(adjustments, many_adjustments, "app.adjustments.service._request"),
    "write-offs": Kind(write_offs, many_write_offs, "app.adjustments.service._request"),
    **{
        how: Kind(partial(endings, how=how), partial(many_endings, how=how), f"app.redemptions.service.{decide}")
        for how, decide in (("fulfilment", "_fulfil"), ("cancellation", "_cancel"))
    },
    "claims": Kind(claimings, many_claimings, "app.transactions.claims._claim"),
    "claims of strangers": Kind(claimings_of_strangers, many_claimings, "app.transactions.claims._claim"),
    "events": Kind(events, many_events, "app.transactions.events._happen", PENDING),
    "burnings": Kind(burnings, many_burnings, "app.redemptions.vouchers._burn"),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@each_kind
def test_a_batch_answers_and_writes_what_one_by_one_does(engines: Engines, engine: str, kind: Kind) -> None:
    with ExitStack() as stack:
        one, other = (stack.enter_context(opened(engines, engine, kind, **changes)) for changes in ({}, {"writers": 0}))
        batch = together(one, kind.mixed(one))
        apart = [send(other, call) for call in kind.mixed(other)]
        assert told(batch) == told(apart)
        assert written(one) == written(other)
        assert {answer.status_code // 100 for answer in batch} == {2, 4}, "some succeed and some do not"
        one.prove()


def test_repeats_of_what_is_refused_for_now_are_refused_alike(database_url: str) -> None:
    """A refusal that is not kept: who asked twice at once is told what they would be told one after the other."""
    release = Call(f"/v1/holds/{UUID(int=7)}/release", key="same")
    with open_shop(settings_for(database_url, **PATIENT), TestClock()) as shop:
        assert [answer.status_code for answer in together(shop, [release, release])] == [404, 404]
        assert send(shop, release).status_code == 404


def test_another_request_under_a_key_that_was_refused_for_now_is_decided_by_itself(database_url: str) -> None:
    """The first left the key free, as it would have if it had come alone."""
    nowhere = Call(f"/v1/holds/{UUID(int=7)}/release", key="same")
    with open_shop(settings_for(database_url, **PATIENT), TestClock()) as shop:
        earn(shop, 100)
        held = send(shop, Call("/v1/holds", {"member": {"card": "900"}, "points": 10, "minutes": 60})).json()
        there = Call(f"/v1/holds/{held['id']}/release", key="same")
        answers = together(shop, [nowhere, there, there, nowhere])
        assert [answer.status_code for answer in answers] == [404, 200, 200, 404]
        assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, None, "true", None]
        shop.prove()


@each_kind
def test_a_poisonous_item_fails_alone(gathering: Shop, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something nobody foresaw in the second: the batch runs item by item, and the others are carried out."""
    calls = kind.alike(gathering, 4, "a")
    module, name = kind.decide.rsplit(".", 1)
    decided: list[Any] = []

    def poisoned(loaded: Any, item: Any, *rest: Any, real: Callable[..., Any], **options: Any) -> Any:
        if item not in decided:
            decided.append(item)
        if len(decided) > 1 and item == decided[1]:
            raise ZeroDivisionError("poison")
        return real(loaded, item, *rest, **options)

    real = getattr(__import__(module, fromlist=[name]), name)
    monkeypatch.setattr(kind.decide, partial(poisoned, real=real))
    statuses = [answer.status_code // 100 for answer in together(gathering, calls)]
    assert statuses == [2, 5, 2, 2]
    gathering.prove()


@each_kind
def test_one_and_many_run_the_same_statements(gathering: Shop, kind: Kind) -> None:
    """The very same texts, but for the savepoint that one alone has."""

    def sent(calls: list[Call]) -> list[str]:
        texts: list[str] = []
        answers = together(gathering, calls, _noting(gathering, texts))
        assert {answer.status_code // 100 for answer in answers} == {2}
        return [text for text in texts if not re.search("SAVEPOINT", text)]

    one, many = sent(kind.alike(gathering, 1, "a")), sent(kind.alike(gathering, MANY, "b"))
    assert one == many
    assert not any(text.startswith("MANY") for text in many)
    assert 3 < len(one) < 40


@contextmanager
def _noting(shop: Shop, texts: list[str]) -> Iterator[None]:
    with statements(shop.database) as noted:
        yield
    texts += noted


# --- reads ----------------------------------------------------------------------------------------------------------


def test_members_read_their_balances_many_at_a_time(shop: Shop, database_url: str) -> None:
    """Each sees their own, in as many statements as one alone; who has been closed since sees nothing."""
    cards = [str(card) for card in range(MANY)]
    ids = [earn(shop, 10 + n, card) for n, card in enumerate(cards)]
    tokens = [token_of(shop, card=card) for card in cards]
    asks = [partial(shop.client(token).get, "/v1/me/balance") for token in tokens]
    reader = shop.app.state.reader._gatherer
    texts: dict[int, list[str]] = {1: [], MANY: []}
    for number, noted in texts.items():
        answers = at_once(shop, reader, asks[:number], _noting(shop, noted))
        assert [answer.json()["balance"]["available"] for answer in answers] == [10 + n for n in range(number)]
    assert texts[1] == texts[MANY]
    change(shop, ids[1], "closed")
    answers = at_once(shop, reader, asks[:3])
    assert [answer.status_code for answer in answers] == [200, 401, 200]
    assert [answer.json() for answer in answers[::2]] == [shop.get(f"/v1/members/{id_}/balance") for id_ in ids[:3:2]]
    with another(shop, database_url, readers=0) as other:
        assert told(answers) == told([other.client(token).get("/v1/me/balance") for token in tokens[:3]])


# --- what somebody else does ------------------------------------------------------------------------------------------


def test_locked_accounts_delay_nobody_else(engines: Engines) -> None:
    """Two accounts are locked all the while that a hundred requests of others and forty about them are answered. A
    worker meets the locks when it meets each for the first time, and while it looks for who is to blame: not with each
    request, or batch."""
    met: list[str] = []
    url = engines.fresh("postgresql")
    with open_shop(settings_for(url, **PATIENT, lock_timeout_ms=500), TestClock(), OFFERING) as shop:
        cards = [str(number) for number in range(22)]
        ids = [earn(shop, 100, card) for card in cards]
        for each in shop.database.engines:
            event.listen(each, "handle_error", lambda error: met.append(threading.current_thread().name))

        def till(card: str) -> list[Any]:
            """Its customers come one after the other."""
            bodies = [purchase(f"{card}-{number}", member={"card": card}) for number in range(4)]
            reserved = Call("/v1/holds", {"member": {"card": card}, "points": 1, "minutes": 60})
            return [*map(shop.post, bodies), send(shop, reserved)]

        with ThreadPoolExecutor(len(cards) + 20) as pool, locked(shop, ids[:2]) as let_go:
            stuck = [pool.submit(till, card) for card in cards[:2] * 4]
            free = [pool.submit(till, card) for card in cards[2:]]
            assert {answer.status_code for till_ in free for answer in till_.result()} == {201}
            refused = [answer for till_ in stuck for answer in till_.result()]
            assert {answer.status_code for answer in refused} == {503}
            assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
            assert met.count("gatherer-0") < len(refused)
            let_go()
            assert {answer.status_code for card in cards[:2] for answer in till(card)} == {201}
        assert shop.get(f"/v1/members/{ids[0]}/balance")["balance"]["available"] == 100 + 4 * 10 - 1
        shop.prove()


def test_a_lock_that_goes_in_time_is_waited_for(engines: Engines) -> None:
    """The receipts of a member are recorded in the order in which they came."""
    url = engines.fresh("postgresql")
    with open_shop(settings_for(url, **PATIENT, lock_timeout_ms=20_000), TestClock()) as shop:
        ids = [earn(shop, 100, card) for card in ("900", "901")]
        calls = [
            Call("/v1/transactions", purchase(f"{number}", member={"card": ("900", "901")[number % 2]}))
            for number in range(20)
        ]
        with ThreadPoolExecutor(1) as pool, locked(shop, ids[:1]) as let_go:
            answers = pool.submit(together, shop, calls)
            while not shop.app.state.writer._gatherer._aside:
                time.sleep(0.01)
            let_go()
            assert {answer.status_code for answer in answers.result()} == {201}
        ours = PointEntry.document_id == Transaction.id
        said = select(Transaction.external_id).join(PointEntry, ours).where(PointEntry.member_id == UUID(ids[0]))
        recorded = shop.database.read(lambda session: session.scalars(said.order_by(PointEntry.number)).all())
        assert recorded[1:] == [str(number) for number in range(0, 20, 2)]


def test_a_receipt_in_progress_elsewhere_refuses_itself_alone(engines: Engines) -> None:
    url = engines.fresh("postgresql")
    with open_shop(settings_for(url, **PATIENT, lock_timeout_ms=300), TestClock()) as shop:
        calls = [Call("/v1/transactions", purchase(f"{n}", member={"card": str(900 + n)})) for n in range(9)]
        for call in calls:
            earn(shop, 1, call.body["member"]["card"])
        taken = insert(TransactionKey).values(
            program_id=shop.program_id, source="store-1", external_id="4", type="purchase", transaction_id=UUID(int=4)
        )
        with shop.database.engine.connect() as connection:
            connection.execute(taken)
            answers = together(shop, calls)
            connection.rollback()
        assert [answer.status_code for answer in answers] == [201] * 4 + [409] + [201] * 4
        assert answers[4].json()["code"] == "idempotency_in_progress"
        assert send(shop, calls[4]).status_code == 201


def test_nobody_becomes_a_member_to_be_refused(database_url: str) -> None:
    """Cards that nobody has and that are to pay with points: they are refused in the batch of the others."""
    tenders = [{"type": "points", "amount": 300}, {"type": "cash", "amount": 700}]
    offered = TERMS | {"points_tender": {"value": {"amount": 1, "points": 1}}}
    with open_shop(settings_for(database_url, **PATIENT), TestClock(), offered) as shop:
        calls = [Call("/v1/transactions", purchase(f"cash-{n}", member={"card": f"{n}"})) for n in range(6)]
        paid = [purchase(f"paid-{n}", tenders=tenders, member={"card": f"nobody-{n}"}) for n in range(3)]
        with statements(shop.database) as noted:
            answers = together(shop, [*calls, *(Call("/v1/transactions", body) for body in paid)])
        assert [answer.status_code for answer in answers] == [201] * 6 + [422] * 3
        assert [answer.json()["missing"] for answer in answers[6:]] == [300] * 3
        assert sum("INTO transaction " in statement.replace('"', "") for statement in noted) == 1, (
            "one batch, not its halves"
        )


def test_slow_reads_take_no_connection_from_what_is_gathered(database_url: str) -> None:
    """All that reports and lists may have are taken: purchases, balances and the keys of callers need none of them."""
    settings = settings_for(database_url, **PATIENT, pool_size=2, pool_wait_seconds=0.05)
    with open_shop(settings, TestClock()) as shop, ExitStack() as reports:
        member_id = earn(shop, 10)
        for _ in range(2):
            reports.enter_context(shop.database.engine.connect())
        assert shop.http.get("/v1/holds").status_code == 503
        assert shop.post(purchase("another")).status_code == 201
        assert shop.get(f"/v1/members/{member_id}/balance")["balance"]["available"] == 20


def test_what_is_gathered_is_counted(database_url: str) -> None:
    """Per batch: its size, how long its first had waited, how many were left."""
    names = ("loyalty_gathered_batch_items", "loyalty_gathered_wait_seconds", "loyalty_gathered_left_items")

    def counted(what: str) -> list[float]:
        return [REGISTRY.get_sample_value(f"{name}_{what}", {"kind": "writes"}) or 0 for name in names]

    with open_shop(settings_for(database_url, **PATIENT, gathered_most=4), TestClock()) as shop:
        before, sums = counted("count"), counted("sum")
        together(shop, [Call("/v1/transactions", purchase(f"r{number}")) for number in range(6)])
        # what occupied the worker, four and two
        assert [after - before for after, before in zip(counted("count"), before, strict=True)] == [3, 3, 3]
        items, waited, left = (after - before for after, before in zip(counted("sum"), sums, strict=True))
        assert (items, left) == (7, 2)
        assert waited > 0


# --- two processes --------------------------------------------------------------------------------------------------


@contextmanager
def another(shop: Shop, url: str, **changes: Any) -> Iterator[Shop]:
    """The same shop, served by an application of its own: what a second process is to the database."""
    app = create_app(settings_for(url, **PATIENT | changes), shop.clock)
    headers = {"Authorization": f"Bearer {shop.keys['staff']}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as http:
        yield replace(shop, app=app, http=http)


def test_two_processes_do_not_deadlock(engines: Engines, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two gatherers on one database, requests of many kinds about a few members, in all orders: everybody locks in one
    order, so that the database never has to break a deadlock. Locks are waited for until it would."""
    monkeypatch.setitem(db._MS, db.Patience.BRIEF, 30_000)
    url, refused = engines.fresh(engine), []
    cards = [str(number) for number in range(6)]
    patient = PATIENT | {"lock_timeout_ms": 30_000}
    with open_shop(settings_for(url, **patient), TestClock(), OFFERING | {"transfers": {}}) as shop:
        stocked(shop)
        for card in cards:
            earn(shop, 1000, card)
        pools = [household(shop, *cards[::2]), household(shop, *cards[1::2])]
        guests = [bought(shop, f"g{n}", None) for n in range(10)]
        orders = [ordered(shop, "mug", card)["id"] for card in cards * 4]
        calls = [gift(2 + n % 3, cards[n % 6], cards[(n + 1 + n % 5) % 6]) for n in range(40)]
        calls += [drawing(pools[n % 2], 1000 + n, cards[n % 6]) for n in range(20)]
        calls += [adjustment(1, card=cards[n % 6]) for n in range(20)]
        calls += [ending(order, ("fulfilment", "cancellation")[n % 2]) for n, order in enumerate(orders)]
        calls += [claiming(guests[n % 10], cards[n % 6]) for n in range(20)]
        Random(9).shuffle(calls)
        with another(shop, url, lock_timeout_ms=30_000) as other, ThreadPoolExecutor(24) as pool:
            for each in (*shop.database.engines, *other.database.engines):
                event.listen(each, "handle_error", lambda error: refused.append(error.original_exception))
            answers = list(pool.map(lambda each: send(*each), zip([shop, other] * 62, calls, strict=True)))
        assert refused == []
        assert {answer.status_code for answer in answers} <= {200, 201, 409}
        total = sum(shop.get("/v1/members/lookup", card=card)["balance"]["available"] for card in cards)
        assert total == 6000 + 20 + 10 * len(guests) - 10 * len(orders) // 2
        shop.prove()
