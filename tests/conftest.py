"""Fixtures: a fresh database per test on both engines, a clock to set, a shop with a programme and keys."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Dialect, Engine, create_engine, make_url

from app import db, schema, telemetry
from app.config import Settings
from app.db import Database
from app.ids import new_id
from tests import postgres
from tests.shop import PEPPER, Shop, TestClock, open_shop

telemetry.configure_logging("error")

ENGINES = ("sqlite", "postgresql")
ROOM = 8 * 2**30
"""Bytes; the suite leaves a file per test."""


def settings_for(url: str, **changes: object) -> Settings:
    """Keys are looked up each time, so that a test may revoke one."""
    return Settings(database_url=url, key_pepper=PEPPER, **{"key_seconds": 0} | changes)  # type: ignore[arg-type]  # fields by name


@dataclass(frozen=True, slots=True)
class Engines:
    """Where fresh databases come from: migrated once, then copied."""

    folder: Path
    postgres_url: str | None

    def fresh(self, engine: str) -> str:
        """The URL of a new, migrated, empty database."""
        name = f"t{new_id().hex}"
        if engine == "sqlite":
            shutil.copy(self.folder / "template.db", self.folder / f"{name}.db")
            return f"sqlite:///{self.folder}/{name}.db"
        if self.postgres_url is None:
            pytest.skip(postgres.WHY_NONE)
        return create_postgres(self.postgres_url, name, template=f"template_{os.getpid()}")

    def empty(self, engine: str) -> str:
        """The URL of a new database without any table."""
        name = f"e{new_id().hex}"
        if engine == "sqlite":
            return f"sqlite:///{self.folder}/{name}.db"
        if self.postgres_url is None:
            pytest.skip(postgres.WHY_NONE)
        return create_postgres(self.postgres_url, name)


def create_postgres(server: str, name: str, template: str = "template1") -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """Statements are compiled once for all databases of a run: that takes longer than most tests."""
    dialects: dict[str, Dialect] = {}
    statements: dict[str, dict[Any, Any]] = {}

    def create(url: URL, **options: Any) -> Engine:
        engine = create_engine(url, **options)
        engine.dialect = dialects.setdefault(engine.name, engine.dialect)  # a compiled statement is for one
        engine.update_execution_options(compiled_cache=statements.setdefault(engine.name, {}))
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "create_engine", create)
        yield


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    with ExitStack() as stack:
        folder = stack.enter_context(memory_folder()) or tmp_path_factory.mktemp("databases")
        url = stack.enter_context(postgres.server(run))
        templates = [f"sqlite:///{folder}/template.db"]
        if url is not None:
            templates.append(create_postgres(url, f"template_{os.getpid()}"))
        for template in templates:
            database = Database(settings_for(template))
            schema.migrate(database)
            database.close()
        checkpoint(folder / "template.db")
        yield Engines(folder, url)


@contextmanager
def memory_folder() -> Iterator[Path | None]:
    """A folder in memory for the files of SQLite, where there is room: each of its commits waits for the disk."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM):
        yield None
        return
    with TemporaryDirectory(prefix="loyalty-", dir=memory) as name:
        yield Path(name)


def checkpoint(path: Path) -> None:
    """Moves what is in the write-ahead log into the file, so that the file alone can be copied."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The engine's name; tests that use it run on both."""
    name: str = request.param
    return name


@pytest.fixture
def database_url(engines: Engines, engine: str) -> str:
    """The URL of a fresh, migrated database."""
    return engines.fresh(engine)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(settings_for(database_url))
    yield database
    database.close()


@pytest.fixture
def clock() -> TestClock:
    """A clock that stands still until a test moves it."""
    return TestClock()


@pytest.fixture
def shop(database_url: str, clock: TestClock) -> Iterator[Shop]:
    """The service in process, with one programme whose terms are `tests.shop.TERMS`, and a key of each kind."""
    with open_shop(settings_for(database_url), clock) as shop:
        yield shop


@pytest.fixture(params=[1, 0], ids=["gathered", "each alone"])
def crowded(request: pytest.FixtureRequest) -> dict[str, int]:
    """Settings for races: requests commit together, or each alone, so that they meet in the database; and wait for
    locks and connections for as long as a slow machine takes."""
    return {"writers": request.param, "lock_timeout_ms": 30_000, "pool_wait_seconds": 30, "gathered_seconds": 30}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process is left with them at the end."""
    longest = {"test_real_baskets.py", "test_state_machine.py"}
    items.sort(key=lambda item: item.path.name not in longest)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [
        report for report in terminalreporter.stats.get("skipped", []) if postgres.WHY_NONE in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.write_sep("!", "POSTGRESQL WAS NOT TESTED", red=True, bold=True)
        terminalreporter.write_line(f"{len(skipped)} tests were skipped: {postgres.WHY_NONE}.", red=True)


@pytest.fixture
def ungathered(database_url: str, clock: TestClock) -> Iterator[Shop]:
    """A shop whose requests commit one by one, all at once: for races that a gatherer would not let happen."""
    with open_shop(settings_for(database_url, writers=0), clock) as shop:
        yield shop
