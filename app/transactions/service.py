"""Record what tills post: load, decide, write.

Order matters: natural keys first (they are what a retry collides with), then members by identifier, then guests'
purchases that come back, then the lock on the accounts, and only then whatever a decision rests on. Everything that is
locked is locked sorted, for the whole batch: two batches wait for each other in one order only (but for the keys of
returns that have waited for its purchases, which come after the others). What the batch itself has bought or returned
is not read: it follows the decisions in memory.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, delete, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app import accounting, clubs, db, ledger, members, outbox, programs, stamps, tiers
from app.errors import NotFound, Problem, finding
from app.idempotency import IdempotencyInProgress
from app.ids import following, new_id
from app.members import (
    GATES,
    Identifier,
    IdentifierInvalid,
    MemberMayNotEarn,
    MemberMayNotSpend,
    MemberRef,
    UnknownMember,
)
from app.programs import Basket, Timeline, Version
from app.transactions import return_rules, returns, rules, waiting
from app.transactions.customers import Buyers, MemberPurchase, baskets, buyers
from app.transactions.models import Transaction, TransactionClaim, TransactionKey
from app.transactions.return_rules import ReceiptNeeded, Return, UnknownOriginal
from app.transactions.returns import Fields, Posted, Returnable
from app.transactions.rules import Judged, Purchase, TransactionConflict
from app.transactions.waiting import Waiting

Key = tuple[str, str, str]
Item = Purchase | Return
_KEY = ("source", "external_id", "type")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A transaction as the database has it, or would have it after a dry run: its row, its postings, its terms.

    `account` is the member's after it (for a duplicate: now); None for a guest. `tier` and `cards`: what it did to
    their tier and their stamp cards, `brought`: memberships of clubs that it has brought, when it was recorded.
    """

    row: Fields
    postings: Posted
    version: Version
    duplicate: bool
    account: ledger.Account | None
    tier: tiers.Effect | None = None
    brought: Sequence[clubs.Membership] = ()
    cards: Sequence[stamps.Effect] = ()


Outcome = Recorded | Waiting | Problem
Member = UUID | Problem | None
"""Who a transaction is for: a member, a reason why that cannot be said, or a guest."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What a batch's decisions rest on. `accounts`, `buyers`, `cards`, `known`, `newcomers`, `returnable` and `since`
    follow the decisions as they fall."""

    program_id: UUID
    chart: accounting.Chart
    terms: Timeline
    taken: dict[Key, UUID]
    known: dict[Key, Recorded]
    waiting: waiting.Queue
    judged: list[Judged | Problem | None]
    members: list[Member]
    newcomers: set[UUID]
    statuses: Mapping[UUID, str]
    accounts: dict[UUID, ledger.Account]
    buyers: Buyers
    cards: stamps.Cards
    seen: dict[UUID, ledger.Account]
    """Accounts that are only answered."""
    returnable: dict[Key, Returnable]
    awaited: Collection[Key]
    """What returns and voids of the batch name, and purchases of the batch that a return has waited for."""
    used: Mapping[UUID, int]
    """For `returns.just_bought`."""
    since: dict[UUID, list[Fields]] = field(default_factory=dict)
    """By purchase, what the batch has decided of it."""


@dataclass(frozen=True, slots=True)
class _Writing:
    """The rows a batch has decided to write."""

    transactions: list[dict[str, Any]] = field(default_factory=list)
    postings: list[accounting.Posting] = field(default_factory=list)
    waiting: dict[Key, tuple[Return, datetime]] = field(default_factory=dict)

    def add(self, row: dict[str, Any], postings: Iterable[accounting.Posting]) -> None:
        self.transactions.append(row)
        self.postings.extend(postings)


def record(
    session: Session, program_id: UUID, items: Sequence[Item], now: datetime, *, dry_run: bool = False
) -> list[Outcome]:
    """An outcome for each item, in order: recorded, known already (`duplicate`), waiting, or refused.

    A refused item never disturbs its neighbours and leaves nothing behind, its key included. Items of one member are
    decided in order. Returns that waited for a purchase are applied with it. IdempotencyInProgress when another
    transaction is working on one of the keys. Raises the refusal of somebody who became a member only to be refused. A
    `dry_run` locks and writes nothing.
    """
    if not items:
        return []
    loaded = _load(session, program_id, items, now, dry_run)
    writing = _Writing()
    outcomes = [_decide(loaded, position, item, writing, now) for position, item in enumerate(items)]
    if not dry_run:
        for member, outcome in zip(loaded.members, outcomes, strict=True):
            if isinstance(outcome, Problem) and member in loaded.newcomers:
                raise outcome
        _write(session, loaded, writing, now)
    return outcomes


def apply_waiting(session: Session, program_id: UUID, pairs: Sequence[waiting.Pair], now: datetime) -> int:
    """Records waiting returns whose purchase is there; answers how many. One that is refused goes on waiting."""
    outcomes = record(session, program_id, waiting.returns_of(session, program_id, pairs), now)
    return sum(isinstance(outcome, Recorded) for outcome in outcomes)


# --- load -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Named:
    """What a batch is about, by its natural keys: which it has `taken`, what was `found` under the others and under
    those that its returns name (`originals`), and what waits. `there`: its own that were not to be had; `awaited` as in
    `_Loaded`."""

    taken: dict[Key, UUID]
    queue: waiting.Queue
    found: dict[Key, Mapping[str, Any]]
    there: Collection[Key]
    originals: Collection[Key]
    awaited: Collection[Key]


def _name(session: Session, program_id: UUID, items: Sequence[Item], dry_run: bool) -> _Named:
    ids = {key: new_id() for key in dict.fromkeys(item.key for item in items)}  # they sort as the items are decided
    originals = {item.original for item in items if isinstance(item, Return) and item.original is not None}
    # a return takes its purchase's key too, for as long as it takes to decide that it must wait: so that the purchase,
    # if it is on its way, either is there or finds what waits for it
    taken = {} if dry_run else _take(session, program_id, {key: new_id() for key in originals} | ids)
    queue = waiting.load(session, program_id, items)
    waited = queue.for_purchases({key[:2] for key in ids if key[2] == "purchase"})
    if waited and not dry_run:  # they are decided with their purchases
        taken |= _take(session, program_id, {each.key: _after(ids, each, place) for place, each in enumerate(waited)})
    there = {*ids, *(each.key for each in waited)} - taken.keys()
    found = _find(session, program_id, sorted(there | originals))
    awaited = originals | {each.original for each in waited if each.original is not None}
    return _Named(taken, queue, found, there, originals, awaited)


def _load(session: Session, program_id: UUID, items: Sequence[Item], now: datetime, dry_run: bool) -> _Loaded:
    terms = programs.timeline(session, program_id)
    named = _name(session, program_id, items, dry_run)
    known = _stored(session, {key: row for key, row in named.found.items() if key in named.there}, terms)
    judged = [_judge(item, terms, now) if item.key not in known else None for item in items]
    people, newcomers = _identify(session, program_id, items, judged, terms, now, dry_run)
    buying = _buying(items, people, judged)
    rows = {key: row for key, row in named.found.items() if key in named.originals}
    returnable = returns.load(session, rows, terms, lock=not dry_run)
    coming_back = [each for place, each in buying.items() if items[place].key in named.awaited]
    buyers_back = {each.member_id for each in coming_back}
    owners = buyers_back | {each.member_id for each in returnable.values() if each.member_id is not None}
    needs, whole = _needed(items, people, buying.values(), returnable.values())
    accounts = {id_: ledger.Account(id_, program_id, covers=()) for id_ in newcomers} if dry_run else {}
    to_claim = (needs.keys() | whole | buyers_back) - accounts.keys()
    if to_claim:
        get = programs.look if dry_run else programs.claim
        accounts |= get(session, program_id, to_claim, now, whole | buyers_back, needs)
    to_see = {stored.row["member_id"] for stored in known.values()} - {None} - accounts.keys()
    chart = accounting.chart(session, program_id)
    returnable = returns.complete(session, program_id, returnable, now, named.originals)
    if owners:
        owning = {id_: account for id_, account in accounts.items() if id_ in owners}
        versions = [each.verdict.version for each in coming_back]
        accounts |= returns.with_what_returns_need(session, returnable.values(), owning, chart, versions)
    stamped = {each.member_id for each in returnable.values() if each.member_id is not None and each.stampings}
    bought = baskets(buying.values())
    cards, filling = stamps.load(session, program_id, terms, chart, accounts, bought, stamped, now)
    accounts |= filling
    standings = tiers.load(session, program_id, terms, _coming(buying.values(), now), owners | whole, now, newcomers)
    memberships = clubs.load(
        session,
        program_id,
        terms,
        (bought.keys() | owners | whole) - newcomers,
        min((item.occurred_at for item in items), default=now),
        now,
        {each.document_id for each in returnable.values()},
    )
    paid = [accounts[each.member_id] for each in coming_back if each.verdict.tender is not None]
    return _Loaded(
        program_id=program_id,
        chart=chart,
        terms=terms,
        taken=named.taken,
        known=known,
        waiting=named.queue,
        judged=judged,
        members=people,
        newcomers=newcomers,
        statuses=standings.statuses if standings else members.statuses(session, to_claim) if to_claim else {},
        accounts=accounts,
        buyers=buyers(session, program_id, buying.values(), standings, memberships, lock=not dry_run),
        cards=cards,
        seen=programs.look(session, program_id, to_see, now) if to_see else {},
        returnable=returnable,
        awaited=named.awaited,
        used=ledger.used_points(session, paid),
    )


def _buying(
    items: Sequence[Item], people: Sequence[Member], judged: Sequence[Judged | Problem | None]
) -> dict[int, MemberPurchase]:
    """What members buy, by its place in the batch."""
    return {
        place: MemberPurchase(member, item.occurred_at, item.basket, verdict)
        for place, (item, member, verdict) in enumerate(zip(items, people, judged, strict=True))
        if isinstance(item, Purchase) and isinstance(member, UUID) and isinstance(verdict, Judged)
    }


def _needed(
    items: Sequence[Item], people: Sequence[Member], buying: Iterable[MemberPurchase], returnable: Iterable[Returnable]
) -> tuple[dict[UUID, ledger.Need], set[UUID]]:
    """The members whose accounts change, with the lots that needs, and those for whom all are: they may get spent
    points back, or bring something back without a receipt."""
    needs: dict[UUID, ledger.Need] = defaultdict(ledger.Need)
    for each in buying:
        needs[each.member_id] = needs[each.member_id].plus(each.paid_with_points)
    named = zip(items, people, strict=True)
    whole = {member for item, member in named if isinstance(item, Return) and isinstance(member, UUID)}
    for known in returnable:
        if known.member_id is not None:
            needs[known.member_id] = needs[known.member_id].plus(known.points, *known.documents)
            whole |= set() if known.takes_only else {known.member_id}
    return needs, whole


def _coming(buying: Iterable[MemberPurchase], now: datetime) -> dict[UUID, list[tiers.Coming]]:
    """What the purchases of each member may count towards tiers."""
    found: dict[UUID, list[tiers.Coming]] = {}
    for each in buying:
        found.setdefault(each.member_id, []).append(rules.counting(each.verdict, each.occurred_at, now))
    return found


def _after(ids: Mapping[Key, UUID], waited: Return, place: int) -> UUID:
    """An id for a return that has waited for a purchase of the batch: it sorts after that and before what follows."""
    assert waited.original is not None
    return following(ids[waited.original], place)


def _take(session: Session, program_id: UUID, ids: Mapping[Key, UUID]) -> dict[Key, UUID]:
    """Takes the keys nobody has, for transactions with these ids; answers which it got."""
    rows = [
        {"program_id": program_id, **dict(zip(_KEY, key, strict=True)), "transaction_id": ids[key]}
        for key in sorted(ids)
    ]
    try:
        won = db.claim_rows(session, TransactionKey, rows, [*_KEY, "transaction_id"])
    except DBAPIError as error:
        if db.row_locked(error):
            raise IdempotencyInProgress from error
        raise
    return {(row["source"], row["external_id"], row["type"]): row["transaction_id"] for row in won}


def _give_back(session: Session, transaction_ids: Sequence[UUID]) -> None:
    """Lets go of the keys of refused purchases: they may be posted again."""
    if transaction_ids:
        chosen = db.any_of(session, TransactionKey.transaction_id.expression, transaction_ids)
        session.execute(delete(TransactionKey).where(chosen))


def _find(session: Session, program_id: UUID, keys: Sequence[Key]) -> dict[Key, Mapping[str, Any]]:
    """The transactions recorded under `keys`."""
    if not keys:
        return {}
    rows = db.found(session, _by_key, program_id=program_id, **db.texts(session, keys))
    return {(row.source, row.external_id, row.type): row._asdict() for row in rows}


def _by_key(engine: str) -> Select[*tuple[Any, ...]]:
    ours = TransactionKey.program_id == bindparam("program_id", type_=TransactionKey.program_id.type)
    columns = tuple(getattr(TransactionKey, name).expression for name in _KEY)
    own = TransactionKey.transaction_id == Transaction.id
    return select(*Transaction.__table__.c).join(TransactionKey, own).where(ours, db.one_row_of(engine, columns))


def _stored(session: Session, rows: Mapping[Key, Fields], terms: Timeline) -> dict[Key, Recorded]:
    """Transactions read from the database, with the postings they made when they were recorded."""
    postings: dict[UUID, list[Any]] = {row["id"]: [] for row in rows.values()}
    for posting in accounting.postings_of(session, list(postings)) if rows else ():
        postings[posting.document_id].append(posting)
    versions = {version.id: version for version in terms.versions}
    return {key: Recorded(row, postings[row["id"]], versions[row["terms_id"]], True, None) for key, row in rows.items()}


def _judge(item: Item, terms: Timeline, now: datetime) -> Judged | Problem | None:
    """What a purchase earns, or why it is refused whoever it is for. Returns are judged when all is loaded."""
    if isinstance(item, Return):
        return None
    try:
        return rules.judge(item, terms, now)
    except Problem as problem:
        return problem


def _identify(
    session: Session,
    program_id: UUID,
    items: Sequence[Item],
    judged: Sequence[Judged | Problem | None],
    terms: Timeline,
    now: datetime,
    dry_run: bool,
) -> tuple[list[Member], set[UUID]]:
    """Who each item is for, and who became a member just now. Only acceptable purchases enrol anybody, of which none
    is paid with points: nobody has any before."""
    named = [identifier_of(item.member, terms.at(item.occurred_at)) for item in items]
    wanted = {identifier for identifier in named if isinstance(identifier, Identifier)}
    found = members.find(session, program_id, wanted) if wanted else {}
    unknown = {
        identifier
        for identifier, verdict in zip(named, judged, strict=True)
        if isinstance(identifier, Identifier)
        and identifier not in found
        and isinstance(verdict, Judged)
        and verdict.tender is None
        and may_enrol(verdict.version, identifier)
    }
    if dry_run:
        enrolled = {identifier: new_id() for identifier in unknown}
        newcomers = set(enrolled.values())
    else:
        enrolled, newcomers = members.enrol_unknown(session, program_id, unknown, now)
    found |= enrolled
    return [_member(identifier, found, verdict) for identifier, verdict in zip(named, judged, strict=True)], newcomers


def members_of(session: Session, program_id: UUID, items: Sequence[Item]) -> list[UUID | Identifier | None]:
    """Whose account each item is about: a member, or an identifier that nobody has; None as far as it does not say."""
    terms = programs.timeline(session, program_id)
    named = [identifier_of(item.member, terms.at(item.occurred_at)) for item in items]
    found = members.find(session, program_id, {each for each in named if isinstance(each, Identifier)})
    originals = {item.original for item in items if isinstance(item, Return) and item.original is not None}
    rows = _find(session, program_id, sorted(originals))

    def member(item: Item, identifier: Identifier | Problem | None) -> UUID | Identifier | None:
        if isinstance(identifier, Identifier):
            return found.get(identifier, identifier)
        row = rows.get(item.original) if isinstance(item, Return) and item.original is not None else None
        return None if row is None else row["member_id"]

    return [member(*each) for each in zip(items, named, strict=True)]


def identifier_of(reference: MemberRef | None, version: Version | None) -> Identifier | Problem | None:
    if reference is None:
        return None
    try:
        return members.identifier_in(reference, version.terms.enrolment.phone_region if version else None)
    except IdentifierInvalid as problem:
        return problem


def may_enrol(version: Version, identifier: Identifier) -> bool:
    policy = version.terms.enrolment
    return policy.automatic and identifier.kind in policy.identifiers


def _member(
    identifier: Identifier | Problem | None, found: Mapping[Identifier, UUID], verdict: Judged | Problem | None
) -> Member:
    if not isinstance(identifier, Identifier):
        return identifier
    if identifier in found:
        return found[identifier]
    if isinstance(verdict, Judged) and verdict.tender is not None and may_enrol(verdict.version, identifier):
        return ledger.InsufficientPoints.by(verdict.tender.points)
    return _unknown()


def _unknown() -> UnknownMember:
    return UnknownMember(findings=[finding(("member",), "unknown", "nobody has it")])


def purchases(session: Session, program_id: UUID, transaction_ids: Iterable[UUID]) -> dict[UUID, Fields]:
    """Those of some ids that are purchases of the programme."""
    chosen = db.any_of(session, Transaction.id.expression, sorted(set(transaction_ids)))
    ours = (Transaction.program_id == program_id) & (Transaction.type == "purchase")
    rows = session.execute(select(*Transaction.__table__.c).where(chosen, ours)).mappings()
    return {row["id"]: row for row in rows}


def shown(rows: Mapping[UUID, Fields], transaction_id: UUID, stores: Collection[str] | None) -> Fields:
    """One of `purchases`, for somebody who sees some stores (None: all). NotFound."""
    row = rows.get(transaction_id)
    if row is None or (stores is not None and row["store"] not in stores):
        raise NotFound
    return row


# --- decide ---------------------------------------------------------------------------------------------------------


def _decide(loaded: _Loaded, position: int, item: Item, writing: _Writing, now: datetime) -> Outcome:
    member, verdict = loaded.members[position], loaded.judged[position]
    try:
        if item.key in loaded.known:  # recorded before, or earlier in this batch
            return _again(loaded, item, member)
        if isinstance(verdict, Problem):
            raise verdict
        if isinstance(member, Problem):
            raise member
        if isinstance(item, Return):
            return _return(loaded, item, member, writing, now)
        assert verdict is not None
        bought = _purchase(loaded, item, verdict, member, writing, now)
    except Problem as problem:
        return problem
    return _with_waiting(loaded, bought, item.basket, writing, now) if item.key in loaded.awaited else bought


def _with_waiting(loaded: _Loaded, bought: Recorded, basket: Basket, writing: _Writing, now: datetime) -> Recorded:
    """A purchase of this batch that something comes back of: with the returns that have waited for it applied."""
    row, account = bought.row, bought.account
    key = row["source"], row["external_id"], row["type"]
    brought = loaded.cards.brought(row["id"])
    known = returns.just_bought(loaded.terms, row, bought.version, basket, account, brought, loaded.used)
    loaded.returnable[key] = known
    before = [item for item, _ in writing.waiting.values() if item.original == key]  # that the batch itself brought
    for item in [*loaded.waiting.for_purchases({key[:2]}), *before]:
        if item.key not in loaded.known:
            with suppress(Problem):  # it goes on waiting
                _return(loaded, item, None, writing, now)
            if item.key in loaded.known:
                writing.waiting.pop(item.key, None)
    if account is None:
        return bought
    effect = bought.tier and bought.tier._replace(after=loaded.buyers.standings.tier(account.member_id))
    return replace(bought, account=loaded.accounts[account.member_id], tier=effect)


def _again(loaded: _Loaded, item: Item, member: Member) -> Recorded:
    """What a known transaction is answered. TransactionConflict if it differs from the first."""
    stored = loaded.known[item.key]
    owner = stored.row["member_id"]
    differing = []
    if rules.fingerprint(item.content) != stored.row["fingerprint"]:
        differing = list(rules.differences(rules.parsed(stored.row["content"]), item.content.parsed()))
    named = not (isinstance(item, Return) and item.original is not None)  # else the original says who
    gone = isinstance(member, UnknownMember) and owner is not None  # the card was removed since
    if named and member != owner and not gone:
        differing.append(finding(("member",), "differs", "differs from what was recorded"))
    if differing:
        raise TransactionConflict(findings=differing)
    return replace(stored, duplicate=True, account=loaded.accounts.get(owner) or loaded.seen.get(owner))


def _purchase(
    loaded: _Loaded, purchase: Purchase, verdict: Judged, member: UUID | None, writing: _Writing, now: datetime
) -> Recorded:
    id_ = loaded.taken.get(purchase.key) or new_id()
    effect: tiers.Effect | None = None
    brought: Sequence[clubs.Membership] = ()
    earned: stamps.Earned | None = None
    if member is not None:
        verdict = loaded.buyers.judge(member, verdict, purchase.basket, purchase.occurred_at)
    priced = rules.price(loaded.program_id, purchase.basket, verdict, granted=member is not None)
    priced = rules.with_end(priced, loaded.terms, verdict.occasion.at, now)
    if member is not None:
        earned = _earn(loaded, verdict, priced, member, id_, purchase.occurred_at, now)
        loaded.accounts[member] = earned.account
        credit = rules.credit_of(id_, rules.counted(verdict.earning), purchase.occurred_at, now)
        bought = rules.bought(id_, verdict, purchase.basket, purchase.occurred_at)
        effect, brought = loaded.buyers.count(member, verdict, credit, bought)
    version = verdict.version
    sale = rules.sale_of(priced, id_, purchase.occurred_at)
    postings = accounting.sale_postings(sale, version.terms.posting_profile, loaded.chart)
    event = accounting.Event(sale.program_id, id_, sale.currency, sale.occurred_at, sale.period)
    profile = version.terms.posting_profile
    postings += accounting.tender_postings(event, priced.net_tendered, profile, loaded.chart)
    postings += () if earned is None else earned.postings
    row = {
        "id": id_,
        "program_id": loaded.program_id,
        **dict(zip(_KEY, purchase.key, strict=True)),
        "fingerprint": rules.fingerprint(purchase.content),
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
        "reasons": rules.reasons_of(priced.earning),
        "facts": rules.facts_of(verdict.occasion),
        "shares": rules.shares_of(purchase.basket, priced),
        "purchase_id": None,
        "original_id": None,
        "outcome": rules.tendered(priced),
    }
    loaded.newcomers.discard(member)
    writing.add(row, postings)
    account = None if member is None else loaded.accounts[member]
    loaded.known[purchase.key] = Recorded(row, postings, version, False, account)
    cards = () if earned is None else earned.effects
    return Recorded(row, postings, version, False, account, effect, brought, cards)


def _earn(
    loaded: _Loaded,
    verdict: Judged,
    priced: rules.Priced,
    member: UUID,
    document_id: UUID,
    occurred_at: datetime,
    now: datetime,
) -> stamps.Earned:
    """The member's account after a purchase: what it pays with points, then what it earns, stamps too.
    MemberMayNotSpend, InsufficientPoints, MemberMayNotEarn."""
    account, terms = loaded.accounts[member], verdict.version.terms
    gates = GATES[loaded.statuses.get(member, "active")]
    if not gates.earn:
        raise MemberMayNotEarn
    if priced.tender is not None:
        if not gates.spend:
            raise MemberMayNotSpend
        act = rules.act_of(loaded.program_id, document_id, occurred_at, now, terms, "redemption")
        account = ledger.spend(account, priced.tender.points, act)
    if not priced.earning.points:
        return stamps.Earned(account)
    act = rules.act_of(loaded.program_id, document_id, occurred_at, now, terms, "purchase")
    whole = rules.accrual_of(priced, terms, act)
    return loaded.cards.earn(account, whole, priced.earning.reasons, verdict.version)


def _return(loaded: _Loaded, item: Return, member: UUID | None, writing: _Writing, now: datetime) -> Recorded | Waiting:
    version = loaded.terms.at(item.occurred_at)
    if version is None:
        raise programs.NoTerms
    programs.check_time(item.occurred_at, version, now)
    known = None if item.original is None else loaded.returnable.get(item.original)
    rules.check_currency(item.currency, version.terms.currency if known is None else known.purchase["currency"])
    id_ = loaded.taken.get(item.key) or new_id()
    effects: Sequence[stamps.Effect] = ()
    if item.original is None:
        if version.terms.returns.without_receipt == "refuse":
            raise ReceiptNeeded
        assert member is not None
        if member in loaded.newcomers:  # whoever brings it back is nobody yet: a later item is to enrol them
            raise _unknown()
        done = returns.without_receipt(item, id_, version, loaded.accounts[member], loaded.chart, now)
    elif known is None:
        if item.type == "void":
            raise UnknownOriginal
        return loaded.waiting.again(item) or _wait(item, writing, now)
    else:
        version = known.version
        account = None if known.member_id is None else loaded.accounts[known.member_id]
        since = loaded.since.setdefault(known.purchase["id"], [])
        done = returns.decide(item, id_, returns.as_now(known, since, account), account, loaded.chart, now)
        done, effects = _restamped(loaded, done, known, item, now)
        since.append(done.row | {"type": item.type})
        loaded.returnable[item.key] = returns.just_returned(known, since[-1], done.postings)
    if done.account is not None:
        loaded.accounts[done.account.member_id] = done.account
    row = done.row | {
        "program_id": loaded.program_id,
        **dict(zip(_KEY, item.key, strict=True)),
        "fingerprint": rules.fingerprint(item.content),
        "content": item.content,
        "store": item.store,
        "recorded_at": now,
    }
    writing.add(row, done.postings)
    loaded.known[item.key] = Recorded(row, done.postings, version, False, done.account)
    return replace(loaded.known[item.key], tier=_counted_back(loaded, row, known, now), cards=effects)


def _restamped(
    loaded: _Loaded, done: returns.Done, known: Returnable, item: Return, now: datetime
) -> tuple[returns.Done, Sequence[stamps.Effect]]:
    """What was decided of a return, with what it does to stamp cards."""
    if done.account is None or not done.stamps:
        return done, ()
    terms = known.version.terms
    act = ledger.Act(loaded.program_id, done.row["id"], returns.counts_from(known, item), now, terms.zone)
    account, effects = loaded.cards.move(done.account, done.stamps, act, terms)
    return replace(done, account=account), effects


def _counted_back(loaded: _Loaded, row: Fields, known: Returnable | None, now: datetime) -> tiers.Effect | None:
    """What a return or a void does to its member's tier, and to what the purchase brought and counted for."""
    if row["member_id"] is None:
        return None
    credit = rules.credit_back(row, rules.counted_back(row), None if known is None else known.purchase, now)
    memberships = loaded.buyers.memberships
    memberships.count(row["member_id"], credit)
    if known is not None and memberships.has_brought(row["member_id"], known.document_id):
        past = return_rules.before([*known.past, *loaded.since[known.purchase["id"]]])
        kept = return_rules.left(known.basket, known.version.terms, past, known.reasons)
        bases, at = kept.earning.line_bases, row["occurred_at"]
        left = clubs.Bought(known.document_id, known.version, known.basket.lines, bases, at)
        memberships.keep(row["member_id"], left)
    of = None if known is None else known.document_id
    return loaded.buyers.standings.count(row["member_id"], credit, "returned", of)


def _wait(item: Return, writing: _Writing, now: datetime) -> Waiting:
    """TransactionConflict if the batch has brought it before, and it was another."""
    first, since = writing.waiting.setdefault(item.key, (item, now))
    if rules.fingerprint(first.content) != rules.fingerprint(item.content):
        raise TransactionConflict(findings=list(rules.differences(first.content.parsed(), item.content.parsed())))
    return Waiting(item, since, duplicate=first is not item)


# --- write ----------------------------------------------------------------------------------------------------------


def _write(session: Session, loaded: _Loaded, writing: _Writing, now: datetime) -> None:
    _give_back(session, [id_ for key, id_ in loaded.taken.items() if key not in loaded.known])
    changed = {row["member_id"] for row in writing.transactions} - {None}
    with db.together(session):
        db.insert_rows(session, Transaction, writing.transactions)
        ledger.write(session, [loaded.accounts[id_] for id_ in changed], now)
        accounting.post(session, writing.postings, now)
        outbox.put(session, [_event(row) for row in writing.transactions], now)
        loaded.buyers.write(session)
        loaded.cards.write(session)
    waiting.keep(session, loaded.program_id, list(writing.waiting.values()))
    recorded = [(row["source"], row["external_id"]) for row in writing.transactions if row["type"] == "return"]
    waiting.forget(session, loaded.program_id, [pair for pair in recorded if pair in loaded.waiting.keys])


def _event(row: Fields) -> outbox.Event:
    payload = {"transaction_id": str(row["id"])} | {name: row[name] for name in ("type", "points", "claimable")}
    return outbox.Event(row["program_id"], "transaction.recorded", row["member_id"], payload)


# --- read -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A stored transaction with its claim, if a guest's purchase was claimed, and what came back of it."""

    recorded: Recorded
    claim: TransactionClaim | None
    returns: Sequence[UUID]


def find(session: Session, program_id: UUID, key: Key) -> Found:
    """The transaction with this natural key. NotFound if there is none."""
    rows = _find(session, program_id, [key])
    if not rows:
        raise NotFound
    found = _stored(session, rows, programs.timeline(session, program_id))[key]
    claims = select(TransactionClaim).where(TransactionClaim.transaction_id == found.row["id"])
    returned = select(Transaction.id).where(Transaction.purchase_id == found.row["id"]).order_by(Transaction.id)
    return Found(found, session.scalars(claims).one_or_none(), session.scalars(returned).all())
