"""Give points to another member, many gifts at a time: load, decide, write.

All accounts of a batch are claimed at once, in the one order everybody claims them; what the givers have given today is
read after that, so that a limit holds however many gifts are under way.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app import db, ledger, members, outbox, programs
from app.errors import NotFound, Problem, or_problem
from app.ids import new_id
from app.ledger import Account, Act
from app.members import GATES, MemberMayNotEarn, MemberMayNotSpend
from app.programs import Terms
from app.transfers.models import Transfer
from app.transfers.rules import TransferToSelf, check_gift
from app.transfers.schemas import TransferIn


@dataclass(frozen=True, slots=True)
class Asked:
    """A gift that a client asks for."""

    client_id: UUID
    wanted: TransferIn


@dataclass(frozen=True, slots=True)
class Given:
    """A transfer, and both accounts after it."""

    transfer: Transfer
    giver: Account
    receiver: Account


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the decisions of a batch rest on. `accounts` and `given_today`, points by giver, follow them."""

    program_id: UUID
    now: datetime
    terms: Terms
    accounts: dict[UUID, Account]
    statuses: dict[UUID, str]
    given_today: dict[UUID, int]


def give(
    session: Session, program_id: UUID, asked: Sequence[Asked], now: datetime, *, dry_run: bool = False
) -> list[Given | Problem]:
    """Gifts from one member to another, within the limits of the terms; one who gets points may give them on.

    Each may be refused: IdentifierInvalid, UnknownMember, TransferToSelf, what `check_gift` refuses, MemberMayNotSpend,
    MemberMayNotEarn, InsufficientPoints, TooManyPoints. Raises NoTerms. A `dry_run` locks and writes nothing.
    """
    terms = programs.terms_at(session, program_id, now)
    named = [{"from": each.wanted.giver, "to": each.wanted.receiver} for each in asked]
    people = members.named_each(session, program_id, named, terms.enrolment.phone_region)
    both = [found for found in people if not isinstance(found, Problem)]
    givers, member_ids = {found[0] for found in both}, {member_id for found in both for member_id in found}
    needs = ledger.to_spend(
        (found[0], each.wanted.points)
        for each, found in zip(asked, people, strict=True)
        if not isinstance(found, Problem)
    )
    accounts = (programs.look if dry_run else programs.claim)(session, program_id, member_ids, now, needs=needs)
    given_today = _given_today(session, givers, now, terms)
    statuses = members.statuses(session, member_ids)
    loaded = _Loaded(program_id, now, terms, accounts, statuses, given_today)
    outcomes = [or_problem(_give, loaded, *each) for each in zip(asked, people, strict=True)]
    if not dry_run:
        made = [done.transfer for done in outcomes if isinstance(done, Given)]
        changed = {member_id for each in made for member_id in (each.from_member_id, each.to_member_id)}
        write(session, made, [accounts[member_id] for member_id in sorted(changed)], now)
    return outcomes


def _give(loaded: _Loaded, asked: Asked, found: Sequence[UUID] | Problem) -> Given:
    if isinstance(found, Problem):
        raise found
    (from_id, to_id), points = found, asked.wanted.points
    if from_id == to_id:
        raise TransferToSelf
    given_today = loaded.given_today.get(from_id, 0)
    check_gift(points, given_today, loaded.terms)
    if not GATES[loaded.statuses[from_id]].spend:
        raise MemberMayNotSpend
    if not GATES[loaded.statuses[to_id]].earn:
        raise MemberMayNotEarn
    made = Transfer(
        id=new_id(),
        program_id=loaded.program_id,
        from_member_id=from_id,
        to_member_id=to_id,
        points=points,
        note=asked.wanted.note,
        pool_id=None,
        client_id=asked.client_id,
        occurred_at=loaded.now,
        recorded_at=loaded.now,
    )
    accounts = loaded.accounts
    giver, receiver = ledger.transfer(accounts[from_id], accounts[to_id], points, act_of(made, loaded.terms))
    accounts[from_id], accounts[to_id] = giver, receiver
    loaded.given_today[from_id] = given_today + points
    return Given(made, giver, receiver)


def act_of(made: Transfer, terms: Terms) -> Act:
    """What moves the points of a transfer. It is activity of both sides, where the terms say so."""
    lapses_at = programs.lapses_after(made.occurred_at, terms, "transfer")
    return Act(made.program_id, made.id, made.occurred_at, made.recorded_at, terms.zone, lapses_at)


def write(session: Session, made: Sequence[Transfer], accounts: Iterable[Account], now: datetime) -> None:
    """Writes transfers and the accounts they changed, and tells both sides."""
    columns = [column.name for column in Transfer.__table__.columns]
    with db.together(session):
        db.insert_rows(session, Transfer, [{name: getattr(each, name) for name in columns} for each in made])
        ledger.write(session, accounts, now)
        outbox.put(session, [event for each in made for event in _events(each)], now)


def _events(made: Transfer) -> list[outbox.Event]:
    payload = {"transfer_id": str(made.id), "points": made.points}
    sides = (("transfer.given", made.from_member_id), ("transfer.received", made.to_member_id))
    return [outbox.Event(made.program_id, topic, member_id, payload) for topic, member_id in sides]


def _given_today(session: Session, member_ids: Collection[UUID], now: datetime, terms: Terms) -> dict[UUID, int]:
    """The points that members have given away in the local day of `now`; draws of a pool do not count."""
    begin, end = programs.day_start(now, terms), programs.day_end(now, terms)
    gifts = (
        select(Transfer.from_member_id, func.sum(Transfer.points))
        .where(
            db.any_of(session, Transfer.from_member_id.expression, sorted(member_ids)),
            Transfer.pool_id.is_(None),
            Transfer.occurred_at >= begin,
            Transfer.occurred_at < end,
        )
        .group_by(Transfer.from_member_id)
    )
    return {member_id: int(points) for member_id, points in session.execute(gifts)}


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
