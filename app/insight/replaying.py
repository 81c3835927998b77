"""Replay a draft: what other terms would have given for the purchases of a past period. Reads only.

It walks through the members, and through each one's purchases in the order in which they arrived. Pages are read by
keys, each in a snapshot of its own: memory does not grow with the history, and nothing is held up by a long one.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from heapq import merge
from itertools import groupby, islice
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, case, func, null, select
from sqlalchemy.orm import Session

from app import db, ledger, members, programs, stamps, tiers
from app.db import Database
from app.errors import Finding, Problem
from app.ids import new_id
from app.insight.moves import Counting, Course, in_turn
from app.insight.rules import Bought, Life, Totals, at_once, in_order
from app.ledger.models import PointEntry
from app.members.models import Member
from app.programs import Customer, Reason, Terms, Version
from app.transactions.models import Transaction, TransactionClaim
from app.transactions.schemas import PurchaseIn, basket_of

MEMBERS = 500
"""Whose purchases are walked through together."""
PURCHASES = 1000
"""Read at a time."""

Fields = Row[*tuple[Any, ...]]


class PeriodInvalid(Problem):
    """A replay is about a period of the past, which begins before it ends."""

    status, code, title = 422, "period_invalid", "There is no such period in the past"


@dataclass(frozen=True, slots=True)
class Period:
    """Purchases that happened `since` an instant and before `until`."""

    since: datetime
    until: datetime


def period(since: datetime, until: datetime, now: datetime) -> Period:
    """PeriodInvalid if it is none, or not over."""
    if not since < until:
        raise PeriodInvalid(findings=[Finding("to", "not_after_from", "the period ends before it begins")])
    if until > now:
        raise PeriodInvalid(findings=[Finding("to", "in_future", "the period is not over")])
    return Period(since, until)


def replay(database: Database, program_id: UUID, draft: Terms, within: Period, now: datetime) -> Iterator[Totals]:
    """The totals of `within` after each page of members, and in the end: always the same object.

    The draft is tried as if it had been in force in the period and nowhere else. Purchases that arrived earlier, or
    happened outside, count for its limits and towards tiers with what they really gave. What is recorded after `now` is
    left out.
    """
    version, totals = Version(new_id(), 0, within.since, draft), Totals()
    timeline = database.read(lambda session: programs.timeline(session, program_id))
    published = {each.id: each.terms for each in timeline.versions}
    reading = _Reading(database, program_id, published, within, now, draft.personal)
    course = Course.of(timeline, version, within.until, now)
    for member_ids in _members(database, program_id):
        known = database.read(partial(_standing, member_ids)) if course.has_tiers else {}
        for member_id, theirs in groupby(reading.purchases(member_ids), attrgetter("member_id")):
            life = Life(member_id)
            for row in theirs:
                if row.basket is None:
                    life.skip(row)
                else:
                    totals.add(row, life.replay(row, version, program_id))
            if member_id in known:
                record, segments = known.pop(member_id)
                course.add(record, life.counting, totals.moves(segments))
        for record, segments in known.values():  # who bought nothing then may have fallen all the same
            course.add(record, Counting(), totals.moves(segments))
        totals.members += len(member_ids)
        yield totals
    yield totals


def _standing(member_ids: Sequence[UUID], session: Session) -> dict[UUID, tuple[tiers.Record, Collection[str]]]:
    """What is on record of members for tiers, and their segments."""
    profiles = members.customers(session, member_ids)
    records = tiers.records(session, member_ids)
    return {id_: (record, profiles.get(id_, Customer(False)).segments) for id_, record in records.items()}


def count_members(session: Session, program_id: UUID) -> int:
    """How many a replay walks through."""
    return session.execute(select(func.count()).where(Member.program_id == program_id)).scalar_one()


def _members(database: Database, program_id: UUID) -> Iterator[Sequence[UUID]]:
    rows = select(Member.id).where(Member.program_id == program_id).order_by(Member.id).limit(MEMBERS)
    page = database.read(partial(_ids, rows))
    while page:
        yield page
        page = database.read(partial(_ids, rows.where(Member.id > page[-1])))


def _ids(rows: Select[UUID], session: Session) -> Sequence[UUID]:
    return session.scalars(rows).all()


# --- purchases ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """A table that has purchases of members: what is read of it, by member and arrival."""

    columns: tuple[ColumnElement[Any], ...]
    position: tuple[ColumnElement[Any], ...]
    joined: Callable[[Select[*tuple[Any, ...]]], Select[*tuple[Any, ...]]]


_POSITION = ("member_id", "recorded_at", "document_id")
_ABOUT = (
    Transaction.id.label("purchase_id"),
    Transaction.recorded_at.label("purchase_recorded_at"),
    Transaction.terms_id,
    Transaction.store,
    Transaction.occurred_at,
)


def _kind(
    table: type[Transaction] | type[TransactionClaim],
    joined: Callable[[Select[*tuple[Any, ...]]], Select[*tuple[Any, ...]]],
) -> _Kind:
    position: tuple[ColumnElement[Any], ...] = (
        table.member_id.expression,
        table.recorded_at.expression,
        table.id.expression,
    )
    named = tuple(column.label(name) for column, name in zip(position, _POSITION, strict=True))
    reasons = func.coalesce(table.reasons, Transaction.reasons, type_=Transaction.reasons.type)
    return _Kind((*named, reasons.label("reasons"), table.facts.expression), position, joined)


_OWN = _kind(Transaction, lambda rows: rows.where(Transaction.type == "purchase"))
_CLAIMED = _kind(
    TransactionClaim, lambda rows: rows.join(Transaction, Transaction.id == TransactionClaim.transaction_id)
)


def _position(row: Fields) -> tuple[Any, ...]:
    return row.member_id, row.recorded_at, row.document_id


@dataclass(frozen=True, slots=True)
class _Reading:
    """How purchases are read: `terms` by the id of the version; `all`: those outside the period too."""

    database: Database
    program_id: UUID
    terms: Mapping[UUID, Terms]
    within: Period
    now: datetime
    all: bool

    def purchases(self, member_ids: Sequence[UUID]) -> Iterator[Bought]:
        """Those of some members, one after the other, in the order of arrival."""
        rows = merge(self._walk(_OWN, member_ids), self._walk(_CLAIMED, member_ids), key=_position)
        for group in at_once(self._completed(rows)):
            yield from in_order(group)

    def _walk(self, kind: _Kind, member_ids: Sequence[UUID]) -> Iterator[Fields]:
        """Rows by member and arrival, a page at a time."""
        after: tuple[Any, ...] | None = None
        while page := self.database.read(partial(self._page, kind, member_ids, after)):
            yield from page
            after = _position(page[-1])

    def _page(
        self, kind: _Kind, member_ids: Sequence[UUID], after: tuple[Any, ...] | None, session: Session
    ) -> Sequence[Fields]:
        happened = Transaction.occurred_at
        inside = (happened >= self.within.since) & (happened < self.within.until)
        content = case((inside, Transaction.content), else_=null()).label("content")
        rows = kind.joined(select(*_ABOUT, content, *kind.columns))
        rows = rows.where(db.any_of(session, kind.position[0], member_ids), kind.position[1] <= self.now)
        if not self.all:
            rows = rows.where(inside)
        if after is not None:
            rows = rows.where(db.beyond(kind.position, after))
        return session.execute(rows.order_by(*kind.position).limit(PURCHASES)).all()

    def _completed(self, rows: Iterator[Fields]) -> Iterator[Bought]:
        """The same with what the books say of them, and of their members."""
        while page := list(islice(rows, PURCHASES)):
            yield from self.database.read(partial(self._complete, page))

    def _complete(self, page: Sequence[Fields], session: Session) -> list[Bought]:
        numbers = _numbers(session, [row.document_id for row in page])
        inside = [row for row in page if row.content is not None]
        granted = self._granted(session, [row.document_id for row in inside])
        past = _past(session, [row.purchase_id for row in inside])
        profiles = members.customers(session, {row.member_id for row in inside})
        return [
            self._bought(row, numbers, granted, past.get(row.purchase_id, ()), profiles.get(row.member_id))
            for row in page
        ]

    def _granted(self, session: Session, documents: Sequence[UUID]) -> dict[UUID, list[ledger.GrantedLot]]:
        """The lots of each purchase, those of its stamps too."""
        put = stamps.stampings(session, programs.timeline(session, self.program_id), documents)
        ids = {each.id: document_id for document_id, theirs in put.items() for each in theirs}
        found: dict[UUID, list[ledger.GrantedLot]] = {}
        for id_, lots in ledger.granted_lots(session, [*documents, *ids]).items():
            found.setdefault(ids.get(id_, id_), []).extend(lots)
        return found

    def _bought(
        self,
        row: Fields,
        numbers: Mapping[UUID, int],
        granted: Mapping[UUID, Sequence[ledger.GrantedLot]],
        past: Sequence[Any],
        profile: Customer | None,
    ) -> Bought:
        sent = None if row.content is None else PurchaseIn.model_validate(row.content)
        basket = None if sent is None else basket_of(sent)
        lots = granted.get(row.document_id, ())
        return Bought(
            document_id=row.document_id,
            member_id=row.member_id,
            recorded_at=row.recorded_at,
            occurred_at=row.occurred_at,
            number=numbers.get(row.document_id),
            purchase={
                "id": row.purchase_id,
                "occurred_at": row.occurred_at,
                "recorded_at": row.purchase_recorded_at,
            },
            terms=self.terms[row.terms_id],
            reasons=[Reason(**each) for each in row.reasons],
            facts=row.facts,
            store=row.store,
            channel=None if sent is None else sent.channel,
            basket=basket,
            past=past if basket is None else in_turn(basket, past),
            profile=profile or Customer(False),
            granted=sum(lot.granted for lot in lots),
            taken_back=sum(lot.returned for lot in lots),
            deferred=sum(lot.allocated for lot in lots),
            given_back=sum(lot.returned_allocated for lot in lots),
        )


def _numbers(session: Session, document_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The number of the first entry that each of some documents made."""
    theirs = db.any_of(session, PointEntry.document_id.expression, document_ids)
    rows = select(PointEntry.document_id, func.min(PointEntry.number)).where(theirs).group_by(PointEntry.document_id)
    return {row[0]: row[1] for row in session.execute(rows)}


_PAST = ("id", "type", "purchase_id", "original_id", "member_id", "occurred_at", "recorded_at", "outcome")


def _past(session: Session, purchase_ids: Sequence[UUID]) -> dict[UUID, list[Any]]:
    """What came back of some purchases, in the order in which it did."""
    columns = (getattr(Transaction, name) for name in _PAST)
    theirs = db.any_of(session, Transaction.purchase_id.expression, purchase_ids)
    found: dict[UUID, list[Any]] = {}
    for row in session.execute(select(*columns).where(theirs).order_by(Transaction.id)).mappings():
        found.setdefault(row["purchase_id"], []).append(row)
    return found
