"""Returns that arrive before their purchase: kept aside, and applied with it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, bindparam, delete, select, tuple_, update
from sqlalchemy.orm import Session

from app import db, outbox
from app.errors import NotFound, Problem
from app.transactions.models import Transaction, TransactionKey, WaitingReturn
from app.transactions.return_rules import Return
from app.transactions.rules import Purchase, TransactionConflict, differences, fingerprint
from app.transactions.schemas import ReturnIn, return_of

Pair = tuple[str, str]
"""Source and external id."""

_TOLD = ("source", "external_id", "original_source", "original_external_id", "store", "recorded_at")
"""What the world is told of a return that waits."""

_OWN_KEY = (WaitingReturn.source.expression, WaitingReturn.external_id.expression)
_ORIGINAL = (WaitingReturn.original_source.expression, WaitingReturn.original_external_id.expression)


class ReturnNotWaiting(Problem):
    """The return has been recorded: its purchase came. Void it if it should not have happened."""

    status, code, title, final = 409, "return_not_waiting", "The return does not wait any more", True


@dataclass(frozen=True, slots=True)
class Waiting:
    """A return that waits for its purchase, since `recorded_at`."""

    item: Return
    recorded_at: datetime
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Queue:
    """The waiting returns that a batch has to do with, by their own natural keys."""

    keys: Mapping[Pair, Mapping[str, Any]]

    def again(self, item: Return) -> Waiting | None:
        """The answer to a return that waits already. TransactionConflict if it differs from the first."""
        row = self.keys.get((item.source, item.external_id))
        if row is None:
            return None
        if row["fingerprint"] != fingerprint(item.content):
            raise TransactionConflict(findings=list(differences(row["content"], item.content.parsed())))
        return Waiting(item, row["recorded_at"], duplicate=True)

    def for_purchases(self, purchases: Collection[Pair]) -> list[Return]:
        """The returns that wait for one of `purchases`, in the order they came."""
        rows = [row for row in self.keys.values() if (row["original_source"], row["original_external_id"]) in purchases]
        return [
            return_of(ReturnIn.model_validate(row["content"]))
            for row in sorted(rows, key=lambda row: (row["recorded_at"], row["external_id"]))
        ]


def load(session: Session, program_id: UUID, items: Sequence[Purchase | Return]) -> Queue:
    """The waiting returns that are among `items`, or wait for one of them."""
    found: dict[Pair, Mapping[str, Any]] = {}
    for kind, columns in ((Return, _OWN_KEY), (Purchase, _ORIGINAL)):
        pairs = sorted({(item.source, item.external_id) for item in items if isinstance(item, kind)})
        if pairs:
            rows = db.found(session, _among_pairs, columns, program_id=program_id, **db.texts(session, pairs))
            found |= {(row.source, row.external_id): row._asdict() for row in rows}
    return Queue(found)


def _among_pairs(engine: str, columns: tuple[ColumnElement[str], ...]) -> Select[*tuple[Any, ...]]:
    ours = WaitingReturn.program_id == bindparam("program_id", type_=WaitingReturn.program_id.type)
    return select(*WaitingReturn.__table__.c).where(ours, db.one_row_of(engine, columns))


def keep(session: Session, program_id: UUID, returns: Sequence[tuple[Return, datetime]]) -> None:
    """Puts returns aside until their purchases come."""
    rows = []
    for item, recorded_at in returns:
        assert item.original is not None
        rows.append(
            {
                "program_id": program_id,
                "source": item.source,
                "external_id": item.external_id,
                "original_source": item.original[0],
                "original_external_id": item.original[1],
                "store": item.store,
                "fingerprint": fingerprint(item.content),
                "content": item.content,
                "occurred_at": item.occurred_at,
                "recorded_at": recorded_at,
                "alarmed_at": None,
            }
        )
    db.claim_rows(session, WaitingReturn, rows, ["external_id"])  # the same return twice in one batch waits once


def forget(session: Session, program_id: UUID, returns: Sequence[Pair]) -> None:
    """Deletes the waiting rows of returns that are recorded now."""
    if returns:
        chosen = delete(WaitingReturn).where(WaitingReturn.program_id == program_id, _among(session, returns))
        session.execute(chosen)


def dismiss(
    session: Session,
    program_id: UUID,
    pair: Pair,
    now: datetime,
    *,
    client_id: UUID,
    person: str | None,
    stores: Collection[str] | None = None,
) -> None:
    """Takes a return off the list that waits in vain; tells the world what it was, and who (`person`, by which client)
    dismissed it. The till may post it again. ReturnNotWaiting; NotFound, also for a store that is not among `stores`.
    """
    columns = WaitingReturn.__table__.c
    mine = (columns.program_id == program_id) & (columns.source == pair[0]) & (columns.external_id == pair[1])
    if stores is not None:
        mine &= columns.store.in_(sorted(stores))
    row = session.execute(delete(WaitingReturn).where(mine).returning(*columns)).mappings().one_or_none()
    if row is None:
        raise ReturnNotWaiting if _recorded(session, program_id, pair, stores) else NotFound
    told = {name: row[name] for name in _TOLD} | {"recorded_at": row["recorded_at"].isoformat()}
    told |= {name: row["content"].get(name) for name in ("lines", "total")}
    payload = told | {"client_id": str(client_id), "person": person}
    outbox.put(session, [outbox.Event(program_id, "return.dismissed", None, payload)], now)


def _recorded(session: Session, program_id: UUID, pair: Pair, stores: Collection[str] | None) -> bool:
    """Whether a return with this natural key is recorded, by one of `stores`."""
    rows = select(Transaction.id).join(TransactionKey, TransactionKey.transaction_id == Transaction.id)
    key = (program_id, *pair, "return")
    own = (TransactionKey.program_id, TransactionKey.source, TransactionKey.external_id, TransactionKey.type)
    rows = rows.where(*(column == value for column, value in zip(own, key, strict=True)))
    if stores is not None:
        rows = rows.where(Transaction.store.in_(sorted(stores)))
    return session.execute(rows).first() is not None


def _among(session: Session, pairs: Collection[Pair]) -> ColumnElement[bool]:
    """The waiting return is one of `pairs`, by its own natural key."""
    return db.any_row_of(session, _OWN_KEY, sorted(pairs))


def arrived(session: Session, program_id: UUID, after: Pair | None, limit: int) -> list[Pair]:
    """Waiting returns whose purchase is there all the same: both came in the same moment, and neither saw the other."""
    there = (
        (TransactionKey.program_id == WaitingReturn.program_id)
        & (TransactionKey.source == WaitingReturn.original_source)
        & (TransactionKey.external_id == WaitingReturn.original_external_id)
        & (TransactionKey.type == "purchase")
    )
    rows = select(WaitingReturn.source, WaitingReturn.external_id).join(TransactionKey, there)
    return _pairs(session, rows, program_id, after, limit)


def overdue(session: Session, program_id: UUID, before: datetime, after: Pair | None, limit: int) -> list[Pair]:
    """Returns that have waited since `before` or longer, of which nobody was told."""
    rows = select(WaitingReturn.source, WaitingReturn.external_id)
    rows = rows.where(WaitingReturn.recorded_at <= before, WaitingReturn.alarmed_at.is_(None))
    return _pairs(session, rows, program_id, after, limit)


def _pairs(session: Session, rows: Select[str, str], program_id: UUID, after: Pair | None, limit: int) -> list[Pair]:
    rows = rows.where(WaitingReturn.program_id == program_id)
    if after is not None:
        rows = rows.where(db.beyond(_OWN_KEY, after))
    return [(source, external_id) for source, external_id in session.execute(rows.order_by(*_OWN_KEY).limit(limit))]


def returns_of(session: Session, program_id: UUID, pairs: Collection[Pair]) -> list[Return]:
    """Waiting returns by their natural keys, in the order they came."""
    rows = select(WaitingReturn).where(WaitingReturn.program_id == program_id, _among(session, pairs))
    found = session.scalars(rows.order_by(WaitingReturn.recorded_at, WaitingReturn.external_id))
    return [return_of(ReturnIn.model_validate(row.content)) for row in found]


def alarm(session: Session, program_id: UUID, pairs: Sequence[Pair], now: datetime) -> int:
    """Tells the world of returns that wait for too long, each once; answers how many."""
    alarmed = (
        update(WaitingReturn)
        .where(WaitingReturn.program_id == program_id, _among(session, pairs), WaitingReturn.alarmed_at.is_(None))
        .values(alarmed_at=now)
        .returning(*(getattr(WaitingReturn, name) for name in _TOLD))
    )
    rows = session.execute(alarmed).mappings().all()
    events = [
        outbox.Event(program_id, "return.waiting", None, dict(row) | {"recorded_at": row["recorded_at"].isoformat()})
        for row in rows
    ]
    outbox.put(session, events, now)
    return len(rows)


def listed(
    session: Session, program_id: UUID, stores: Collection[str] | None, after: Sequence[str] | None, limit: int
) -> Sequence[WaitingReturn]:
    """The returns that wait, of some stores or all, by source and external id from the one after `after`."""
    key = WaitingReturn.source, WaitingReturn.external_id
    rows = select(WaitingReturn).where(WaitingReturn.program_id == program_id).order_by(*key)
    if stores is not None:
        rows = rows.where(WaitingReturn.store.in_(sorted(stores)))
    if after is not None:
        rows = rows.where(tuple_(*key) > tuple_(*after))
    return session.scalars(rows.limit(limit)).all()
