"""Pools: make one, join, leave; draw on many for spends.

Changes of one pool take turns: the rows of pools are locked first, then the accounts of those in them, in the one order
everybody claims them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app import db, ledger, members, outbox, programs
from app.errors import NotFound, Problem, or_problem
from app.ids import new_id
from app.ledger import Account
from app.members import GATES, MemberClosed, MemberMayNotSpend, MemberRef, Pool, PoolMember
from app.programs import Terms
from app.transfers import service
from app.transfers.models import Transfer
from app.transfers.rules import AlreadyInPool, NotInPool, PoolFull, PoolNotOffered, missing, shares
from app.transfers.schemas import DrawIn


@dataclass(frozen=True, slots=True)
class Pooled:
    """A pool, and those in it, each with their account and status."""

    pool: Pool
    members: Sequence[tuple[PoolMember, Account, str]]


def create(session: Session, program_id: UUID, name: str | None, now: datetime) -> Pooled:
    """A new pool with nobody in it. NoTerms, PoolNotOffered."""
    _most_members(programs.terms_at(session, program_id, now))
    pool = Pool(id=new_id(), program_id=program_id, name=name, created_at=now)
    session.add(pool)
    session.flush()
    return Pooled(pool, [])


def join(session: Session, program_id: UUID, pool_id: UUID, reference: MemberRef, now: datetime) -> Pooled:
    """Adds a member to a pool; joining again changes nothing.

    NotFound, NoTerms, PoolNotOffered, IdentifierInvalid, UnknownMember, MemberClosed, PoolFull, AlreadyInPool.
    """
    pool = _pool(session, program_id, pool_id, lock=True)
    terms = programs.terms_at(session, program_id, now)
    most = _most_members(terms)
    (member_id,) = members.named(session, program_id, {"member": reference}, terms.enrolment.phone_region)
    theirs = [row.member_id for row in _rows(session, [pool_id])]
    if member_id not in theirs:
        ledger.lock(session, [member_id])  # a change of status waits
        if members.status_in(session, program_id, member_id) == "closed":
            raise MemberClosed
        if len(theirs) >= most:
            raise PoolFull(f"at most {most} members")
        row = {"member_id": member_id, "pool_id": pool_id, "joined_at": now}
        if not db.claim_rows(session, PoolMember, [row], ["member_id"]):
            raise AlreadyInPool
        _tell(session, pool, "pool.joined", member_id, now)
    return _pooled(session, pool, now)


def leave(session: Session, program_id: UUID, pool_id: UUID, member_id: UUID, now: datetime) -> None:
    """Takes a member out of a pool; their points were theirs all the time. NotFound if they are not in it."""
    pool = _pool(session, program_id, pool_id, lock=True)
    this = delete(PoolMember).where(PoolMember.pool_id == pool_id, PoolMember.member_id == member_id)
    if not getattr(session.execute(this), "rowcount", 0):
        raise NotFound
    _tell(session, pool, "pool.left", member_id, now)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A draw on a pool that a client asks for."""

    client_id: UUID
    pool_id: UUID
    wanted: DrawIn


@dataclass(frozen=True, slots=True)
class Drawn:
    """The transfers that a draw made, the account that it collected for, and those of the others in the pool."""

    transfers: Sequence[Transfer]
    account: Account
    others: Sequence[Account]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the decisions of a batch rest on: the pools with those in them, and their `accounts`, which follow."""

    program_id: UUID
    now: datetime
    terms: Terms
    pools: dict[UUID, list[UUID]]
    accounts: dict[UUID, Account]
    statuses: dict[UUID, str]


def draw(
    session: Session, program_id: UUID, drawings: Sequence[Drawing], now: datetime, *, dry_run: bool = False
) -> list[Drawn | Problem]:
    """Collects what members lack to have so many points available from the others in their pool, all or nothing.

    Soonest-expiring points go first, whosever they are; those of a member who may not spend stay where they are. Each
    may be refused: NotFound, PoolNotOffered, IdentifierInvalid, UnknownMember, NotInPool, MemberMayNotSpend,
    InsufficientPoints, TooManyPoints. Raises NoTerms. A `dry_run` locks and writes nothing.
    """
    found = _pools(session, program_id, {drawing.pool_id for drawing in drawings}, lock=not dry_run)
    if not found:
        return [NotFound() for _ in drawings]
    terms = programs.terms_at(session, program_id, now)
    named = [{"member": drawing.wanted.member} for drawing in drawings]
    people = members.named_each(session, program_id, named, terms.enrolment.phone_region)
    pools: dict[UUID, list[UUID]] = {pool_id: [] for pool_id in found}
    for row in _rows(session, list(pools)):
        pools[row.pool_id].append(row.member_id)
    member_ids = {member_id for theirs in pools.values() for member_id in theirs}
    accounts = (programs.look if dry_run else programs.claim)(session, program_id, member_ids, now, member_ids)
    statuses = members.statuses(session, member_ids)
    loaded = _Loaded(program_id, now, terms, pools, accounts, statuses)
    outcomes = [or_problem(_draw, loaded, *each) for each in zip(drawings, people, strict=True)]
    if not dry_run:
        done = [outcome for outcome in outcomes if isinstance(outcome, Drawn)]
        changed = {account.member_id for each in done for account in (each.account, *each.others)}
        made = [transfer for each in done for transfer in each.transfers]
        service.write(session, made, [accounts[member_id] for member_id in sorted(changed)], now)
    return outcomes


def _draw(loaded: _Loaded, drawing: Drawing, found: Sequence[UUID] | Problem) -> Drawn:
    theirs = loaded.pools.get(drawing.pool_id)
    if theirs is None:
        raise NotFound
    _most_members(loaded.terms)
    if isinstance(found, Problem):
        raise found
    (member_id,), accounts = found, dict(loaded.accounts)
    if member_id not in theirs:
        raise NotInPool
    if not GATES[loaded.statuses[member_id]].spend:
        raise MemberMayNotSpend
    givers = [accounts[id_] for id_ in theirs if id_ != member_id and GATES[loaded.statuses[id_]].spend]
    made = []
    for from_id, points in shares(givers, missing(accounts[member_id], drawing.wanted.points)).items():
        transfer = Transfer(
            id=new_id(),
            program_id=loaded.program_id,
            from_member_id=from_id,
            to_member_id=member_id,
            points=points,
            note=None,
            pool_id=drawing.pool_id,
            client_id=drawing.client_id,
            occurred_at=loaded.now,
            recorded_at=loaded.now,
        )
        act = service.act_of(transfer, loaded.terms)
        accounts[from_id], accounts[member_id] = ledger.transfer(accounts[from_id], accounts[member_id], points, act)
        made.append(transfer)
    loaded.accounts.update(accounts)
    return Drawn(made, accounts[member_id], [accounts[id_] for id_ in theirs if id_ != member_id])


def read(session: Session, program_id: UUID, pool_id: UUID, now: datetime) -> Pooled:
    """A pool at `now`. NotFound."""
    return _pooled(session, _pool(session, program_id, pool_id, lock=False), now)


def of_member(session: Session, program_id: UUID, member_id: UUID, now: datetime) -> Pooled:
    """The pool a member is in. NotFound if they are in none, or the programme has no such member."""
    row = session.get(PoolMember, member_id)
    if row is None:
        raise NotFound
    return read(session, program_id, row.pool_id, now)


def _pooled(session: Session, pool: Pool, now: datetime) -> Pooled:
    rows = _rows(session, [pool.id])
    theirs = [row.member_id for row in rows]
    accounts = programs.look(session, pool.program_id, theirs, now) if theirs else {}
    statuses = members.statuses(session, theirs) if theirs else {}
    return Pooled(pool, [(row, accounts[row.member_id], statuses[row.member_id]) for row in rows])


def _pool(session: Session, program_id: UUID, pool_id: UUID, *, lock: bool) -> Pool:
    found = _pools(session, program_id, [pool_id], lock=lock)
    if pool_id not in found:
        raise NotFound
    return found[pool_id]


def _pools(session: Session, program_id: UUID, pool_ids: Collection[UUID], *, lock: bool) -> dict[UUID, Pool]:
    """Those of some pools that the programme has; locked in the order of their ids."""
    chosen = db.any_of(session, Pool.id.expression, sorted(pool_ids))
    rows = select(Pool).where(Pool.program_id == program_id, chosen).order_by(Pool.id)
    found = session.scalars(rows.with_for_update(key_share=True) if lock else rows)
    return {pool.id: pool for pool in found}


def _rows(session: Session, pool_ids: Collection[UUID]) -> Sequence[PoolMember]:
    """Who is in some pools, in the order in which they joined."""
    rows = select(PoolMember).where(db.any_of(session, PoolMember.pool_id.expression, sorted(pool_ids)))
    return session.scalars(rows.order_by(PoolMember.joined_at, PoolMember.member_id)).all()


def _most_members(terms: Terms) -> int:
    if terms.pools is None:
        raise PoolNotOffered
    return terms.pools.most_members


def _tell(session: Session, pool: Pool, topic: str, member_id: UUID, now: datetime) -> None:
    outbox.put(session, [outbox.Event(pool.program_id, topic, member_id, {"pool_id": str(pool.id)})], now)
