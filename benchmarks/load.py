"""Load over HTTP: requests prepared as bytes, sent by wrk where there is one, else by our own client."""

import itertools
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import client
from benchmarks.server import Service

CONNECTIONS = 64
NUMBER, MEMBER, SAME = "\x02", "\x03", "\x04"
"""Where a request has a number of its own, a member (a card, or the end of an id), the number before. Twelve digits."""

_SLOTS = (NUMBER, MEMBER, SAME)

_LUA = Path(__file__).parent / "load.lua"
_PRIME = 7919

TRANSACTION = '"external_id":"([^"]*)"'
"""Finds what was taken in an answer, as a pattern of both Python and Lua: receipts' numbers here, ids below."""
REDEMPTION = '"id":"([^"]*)","status"'
HOLD = '"id":"([^"]*)","member_id"'
NOTHING = ""


class Refused(Exception):
    """The service refused what it should have taken."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Prepared requests, sent in turns. `accepted` finds in an answer what it took."""

    texts: Sequence[str]
    accepted: str = NOTHING
    items: int = 1
    """How many things one request asks for."""
    patient: bool = False
    """Answers may take long, so the last ones are waited for; wrk forgets what is under way when its time is up."""
    first: int | None = None
    """The first number; None: any that nobody has used."""


def get(path: str, key: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n"


def post(path: str, body: Any, key: str, *, keyed: bool = False) -> str:
    """A request whose slots do not change its length. `keyed`: with an `Idempotency-Key`."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=True)
    for slot in _SLOTS:
        text = text.replace(json.dumps(slot)[1:-1], slot)
    length = len(text) + 11 * sum(text.count(slot) for slot in _SLOTS)
    idempotency = f"Idempotency-Key: key-{NUMBER}\r\n" if keyed else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\n{idempotency}Content-Length: {length}\r\n\r\n{text}"
    )


def filler(requests: Requests, first: int, members: int) -> Callable[[], bytes]:
    """The requests in turns, filled: what `load.lua` does for wrk."""
    numbers, texts = itertools.count(first), itertools.cycle(_parts(text) for text in requests.texts)
    state = {"number": next(numbers)}

    def fill(part: str) -> str:
        if part == MEMBER:
            return f"{(state['number'] * _PRIME) % members + 1:012}"
        if part == NUMBER:
            number, state["number"] = state["number"], next(numbers)
            return f"{number:012}"
        return f"{state['number'] - 1:012}" if part == SAME else part

    return lambda: "".join(map(fill, next(texts))).encode()


def _parts(text: str) -> list[str]:
    return [part for part in re.split(f"([{''.join(_SLOTS)}])", text) if part]


# --- runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run did. `accepted` are ids of what was taken, `busy` how often the service said 503."""

    per_second: float
    accepted: list[str] = field(default_factory=list)
    busy: int = 0


class Generator:
    """Sends requests; every request of its life has a number of its own."""

    def __init__(self, members: int, *, wrk: Path | None) -> None:
        self.members = members
        self.wrk = wrk
        self._first = 1

    @property
    def name(self) -> str:
        if self.wrk is None:
            return "our own asyncio client (wrk was not found)"
        shown = subprocess.run([self.wrk, "-v"], capture_output=True, text=True, check=False)
        return " ".join((shown.stdout + shown.stderr).split()[:2])

    def run(self, service: Service, requests: Requests, seconds: float, connections: int = CONNECTIONS) -> Ran:
        """As much as so many connections can carry. Refused if the service refused anything but for being busy."""
        first = self.take() if requests.first is None else requests.first
        if self.wrk is None or requests.patient:
            tally = client.closed_loop(service.port, filler(requests, first, self.members), connections, seconds)
            return self.judged(requests, tally)
        return self._by_wrk(self.wrk, service, requests, seconds, connections, first)

    def paced(self, service: Service, requests: Requests, seconds: float, rate: float) -> client.Tally:
        """So many a second, whether or not the service keeps up."""
        fill = filler(requests, self.take(), self.members)
        return client.open_loop(service.port, fill, CONNECTIONS, seconds, rate)

    def take(self, count: int = 10_000_000) -> int:
        """The first of so many numbers that nobody else uses."""
        first, self._first = self._first, self._first + count
        return first

    def judged(self, requests: Requests, tally: client.Tally) -> Ran:
        found = [match for body in tally.bodies for match in _found(requests, body.decode())]
        return _ran(requests, tally.answered, tally.refusal.decode(), tally.broken, found, tally.seconds)

    def _by_wrk(
        self, wrk: Path, service: Service, requests: Requests, seconds: float, connections: int, first: int
    ) -> Ran:
        with TemporaryDirectory() as folder:
            texts, output = Path(folder) / "requests", Path(folder) / "accepted"
            texts.write_text("".join(text.replace("\r\n", "\x01") + "\n" for text in requests.texts), newline="")
            environment = os.environ | {
                "BENCH_REQUESTS": str(texts),
                "BENCH_OUTPUT": str(output),
                "BENCH_ACCEPTED": requests.accepted,
                "BENCH_MEMBERS": str(self.members),
                "BENCH_FIRST": str(first),
            }
            command: list[str | Path] = [
                wrk,
                "-t1",
                f"-c{connections}",
                f"-d{max(1, round(seconds))}s",
                "--timeout",
                "20s",
            ]
            done = subprocess.run(
                [*command, "-s", _LUA, service.url], env=environment, capture_output=True, text=True, check=True
            )
            return _of_wrk(requests, done.stdout, output.read_text().split())


def find_wrk() -> Path | None:
    found = shutil.which("wrk")
    return None if found is None else Path(found)


def _found(requests: Requests, body: str) -> list[str]:
    return re.findall(requests.accepted, body) if requests.accepted else []


def _of_wrk(requests: Requests, said: str, accepted: list[str]) -> Ran:
    answered = Counter({int(status): int(count) for status, count in re.findall(r"^answered (\d+) (\d+)", said, re.M)})
    refusal = re.search(r"^refusal (.*)", said, re.M)
    seconds, broken = re.search(r"^seconds (\S+)", said, re.M), re.search(r"^broken (\S+)", said, re.M)
    assert seconds is not None
    assert broken is not None
    return _ran(requests, answered, refusal[1] if refusal else "", int(broken[1]), accepted, float(seconds[1]))


def _ran(
    requests: Requests, answered: Counter[int], refusal: str, broken: int, accepted: list[str], seconds: float
) -> Ran:
    refused = {status: count for status, count in answered.items() if status >= 300 and status != 503}
    if refused or broken:
        raise Refused(f"answered {dict(answered)}, {broken} connections broke; the first refusal: {refusal[:500]}")
    taken = len(accepted) if requests.accepted else _sum(answered, range(200, 300))
    expected = requests.items * _sum(answered, range(200, 300))
    if taken != expected:
        raise Refused(f"of {expected} things that were asked for, {taken} were taken; an answer: {accepted[:1]}")
    return Ran(taken / seconds, accepted, answered[503])


def _sum(answered: Counter[int], statuses: Iterable[int]) -> int:
    return sum(answered[status] for status in statuses)
