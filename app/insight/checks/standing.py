"""Standing: tiers, memberships of clubs, stamp cards."""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    Select,
    String,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.orm import aliased

from app.accounting.models import JournalPosting
from app.clubs.models import ClubCredit, ClubMembership
from app.insight.checks.parts import differing, off, posted_to, within, zero
from app.ledger.models import Lot
from app.programs import MEASURES
from app.stamps.models import Stamp, StampCardRow
from app.tiers.models import MemberTier, QualifyingEntry, TierChange
from app.transactions.models import Transaction


def standings_are_sums_of_entries(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What is stored as counted in a member's window is what entries counted there; `actual` counts the figures that
    are not. Where the window moves it is at least that, so it is left out."""
    counted = and_(
        QualifyingEntry.member_id == MemberTier.member_id, QualifyingEntry.counted_at >= MemberTier.counted_from
    )
    names = MEASURES
    sums = [func.sum(getattr(QualifyingEntry, name)).label(name) for name in names]
    rows = select(MemberTier.member_id, *sums).outerjoin(QualifyingEntry, counted).group_by(MemberTier.member_id)
    found = rows.where(MemberTier.sums_until.is_not(None)).subquery()
    wrong = [zero(found.c[name]) != getattr(MemberTier, name) for name in names]
    return (
        off(MemberTier.member_id, wrong)
        .join(found, found.c.member_id == MemberTier.member_id)
        .where(within(MemberTier.program_id, program_id))
    )


def tiers_are_their_last_change(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A member is in the tier that their history ends with; `actual` 1: they are not."""
    last = select(func.max(cast(TierChange.id, String)).label("id")).group_by(TierChange.member_id).subquery()
    change = (
        select(TierChange.member_id, TierChange.to_tier).join(last, last.c.id == cast(TierChange.id, String)).subquery()
    )
    wrong = [change.c.to_tier.is_distinct_from(MemberTier.tier)]
    return (
        off(MemberTier.member_id, wrong)
        .outerjoin(change, change.c.member_id == MemberTier.member_id)
        .where(within(MemberTier.program_id, program_id))
    )


def purchases_count_what_they_earned(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a member's purchase counts towards tiers are the points it earned."""
    counted = QualifyingEntry.document_id == Transaction.id
    return (
        differing(Transaction.id, Transaction.points, QualifyingEntry.points)
        .join(QualifyingEntry, counted)
        .where(within(Transaction.program_id, program_id), Transaction.type == "purchase")
    )


def memberships_have_left_what_is_posted(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """The contract liability for memberships in the journal is what memberships have left to earn, one by one."""
    left = ClubMembership.deferred - ClubMembership.recognised - ClubMembership.refunded
    kept = select(ClubMembership.id, left.label("amount")).where(within(ClubMembership.program_id, program_id))
    memberships = kept.subquery()
    posted = posted_to("liability_membership", JournalPosting.document_id, program_id).subquery()
    both = memberships.join(posted, posted.c.subject == memberships.c.id, full=True)
    document = func.coalesce(memberships.c.id, posted.c.subject)
    return differing(document, -zero(posted.c.amount), zero(memberships.c.amount)).select_from(both)


def promises_are_sums_of_credits(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What is stored as spent for a promise is what purchases and returns counted for it."""
    credits_ = select(ClubCredit.membership_id, func.sum(ClubCredit.spend).label("spend"))
    sums = credits_.group_by(ClubCredit.membership_id).subquery()
    return (
        differing(ClubMembership.id, zero(sums.c.spend), ClubMembership.spent)
        .outerjoin(sums, sums.c.membership_id == ClubMembership.id)
        .where(within(ClubMembership.program_id, program_id))
    )


def memberships_follow_each_other(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """No two memberships of a member in a club that were agreed are for the same time; `actual` 1: two are."""
    later = aliased(ClubMembership)
    both = and_(
        later.member_id == ClubMembership.member_id,
        later.club == ClubMembership.club,
        later.id != ClubMembership.id,
        later.why != "purchase",
        later.begins_at >= ClubMembership.begins_at,
        later.begins_at < ClubMembership.ends_at,
        later.ends_at > later.begins_at,
    )
    return (
        off(ClubMembership.id, [later.id.is_not(None)])
        .join(later, both)
        .where(ClubMembership.why != "purchase", within(ClubMembership.program_id, program_id))
    )


def cards_hold_their_stamps(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A card has its head start and the stamps that were put on it, less those that came off."""
    put = select(Stamp.card_id, func.sum(Stamp.stamps).label("stamps")).group_by(Stamp.card_id).subquery()
    return (
        differing(StampCardRow.id, StampCardRow.head_start + zero(put.c.stamps), StampCardRow.stamps)
        .outerjoin(put, put.c.card_id == StampCardRow.id)
        .where(within(StampCardRow.program_id, program_id))
    )


def stamps_are_points(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a purchase put on a card is a lot of the points that it says."""
    issued = select(Lot.document_id, func.sum(Lot.granted).label("points")).where(Lot.source_lot_id.is_(None))
    lots = issued.group_by(Lot.document_id).subquery()
    return (
        differing(Stamp.id, Stamp.points, zero(lots.c.points))
        .join(StampCardRow, StampCardRow.id == Stamp.card_id)
        .outerjoin(lots, lots.c.document_id == Stamp.id)
        .where(Stamp.of_id.is_(None), within(StampCardRow.program_id, program_id))
    )


def points_wait_on_open_cards(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What is pending for a card are its stamps' points while it can be filled, and nothing once it is full; or less,
    where it has an end, for what has expired with it."""
    on = union_all(
        select(StampCardRow.id.label("card_id"), StampCardRow.id.label("document_id")),
        select(Stamp.card_id, Stamp.id).where(Stamp.of_id.is_(None)),
    ).subquery()
    pending = (
        select(on.c.card_id, func.sum(Lot.remaining).label("points"))
        .join(Lot, Lot.document_id == on.c.document_id)
        .where(Lot.pending)
        .group_by(on.c.card_id)
        .subquery()
    )
    put = select(Stamp.card_id, func.sum(Stamp.points).label("points")).group_by(Stamp.card_id).subquery()
    promised = case(
        (StampCardRow.full_at.is_(None), StampCardRow.head_start_points + zero(put.c.points)), else_=literal(0)
    )
    waiting = zero(pending.c.points)
    gone = and_(StampCardRow.ends_at.is_not(None), waiting < promised)
    return (
        differing(StampCardRow.id, promised, waiting)
        .outerjoin(pending, pending.c.card_id == StampCardRow.id)
        .outerjoin(put, put.c.card_id == StampCardRow.id)
        .where(~gone, within(StampCardRow.program_id, program_id))
    )
