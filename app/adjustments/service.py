"""Ask for adjustments, approve and reject them: load, decide, write.

Locked in this order: the adjustment, the order it makes up for, the member's account.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, select, update
from sqlalchemy.orm import Session

from app import accounting, clients, db, ledger, members, outbox, programs, transactions
from app.adjustments import rules
from app.adjustments.models import Adjustment
from app.adjustments.rules import GRANTS, AdjustmentEnded, Asked, Decided, Known, NoPerson, OwnAccount, SamePerson
from app.clients import Caller
from app.errors import NotFound
from app.ids import new_id
from app.ledger import Act
from app.programs import NoTerms, Version

Posted = Sequence[accounting.Posting] | Sequence[accounting.JournalPosting]
Fields = Mapping[str, Any] | RowMapping
"""A row's values by column name, read or about to be written."""


@dataclass(frozen=True, slots=True)
class Adjusted:
    """An adjustment as the database has it, or would have it after a dry run: its row, the account after it, and what
    it posted. One that waits has done nothing yet."""

    row: Fields
    account: ledger.Account
    postings: Posted


def request(
    session: Session,
    caller: Caller,
    asked: Asked,
    now: datetime,
    *,
    order: ColumnElement[bool] | None = None,
    dry_run: bool = False,
) -> Adjusted:
    """Does what is `asked`, or lets it wait for a second person. `order` says which purchase a concession is for.

    What could not be done now is refused now. NoPerson, OwnAccount, NotFound, NoTerms, and the refusals of `decide`.
    """
    _check_person(session, caller, asked.member_id)
    version, known = _load(session, caller.program, asked, order, now, lock=not dry_run)
    id_ = new_id()
    decided = rules.decide(asked, known, _act(caller.program, id_, asked, version, now))
    waits = rules.needs_approval(asked, decided.points, caller.role, version.terms)
    row = {
        "id": id_,
        "program_id": caller.program,
        "member_id": asked.member_id,
        "class": asked.class_,
        "points": decided.points,
        "reason": asked.reason,
        "note": asked.note,
        "order_id": None if known.order is None else known.order.id,
        "consented_at": asked.consented_at,
        "lot_id": asked.lot_id,
        "expires_at": asked.expires_at,
        "needs_approval": waits,
        "requested_by": caller.client_id,
        "requested_person": caller.person,
        "requested_at": now,
    } | (_WAITING if waits else _ended("applied", caller, now) | {"terms_id": version.id})
    if not dry_run:
        db.insert_rows(session, Adjustment, [row])
        outbox.put(session, [_event("requested" if waits else "applied", row)], now)
    if dry_run:
        row["id"] = None
    if waits:
        return Adjusted(row, known.account, [])
    if not dry_run:
        _write(session, id_, known, decided, now)
    return Adjusted(row, decided.account, decided.postings)


def approve(session: Session, caller: Caller, id_: UUID, now: datetime, *, dry_run: bool = False) -> Adjusted:
    """Applies what another person asked for, at this time and under its terms. NotFound, AdjustmentEnded, SamePerson,
    OwnAccount, and the refusals of `decide`, which leave it waiting."""
    row = _waiting(session, caller, id_, lock=not dry_run)
    asked = Asked(
        class_=row["class"],
        **{name: row[name] for name in ("member_id", "points", "reason", "note", "consented_at")},
        **{name: row[name] for name in ("lot_id", "expires_at")},
    )
    order = None if row["order_id"] is None else transactions.by_id(row["order_id"])
    version, known = _load(session, caller.program, asked, order, now, lock=not dry_run)
    decided = rules.decide(asked, known, _act(caller.program, id_, asked, version, now))
    ended = _ended("applied", caller, now) | {"terms_id": version.id}
    if not dry_run:
        _end(session, row, ended, now)
        _write(session, id_, known, decided, now)
    return Adjusted({**row, **ended}, decided.account, decided.postings)


def reject(session: Session, caller: Caller, id_: UUID, reason: str | None, now: datetime) -> Adjusted:
    """Ends what another person asked for. NotFound, AdjustmentEnded, SamePerson, OwnAccount."""
    row = _waiting(session, caller, id_, lock=True)
    ended = _ended("rejected", caller, now) | {"ended_reason": reason}
    _end(session, row, ended, now)
    return Adjusted({**row, **ended}, _account(session, caller.program, row["member_id"], now), [])


# --- load -----------------------------------------------------------------------------------------------------------


def _check_person(session: Session, caller: Caller, member_id: UUID) -> None:
    if caller.person is None:
        raise NoPerson
    if member_id in clients.memberships(session, caller):
        raise OwnAccount


def _waiting(session: Session, caller: Caller, id_: UUID, *, lock: bool) -> RowMapping:
    """What waits for somebody else's decision; locked, so that it ends once."""
    wanted = select(*Adjustment.__table__.c).where(Adjustment.id == id_, Adjustment.program_id == caller.program)
    found = session.execute(wanted.with_for_update(key_share=True) if lock else wanted).mappings().one_or_none()
    if found is None:
        raise NotFound
    _check_person(session, caller, found["member_id"])
    if caller.person == found["requested_person"]:
        raise SamePerson
    if found["status"] != "waiting":
        raise AdjustmentEnded(f"it was {found['status']}")
    return found


def _load(
    session: Session, program_id: UUID, asked: Asked, order: ColumnElement[bool] | None, now: datetime, *, lock: bool
) -> tuple[Version, Known]:
    if members.status_in(session, program_id, asked.member_id) is None:
        raise NotFound
    terms = programs.timeline(session, program_id)
    version = terms.at(now)
    if version is None:
        raise NoTerms
    failed = None if order is None else transactions.find_order(session, program_id, order, lock=lock)
    ids = [asked.member_id]
    account = (ledger.claim if lock else ledger.look)(session, ids, now, terms.zone_at(now), ids)[asked.member_id]
    lot, expired = None, 0
    if asked.lot_id is not None:
        part = ledger.expired_part(session, account, asked.lot_id)
        if part is None:
            raise NotFound
        lot, expired = part
    return version, Known(
        account=account,
        status=members.statuses(session, ids)[asked.member_id],
        terms=version.terms,
        chart=accounting.chart(session, program_id),
        order=failed,
        conceded=0 if failed is None else transactions.conceded(session, failed),
        lot=lot,
        expired=expired,
    )


def _act(program_id: UUID, id_: UUID, asked: Asked, version: Version, now: datetime) -> Act:
    """Points given may be an activity that keeps the others from lapsing."""
    given = asked.class_ in GRANTS and (asked.points or 0) > 0
    kinds = ("adjustment",) if given else ()
    return transactions.act_of(program_id, id_, now, now, version.terms, *kinds)


def _account(session: Session, program_id: UUID, member_id: UUID, now: datetime) -> ledger.Account:
    zone = programs.zone_at(session, program_id, now)
    return ledger.look(session, [member_id], now, zone)[member_id]


# --- write ----------------------------------------------------------------------------------------------------------

_WAITING = {
    "status": "waiting",
    "ended_by": None,
    "ended_person": None,
    "ended_at": None,
    "ended_reason": None,
    "terms_id": None,
}


def _ended(status: str, caller: Caller, now: datetime) -> dict[str, Any]:
    who = {"ended_by": caller.client_id, "ended_person": caller.person, "ended_at": now}
    return _WAITING | {"status": status} | who


def _end(session: Session, row: Fields, ended: dict[str, Any], now: datetime) -> None:
    session.execute(update(Adjustment).where(Adjustment.id == row["id"]).values(ended))
    outbox.put(session, [_event(ended["status"], row)], now)


def _write(session: Session, id_: UUID, known: Known, decided: Decided, now: datetime) -> None:
    ledger.write(session, [decided.account], now)
    accounting.post(session, decided.postings, now)
    if known.order is not None:
        transactions.concede(session, known.order, id_, now)


def _event(what: str, row: Fields) -> outbox.Event:
    payload = {"adjustment_id": str(row["id"]), "class": row["class"], "points": row["points"]}
    return outbox.Event(row["program_id"], f"adjustment.{what}", row["member_id"], payload)


# --- read -----------------------------------------------------------------------------------------------------------


def find(session: Session, program_id: UUID, id_: UUID, now: datetime) -> Adjusted:
    """One adjustment, with what it posted and the balance as it is now. NotFound."""
    mine = select(*Adjustment.__table__.c).where(Adjustment.id == id_, Adjustment.program_id == program_id)
    row = session.execute(mine).mappings().one_or_none()
    if row is None:
        raise NotFound
    account = _account(session, program_id, row["member_id"], now)
    return Adjusted(row, account, accounting.postings_of(session, [id_]))


def listed(
    session: Session, program_id: UUID, member_id: UUID | None, status: str | None, after: UUID | None, limit: int
) -> Sequence[RowMapping]:
    """Adjustments in the order they were asked for, of one member or all, in one status or any."""
    rows = select(*Adjustment.__table__.c).where(Adjustment.program_id == program_id)
    if member_id is not None:
        rows = rows.where(Adjustment.member_id == member_id)
    if status is not None:
        rows = rows.where(Adjustment.status == status)
    if after is not None:
        rows = rows.where(Adjustment.id > after)
    return session.execute(rows.order_by(Adjustment.id).limit(limit)).mappings().all()
