"""A small HTTP client that measures: closed loop where there is no wrk, and open loop.

It speaks just enough HTTP/1.1 over asyncio's protocols to cost a fraction of what the service costs.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
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
    tally.broken += count - tally.ended - tally.broken  # never answered
    return tally


def _go_round(connection: Connection, next_request: Send, tally: Tally, until: float) -> None:
    def answer(status: int, body: bytes) -> None:
        tally.add(status, body)
        if time.perf_counter() < until:
            connection.send(next_request())
        else:
            tally.ended += 1
            connection.close()

    def lost() -> None:
        tally.broken += 1

    connection.answer, connection.lost = answer, lost


async def _open(port: int, next_request: Send, count: int, seconds: float, rate: float) -> Tally:
    loop, start = _OpenLoop(port, next_request, await _connect(port, count)), time.perf_counter()
    expected = round(seconds * rate)
    for position in range(expected):
        due = start + position / rate
        while (ahead := due - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        await loop.request(due)
    await loop.finish(expected, start + seconds + LAST_ANSWER_SECONDS)
    loop.tally.seconds = time.perf_counter() - start
    return loop.tally


class _OpenLoop:
    """Requests that are due, and the connections that are free for them."""

    def __init__(self, port: int, next_request: Send, opened: list[Connection]) -> None:
        self.tally = Tally()
        self._port, self._next_request = port, next_request
        self._free: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        for connection in opened:
            self._rest(connection)

    async def request(self, due: float) -> None:
        """Sends the request that is due, or lets it wait for a connection."""
        if self._free:
            self._depart(self._free.popleft(), due, due)
        else:
            self._waiting.append(due)
            await asyncio.sleep(0)

    async def finish(self, expected: int, deadline: float) -> None:
        """Waits for the last answers; those that never came count as broken, not as if they had not been asked for."""
        while len(self.tally.latencies) < expected and not self.tally.broken and time.perf_counter() < deadline:
            await asyncio.sleep(0.01)
        self.tally.broken = max(self.tally.broken, expected - len(self.tally.latencies))
        while self._free:
            self._free.popleft().close()

    def _depart(self, connection: Connection, due: float, since: float) -> None:
        """`since`: when its time and a connection had both come."""
        self.tally.late.append(time.perf_counter() - since)

        def answer(status: int, body: bytes) -> None:
            ended = time.perf_counter()
            self.tally.latencies.append(ended - due)
            self.tally.add(status, body)
            if self._waiting:
                self._depart(connection, self._waiting.popleft(), ended)
            else:
                self._rest(connection)

        def lost() -> None:
            self.tally.broken += 1

        connection.answer, connection.lost = answer, lost
        connection.send(self._next_request())

    def _rest(self, connection: Connection) -> None:
        """Free for the next request. The service closes what rests for long: then another takes its place."""

        def lost() -> None:
            self._free.remove(connection)
            task = asyncio.get_running_loop().create_task(self._replace())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

        connection.lost = lost
        self._free.append(connection)

    async def _replace(self) -> None:
        (connection,) = await _connect(self._port, 1)
        if self._waiting:
            self._depart(connection, self._waiting.popleft(), time.perf_counter())
        else:
            self._rest(connection)
