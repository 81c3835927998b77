"""Claim a guest's purchase: give its points to a member, under the terms of the purchase's `occurred_at`."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, tzinfo
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import accounting, db, ledger, members, outbox, programs
from app.errors import NotFound, Problem
from app.ids import new_id
from app.members import GATES, MemberMayNotEarn, MemberRef, UnknownMember
from app.programs import Version
from app.transactions import return_rules, rules
from app.transactions.models import Transaction, TransactionClaim
from app.transactions.returns import Fields, Posted
from app.transactions.rules import Judged
from app.transactions.schemas import PurchaseIn, basket_of
from app.transactions.service import identifier_of, may_enrol


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
    row = _guest_purchase(session, program_id, transaction_id, stores, lock=not dry_run)
    terms = programs.timeline(session, program_id)
    version = next(version for version in terms.versions if version.id == row["terms_id"])
    basket = basket_of(PurchaseIn.model_validate(row["content"]))
    verdict = Judged(version, rules.price(program_id, basket, row["occurred_at"], version, granted=True))
    member, enrolled = _claimant(session, program_id, reference, verdict, now, dry_run)
    zone = terms.zone_at(now)
    if (before := _again(session, row, version, member, now, zone)) is not None:
        return before
    if _returned(session, transaction_id):
        raise return_rules.NothingToReturn("a purchase of which something has come back cannot be claimed")
    if dry_run and enrolled:
        account = ledger.Account(member, program_id)
    else:
        account = (ledger.look if dry_run else ledger.claim)(session, [member], now, zone)[member]
    if not GATES[members.statuses(session, [member]).get(member, "active")].earn:
        raise MemberMayNotEarn
    claim_id = new_id()
    points = verdict.priced.earning.points
    if points:
        act = rules.act_of(program_id, claim_id, row["occurred_at"], now, version.terms, "purchase")
        account = ledger.accrue(account, rules.accrual_of(verdict.priced, version.terms, act))
    sale = rules.sale_of(verdict.priced, claim_id, row["occurred_at"])
    posted = accounting.grant_postings(sale, accounting.chart(session, program_id))
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
        payload = {"transaction_id": str(transaction_id), "points": points}
        outbox.put(session, [outbox.Event(program_id, "transaction.claimed", member, payload)], now)
    return Claimed(new, row, posted, version, False, enrolled, account)


def _again(
    session: Session, row: Fields, version: Version, member: UUID, now: datetime, zone: tzinfo
) -> Claimed | None:
    """The answer to the claim of a purchase that has been claimed by this member; None if nobody has claimed it.
    TransactionClaimed if somebody else has."""
    made = select(*TransactionClaim.__table__.c).where(TransactionClaim.transaction_id == row["id"])
    existing = session.execute(made).mappings().one_or_none()
    if existing is None:
        return None
    if existing["member_id"] != member:
        raise rules.TransactionClaimed
    postings = accounting.postings_of(session, [existing["id"]])
    account = ledger.look(session, [member], now, zone)[member]
    return Claimed(existing, row, postings, version, True, False, account)


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


def _returned(session: Session, transaction_id: UUID) -> bool:
    rows = select(Transaction.id).where(Transaction.purchase_id == transaction_id).limit(1)
    return session.execute(rows).first() is not None


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
