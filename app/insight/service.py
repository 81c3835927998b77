"""Run the proof."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import db
from app.insight.checks import CHECKS

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that does not hold: what the rows beneath it come to, and what it says."""

    subject: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Checked:
    """One check's result: how many rows differ, and the first of them."""

    name: str
    meaning: str
    differences: int
    shown: list[Difference]


@dataclass(frozen=True, slots=True)
class Proof:
    """All checks' results. It holds when no row differs anywhere."""

    checks: list[Checked]

    @property
    def holds(self) -> bool:
        return all(check.differences == 0 for check in self.checks)


def prove(session: Session, program_id: UUID | None = None) -> Proof:
    """Recomputes everything, for one programme or for all; never stops at the first difference."""
    db.by_sets(session)
    return Proof([_checked(session, check, program_id) for check in CHECKS])


def _checked(session: Session, check: Any, program_id: UUID | None) -> Checked:
    differing = check(program_id)
    rows = session.execute(differing.limit(_SHOWN)).all()
    count = len(rows)
    if count == _SHOWN:
        count = session.execute(select(func.count()).select_from(differing.subquery())).scalar_one()
    shown = [Difference(row.subject, str(row.expected), str(row.actual)) for row in rows]
    return Checked(check.__name__, check.__doc__ or "", count, shown)
