"""Many rows in one statement, on both engines: what is sent comes back, and a block of writes is all or nothing."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Select, Text, bindparam, literal, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from app import db
from app.db import Database, Instant
from app.ids import new_id
from app.outbox import OutboxEvent
from app.programs.models import Program
from app.wire import JsonText
from tests.test_purchase import statements

NOW = datetime(2026, 11, 22, 23, 59, 59, 999_999, tzinfo=UTC)

COLUMNS: dict[str, tuple[TypeEngine[Any], list[Any]]] = {
    "texts": (Text(), ["", 'a "quoted" {word}, \\ and ü', "same", "same", None, "NULL"]),
    "integers": (Program.id.table.metadata.tables["lot"].c.granted.type, [0, -1, 2**63 - 1, -(2**63), None, 7]),
    "ids": (Program.id.type, [new_id(), None, new_id()]),
    "instants": (Instant(), [NOW, NOW, datetime(1970, 1, 1, tzinfo=UTC), NOW - timedelta(microseconds=1), None]),
}


def program(code: str) -> dict[str, Any]:
    return {"id": new_id(), "code": code, "name": code, "created_at": NOW}


def event(program_id: Any, topic: str, payload: Any = None) -> dict[str, Any]:
    facts = {"id": new_id(), "program_id": program_id, "topic": topic, "member_id": None}
    return facts | {"payload": {} if payload is None else payload, "recorded_at": NOW}


def codes(database: Database) -> list[str]:
    return list(database.read(lambda session: session.scalars(select(Program.code).order_by(Program.code)).all()))


def test_a_block_is_one_statement_on_postgresql(database: Database) -> None:
    made = [program("b"), program("a")]

    def write(session: Session) -> None:
        with db.together(session):
            db.insert_rows(session, Program, made)
            with db.together(session):
                db.insert_rows(session, OutboxEvent, [event(made[0]["id"], "one")])
                db.insert_rows(session, OutboxEvent, [])
            db.insert_rows(session, OutboxEvent, [event(made[1]["id"], "two", JsonText('{"n": [1, "ü"]}'))])
            assert session.scalars(select(Program.code)).all() == []  # not written yet

    postgresql = database.engine.dialect.name == "postgresql"
    with statements(database) as sent:
        database.write(write)
    assert sum("INSERT" in statement for statement in sent) == (1 if postgresql else 3)
    assert codes(database) == ["a", "b"]
    events = select(OutboxEvent.topic, OutboxEvent.payload).order_by(OutboxEvent.topic)
    assert database.read(lambda session: session.execute(events).all()) == [("one", {}), ("two", {"n": [1, "ü"]})]


def test_a_block_that_fails_leaves_nothing(database: Database) -> None:
    def refused_by_us(session: Session) -> None:
        with suppress(RuntimeError), db.together(session):
            db.insert_rows(session, Program, [program("a")])
            raise RuntimeError
        db.insert_rows(session, Program, [program("b")])

    def refused_by_the_database(session: Session) -> None:
        with db.together(session):
            db.insert_rows(session, Program, [program("c")])
            db.insert_rows(session, Program, [program("b")])

    database.write(refused_by_us)
    with pytest.raises(IntegrityError):
        database.write(refused_by_the_database)
    assert codes(database) == ["b"]


@pytest.mark.parametrize("name", COLUMNS)
def test_any_of_a_column_of_values(database: Database, name: str) -> None:
    """Values of the types that are looked for are found in a list that came as one parameter; None is no value."""
    type_, values = COLUMNS[name]

    def is_there(session: Session, value: Any, among: list[Any]) -> bool:
        return bool(session.scalar(select(db.any_of(session, literal(value, type_), among))))

    for value in values:
        others = [other for other in values if other != value]
        assert database.read(partial(is_there, value=value, among=values)) is (value is not None)
        assert database.read(partial(is_there, value=value, among=others)) is False


def by_code(engine: str, order: str) -> Select[*tuple[Any, ...]]:
    named = db.one_of(engine, Program.code.expression, "codes")
    late = bindparam("late", type_=Program.created_at.type)
    rows = select(*Program.__table__.c).where(named, Program.created_at <= late, Program.name != "nobody")
    return rows.order_by(Program.__table__.c[order])


def test_a_select_that_is_made_once(database: Database) -> None:
    made = [program(code) for code in ("a", "b", "c")]
    database.write(lambda session: db.insert_rows(session, Program, made))

    def found(order: str, wanted: list[str], late: datetime) -> list[tuple[Any, str]]:
        rows = database.read(lambda session: db.found(session, by_code, order, codes=wanted, late=late))
        return [(row.id, row.code) for row in rows]

    for wanted in (["c", "a"], ["b"], []):
        assert found("code", wanted, NOW) == [(row["id"], row["code"]) for row in made if row["code"] in wanted]
    assert found("id", ["a"], NOW - timedelta(microseconds=1)) == []
