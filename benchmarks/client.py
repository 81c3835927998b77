"""A small HTTP client that measures: closed loop where there is no wrk, and open loop.

It speaks just enough HTTP/1.1 over asyncio's protocols to cost a fraction of what the service costs.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

LAST_ANSWER_SECONDS = 60

Send = Callable[[], bytes]


class Broken(Exception):
    """The service closed a connection, or sent what is not HTTP."""


def _ignore(*_answer: object) -> None:
    """Nobody has asked for anything yet."""


class Connection(asyncio.Protocol):
    """One kept-alive connection with one request under way."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.answer: Callable[[int, bytes], None] = _ignore
        self.lost: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._buffer = body[length:]
            self.answer(int(head[9:12]), body)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the protocol names it
        self.lost()

    def close(self) -> None:
        self.lost = lambda: None
        if self._transport is not None:
            self._transport.close()


@dataclass(slots=True)
class Tally:
    """What came back. `late` is by how much a request left after both its time and a free connection had come."""

    answered: Counter[int] = field(default_factory=Counter)
    bodies: list[bytes] = field(default_factory=list)
    refusal: bytes = b""
    latencies: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    broken: int = 0
    ended: int = 0
    """Connections that send no more."""
    seconds: float = 0.0

    def busy(self, connections: int) -> bool:
        return self.ended + self.broken < connections

    def add(self, status: int, body: bytes) -> None:
        self.answered[status] += 1
        if status < 300:
            self.bodies.append(body)
        elif not self.refusal:
            self.refusal = body


def closed_loop(port: int, next_request: Send, connections: int, seconds: float) -> Tally:
    """As many requests as `connections` can carry, each sending its next when it has its answer; none is sent after
    `seconds`, and the last answers are waited for and counted, as is the time they take."""
    return asyncio.run(_closed(port, next_request, connections, seconds))


def open_loop(port: int, next_request: Send, connections: int, seconds: float, rate: float) -> Tally:
    """`rate` requests a second, whether or not the service keeps up. A latency counts from when its request was due."""
    return asyncio.run(_open(port, next_request, connections, seconds, rate))


async def _connect(port: int, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(count)]


async def _closed(port: int, next_request: Send, count: int, seconds: float) -> Tally:
    tally, opened = Tally(), await _connect(port, count)
    start = time.perf_counter()
    for connection in opened:
        _go_round(connection, next_request, tally, start + seconds)
        connection.send(next_request())
    while tally.busy(count) and time.perf_counter() < start + seconds + LAST_ANSWER_SECONDS:
        await asyncio.sleep(0.005)
    tally.seconds = time.perf_counter() - start
    for connection in opened:
        connection.close()
    return tally


def _go_round(connection: Connection, next_request: Send, tally: Tally, until: float) -> None:
    def answer(status: int, body: bytes) -> None:
        tally.add(status, body)
        if time.perf_counter() < until:
            connection.send(next_request())
        else:
            tally.ended += 1

    def lost() -> None:
        tally.broken += 1

    connection.answer, connection.lost = answer, lost


async def _open(port: int, next_request: Send, count: int, seconds: float, rate: float) -> Tally:
    tally, opened = Tally(), await _connect(port, count)
    free, waiting = deque(opened), deque[float]()
    freed_at = time.perf_counter()

    def depart(connection: Connection, due: float, since: float) -> None:
        """`since`: when a connection was there for it."""
        now = time.perf_counter()
        tally.late.append(now - max(due, since))

        def answer(status: int, body: bytes) -> None:
            ended = time.perf_counter()
            tally.latencies.append(ended - due)
            tally.add(status, body)
            if waiting:
                depart(connection, waiting.popleft(), ended)
            else:
                free.append(connection)

        def lost() -> None:
            tally.broken += 1

        connection.answer, connection.lost = answer, lost
        connection.send(next_request())

    start = time.perf_counter()
    for due in _schedule(start, seconds, rate):
        while (ahead := due - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        if free:
            depart(free.popleft(), due, freed_at)
        else:
            waiting.append(due)
            await asyncio.sleep(0)
    await _finish(tally, round(seconds * rate), start + seconds + LAST_ANSWER_SECONDS)
    tally.seconds = time.perf_counter() - start
    for connection in opened:
        connection.close()
    return tally


def _schedule(start: float, seconds: float, rate: float) -> Iterator[float]:
    for position in range(round(seconds * rate)):
        yield start + position / rate


async def _finish(tally: Tally, expected: int, deadline: float) -> None:
    """Waits for the last answers."""
    while len(tally.latencies) < expected and not tally.broken and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
