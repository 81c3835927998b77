"""Ask for adjustments, many at a time; approve and reject one: load, decide, write.

Locked in this order: the adjustment, the orders that are made up for, the members' accounts.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, select, update
from sqlalchemy.orm import Session

from app import accounting, clients, db, ledger, members, outbox, programs, transactions
from app.adjustments import rules
from app.adjustments.models import Adjustment
from app.adjustments.rules import GRANTS, AdjustmentEnded, Asked, Decided, Known, SamePerson
from app.adjustments.schemas import AdjustmentIn
from app.clients import Caller
from app.errors import NotFound, Problem, or_problem
from app.ids import new_id
from app.ledger import Act
from app.members import Identifier
from app.programs import NoTerms, Version
from app.transactions import Order

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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person of staff wants done. `order`: source and external id of the purchase that a concession is for."""

    caller: Caller
    asked: Asked
    order: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the decisions of a batch rest on. `accounts`, and what is `conceded` on each order, follow them.

    `version`: of the terms in force, if there are any; `orders` by id and by natural key.
    """

    program_id: UUID
    now: datetime
    dry_run: bool
    version: Version | None
    chart: accounting.Chart
    orders: dict[UUID | tuple[str, str], Order]
    accounts: dict[UUID, ledger.Account]
    statuses: dict[UUID, str]
    conceded: dict[UUID, int]

    def apply(self, decided: Decided, order: Order | None) -> None:
        self.accounts[decided.account.member_id] = decided.account
        if order is not None:
            self.conceded[order.id] += decided.conceded


def adjust(
    session: Session,
    program_id: UUID,
    wanted: Sequence[tuple[Caller, AdjustmentIn]],
    now: datetime,
    *,
    dry_run: bool = False,
) -> list[Adjusted | Problem]:
    """`request` for members that are named. IdentifierInvalid, UnknownMember."""
    region = members.phone_region(session, program_id, now)
    people = members.named_each(session, program_id, [{"member": body.member} for _, body in wanted], region)
    named = [
        _wanted(caller, body, *found)
        for (caller, body), found in zip(wanted, people, strict=True)
        if not isinstance(found, Problem)
    ]
    requested = iter(request(session, program_id, named, now, dry_run=dry_run))
    return [found if isinstance(found, Problem) else next(requested) for found in people]


def _wanted(caller: Caller, body: AdjustmentIn, member_id: UUID) -> Wanted:
    asked = Asked(body.class_, member_id, body.points, body.reason, body.note, body.consent)
    return Wanted(caller, asked, None if body.order is None else (body.order.source, body.order.external_id))


def request(
    session: Session, program_id: UUID, wanted: Sequence[Wanted], now: datetime, *, dry_run: bool = False
) -> list[Adjusted | Problem]:
    """Does what each asks for, or lets it wait for a second person.

    What could not be done now is refused now: NoPerson, OwnAccount, NotFound, NoTerms, and the refusals of `decide`. A
    `dry_run` locks and writes nothing.
    """
    keys = {each.order for each in wanted if each.order is not None}
    orders = transactions.by_keys(session, keys) if keys else None
    own = clients.memberships(session, program_id, {each.caller.person for each in wanted if each.caller.person})
    loaded = _load(session, program_id, {each.asked.member_id for each in wanted}, orders, now, dry_run=dry_run)
    outcomes = [or_problem(_request, loaded, each, own, session) for each in wanted]
    if not dry_run:
        done = [outcome for outcome in outcomes if isinstance(outcome, Adjusted)]
        told = [_event("requested" if _waits(each) else "applied", each.row) for each in done]
        with db.together(session):
            db.insert_rows(session, Adjustment, [dict(each.row) for each in done])
            outbox.put(session, told, now)
            _write(session, loaded, [each for each in done if not _waits(each)])
    return outcomes


def _waits(adjusted: Adjusted) -> bool:
    return bool(adjusted.row["status"] == "waiting")


def _request(loaded: _Loaded, wanted: Wanted, own: Mapping[str, Collection[UUID]], session: Session) -> Adjusted:
    caller, asked = wanted.caller, wanted.asked
    clients.check_person(caller, asked.member_id, own)
    order = None if wanted.order is None else loaded.orders.get(wanted.order)
    version, known = _known(session, loaded, asked, order)
    id_ = new_id()
    decided = rules.decide(asked, known, _act(loaded.program_id, id_, asked, version, loaded.now))
    waits = rules.needs_approval(asked, decided.points, caller.role, version.terms)
    row = {
        "id": None if loaded.dry_run else id_,
        "program_id": loaded.program_id,
        "member_id": asked.member_id,
        "class": asked.class_,
        "points": decided.points,
        "reason": asked.reason,
        "note": asked.note,
        "order_id": None if order is None else order.id,
        "consented_at": asked.consented_at,
        "lot_id": asked.lot_id,
        "expires_at": asked.expires_at,
        "needs_approval": waits,
        "requested_by": caller.client_id,
        "requested_person": caller.person,
        "requested_at": loaded.now,
    } | (_WAITING if waits else _ended("applied", caller, loaded.now) | {"terms_id": version.id})
    if waits:
        return Adjusted(row, known.account, [])
    loaded.apply(decided, order)
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
    orders = None if row["order_id"] is None else transactions.by_ids(session, [row["order_id"]])
    loaded = _load(session, caller.program, {asked.member_id}, orders, now, dry_run=dry_run)
    order = None if row["order_id"] is None else loaded.orders.get(row["order_id"])
    version, known = _known(session, loaded, asked, order)
    decided = rules.decide(asked, known, _act(caller.program, id_, asked, version, now))
    loaded.apply(decided, order)
    ended = _ended("applied", caller, now) | {"terms_id": version.id}
    done = Adjusted({**row, **ended}, decided.account, decided.postings)
    if not dry_run:
        _end(session, row, ended, now)
        _write(session, loaded, [done])
    return done


def reject(session: Session, caller: Caller, id_: UUID, reason: str | None, now: datetime) -> Adjusted:
    """Ends what another person asked for. NotFound, AdjustmentEnded, SamePerson, OwnAccount."""
    row = _waiting(session, caller, id_, lock=True)
    ended = _ended("rejected", caller, now) | {"ended_reason": reason}
    _end(session, row, ended, now)
    return Adjusted({**row, **ended}, _account(session, caller.program, row["member_id"], now), [])


# --- load -----------------------------------------------------------------------------------------------------------


def _waiting(session: Session, caller: Caller, id_: UUID, *, lock: bool) -> RowMapping:
    """What waits for somebody else's decision; locked, so that it ends once."""
    wanted = select(*Adjustment.__table__.c).where(Adjustment.id == id_, Adjustment.program_id == caller.program)
    found = session.execute(wanted.with_for_update(key_share=True) if lock else wanted).mappings().one_or_none()
    if found is None:
        raise NotFound
    persons = [] if caller.person is None else [caller.person]
    clients.check_person(caller, found["member_id"], clients.memberships(session, caller.program, persons))
    if caller.person == found["requested_person"]:
        raise SamePerson
    if found["status"] != "waiting":
        raise AdjustmentEnded(f"it was {found['status']}")
    return found


def _load(
    session: Session,
    program_id: UUID,
    member_ids: Collection[UUID],
    wanted: ColumnElement[bool] | None,
    now: datetime,
    *,
    dry_run: bool,
) -> _Loaded:
    """`member_ids` may be of anybody: only the programme's members have accounts in what is loaded."""
    terms = programs.timeline(session, program_id)
    named = {Identifier("id", str(member_id)) for member_id in member_ids}
    ours = sorted(members.find(session, program_id, named).values())
    found = [] if wanted is None else transactions.find_orders(session, program_id, wanted, lock=not dry_run)
    accounts = (programs.look if dry_run else programs.claim)(session, program_id, ours, now, ours)
    chart = accounting.chart(session, program_id)
    accounts |= ledger.with_costs(session, {id_: each for id_, each in accounts.items() if each.debt}, (), chart)
    orders = transactions.orders(session, found)
    by_id: dict[UUID | tuple[str, str], Order] = {order.id: order for order in orders}
    return _Loaded(
        program_id=program_id,
        now=now,
        dry_run=dry_run,
        version=terms.at(now),
        chart=chart,
        orders=by_id | {order.key: order for order in orders},
        accounts=accounts,
        statuses=members.statuses(session, ours),
        conceded=transactions.conceded(session, orders) if orders else {},
    )


def _known(session: Session, loaded: _Loaded, asked: Asked, order: Order | None) -> tuple[Version, Known]:
    """What the decision on `asked` rests on. NotFound, NoTerms. A lot is read when its turn comes: how much of it has
    expired depends on what the batch has done to the account before."""
    account = loaded.accounts.get(asked.member_id)
    if account is None:
        raise NotFound
    if loaded.version is None:
        raise NoTerms
    lot, expired = None, 0
    if asked.lot_id is not None:
        part = ledger.expired_part(session, account, asked.lot_id)
        if part is None:
            raise NotFound
        lot, expired = part
    return loaded.version, Known(
        account=account,
        status=loaded.statuses[asked.member_id],
        terms=loaded.version.terms,
        chart=loaded.chart,
        order=order,
        conceded=0 if order is None else loaded.conceded[order.id],
        lot=lot,
        expired=expired,
    )


def _act(program_id: UUID, id_: UUID, asked: Asked, version: Version, now: datetime) -> Act:
    """Points given may be an activity that keeps the others from lapsing."""
    given = asked.class_ in GRANTS and (asked.points or 0) > 0
    kinds = ("adjustment",) if given else ()
    return transactions.act_of(program_id, id_, now, now, version.terms, *kinds)


def _account(session: Session, program_id: UUID, member_id: UUID, now: datetime) -> ledger.Account:
    return programs.look(session, program_id, [member_id], now)[member_id]


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


def _write(session: Session, loaded: _Loaded, applied: Sequence[Adjusted]) -> None:
    changed = sorted({each.row["member_id"] for each in applied})
    ledger.write(session, [loaded.accounts[member_id] for member_id in changed], loaded.now)
    accounting.post(session, [posting for each in applied for posting in each.postings], loaded.now)  # type: ignore[misc]  # what is new is no row of the journal yet
    made_up = [(each.row["id"], loaded.orders[each.row["order_id"]]) for each in applied if each.row["order_id"]]
    transactions.concede(session, made_up, loaded.now)


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
