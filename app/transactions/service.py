"""Record purchases: load, decide, write. And claim a guest's purchase for a member.

Order matters: natural keys first (they are what a retry collides with), then members by identifier, then the lock on
their accounts, and only then whatever a decision rests on. Everything that is locked is locked sorted.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, delete, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app import accounting, db, ledger, members, outbox, programs
from app.errors import NotFound, Problem, finding
from app.idempotency import IdempotencyInProgress, fingerprint
from app.ids import new_id
from app.members import GATES, Identifier, IdentifierInvalid, MemberMayNotEarn, MemberRef, UnknownMember
from app.programs import Timeline, Version
from app.transactions import rules
from app.transactions.models import Transaction, TransactionClaim, TransactionKey
from app.transactions.rules import Judged, Purchase, TransactionConflict
from app.transactions.schemas import PurchaseIn, basket_of

Key = tuple[str, str, str]
Fields = Mapping[str, Any] | RowMapping
"""A row's values by column name, read or about to be written."""
Posted = Sequence[accounting.Posting] | Sequence[accounting.JournalPosting]
_KEY = ("source", "external_id", "type")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A transaction as the database has it, or would have it after a dry run: its row, its postings, its terms.

    `standing` is the member's account after it (for a duplicate: now); None for a guest.
    """

    row: Fields
    postings: Posted
    version: Version
    duplicate: bool
    standing: ledger.Standing | None


Outcome = Recorded | Problem
Member = UUID | Problem | None
"""Who a purchase is for: a member, a reason why that cannot be said, or a guest."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What a batch's decisions rest on. `standings`, `known` and `newcomers` follow the decisions as they fall."""

    program_id: UUID
    chart: accounting.Chart
    taken: dict[Key, UUID]
    known: dict[Key, Recorded]
    judged: list[Judged | Problem | None]
    members: list[Member]
    newcomers: set[UUID]
    statuses: dict[UUID, str]
    standings: dict[UUID, ledger.Standing]


@dataclass(frozen=True, slots=True)
class _Writing:
    """The rows a batch has decided to write."""

    transactions: list[dict[str, Any]] = field(default_factory=list)
    granted: list[ledger.Granted] = field(default_factory=list)
    postings: list[accounting.Posting] = field(default_factory=list)
    changes: list[accounting.CohortChange] = field(default_factory=list)
    touched: set[UUID] = field(default_factory=set)


def record(
    session: Session, program_id: UUID, purchases: Sequence[Purchase], now: datetime, *, dry_run: bool = False
) -> list[Outcome]:
    """An outcome for each purchase, in order: recorded, known already (`duplicate`), or refused.

    A refused item never disturbs its neighbours and leaves nothing behind, its key included. Items of one member are
    decided in order. IdempotencyInProgress when another transaction is working on one of the keys. A `dry_run` locks
    and writes nothing.
    """
    loaded = _load(session, program_id, purchases, now, dry_run)
    writing = _Writing()
    outcomes = [_decide(loaded, position, purchase, writing, now) for position, purchase in enumerate(purchases)]
    if not dry_run:
        _give_back(session, [id_ for key, id_ in loaded.taken.items() if key not in loaded.known])
        db.insert_rows(session, Transaction, writing.transactions)
        _write(session, writing, loaded.standings, now)
        outbox.put(session, [_event(row) for row in writing.transactions], now)
    return outcomes


# --- load -----------------------------------------------------------------------------------------------------------


def _load(session: Session, program_id: UUID, purchases: Sequence[Purchase], now: datetime, dry_run: bool) -> _Loaded:
    terms = programs.timeline(session, program_id)
    keys = sorted({purchase.key for purchase in purchases})
    taken = {} if dry_run else _take(session, program_id, keys)
    known = _find(session, program_id, [key for key in keys if key not in taken], terms)
    judged = [None if purchase.key in known else _judge(program_id, purchase, terms, now) for purchase in purchases]
    people, newcomers = _identify(session, program_id, purchases, judged, terms, now, dry_run)

    pairs = zip(people, judged, strict=True)
    fresh = {member for member, verdict in pairs if isinstance(member, UUID) and isinstance(verdict, Judged)}
    to_claim = fresh - newcomers if dry_run else fresh
    standings = {id_: ledger.new_standing(id_) for id_ in newcomers} if dry_run else {}
    if to_claim:
        standings |= (ledger.standings if dry_run else ledger.claim)(session, to_claim, now)
    if to_read := {stored.row["member_id"] for stored in known.values()} - {None} - standings.keys():
        standings |= ledger.standings(session, to_read, now)
    statuses = members.statuses(session, to_claim) if to_claim else {}
    chart = accounting.chart(session, program_id)
    return _Loaded(program_id, chart, taken, known, judged, people, newcomers, statuses, standings)


def _take(session: Session, program_id: UUID, keys: Sequence[Key]) -> dict[Key, UUID]:
    """Takes the keys nobody has; answers the new transaction's id for each."""
    rows = [{"program_id": program_id, **dict(zip(_KEY, key, strict=True)), "transaction_id": new_id()} for key in keys]
    try:
        won = db.claim_rows(session, TransactionKey, rows, [*_KEY, "transaction_id"])
    except DBAPIError as error:
        if db.lock_timeout(error):
            raise IdempotencyInProgress from error
        raise
    return {(row["source"], row["external_id"], row["type"]): row["transaction_id"] for row in won}


def _give_back(session: Session, transaction_ids: Sequence[UUID]) -> None:
    """Lets go of the keys of refused purchases: they may be posted again."""
    if transaction_ids:
        chosen = db.any_of(session, TransactionKey.transaction_id.expression, transaction_ids)
        session.execute(delete(TransactionKey).where(chosen))


def _find(session: Session, program_id: UUID, keys: Sequence[Key], terms: Timeline) -> dict[Key, Recorded]:
    """The transactions recorded under `keys`, with their postings."""
    if not keys:
        return {}
    columns = [getattr(TransactionKey, name).expression for name in _KEY]
    found = session.execute(
        select(*Transaction.__table__.c)
        .join(TransactionKey, TransactionKey.transaction_id == Transaction.id)
        .where(TransactionKey.program_id == program_id, db.any_row_of(session, columns, keys))
    ).mappings()
    return {(row["source"], row["external_id"], row["type"]): stored for row, stored in _stored(session, found, terms)}


def _stored(session: Session, rows: Iterable[RowMapping], terms: Timeline) -> list[tuple[RowMapping, Recorded]]:
    """Transactions read from the database, with the postings they made when they were recorded."""
    rows = list(rows)
    postings: dict[UUID, list[Any]] = {row["id"]: [] for row in rows}
    for posting in accounting.postings_of(session, list(postings)) if rows else ():
        postings[posting.document_id].append(posting)
    versions = {version.id: version for version in terms.versions}
    return [(row, Recorded(row, postings[row["id"]], versions[row["terms_id"]], True, None)) for row in rows]


def _judge(program_id: UUID, purchase: Purchase, terms: Timeline, now: datetime) -> Judged | Problem:
    try:
        return rules.judge(program_id, purchase, terms, now)
    except Problem as problem:
        return problem


def _identify(
    session: Session,
    program_id: UUID,
    purchases: Sequence[Purchase],
    judged: Sequence[Judged | Problem | None],
    terms: Timeline,
    now: datetime,
    dry_run: bool,
) -> tuple[list[Member], set[UUID]]:
    """Who each purchase is for, and who became a member just now. Only acceptable purchases enrol anybody."""
    named = [_identifier(purchase.member, terms.at(purchase.occurred_at)) for purchase in purchases]
    wanted = {identifier for identifier in named if isinstance(identifier, Identifier)}
    found = members.find(session, program_id, wanted) if wanted else {}
    unknown = {
        identifier
        for identifier, verdict in zip(named, judged, strict=True)
        if isinstance(identifier, Identifier)
        and identifier not in found
        and isinstance(verdict, Judged)
        and _may_enrol(verdict.version, identifier)
    }
    if dry_run:
        enrolled = {identifier: new_id() for identifier in unknown}
        newcomers = set(enrolled.values())
    else:
        enrolled, newcomers = members.enrol_unknown(session, program_id, unknown, now)
    found |= enrolled
    return [_member(identifier, found) for identifier in named], newcomers


def _identifier(reference: MemberRef | None, version: Version | None) -> Identifier | Problem | None:
    if reference is None:
        return None
    try:
        return members.identifier_in(reference, version.terms.enrolment.phone_region if version else None)
    except IdentifierInvalid as problem:
        return problem


def _may_enrol(version: Version, identifier: Identifier) -> bool:
    policy = version.terms.enrolment
    return policy.automatic and identifier.kind in policy.identifiers


def _member(identifier: Identifier | Problem | None, found: Mapping[Identifier, UUID]) -> Member:
    if not isinstance(identifier, Identifier):
        return identifier
    return found.get(identifier) or UnknownMember(findings=[finding(("member",), "unknown", "nobody has it")])


# --- decide ---------------------------------------------------------------------------------------------------------


def _decide(loaded: _Loaded, position: int, purchase: Purchase, writing: _Writing, now: datetime) -> Outcome:
    member, verdict = loaded.members[position], loaded.judged[position]
    try:
        if purchase.key in loaded.known:  # recorded before, or earlier in this batch
            return _again(loaded, purchase, member)
        if isinstance(verdict, Problem):
            raise verdict
        if isinstance(member, Problem):
            raise member
        assert verdict is not None
        recorded = _purchase(loaded, purchase, verdict, member, writing, now)
    except Problem as problem:
        return problem
    loaded.known[purchase.key] = recorded
    return recorded


def _again(loaded: _Loaded, purchase: Purchase, member: Member) -> Recorded:
    """What a known purchase is answered. TransactionConflict if it differs from the first."""
    stored = loaded.known[purchase.key]
    differing = []
    if fingerprint(purchase.content) != stored.row["fingerprint"]:
        differing = list(rules.differences(stored.row["content"], purchase.content))
    gone = isinstance(member, UnknownMember) and stored.row["member_id"] is not None  # the card was removed since
    if member != stored.row["member_id"] and not gone:
        differing.append(finding(("member",), "differs", "differs from what was recorded"))
    if differing:
        raise TransactionConflict(findings=differing)
    standing = None if stored.row["member_id"] is None else loaded.standings[stored.row["member_id"]]
    return replace(stored, duplicate=True, standing=standing)


def _purchase(
    loaded: _Loaded, purchase: Purchase, verdict: Judged, member: UUID | None, writing: _Writing, now: datetime
) -> Recorded:
    id_ = loaded.taken.get(purchase.key) or new_id()
    priced, version = verdict.priced, verdict.version
    if member is not None:
        _accrue(loaded.standings, loaded.statuses, verdict, member, id_, purchase.occurred_at, writing, now)
    sale = rules.sale_of(priced, id_, purchase.occurred_at)
    postings = accounting.sale_postings(sale, version.terms.posting_profile, loaded.chart)
    row = {
        "id": id_,
        "program_id": loaded.program_id,
        **dict(zip(_KEY, purchase.key, strict=True)),
        "fingerprint": fingerprint(purchase.content),
        "member_id": member,
        "enrolled": member in loaded.newcomers,
        "terms_id": version.id,
        "store": purchase.store,
        "occurred_at": purchase.occurred_at,
        "recorded_at": now,
        "currency": purchase.currency,
        "total": purchase.basket.total,
        "points": 0 if member is None else priced.earning.points,
        "claimable": priced.earning.points if member is None else 0,
        "content": purchase.content,
        "reasons": [
            {"rule": reason.rule, "base": reason.base, "points": reason.points} for reason in priced.earning.reasons
        ],
        "shares": rules.shares_of(purchase.basket, priced),
    }
    loaded.newcomers.discard(member)
    writing.transactions.append(row)
    writing.postings.extend(postings)
    return Recorded(row, postings, version, False, loaded.standings.get(member) if member else None)


def _accrue(
    standings: dict[UUID, ledger.Standing],
    statuses: Mapping[UUID, str],
    verdict: Judged,
    member: UUID,
    document_id: UUID,
    occurred_at: datetime,
    writing: _Writing,
    now: datetime,
) -> None:
    """Grants a member the points of a purchase. MemberMayNotEarn if their status does not let them."""
    if not GATES[statuses.get(member, "active")].earn:
        raise MemberMayNotEarn
    if verdict.priced.earning.points:
        accrual = rules.accrual_of(verdict.priced, member, document_id, occurred_at, now)
        standings[member], granted = ledger.accrue(standings[member], accrual)
        writing.granted.append(granted)
        writing.changes.append(rules.cohort_change_of(verdict.priced, occurred_at))
        writing.touched.add(member)


# --- write ----------------------------------------------------------------------------------------------------------


def _write(session: Session, writing: _Writing, standings: Mapping[UUID, ledger.Standing], now: datetime) -> None:
    ledger.write(session, [standings[id_] for id_ in sorted(writing.touched)], writing.granted)
    accounting.post(session, writing.postings, now)
    accounting.change_cohorts(session, writing.changes, now)


def _event(row: Fields) -> outbox.Event:
    payload = {"transaction_id": str(row["id"]), "points": row["points"], "claimable": row["claimable"]}
    return outbox.Event(row["program_id"], "transaction.recorded", row["member_id"], payload)


# --- claim ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claimed:
    """A guest's purchase and the claim that gave its points to a member."""

    claim: Fields
    transaction: Fields
    reasons: Sequence[Fields]
    postings: Posted
    version: Version
    duplicate: bool
    enrolled: bool
    standing: ledger.Standing


def claim(
    session: Session,
    program_id: UUID,
    transaction_id: UUID,
    reference: MemberRef,
    now: datetime,
    *,
    stores: Collection[str] | None = None,
    dry_run: bool = False,
) -> Claimed:
    """Gives the points of a guest's purchase to a member, under the terms of its `occurred_at`.

    The same member claiming it again gets the same answer. TransactionHasMember, TransactionClaimed, or NotFound,
    also for a store that is not among `stores`.
    """
    locked = select(*Transaction.__table__.c).where(Transaction.id == transaction_id)
    if not dry_run:
        locked = locked.with_for_update(key_share=True)  # two claims of one purchase take turns
    row = session.execute(locked).mappings().one_or_none()
    if row is None or row["program_id"] != program_id or (stores is not None and row["store"] not in stores):
        raise NotFound
    if row["member_id"] is not None:
        raise rules.TransactionHasMember
    terms = programs.timeline(session, program_id)
    version = next(version for version in terms.versions if version.id == row["terms_id"])
    basket = basket_of(PurchaseIn.model_validate(row["content"]))
    verdict = Judged(version, rules.price(program_id, basket, row["occurred_at"], version, granted=True))
    member, enrolled = _claimant(session, program_id, reference, verdict, now, dry_run)
    made = session.execute(
        select(*TransactionClaim.__table__.c).where(TransactionClaim.transaction_id == transaction_id)
    ).mappings()
    if (existing := made.one_or_none()) is not None:
        if existing["member_id"] != member:
            raise rules.TransactionClaimed
        postings = accounting.postings_of(session, [existing["id"]])
        standing = ledger.standings(session, [member], now)[member]
        return Claimed(existing, row, row["reasons"], postings, version, True, False, standing)

    standings = _standings_of(session, member, now, dry_run, imagined=dry_run and enrolled)
    claim_id = new_id()
    new = {
        "id": claim_id,
        "transaction_id": transaction_id,
        "member_id": member,
        "points": verdict.priced.earning.points,
        "recorded_at": now,
    }
    writing = _Writing()
    statuses = members.statuses(session, [member])
    _accrue(standings, statuses, verdict, member, claim_id, row["occurred_at"], writing, now)
    sale = rules.sale_of(verdict.priced, claim_id, row["occurred_at"])
    writing.postings.extend(accounting.grant_postings(sale, accounting.chart(session, program_id)))
    if not dry_run:
        db.insert_rows(session, TransactionClaim, [new])
        _write(session, writing, standings, now)
        payload = {"transaction_id": str(transaction_id), "points": new["points"]}
        outbox.put(session, [outbox.Event(program_id, "transaction.claimed", member, payload)], now)
    return Claimed(new, row, row["reasons"], writing.postings, version, False, enrolled, standings[member])


def _claimant(
    session: Session, program_id: UUID, reference: MemberRef, verdict: Judged, now: datetime, dry_run: bool
) -> tuple[UUID, bool]:
    """Who claims, and whether that makes them a member."""
    identifier = _identifier(reference, verdict.version)
    if isinstance(identifier, Problem):
        raise identifier
    assert identifier is not None
    found = members.find(session, program_id, [identifier])
    if identifier in found:
        return found[identifier], False
    if not _may_enrol(verdict.version, identifier):
        raise UnknownMember
    if dry_run:
        return new_id(), True
    enrolled, newcomers = members.enrol_unknown(session, program_id, [identifier], now)
    return enrolled[identifier], bool(newcomers)


def _standings_of(
    session: Session, member: UUID, now: datetime, dry_run: bool, *, imagined: bool
) -> dict[UUID, ledger.Standing]:
    if imagined:
        return {member: ledger.new_standing(member)}
    return (ledger.standings if dry_run else ledger.claim)(session, [member], now)


# --- read -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A stored transaction with its claim, if a guest's purchase was claimed."""

    recorded: Recorded
    claim: TransactionClaim | None


def find(session: Session, program_id: UUID, key: Key) -> Found:
    """The transaction with this natural key. NotFound if there is none."""
    found = _find(session, program_id, [key], programs.timeline(session, program_id)).get(key)
    if found is None:
        raise NotFound
    claims = select(TransactionClaim).where(TransactionClaim.transaction_id == found.row["id"])
    return Found(found, session.scalars(claims).one_or_none())
