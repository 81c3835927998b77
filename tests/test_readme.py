"""The README's tour runs as it is printed, against a service started as `make run` starts it."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from app.cli import cli
from app.demo import free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()

TOUR = ("A tour in five minutes", "A programme and keys of your own")
"""The sections that run."""

_FENCE = re.compile(r"^```(bash|json|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_END_OF_STEP = "\0"


@dataclass(frozen=True, slots=True)
class Step:
    """One ```bash block, and the ```json or ```text block below it: a part of what it prints."""

    command: str
    shown: str = ""
    form: str = ""


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found is not None, f"README has no section {title}"
    return found[1]


def steps() -> list[Step]:
    found: list[Step] = []
    for form, text in _FENCE.findall("".join(section(title) for title in TOUR)):
        if form == "bash":
            found.append(Step(text))
        else:
            assert not found[-1].shown, "two answers to one command"
            found[-1] = Step(found[-1].command, text, form)
    return found


STEPS = steps()


@contextmanager
def make_run(folder: Path) -> Iterator[str]:
    """What `make run` starts, in an empty folder; answers its URL."""
    port = free_port()
    shim = folder / ".venv" / "bin" / "loyalty"
    shim.parent.mkdir(parents=True)
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m app.cli "$@"\n')
    shim.chmod(0o755)
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "app.cli", "run"]
        server = subprocess.Popen(command, cwd=folder, env=environment(port), stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, server, folder / "log")
            yield url
        finally:
            server.terminate()
            server.wait(timeout=30)


def environment(port: int) -> dict[str, str]:
    """That of a visitor: no settings of ours. `python3` is the one that runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not re.match("LOYALTY_|DATABASE_URL|PYTEST_", name)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PORT": str(port), "PYTHONPATH": str(ROOT), "PATH": path, "no_proxy": "127.0.0.1"}


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"the service did not start: {log.read_text()}")


def test_the_tour_shows_what_the_readme_says(tmp_path: Path) -> None:
    with make_run(tmp_path) as url:
        printed = take_the_tour(tmp_path, url)
        untrue = [(step.command, text) for step, text in zip(STEPS, printed, strict=True) if not shows(step, text)]
        assert untrue == []
        _check_the_service(url, (tmp_path / "var" / "demo-key").read_text())


def take_the_tour(folder: Path, url: str) -> list[str]:
    """What each step printed, all of them run in one shell."""
    script = "".join(f"{step.command}\nprintf '\\0'\n" for step in STEPS)
    made = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment(int(url.rpartition(":")[2])),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout.split(_END_OF_STEP)[:-1]


def shows(step: Step, printed: str) -> bool:
    """Whether what the README shows below a command is part of what the command printed."""
    if step.form == "json":
        return _holds(json.loads(step.shown), last_document(printed))
    return all(line in printed for line in step.shown.splitlines())


def _check_the_service(url: str, key: str) -> None:
    """The comparison above is with what the README says; this one is with what it must say."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as http:
        member = http.get("/v1/members/lookup", params={"card": "4711"}).json()
        entries = http.get(f"/v1/members/{member['id']}/entries").json()["items"]
        proof = http.get("/v1/proof").json()
    assert member["balance"]["available"] == 50
    assert [entry["points"] for entry in entries] == [-100, -20, 20, 150], "each counts once"
    assert proof["holds"]
    answers = [json.loads(step.shown) for step in STEPS if step.form == "json"]
    assert [answer["duplicate"] for answer in answers if "duplicate" in answer] == [False, True, False]


def last_document(printed: str) -> Any:
    """The last of the JSON documents in `printed`."""
    decoder, position, document = json.JSONDecoder(), 0, None
    while position < len(printed):
        document, position = decoder.raw_decode(printed, position)
        position += len(printed[position:]) - len(printed[position:].lstrip())
    return document


def _holds(shown: Any, actual: Any) -> bool:
    """Whether `actual` says what is `shown`, and maybe more."""
    if isinstance(shown, dict) and isinstance(actual, dict):
        return all(name in actual and _holds(value, actual[name]) for name, value in shown.items())
    if isinstance(shown, list) and isinstance(actual, list):
        return len(shown) == len(actual) and all(map(_holds, shown, actual))
    return bool(shown == actual)


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "demo"]
    made = subprocess.run(command, cwd=tmp_path, env=environment(0), capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stdout + made.stderr
    shown = [text for form, text in _FENCE.findall(section("Two commands")) if form == "text"]
    assert len(shown) == 1
    assert made.stdout.startswith(shown[0]), made.stdout


# --- names ----------------------------------------------------------------------------------------------------------


def pages() -> list[Path]:
    """Everything that tells a reader what to type."""
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "samples" / "README.md"]


def code_in(page: Path) -> str:
    """The page's fenced blocks and `inline code`, without prose."""
    text = page.read_text()
    return "\n".join([*re.findall(r"^```\w+\n(.*?)^```$", text, re.M | re.S), *re.findall(r"`([^`\n]+)`", text)])


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def commands(group: Any, path: str = "") -> set[str]:
    """The command line's commands, groups included: `serve`, `keys`, `keys create`."""
    found = set()
    for name, command in getattr(group, "commands", {}).items():
        found |= {f"{path}{name}"} | commands(command, f"{path}{name} ")
    return found


COMMANDS = commands(typer.main.get_command(cli))
GROUPS = {name.split()[0] for name in COMMANDS if " " in name}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_named_commands_exist(page: Path) -> None:
    code = code_in(page)
    assert set(re.findall(r"\bmake ([a-z]+)\b", code)) <= targets()
    named = re.findall(r"(?:^|[\s/(])loyalty ([a-z]+)(?: ([a-z]+))?", code, re.MULTILINE)
    assert {f"{first} {second}" if first in GROUPS and second else first for first, second in named} <= COMMANDS


def test_the_readme_names_the_commands_that_matter() -> None:
    assert {"run", "demo", "test"} <= set(re.findall(r"\bmake ([a-z]+)\b", README)) & targets()
    for command in ("migrate", "serve", "worker", "keys create", "keys list", "keys revoke"):
        assert f"loyalty {command}" in README
        assert command in COMMANDS


def test_make_run_is_what_the_tour_starts() -> None:
    assert re.search(r"^run: .*\n\t@PORT=\$\(PORT\) \$\(BIN\)/loyalty run$", MAKEFILE, re.MULTILINE)
