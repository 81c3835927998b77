"""Claim guests' purchases, many at a time: give their points to members, under the terms of the purchases'
`occurred_at`.

Members are enrolled first, then the purchases are locked, then the accounts: the order of `service`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import accounting, db, ledger, members, outbox, programs
from app.errors import Problem, or_problem
from app.ids import new_id
from app.members import GATES, Identifier, MemberMayNotEarn, MemberRef, UnknownMember
from app.programs import Timeline, Version
from app.transactions import return_rules, rules
from app.transactions.models import Transaction, TransactionClaim
from app.transactions.returns import Fields, Posted
from app.transactions.rules import Judged
from app.transactions.schemas import PurchaseIn, basket_of
from app.transactions.service import identifier_of, may_enrol, purchases, shown


@dataclass(frozen=True, slots=True)
class Wanted:
    """A guest's purchase and the member who claims it, by somebody who sees these `stores` (None: all)."""

    transaction_id: UUID
    member: MemberRef
    stores: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A guest's purchase and the claim that gave its points to a member."""

    claim: Fields
    transaction: Fields
    postings: Posted
    version: Version
    duplicate: bool
    enrolled: bool
    account: ledger.Account


@dataclass(frozen=True, slots=True)
class _Meant:
    """The purchase that is claimed, what it comes to, and by whom."""

    row: Fields
    verdict: Judged
    identifier: Identifier


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the decisions of a batch rest on. `accounts`, `newcomers`, `claims` (by purchase) and their `postings` (by
    claim) follow them; `returned`: purchases of which something has come back."""

    program_id: UUID
    now: datetime
    chart: accounting.Chart
    members: Mapping[Identifier, UUID]
    newcomers: set[UUID]
    accounts: dict[UUID, ledger.Account]
    statuses: dict[UUID, str]
    claims: dict[UUID, Fields]
    postings: dict[UUID, list[Any]]
    returned: set[UUID]


def claim(
    session: Session, program_id: UUID, wanted: Sequence[Wanted], now: datetime, *, dry_run: bool = False
) -> list[Claimed | Problem]:
    """Gives the points of guests' purchases to members, under the terms of their `occurred_at`.

    The same member claiming one again gets the same answer. Each may be refused: NotFound, TransactionHasMember,
    IdentifierInvalid, UnknownMember, TransactionClaimed, NothingToReturn, MemberMayNotEarn, TooManyPoints. Raises the
    refusal of somebody who became a member only to be refused. A `dry_run` locks and writes nothing.
    """
    terms = programs.timeline(session, program_id)
    rows = purchases(session, program_id, [each.transaction_id for each in wanted])
    meant = [or_problem(_meant, program_id, rows, terms, each) for each in wanted]
    good = [each for each in meant if not isinstance(each, Problem)]
    found, newcomers = _claimants(session, program_id, good, now, dry_run)
    loaded = _load(session, program_id, good, found, newcomers, terms, now, dry_run)
    outcomes = [each if isinstance(each, Problem) else or_problem(_claim, loaded, each) for each in meant]
    for each, outcome in zip(meant, outcomes, strict=True):
        if isinstance(outcome, Problem) and isinstance(each, _Meant) and found.get(each.identifier) in loaded.newcomers:
            raise outcome
    if not dry_run:
        _write(session, loaded, [done for done in outcomes if isinstance(done, Claimed) and not done.duplicate])
    return outcomes


def _meant(program_id: UUID, rows: Mapping[UUID, Fields], terms: Timeline, wanted: Wanted) -> _Meant:
    row = shown(rows, wanted.transaction_id, wanted.stores)
    if row["member_id"] is not None:
        raise rules.TransactionHasMember
    version = next(version for version in terms.versions if version.id == row["terms_id"])
    basket = basket_of(PurchaseIn.model_validate(row["content"]))
    priced = rules.price(program_id, basket, row["occurred_at"], version, granted=True)
    identifier = identifier_of(wanted.member, version)
    if isinstance(identifier, Problem):
        raise identifier
    assert identifier is not None
    return _Meant(row, Judged(version, priced), identifier)


def _claimants(
    session: Session, program_id: UUID, meant: Sequence[_Meant], now: datetime, dry_run: bool
) -> tuple[dict[Identifier, UUID], set[UUID]]:
    """Who claims, and who became a member by that."""
    found = members.find(session, program_id, {each.identifier for each in meant})
    unknown = {
        each.identifier
        for each in meant
        if each.identifier not in found and may_enrol(each.verdict.version, each.identifier)
    }
    if dry_run:
        enrolled = {identifier: new_id() for identifier in unknown}
        return found | enrolled, set(enrolled.values())
    enrolled, newcomers = members.enrol_unknown(session, program_id, unknown, now)
    return found | enrolled, newcomers


def _load(
    session: Session,
    program_id: UUID,
    meant: Sequence[_Meant],
    found: Mapping[Identifier, UUID],
    newcomers: set[UUID],
    terms: Timeline,
    now: datetime,
    dry_run: bool,
) -> _Loaded:
    ids, member_ids = sorted({each.row["id"] for each in meant}), set(found.values())
    if not dry_run:  # two claims of one purchase take turns
        locked = select(Transaction.id).where(db.any_of(session, Transaction.id.expression, ids))
        session.execute(locked.order_by(Transaction.id).with_for_update(key_share=True))
    imagined = {id_: ledger.Account(id_, program_id) for id_ in newcomers} if dry_run else {}
    get = ledger.look if dry_run else ledger.claim
    accounts = get(session, member_ids - imagined.keys(), now, terms.zone_at(now))
    made = db.any_of(session, TransactionClaim.transaction_id.expression, ids)
    claims = session.execute(select(*TransactionClaim.__table__.c).where(made)).mappings().all()
    postings: dict[UUID, list[Any]] = {row["id"]: [] for row in claims}
    for posting in accounting.postings_of(session, list(postings)) if postings else ():
        postings[posting.document_id].append(posting)
    back = db.any_of(session, Transaction.purchase_id.expression, ids)
    return _Loaded(
        program_id=program_id,
        now=now,
        chart=accounting.chart(session, program_id),
        members=found,
        newcomers=newcomers,
        accounts=accounts | imagined,
        statuses=members.statuses(session, member_ids),
        claims={row["transaction_id"]: row for row in claims},
        postings=postings,
        returned={id_ for id_ in session.scalars(select(Transaction.purchase_id).where(back)) if id_ is not None},
    )


def _claim(loaded: _Loaded, meant: _Meant) -> Claimed:
    row, version, now = meant.row, meant.verdict.version, loaded.now
    member_id = loaded.members.get(meant.identifier)
    if member_id is None:
        raise UnknownMember
    before, account = loaded.claims.get(row["id"]), loaded.accounts[member_id]
    if before is not None:
        if before["member_id"] != member_id:
            raise rules.TransactionClaimed
        return Claimed(before, row, loaded.postings[before["id"]], version, True, False, account)
    if row["id"] in loaded.returned:
        raise return_rules.NothingToReturn("a purchase of which something has come back cannot be claimed")
    if not GATES[loaded.statuses.get(member_id, "active")].earn:
        raise MemberMayNotEarn
    claim_id, priced = new_id(), meant.verdict.priced
    points = priced.earning.points
    if points:
        act = rules.act_of(loaded.program_id, claim_id, row["occurred_at"], now, version.terms, "purchase")
        account = ledger.accrue(account, rules.accrual_of(priced, version.terms, act))
    posted = accounting.grant_postings(rules.sale_of(priced, claim_id, row["occurred_at"]), loaded.chart)
    new = {
        "id": claim_id,
        "transaction_id": row["id"],
        "member_id": member_id,
        "points": points,
        "recorded_at": now,
    }
    loaded.claims[row["id"]], loaded.postings[claim_id], loaded.accounts[member_id] = new, posted, account
    enrolled = member_id in loaded.newcomers
    loaded.newcomers.discard(member_id)
    return Claimed(new, row, posted, version, False, enrolled, account)


def _write(session: Session, loaded: _Loaded, made: Sequence[Claimed]) -> None:
    db.insert_rows(session, TransactionClaim, [dict(each.claim) for each in made])
    changed = sorted({each.account.member_id for each in made})
    ledger.write(session, [loaded.accounts[member_id] for member_id in changed], loaded.now)
    accounting.post(session, [posting for each in made for posting in loaded.postings[each.claim["id"]]], loaded.now)
    outbox.put(session, [_event(loaded.program_id, each.claim) for each in made], loaded.now)


def _event(program_id: UUID, made: Fields) -> outbox.Event:
    payload = {"transaction_id": str(made["transaction_id"]), "points": made["points"]}
    return outbox.Event(program_id, "transaction.claimed", made["member_id"], payload)
