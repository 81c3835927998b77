"""The service and hand-written SQL take turns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.bench import Bench
from benchmarks.load import CONNECTIONS, Requests
from benchmarks.report import Figure, Rounds, Target
from benchmarks.server import Service, settle_down
from benchmarks.shop import Shop

WARM_UP_SECONDS = 1.0

Sql = Callable[[int, float], float]
"""So many clients run the SQL for so many seconds; answers how many things they did per second."""


@dataclass(slots=True)
class Contest:
    """What came of it: by number of server processes, and every id that the service accepted."""

    rounds: dict[int, Rounds]
    accepted: list[str] = field(default_factory=list)
    busy: int = 0
    best: list[int] = field(default_factory=list)
    """Which number of SQL clients was the fastest, in each round."""

    def figures(self, name: str, unit: str, targets: Mapping[int, Target]) -> list[Figure]:
        return [
            rounds.figure(f"{name}, {_processes(workers)}", unit, targets.get(workers), self._note())
            for workers, rounds in self.rounds.items()
        ]

    def _note(self) -> str:
        busy = f"; {self.busy} requests were answered 503" if self.busy else ""
        return f"best number of SQL clients, by round: {', '.join(map(str, self.best))}{busy}"


def _processes(workers: int) -> str:
    return "1 process" if workers == 1 else f"{workers} processes"


def compete(
    bench: Bench,
    shop: Shop,
    services: Mapping[int, Service],
    requests: Callable[[], Requests],
    sql: Sql,
    clients: Sequence[int],
    connections: int = CONNECTIONS,
) -> Contest:
    """Rounds in which the service and so many clients of SQL take turns; the best of the latter counts."""
    contest = Contest({workers: Rounds() for workers in services})
    for number in range(-1, bench.plan.rounds):
        seconds = bench.plan.seconds if number >= 0 else WARM_UP_SECONDS
        theirs: dict[int, float] = {}
        ours: dict[int, float] = {}
        turns: list[tuple[int, Service | None]] = _alternating(services, clients)
        for size, service in turns:
            prepared = None if service is None else requests()
            settle_down(shop.url)
            if service is None or prepared is None:
                theirs[size] = sql(size, seconds)
                continue
            ran = bench.generator.run(service, prepared, seconds, connections)
            contest.accepted += ran.accepted
            contest.busy += ran.busy
            ours[size] = ran.per_second
        if number < 0:
            continue  # the first round warms both sides up
        contest.best.append(max(theirs, key=lambda size: theirs[size]))
        for workers, rate in ours.items():
            contest.rounds[workers].add(rate, max(theirs.values()))
    return contest


def _alternating(services: Mapping[int, Service], clients: Sequence[int]) -> list[tuple[int, Service | None]]:
    sides: list[tuple[int, Service | None]] = []
    ours, theirs = list(services.items()), list(clients)
    while ours or theirs:
        if ours:
            sides.append(ours.pop(0))
        if theirs:
            sides.append((theirs.pop(0), None))
    return sides
