"""Group commit and gathered reads: what many callers ask at once is carried out as one batch.

Nothing waits for a batch to fill. A worker that is free takes whatever is there, so batches are of one when little
comes, and grow with the load by themselves: while one is being carried out, the next collects. Each caller gets an
answer of its own, once the batch is committed.

A batch that fails as a whole is halved until the items to blame stand alone. One that needs a row which somebody else
has locked is set aside, and so is from then on what has to do with it: a thread of its own tries them again and again,
one by one, and no batch waits for them.
"""

import threading
import time
from asyncio import AbstractEventLoop, Future, get_running_loop
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar, cast

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app import telemetry
from app.clock import Clock
from app.db import Database, Patience, meanwhile, met_a_lock
from app.errors import Busy
from app.halving import by_halves

Item = TypeVar("Item")
Result = TypeVar("Result")
Run = Callable[[Sequence[Item], Patience], Sequence[Result | Exception]]
"""Carries out a batch: a result or a refusal for each item, in order. What it raises concerns the whole batch."""

_SUSPECT_SECONDS = 60.0
"""How long an item is set aside at once because one that had to do with it met a lock. If that has gone, a transaction
of its own is all that costs."""

_FEW = 3

_MANY = 8
"""From so many on a batch takes Python long enough that callers who get their outcomes meanwhile are in its way."""

_LATEST_SECONDS = 0.1
"""How long outcomes are kept for that at the most: the next batch may meet whatever holds it up."""


@dataclass(eq=False, slots=True)
class _Asked:
    """One item that waits for its turn. `marks`: its keys and what it is about. `until`: when it is refused without
    having been carried out; `patience`: when it has waited long enough for a lock."""

    lane: Hashable
    item: Any
    run: Run[Any, Any]
    keys: frozenset[Hashable]
    about: frozenset[Hashable]
    marks: frozenset[Hashable]
    future: Future[Any]
    until: float
    since: float = field(default_factory=time.monotonic)
    patience: float = 0.0
    tried: float = 0.0

    def behind(self, other: "_Asked") -> bool:
        """Whether it cannot go on before another that met a lock: they share a key, or all that the other is about.
        What is about a part of that only may have nothing to do with the lock."""
        return not self.keys.isdisjoint(other.keys) or (bool(other.about) and other.about <= self.about)


class Gatherer:
    """Workers, and what waits for them: a lane per kind of work, since a batch is of one kind."""

    def __init__(
        self,
        workers: int,
        *,
        largest: int,
        waiting: int,
        seconds: float,
        lock_seconds: float = 2.0,
        kind: str = "writes",
        later: bool = False,
    ):
        """At most `largest` items in a batch, as many set aside, and `waiting` in the lanes; an item waits `seconds` at
        most, and `lock_seconds` for a lock. `kind` labels its metrics. `later`: where many wait already,
        callers get their outcomes while the database writes the batch of those (`db.meanwhile`), not before.

        With 0 workers nothing is gathered: each item is a batch of its own, in its caller's thread.
        """
        self._workers, self._largest, self._most_waiting, self._seconds = workers, largest, waiting, seconds
        self._lock_seconds, self._metrics, self._later = lock_seconds, telemetry.Gathered(kind), later
        self._lanes: dict[Hashable, deque[_Asked]] = {}
        self._aside: list[_Asked] = []
        self._suspects: dict[Hashable, float] = {}
        """Marks of what has met a lock, and until when to expect that again."""
        self._under_way: set[Hashable] = set()
        self._waiting = 0
        self._working = 0
        self._closed = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._some_aside = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []

    async def ask(
        self,
        lane: Hashable,
        run: Run[Item, Result],
        item: Item,
        keys: Collection[Hashable] = (),
        about: Collection[Hashable] = (),
    ) -> Result:
        """The result for `item`, carried out with whatever else waits in its `lane`; its refusal is raised.

        Items that share one of `keys`, which say what they are, or `about`, whose rows they need, are never in two
        batches at the same moment, and are carried out in their order, also if somebody else's lock is in their way.
        Busy if too many wait, or for too long.
        """
        if not self._workers:
            return cast("Result", _raised(await run_in_threadpool(_alone, run, item, Patience.USUAL)))
        named, concerned = frozenset(keys), frozenset(about)
        future, until = get_running_loop().create_future(), time.monotonic() + self._seconds
        asked = _Asked(lane, item, run, named, concerned, named | concerned, future, until)
        with self._lock:
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
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            self._some_aside.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._closed = False

    def _start(self) -> None:
        """Starts the workers with the first item: an application that is only described needs none."""
        if self._threads:
            return
        names = [f"gatherer-{number}" for number in range(self._workers)]
        works = [*((name, self._work) for name in names), ("gatherer-aside", self._work_aside)]
        self._threads += [threading.Thread(target=work, name=name, daemon=True) for name, work in works]
        for thread in self._threads:
            thread.start()

    # --- what the workers do ---

    def _work(self) -> None:
        told: _Told = []
        while (batch := self._next(wait=not told)) or told:
            if not self._later or len(batch) < _MANY:
                _deliver(told)
                told = []
            _deliver(told, _LATEST_SECONDS)
            with meanwhile(partial(_deliver, told)):
                told = self._carried_out(batch) if batch else []

    def _carried_out(self, batch: Sequence[_Asked]) -> "_Told":
        try:
            return self._carry_out(batch)
        except Exception as error:  # a defect of ours: nobody may wait for ever
            return [(asked, error) for asked in batch]
        finally:
            self._let_go(batch)

    def _next(self, *, wait: bool) -> list[_Asked]:
        """The next batch, once there is one; nothing when all is done and no more will come, or none to `wait` for."""
        with self._lock:
            while True:
                for lane in sorted(self._lanes, key=lambda lane: self._lanes[lane][0].since):
                    if batch := self._taken(lane):
                        self._metrics.batch(len(batch), time.monotonic() - batch[0].since, self._waiting)
                        return batch
                if not wait or self._over():
                    return []
                self._changed.wait()

    def _taken(self, lane: Hashable) -> list[_Asked]:
        """What can be carried out of a lane now, oldest first. Of what shares a mark nothing overtakes."""
        batch: list[_Asked] = []
        stay: deque[_Asked] = deque()
        theirs: set[Hashable] = set()
        waiting = self._lanes.pop(lane)
        while waiting and len(batch) < self._largest:
            asked = waiting.popleft()
            if self._suspect(asked):
                self._waiting -= 1
                self._put_aside(asked)
            elif self._under_way.isdisjoint(asked.marks) and theirs.isdisjoint(asked.marks):
                batch.append(asked)
            else:
                stay.append(asked)
                theirs.update(asked.marks)
        stay.extend(waiting)
        if stay:
            self._lanes[lane] = stay
        self._waiting -= len(batch)
        self._hold(batch)
        return batch

    def _carry_out(self, batch: Sequence[_Asked]) -> "_Told":
        """The outcomes of a batch, less those set aside; those of its parts, where it was halved, are handed over."""
        whole: _Told = []
        for part, told in by_halves(batch, self._outcomes, Patience.BRIEF):
            if isinstance(told, Exception):  # of several only if the database is busy
                outcomes = [(asked, told if len(part) == 1 else Busy()) for asked in self._ready(part)]
            else:
                outcomes = told
            if blocked := [asked for asked, outcome in outcomes if met_a_lock(outcome)]:
                with self._lock:
                    for asked in blocked:
                        self._suspect_all(asked.marks)
                        self._put_aside(asked)
            done = [(asked, outcome) for asked, outcome in outcomes if asked not in blocked]
            if len(part) == len(batch):
                whole = done
            else:
                _deliver(done)
        return whole

    def _outcomes(self, batch: Sequence[_Asked], patience: Patience) -> list[tuple[_Asked, Any]]:
        """What comes of those of a batch that are still to be carried out."""
        if not (batch := self._ready(batch)):
            return []
        return list(zip(batch, _run(batch[0].run, [asked.item for asked in batch], patience), strict=True))

    def _ready(self, batch: Sequence[_Asked]) -> Sequence[_Asked]:
        """Those who have not waited too long, less what is to be set aside by now; the former are refused."""
        now = time.monotonic()
        if late := [asked for asked in batch if now >= asked.until]:
            _refuse(late)
        if not late and not self._suspects:
            return batch
        ready = []
        with self._lock:
            for asked in batch:
                if now >= asked.until:
                    continue
                if self._suspect(asked):
                    self._put_aside(asked)
                else:
                    ready.append(asked)
        return ready

    # --- what has been set aside ---

    def _work_aside(self) -> None:
        while (chosen := self._next_aside()) is not None:
            asked, patience = chosen
            try:
                self._tried(asked, _alone(asked.run, asked.item, patience))
            finally:
                self._let_go([asked])

    def _next_aside(self) -> tuple[_Asked, Patience] | None:
        """Of those that are behind nobody, the one that was tried longest ago, and how long to try: less if many wait
        for their turn. Nothing when no more will come."""
        with self._lock:
            while True:
                now = time.monotonic()
                self._refuse_late(now)
                first: list[_Asked] = []
                for place, asked in enumerate(self._aside):
                    free = self._under_way.isdisjoint(asked.marks)
                    if free and not any(map(asked.behind, self._aside[:place])):
                        first.append(asked)
                if first:
                    chosen = min(first, key=lambda asked: asked.tried)
                    self._hold([chosen])
                    return chosen, Patience.LONG if len(first) <= _FEW else Patience.BRIEF
                if self._over():
                    return None
                self._some_aside.wait(self._seconds / 10)

    def _refuse_late(self, now: float) -> None:
        """Those in the lanes too: their worker may be held up."""
        late = [asked for asked in self._aside if now >= asked.until]
        self._leave(late)
        for lane, waiting in list(self._lanes.items()):
            if now >= min(asked.until for asked in waiting):
                late += [asked for asked in waiting if now >= asked.until]
                stay = deque(asked for asked in waiting if now < asked.until)
                self._waiting -= len(waiting) - len(stay)
                if stay:
                    self._lanes[lane] = stay
                else:
                    del self._lanes[lane]
        _refuse(late)

    def _tried(self, asked: _Asked, outcome: Any) -> None:
        """Hands it the outcome unless it goes on waiting for a lock, and lets go on who can.

        Who has waited as long behind it, for an account that is locked, is refused with it.
        """
        with self._lock:
            now, done = time.monotonic(), [asked]
            if met_a_lock(outcome):
                self._suspect_all(asked.marks)
                behind = [each for each in self._aside if each is not asked and each.behind(asked)]
                for each in (asked, *behind):  # whoever comes next here waits for the others' turns, too
                    each.tried = now
                if now < asked.patience:
                    return
                if isinstance(outcome, Busy):
                    done += [each for each in behind if now >= each.patience]
            else:
                for mark in asked.marks:
                    self._suspects.pop(mark, None)
            self._leave(done)
            free = [each for each in self._aside if not self._suspect(each)]
            self._leave(free)
            for each in reversed(free):
                self._lanes.setdefault(each.lane, deque()).appendleft(each)
            self._waiting += len(free)
        _deliver([(asked, outcome)])
        _refuse(done[1:])

    def _put_aside(self, asked: _Asked) -> None:
        if len(self._aside) >= self._largest:
            _refuse([asked])
            return
        asked.patience = min(asked.until, time.monotonic() + self._lock_seconds)
        self._aside.append(asked)
        self._metrics.set_aside()
        self._some_aside.notify()

    def _leave(self, those: Collection[_Asked]) -> None:
        self._aside = [asked for asked in self._aside if asked not in those]

    def _suspect(self, asked: _Asked) -> bool:
        if not self._suspects:
            return False
        now = time.monotonic()
        return any(self._suspects.get(mark, now) > now for mark in asked.marks)

    def _suspect_all(self, marks: Iterable[Hashable]) -> None:
        now = time.monotonic()
        self._suspects = {mark: until for mark, until in self._suspects.items() if until > now}
        self._suspects.update(dict.fromkeys(marks, now + _SUSPECT_SECONDS))

    # --- who works on what ---

    def _hold(self, batch: Sequence[_Asked]) -> None:
        self._under_way.update(*(asked.marks for asked in batch))
        self._working += bool(batch)

    def _let_go(self, batch: Sequence[_Asked]) -> None:
        with self._lock:
            self._under_way.difference_update(*(asked.marks for asked in batch))
            self._working -= 1
            self._changed.notify_all()
            self._some_aside.notify_all()

    def _over(self) -> bool:
        """Whether all is done and no more will come; then the others are told, too."""
        over = self._closed and not (self._waiting or self._aside or self._working)
        if over:
            self._changed.notify_all()
            self._some_aside.notify_all()
        return over


def _run(run: Run[Any, Any], items: Sequence[Any], patience: Patience) -> list[Any]:
    """What comes of a batch. Whatever goes wrong is raised as an Exception: its worker has to survive it."""
    try:
        outcomes = list(run(items, patience))
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError("a batch was broken off") from error
    if len(outcomes) != len(items):
        raise RuntimeError(f"a batch of {len(items)} had {len(outcomes)} outcomes")
    return outcomes


def _alone(run: Run[Any, Any], item: Any, patience: Patience) -> Any:
    try:
        return _run(run, [item], patience)[0]
    except Exception as error:
        return error


def _refuse(those: Sequence[_Asked]) -> None:
    _deliver((asked, Busy()) for asked in those)


def _raised(outcome: Any) -> Any:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


_Told = list[tuple[_Asked, Any]]
"""Outcomes, and who waits for them."""


def _deliver(told: Iterable[tuple[_Asked, Any]], seconds: float = 0) -> None:
    """Hands every caller its outcome, unless they have it by then, in one step per event loop."""
    loops: dict[AbstractEventLoop, list[tuple[Future[Any], Any]]] = {}
    for asked, outcome in told:
        loops.setdefault(asked.future.get_loop(), []).append((asked.future, outcome))
    for loop, pairs in loops.items():
        with suppress(RuntimeError):  # the loop has been closed: nobody is there to be told
            if seconds:
                loop.call_soon_threadsafe(loop.call_later, seconds, _resolve, pairs)
            else:
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

        def run(items: Sequence[Item], patience: Patience) -> Sequence[Result | Exception]:
            now = self._clock()
            gathered = patience is not Patience.USUAL
            return self._database.read(lambda session: read(session, items, now), brief=gathered)

        return await self._gatherer.ask(lane, run, item)
