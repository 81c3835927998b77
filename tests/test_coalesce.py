"""Group commit: batches grow with the load, and nobody suffers for somebody else's item."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import coalesce, db
from app.coalesce import Gatherer, Run
from app.db import Database, Patience
from app.errors import Busy, Problem
from app.idempotency import IdempotencyInProgress
from app.ids import new_id
from app.programs.models import Program

SECONDS = 5.0


class Kitchen:
    """Carries out batches slowly enough that others collect meanwhile; doubles every item."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds
        self.batches: list[list[Any]] = []
        self.at_once: list[list[list[Any]]] = []
        """The batches that were under way whenever one began."""
        self.now: list[list[Any]] = []
        self.lock = threading.Lock()

    def run(self, items: Sequence[Any], _patience: Patience) -> list[Any]:
        with self.lock:
            batch = list(items)
            self.batches.append(batch)
            self.now.append(batch)
            self.at_once.append(list(self.now))
        time.sleep(self.seconds)
        with self.lock:
            self.now.remove(batch)
        return [self.made_of(item) for item in items]

    def made_of(self, item: Any) -> Any:
        return item * 2


def gatherer(workers: int = 1, largest: int = 10, waiting: int = 100, seconds: float = SECONDS) -> Gatherer:
    return Gatherer(workers, largest=largest, waiting=waiting, seconds=seconds)


def ask_all(
    made: Gatherer,
    run: Run[Any, Any],
    items: Sequence[Any],
    keys: Callable[[Any], Sequence[Any]] = lambda _: (),
    lane: Callable[[Any], Any] = lambda _: "a lane",
) -> list[Any]:
    """Asks for all at once; answers each result or refusal."""

    async def ask() -> list[Any]:
        asked = [made.ask(lane(item), run, item, keys(item)) for item in items]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    try:
        return asyncio.run(ask())
    finally:
        made.close()


def test_what_comes_while_a_batch_is_carried_out_is_the_next_batch() -> None:
    kitchen = Kitchen()
    assert ask_all(gatherer(), kitchen.run, range(25)) == [item * 2 for item in range(25)]
    sizes = [len(batch) for batch in kitchen.batches]
    assert sum(sizes) == 25
    assert max(sizes) == 10, "never more than the largest"
    assert len(sizes) <= 4, "one for whoever came first, then whole batches"
    assert [item for batch in kitchen.batches for item in batch] == list(range(25)), "in the order they came"


def test_one_alone_waits_for_nobody() -> None:
    kitchen = Kitchen(seconds=0)
    started = time.monotonic()
    assert ask_all(gatherer(), kitchen.run, [7]) == [14]
    assert time.monotonic() - started < 1
    assert kitchen.batches == [[7]]


def test_a_batch_is_of_one_kind() -> None:
    kitchen = Kitchen()
    ask_all(gatherer(), kitchen.run, range(20), lane=lambda item: item % 2)
    assert all(len({item % 2 for item in batch}) == 1 for batch in kitchen.batches)


def test_a_refusal_is_the_answer_of_one() -> None:
    class Strict(Kitchen):
        def made_of(self, item: Any) -> Any:
            return ValueError(item) if item == 3 else super().made_of(item)

    kitchen = Strict()
    answers = ask_all(gatherer(), kitchen.run, range(6))
    assert [str(answer) if isinstance(answer, ValueError) else answer for answer in answers] == [0, 2, 4, "3", 8, 10]
    assert len(kitchen.batches) < 6, "it does not disturb its neighbours"


def test_a_poisonous_item_fails_alone() -> None:
    class Poisoned(Kitchen):
        def made_of(self, item: Any) -> Any:
            if item == 3:
                raise RuntimeError("poison")
            return super().made_of(item)

    answers = ask_all(gatherer(), Poisoned().run, range(6))
    assert [type(answer).__name__ for answer in answers] == ["int"] * 3 + ["RuntimeError"] + ["int"] * 2


def test_when_too_many_wait_the_next_is_refused() -> None:
    answers = ask_all(gatherer(largest=1, waiting=3), Kitchen().run, range(20))
    refused = [answer for answer in answers if isinstance(answer, Busy)]
    assert 0 < len(refused) <= 17
    assert refused[0].retry_after == 1
    assert answers[:3] == [0, 2, 4], "those who were there first are served"


def test_who_has_waited_too_long_is_refused_and_not_carried_out() -> None:
    kitchen = Kitchen(seconds=0.1)
    answers = ask_all(gatherer(largest=1, seconds=0.25), kitchen.run, range(10))
    served = [item for batch in kitchen.batches for item in batch]
    assert 1 <= len(served) < 10
    assert [index for index, answer in enumerate(answers) if not isinstance(answer, Busy)] == served


def test_who_has_waited_too_long_is_refused_though_no_worker_is_free() -> None:
    async def ask() -> tuple[list[Any], float]:
        first = asyncio.ensure_future(made.ask("lane", Kitchen(seconds=1.5).run, 1))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        others = [made.ask("lane", Kitchen().run, item) for item in range(5)]
        answers = list(await asyncio.gather(*others, return_exceptions=True))
        waited = time.monotonic() - started
        return [await first, *answers], waited

    made = gatherer(seconds=0.2)
    answers, waited = asyncio.run(ask())
    made.close()
    assert answers[0] == 2
    assert all(isinstance(answer, Busy) for answer in answers[1:])
    assert waited < 1, "long before the worker is free"


def test_a_worker_survives_what_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("not foreseen")

    made = gatherer()

    async def ask() -> list[Any]:
        with monkeypatch.context() as patched:
            patched.setattr(coalesce, "by_halves", broken)
            failed = await asyncio.gather(made.ask("lane", Kitchen().run, 1), return_exceptions=True)
        return [*failed, await made.ask("lane", Kitchen().run, 2)]

    failed, served = asyncio.run(ask())
    made.close()
    assert isinstance(failed, RuntimeError)
    assert served == 4


@pytest.mark.parametrize("workers", [1, 4])
def test_who_shares_a_key_is_never_worked_on_by_two(workers: int) -> None:
    """They may be in one batch, which sees to it itself."""
    kitchen = Kitchen()
    made = gatherer(workers, largest=4)
    assert ask_all(made, kitchen.run, range(24), keys=lambda item: [item % 3]) == [item * 2 for item in range(24)]
    for batches in kitchen.at_once:
        keys = [item % 3 for batch in batches for item in {item % 3 for item in batch}]
        assert len(keys) == len(set(keys))


def test_several_workers_work_at_once() -> None:
    kitchen = Kitchen(seconds=0.1)
    ask_all(gatherer(3, largest=1), kitchen.run, range(6))
    assert max(len(now) for now in kitchen.at_once) == 3


def test_what_waits_when_it_closes_is_carried_out_and_no_more_is_taken() -> None:
    kitchen, made = Kitchen(seconds=0.05), gatherer(largest=2)

    async def ask() -> list[Any]:
        asked = [asyncio.ensure_future(made.ask("a lane", kitchen.run, item)) for item in range(7)]
        await asyncio.sleep(0.01)
        closing = asyncio.get_running_loop().run_in_executor(None, made.close)
        await asyncio.sleep(0.01)
        with pytest.raises(Busy):
            await made.ask("a lane", kitchen.run, 99)
        await closing
        return list(await asyncio.gather(*asked))

    assert asyncio.run(ask()) == [item * 2 for item in range(7)]
    assert ask_all(made, kitchen.run, [8]) == [16], "an application may be started again"


def test_without_workers_each_item_is_a_batch_in_its_own_thread() -> None:
    kitchen = Kitchen()
    assert ask_all(gatherer(workers=0), kitchen.run, range(5)) == [0, 2, 4, 6, 8]
    assert sorted(kitchen.batches) == [[item] for item in range(5)]


def test_a_caller_who_has_gone_does_no_harm() -> None:
    kitchen, made = Kitchen(seconds=0.05), gatherer()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(made.ask("a lane", kitchen.run, 1), 0.01)

    asyncio.run(give_up())  # its loop is closed by the time the answer is there
    assert ask_all(made, kitchen.run, [2]) == [4]


@pytest.mark.parametrize("fault", [SystemExit(1), None], ids=["exits", "leaves one out"])
def test_a_worker_survives_whatever_a_batch_does(fault: BaseException | None) -> None:
    class Faulty(Kitchen):
        def run(self, items: Sequence[Any], patience: Patience) -> list[Any]:
            outcomes = super().run(items, patience)
            if 3 not in items:
                return outcomes
            if fault is not None:
                raise fault
            return outcomes[:-1]

    made = gatherer()
    try:
        answers = asyncio.run(_all(made, Faulty().run, range(6)))
        assert [type(answer).__name__ for answer in answers] == ["int"] * 3 + ["RuntimeError"] + ["int"] * 2
        assert asyncio.run(_all(made, Faulty().run, [8])) == [16], "the same worker goes on"
        assert {thread.is_alive() for thread in made._threads} == {True}
    finally:
        made.close()


async def _all(made: Gatherer, run: Run[Any, Any], items: Sequence[Any]) -> list[Any]:
    asked = [made.ask("a lane", run, item) for item in items]
    return list(await asyncio.gather(*asked, return_exceptions=True))


# --- while the database writes --------------------------------------------------------------------------------------


class Till(Kitchen):
    """Writes a row for each batch. `decides` and `has_written` are what is done before and after that, with the number
    of the batch."""

    def __init__(self, database: Database, decides: Callable[[int], None], has_written: Callable[[int], None]) -> None:
        super().__init__(seconds=0)
        self.database, self.decides, self.has_written = database, decides, has_written

    def run(self, items: Sequence[Any], patience: Patience) -> list[Any]:
        answers, number = super().run(items, patience), len(self.batches)

        def write(session: Session) -> None:
            self.decides(number)
            with db.together(session):
                row = {"id": new_id(), "code": f"batch-{number}", "name": "", "created_at": datetime.now(UTC)}
                db.insert_rows(session, Program, [row])
            self.has_written(number)

        self.database.write(write, patience=patience)
        return answers


def told_when(database: Database, waiting: int, decides: Callable[[int, threading.Event], None]) -> bool:
    """Whether whoever asked first is told before the second batch, of those who were `waiting`, is written for good."""
    told, all_wait, seen = threading.Event(), threading.Event(), []

    def before(number: int) -> None:
        if number == 1:
            assert all_wait.wait(SECONDS)
        else:
            decides(number, told)

    def after(number: int) -> None:
        if number > 1:
            seen.append(told.wait(SECONDS))

    made = Gatherer(1, largest=100, waiting=100, seconds=60, later=True)
    till = Till(database, before, after)

    async def ask() -> None:
        first = asyncio.ensure_future(made.ask("a lane", till.run, 0))
        first.add_done_callback(lambda _: told.set())
        while not till.batches:
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(made.ask("a lane", till.run, number)) for number in range(1, waiting + 1)]
        while made._waiting < waiting:
            await asyncio.sleep(0.001)
        all_wait.set()
        assert await asyncio.gather(first, *others) == [2 * number for number in range(waiting + 1)]

    try:
        asyncio.run(ask())
    finally:
        made.close()
    return all(seen) and bool(seen)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, nobody is told because time is up."""
    monkeypatch.setattr(coalesce, "_LATEST_SECONDS", 10 * SECONDS)


@pytest.mark.usefixtures("unhurried")
def test_outcomes_are_told_while_the_database_writes_for_those_who_wait(database: Database) -> None:
    def decides(_number: int, told: threading.Event) -> None:
        assert told.wait(0.05) == database.one_writer, "many wait, and nobody is in the way of their batch"

    assert told_when(database, coalesce._MANY, decides)


@pytest.mark.usefixtures("unhurried")
def test_where_few_wait_outcomes_are_told_first(database: Database) -> None:
    def decides(_number: int, told: threading.Event) -> None:
        assert told.wait(SECONDS)

    assert told_when(database, coalesce._MANY - 1, decides)


@pytest.mark.usefixtures("unhurried")
def test_outcomes_wait_for_no_batch_that_fails(database: Database) -> None:
    def decides(number: int, told: threading.Event) -> None:
        if number == 2:
            assert told.wait(0.05) == database.one_writer
            raise RuntimeError("a batch that fails as a whole")
        assert told.wait(SECONDS), "its halves are carried out when that has been told"

    assert told_when(database, coalesce._MANY, decides)


def test_outcomes_wait_for_nothing_that_holds_up_a_batch(database: Database) -> None:
    def decides(_number: int, told: threading.Event) -> None:
        assert told.wait(SECONDS)

    assert told_when(database, coalesce._MANY, decides)


# --- somebody else's lock -------------------------------------------------------------------------------------------


class Locked(Kitchen):
    """Items are (members, number). Those about one of `locked` meet a lock, as `refusal`."""

    def __init__(self, *locked: str, refusal: type[Problem] = Busy) -> None:
        super().__init__(seconds=0.001)
        self.locked = set(locked)
        self.refusal = refusal
        self.done: list[Any] = []
        self.met = 0
        """How often an ordinary worker met a lock."""
        self.tried: list[str] = []
        """Who was tried apart, and met one."""

    def run(self, items: Sequence[Any], patience: Patience) -> list[Any]:
        ordinary = threading.current_thread().name != "gatherer-aside"
        if any(self.locked.intersection(members) for members, _ in items):
            self.met += ordinary
            if not ordinary:
                self.tried.append(items[0][0])
            time.sleep({Patience.BRIEF: 0.02, Patience.LONG: 0.02, Patience.NONE: 0.001}[patience])
            raise self.refusal from OperationalError("", {}, LockNotAvailable())
        outcomes = super().run(items, patience)
        self.done += items
        return outcomes

    def made_of(self, item: Any) -> Any:
        return item


def about(made: Gatherer, kitchen: Locked, item: tuple[str, int]) -> asyncio.Task[Any]:
    """Asks for an item, whose number is its key, about its members."""
    members, number = item
    return asyncio.ensure_future(made.ask("a lane", kitchen.run, item, [number], members))


def lockable(lock_seconds: float = 30) -> Gatherer:
    return Gatherer(1, largest=100, waiting=1000, seconds=60, lock_seconds=lock_seconds)


def test_what_meets_a_lock_is_set_aside_and_the_others_go_on() -> None:
    """As long as the lock is there nobody waits for it but those about the same member, and nothing of a member
    overtakes."""
    kitchen, made = Locked("a", "b"), lockable()

    async def ask() -> None:
        stuck, free = [], []
        for number in range(100):
            if number % 3 == 0:
                stuck.append(about(made, kitchen, ("ab"[number % 2], number)))
            free.append(about(made, kitchen, ("cdef"[number % 4], 1000 + number)))
            await asyncio.sleep(0.001)
        await asyncio.gather(*free)
        assert not any(task.done() for task in stuck), "they wait, and nobody for them"
        assert kitchen.met <= 2 * 8, "an ordinary worker meets a lock once, and while it looks for who is to blame"
        assert [len(kitchen.done), len(made._aside)] == [100, 34]
        kitchen.locked.clear()
        await asyncio.gather(*stuck)

    try:
        asyncio.run(ask())
    finally:
        made.close()
    for member in "abcdef":
        numbers = [number for members, number in kitchen.done if members == member]
        assert numbers == sorted(numbers)


def test_who_waits_too_long_for_a_lock_is_busy_and_served_later() -> None:
    kitchen, made = Locked("a"), lockable(lock_seconds=0.1)

    async def ask() -> None:
        stuck = [about(made, kitchen, ("a", number)) for number in range(20)]
        refused = await asyncio.gather(*stuck, return_exceptions=True)
        assert {type(each) for each in refused} == {Busy}
        assert kitchen.met <= 8
        again = about(made, kitchen, ("a", 20))
        await asyncio.gather(again, return_exceptions=True)
        assert kitchen.met <= 8, "it is known to be locked"
        kitchen.locked.clear()
        assert await about(made, kitchen, ("a", 21)) == ("a", 21)
        assert not made._suspects.keys() & {"a"}, "and then not to be"

    try:
        asyncio.run(ask())
    finally:
        made.close()


def test_those_who_are_locked_take_turns() -> None:
    """However many wait behind one of them: its next does not come before the other's turn."""
    kitchen, made = Locked("a", "b"), lockable(lock_seconds=0.05)

    async def ask() -> None:
        stuck = []
        for number in range(100):
            stuck.append(about(made, kitchen, ("aaab"[number % 4], number)))
            await asyncio.sleep(0.005)
        await asyncio.gather(*stuck, return_exceptions=True)

    try:
        asyncio.run(ask())
    finally:
        made.close()
    assert max(len(list(run)) for _, run in groupby(kitchen.tried)) <= 4
    assert min(kitchen.tried.count(member) for member in "ab") > 3


def test_who_shares_an_item_with_a_locked_member_is_not_to_blame() -> None:
    """A gift needs two accounts; the other one goes on."""
    kitchen, made = Locked("a"), lockable()

    async def ask() -> None:
        gift = about(made, kitchen, ("ab", 1))
        while not made._aside:
            await asyncio.sleep(0.001)
        await asyncio.gather(*(about(made, kitchen, ("b", number)) for number in range(10, 15)))
        assert not gift.done()
        kitchen.locked.clear()
        await gift

    try:
        asyncio.run(ask())
    finally:
        made.close()


def test_a_key_that_is_locked_elsewhere_refuses_its_item_alone() -> None:
    """The same member's next purchase waits for it, and is carried out then."""

    class Claimed(Locked):
        def run(self, items: Sequence[Any], patience: Patience) -> list[Any]:
            self.locked = {"a"} if any(number == 1 for _, number in items) else set()
            return super().run(items, patience)

    kitchen, made = Claimed(refusal=IdempotencyInProgress), lockable(lock_seconds=0.1)

    async def ask() -> list[Any]:
        tasks = [about(made, kitchen, ("a", number)) for number in (1, 2, 3)]
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    try:
        first, *others = asyncio.run(ask())
    finally:
        made.close()
    assert isinstance(first, IdempotencyInProgress)
    assert others == [("a", 2), ("a", 3)]


def test_what_is_set_aside_is_answered_when_it_closes() -> None:
    kitchen, made = Locked("a"), lockable(lock_seconds=0.2)

    async def ask() -> Any:
        stuck = about(made, kitchen, ("a", 1))
        while not made._aside:
            await asyncio.sleep(0.001)
        await asyncio.get_running_loop().run_in_executor(None, made.close)
        return (await asyncio.gather(stuck, return_exceptions=True))[0]

    assert isinstance(asyncio.run(ask()), Busy)


def test_not_more_are_set_aside_than_a_batch_holds() -> None:
    """Each of them is a request under way: they must not be all that there may be."""
    kitchen = Locked("a")
    made = Gatherer(1, largest=5, waiting=100, seconds=60, lock_seconds=0.2)

    async def ask() -> None:
        stuck = [about(made, kitchen, ("a", number)) for number in range(20)]
        done, _ = await asyncio.wait(stuck, return_when=asyncio.FIRST_COMPLETED)
        assert len(made._aside) == 5
        assert isinstance(done.pop().exception(), Busy)
        await asyncio.gather(*stuck, return_exceptions=True)

    try:
        asyncio.run(ask())
    finally:
        made.close()


def test_a_batch_that_is_busy_as_a_whole_is_not_taken_apart() -> None:
    """No connection, or another writer of an SQLite file: each item alone would wait for that again."""

    class Shut(Kitchen):
        def made_of(self, item: Any) -> Any:
            raise Busy

    kitchen = Shut(seconds=0.05)
    answers = ask_all(gatherer(), kitchen.run, range(5))
    assert {type(answer) for answer in answers} == {Busy}
    assert sum(len(batch) for batch in kitchen.batches) == 5
