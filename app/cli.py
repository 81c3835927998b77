"""The command line: `loyalty serve | worker | jobs | migrate | run | demo | keys | programs | proof | openapi`."""

import os
import re
import secrets
import signal
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
import uvicorn
import yaml
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from app import cli_programs, clients, demo, insight, members, programs, schema, telemetry, worker
from app.clock import system_clock
from app.config import Settings
from app.db import Database
from app.errors import Problem
from app.garbage import collect_rarely
from app.main import create_app

cli = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
keys = typer.Typer(no_args_is_help=True, help="API keys.")
cli.add_typer(keys, name="keys")
jobs = typer.Typer(no_args_is_help=True, help="What the worker runs, one at a time.")
cli.add_typer(jobs, name="jobs")
cli.add_typer(cli_programs.commands, name="programs")

VAR = Path("var")
OPERATOR_SCOPES = {"programs:create", "programs:read", "programs:write"}
"""What a key of the installation's own may do, unless told otherwise."""


def main() -> None:
    """Runs the command; a wrong setting, a refusal or a silent database is a sentence, not a traceback."""
    try:
        cli()
    except ValidationError as error:
        reasons = "\n".join(f"  {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise SystemExit(f"The settings will not do:\n{reasons}") from None
    except Problem as problem:
        raise SystemExit(f"{problem.code}: {problem.detail}") from None
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0]
        raise SystemExit(
            f"The database refused ({reason}). Is it there, and migrated with `loyalty migrate`?"
        ) from None
    except (SQLAlchemyError, OSError, ValueError) as error:
        raise SystemExit(f"That did not work: {error}") from None


@cli.command()
def serve() -> None:
    """Serves the API."""
    settings = Settings()
    assert settings.pepper, "asked for here: a bad one is a sentence, not a server whose processes keep dying"
    with tempfile.TemporaryDirectory() as folder:
        if settings.workers > 1:  # each process counts in files of its own; /metrics adds them up
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        uvicorn.run(
            "app.main:from_environment",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=30,
        )


@cli.command("worker")
def run_worker() -> None:
    """Runs the jobs every minute until it is told to stop."""
    settings = Settings()
    telemetry.configure_logging(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    collect_rarely()
    worker.work(Database(settings.for_jobs()), system_clock, stop)


@cli.command()
def migrate() -> None:
    """Brings the database's schema up to date."""
    schema.migrate(Database(Settings()))


@cli.command()
def run() -> None:
    """Serves on an embedded SQLite file, with a demo programme and a key on first start."""
    os.umask(0o077)  # what follows is for this user alone
    VAR.mkdir(exist_ok=True)
    pepper, key = VAR / "pepper", VAR / "demo-key"
    if not pepper.exists():
        pepper.write_text(secrets.token_hex(32))
    os.environ.setdefault("LOYALTY_KEY_PEPPER_FILE", str(pepper))
    settings = Settings()
    database = Database(settings)
    schema.migrate(database)
    known = key.read_text() if key.exists() else ""
    if not database.read(lambda session: clients.is_live(session, known, settings.pepper, datetime.now(UTC))):
        key.write_text(database.write(lambda session: _demo_programme(session, settings.pepper)))
    database.close()
    _greet(settings, key.read_text())
    serve()


def _demo_programme(session: Session, pepper: bytes) -> str:
    now = datetime.now(UTC)
    program = programs.find_program(session, "demo") or programs.create_program(session, "demo", "Demo grocer", now)
    if not programs.timeline(session, program.id).versions:
        draft = programs.draft_terms(session, program.id, programs.Terms.model_validate(programs.EXAMPLE_TERMS), now)
        programs.publish_terms(session, program.id, draft.version, now, now - timedelta(days=365))
    client_id = clients.create_client(session, "staff", "demo", now, program_id=program.id, person="demo")
    return clients.create_key(session, client_id, pepper, now).text


def _greet(settings: Settings, key: str) -> None:
    print(
        f"""
Loyalty points at http://{settings.host}:{settings.port}  (API: /docs)
Key: {key}

Post a purchase of 5.00 by card 900:

curl -s http://{settings.host}:{settings.port}/v1/transactions \\
  -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{
  "type": "purchase", "source": "store-1", "external_id": "receipt-1",
  "occurred_at": "{datetime.now(UTC).isoformat(timespec="seconds")}", "member": {{"card": "900"}}, "currency": "USD",
  "lines": [{{"line": 1, "product": "rolls", "quantity": "1", "amount": 500}}],
  "tenders": [{{"type": "cash", "amount": 500}}], "total": 500}}'
""",
        flush=True,
    )


@cli.command("demo")
def run_demo(
    data: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="Baskets: JSON lines, gzipped or not")
    ] = demo.SAMPLE,
    database_url: Annotated[str | None, typer.Option(envvar="DATABASE_URL", help="Another engine")] = None,
    program: Annotated[
        str | None, typer.Option(help=f"Another programme: one of {', '.join(demo.EXAMPLES)}, or a YAML file")
    ] = None,
) -> None:
    """Posts real baskets to a service on a fresh database and proves the books."""
    if not demo.run(data, database_url, None if program is None else demo.example(program)):
        raise typer.Exit(1)


@cli.command()
def proof(program: Annotated[str | None, typer.Option(help="Code of one programme; all without it")] = None) -> None:
    """Recomputes every sum the service keeps; fails if anything differs."""
    database = Database(Settings().for_jobs())

    def prove(session: Session) -> insight.Proof:
        return insight.prove(session, None if program is None else _program(session, program).id)

    result = database.read(prove)
    for check in result.checks:
        print(f"{check.name:<36} {'holds' if not check.differences else f'{check.differences} differ'}")
        for difference in check.shown:
            print(f"    {difference.subject}: expected {difference.expected}, is {difference.actual}")
    if not result.holds:
        raise typer.Exit(1)


@cli.command()
def openapi() -> None:
    """Prints the API's description as YAML."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(database_url=f"sqlite:///{folder}/unused.db", key_pepper="0" * 32)
        print(describe(create_app(settings).openapi()), end="")


def describe(description: dict[str, Any]) -> str:
    """An OpenAPI description as `openapi.yaml` holds it."""
    text: str = yaml.safe_dump(description, sort_keys=False, allow_unicode=True, width=120)
    return text


# --- jobs -----------------------------------------------------------------------------------------------------------


@jobs.command("list")
def list_jobs() -> None:
    """Lists the jobs in the order of a round, with the last run of each."""
    runs = Database(Settings()).read(worker.last_runs)
    for name, job in worker.JOBS.items():
        print(f"{name:<24} {job.__doc__}")
        if last := runs.get(name):
            counts = f"{last.rows} rows, {last.failures} failures" + (f" ({last.reason})" if last.reason else "")
            print(
                f"{'':<24} {last.status} {last.started_at:%Y-%m-%d %H:%M:%SZ} as of {last.as_of.isoformat()}: {counts}"
            )


@jobs.command("run")
def run_job(
    name: str,
    as_of: Annotated[
        str | None, typer.Option(help="Instant with offset, or a date: the end of that day in the programme's zone")
    ] = None,
    program: Annotated[str | None, typer.Option(help="Code of one programme; all without it")] = None,
) -> None:
    """Runs one job now, as of now or an instant past. Fails if anything is left undone."""
    settings = Settings()
    telemetry.configure_logging(settings.log_level)
    database, now = Database(settings.for_jobs()), datetime.now(UTC)
    if name not in worker.JOBS:
        raise typer.BadParameter(f"there are {', '.join(worker.JOBS)}")

    def instants(session: Session) -> list[tuple[UUID | None, datetime]]:
        """A day ends at another instant in every zone; so with a date each programme has a run of its own."""
        if program is not None:
            chosen: list[UUID | None] = [_program(session, program).id]
        else:
            chosen = [None] if as_of is None or "T" in as_of else [*programs.every_program(session)]
        zones = [(id_, UTC if id_ is None else programs.zone_at(session, id_, now)) for id_ in chosen]
        return [(id_, now if as_of is None else worker.as_of_in(as_of, zone, now)) for id_, zone in zones]

    left = False
    collect_rarely()
    for program_id, instant in database.read(instants):
        ended = worker.run(database, name, worker.JOBS[name], instant, system_clock, program_id=program_id)
        if ended is None:
            raise SystemExit(f"{name} is running elsewhere")
        print(f"{name} as of {instant.isoformat()}: {ended.status}, {ended.rows} rows, {ended.failures} failures")
        left = left or ended.status != "done" or ended.failures > 0
    if left:
        raise typer.Exit(1)


# --- keys -----------------------------------------------------------------------------------------------------------


@keys.command("create")
def create_key(
    kind: Annotated[str | None, typer.Option(help="terminal, partner or staff")] = None,
    name: Annotated[str | None, typer.Option(help="Whose key it is: a till, a partner, a person")] = None,
    program: Annotated[
        str | None, typer.Option(help="Code of the programme; without it the installation's own")
    ] = None,
    store: Annotated[list[str] | None, typer.Option(help="Only these stores")] = None,
    client: Annotated[str | None, typer.Option(help="Id of a client that is to get a second key (rotation)")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Instead of the usual scopes")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires")] = None,
    person: Annotated[str | None, typer.Option(help="Who acts through it; needed for staff")] = None,
    role: Annotated[str | None, typer.Option(help="What the person is: terms give roles limits")] = None,
    member: Annotated[str | None, typer.Option(help="Id of the person's own membership")] = None,
) -> None:
    """Creates a key and shows it, once: of a new client (--kind, --name), or one more of a known one (--client)."""
    settings = Settings()
    now = datetime.now(UTC)
    scopes = set(scope) if scope else None
    if scopes and (unknown := scopes - clients.SCOPES.keys()):
        raise typer.BadParameter(f"unknown scopes {', '.join(sorted(unknown))}; there are {', '.join(clients.SCOPES)}")
    if client and (kind or name or program or store or person or role or member):
        raise typer.BadParameter("--client names a client that has its kind, name, programme, stores and person")
    if scopes is None and not client and not program:
        scopes = OPERATOR_SCOPES
    expires_at = now + timedelta(days=days) if days else None

    def create(session: Session) -> clients.NewKey:
        behind = _Behind(person, role, member)
        new = partial(_new_client, session, kind, name, program, store, behind, now)
        client_id = _client(session, client) if client else new()
        return clients.create_key(session, client_id, settings.pepper, now, scopes=scopes, expires_at=expires_at)

    made = Database(settings).write(create)
    print(f"client  {made.client_id}\nid      {made.public_id}\nkey     {made.text}\nIt is not shown again.")


@dataclass(frozen=True, slots=True)
class _Behind:
    """Who acts through a new client, as typed."""

    person: str | None
    role: str | None
    member: str | None


def _new_client(
    session: Session,
    kind: str | None,
    name: str | None,
    program: str | None,
    stores: list[str] | None,
    behind: _Behind,
    now: datetime,
) -> UUID:
    if kind not in clients.KINDS or not name:
        raise typer.BadParameter(f"--name and --kind are needed; kind is one of {', '.join(clients.KINDS)}")
    if kind == "staff" and not behind.person:
        raise typer.BadParameter("--person is needed for staff: whoever acts must have a name")
    if behind.role and not re.fullmatch("[a-z0-9_]{1,32}", behind.role):
        raise typer.BadParameter("a role is a short word of a-z, 0-9 and _")
    program_id = _program(session, program).id if program else None
    wanted = next(known for known in clients.KINDS if known == kind)
    return clients.create_client(
        session,
        wanted,
        name,
        now,
        program_id=program_id,
        stores=stores,
        person=behind.person,
        role=behind.role,
        member_id=_membership(session, program_id, behind.member),
    )


def _membership(session: Session, program_id: UUID | None, text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        member_id = UUID(text)
    except ValueError:
        raise typer.BadParameter(f"no member {text}") from None
    if program_id is None or members.status_in(session, program_id, member_id) is None:
        raise typer.BadParameter(f"no member {text} in that programme")
    return member_id


@keys.command("list")
def list_keys() -> None:
    """Lists all keys; never their secrets."""
    for client, key in Database(Settings()).read(clients.list_keys):
        state = "revoked" if key.revoked_at else f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "live"
        scopes = " ".join(key.scopes)
        whose = "" if client.person is None else f", {client.role or 'person'} {client.person}"
        print(f"{key.public_id}  {client.kind:<8}  {state:<16}  {client.name}  (client {client.id}{whose})  {scopes}")


@keys.command("revoke")
def revoke_key(public_id: str) -> None:
    """Ends a key, for every process within LOYALTY_KEY_SECONDS."""
    if not Database(Settings()).write(lambda session: clients.revoke_key(session, public_id, datetime.now(UTC))):
        raise typer.BadParameter(f"no live key {public_id}")
    print(f"revoked {public_id}")


def _program(session: Session, code: str) -> programs.Program:
    found = programs.find_program(session, code)
    if found is None:
        raise typer.BadParameter(f"no programme {code}")
    return found


def _client(session: Session, text: str) -> UUID:
    found = clients.find_client(session, text)
    if found is None:
        raise typer.BadParameter(f"no client {text}")
    return found


if __name__ == "__main__":
    main()
