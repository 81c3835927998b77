"""Write the journal, and fold what accruals left behind into cohorts."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app import db
from app.accounting.models import Account, Cohort, CohortChangeRow, JournalPosting
from app.accounting.rules import ROLES, Chart, CohortChange, Posting, sum_changes
from app.ids import new_id

_SUMS = ("allocated", "residue", "issued", "expected")
_KEY = ("program_id", "currency", "month", "funding", "estimate_class")


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
    rows = session.execute(select(Account.role, Account.code).where(Account.program_id == program_id))
    return dict(rows.all())


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
    """Leaves one row per cohort for the next fold. Nothing here touches a cohort, so accruals never wait for one."""
    rows = [
        {"id": new_id(), "cohort_id": change.key.id, "recorded_at": now}
        | {name: getattr(change.key, name) for name in _KEY}
        | {name: getattr(change, name) for name in _SUMS}
        for change in sum_changes(changes)
    ]
    db.insert_rows(session, CohortChangeRow, rows)


def fold(database: db.Database) -> int:
    """Adds all waiting changes to their cohorts, one database transaction per cohort; answers how many changes.

    Two folds at once, or one that dies half-way, are harmless: a change is deleted in the transaction that adds it.
    A cohort that cannot be folded is logged and left as it is; the others go on.
    """
    waiting = database.read(lambda session: session.scalars(select(CohortChangeRow.cohort_id).distinct()).all())
    folded = 0
    for cohort_id in sorted(waiting):
        try:
            folded += database.write(partial(_fold_cohort, cohort_id=cohort_id))
        except Exception:
            structlog.get_logger().exception("a cohort could not be folded", cohort=str(cohort_id))
    return folded


def _fold_cohort(session: Session, cohort_id: UUID) -> int:
    columns = [getattr(CohortChangeRow, name) for name in (*_KEY, *_SUMS)]
    taken = session.execute(delete(CohortChangeRow).where(CohortChangeRow.cohort_id == cohort_id).returning(*columns))
    changes = taken.all()
    if not changes:
        return 0
    new = {"id": cohort_id, **{name: getattr(changes[0], name) for name in _KEY}, **dict.fromkeys(_SUMS, 0)}
    db.claim_rows(session, Cohort, [new], ["id"])
    sums = {name: sum(getattr(change, name) for change in changes) for name in _SUMS}
    session.execute(
        update(Cohort)
        .where(Cohort.id == cohort_id)
        .values({name: getattr(Cohort, name) + sums[name] for name in _SUMS})
    )
    return len(changes)
