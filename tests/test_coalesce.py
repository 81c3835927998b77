"""Group commit: batches grow with the load, and nobody suffers for somebody else's item."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from app.coalesce import Gatherer, Run
from app.db import Patience
from app.errors import Busy

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
