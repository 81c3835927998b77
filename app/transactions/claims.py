"""Claim a guest's purchase: give its points to a member, under the terms of the purchase's `occurred_at`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import accounting, db, ledger, members, outbox, programs
from app.errors import NotFound, Problem
from app.ids import new_id
from app.members import GATES, MemberMayNotEarn, MemberRef, UnknownMember
from app.programs import Basket, Version
from app.transactions import return_rules, returns, rules
from app.transactions.models import Transaction, TransactionClaim
from app.transactions.returns import Fields, Posted
from app.transactions.rules import Judged
from app.transactions.schemas import PurchaseIn, basket_of
from app.transactions.service import identifier_of, may_enrol


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

    What came back before goes as if it had come back from the member: its points are taken back at once. The same
    member claiming it again gets the same answer. TransactionHasMember, TransactionClaimed, NothingToReturn if all of
    it has come back, or NotFound, also for a store that is not among `stores`.
    """
    row = _guest_purchase(session, program_id, transaction_id, stores, lock=not dry_run)
    terms = programs.timeline(session, program_id)
    version = next(version for version in terms.versions if version.id == row["terms_id"])
    basket = basket_of(PurchaseIn.model_validate(row["content"]))
    verdict = Judged(version, rules.price(program_id, basket, row["occurred_at"], version, granted=True))
    member, enrolled = _claimant(session, program_id, reference, verdict, now, dry_run)
    zone = terms.zone_at(now)
    past = _past(session, transaction_id)
    points = verdict.priced.earning.points
    left = return_rules.left(basket, version.terms, return_rules.before(past))
    taken_back = points - left.earning.points
    if (before := _again(session, row, past, taken_back, version, member, now, zone)) is not None:
        return before
    if past and not any(left.lines):
        raise return_rules.NothingToReturn("nothing is left of the purchase to claim")
    if dry_run and enrolled:
        account = ledger.Account(member, program_id)
    else:
        whole = [member] if taken_back else []
        account = (ledger.look if dry_run else ledger.claim)(session, [member], now, zone, whole)[member]
        account = ledger.with_covers(session, {member: account})[member]
    if not GATES[members.statuses(session, [member]).get(member, "active")].earn:
        raise MemberMayNotEarn
    claim_id = new_id()
    if points:
        act = rules.act_of(program_id, claim_id, row["occurred_at"], now, version.terms, "purchase")
        account = ledger.accrue(account, rules.accrual_of(verdict.priced, version.terms, act))
    sale = rules.sale_of(verdict.priced, claim_id, row["occurred_at"])
    chart = accounting.chart(session, program_id)
    account, contra = _take_back(account, sale, past, basket, version, chart, now)
    posted = [*accounting.grant_postings(sale, chart), *contra]
    new = {
        "id": claim_id,
        "transaction_id": transaction_id,
        "member_id": member,
        "points": points,
        "recorded_at": now,
    }
    if not dry_run:
        db.insert_rows(session, TransactionClaim, [new])
        ledger.write(session, [account], now)
        accounting.post(session, posted, now)
        payload = {"transaction_id": str(transaction_id), "points": points, "taken_back": taken_back}
        outbox.put(session, [outbox.Event(program_id, "transaction.claimed", member, payload)], now)
    return Claimed(new, row, posted, version, False, enrolled, account, taken_back)


def _take_back(
    account: ledger.Account,
    sale: accounting.Sale,
    past: Sequence[Fields],
    basket: Basket,
    version: Version,
    chart: accounting.Chart,
    now: datetime,
) -> tuple[ledger.Account, list[accounting.Posting]]:
    """The account without the points of what came back before its claim, and what that posts.

    Return by return, each as the document of its own part, so that further returns add to them and the void of one
    gives its points back. What the granted points have paid of a debt is owed again, whatever the terms say of points
    already spent: nobody has spent these.
    """
    undone = {row["original_id"] for row in past if row["type"] == "void"}
    standing = [row for row in past if row["type"] == "return" and row["id"] not in undone]
    postings: list[accounting.Posting] = []
    for count, row in enumerate(standing, start=1):
        granted = returns.just_granted(account, sale.document_id)
        left = return_rules.left(basket, version.terms, return_rules.before(standing[:count]))
        points = sum(lot.granted - lot.returned for lot in granted) - left.earning.points
        if points:
            occurred_at = max(row["occurred_at"], sale.occurred_at)
            act = ledger.Act(sale.program_id, row["id"], occurred_at, now, version.terms.zone)
            account, reversal = ledger.reverse(account, granted, points, act, None, points)
            back = replace(sale, document_id=row["id"], occurred_at=occurred_at, period=act.period)
            back = replace(back, consideration=0, tax=0, share=reversal.allocated)
            postings += accounting.return_postings(back, "adjustment", chart)
    return account, postings


def _again(
    session: Session,
    row: Fields,
    past: Sequence[Fields],
    taken_back: int,
    version: Version,
    member: UUID,
    now: datetime,
    zone: tzinfo,
) -> Claimed | None:
    """The answer to the claim of a purchase that has been claimed by this member; None if nobody has claimed it.
    TransactionClaimed if somebody else has."""
    made = select(*TransactionClaim.__table__.c).where(TransactionClaim.transaction_id == row["id"])
    existing = session.execute(made).mappings().one_or_none()
    if existing is None:
        return None
    if existing["member_id"] != member:
        raise rules.TransactionClaimed
    posted = accounting.postings_of(session, [existing["id"], *(each["id"] for each in past)])
    postings = [posting for posting in posted if posting.cohort_id is not None]  # no guest's return is about points
    account = ledger.look(session, [member], now, zone)[member]
    return Claimed(existing, row, postings, version, True, False, account, taken_back)


def _claimant(
    session: Session, program_id: UUID, reference: MemberRef, verdict: Judged, now: datetime, dry_run: bool
) -> tuple[UUID, bool]:
    """Who claims, and whether that makes them a member."""
    identifier = identifier_of(reference, verdict.version)
    if isinstance(identifier, Problem):
        raise identifier
    assert identifier is not None
    found = members.find(session, program_id, [identifier])
    if identifier in found:
        return found[identifier], False
    if not may_enrol(verdict.version, identifier):
        raise UnknownMember
    if dry_run:
        return new_id(), True
    enrolled, newcomers = members.enrol_unknown(session, program_id, [identifier], now)
    return enrolled[identifier], bool(newcomers)


def _past(session: Session, transaction_id: UUID) -> Sequence[Fields]:
    """What came back of a guest's purchase before anybody claimed it: those returns and voids have no member."""
    guests = (Transaction.purchase_id == transaction_id) & Transaction.member_id.is_(None)
    rows = select(*Transaction.__table__.c).where(guests).order_by(Transaction.id)
    return session.execute(rows).mappings().all()


def _guest_purchase(
    session: Session, program_id: UUID, transaction_id: UUID, stores: Collection[str] | None, *, lock: bool
) -> Fields:
    """The purchase to claim. NotFound, TransactionHasMember."""
    locked = select(*Transaction.__table__.c).where(Transaction.id == transaction_id)
    if lock:
        locked = locked.with_for_update(key_share=True)  # two claims of one purchase take turns
    row = session.execute(locked).mappings().one_or_none()
    if row is None or (row["program_id"], row["type"]) != (program_id, "purchase"):
        raise NotFound
    if stores is not None and row["store"] not in stores:
        raise NotFound
    if row["member_id"] is not None:
        raise rules.TransactionHasMember
    return row
