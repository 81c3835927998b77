"""What checks are made of."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)

from app.accounting.models import Account, JournalPosting
from app.accounting.rules import MILLION
from app.ledger.models import Lot, PointEntry


def within(column: ColumnElement[Any] | Any, program_id: UUID | None) -> ColumnElement[bool]:
    return true() if program_id is None else column == program_id


def zero(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(value, 0)


def total(amount: ColumnElement[Any]) -> ColumnElement[Any]:
    """The sum of whole numbers. SQLite refuses a sum beyond 64 bits, so millions and the rest are summed apart; beyond
    that it answers an approximation, but of anything else than zero never zero."""
    return func.sum(amount // MILLION) * MILLION + func.sum(amount % MILLION)


ENTRY = and_(PointEntry.member_id == Lot.member_id, PointEntry.id == Lot.entry_id)
"""The entry that granted a lot."""


def differing(subject: Any, expected: Any, actual: Any) -> Select[*tuple[Any, ...]]:
    found = select(cast(subject, String).label("subject"), expected.label("expected"), actual.label("actual"))
    return found.where(expected.is_distinct_from(actual))


def off(subject: Any, wrong: Sequence[ColumnElement[bool]]) -> Select[*tuple[Any, ...]]:
    """Rows of which anything is `wrong`, and how much of it."""
    return found_wrong(subject, wrong).where(or_(*wrong))


def found_wrong(subject: Any, wrong: Sequence[ColumnElement[bool]]) -> Select[*tuple[Any, ...]]:
    """All rows, and how much of each is `wrong`."""
    count = sum((case((condition, 1), else_=0) for condition in wrong), start=literal(0))
    return select(cast(subject, String).label("subject"), literal(0).label("expected"), count.label("actual"))


def posted_to(role: str, by: Any, program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Debits less credits of the account with `role`, summed up `by` a column of the journal."""

    def side(account: Any, sign: int) -> Select[*tuple[Any, ...]]:
        mine = and_(Account.program_id == JournalPosting.program_id, Account.code == account, Account.role == role)
        rows = select(by.label("subject"), (JournalPosting.amount * sign).label("amount")).join(Account, mine)
        return rows.where(within(JournalPosting.program_id, program_id))

    legs = union_all(side(JournalPosting.debit, 1), side(JournalPosting.credit, -1)).subquery()
    return select(legs.c.subject, func.sum(legs.c.amount).label("amount")).group_by(legs.c.subject)
