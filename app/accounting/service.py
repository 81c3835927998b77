"""Write the journal, and fold what events left behind into cohorts, which releases revenue."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from functools import partial, reduce
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, RowMapping, Select, bindparam, func, select, update
from sqlalchemy.orm import Session

from app import db
from app.accounting import recognition
from app.accounting.models import Account, Cohort, CohortChangeRow, JournalPosting
from app.accounting.postings import Posting
from app.accounting.queries import exact_sums, whole_sums
from app.accounting.recognition import (
    FIGURES,
    CohortChange,
    CohortKey,
    CohortState,
    Release,
    ReleaseCause,
    release_postings,
    sum_changes,
)
from app.accounting.rules import MILLION, ROLES, Chart, Funding
from app.ids import new_id

T = TypeVar("T")

_KEY = ("month", "funding", "estimate_class")
_IDENTITY = ("program_id", "currency", *_KEY)


def open_chart(session: Session, program_id: UUID, codes: Mapping[str, str]) -> None:
    """Gives a new programme its accounts; `codes` by role replace the default ones and must all differ."""
    rows = [
        {
            "program_id": program_id,
            "code": codes.get(name, role.code),
            "role": name,
            "name": role.name,
            "kind": role.kind,
        }
        for name, role in ROLES.items()
    ]
    db.insert_rows(session, Account, rows)


def chart(session: Session, program_id: UUID) -> Chart:
    """The programme's account codes by role."""
    if program_id not in _CHARTS:
        codes = dict(db.found(session, _codes, program_id=program_id))
        if len(codes) < len(ROLES):
            return codes  # no programme's, or one made by a release that knew fewer roles
        _CHARTS[program_id] = codes
    return _CHARTS[program_id]


_CHARTS: dict[UUID, Chart] = {}
"""Read once per process: the accounts of a chart never change."""


def _codes(_engine: str) -> Select[str, str]:
    mine = Account.program_id == bindparam("program_id", type_=Account.program_id.type)
    return select(Account.role, Account.code).where(mine)


def post(session: Session, postings: Sequence[Posting], now: datetime) -> None:
    """Writes `postings` to the journal."""
    rows = [
        {
            "id": new_id(),
            "program_id": posting.program_id,
            "debit": posting.debit,
            "credit": posting.credit,
            "amount": posting.amount,
            "currency": posting.currency,
            "cause": posting.cause,
            "cohort_id": posting.cohort_id,
            "document_id": posting.document_id,
            "occurred_at": posting.occurred_at,
            "recorded_at": now,
            "period": posting.period,
        }
        for posting in postings
    ]
    db.insert_rows(session, JournalPosting, rows)


def change_cohorts(session: Session, changes: Iterable[CohortChange], now: datetime) -> None:
    """Leaves one row per cohort, cause and month for the next fold. Nothing here touches a cohort, so that no purchase
    and no spend ever waits for one."""
    db.insert_rows(session, CohortChangeRow, [_change_row(change, now) for change in sum_changes(changes)])


def _change_row(change: CohortChange, now: datetime) -> db.Row:
    names = ("cohort_id", "program_id", "currency", "cause", "period", "occurred_at", *FIGURES, "used_as_agent")
    key = {name: None if change.key is None else getattr(change.key, name) for name in _KEY}
    same = {name: getattr(change, name) for name in names}
    return {"id": new_id(), "recorded_at": now} | same | key | _apart(change.expected)


def _apart(expected: int) -> dict[str, int]:
    """Millionths of a point as the tables keep them."""
    points, millionths = divmod(expected, MILLION)
    return {"expected": points, "expected_millionths": millionths}


# --- recognition ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Folded:
    """What a fold did: how many cohorts it changed, changes it took up, and rows it posted; and what it released.

    `left` counts the cohorts that could not be folded. `released` is in minor units, by currency, funding and cause;
    less than zero where more was taken back. For `marketing` it is provision used up or given back, else revenue.
    """

    cohorts: int
    changes: int
    postings: int
    left: int
    released: Mapping[tuple[str, Funding, ReleaseCause], int]

    def with_(self, other: "Folded") -> "Folded":
        """Both together."""
        released = Counter(self.released)
        for about, amount in other.released.items():
            released[about] += amount
        return Folded(
            self.cohorts + other.cohorts,
            self.changes + other.changes,
            self.postings + other.postings,
            self.left + other.left,
            dict(released),
        )


@dataclass(frozen=True, slots=True)
class _Step:
    """One cohort after its fold: how many changes it took up, what they released, and how many rows that posted."""

    key: CohortKey
    state: CohortState
    changes: int
    releases: list[Release]
    postings: int


SUMMED_AT_ONCE = 100_000
"""Changes of a cohort. More of them are summed up before they are folded, so that no statement takes long after days
without a fold: there is a row for each batch of purchases."""


def fold(database: db.Database, now: datetime, program_id: UUID | None = None) -> Folded:
    """Adds all waiting changes, of one programme or of all, to their cohorts and posts what that releases."""
    return reduce(Folded.with_, fold_in_steps(database, now, program_id), Folded(0, 0, 0, 0, {}))


def fold_in_steps(database: db.Database, now: datetime, program_id: UUID | None = None) -> Iterator[Folded]:
    """What `fold` does, step by step: a database transaction each.

    Two folds at once, or one that dies half-way, are harmless: a change is deleted in the transaction that takes it
    up. A cohort that cannot be folded is logged and left; the others go on.
    """
    waiting = select(CohortChangeRow.cohort_id, func.count()).group_by(CohortChangeRow.cohort_id)
    if program_id is not None:
        waiting = waiting.where(CohortChangeRow.program_id == program_id)
    for cohort_id, count in sorted(database.read(lambda session: session.execute(waiting).all())):
        try:
            last = None
            for _ in range(count // SUMMED_AT_ONCE):
                summing = partial(_sum_up, cohort_id=cohort_id, after=last, now=now)
                summed, last = _written(database, summing)
                yield Folded(0, summed, 0, 0, {})
            step = _written(database, partial(_fold_cohort, cohort_id=cohort_id, now=now))
        except Exception:
            structlog.get_logger().exception("a cohort could not be folded", cohort=str(cohort_id))
            yield Folded(0, 0, 0, 1, {})
        else:
            released = Counter[tuple[str, Funding, ReleaseCause]]()
            for release in step.releases:
                released[step.key.currency, step.key.funding, release.cause] += release.amount
            yield Folded(int(step.changes > 0), step.changes, step.postings, 0, dict(released))


def _written(database: db.Database, work: Callable[[Session], T]) -> T:
    """One step of a fold, which waits for nobody long: the next fold finds what this one leaves."""

    def brief(session: Session) -> T:
        with db.patient(session, db.Patience.BRIEF):
            return work(session)

    return database.write(brief, repeatable=True)


def revise_estimate(
    session: Session, cohort_id: UUID, expected_points: Fraction | int, now: datetime, period: date
) -> list[Release]:
    """From now on `expected_points` of the cohort's points are expected to be used in all; posts what that changes.

    What waits for a fold is taken up first, so that the estimate is compared with all that was issued. Answers what
    was released in all, the estimate's part last, in `period`. ValueError where nothing was expected at issue.
    """
    step = _fold_cohort(session, cohort_id, now)
    state, revised = recognition.revise(step.state, expected_points, period, now)
    _write_cohort(session, step.key, state, revised, now)
    return [*step.releases, *revised]


def _fold_cohort(session: Session, cohort_id: UUID, now: datetime) -> _Step:
    key, before = _lock_cohort(session, cohort_id)
    count, changes = _take_changes(session, cohort_id, CohortChangeRow.cohort_id == cohort_id)
    state, releases = recognition.fold(before, changes)
    postings = _write_cohort(session, key, state, releases, now) if count else 0
    return _Step(key, state, count, releases, postings)


def _sum_up(session: Session, cohort_id: UUID, after: UUID | None, now: datetime) -> tuple[int, UUID | None]:
    """Puts their sums in place of so many changes of a cohort, from the one after `after` by id; answers how many fewer
    there are, and the last of them.

    Which ones does not matter: a fold sums up all that waits.
    """
    id_ = CohortChangeRow.id.expression
    mine = CohortChangeRow.cohort_id == cohort_id
    if after is not None:
        mine &= id_ > after
    last = session.scalars(select(id_).where(mine).order_by(id_).offset(SUMMED_AT_ONCE - 1).limit(1)).one_or_none()
    count, changes = _take_changes(session, cohort_id, mine if last is None else mine & (id_ <= last))
    change_cohorts(session, changes, now)
    return count - len(changes), last


_SUMMED = (*FIGURES, "expected_millionths", "used_as_agent")


def _take_changes(session: Session, cohort_id: UUID, chosen: ColumnElement[bool]) -> tuple[int, list[CohortChange]]:
    """Deletes the `chosen` changes of a cohort; answers how many rows that were, and their sums by cause and month.

    The database sums them: they may be many.
    """
    rows = db.consume(session, CohortChangeRow, chosen, (*_BY, "occurred_at", *_SUMMED), _sums)
    changes = []
    for row in rows:
        program_id, currency, month, funding, estimate_class, cause, period, occurred_at = row[: len(_BY) + 1]
        sums = dict(zip(_SUMMED, whole_sums(row[-2 * len(_SUMMED) :]), strict=True))
        sums["expected"] = _together(sums["expected"], sums.pop("expected_millionths"))
        key = CohortKey(program_id, currency, month, funding, estimate_class) if cause == "accrual" else None
        changes.append(CohortChange(cohort_id, program_id, currency, cause, period, occurred_at, key, **sums))
    return sum(row.waiting for row in rows), changes


_BY = (*_IDENTITY, "cause", "period")


def _sums(change: db.Columns) -> Select[*tuple[Any, ...]]:
    by = [change[name] for name in _BY]
    sums = exact_sums(change[name] for name in _SUMMED)
    return select(*by, func.max(change.occurred_at), func.count().label("waiting"), *sums).group_by(*by)


def _lock_cohort(session: Session, cohort_id: UUID) -> tuple[CohortKey, CohortState]:
    """Locks a cohort until the transaction ends; makes it, with nothing in it, from the key in one of its accruals."""
    locked = select(*Cohort.__table__.c).where(Cohort.id == cohort_id).with_for_update(key_share=True)
    row = session.execute(locked).mappings().one_or_none()
    if row is None:
        accruals = select(*(getattr(CohortChangeRow, name) for name in _IDENTITY)).where(
            CohortChangeRow.cohort_id == cohort_id, CohortChangeRow.cause == "accrual"
        )
        nothing = dict.fromkeys((*FIGURES, "expected_millionths", "recognised"), 0) | {"estimate": "1"}
        keys = session.execute(accruals.limit(1)).mappings()
        db.claim_rows(session, Cohort, [{"id": cohort_id, **key, **nothing} for key in keys], ["id"])
        row = session.execute(locked).mappings().one()  # ours, or that of a fold which was faster
    key = CohortKey(**{name: row[name] for name in _IDENTITY})
    if key.id != cohort_id:
        raise ValueError("changes of this cohort carry the key of another")
    return key, _state_of(row)


def _state_of(row: RowMapping) -> CohortState:
    figures = {name: row[name] for name in FIGURES}
    figures["expected"] = _together(row["expected"], row["expected_millionths"])
    return CohortState(**figures, estimate=Fraction(row["estimate"]), recognised=row["recognised"])


def _together(points: int, millionths: int) -> int:
    """Millionths of a point, from what `_apart` made of them."""
    return points * MILLION + millionths


def _write_cohort(
    session: Session, key: CohortKey, state: CohortState, releases: Sequence[Release], now: datetime
) -> int:
    """Writes a cohort as it stands and posts `releases`; answers how many rows that were."""
    values = {name: getattr(state, name) for name in (*FIGURES, "recognised")} | _apart(state.expected)
    session.execute(update(Cohort).where(Cohort.id == key.id).values(**values, estimate=str(state.estimate)))
    accounts = chart(session, key.program_id) if releases else {}
    postings = [posting for release in releases for posting in release_postings(key, release, accounts)]
    post(session, postings, now)
    return len(postings)
