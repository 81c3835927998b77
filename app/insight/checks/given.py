"""What documents, campaigns and rules have given, within their budgets."""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    Select,
    and_,
    case,
    func,
    select,
    union_all,
)

from app.adjustments.models import Adjustment
from app.adjustments.rules import GRANTS
from app.campaigns.models import CampaignBudget, CampaignGrant
from app.clubs.models import ClubMembership
from app.insight.checks.parts import ENTRY, differing, off, total, within, zero
from app.ledger.models import Lot, PointAccount, PointEntry
from app.members.models import Member
from app.programs.conditions import BUDGET
from app.programs.models import RuleBudget, RuleBudgetSlice, RuleUse
from app.stamps.models import StampCardRow
from app.transactions.models import Transaction, TransactionClaim


def documents_granted_their_points(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A transaction, the claim of one, an adjustment or a membership granted the points it says."""
    claims = select(TransactionClaim.id, Transaction.program_id, TransactionClaim.points).join(
        Transaction, Transaction.id == TransactionClaim.transaction_id
    )
    purchases = select(Transaction.id, Transaction.program_id, Transaction.points).where(Transaction.type == "purchase")
    given = and_(Adjustment.status == "applied", Adjustment.class_.in_(GRANTS), Adjustment.points > 0)
    adjustments = select(Adjustment.id, Adjustment.program_id, case((given, Adjustment.points), else_=0))
    memberships = select(ClubMembership.id, ClubMembership.program_id, ClubMembership.points)
    documents = union_all(purchases, claims, adjustments, memberships).subquery()
    issued = select(PointEntry.document_id, func.sum(Lot.granted).label("points")).join(PointEntry, ENTRY)
    issued = issued.where(Lot.source_lot_id.is_(None), PointEntry.kind != "bonus")  # a head start is not earned
    lots = issued.group_by(PointEntry.document_id).subquery()
    return (
        differing(documents.c.id, zero(lots.c.points), documents.c.points)
        .outerjoin(lots, lots.c.document_id == documents.c.id)
        .where(within(documents.c.program_id, program_id))
    )


def bonuses_are_in_their_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What campaigns gave, and head starts of stamp cards, is in the lots of their members; and no other entry is a
    bonus."""
    entered = (
        select(PointEntry.document_id, PointEntry.member_id, func.sum(Lot.granted).label("points"))
        .join(Lot, and_(Lot.member_id == PointEntry.member_id, Lot.entry_id == PointEntry.id))
        .join(PointAccount, PointAccount.member_id == PointEntry.member_id)
        .where(PointEntry.kind == "bonus", within(PointAccount.program_id, program_id))
        .group_by(PointEntry.document_id, PointEntry.member_id)
        .subquery()
    )
    begun = select(StampCardRow.begun_by, StampCardRow.member_id, func.sum(StampCardRow.head_start_points))
    begun = begun.where(StampCardRow.head_start > 0, within(StampCardRow.program_id, program_id))
    grants = union_all(
        select(CampaignGrant.id, CampaignGrant.member_id, CampaignGrant.points).where(
            within(CampaignGrant.program_id, program_id)
        ),
        begun.group_by(StampCardRow.begun_by, StampCardRow.member_id),
    ).subquery()
    same = and_(grants.c.id == entered.c.document_id, grants.c.member_id == entered.c.member_id)
    document = func.coalesce(grants.c.id, entered.c.document_id)
    both = grants.join(entered, same, full=True)
    return differing(document, zero(grants.c.points), zero(entered.c.points)).select_from(both)


def budgets_are_sums_of_grants(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a campaign has given is the sum of its grants, and as many as there are."""
    sums = (
        select(
            CampaignGrant.program_id,
            CampaignGrant.campaign,
            func.sum(CampaignGrant.points).label("points"),
            func.count().label("grants"),
        )
        .group_by(CampaignGrant.program_id, CampaignGrant.campaign)
        .subquery()
    )
    kept = CampaignBudget
    wrong = [zero(sums.c[name]) != zero(getattr(kept, name)) for name in ("points", "grants")]
    same = and_(sums.c.program_id == kept.program_id, sums.c.campaign == kept.campaign)
    both = sums.join(CampaignBudget.__table__, same, full=True)
    program = func.coalesce(sums.c.program_id, kept.program_id)
    subject = func.coalesce(sums.c.campaign, kept.campaign)
    return off(subject, wrong).select_from(both).where(within(program, program_id))


def rule_budgets_are_what_members_were_given(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What is reserved of a rule's budget, less the room of its slices, is what members were given of it."""
    mine = (RuleBudgetSlice.program_id == RuleBudget.program_id) & (RuleBudgetSlice.rule == RuleBudget.rule)
    room = select(func.sum(RuleBudgetSlice.room)).where(mine).correlate(RuleBudget).scalar_subquery()
    taken = select(
        RuleBudget.program_id, RuleBudget.rule, (RuleBudget.reserved - zero(room)).label("points")
    ).subquery()
    given = (
        select(Member.program_id, RuleUse.rule, total(RuleUse.points.expression).label("points"))
        .join(Member, Member.id == RuleUse.member_id)
        .where(RuleUse.period == BUDGET)
        .group_by(Member.program_id, RuleUse.rule)
        .subquery()
    )
    same = and_(taken.c.program_id == given.c.program_id, taken.c.rule == given.c.rule)
    both = taken.join(given, same, full=True)
    program = func.coalesce(taken.c.program_id, given.c.program_id)
    subject = func.coalesce(taken.c.rule, given.c.rule)
    rows = differing(subject, zero(given.c.points), zero(taken.c.points)).select_from(both)
    return rows.where(within(program, program_id))
