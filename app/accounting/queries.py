"""Reads of the journal and the cohorts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, func, literal, select, tuple_, union, union_all
from sqlalchemy.orm import Session

from app import db
from app.accounting.models import Account, Cohort, CohortChangeRow, JournalPosting
from app.accounting.recognition import FIGURES
from app.accounting.rules import MILLION, Cause, Chart


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


def reward_costs(session: Session, document_ids: Sequence[UUID], chart: Chart) -> dict[UUID, tuple[str, int]]:
    """What rewards have cost when they were handed over, currency and minor units, by document; ours or a partner's."""
    booked = _to_reward_costs(session, document_ids, "fulfilment", chart)
    return {document_id: (currency, amount) for document_id, currency, amount in booked if amount}


def written_off(session: Session, document_ids: Sequence[UUID], chart: Chart) -> dict[UUID, dict[str, int]]:
    """How much of the cost of rewards has become marketing, minor units, by document and currency."""
    found: dict[UUID, dict[str, int]] = {}
    for document_id, currency, amount in _to_reward_costs(session, document_ids, "write_off", chart):
        found.setdefault(document_id, {})[currency] = -amount
    return found


def _to_reward_costs(
    session: Session, document_ids: Sequence[UUID], cause: Cause, chart: Chart
) -> list[tuple[UUID, str, int]]:
    """Debits less credits of the cost of rewards that documents posted for one cause, by document and currency."""
    if not document_ids:
        return []
    chosen = db.any_of(session, JournalPosting.document_id.expression, document_ids)
    code, by = chart["cost_rewards"], (JournalPosting.document_id, JournalPosting.currency)
    amount = case((JournalPosting.debit == code, JournalPosting.amount), else_=-JournalPosting.amount)
    theirs = (JournalPosting.debit == code) | (JournalPosting.credit == code)
    rows = session.execute(
        select(*by, func.sum(amount)).where(chosen, theirs, JournalPosting.cause == cause).group_by(*by)
    )
    return [(document_id, currency, int(sum_)) for document_id, currency, sum_ in rows]


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
        select(Account, legs.c.currency, *exact_sums([legs.c.debits, legs.c.credits]))
        .join(Account, (Account.code == legs.c.code) & (Account.program_id == program_id))
        .group_by(*Account.__table__.c, legs.c.currency)
        .order_by(legs.c.currency, Account.code)
    )
    return [
        AccountBalance(account, currency, *whole_sums(parts)) for account, currency, *parts in session.execute(sums)
    ]


def exact_sums(columns: Iterable[ColumnElement[int]]) -> list[ColumnElement[Any]]:
    """The sum of each column as its millions and the rest, for `whole_sums`: SQLite refuses a sum beyond 64 bits."""
    return [func.sum(part) for column in columns for part in (column // MILLION, column % MILLION)]


def whole_sums(parts: Sequence[Any]) -> list[int]:
    """The sums, of what `exact_sums` selected."""
    return [int(millions) * MILLION + int(rest) for millions, rest in zip(parts[::2], parts[1::2], strict=True)]


CohortPlace = tuple[str, date, str, str]
"""A cohort's currency, month, funding and estimate class: its place in their order."""


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
    used: int
    expired: int
    recognised: int
    estimate: str
    unfolded: int
    """How much of `allocated` no fold has taken up yet."""
    waiting: int
    """How many changes no fold has taken up yet."""

    @property
    def place(self) -> CohortPlace:
        return self.currency, self.month, self.funding, self.estimate_class


def cohorts(
    session: Session, program_id: UUID, after: CohortPlace | None = None, limit: int | None = None
) -> list[CohortSum]:
    """Cohorts of a programme, changes that wait for a fold included, by currency, month, funding and class, from the
    one after `after`; at most `limit`, or all."""
    names = ("id", "currency", "month", "funding", "estimate_class")
    folded = select(*(getattr(Cohort, name).label(name) for name in names)).where(Cohort.program_id == program_id)
    waiting = select(*(getattr(CohortChangeRow, "cohort_id" if name == "id" else name) for name in names)).where(
        CohortChangeRow.program_id == program_id, CohortChangeRow.cause == "accrual"
    )
    known = union(folded, waiting).subquery()
    place = [known.c[name] for name in names[1:]]
    rows = select(known).order_by(*place).limit(limit)
    if after is not None:
        given = [literal(part, column.type) for part, column in zip(after, place, strict=True)]
        rows = rows.where(tuple_(*place) > tuple_(*given))
    found = session.execute(rows).all()
    ids = [row.id for row in found]
    kept = select(Cohort).where(db.any_of(session, Cohort.id.expression, ids))
    folds = {cohort.id: cohort for cohort in session.scalars(kept)}
    sums = _unfolded(session, ids)
    return [CohortSum(*row, **_both(folds.get(row.id), sums.get(row.id, _NOTHING))) for row in found]


_SUMMED = (*FIGURES, "expected_millionths")
_NOTHING = dict.fromkeys((*_SUMMED, "waiting"), 0)


def _unfolded(session: Session, ids: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
    """What waits for the next fold, by cohort: the sums of changes, and how many they are."""
    sums = exact_sums(getattr(CohortChangeRow, name) for name in _SUMMED)
    chosen = db.any_of(session, CohortChangeRow.cohort_id.expression, ids)
    rows = select(CohortChangeRow.cohort_id, func.count(), *sums).where(chosen).group_by(CohortChangeRow.cohort_id)
    unfolded = {}
    for id_, count, *parts in session.execute(rows):
        unfolded[id_] = dict(zip(_SUMMED, whole_sums(parts), strict=True)) | {"waiting": count}
    return unfolded


def _both(folded: Cohort | None, unfolded: Mapping[str, int]) -> dict[str, Any]:
    """What a cohort holds in all, of what is folded and what is not."""
    sums = {name: unfolded[name] + (0 if folded is None else getattr(folded, name)) for name in _SUMMED}
    sums["expected"] = sums["expected"] * MILLION + sums.pop("expected_millionths")
    return sums | {
        "recognised": 0 if folded is None else folded.recognised,
        "estimate": "1" if folded is None else folded.estimate,
        "unfolded": unfolded["allocated"],
        "waiting": unfolded["waiting"],
    }
