"""The image and the composition, as far as they can be checked without an engine.

What `COPY` takes is put into an empty folder, and the service is started from there.
"""

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import iter_route_contexts

from app.config import Settings
from app.main import create_app
from tests.conftest import settings_for
from tests.shop import PEPPER
from tests.test_docs import ENVIRONMENT
from tests.test_readme import COMMANDS

ROOT = Path(__file__).parent.parent


def read_dockerfile() -> list[tuple[str, str]]:
    """The instructions, with their continuation lines joined as Docker joins them."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines(keepends=True) if not line.startswith("#")]
    joined = "".join(lines).replace("\\\n", "")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines()) if rest]


INSTRUCTIONS = read_dockerfile()


def all_of(name: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def one(name: str) -> str:
    (rest,) = all_of(name)
    return rest


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for rest in all_of("ENV") for word in shlex.split(rest))


# --- the context ----------------------------------------------------------------------------------------------------


def ignored(path: str) -> bool:
    """Whether `.dockerignore` keeps a path out: the last pattern that matches it, or a folder above it, decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.compile(_expression(line.removeprefix("!")))
            parts = path.split("/")
            if any(pattern.fullmatch("/".join(parts[:depth])) for depth in range(1, len(parts) + 1)):
                verdict = not line.startswith("!")
    return verdict


def _expression(pattern: str) -> str:
    """A pattern of `.dockerignore` as a regular expression; those of ours use `**/`, `*` and `[...]`."""
    kinds = {"**/": "(?:.*/)?", "*": "[^/]*"}
    pieces = re.split(r"(\*\*/|\*|\[[^]]*\])", pattern.strip("/"))
    return "".join(kinds.get(piece, piece if piece.startswith("[") else re.escape(piece)) for piece in pieces)


def sources() -> list[str]:
    return [source for rest in all_of("COPY") for source in rest.split()[:-1]]


def copied() -> list[str]:
    """Every file that goes into the image."""
    files = [path for source in sources() for path in (ROOT / source, *(ROOT / source).rglob("*")) if path.is_file()]
    return [name for name in (str(path.relative_to(ROOT)) for path in files) if not ignored(name)]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    assert [source for source in sources() if not (ROOT / source).exists() or ignored(source)] == []
    assert {"app", "migrations", "samples", "requirements.lock", "pyproject.toml"} <= set(sources())
    wanted = {str(path.relative_to(ROOT)) for path in (ROOT / "app").rglob("*.py")}
    assert wanted <= set(copied())


def test_nothing_else_reaches_the_engine() -> None:
    for path in (".git/config", ".venv/bin/python", "var/loyalty.db", ".env", "tests/shop.py", "Makefile", ".ci/run"):
        assert ignored(path), path
    assert ignored("app/__pycache__/cli.cpython-313.pyc")
    assert not [path for path in copied() if "__pycache__" in path]


def test_the_build_finds_what_pyproject_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {project["project"]["readme"], *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]} <= set(
        sources()
    )


def test_the_service_runs_from_what_is_copied(tmp_path: Path) -> None:
    """From a folder that holds only that: migrations and the sample are found beside `app/`."""
    for name in copied():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    outside = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT | {"PYTHONPATH"}}
    settings = {"DATABASE_URL": "sqlite:///data.db", "LOYALTY_KEY_PEPPER": PEPPER}
    for command in (
        ["-m", "app.cli", "migrate"],
        ["-c", "import app, app.demo; assert app.demo.SAMPLE.exists(), app.__file__"],
    ):
        made = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=outside | settings, capture_output=True, text=True
        )
        assert made.returncode == 0, made.stderr
    with sqlite3.connect(tmp_path / "data.db") as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert {"program", "journal_posting"} <= tables


# --- the image ------------------------------------------------------------------------------------------------------


def test_the_base_is_a_python_we_support() -> None:
    found = re.fullmatch(r"python:3\.(\d+)-slim", one("FROM"))
    assert found is not None
    assert int(found[1]) >= 11


def test_dependencies_are_installed_by_hash_and_the_project_without_any() -> None:
    installs = [line.strip() for rest in all_of("RUN") for line in rest.split("&&") if "pip install" in line]
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert "-r requirements.lock" in installs[0]
    assert {"--no-deps", "--no-build-isolation"} <= set(installs[1].split())
    lock = (ROOT / "requirements.lock").read_text()
    pinned = re.findall(r"^([a-z0-9._-]+(?:\[[a-z]+\])?)==.*?(?=^[a-z]|\Z)", lock, re.MULTILINE | re.DOTALL)
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert {"hatchling", "editables", "psycopg"} <= set(pinned), "what the second install and PostgreSQL need"


def test_it_does_not_run_as_root() -> None:
    user, _, group = one("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    last_run = max(number for number, (name, _) in enumerate(INSTRUCTIONS) if name == "RUN")
    assert INSTRUCTIONS.index(("USER", one("USER"))) > last_run
    assert f"-o {user} -g {group} /data" in all_of("RUN")[-1]


def test_it_listens_outside_and_holds_no_secret() -> None:
    assert environment()["LOYALTY_HOST"] == "0.0.0.0"
    assert {name for name in environment() if name.startswith("LOYALTY_")} <= ENVIRONMENT
    assert not re.search("pepper|password|secret", "".join(rest for _, rest in INSTRUCTIONS), re.IGNORECASE)


def test_entry_point_and_command_are_real() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert json.loads(one("ENTRYPOINT")) == ["loyalty"]
    assert project["scripts"] == {"loyalty": "app.cli:main"}
    assert json.loads(one("CMD"))[0] in COMMANDS
    assert int(one("EXPOSE")) == Settings.model_fields["port"].default


def health_check() -> list[str]:
    """The command, as Docker runs it."""
    command: list[str] = json.loads(one("HEALTHCHECK").partition("CMD ")[2])
    return command


def test_the_health_check_asks_a_route_of_ours(tmp_path: Path) -> None:
    found = re.search(r"' \+ port \+ '(/[a-z]+)'", health_check()[-1])
    assert found is not None
    app = create_app(settings_for(f"sqlite:///{tmp_path}/unused.db"))
    assert found[1] in {getattr(context.original_route, "path", None) for context in iter_route_contexts(app.routes)}


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
def test_the_health_check_tells_well_from_ill(tmp_path: Path, status: int | None, healthy: bool) -> None:
    """Against a server that answers `status`, or against nobody."""
    serve = (
        "import http.server as h, sys\n"
        "class Answer(h.BaseHTTPRequestHandler):\n"
        f"    def do_GET(self): self.send_response({status} if self.path == '/livez' else 404); self.end_headers()\n"
        "server = h.HTTPServer(('127.0.0.1', 0), Answer)\n"
        "print(server.server_port, flush=True)\n"
        "server.handle_request()\n"
    )
    with subprocess.Popen([sys.executable, "-c", serve], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        port = server.stdout.readline().decode().strip()
        if status is None:
            server.kill()
            server.wait()
        command = [sys.executable, *health_check()[1:]]
        try:
            checked = subprocess.run(command, env=os.environ | {"PORT": port}, capture_output=True)
        finally:
            server.kill()
    assert (checked.returncode == 0) is healthy


# --- the composition ------------------------------------------------------------------------------------------------


COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_services_run_commands_that_exist() -> None:
    assert OURS.keys() == {"migrate", "serve", "worker"}
    assert {name: service["command"] for name, service in OURS.items()} == {name: [name] for name in OURS}
    assert OURS.keys() <= COMMANDS


def test_environment_is_of_settings() -> None:
    for service in OURS.values():
        assert service["environment"].keys() <= ENVIRONMENT
        assert {"DATABASE_URL", "LOYALTY_KEY_PEPPER"} <= service["environment"].keys()


def test_the_url_is_that_of_the_database_service() -> None:
    database = SERVICES["database"]
    for service in OURS.values():
        found = re.fullmatch(
            r"postgresql://(\w+):\$\{(\w+):\?[^}]*\}@(\w+):5432/(\w+)", service["environment"]["DATABASE_URL"]
        )
        assert found is not None
        user, password, host, name = found.groups()
        assert host in SERVICES
        given = database["environment"]
        assert (user, name) == (given["POSTGRES_USER"], given["POSTGRES_DB"])
        assert given["POSTGRES_PASSWORD"].startswith(f"${{{password}:?")


def test_secrets_come_from_outside() -> None:
    """Only as variables without a default: compose refuses to start when one is missing."""
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|PEPPER", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]*\}", value), name
    made = re.findall(r"([A-Z_]+)=%s", (ROOT / "compose.yaml").read_text())
    asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text()))
    assert set(made) == asked, "the command in the heading makes every one of them"


def test_the_order_is_database_migration_service() -> None:
    waits = {
        name: {other: wait["condition"] for other, wait in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    assert waits == {
        "database": {},
        "migrate": {"database": "service_healthy"},
        "serve": {"migrate": "service_completed_successfully"},
        "worker": {"migrate": "service_completed_successfully"},
    }
    assert "pg_isready" in SERVICES["database"]["healthcheck"]["test"]
    assert SERVICES["migrate"]["restart"] == "no", "else it would never complete"


def test_the_database_keeps_its_data_where_postgresql_18_looks() -> None:
    """Since 18 the image wants its volume one folder higher than before."""
    assert SERVICES["database"]["image"] == "postgres:18"
    (volume,) = SERVICES["database"]["volumes"]
    name, path = volume.split(":")
    assert name in COMPOSE["volumes"]
    assert path == "/var/lib/postgresql"


def test_only_the_api_is_reachable_and_only_from_this_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"serve": [f"127.0.0.1:8000:{one('EXPOSE')}"]}


def test_only_the_service_that_answers_http_is_asked_for_its_health() -> None:
    assert "healthcheck" not in SERVICES["serve"], "the image's own"
    for name in ("migrate", "worker"):
        assert SERVICES[name]["healthcheck"] == {"disable": True}


def test_there_is_time_to_finish() -> None:
    """Longer than `timeout_graceful_shutdown` of `loyalty serve`, after which it gives up on requests."""
    found = re.search(r"timeout_graceful_shutdown=(\d+)", (ROOT / "app" / "cli.py").read_text())
    assert found is not None
    for name in ("serve", "worker"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > int(found[1])
