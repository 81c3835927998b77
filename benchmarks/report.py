"""Figures, and how they are shown and kept."""

import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio should be: at least, or at most, `bound`."""

    kind: Literal["at least", "at most"]
    bound: float

    def met(self, ratio: float) -> bool:
        return ratio >= self.bound if self.kind == "at least" else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.kind == 'at least' else '<='} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report: ours, what it is compared with, and their ratio in each round.

    A figure that could not be measured has no ratios and says why in `note`.
    """

    name: str
    unit: str
    target: Target | None
    ours: Sequence[float] = ()
    theirs: Sequence[float] = ()
    ratios: Sequence[float] = ()
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        return None if self.ratio is None or self.target is None else self.target.met(self.ratio)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": _median(self.ours),
            "unit": self.unit,
            "baseline": _median(self.theirs),
            "ratio": _rounded(self.ratio),
            "range": [_rounded(min(self.ratios)), _rounded(max(self.ratios))] if self.ratios else None,
            "target": str(self.target) if self.target else None,
            "met": self.met,
            "note": self.note or None,
        }


@dataclass(slots=True)
class Rounds:
    """Both sides of a figure, round by round."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def add(self, ours: float, theirs: float) -> None:
        self.ours.append(ours)
        self.theirs.append(theirs)

    def figure(self, name: str, unit: str, target: Target | None, note: str = "") -> Figure:
        ratios = [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        return Figure(name, unit, target, self.ours, self.theirs, ratios, note)


def at_least(bound: float) -> Target:
    return Target("at least", bound)


def at_most(bound: float) -> Target:
    return Target("at most", bound)


# --- shown ----------------------------------------------------------------------------------------------------------

_HEAD = ("figure", "ours", "compared with", "ratio (lowest-highest)", "target", "met")


def table(figures: Sequence[Figure]) -> str:
    rows = [_HEAD, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    missing = [f"{figure.name} is missing: {figure.note}" for figure in figures if figure.ratio is None]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], *missing])


def _cells(figure: Figure) -> tuple[str, ...]:
    verdict = {True: "yes", False: "no", None: ""}[figure.met]
    target = str(figure.target or "")
    if figure.ratio is None:
        return figure.name, "missing", "", "", target, ""
    ratio = f"{figure.ratio:.2f} ({min(figure.ratios):.2f}-{max(figure.ratios):.2f})"
    return figure.name, _shown(figure.ours, figure.unit), _shown(figure.theirs, figure.unit), ratio, target, verdict


def _shown(values: Sequence[float], unit: str) -> str:
    middle = _median(values)
    return "" if middle is None else f"{middle:,.{0 if middle >= 100 else 1 if middle >= 10 else 2}f} {unit}"


def _median(values: Sequence[float]) -> float | None:
    return _rounded(statistics.median(values)) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


# --- kept -----------------------------------------------------------------------------------------------------------


def write(figures: Sequence[Figure], versions: Mapping[str, str], ran: Sequence[str], path: Path = RESULTS) -> None:
    """Writes the figures into what is kept, in place of earlier ones of the same names; `ran` are the groups measured.

    All others stay, with the date they were measured on and what was different then.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    measured = {figure.name: figure.as_json() | {"date": now} for figure in figures}
    rows = {row["name"]: row for row in _earlier(path, versions)} | measured
    for name in set(ran) - measured.keys():  # once it was missing: a figure that is has the name of its group
        rows.pop(name, None)
    kept = {"machine": machine(), "versions": dict(versions), "date": now, "results": list(rows.values())}
    path.write_text(json.dumps(kept, indent=2) + "\n")


def _earlier(path: Path, versions: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The rows that are kept; with `versions` of its own where one was measured with others than now."""
    if not path.exists():
        return
    before = json.loads(path.read_text())
    other = {name: value for name, value in before["versions"].items() if versions.get(name) != value}
    for row in before["results"]:
        own = other | row.get("versions", {})
        yield row | {"date": row.get("date", before["date"])} | ({"versions": own} if own else {})


def machine() -> str:
    """Processors, memory and system; no name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
