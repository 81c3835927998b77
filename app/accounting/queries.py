"""Reads of the journal and the cohorts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select, union_all
from sqlalchemy.orm import Session

from app import db
from app.accounting.models import Account, Cohort, CohortChangeRow, JournalPosting


@dataclass(frozen=True, slots=True)
class Journal:
    """Which postings: any combination of filters; None leaves one out. Periods are first days of months."""

    program_id: UUID
    period_from: date | None = None
    period_to: date | None = None
    account: str | None = None
    cause: str | None = None
    document_id: UUID | None = None


def journal(session: Session, wanted: Journal, after: UUID | None, limit: int) -> Sequence[JournalPosting]:
    """Postings in the order of their ids, from the one after `after`; at most `limit`."""
    rows = select(JournalPosting).where(JournalPosting.program_id == wanted.program_id)
    if wanted.period_from is not None:
        rows = rows.where(JournalPosting.period >= wanted.period_from)
    if wanted.period_to is not None:
        rows = rows.where(JournalPosting.period <= wanted.period_to)
    if wanted.account is not None:
        rows = rows.where((JournalPosting.debit == wanted.account) | (JournalPosting.credit == wanted.account))
    if wanted.cause is not None:
        rows = rows.where(JournalPosting.cause == wanted.cause)
    if wanted.document_id is not None:
        rows = rows.where(JournalPosting.document_id == wanted.document_id)
    if after is not None:
        rows = rows.where(JournalPosting.id > after)
    return session.scalars(rows.order_by(JournalPosting.id).limit(limit)).all()


def postings_of(session: Session, document_ids: Sequence[UUID]) -> Sequence[JournalPosting]:
    """All postings of some transactions, in the order of their ids."""
    chosen = db.any_of(session, JournalPosting.document_id.expression, document_ids)
    return session.scalars(select(JournalPosting).where(chosen).order_by(JournalPosting.id)).all()


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """One line of a trial balance, minor units: what was debited and credited, in one currency."""

    account: Account
    currency: str
    debits: int
    credits: int


def balances(session: Session, program_id: UUID, period_to: date | None = None) -> list[AccountBalance]:
    """The trial balance of a programme up to and including a period: accounts with movements, by currency and code."""

    def side(account: ColumnElement[str], debit: int) -> Select[str, str, int, int]:
        amount = JournalPosting.amount
        rows = select(
            account.label("code"),
            JournalPosting.currency.label("currency"),
            (amount if debit else amount * 0).label("debits"),
            (amount * 0 if debit else amount).label("credits"),
        ).where(JournalPosting.program_id == program_id)
        return rows if period_to is None else rows.where(JournalPosting.period <= period_to)

    legs = union_all(side(JournalPosting.debit.expression, 1), side(JournalPosting.credit.expression, 0)).subquery()
    sums = (
        select(Account, legs.c.currency, func.sum(legs.c.debits), func.sum(legs.c.credits))
        .join(Account, (Account.code == legs.c.code) & (Account.program_id == program_id))
        .group_by(*Account.__table__.c, legs.c.currency)
        .order_by(legs.c.currency, Account.code)
    )
    return [
        AccountBalance(account, currency, int(debited), int(credited))
        for account, currency, debited, credited in session.execute(sums)
    ]


@dataclass(frozen=True, slots=True)
class CohortSum:
    """A cohort with what waits for the next fold: minor units, millionths of one, points, millionths of a point."""

    id: UUID
    currency: str
    month: date
    funding: str
    estimate_class: str
    allocated: int
    residue: int
    issued: int
    expected: int
    unfolded: int
    """How much of `allocated` no fold has consumed yet."""


def cohorts(session: Session, program_id: UUID) -> list[CohortSum]:
    """All cohorts of a programme, changes that wait for a fold included, by currency, month and class."""
    names = ("currency", "month", "funding", "estimate_class")
    sums = ("allocated", "residue", "issued", "expected")

    def part(model: type[Cohort] | type[CohortChangeRow], id_: str, waiting: int) -> Select[*tuple[Any, ...]]:
        columns = [getattr(model, name) for name in (*names, *sums)]
        unfolded = (model.allocated * waiting).label("unfolded")
        return select(getattr(model, id_).label("id"), *columns, unfolded).where(model.program_id == program_id)

    parts = union_all(part(Cohort, "id", 0), part(CohortChangeRow, "cohort_id", 1)).subquery()
    keys = [parts.c[name] for name in ("id", *names)]
    totals = [func.sum(parts.c[name]) for name in (*sums, "unfolded")]
    rows = select(*keys, *totals).group_by(*keys).order_by(parts.c.currency, parts.c.month, parts.c.estimate_class)
    return [CohortSum(*row[:5], *(int(value) for value in row[5:])) for row in session.execute(rows)]
