"""Claim accounts, and write what was decided for them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from app import db
from app.ledger.models import Lot, PointAccount, PointEntry
from app.ledger.queries import accounts_of, load_standings
from app.ledger.rules import Granted, Standing


def open_accounts(session: Session, program_id: UUID, member_ids: Sequence[UUID]) -> None:
    """Gives new members their accounts."""
    numbers = dict.fromkeys(("available", "held", "pending", "debt", "qualifying", "lifetime", "last_entry"), 0)
    rows = [{"member_id": member_id, "program_id": program_id, **numbers} for member_id in member_ids]
    db.insert_rows(session, PointAccount, rows)


def claim(session: Session, member_ids: Iterable[UUID], now: datetime) -> dict[UUID, Standing]:
    """Locks the accounts until the transaction ends, sorted, and answers their standings at `now`.

    Whatever a decision rests on is read after this. On SQLite the transaction itself is the lock.
    """
    accounts = accounts_of(session, member_ids).with_for_update(key_share=True)
    return load_standings(session, accounts, now)


def write(session: Session, after: Iterable[Standing], granted: Sequence[Granted]) -> None:
    """Writes new lots and entries, and the accounts as they stand `after` them."""
    db.insert_rows(session, PointEntry, [grant.entry for grant in granted])
    db.insert_rows(session, Lot, [grant.lot for grant in granted])
    rows = [
        {
            "member_id": standing.member_id,
            "available": standing.booked,
            "held": standing.held,
            "pending": standing.pending,
            "debt": standing.debt,
            "qualifying": standing.qualifying,
            "lifetime": standing.lifetime,
            "last_entry": standing.last_entry,
            "next_due_at": standing.next_due_at,
        }
        for standing in after
    ]
    db.update_rows(session, PointAccount, ["member_id"], rows)
