"""Give points to another member: load, decide, write.

Both accounts are claimed at once, in the one order everybody claims them; what the giver has given today is read after
that, so that a limit holds however many gifts are under way.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app import db, ledger, members, outbox, programs
from app.errors import NotFound
from app.ids import new_id
from app.ledger import Account, Act
from app.members import GATES, MemberMayNotEarn, MemberMayNotSpend
from app.programs import Terms
from app.transfers.models import Transfer
from app.transfers.rules import TransferToSelf, check_gift
from app.transfers.schemas import TransferIn


@dataclass(frozen=True, slots=True)
class Given:
    """A transfer, and both accounts after it."""

    transfer: Transfer
    giver: Account
    receiver: Account


def give(
    session: Session, program_id: UUID, client_id: UUID, wanted: TransferIn, now: datetime, *, dry_run: bool = False
) -> Given:
    """A gift from one member to another, within the limits of the terms.

    NoTerms, IdentifierInvalid, UnknownMember, TransferToSelf, what `check_gift` refuses, MemberMayNotSpend,
    MemberMayNotEarn, InsufficientPoints, TooManyPoints. A `dry_run` locks and writes nothing.
    """
    terms = programs.terms_at(session, program_id, now)
    named = {"from": wanted.giver, "to": wanted.receiver}
    from_id, to_id = members.named(session, program_id, named, terms.enrolment.phone_region)
    if from_id == to_id:
        raise TransferToSelf
    get = ledger.look if dry_run else ledger.claim
    accounts = get(session, [from_id, to_id], now, terms.zone, [from_id])
    check_gift(wanted.points, _given_today(session, from_id, now, terms), terms)
    statuses = members.statuses(session, [from_id, to_id])
    if not GATES[statuses[from_id]].spend:
        raise MemberMayNotSpend
    if not GATES[statuses[to_id]].earn:
        raise MemberMayNotEarn
    made = Transfer(
        id=new_id(),
        program_id=program_id,
        from_member_id=from_id,
        to_member_id=to_id,
        points=wanted.points,
        note=wanted.note,
        pool_id=None,
        client_id=client_id,
        occurred_at=now,
        recorded_at=now,
    )
    giver, receiver = ledger.transfer(accounts[from_id], accounts[to_id], wanted.points, act_of(made, terms))
    if not dry_run:
        write(session, [made], [giver, receiver], now)
    return Given(made, giver, receiver)


def act_of(made: Transfer, terms: Terms) -> Act:
    """What moves the points of a transfer. It is activity of both sides, where the terms say so."""
    lapses_at = programs.lapses_after(made.occurred_at, terms, "transfer")
    return Act(made.program_id, made.id, made.occurred_at, made.recorded_at, terms.zone, lapses_at)


def write(session: Session, made: Sequence[Transfer], accounts: Iterable[Account], now: datetime) -> None:
    """Writes transfers and the accounts they changed, and tells both sides."""
    columns = [column.name for column in Transfer.__table__.columns]
    db.insert_rows(session, Transfer, [{name: getattr(each, name) for name in columns} for each in made])
    ledger.write(session, accounts, now)
    outbox.put(session, [event for each in made for event in _events(each)], now)


def _events(made: Transfer) -> list[outbox.Event]:
    payload = {"transfer_id": str(made.id), "points": made.points}
    sides = (("transfer.given", made.from_member_id), ("transfer.received", made.to_member_id))
    return [outbox.Event(made.program_id, topic, member_id, payload) for topic, member_id in sides]


def _given_today(session: Session, member_id: UUID, now: datetime, terms: Terms) -> int:
    """The points a member has given away in the local day of `now`; draws of a pool do not count."""
    begin, end = programs.day_start(now, terms), programs.day_end(now, terms)
    gifts = select(func.coalesce(func.sum(Transfer.points), 0)).where(
        Transfer.from_member_id == member_id,
        Transfer.pool_id.is_(None),
        Transfer.occurred_at >= begin,
        Transfer.occurred_at < end,
    )
    return int(session.execute(gifts).scalar_one())


# --- read -----------------------------------------------------------------------------------------------------------


def find(session: Session, program_id: UUID, transfer_id: UUID) -> Transfer:
    """One transfer. NotFound if the programme has no such transfer."""
    found = session.get(Transfer, transfer_id)
    if found is None or found.program_id != program_id:
        raise NotFound
    return found


def transfers(
    session: Session, program_id: UUID, member_id: UUID, after: UUID | None, limit: int
) -> Sequence[Transfer]:
    """What a member gave and received, oldest first, from the one after `after`; at most `limit`. NotFound if the
    programme has no such member."""
    if members.status_in(session, program_id, member_id) is None:
        raise NotFound
    rows = select(Transfer).where(or_(Transfer.from_member_id == member_id, Transfer.to_member_id == member_id))
    if after is not None:
        rows = rows.where(Transfer.id > after)
    return session.scalars(rows.order_by(Transfer.id).limit(limit)).all()
