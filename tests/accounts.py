"""Accounts of members to decide on, without a database."""

from datetime import UTC, date, datetime
from uuid import UUID

from app.accounting import CohortKey
from app.ids import new_id
from app.ledger import Account, Accrual, Act, accrue

PROGRAM = UUID(int=1)
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
COHORT = CohortKey(PROGRAM, "USD", date(2026, 11, 1), "purchase", "4/5")


def act(at: datetime = NOW, lapses_at: datetime | None = None) -> Act:
    """Something that moves points, as soon as it happens."""
    return Act(PROGRAM, new_id(), at, at, UTC, lapses_at)


def member(*lots: tuple[int, datetime | None], lapses_at: datetime | None = None) -> Account:
    """An account that was granted lots of so many points, good until then; or, with `lapses_at`, by activity."""
    account = Account(new_id(), PROGRAM)
    for points, expires_at in lots:
        grant = Accrual(points, act(lapses_at=lapses_at), COHORT, 0, 0, 0, expires_at, NOW, lapses_at is not None)
        account = accrue(account, grant)
    return account
