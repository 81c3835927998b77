"""Documents: transactions with their keys and programmes; redemptions, vouchers and supplies."""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    union_all,
)

from app.accounting.models import JournalPosting
from app.adjustments.models import Adjustment
from app.campaigns.models import CampaignGrant
from app.clubs.models import ClubMembership
from app.insight.checks.parts import differing, within, zero
from app.ledger.models import Hold, LotUse, PointAccount, PointEntry
from app.members.models import Member, MemberIdentifier, MemberReferral, Pool, PoolMember
from app.redemptions.models import Redemption, RewardRow, VoucherRow
from app.transactions.models import Transaction, TransactionKey
from app.transfers.models import Transfer


def transactions_hold_their_keys(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Every transaction holds the natural key it was posted under."""
    key = and_(
        TransactionKey.transaction_id == Transaction.id,
        TransactionKey.program_id == Transaction.program_id,
        TransactionKey.source == Transaction.source,
        TransactionKey.external_id == Transaction.external_id,
        TransactionKey.type == Transaction.type,
    )
    held = case((TransactionKey.transaction_id.is_(None), 0), else_=1)
    return (
        differing(Transaction.id, literal(1), held)
        .outerjoin(TransactionKey, key)
        .where(within(Transaction.program_id, program_id))
    )


def rows_belong_to_one_program(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What belongs to a member (account, identifiers, documents, pool) is of the member's programme."""
    parts = [
        select(table.member_id, table.program_id).where(table.member_id.is_not(None))
        for table in (
            PointAccount,
            MemberIdentifier,
            Transaction,
            Adjustment,
            CampaignGrant,
            MemberReferral,
            ClubMembership,
        )
    ]
    parts.append(select(MemberReferral.referrer_id, MemberReferral.program_id))
    parts += [select(side, Transfer.program_id) for side in (Transfer.from_member_id, Transfer.to_member_id)]
    parts.append(select(PoolMember.member_id, Pool.program_id).join(Pool, Pool.id == PoolMember.pool_id))
    rows = union_all(*parts).subquery()
    return (
        differing(rows.c.member_id, cast(Member.program_id, String), cast(rows.c.program_id, String))
        .join(Member, Member.id == rows.c.member_id)
        .where(within(Member.program_id, program_id))
    )


def _of_redemption(
    amount: ColumnElement[int], while_: str, found: Subquery, program_id: UUID | None
) -> Select[*tuple[Any, ...]]:
    """Redemptions in the status `while_` come to `amount` in `found` (document, figure), others to nothing."""
    expected = case((Redemption.status == while_, amount), else_=0)
    return (
        differing(Redemption.id, expected, zero(found.c.figure))
        .outerjoin(found, found.c.document_id == Redemption.id)
        .where(within(Redemption.program_id, program_id))
    )


def orders_hold_their_points(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """An open order reserves its points; one that has ended reserves none."""
    held = select(Hold.id.label("document_id"), Hold.points.label("figure")).where(Hold.status == "open").subquery()
    return _of_redemption(Redemption.points.expression, "ordered", held, program_id)


def redemptions_took_their_points(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What was handed over used up its points in lots; an order and a cancelled one used none."""
    taken = (
        select(PointEntry.document_id, func.sum(LotUse.points).label("figure"))
        .join(LotUse, and_(LotUse.member_id == PointEntry.member_id, LotUse.entry_id == PointEntry.id))
        .where(PointEntry.kind.in_(("redemption", "capture")))
        .group_by(PointEntry.document_id)
        .subquery()
    )
    return _of_redemption(Redemption.points.expression, "fulfilled", taken, program_id)


def fulfilments_are_posted(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """The cost of a reward is in the journal once it was handed over, and not before."""
    posted = (
        select(JournalPosting.document_id, func.sum(JournalPosting.amount).label("figure"))
        .where(JournalPosting.cause == "fulfilment")
        .group_by(JournalPosting.document_id)
        .subquery()
    )
    return _of_redemption(Redemption.cost.expression, "fulfilled", posted, program_id)


def vouchers_are_issued(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A redemption that was handed over has a voucher for each piece, if vouchers are what it is for."""
    issued = (
        select(VoucherRow.redemption_id.label("document_id"), func.count().label("figure"))
        .group_by(VoucherRow.redemption_id)
        .subquery()
    )
    pieces = case((Redemption.voucher_value.is_(None), 0), else_=Redemption.quantity)
    return _of_redemption(pieces, "fulfilled", issued, program_id)


def supplies_count_their_orders(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What was taken from a reward's supply is what was ordered from it and not cancelled."""
    ordered = (
        select(Redemption.reward_id, func.sum(Redemption.quantity).label("pieces"))
        .where(Redemption.counted, Redemption.status != "cancelled")
        .group_by(Redemption.reward_id)
        .subquery()
    )
    return (
        differing(RewardRow.id, zero(ordered.c.pieces), RewardRow.taken)
        .outerjoin(ordered, ordered.c.reward_id == RewardRow.id)
        .where(within(RewardRow.program_id, program_id))
    )
