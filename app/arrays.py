"""A whole column of a batch as one parameter: PostgreSQL's arrays in its binary format, or JSON for SQLite.

A driver's own lists are text, in which every quotation mark of every JSON document is escaped: a fifth of the writer's
time per purchase (decision 11). Here nothing is escaped, and each parameter knows its type, so nothing is cast either.
Format: `array_send` in PostgreSQL's sources, and `..._send` of each type.
"""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cache
from typing import Any, Self
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import JSON, Boolean, Date, DateTime, Dialect, Integer, LargeBinary, String, Uuid
from sqlalchemy.types import TypeEngine, UserDefinedType

from app.wire import JsonText

_HEADER = struct.Struct(">iiiii")  # dimensions, whether there are nulls, type of the items; length, first subscript
_NULL = struct.pack(">i", -1)
_INT8 = struct.Struct(">iq")
_INT4 = struct.Struct(">ii")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(2000, 1, 1).toordinal()


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _uuid(value: UUID) -> bytes:
    return b"\0\0\0\x10" + value.int.to_bytes(16, "big")


def _integer(value: int) -> bytes:
    return _INT8.pack(8, value)


def _text(value: str) -> bytes:
    return _sized(value.encode())


def _instant(value: datetime) -> bytes:
    since = value - _EPOCH
    return _INT8.pack(8, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def _day(value: date) -> bytes:
    return _INT4.pack(4, value.toordinal() - _EPOCH_DAY)


def _boolean(value: bool) -> bytes:
    return b"\0\0\0\x01\x01" if value else b"\0\0\0\x01\0"


def as_json(value: Any) -> str:
    """`value` as JSON, or as it is."""
    return value if isinstance(value, JsonText) else to_json(value).decode()


def _document(value: Any) -> bytes:
    return _sized(b"\x01" + (value.encode() if isinstance(value, JsonText) else to_json(value)))


Encode = Callable[[Any], bytes]
_TYPES: tuple[tuple[type[TypeEngine[Any]], int, int, Encode], ...] = (
    (Uuid, 2950, 2951, _uuid),
    (Integer, 20, 1016, _integer),
    (String, 25, 1009, _text),
    (DateTime, 1184, 1185, _instant),
    (Date, 1082, 1182, _day),
    (Boolean, 16, 1000, _boolean),
    (LargeBinary, 17, 1001, _sized),
    (JSON, 3802, 3807, _document),
)
"""A column's type; the numbers by which PostgreSQL knows its type and that of arrays; how a value is sent."""


class Packed(bytes):
    """An array as it is sent. Each type of array has a class of its own: the driver knows types by class."""


_PACKED = {array: type(f"Packed{array}", (Packed,), {}) for _, _, array, _ in _TYPES}


class PackedArray(UserDefinedType[Sequence[Any]]):
    """The type of a parameter that is a list of values of a column's type, None among them. No column has it."""

    cache_ok = True

    def __init__(self, item: TypeEngine[Any]):
        self.item = item

    def bind_processor(self, dialect: Dialect) -> Callable[[Sequence[Any] | None], Any]:
        if dialect.name == "sqlite":
            return lambda values: json.dumps(encoded(self.item, dialect, values or ()))
        item, array, encode = _known(self.item, dialect)
        kind = _PACKED[array]

        def pack(values: Sequence[Any] | None) -> Any:
            if not values:
                return kind(struct.pack(">iii", 0, 0, item))
            parts, part, nulls = [], b"", False
            last: Any = values  # no item is the list itself
            for value in values:
                if value is not last:  # one instant, one source: many a column says the same in every row
                    last, part = value, _NULL if value is None else encode(value)
                    nulls = nulls or value is None
                parts.append(part)
            return kind(_HEADER.pack(1, nulls, item, len(values), 1) + b"".join(parts))

        return pack


def encoded(type_: TypeEngine[Any], dialect: Dialect, values: Sequence[Any]) -> Sequence[Any]:
    """`values` as SQLite stores them, which JSON can carry. Bytes must be UTF-8."""
    if isinstance(type_, LargeBinary):
        return [None if value is None else value.decode() for value in values]
    process = type_.dialect_impl(dialect).bind_processor(dialect)
    return values if process is None else [process(value) for value in values]


def _known(type_: TypeEngine[Any], dialect: Dialect) -> tuple[int, int, Encode]:
    impl = type_.dialect_impl(dialect)
    inner = getattr(impl, "impl_instance", impl)  # what a TypeDecorator, such as `db.Instant`, stands for
    return next((item, array, encode) for known, item, array, encode in _TYPES if isinstance(inner, known))


def teach_driver() -> None:
    """Tells psycopg how packed arrays are sent: as they are. Before the first engine is made."""
    import psycopg
    from psycopg.pq import Format

    for array, kind in _PACKED.items():

        class AsItIs(psycopg.adapt.Dumper):
            format = Format.BINARY
            oid = array

            def dump(self, obj: Any) -> bytes:
                return obj  # type: ignore[no-any-return]  # of the class it is registered for

        psycopg.adapters.register_dumper(kind, AsItIs)


@contextmanager
def reading_at_once(connection: Any) -> Iterator[None]:
    """Within it the cursor of a statement of psycopg's `connection` has all `rows` as soon as that is executed; its
    parameters are by number (`$1`), with values in a sequence."""
    import psycopg

    connection.cursor_factory = _reading()
    try:
        yield
    finally:
        connection.cursor_factory = psycopg.Cursor


@cache
def _reading() -> type:
    """The class of such a cursor. It tells SQLAlchemy of no columns: to find out about them, statement by statement,
    took it twice as long as to execute one, and we know them (decision 22)."""
    import psycopg

    class Reading(psycopg.RawCursor[Any]):
        description = None
        rows: Sequence[tuple[Any, ...]] = ()

        def execute(self, *statement: Any, **options: Any) -> Self:
            super().execute(*statement, **options)
            if self.pgresult is not None and self.pgresult.status == psycopg.pq.ExecStatus.TUPLES_OK:
                self.rows = self.fetchall()
            return self

    return Reading
