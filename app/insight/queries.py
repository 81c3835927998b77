"""The checks of the proof: each a query that answers the rows whose kept figure differs from the recomputed one.

A check answers `(subject, expected, actual)`: which row, what the underlying rows come to, what is kept. No rows: it
holds. Each works in sets and is limited to one programme or, for None, to no programme.
"""

from collections.abc import Callable
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
    or_,
    select,
    true,
    union,
    union_all,
)
from sqlalchemy.orm import aliased

from app.accounting.models import Account, Cohort, CohortChangeRow, JournalPosting
from app.accounting.rules import MILLION
from app.adjustments.models import Adjustment
from app.adjustments.rules import GRANTS
from app.campaigns.models import CampaignBudget, CampaignGrant
from app.clubs.models import ClubCredit, ClubMembership
from app.ledger.models import CoverRow, Hold, HoldLot, Lot, LotReturnRow, LotUse, PointAccount, PointEntry
from app.ledger.rules import BALANCES
from app.members.models import Member, MemberIdentifier, MemberReferral, Pool, PoolMember
from app.programs import MEASURES
from app.programs.conditions import BUDGET
from app.programs.models import Program, ProgramTerms, RuleBudget, RuleBudgetSlice, RuleUse
from app.redemptions.models import Redemption, RewardRow, VoucherRow
from app.stamps.models import Stamp, StampCardRow
from app.tiers.models import MemberTier, QualifyingEntry, TierChange
from app.transactions.models import Transaction, TransactionClaim, TransactionKey
from app.transfers.models import Transfer

Check = Callable[[UUID | None], Select[*tuple[Any, ...]]]


def _within(column: ColumnElement[Any] | Any, program_id: UUID | None) -> ColumnElement[bool]:
    return true() if program_id is None else column == program_id


def _zero(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(value, 0)


def _total(amount: ColumnElement[Any]) -> ColumnElement[Any]:
    """The sum of whole numbers. SQLite refuses a sum beyond 64 bits, so millions and the rest are summed apart; beyond
    that it answers an approximation, but of anything else than zero never zero."""
    return func.sum(amount // MILLION) * MILLION + func.sum(amount % MILLION)


_ENTRY = and_(PointEntry.member_id == Lot.member_id, PointEntry.id == Lot.entry_id)
"""The entry that granted a lot."""


def _differing(subject: Any, expected: Any, actual: Any) -> Select[*tuple[Any, ...]]:
    found = select(cast(subject, String).label("subject"), expected.label("expected"), actual.label("actual"))
    return found.where(expected.is_distinct_from(actual))


def accounts_are_sums_of_entries(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Each figure of an account is the sum of what its entries changed; `actual` counts the figures that are not."""
    sums = [func.sum(getattr(PointEntry, name)).label(name) for name in BALANCES]
    entries = select(PointEntry.member_id, *sums).group_by(PointEntry.member_id).subquery()
    wrong = [_zero(entries.c[name]) != getattr(PointAccount, name) for name in BALANCES]
    return (
        _off(PointAccount.member_id, wrong)
        .outerjoin(entries, entries.c.member_id == PointAccount.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def balance_is_sum_of_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What is available, held and pending is what the lots have left; `actual` counts the figures that are not."""
    free = case((Lot.pending, 0), else_=Lot.remaining - Lot.held)
    lots = select(
        Lot.member_id,
        func.sum(free).label("available"),
        func.sum(Lot.held).label("held"),
        func.sum(case((Lot.pending, Lot.remaining), else_=0)).label("pending"),
    ).group_by(Lot.member_id)
    sums = lots.subquery()
    wrong = [_zero(sums.c[name]) != getattr(PointAccount, name) for name in ("available", "held", "pending")]
    return (
        _off(PointAccount.member_id, wrong)
        .outerjoin(sums, sums.c.member_id == PointAccount.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def _off(subject: Any, wrong: list[ColumnElement[bool]]) -> Select[*tuple[Any, ...]]:
    """Rows of which anything is `wrong`, and how much of it."""
    off = sum((case((condition, 1), else_=0) for condition in wrong), start=literal(0))
    found = select(cast(subject, String).label("subject"), literal(0).label("expected"), off.label("actual"))
    return found.where(or_(*wrong))


def lots_are_what_uses_left(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What remains of a lot is what was granted less what entries took from it."""
    taken = select(LotUse.member_id, LotUse.lot_id, func.sum(LotUse.points).label("points"))
    uses = taken.group_by(LotUse.member_id, LotUse.lot_id).subquery()
    return (
        _differing(Lot.id, Lot.granted - _zero(uses.c.points), Lot.remaining)
        .outerjoin(uses, and_(uses.c.member_id == Lot.member_id, uses.c.lot_id == Lot.id))
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def held_points_are_of_open_holds(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What is held of a lot is what open holds reserve of it."""
    reserved = (
        select(HoldLot.member_id, HoldLot.lot_id, func.sum(HoldLot.points).label("points"))
        .join(Hold, and_(Hold.member_id == HoldLot.member_id, Hold.id == HoldLot.hold_id))
        .where(Hold.status == "open")
        .group_by(HoldLot.member_id, HoldLot.lot_id)
        .subquery()
    )
    return (
        _differing(Lot.id, _zero(reserved.c.points), Lot.held)
        .outerjoin(reserved, and_(reserved.c.member_id == Lot.member_id, reserved.c.lot_id == Lot.id))
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def moved_points_live_on(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Points that left a lot for another are in lots that name it as their source; between members too."""
    gone = (
        select(LotUse.lot_id, func.sum(LotUse.points).label("points"))
        .where(LotUse.effect == "moved")
        .group_by(LotUse.lot_id)
        .subquery()
    )
    arrived = aliased(Lot)
    there = select(arrived.source_lot_id.label("lot_id"), func.sum(arrived.granted).label("points"))
    found = there.where(arrived.source_lot_id.is_not(None)).group_by(arrived.source_lot_id).subquery()
    return (
        _differing(Lot.id, _zero(gone.c.points), _zero(found.c.points))
        .outerjoin(gone, gone.c.lot_id == Lot.id)
        .outerjoin(found, found.c.lot_id == Lot.id)
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def returns_are_within_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Returns never take back more of a lot than was granted, in points and in money."""
    names = ("points", "allocated", "expected", "of_used", "of_expired")
    sums = [func.sum(getattr(LotReturnRow, name)).label(name) for name in names]
    returned = select(LotReturnRow.member_id, LotReturnRow.lot_id, *sums)
    back = returned.group_by(LotReturnRow.member_id, LotReturnRow.lot_id).subquery()
    most = {"points": Lot.granted, "allocated": Lot.allocated, "expected": Lot.expected}
    wrong = [or_(back.c[name] < 0, back.c[name] > whole) for name, whole in most.items()]
    wrong += [or_(back.c[name] < 0, back.c[name] > back.c.points) for name in ("of_used", "of_expired")]
    return (
        _off(Lot.id, wrong)
        .join(back, and_(back.c.member_id == Lot.member_id, back.c.lot_id == Lot.id))
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def debt_is_owed_for_something(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """An account's debt is what stands in, without a lot, for points that returns could not take."""
    sums = select(CoverRow.member_id, func.sum(CoverRow.points).label("points")).where(
        CoverRow.by_lot_id.is_(None), CoverRow.forgiven.is_(False)
    )
    debts = sums.group_by(CoverRow.member_id).subquery()
    return (
        _differing(PointAccount.member_id, _zero(debts.c.points), PointAccount.debt)
        .outerjoin(debts, debts.c.member_id == PointAccount.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def lots_stand_in_once(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a lot stands in with, for points that returns could not take, is among what was used of it or returned."""
    covers = (
        select(CoverRow.member_id, CoverRow.by_lot_id, CoverRow.effect, func.sum(CoverRow.points).label("points"))
        .where(CoverRow.by_lot_id.is_not(None))
        .group_by(CoverRow.member_id, CoverRow.by_lot_id, CoverRow.effect)
        .subquery()
    )
    uses = (
        select(LotUse.member_id, LotUse.lot_id, LotUse.effect, func.sum(LotUse.points).label("points"))
        .where(LotUse.points > 0)  # forgiven points that come back count as returned less than once
        .group_by(LotUse.member_id, LotUse.lot_id, LotUse.effect)
        .subquery()
    )
    same = and_(uses.c.lot_id == covers.c.by_lot_id, uses.c.effect == covers.c.effect)
    return (
        _off(covers.c.by_lot_id, [covers.c.points < 0, covers.c.points > _zero(uses.c.points)])
        .outerjoin(uses, and_(uses.c.member_id == covers.c.member_id, same))
        .join(PointAccount, PointAccount.member_id == covers.c.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def entries_are_numbered_without_gaps(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """An account's entries are numbered 1 to its last entry."""
    grouped = select(
        PointEntry.member_id,
        case((func.count() == func.max(PointEntry.number), func.count()), else_=-1).label("numbered"),
    ).group_by(PointEntry.member_id)
    entries = grouped.subquery()
    return (
        _differing(PointAccount.member_id, _zero(entries.c.numbered), PointAccount.last_entry)
        .outerjoin(entries, entries.c.member_id == PointAccount.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def entries_carry_the_running_balance(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Each entry's balance is the sum of the entries up to it."""
    running = func.sum(PointEntry.points).over(partition_by=PointEntry.member_id, order_by=PointEntry.number)
    entries = (
        select(PointEntry.id, running.label("running"), PointEntry.balance_after)
        .join(PointAccount, PointAccount.member_id == PointEntry.member_id)
        .where(_within(PointAccount.program_id, program_id))
        .subquery()
    )
    return _differing(entries.c.id, entries.c.running, entries.c.balance_after)


def entries_move_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What an entry changed of available, held and pending points is what it granted less what it took from lots."""
    granted = (
        select(Lot.member_id, Lot.entry_id, func.sum(Lot.granted).label("points"))
        .group_by(Lot.member_id, Lot.entry_id)
        .subquery()
    )
    taken = (
        select(LotUse.member_id, LotUse.entry_id, func.sum(LotUse.points).label("points"))
        .group_by(LotUse.member_id, LotUse.entry_id)
        .subquery()
    )
    changed = PointEntry.available + PointEntry.held + PointEntry.pending
    return (
        _differing(PointEntry.id, _zero(granted.c.points) - _zero(taken.c.points), changed)
        .outerjoin(granted, and_(granted.c.member_id == PointEntry.member_id, granted.c.entry_id == PointEntry.id))
        .outerjoin(taken, and_(taken.c.member_id == PointEntry.member_id, taken.c.entry_id == PointEntry.id))
        .join(PointAccount, PointAccount.member_id == PointEntry.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def next_due_is_known(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """An account looks again before anything happens by itself: a lot expires or becomes available, a hold ends.

    Sooner is no mistake: an activity moves the lapse of lots that are not loaded with it.
    """

    def part(model: Any, at: Any, where: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
        return select(model.member_id.label("member_id"), at.label("at")).where(where, at.is_not(None))

    free = Lot.remaining > Lot.held
    lapse = select(Lot.member_id.label("member_id"), PointAccount.lapses_at.label("at")).join(
        PointAccount, PointAccount.member_id == Lot.member_id
    )
    parts = union_all(
        part(Lot, Lot.expires_at, free),
        part(Lot, Lot.available_from, and_(free, Lot.pending)),
        part(Hold, Hold.ends_at, Hold.status == "open"),
        lapse.where(free, Lot.lapses, PointAccount.lapses_at.is_not(None)),
    ).subquery()
    first = select(parts.c.member_id, func.min(parts.c.at).label("at")).group_by(parts.c.member_id).subquery()
    return (
        _differing(PointAccount.member_id, first.c.at, PointAccount.next_due_at)
        .join(first, first.c.member_id == PointAccount.member_id)
        .where(
            or_(PointAccount.next_due_at.is_(None), PointAccount.next_due_at > first.c.at),
            _within(PointAccount.program_id, program_id),
        )
    )


def transfers_conserve_points(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a transfer took from one account it gave to another."""
    moved = (
        select(PointEntry.document_id, func.sum(PointEntry.points).label("points"))
        .join(PointAccount, PointAccount.member_id == PointEntry.member_id)
        .where(PointEntry.kind.in_(("transfer_out", "transfer_in")), _within(PointAccount.program_id, program_id))
        .group_by(PointEntry.document_id)
        .subquery()
    )
    return _differing(moved.c.document_id, literal(0), moved.c.points)


def transfers_moved_their_points(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a transfer says went from one member to the other is what their entries moved."""
    sides = union_all(
        select(
            Transfer.id,
            Transfer.program_id,
            Transfer.from_member_id.label("member_id"),
            (-Transfer.points).label("points"),
        ),
        select(Transfer.id, Transfer.program_id, Transfer.to_member_id, Transfer.points),
    ).subquery()
    moved = (
        select(PointEntry.document_id, PointEntry.member_id, func.sum(PointEntry.points).label("points"))
        .where(PointEntry.kind.in_(("transfer_out", "transfer_in")))
        .group_by(PointEntry.document_id, PointEntry.member_id)
        .subquery()
    )
    return (
        _differing(sides.c.id, sides.c.points, _zero(moved.c.points))
        .outerjoin(moved, and_(moved.c.document_id == sides.c.id, moved.c.member_id == sides.c.member_id))
        .where(_within(sides.c.program_id, program_id))
    )


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
    issued = select(PointEntry.document_id, func.sum(Lot.granted).label("points")).join(PointEntry, _ENTRY)
    issued = issued.where(Lot.source_lot_id.is_(None), PointEntry.kind != "bonus")  # a head start is not earned
    lots = issued.group_by(PointEntry.document_id).subquery()
    return (
        _differing(documents.c.id, _zero(lots.c.points), documents.c.points)
        .outerjoin(lots, lots.c.document_id == documents.c.id)
        .where(_within(documents.c.program_id, program_id))
    )


def bonuses_are_in_their_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What campaigns gave, and head starts of stamp cards, is in the lots of their members; and no other entry is a
    bonus."""
    entered = (
        select(PointEntry.document_id, PointEntry.member_id, func.sum(Lot.granted).label("points"))
        .join(Lot, and_(Lot.member_id == PointEntry.member_id, Lot.entry_id == PointEntry.id))
        .join(PointAccount, PointAccount.member_id == PointEntry.member_id)
        .where(PointEntry.kind == "bonus", _within(PointAccount.program_id, program_id))
        .group_by(PointEntry.document_id, PointEntry.member_id)
        .subquery()
    )
    begun = select(StampCardRow.begun_by, StampCardRow.member_id, func.sum(StampCardRow.head_start_points))
    begun = begun.where(StampCardRow.head_start > 0, _within(StampCardRow.program_id, program_id))
    grants = union_all(
        select(CampaignGrant.id, CampaignGrant.member_id, CampaignGrant.points).where(
            _within(CampaignGrant.program_id, program_id)
        ),
        begun.group_by(StampCardRow.begun_by, StampCardRow.member_id),
    ).subquery()
    same = and_(grants.c.id == entered.c.document_id, grants.c.member_id == entered.c.member_id)
    document = func.coalesce(grants.c.id, entered.c.document_id)
    both = grants.join(entered, same, full=True)
    return _differing(document, _zero(grants.c.points), _zero(entered.c.points)).select_from(both)


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
    wrong = [_zero(sums.c[name]) != _zero(getattr(kept, name)) for name in ("points", "grants")]
    same = and_(sums.c.program_id == kept.program_id, sums.c.campaign == kept.campaign)
    both = sums.join(CampaignBudget.__table__, same, full=True)
    program = func.coalesce(sums.c.program_id, kept.program_id)
    subject = func.coalesce(sums.c.campaign, kept.campaign)
    return _off(subject, wrong).select_from(both).where(_within(program, program_id))


def rule_budgets_are_what_members_were_given(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What is reserved of a rule's budget, less the room of its slices, is what members were given of it."""
    mine = (RuleBudgetSlice.program_id == RuleBudget.program_id) & (RuleBudgetSlice.rule == RuleBudget.rule)
    room = select(func.sum(RuleBudgetSlice.room)).where(mine).correlate(RuleBudget).scalar_subquery()
    taken = select(
        RuleBudget.program_id, RuleBudget.rule, (RuleBudget.reserved - _zero(room)).label("points")
    ).subquery()
    given = (
        select(Member.program_id, RuleUse.rule, _total(RuleUse.points.expression).label("points"))
        .join(Member, Member.id == RuleUse.member_id)
        .where(RuleUse.period == BUDGET)
        .group_by(Member.program_id, RuleUse.rule)
        .subquery()
    )
    same = and_(taken.c.program_id == given.c.program_id, taken.c.rule == given.c.rule)
    both = taken.join(given, same, full=True)
    program = func.coalesce(taken.c.program_id, given.c.program_id)
    subject = func.coalesce(taken.c.rule, given.c.rule)
    rows = _differing(subject, _zero(given.c.points), _zero(taken.c.points)).select_from(both)
    return rows.where(_within(program, program_id))


def deferrals_are_posted(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What lots say was deferred is what the journal deferred, document by document."""
    lots = (
        select(PointEntry.document_id, _total(Lot.allocated.expression).label("amount"))
        .join(PointEntry, _ENTRY)
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(_within(PointAccount.program_id, program_id))
        .group_by(PointEntry.document_id)
        .subquery()
    )
    posted = (
        select(JournalPosting.document_id, _total(JournalPosting.amount.expression).label("amount"))
        .where(
            JournalPosting.cause.in_(("accrual", "provision", "concession")),
            _within(JournalPosting.program_id, program_id),
        )
        .group_by(JournalPosting.document_id)
        .subquery()
    )
    both = lots.join(posted, lots.c.document_id == posted.c.document_id, full=True)
    document = func.coalesce(lots.c.document_id, posted.c.document_id)
    return _differing(document, _zero(lots.c.amount), _zero(posted.c.amount)).select_from(both)


def cohorts_are_sums_of_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A cohort, with the changes that wait for it, is the sum of its lots, of what was used of them, what expired and
    what returns took back: money, residue, points, expected points, used and expired points."""
    sums = ("allocated", "residue", "issued", "expected", "millionths", "used", "expired")

    def part(id_: Any, **columns: Any) -> Select[*tuple[Any, ...]]:
        return select(id_.label("id"), *(columns.get(name, literal(0)).label(name) for name in sums))

    def kept(model: type[Cohort] | type[CohortChangeRow], id_: Any) -> Select[*tuple[Any, ...]]:
        same = {name: getattr(model, name) for name in sums if name != "millionths"}
        return part(id_, millionths=model.expected_millionths, **same).where(_within(model.program_id, program_id))

    def of_lots(rows: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        account = rows.join(PointAccount, PointAccount.member_id == Lot.member_id)
        return account.where(_within(PointAccount.program_id, program_id))

    def apart(expected: Any, sign: int) -> dict[str, Any]:
        return {"expected": (expected // MILLION) * sign, "millionths": (expected % MILLION) * sign}

    issued = part(
        Lot.cohort_id, allocated=-Lot.allocated, residue=-Lot.residue, issued=-Lot.granted, **apart(Lot.expected, -1)
    ).where(Lot.source_lot_id.is_(None))
    of_effect = {
        name: case((LotUse.effect == name, LotUse.points), else_=0) for name in ("used", "expired", "returned")
    }
    used = part(
        Lot.cohort_id, issued=of_effect["returned"], used=-of_effect["used"], expired=-of_effect["expired"]
    ).join_from(LotUse, Lot, and_(Lot.member_id == LotUse.member_id, Lot.id == LotUse.lot_id))
    back = LotReturnRow
    returned = part(
        Lot.cohort_id,
        allocated=back.allocated,
        residue=back.residue,
        issued=back.of_used + back.of_expired,
        used=back.of_used,
        expired=back.of_expired,
        **apart(back.expected, 1),
    ).join_from(back, Lot, and_(Lot.member_id == back.member_id, Lot.id == back.lot_id))
    parts = union_all(
        of_lots(issued),
        of_lots(used),
        of_lots(returned),
        kept(Cohort, Cohort.id),
        kept(CohortChangeRow, CohortChangeRow.cohort_id),
    ).subquery()
    whole = func.sum(parts.c.expected) * MILLION + func.sum(parts.c.millionths)
    wrong = [*(_total(parts.c[name]) != 0 for name in sums if name not in ("expected", "millionths")), whole != 0]
    off = sum((case((condition, 1), else_=0) for condition in wrong), start=literal(0))
    return (
        select(cast(parts.c.id, String).label("subject"), literal(0).label("expected"), off.label("actual"))
        .group_by(parts.c.id)
        .having(or_(*wrong))
    )


def liability_is_sum_of_cohorts(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """The contract liability for points in the journal is what cohorts have not recognised, and waiting changes."""
    return _held_is_posted(program_id, "liability_points", lambda funding: funding != "marketing")


def provision_is_sum_of_cohorts(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """The provision in the journal is what cohorts of points without a purchase have left, and waiting changes."""
    return _held_is_posted(program_id, "provision_points", lambda funding: funding == "marketing")


def _held_is_posted(
    program_id: UUID | None, role: str, funded: Callable[[Any], ColumnElement[bool]]
) -> Select[*tuple[Any, ...]]:
    """Per programme and currency: what the cohorts so `funded` hold is the balance of the account with `role`."""
    folded = select(
        Cohort.program_id,
        Cohort.currency,
        (Cohort.allocated - Cohort.recognised).label("held"),
        literal(0).label("posted"),
    ).where(funded(Cohort.funding))
    # Only accruals say their funding: a cohort is known by its row, or by an accrual that waits.
    known = union(
        select(Cohort.id).where(funded(Cohort.funding)),
        select(CohortChangeRow.cohort_id).where(funded(CohortChangeRow.funding)),
    ).subquery()
    waiting = select(CohortChangeRow.program_id, CohortChangeRow.currency, CohortChangeRow.allocated, literal(0)).where(
        CohortChangeRow.cohort_id.in_(select(known.c.id))
    )

    def journal_part(account: Any, sign: int) -> Select[*tuple[Any, ...]]:
        return select(
            JournalPosting.program_id, JournalPosting.currency, literal(0), JournalPosting.amount * sign
        ).join(
            Account,
            and_(
                Account.program_id == JournalPosting.program_id,
                Account.code == account,
                Account.role == role,
            ),
        )

    parts = union_all(
        folded, waiting, journal_part(JournalPosting.credit, 1), journal_part(JournalPosting.debit, -1)
    ).subquery()
    subject = cast(parts.c.program_id, String) + literal(" ") + parts.c.currency
    return (
        select(subject.label("subject"), _total(parts.c.held).label("expected"), _total(parts.c.posted).label("actual"))
        .where(_within(parts.c.program_id, program_id))
        .group_by(parts.c.program_id, parts.c.currency)
        .having(_total(parts.c.held - parts.c.posted) != 0)
    )


def recognised_is_posted(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a cohort has recognised is what its folds and estimates released from the liability or the provision."""
    kept = select(Cohort.id, Cohort.recognised.label("kept"), literal(0).label("posted")).where(
        _within(Cohort.program_id, program_id)
    )

    def released(account: Any, sign: int) -> Select[*tuple[Any, ...]]:
        return (
            select(JournalPosting.cohort_id, literal(0), JournalPosting.amount * sign)
            .join(Account, and_(Account.program_id == JournalPosting.program_id, Account.code == account))
            .where(
                Account.role.in_(("liability_points", "provision_points")),
                JournalPosting.document_id == JournalPosting.cohort_id,
                JournalPosting.cause != "rounding",  # that one changes what is allocated
                _within(JournalPosting.program_id, program_id),
            )
        )

    parts = union_all(kept, released(JournalPosting.debit, 1), released(JournalPosting.credit, -1)).subquery()
    return (
        select(
            cast(parts.c.id, String).label("subject"),
            _total(parts.c.posted).label("expected"),
            _total(parts.c.kept).label("actual"),
        )
        .group_by(parts.c.id)
        .having(_total(parts.c.kept - parts.c.posted) != 0)
    )


def money_is_posted_whole(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """In the full profile what a transaction brought into cash, or took out, is what was paid or refunded in money; in
    the other nothing is posted to cash."""
    cash = _posted_to("cash", JournalPosting.document_id, program_id).subquery()
    figures, outcome = Transaction.outcome["figures"], Transaction.outcome
    paid = Transaction.total - _zero(outcome["tendered"].as_integer())
    refunded = Transaction.total - figures["tendered"].as_integer() - outcome["withheld_amount"].as_integer()
    full = ProgramTerms.terms["posting_profile"].as_string() == "full"
    expected = case((full, case((Transaction.type == "purchase", paid), else_=-refunded)), else_=0)
    return (
        _differing(Transaction.id, expected, _zero(cash.c.amount))
        .join(ProgramTerms, ProgramTerms.id == Transaction.terms_id)
        .outerjoin(cash, cash.c.subject == Transaction.id)
        .where(_within(Transaction.program_id, program_id))
    )


def clearing_is_points_tendered(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """The points-tender clearing account is minus what points have paid, net of VAT, less what of it came back."""
    posted = _posted_to("points_tender_clearing", JournalPosting.program_id, program_id).subquery()
    net = "net_paid_with_points"
    back = Transaction.outcome["figures"][net].as_integer()
    amount = case((Transaction.type == "purchase", _zero(Transaction.outcome[net].as_integer())), else_=-back)
    adjusted = ProgramTerms.terms["posting_profile"].as_string() == "adjustment"
    tendered = (
        select(Transaction.program_id, func.sum(amount).label("amount"))
        .join(ProgramTerms, ProgramTerms.id == Transaction.terms_id)
        .where(adjusted, _within(Transaction.program_id, program_id))
        .group_by(Transaction.program_id)
        .subquery()
    )
    return (
        _differing(Program.id, -_zero(tendered.c.amount), _zero(posted.c.amount))
        .outerjoin(tendered, tendered.c.program_id == Program.id)
        .outerjoin(posted, posted.c.subject == Program.id)
        .where(_within(Program.id, program_id))
    )


def forgiven_costs_were_booked(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What forgiving points moved of the cost of rewards is never negative, nor more than those have cost."""

    def side(account: Any, sign: int) -> Select[*tuple[Any, ...]]:
        mine = and_(Account.program_id == JournalPosting.program_id, Account.code == account)
        amount = JournalPosting.amount * sign
        return (
            select(
                JournalPosting.program_id,
                JournalPosting.currency,
                case((JournalPosting.cause == "fulfilment", amount), else_=0).label("booked"),
                case((JournalPosting.cause == "write_off", -amount), else_=0).label("moved"),
            )
            .join(Account, mine)
            .where(Account.role == "cost_rewards", _within(JournalPosting.program_id, program_id))
        )

    legs = union_all(side(JournalPosting.debit, 1), side(JournalPosting.credit, -1)).subquery()
    booked, moved = (func.sum(column).label(column.name) for column in (legs.c.booked, legs.c.moved))
    sums = select(legs.c.program_id, booked, moved).group_by(legs.c.program_id, legs.c.currency).subquery()
    return _off(sums.c.program_id, [sums.c.moved < 0, sums.c.moved > sums.c.booked])


def _posted_to(role: str, by: Any, program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Debits less credits of the account with `role`, summed up `by` a column of the journal."""

    def side(account: Any, sign: int) -> Select[*tuple[Any, ...]]:
        mine = and_(Account.program_id == JournalPosting.program_id, Account.code == account, Account.role == role)
        rows = select(by.label("subject"), (JournalPosting.amount * sign).label("amount")).join(Account, mine)
        return rows.where(_within(JournalPosting.program_id, program_id))

    legs = union_all(side(JournalPosting.debit, 1), side(JournalPosting.credit, -1)).subquery()
    return select(legs.c.subject, func.sum(legs.c.amount).label("amount")).group_by(legs.c.subject)


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
        _differing(Transaction.id, literal(1), held)
        .outerjoin(TransactionKey, key)
        .where(_within(Transaction.program_id, program_id))
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
        _differing(rows.c.member_id, cast(Member.program_id, String), cast(rows.c.program_id, String))
        .join(Member, Member.id == rows.c.member_id)
        .where(_within(Member.program_id, program_id))
    )


# --- rewards --------------------------------------------------------------------------------------------------------


def _of_redemption(
    amount: ColumnElement[int], while_: str, found: Subquery, program_id: UUID | None
) -> Select[*tuple[Any, ...]]:
    """Redemptions in the status `while_` come to `amount` in `found` (document, figure), others to nothing."""
    expected = case((Redemption.status == while_, amount), else_=0)
    return (
        _differing(Redemption.id, expected, _zero(found.c.figure))
        .outerjoin(found, found.c.document_id == Redemption.id)
        .where(_within(Redemption.program_id, program_id))
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
        _differing(RewardRow.id, _zero(ordered.c.pieces), RewardRow.taken)
        .outerjoin(ordered, ordered.c.reward_id == RewardRow.id)
        .where(_within(RewardRow.program_id, program_id))
    )


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
    wrong = [_zero(found.c[name]) != getattr(MemberTier, name) for name in names]
    return (
        _off(MemberTier.member_id, wrong)
        .join(found, found.c.member_id == MemberTier.member_id)
        .where(_within(MemberTier.program_id, program_id))
    )


def tiers_are_their_last_change(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A member is in the tier that their history ends with; `actual` 1: they are not."""
    last = select(func.max(cast(TierChange.id, String)).label("id")).group_by(TierChange.member_id).subquery()
    change = (
        select(TierChange.member_id, TierChange.to_tier).join(last, last.c.id == cast(TierChange.id, String)).subquery()
    )
    wrong = [change.c.to_tier.is_distinct_from(MemberTier.tier)]
    return (
        _off(MemberTier.member_id, wrong)
        .outerjoin(change, change.c.member_id == MemberTier.member_id)
        .where(_within(MemberTier.program_id, program_id))
    )


def purchases_count_what_they_earned(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a member's purchase counts towards tiers are the points it earned."""
    counted = QualifyingEntry.document_id == Transaction.id
    return (
        _differing(Transaction.id, Transaction.points, QualifyingEntry.points)
        .join(QualifyingEntry, counted)
        .where(_within(Transaction.program_id, program_id), Transaction.type == "purchase")
    )


def memberships_have_left_what_is_posted(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """The contract liability for memberships in the journal is what memberships have left to earn, one by one."""
    left = ClubMembership.deferred - ClubMembership.recognised - ClubMembership.refunded
    kept = select(ClubMembership.id, left.label("amount")).where(_within(ClubMembership.program_id, program_id))
    memberships = kept.subquery()
    posted = _posted_to("liability_membership", JournalPosting.document_id, program_id).subquery()
    both = memberships.join(posted, posted.c.subject == memberships.c.id, full=True)
    document = func.coalesce(memberships.c.id, posted.c.subject)
    return _differing(document, -_zero(posted.c.amount), _zero(memberships.c.amount)).select_from(both)


def promises_are_sums_of_credits(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What is stored as spent for a promise is what purchases and returns counted for it."""
    credits_ = select(ClubCredit.membership_id, func.sum(ClubCredit.spend).label("spend"))
    sums = credits_.group_by(ClubCredit.membership_id).subquery()
    return (
        _differing(ClubMembership.id, _zero(sums.c.spend), ClubMembership.spent)
        .outerjoin(sums, sums.c.membership_id == ClubMembership.id)
        .where(_within(ClubMembership.program_id, program_id))
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
        _off(ClubMembership.id, [later.id.is_not(None)])
        .join(later, both)
        .where(ClubMembership.why != "purchase", _within(ClubMembership.program_id, program_id))
    )


# --- stamp cards ----------------------------------------------------------------------------------------------------


def cards_hold_their_stamps(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A card has its head start and the stamps that were put on it, less those that came off."""
    put = select(Stamp.card_id, func.sum(Stamp.stamps).label("stamps")).group_by(Stamp.card_id).subquery()
    return (
        _differing(StampCardRow.id, StampCardRow.head_start + _zero(put.c.stamps), StampCardRow.stamps)
        .outerjoin(put, put.c.card_id == StampCardRow.id)
        .where(_within(StampCardRow.program_id, program_id))
    )


def stamps_are_points(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a purchase put on a card is a lot of the points that it says."""
    issued = select(Lot.document_id, func.sum(Lot.granted).label("points")).where(Lot.source_lot_id.is_(None))
    lots = issued.group_by(Lot.document_id).subquery()
    return (
        _differing(Stamp.id, Stamp.points, _zero(lots.c.points))
        .join(StampCardRow, StampCardRow.id == Stamp.card_id)
        .outerjoin(lots, lots.c.document_id == Stamp.id)
        .where(Stamp.of_id.is_(None), _within(StampCardRow.program_id, program_id))
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
        (StampCardRow.full_at.is_(None), StampCardRow.head_start_points + _zero(put.c.points)), else_=literal(0)
    )
    waiting = _zero(pending.c.points)
    gone = and_(StampCardRow.ends_at.is_not(None), waiting < promised)
    return (
        _differing(StampCardRow.id, promised, waiting)
        .outerjoin(pending, pending.c.card_id == StampCardRow.id)
        .outerjoin(put, put.c.card_id == StampCardRow.id)
        .where(~gone, _within(StampCardRow.program_id, program_id))
    )


CHECKS: tuple[Check, ...] = (
    accounts_are_sums_of_entries,
    balance_is_sum_of_lots,
    lots_are_what_uses_left,
    held_points_are_of_open_holds,
    moved_points_live_on,
    returns_are_within_lots,
    debt_is_owed_for_something,
    lots_stand_in_once,
    entries_are_numbered_without_gaps,
    entries_carry_the_running_balance,
    entries_move_lots,
    next_due_is_known,
    transfers_conserve_points,
    transfers_moved_their_points,
    documents_granted_their_points,
    bonuses_are_in_their_lots,
    budgets_are_sums_of_grants,
    rule_budgets_are_what_members_were_given,
    deferrals_are_posted,
    cohorts_are_sums_of_lots,
    liability_is_sum_of_cohorts,
    provision_is_sum_of_cohorts,
    recognised_is_posted,
    money_is_posted_whole,
    clearing_is_points_tendered,
    forgiven_costs_were_booked,
    transactions_hold_their_keys,
    rows_belong_to_one_program,
    orders_hold_their_points,
    redemptions_took_their_points,
    fulfilments_are_posted,
    vouchers_are_issued,
    supplies_count_their_orders,
    standings_are_sums_of_entries,
    tiers_are_their_last_change,
    purchases_count_what_they_earned,
    memberships_have_left_what_is_posted,
    promises_are_sums_of_credits,
    memberships_follow_each_other,
    cards_hold_their_stamps,
    stamps_are_points,
    points_wait_on_open_cards,
)
"""All checks, in the order they are answered."""
