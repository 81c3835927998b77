"""Claim accounts, look at them, and write what was decided for them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import accounting, db, outbox
from app.accounting import CohortChange
from app.ids import new_id
from app.ledger.models import CoverRow, Hold, HoldLot, Lot, LotReturnRow, LotUse, PointAccount, PointEntry
from app.ledger.queries import account_rows, load_accounts
from app.ledger.rules import BALANCES, Account, Accrual, Act, LotReturn, Need, Use


def open_accounts(session: Session, program_id: UUID, member_ids: Sequence[UUID]) -> None:
    """Gives new members their accounts."""
    numbers = dict.fromkeys((*BALANCES, "last_entry"), 0)
    rows = [{"member_id": member_id, "program_id": program_id, **numbers} for member_id in member_ids]
    db.insert_rows(session, PointAccount, rows)


def claim(
    session: Session,
    member_ids: Iterable[UUID],
    now: datetime,
    zone: tzinfo,
    lots: Collection[UUID] = (),
    needs: Mapping[UUID, Need] | None = None,
    until: datetime | None = None,
) -> dict[UUID, Account]:
    """Locks the accounts until the transaction ends, sorted, and answers them at `now`, settled.

    Accounts among `lots` come with all open lots and holds, others with the lots they need. `until` as in `settle`.
    Whatever a decision rests on is read after this. On SQLite the transaction itself is the lock.
    """
    return load_accounts(session, account_rows(session, member_ids, lock=True), now, zone, lots, needs or {}, until)


def lock(session: Session, member_ids: Iterable[UUID]) -> None:
    """Locks the accounts as `claim` does, for changes of members that movements of points must not overtake."""
    account_rows(session, member_ids, lock=True)


def look(
    session: Session,
    member_ids: Iterable[UUID],
    now: datetime,
    zone: tzinfo,
    lots: Collection[UUID] = (),
    needs: Mapping[UUID, Need] | None = None,
) -> dict[UUID, Account]:
    """What `claim` answers, without the lock: for reads and dry runs."""
    return load_accounts(session, account_rows(session, member_ids), now, zone, lots, needs or {})


def write(session: Session, accounts: Iterable[Account], now: datetime) -> None:
    """Writes what was decided for `accounts` since they were claimed, and tells their cohorts. Once per batch.

    Whoever comes first, a job or a purchase, writes an expiry down; so this is where the world hears of it.
    """
    with db.together(session):
        _write(session, accounts, now)


def _write(session: Session, accounts: Iterable[Account], now: datetime) -> None:
    changed = sorted((account for account in accounts if account.rows.entries), key=lambda account: account.member_id)
    db.insert_rows(session, PointEntry, [entry for account in changed for entry in account.rows.entries])
    db.insert_rows(session, Lot, [row for account in changed for row in _new_lots(account)])
    db.update_rows(session, Lot, ["member_id", "id"], [row for account in changed for row in _changed_lots(account)])
    db.insert_rows(session, LotUse, [row for account in changed for row in _uses(account)])
    db.insert_rows(session, LotReturnRow, [row for account in changed for row in _returns(account)])
    db.insert_rows(session, CoverRow, [row for account in changed for row in _covers(account)])
    holds = [row for account in changed for row in account.rows.holds]
    endings = {row["id"]: row for account in changed for row in account.rows.endings}
    opened = {"status": "open", "captured": 0, "ended_at": None}
    db.insert_rows(session, Hold, [_without(row, "parts") | opened | endings.pop(row["id"], {}) for row in holds])
    db.insert_rows(session, HoldLot, [part for row in holds for part in _parts(row)])
    db.update_rows(session, Hold, ["member_id", "id"], list(endings.values()))
    db.update_rows(session, PointAccount, ["member_id"], [_figures(account) for account in changed])
    accounting.change_cohorts(session, [change for account in changed for change in _cohort_changes(account)], now)
    outbox.put(session, [event for account in changed for event in _events(account)], now)


_CHANGING = ("remaining", "held", "pending")


def _new_lots(account: Account) -> Iterator[dict[str, Any]]:
    for facts in account.rows.lots:
        lot = account.lots[facts["id"]]
        yield facts | {name: getattr(lot, name) for name in _CHANGING}


def _changed_lots(account: Account) -> Iterator[dict[str, Any]]:
    """Lots that were there before and are not as they were: used, held, freed, activated."""
    new = {facts["id"] for facts in account.rows.lots}
    for lot in sorted(account.lots.values(), key=lambda lot: lot.id):
        if lot.id not in new and account.loaded.get(lot.id) != lot:
            yield {
                "member_id": account.member_id,
                "id": lot.id,
                **{name: getattr(lot, name) for name in _CHANGING},
            }


def _uses(account: Account) -> Iterator[dict[str, Any]]:
    for entry_id, _, use in account.rows.uses:
        yield {
            "member_id": account.member_id,
            "id": new_id(),
            "entry_id": entry_id,
            "lot_id": use.lot.id,
            "points": use.points,
            "effect": use.effect,
        }


def _returns(account: Account) -> Iterator[dict[str, Any]]:
    names = ("entry_id", "points", "allocated", "residue", "expected", "of_used", "of_expired")
    for _, each in account.rows.returns:
        yield {
            "member_id": account.member_id,
            "id": new_id(),
            "lot_id": each.lot.id,
            **{name: getattr(each, name) for name in names},
        }


def _covers(account: Account) -> Iterator[dict[str, Any]]:
    for entry_id, each in account.rows.covers:
        yield {
            "member_id": account.member_id,
            "id": new_id(),
            "entry_id": entry_id,
            "lot_id": each.of and each.of.id,
            "by_lot_id": each.by and each.by.id,
            "points": each.points,
            "effect": each.effect,
            "forgiven": each.forgiven,
        }


def _parts(hold: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for lot_id, points in hold["parts"]:
        yield {"member_id": hold["member_id"], "hold_id": hold["id"], "lot_id": lot_id, "points": points}


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def _figures(account: Account) -> dict[str, Any]:
    names = ("member_id", *BALANCES, "last_entry", "next_due_at", "lapses_at")
    return {name: getattr(account, name) for name in names}


def _events(account: Account) -> Iterator[outbox.Event]:
    for entry in account.rows.entries:
        if entry["kind"] == "expiration":
            payload = {
                "entry_id": str(entry["id"]),
                "points": -entry["points"],
                "expired_at": entry["occurred_at"].isoformat(),
            }
            yield outbox.Event(account.program_id, "points.expired", account.member_id, payload)


# --- what it means to cohorts ---------------------------------------------------------------------------------------


def _cohort_changes(account: Account) -> Iterator[CohortChange]:
    for accrual in account.rows.accruals:
        yield _of_accrual(accrual)
    kinds = {entry["id"]: entry["kind"] for entry in account.rows.entries}
    for entry_id, act, use in account.rows.uses:
        if use.effect != "moved":
            yield _of_use(kinds[entry_id], act, use)
    for act, each in account.rows.returns:
        yield _of_return(act, each)


def _of_accrual(accrual: Accrual) -> CohortChange:
    return CohortChange(
        accrual.cohort.id,
        accrual.cohort.program_id,
        accrual.cohort.currency,
        "accrual",
        accrual.act.period,
        accrual.act.occurred_at,
        key=accrual.cohort,
        allocated=accrual.allocated,
        residue=accrual.residue,
        issued=accrual.points,
        expected=accrual.expected,
    )


_CAUSES: dict[str, Any] = {"used": "redemption", "expired": "expiry", "returned": "return"}


def _of_use(kind: str, act: Act, use: Use) -> CohortChange:
    return CohortChange(
        use.lot.cohort_id,
        act.program_id,
        use.lot.currency,
        "return" if kind in ("reversal", "restoration") else _CAUSES[use.effect],
        act.period,
        act.occurred_at,
        issued=-use.points if use.effect == "returned" else 0,
        used=use.points if use.effect == "used" else 0,
        used_as_agent=use.points if use.as_agent else 0,
        expired=use.points if use.effect == "expired" else 0,
    )


def _of_return(act: Act, each: LotReturn) -> CohortChange:
    return CohortChange(
        each.lot.cohort_id,
        act.program_id,
        each.lot.currency,
        "return",
        act.period,
        act.occurred_at,
        allocated=-each.allocated,
        residue=-each.residue,
        issued=-each.of_used - each.of_expired,
        expected=-each.expected,
        used=-each.of_used,
        expired=-each.of_expired,
    )
