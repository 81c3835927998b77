"""Claim guests' purchases, many at a time: give their points to members, under the terms of the purchases'
`occurred_at`.

Members are enrolled first, then the purchases are locked, then the accounts: the order of `service`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import accounting, clubs, db, ledger, members, outbox, programs, stamps, tiers
from app.errors import Problem, or_problem
from app.ids import new_id
from app.members import GATES, Identifier, MemberMayNotEarn, MemberRef, UnknownMember
from app.programs import Basket, Timeline, Version
from app.transactions import return_rules, rules
from app.transactions.customers import Buyers, MemberPurchase, baskets, buyers
from app.transactions.models import Transaction, TransactionClaim
from app.transactions.returns import Fields, Posted, stamped_by, stamps_taken
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
    """A guest's purchase and the claim that gave its points to a member.

    `taken_back`: points of goods that had come back before the claim, which went with it.
    """

    claim: Fields
    transaction: Fields
    postings: Posted
    version: Version
    duplicate: bool
    enrolled: bool
    account: ledger.Account
    taken_back: int
    brought: Sequence[clubs.Membership] = ()
    cards: Sequence[stamps.Effect] = ()
    """What it did to stamp cards, when it was made."""


@dataclass(frozen=True, slots=True)
class _Meant:
    """The purchase that is claimed, what it comes to, and by whom."""

    row: Fields
    basket: Basket
    verdict: Judged
    identifier: Identifier


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the decisions of a batch rest on. `accounts`, `buyers`, `cards`, `newcomers`, `claims` (by purchase) and
    their `postings` (by claim) follow them; `past`: what came back before.
    """

    program_id: UUID
    now: datetime
    chart: accounting.Chart
    terms: Timeline
    members: Mapping[Identifier, UUID]
    newcomers: set[UUID]
    accounts: dict[UUID, ledger.Account]
    buyers: Buyers
    cards: stamps.Cards
    statuses: dict[UUID, str]
    claims: dict[UUID, Fields]
    postings: dict[UUID, list[Any]]
    past: Mapping[UUID, Sequence[Fields]]


def claim(
    session: Session, program_id: UUID, wanted: Sequence[Wanted], now: datetime, *, dry_run: bool = False
) -> list[Claimed | Problem]:
    """Gives the points of guests' purchases to members, under the terms of their `occurred_at`.

    What came back before goes as if it had come back from the member: its points are taken back at once. The same
    member claiming one again gets the same answer. Each may be refused: NotFound, TransactionHasMember,
    IdentifierInvalid, UnknownMember, TransactionClaimed, NothingToReturn, MemberMayNotEarn, TooManyPoints. Raises the
    refusal of somebody who became a member only to be refused. A `dry_run` locks and writes nothing.
    """
    terms = programs.timeline(session, program_id)
    rows = purchases(session, program_id, [each.transaction_id for each in wanted])
    meant = [or_problem(_meant, rows, terms, each) for each in wanted]
    good = [each for each in meant if not isinstance(each, Problem)]
    found, newcomers = _claimants(session, program_id, good, now, dry_run)
    loaded = _load(session, program_id, good, found, newcomers, now, dry_run)
    outcomes = [each if isinstance(each, Problem) else or_problem(_claim, loaded, each) for each in meant]
    for each, outcome in zip(meant, outcomes, strict=True):
        if isinstance(outcome, Problem) and isinstance(each, _Meant) and found.get(each.identifier) in loaded.newcomers:
            raise outcome
    if not dry_run:
        _write(session, loaded, [done for done in outcomes if isinstance(done, Claimed) and not done.duplicate])
    return outcomes


def _meant(rows: Mapping[UUID, Fields], terms: Timeline, wanted: Wanted) -> _Meant:
    row = shown(rows, wanted.transaction_id, wanted.stores)
    if row["member_id"] is not None:
        raise rules.TransactionHasMember
    version = next(version for version in terms.versions if version.id == row["terms_id"])
    bought = PurchaseIn.model_validate(row["content"])
    basket = basket_of(bought)
    occasion = rules.occasion_of(row["occurred_at"], bought.store, bought.channel, version.terms)
    identifier = identifier_of(wanted.member, version)
    if isinstance(identifier, Problem):
        raise identifier
    assert identifier is not None
    return _Meant(row, basket, rules.of_a_member(version, basket, occasion), identifier)


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
    now: datetime,
    dry_run: bool,
) -> _Loaded:
    ids, member_ids = sorted({each.row["id"] for each in meant}), set(found.values())
    if not dry_run:  # two claims of one purchase take turns
        locked = select(Transaction.id).where(db.any_of(session, Transaction.id.expression, ids))
        session.execute(locked.order_by(Transaction.id).with_for_update(key_share=True))
    past = _past(session, ids)
    owners = {found[each.identifier] for each in meant if each.row["id"] in past and each.identifier in found}
    imagined = {id_: ledger.Account(id_, program_id, covers=()) for id_ in newcomers} if dry_run else {}
    get = programs.look if dry_run else programs.claim
    accounts = get(session, program_id, member_ids - imagined.keys(), now, owners)
    if owners:
        accounts = ledger.with_covers(session, accounts)
    terms, chart = programs.timeline(session, program_id), accounting.chart(session, program_id)
    accounts |= imagined
    claims = _made(session, ids)
    buying = [
        MemberPurchase(found[each.identifier], each.row["occurred_at"], each.basket, each.verdict)
        for each in meant
        if each.identifier in found
    ]
    cards, filling = stamps.load(session, program_id, terms, chart, accounts, baskets(buying), (), now)
    standings = tiers.load(session, program_id, terms, {}, member_ids, now, newcomers)
    earliest = min((each.row["occurred_at"] for each in meant), default=now)
    memberships = clubs.load(session, program_id, terms, member_ids - newcomers, earliest, now)
    return _Loaded(
        program_id=program_id,
        now=now,
        chart=chart,
        terms=terms,
        members=found,
        newcomers=newcomers,
        accounts=accounts | filling,
        buyers=buyers(session, program_id, buying, standings, memberships, lock=not dry_run),
        cards=cards,
        statuses=members.statuses(session, member_ids),
        claims=claims,
        postings=_posted(session, claims.values(), past),
        past=past,
    )


def _past(session: Session, purchase_ids: Sequence[UUID]) -> dict[UUID, list[Fields]]:
    """What came back of guests' purchases before anybody claimed them: those returns and voids have no member."""
    theirs = db.any_of(session, Transaction.purchase_id.expression, purchase_ids) & Transaction.member_id.is_(None)
    found: dict[UUID, list[Fields]] = {}
    for row in session.execute(select(*Transaction.__table__.c).where(theirs).order_by(Transaction.id)).mappings():
        found.setdefault(row["purchase_id"], []).append(row)
    return found


def _made(session: Session, purchase_ids: Sequence[UUID]) -> dict[UUID, Fields]:
    """The claims of these purchases that there are."""
    made = db.any_of(session, TransactionClaim.transaction_id.expression, purchase_ids)
    rows = session.execute(select(*TransactionClaim.__table__.c).where(made)).mappings()
    return {row["transaction_id"]: row for row in rows}


def _posted(
    session: Session, claims: Collection[Fields], past: Mapping[UUID, Sequence[Fields]]
) -> dict[UUID, list[Any]]:
    """What claims have posted, with what had come back before them."""
    found: dict[UUID, list[Any]] = {row["id"]: [] for row in claims}
    claim_of = {row["id"]: row["id"] for row in claims}
    claim_of |= {each["id"]: row["id"] for row in claims for each in past.get(row["transaction_id"], ())}
    for posting in accounting.postings_of(session, list(claim_of)) if claim_of else ():
        if posting.cohort_id is not None:  # what came back from a guest was not about points
            found[claim_of[posting.document_id]].append(posting)
    return found


def _claim(loaded: _Loaded, meant: _Meant) -> Claimed:
    row, version, now = meant.row, meant.verdict.version, loaded.now
    member_id = loaded.members.get(meant.identifier)
    if member_id is None:
        raise UnknownMember
    before, account, past = loaded.claims.get(row["id"]), loaded.accounts[member_id], loaded.past.get(row["id"], [])
    if before is not None and before["member_id"] != member_id:
        raise rules.TransactionClaimed
    claim_id, verdict = new_id(), _known(loaded, meant, member_id, before)
    priced = rules.price(loaded.program_id, meant.basket, verdict, granted=True)
    priced = rules.with_end(priced, loaded.terms, verdict.occasion.at, now)
    points, reasons = verdict.earning.points, verdict.earning.reasons
    left = return_rules.left(meant.basket, version.terms, return_rules.before(past), reasons)
    taken_back = points - left.earning.points
    if before is not None:
        return Claimed(before, row, loaded.postings[before["id"]], version, True, False, account, taken_back)
    if past and not any(left.lines):
        raise return_rules.NothingToReturn("nothing is left of the purchase to claim")
    if not GATES[loaded.statuses.get(member_id, "active")].earn:
        raise MemberMayNotEarn
    earned = stamps.Earned(account)
    if points:
        act = rules.act_of(loaded.program_id, claim_id, row["occurred_at"], now, version.terms, "purchase")
        earned = loaded.cards.earn(account, rules.accrual_of(priced, version.terms, act), reasons, version)
    sale = rules.sale_of(priced, claim_id, row["occurred_at"])
    account, contra, off = _take_back(earned.account, sale, past, replace(meant, verdict=verdict), loaded, now)
    posted = [*accounting.grant_postings(sale, loaded.chart), *earned.postings, *contra]
    new = {
        "id": claim_id,
        "transaction_id": row["id"],
        "member_id": member_id,
        "points": points,
        "reasons": rules.reasons_of(verdict.earning),
        "facts": rules.facts_of(verdict.occasion),
        "recorded_at": now,
    }
    credit = rules.credit_of_claim(claim_id, rules.counted(left.earning), row, now)
    bought = clubs.Bought(claim_id, version, meant.basket.lines, left.earning.line_bases, row["occurred_at"])
    _, brought = loaded.buyers.count(member_id, verdict, credit, bought)
    loaded.claims[row["id"]], loaded.postings[claim_id], loaded.accounts[member_id] = new, posted, account
    enrolled = member_id in loaded.newcomers
    loaded.newcomers.discard(member_id)
    cards = [*earned.effects, *off]
    return Claimed(new, row, posted, version, False, enrolled, account, taken_back, brought, cards)


def _known(loaded: _Loaded, meant: _Meant, member_id: UUID, before: Fields | None) -> Judged:
    """What the purchase earns for who claims it; or earned, if they have claimed it `before`. TooManyPoints."""
    verdict = meant.verdict
    if before is None:
        return loaded.buyers.judge(member_id, verdict, meant.basket, meant.row["occurred_at"])
    occasion = rules.remembered(verdict.occasion, before["facts"])
    earning = programs.earn(meant.basket, verdict.version.terms, occasion)
    return verdict._replace(occasion=occasion, earning=rules.no_more_than_fits(earning))


def _take_back(
    account: ledger.Account,
    sale: accounting.Sale,
    past: Sequence[Fields],
    meant: _Meant,
    loaded: _Loaded,
    now: datetime,
) -> tuple[ledger.Account, list[accounting.Posting], list[stamps.Effect]]:
    """The account without the points of what came back before its claim, what that posts, and does to stamp cards.

    Return by return, each as the document of its own part, so that further returns add to them and the void of one
    gives its points back. What the granted points have paid of a debt is owed again, whatever the terms say of points
    already spent: nobody has spent these.
    """
    version, reasons = meant.verdict.version, meant.verdict.earning.reasons
    undone = {row["original_id"] for row in past if row["type"] == "void"}
    standing = [row for row in past if row["type"] == "return" and row["id"] not in undone]
    postings: list[accounting.Posting] = []
    effects: list[stamps.Effect] = []
    for count, row in enumerate(standing, start=1):
        granted = [ledger.granted_now(account, lot) for lot in ledger.granted_by(account, sale.document_id)]
        stamped = [
            (stamping, ledger.granted_now(account, lot))
            for stamping, lot in stamped_by(account, loaded.cards.brought(sale.document_id))
        ]
        left = return_rules.left(meant.basket, version.terms, return_rules.before(standing[:count]), reasons)
        if back := stamps.taken_back(granted, stamped, left.earning):
            occurred_at = max(row["occurred_at"], sale.occurred_at)
            act = ledger.Act(sale.program_id, row["id"], occurred_at, now, version.terms.zone)
            account, reversal = ledger.reverse(account, back, act, None, sum(points for _, points in back))
            account, more = loaded.cards.move(account, stamps_taken(stamped, back), act, version.terms)
            effects += more
            contra = replace(sale, document_id=row["id"], occurred_at=occurred_at, period=act.period)
            contra = replace(contra, consideration=0, tax=0, share=reversal.allocated)
            postings += accounting.return_postings(contra, "adjustment", loaded.chart)
    return account, postings, effects


def _write(session: Session, loaded: _Loaded, made: Sequence[Claimed]) -> None:
    changed = sorted({each.account.member_id for each in made})
    postings = [posting for each in made for posting in loaded.postings[each.claim["id"]]]
    with db.together(session):
        db.insert_rows(session, TransactionClaim, [dict(each.claim) for each in made])
        ledger.write(session, [loaded.accounts[member_id] for member_id in changed], loaded.now)
        accounting.post(session, postings, loaded.now)
        outbox.put(session, [_event(loaded.program_id, each) for each in made], loaded.now)
        loaded.buyers.write(session)
        loaded.cards.write(session)


def _event(program_id: UUID, made: Claimed) -> outbox.Event:
    payload = {
        "transaction_id": str(made.transaction["id"]),
        "points": made.claim["points"],
        "taken_back": made.taken_back,
    }
    return outbox.Event(program_id, "transaction.claimed", made.account.member_id, payload)
