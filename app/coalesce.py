"""Group commit and gathered reads: what many callers ask at once is carried out as one batch.

Nothing waits for a batch to fill. A worker that is free takes whatever is there, so batches are of one when little
comes, and grow with the load by themselves: while one is being carried out, the next collects. Each caller gets an
answer of its own, once the batch is committed.
"""

import threading
import time
from asyncio import AbstractEventLoop, Future, get_running_loop
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, cast

import structlog
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.clock import Clock
from app.db import Database
from app.errors import Busy

Item = TypeVar("Item")
Result = TypeVar("Result")
Run = Callable[[Sequence[Item]], Sequence[Result | Exception]]
"""Carries out a batch: a result or a refusal for each item, in order. What it raises concerns the whole batch."""


@dataclass(eq=False, slots=True)
class _Asked:
    """One item that waits for its turn. `keys`: what no two workers may work on at the same moment."""

    item: Any
    run: Run[Any, Any]
    keys: Collection[Hashable]
    future: Future[Any]
    until: float
    since: float = field(default_factory=time.monotonic)


class Gatherer:
    """Workers, and what waits for them: a lane per kind of work, since a batch is of one kind."""

    def __init__(self, workers: int, *, largest: int, waiting: int, seconds: float):
        """At most `largest` items in a batch and `waiting` in the lanes; an item waits `seconds` at most.

        With 0 workers nothing is gathered: each item is a batch of its own, in its caller's thread.
        """
        self._workers, self._largest, self._most_waiting, self._seconds = workers, largest, waiting, seconds
        self._lanes: dict[Hashable, deque[_Asked]] = {}
        self._under_way: set[Hashable] = set()
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    async def ask(self, lane: Hashable, run: Run[Item, Result], item: Item, keys: Collection[Hashable] = ()) -> Result:
        """The result for `item`, carried out with whatever else waits in its `lane`; its refusal is raised.

        Items that share one of `keys` are never carried out at the same moment: the second finds what the first did.
        Busy if too many wait, or for too long.
        """
        if not self._workers:
            return cast("Result", _raised(await run_in_threadpool(_alone, run, item)))
        asked = _Asked(item, run, keys, get_running_loop().create_future(), time.monotonic() + self._seconds)
        with self._changed:
            if self._closed or self._waiting >= self._most_waiting:
                raise Busy
            self._start()
            self._lanes.setdefault(lane, deque()).append(asked)
            self._waiting += 1
            self._changed.notify()
        return cast("Result", _raised(await asked.future))

    def close(self) -> None:
        """Takes nothing more until all that waits has been carried out and the workers have gone. Whoever asks after
        that finds new ones."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._closed = False

    def _start(self) -> None:
        """Starts the workers with the first item: an application that is only described needs none."""
        while len(self._threads) < self._workers:
            thread = threading.Thread(target=self._work, name=f"gatherer-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while batch := self._next():
            try:
                _deliver(batch, _carry_out(batch))
            finally:
                with self._changed:
                    self._under_way.difference_update(*(asked.keys for asked in batch))
                    self._changed.notify_all()

    def _next(self) -> list[_Asked]:
        """The next batch, once there is one; nothing when all is done and no more will come."""
        with self._changed:
            while True:
                for lane in sorted(self._lanes, key=lambda lane: self._lanes[lane][0].since):
                    if batch := self._taken(lane):
                        return batch
                if self._closed and not self._waiting:
                    return []
                self._changed.wait()

    def _taken(self, lane: Hashable) -> list[_Asked]:
        """What can be carried out of a lane now, oldest first."""
        batch: list[_Asked] = []
        stay: deque[_Asked] = deque()
        waiting = self._lanes.pop(lane)
        while waiting and len(batch) < self._largest:
            asked = waiting.popleft()
            (stay if self._under_way.intersection(asked.keys) else batch).append(asked)
        stay.extend(waiting)
        if stay:
            self._lanes[lane] = stay
        self._under_way.update(*(asked.keys for asked in batch))
        self._waiting -= len(batch)
        return batch


def _carry_out(batch: Sequence[_Asked]) -> list[Any]:
    """The outcomes of a batch. Whoever has waited too long is refused."""
    now = time.monotonic()
    outcomes = iter(_together([asked for asked in batch if now < asked.until]))
    return [next(outcomes) if now < asked.until else Busy() for asked in batch]


def _together(batch: Sequence[_Asked]) -> list[Any]:
    """If a batch fails as a whole its items are carried out one by one: the one that is to blame fails alone."""
    if len(batch) > 1:
        try:
            return list(batch[0].run([asked.item for asked in batch]))
        except Exception:
            structlog.get_logger().warning("a batch failed as a whole and runs item by item", exc_info=True)
    return [_alone(asked.run, asked.item) if time.monotonic() < asked.until else Busy() for asked in batch]


def _alone(run: Run[Any, Any], item: Any) -> Any:
    try:
        return run([item])[0]
    except Exception as error:
        return error


def _raised(outcome: Any) -> Any:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _deliver(batch: Sequence[_Asked], outcomes: Sequence[Any]) -> None:
    """Hands every caller its outcome, in one step per event loop."""
    loops: dict[AbstractEventLoop, list[tuple[Future[Any], Any]]] = {}
    for asked, outcome in zip(batch, outcomes, strict=True):
        loops.setdefault(asked.future.get_loop(), []).append((asked.future, outcome))
    for loop, pairs in loops.items():
        with suppress(RuntimeError):  # the loop has been closed: nobody is there to be told
            loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: Sequence[tuple[Future[Any], Any]]) -> None:
    for future, outcome in pairs:
        if not future.done():  # its caller may have gone
            future.set_result(outcome)


Read = Callable[[Session, Sequence[Item], datetime], Sequence[Result | Exception]]
"""Answers reads of one kind from one snapshot: a result or a refusal for each, in order."""


class Reader:
    """Answers reads that come one by one, many from one snapshot."""

    def __init__(self, database: Database, clock: Clock, gatherer: Gatherer):
        self._database, self._clock, self._gatherer = database, clock, gatherer

    async def ask(self, lane: Hashable, read: Read[Item, Result], item: Item) -> Result:
        """What `read` answers for `item`, together with all that is asked for in its `lane`: it depends on nothing
        else."""

        def run(items: Sequence[Item]) -> Sequence[Result | Exception]:
            now = self._clock()
            return self._database.read(lambda session: read(session, items, now))

        return await self._gatherer.ask(lane, run, item)
