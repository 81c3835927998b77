"""The database: both engines, their differences, and the unit of work. No other module knows which engine it talks to.

A unit of work is a function of a `Session`. `Database.write` runs it in one database transaction, commits *before* it
returns (so before any answer leaves) and runs it again as a whole after a deadlock or a lock timeout;
`Database.read` runs it on one consistent, read-only snapshot. Nothing else begins or commits.

Whole batches travel in one statement: `insert_rows`, `claim_rows`, `update_rows`, `any_of` and `any_row_of` hand any
number of rows to the database as one parameter set (arrays through `unnest` on PostgreSQL, one JSON text on SQLite).
What a batch writes is one statement (`together`); what every batch reads is a select that is made once (`found`).
"""

import json
import random
import re
import sqlite3
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    ColumnElement,
    Dialect,
    FromClause,
    Insert,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    Text,
    TypeDecorator,
    Update,
    bindparam,
    cast,
    column,
    create_engine,
    delete,
    event,
    func,
    literal,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy import Row as SelectedRow
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.types import TypeEngine

from app.arrays import PackedArray, as_json, encoded, reading_at_once, teach_driver
from app.config import Settings
from app.errors import Busy, OutcomeUnknown

Row = Mapping[str, Any]
"""One row to write: a value per column name."""

Columns = ReadOnlyColumnCollection[str, Any]
"""The columns of a table, or of what a statement answers, by name."""

T = TypeVar("T")

_ATTEMPTS = 5


class Instant(TypeDecorator[datetime]):
    """A point in time: `timestamptz` on PostgreSQL; on SQLite sortable text, UTC, always six decimals."""

    impl = postgresql.TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(32))
        return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        instant = value.astimezone(UTC)  # PostgreSQL takes no offset beyond 15:59
        return instant.isoformat(timespec="microseconds") if dialect.name == "sqlite" else instant

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value  # type: ignore[no-any-return]  # psycopg answers an aware datetime in UTC
        return datetime.fromisoformat(value)


class Base(DeclarativeBase):
    """Parent of every table. Constraints are named by one rule, so that migrations can compare them by name."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {
        int: BigInteger().with_variant(sqlite.INTEGER(), "sqlite"),
        str: Text,
        datetime: Instant,
        dict[str, Any]: JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
        list[str]: JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql"),
    }


NO_ROWID = {"sqlite_with_rowid": False}
"""Table argument of append-only tables: on SQLite a rowid is one more key by which INSERT OR REPLACE hits a row."""


class Patience(Enum):
    """How long a unit of work waits for a row that somebody else has locked, which depends on who waits for it."""

    USUAL = "a request of its own: as long as the settings say, and again"
    BRIEF = "work about many accounts: about as long as somebody else's batch takes, once"
    NONE = "the same when it looks for who is in the way: not at all"
    LONG = "what was found to be blocked: longer, once, since each try costs as much as a purchase"


_MS = {Patience.BRIEF: 100, Patience.NONE: 1, Patience.LONG: 400}  # 0 would be for ever


class Database:
    """One database, and the two ways to use it. What many requests wait for has connections of its own, so that slow
    reads cannot take them all: one for each writer and one for what is set aside; one for each reader and one for
    look-ups of keys."""

    def __init__(self, settings: Settings):
        url = read_url(settings.database_url)
        self.one_writer = url.get_backend_name() == "sqlite"
        """Whether everybody who writes waits for everybody else who does."""
        make = _sqlite_engine if self.one_writer else _postgres
        self.lock_seconds = settings.lock_timeout_ms / 1000
        """How long a request waits for somebody else's lock."""
        brief = min(_MS[Patience.BRIEF], settings.lock_timeout_ms)
        self.engine = make(url, settings, settings.pool_size, settings.lock_timeout_ms)
        self._gathered_writes = make(url, settings, settings.writers + 1, brief)
        brief_reads = make(url, settings, settings.readers + 1, brief)
        self.engines = (self.engine, self._gathered_writes, brief_reads)
        """All of them: one for requests and jobs, one for gathered writes, one for brief reads."""
        self._reading, self._reading_briefly = _read_only(self.engine), _read_only(brief_reads)

    def write(
        self, work: Callable[[Session], T], *, repeatable: bool = False, patience: Patience = Patience.USUAL
    ) -> T:
        """Runs `work` in one transaction and commits before returning its result.

        Deadlocks, serialization failures and lock timeouts run all of it again, a few times, then `Busy`; gathered
        work, which alone has another `patience`, waits for a lock once. If the connection breaks during the commit,
        `work` runs again when it is `repeatable` (its keys make a second run harmless), else the caller gets
        `OutcomeUnknown`. Any other failure rolls back and is raised.
        """
        engine = self.engine if patience is Patience.USUAL else self._gathered_writes
        if self.one_writer:
            _begin_to_wait()  # for everybody else who writes: to begin may take longest
        for attempt in range(_ATTEMPTS):
            try:
                with Session(engine, autoflush=False, expire_on_commit=False) as session:
                    if patience in (Patience.NONE, Patience.LONG):  # the connections themselves are brief
                        _wait_for_locks(session, patience)
                    result = work(session)
                    _commit(session, repeatable)
                    return result
            except PoolTimeout as error:
                raise Busy from error
            except DBAPIError as error:
                if not _may_run_again(error):
                    raise
                failure = error
                if patience is not Patience.USUAL and row_locked(error):
                    break
            finally:
                _begin_to_wait()
            time.sleep(random.uniform(0.01, 0.05) * 2**attempt)  # noqa: S311  # jitter, not a secret
        raise Busy from failure

    def read(self, work: Callable[[Session], T], *, brief: bool = False) -> T:
        """Runs `work` on one consistent snapshot. The database refuses any write in it. `brief`: it is over at once,
        and many wait for it."""
        engine = self._reading_briefly if brief else self._reading
        try:
            with Session(engine, autoflush=False) as session:
                return work(session)
        except PoolTimeout as error:
            raise Busy from error
        except DBAPIError as error:
            if _may_run_again(error):
                raise Busy from error
            raise

    def close(self) -> None:
        for engine in self.engines:
            engine.dispose()


def _read_only(engine: Engine) -> Engine:
    reading = engine.execution_options(loyalty_read=True)
    if engine.dialect.name == "postgresql":
        reading = reading.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return reading


@contextmanager
def patient(session: Session, patience: Patience) -> Iterator[None]:
    """What is done within waits for a lock as `patience` says, once, and then is `Busy`."""
    _wait_for_locks(session, patience)
    try:
        yield
    except DBAPIError as error:
        if row_locked(error):
            raise Busy from error
        raise


def _wait_for_locks(session: Session, patience: Patience) -> None:
    if session.get_bind().dialect.name == "postgresql":
        session.connection().exec_driver_sql(f"SET LOCAL lock_timeout = {_MS[patience]}")


def by_sets(session: Session) -> None:
    """What follows in this transaction joins whole tables. Left alone, PostgreSQL may join row by row to have the first
    rows early, if there are any: with a million rows on each side it did not end."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection().exec_driver_sql("SET LOCAL enable_nestloop = off")


def _commit(session: Session, repeatable: bool) -> None:
    try:
        session.commit()
    except DBAPIError as error:
        session.invalidate()  # SQLite leaves a refused commit's transaction open: nobody may get this connection again
        if error.connection_invalidated and not repeatable:
            raise OutcomeUnknown from error
        raise


def _may_run_again(error: DBAPIError) -> bool:
    """Serialization failure, deadlock, lock timeout, a busy SQLite file, or a connection that broke."""
    passing = row_locked(error) or _file_busy(error) or _sqlstate(error) in {"40001", "40P01"}
    return error.connection_invalidated or passing


def row_locked(error: DBAPIError) -> bool:
    """Whether the statement gave up waiting for a row that somebody else writes.

    SQLite has one writer and does not say what it writes: that is waited for again, and then `Busy`.
    """
    return _sqlstate(error) == "55P03"


def met_a_lock(outcome: object) -> bool:
    """Whether a refusal was raised because of that."""
    cause = outcome.__cause__ if isinstance(outcome, Exception) else None
    return isinstance(cause, DBAPIError) and row_locked(cause)


def _file_busy(error: DBAPIError) -> bool:
    found = error.orig
    return isinstance(found, sqlite3.OperationalError) and found.sqlite_errorcode & 0xFF in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    }


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


# --- engines --------------------------------------------------------------------------------------------------------


def read_url(text: str) -> URL:
    """A database's URL. `postgres://`, as many hosts spell it, is `postgresql://`."""
    url = make_url(text)
    return url.set(drivername="postgresql") if url.drivername == "postgres" else url


def _sqlite_engine(url: URL, settings: Settings, connections: int, _lock_timeout_ms: int) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ValueError("SQLite needs a file: several connections share it")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,  # an error's text must not carry names and keys into logs
        pool_timeout=settings.pool_wait_seconds,
        connect_args={"timeout": settings.lock_timeout_ms / 1000},
        json_serializer=as_json,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: `begin` below does
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # a commit that answered is on the disk
            "foreign_keys=ON",
            "recursive_triggers=ON",  # else INSERT OR REPLACE deletes without firing the append-only triggers
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("loyalty_read", False)
        connection.exec_driver_sql(f"PRAGMA query_only={'ON' if reading else 'OFF'}")
        # A deferred BEGIN that later writes fails at once when somebody else wrote first; IMMEDIATE waits its turn.
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _postgres(url: URL, settings: Settings, connections: int, lock_timeout_ms: int) -> Engine:
    connect: dict[str, Any] = {
        "connect_timeout": 5,
        "application_name": "loyalty",
        "options": f"-c lock_timeout={lock_timeout_ms} -c statement_timeout={settings.statement_timeout_ms}"
        " -c timezone=UTC",
    }
    if not settings.prepared_statements:
        connect["prepare_threshold"] = None
    teach_driver()
    return create_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,  # an error's text must not carry names and keys into logs
        pool_timeout=settings.pool_wait_seconds,
        pool_pre_ping=True,
        connect_args=connect,
    )


# --- many rows, one statement ---------------------------------------------------------------------------------------


def insert_rows(session: Session, model: type[Base], rows: Sequence[Row]) -> None:
    """Writes `rows`, all with the same columns, in one statement; nothing for no rows."""
    if rows:
        table, names = _table(model), tuple(rows[0])
        _write(session, _Part(_insert, (table, names), _types(table, names), rows))


def claim_rows(session: Session, model: type[Base], rows: Sequence[Row], returning: Sequence[str]) -> list[Row]:
    """Writes those `rows` that break no unique constraint; answers `returning` of the rows it wrote.

    On PostgreSQL a conflicting row of an unfinished transaction is waited for. Pass rows sorted, so that two batches
    wait for each other in one order only.
    """
    if not rows:
        return []
    table, names = _table(model), tuple(rows[0])
    part = _Part(_claim, (table, names, tuple(returning)), _types(table, names), rows)
    return [dict(zip(returning, row, strict=True)) for row in _execute(session, [part])]


def update_rows(session: Session, model: type[Base], key: Sequence[str], rows: Sequence[Row]) -> None:
    """Sets the other columns of each row found by its `key` columns, in one statement."""
    if rows:
        table, names = _table(model), tuple(rows[0])
        _write(session, _Part(_update, (table, names, tuple(key)), _types(table, names), rows))


def consume(
    session: Session,
    model: type[Base],
    chosen: ColumnElement[bool],
    names: Sequence[str],
    summary: Callable[[Columns], Select[*tuple[Any, ...]]],
) -> Sequence[SelectedRow[*tuple[Any, ...]]]:
    """Deletes the `chosen` rows of `model`; answers what `summary` selects of them, from their columns `names`.

    One statement on PostgreSQL, where somebody else may write a row meanwhile. SQLite has no such statement, and one
    writer.
    """
    table = _table(model)
    if session.get_bind().dialect.name == "postgresql":
        taken = delete(table).where(chosen).returning(*(table.c[name] for name in names)).cte("taken")
        return session.execute(summary(taken.c)).all()
    rows = session.execute(summary(table.c).where(chosen)).all()
    session.execute(delete(table).where(chosen))
    return rows


@contextmanager
def together(session: Session) -> Iterator[None]:
    """What `insert_rows` and `update_rows` write within the block is one statement on PostgreSQL, at its end.

    So nothing in the block may read what it writes, nor update what it inserts. Blocks within a block are part of it.
    """
    if _PARTS in session.info:
        yield
        return
    parts: list[_Part] = session.info.setdefault(_PARTS, [])
    try:
        yield
    finally:
        del session.info[_PARTS]
    if parts:
        _execute(session, parts, longest=True)


_PARTS = "parts of one statement"


class _Meanwhile(threading.local):
    work: Callable[[], None] | None = None


_meanwhile = _Meanwhile()


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Within the block `work` is done when this thread begins to wait for what takes the database longest, the
    statement of `together`, or on SQLite for its turn; at the end of the first transaction, or of the block, at the
    latest.

    Python runs one thread of a process at a time, so what others have to do after `work` goes best with such a wait.
    """
    _meanwhile.work = work
    try:
        yield
    finally:
        _begin_to_wait()


def _begin_to_wait() -> None:
    work, _meanwhile.work = _meanwhile.work, None
    if work is not None:
        work()


def any_row_of(
    session: Session, columns: Sequence[ColumnElement[Any]], rows: Sequence[tuple[Any, ...]]
) -> ColumnElement[bool]:
    """The values of `columns` are one of `rows`: parameters as in `any_of`, one per column."""
    dialect = session.get_bind().dialect
    types = {f"c{position}": part.type for position, part in enumerate(columns)}
    given = _source(dialect.name, tuple(types.items()))
    parameters = _parameters(dialect, types, [dict(zip(types, row, strict=True)) for row in rows])
    return tuple_(*columns).in_(select(*given.c).params(parameters))


def any_of(session: Session, column: ColumnElement[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """`column` is one of `values`: one parameter however many values, so the statement's text never changes."""
    given = bindparam(None, list(values), type_=PackedArray(column.type))
    return _among(session.get_bind().dialect.name, column, given)


def one_of(engine: str, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """The same, for `found`: the values come with the parameter `name`."""
    return _among(engine, column, bindparam(name, type_=PackedArray(column.type)))


def _among(engine: str, column: ColumnElement[Any], given: BindParameter[Any]) -> ColumnElement[bool]:
    if engine == "postgresql":
        return column == func.any(given)
    return column.in_(select(func.json_each(given).table_valued("value").c.value))


def one_row_of(engine: str, columns: Sequence[ColumnElement[str]]) -> ColumnElement[bool]:
    """The values of `columns` are one of some rows of texts, which `found` is given with `**texts(...)`."""
    given = _source(engine, tuple((f"c{position}", part.type) for position, part in enumerate(columns)))
    return tuple_(*columns).in_(select(*given.c))


def given(engine: str, columns: tuple[tuple[str, TypeEngine[Any]], ...]) -> FromClause:
    """Some rows as a table, for `found`, which is given them with `**rows_of(session, columns, rows)`."""
    return _source(engine, columns)


def rows_of(
    session: Session, columns: tuple[tuple[str, TypeEngine[Any]], ...], rows: Sequence[tuple[Any, ...]]
) -> dict[str, Any]:
    """The parameters for `given`, of any number of rows."""
    names = [name for name, _ in columns]
    return _parameters(session.get_bind().dialect, dict(columns), [dict(zip(names, row, strict=True)) for row in rows])


def texts(session: Session, rows: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """The parameters for `one_row_of`, of at least one row."""
    if session.get_bind().dialect.name != "postgresql":
        return {"rows": json.dumps(rows)}
    return {f"rows_c{position}": list(column) for position, column in enumerate(zip(*rows, strict=True))}


def found(session: Session, make: Callable[..., Select[*tuple[Any, ...]]], *about: Any, **values: Any) -> Any:
    """The rows of the select that `make` makes of the engine's name and `about`, with `values` for its parameters.

    For what every batch asks. On PostgreSQL it is executed by its text as `_execute` does, so the rows are as the
    driver reads them: select no type there that only SQLAlchemy can read. A row is a tuple with names, and `_asdict()`.
    """
    connection = session.connection()
    dialect = connection.dialect
    if dialect.name != "postgresql":
        return connection.execute(_made(make, dialect.name, about), values).all()
    asked = _asked(dialect, make, about)
    given = asked.fixed | {name: asked.processors[name](value) for name, value in values.items()}
    return [*map(asked.named, _as_text(connection, asked.text, [given[name] for name in asked.order]))]


@lru_cache(maxsize=256)
def _made(make: Callable[..., Any], engine: str, about: tuple[Any, ...]) -> Any:
    return make(engine, *about)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A select as PostgreSQL is sent it: its `text`, the names of its parameters in their `order`, how they are sent,
    those that are `fixed`, and what gives a row of the driver's its names."""

    text: str
    order: Sequence[str]
    processors: Mapping[str, Callable[[Any], Any]]
    fixed: dict[str, Any]
    named: Callable[[Sequence[Any]], Any]


@lru_cache(maxsize=256)
def _asked(dialect: Dialect, make: Callable[..., Any], about: tuple[Any, ...]) -> _Asked:
    statement = make(dialect.name, *about)
    compiled = statement.compile(dialect=dialect)
    named = namedtuple("Found", statement.selected_columns.keys(), rename=True)  # type: ignore[misc]  # known by now
    processors = {name: bind.type.bind_processor(dialect) or _as_is for name, bind in compiled.binds.items()}
    fixed = {name: processors[name](value) for name, value in compiled.params.items() if value is not None}
    text, order = _numbered(compiled.string)
    return _Asked(text, order, processors, fixed, named._make)


def _as_is(value: Any) -> Any:
    return value


_NAMED = re.compile(r"%\((\w+)\)s")


def _numbered(text: str) -> tuple[str, list[str]]:
    """A statement as PostgreSQL itself has parameters, by number, and their names in that order."""
    names = list(dict.fromkeys(_NAMED.findall(text)))
    numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
    return _NAMED.sub(lambda match: numbers[match[1]], text).replace("%%", "%"), names


def _as_text(connection: Connection, text: str, values: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
    """The rows of a statement whose parameters are numbered: the driver need not look for them in its text, which it
    would do each time with one as long as ours."""
    with reading_at_once(connection.connection.driver_connection):
        done = connection.exec_driver_sql(text, tuple(values))
    rows: Sequence[tuple[Any, ...]] = done.context.cursor.rows
    return rows


def beyond(columns: Sequence[ColumnElement[Any]], values: Sequence[Any]) -> ColumnElement[bool]:
    """The row of `columns` sorts after `values`: where a walk in their order goes on."""
    return tuple_(*columns) > tuple_(*(literal(value, part.type) for part, value in zip(columns, values, strict=True)))


def _table(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


def _types(table: Table, names: Sequence[str]) -> dict[str, TypeEngine[Any]]:
    return {name: table.c[name].type for name in names}


def _parameters(dialect: Dialect, types: Mapping[str, TypeEngine[Any]], rows: Sequence[Row]) -> dict[str, Any]:
    if dialect.name == "postgresql":
        return {f"rows_{name}": [row[name] for row in rows] for name in types}
    columns = [encoded(type_, dialect, [row[name] for row in rows]) for name, type_ in types.items()]
    return {"rows": json.dumps(list(zip(*columns, strict=True)))}


@dataclass(frozen=True, slots=True)
class _Part:
    """A statement, or a part of one, that writes `rows`: what `make` makes of the engine's name and `about`."""

    make: Callable[..., Any]
    about: tuple[Any, ...]
    types: Mapping[str, TypeEngine[Any]]
    rows: Sequence[Row]


def _write(session: Session, part: _Part) -> None:
    parts: list[_Part] | None = session.info.get(_PARTS)
    if parts is None:
        _execute(session, [part])
    else:
        parts.append(part)


def _execute(session: Session, parts: Sequence[_Part], *, longest: bool = False) -> Sequence[Sequence[Any]]:
    """Executes `parts`, on PostgreSQL as one statement (`WITH`), and answers what the last returns. `longest`: what is
    to be done `meanwhile` begins with it.

    There by its text, which is made once, so that nothing has to find again what the parts compile to (decision 12).
    What the last part returns is as the driver reads it.
    """
    connection = session.connection()
    dialect = connection.dialect
    if dialect.name != "postgresql":
        done = [
            connection.execute(part.make(dialect.name, *part.about), _parameters(dialect, part.types, part.rows))
            for part in parts
        ]
        return done[-1].all() if done[-1].returns_rows else ()
    text, order, processors = _compiled(dialect, tuple((part.make, part.about) for part in parts))
    values = {
        name: process([row[column] for row in part.rows])
        for part, columns in zip(parts, processors, strict=True)
        for name, column, process in columns
    }
    if longest:
        _begin_to_wait()
    return _as_text(connection, text, [values[name] for name in order])


@lru_cache(maxsize=256)
def _compiled(
    dialect: Dialect, parts: tuple[tuple[Callable[..., Any], tuple[Any, ...]], ...]
) -> tuple[str, list[str], list[list[tuple[str, str, Any]]]]:
    """The text of `parts` as one statement; its parameters in their order; and for each part its parameters: their
    names, whose columns they are, and how they are sent."""
    texts, processors = [], []
    for position, (make, about) in enumerate(parts):
        compiled = make(dialect.name, *about).compile(dialect=dialect)
        texts.append(compiled.string.replace("%(rows_", f"%(part{position}_"))
        processors.append(
            [
                (f"part{position}_{name[5:]}", name[5:], bind.type.bind_processor(dialect))
                for name, bind in compiled.binds.items()
            ]
        )
    *before, last = texts
    named = ", ".join(f"part{position} AS ({text})" for position, text in enumerate(before))
    return *_numbered(f"WITH {named} {last}" if before else last), processors


@lru_cache(maxsize=256)
def _source(dialect: str, types: tuple[tuple[str, TypeEngine[Any]], ...]) -> FromClause:
    if dialect == "postgresql":
        arrays = [bindparam(f"rows_{name}", type_=PackedArray(type_)) for name, type_ in types]
        columns = [column(name, type_) for name, type_ in types]
        return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()
    each = func.json_each(bindparam("rows", type_=Text)).table_valued("value")
    extracted = []
    for position, (name, type_) in enumerate(types):
        value = func.json_extract(each.c.value, f"$[{position}]", type_=type_)
        extracted.append((cast(value, type_) if isinstance(type_, LargeBinary) else value).label(name))
    return select(*extracted).subquery("given")


@lru_cache(maxsize=256)
def _insert(dialect: str, table: Table, names: tuple[str, ...]) -> Insert:
    source = _source(dialect, tuple(_types(table, names).items()))
    # "WHERE true": SQLite would read the ON of ON CONFLICT as a join's
    chosen = select(*[source.c[name] for name in names]).where(true())
    kind = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return kind(table).from_select(list(names), chosen)


@lru_cache(maxsize=256)
def _claim(dialect: str, table: Table, names: tuple[str, ...], returning: tuple[str, ...]) -> ReturningInsert[Any]:
    statement = _insert(dialect, table, names)
    assert isinstance(statement, postgresql.Insert | sqlite.Insert)
    return statement.on_conflict_do_nothing().returning(*[table.c[name] for name in returning])


@lru_cache(maxsize=256)
def _update(dialect: str, table: Table, names: tuple[str, ...], key: tuple[str, ...]) -> Update:
    source = _source(dialect, tuple(_types(table, names).items()))
    return (
        update(table)
        .values({name: source.c[name] for name in names if name not in key})
        .where(*[table.c[name] == source.c[name] for name in key])
    )
