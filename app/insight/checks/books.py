"""The books: what is deferred, provided for, recognised and cleared, by cohort and in the journal."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    union,
    union_all,
)

from app.accounting.models import Account, Cohort, CohortChangeRow, JournalPosting
from app.accounting.rules import MILLION
from app.insight.checks.parts import ENTRY, differing, found_wrong, off, posted_to, total, within, zero
from app.ledger.models import Lot, LotReturnRow, LotUse, PointAccount, PointEntry
from app.programs.models import Program, ProgramTerms
from app.transactions.models import Transaction


def deferrals_are_posted(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What lots say was deferred is what the journal deferred, document by document."""
    lots = (
        select(PointEntry.document_id, total(Lot.allocated.expression).label("amount"))
        .join(PointEntry, ENTRY)
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(within(PointAccount.program_id, program_id))
        .group_by(PointEntry.document_id)
        .subquery()
    )
    posted = (
        select(JournalPosting.document_id, total(JournalPosting.amount.expression).label("amount"))
        .where(
            JournalPosting.cause.in_(("accrual", "provision", "concession")),
            within(JournalPosting.program_id, program_id),
        )
        .group_by(JournalPosting.document_id)
        .subquery()
    )
    both = lots.join(posted, lots.c.document_id == posted.c.document_id, full=True)
    document = func.coalesce(lots.c.document_id, posted.c.document_id)
    return differing(document, zero(lots.c.amount), zero(posted.c.amount)).select_from(both)


def cohorts_are_sums_of_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A cohort, with the changes that wait for it, is the sum of its lots, of what was used of them, what expired and
    what returns took back: money, residue, points, expected points, used and expired points."""
    sums = ("allocated", "residue", "issued", "expected", "millionths", "used", "expired")

    def part(id_: Any, **columns: Any) -> Select[*tuple[Any, ...]]:
        return select(id_.label("id"), *(columns.get(name, literal(0)).label(name) for name in sums))

    def kept(model: type[Cohort] | type[CohortChangeRow], id_: Any) -> Select[*tuple[Any, ...]]:
        same = {name: getattr(model, name) for name in sums if name != "millionths"}
        return part(id_, millionths=model.expected_millionths, **same).where(within(model.program_id, program_id))

    def of_lots(rows: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        account = rows.join(PointAccount, PointAccount.member_id == Lot.member_id)
        return account.where(within(PointAccount.program_id, program_id))

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
    wrong = [*(total(parts.c[name]) != 0 for name in sums if name not in ("expected", "millionths")), whole != 0]
    return found_wrong(parts.c.id, wrong).group_by(parts.c.id).having(or_(*wrong))


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
        select(subject.label("subject"), total(parts.c.held).label("expected"), total(parts.c.posted).label("actual"))
        .where(within(parts.c.program_id, program_id))
        .group_by(parts.c.program_id, parts.c.currency)
        .having(total(parts.c.held - parts.c.posted) != 0)
    )


def recognised_is_posted(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What a cohort has recognised is what its folds and estimates released from the liability or the provision."""
    kept = select(Cohort.id, Cohort.recognised.label("kept"), literal(0).label("posted")).where(
        within(Cohort.program_id, program_id)
    )

    def released(account: Any, sign: int) -> Select[*tuple[Any, ...]]:
        return (
            select(JournalPosting.cohort_id, literal(0), JournalPosting.amount * sign)
            .join(Account, and_(Account.program_id == JournalPosting.program_id, Account.code == account))
            .where(
                Account.role.in_(("liability_points", "provision_points")),
                JournalPosting.document_id == JournalPosting.cohort_id,
                JournalPosting.cause != "rounding",  # that one changes what is allocated
                within(JournalPosting.program_id, program_id),
            )
        )

    parts = union_all(kept, released(JournalPosting.debit, 1), released(JournalPosting.credit, -1)).subquery()
    return (
        select(
            cast(parts.c.id, String).label("subject"),
            total(parts.c.posted).label("expected"),
            total(parts.c.kept).label("actual"),
        )
        .group_by(parts.c.id)
        .having(total(parts.c.kept - parts.c.posted) != 0)
    )


def money_is_posted_whole(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """In the full profile what a transaction brought into cash, or took out, is what was paid or refunded in money; in
    the other nothing is posted to cash."""
    cash = posted_to("cash", JournalPosting.document_id, program_id).subquery()
    figures, outcome = Transaction.outcome["figures"], Transaction.outcome
    paid = Transaction.total - zero(outcome["tendered"].as_integer())
    refunded = Transaction.total - figures["tendered"].as_integer() - outcome["withheld_amount"].as_integer()
    full = ProgramTerms.terms["posting_profile"].as_string() == "full"
    expected = case((full, case((Transaction.type == "purchase", paid), else_=-refunded)), else_=0)
    return (
        differing(Transaction.id, expected, zero(cash.c.amount))
        .join(ProgramTerms, ProgramTerms.id == Transaction.terms_id)
        .outerjoin(cash, cash.c.subject == Transaction.id)
        .where(within(Transaction.program_id, program_id))
    )


def clearing_is_points_tendered(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """The points-tender clearing account is minus what points have paid, net of VAT, less what of it came back."""
    posted = posted_to("points_tender_clearing", JournalPosting.program_id, program_id).subquery()
    net = "net_paid_with_points"
    back = Transaction.outcome["figures"][net].as_integer()
    amount = case((Transaction.type == "purchase", zero(Transaction.outcome[net].as_integer())), else_=-back)
    adjusted = ProgramTerms.terms["posting_profile"].as_string() == "adjustment"
    tendered = (
        select(Transaction.program_id, func.sum(amount).label("amount"))
        .join(ProgramTerms, ProgramTerms.id == Transaction.terms_id)
        .where(adjusted, within(Transaction.program_id, program_id))
        .group_by(Transaction.program_id)
        .subquery()
    )
    return (
        differing(Program.id, -zero(tendered.c.amount), zero(posted.c.amount))
        .outerjoin(tendered, tendered.c.program_id == Program.id)
        .outerjoin(posted, posted.c.subject == Program.id)
        .where(within(Program.id, program_id))
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
            .where(Account.role == "cost_rewards", within(JournalPosting.program_id, program_id))
        )

    legs = union_all(side(JournalPosting.debit, 1), side(JournalPosting.credit, -1)).subquery()
    booked, moved = (func.sum(column).label(column.name) for column in (legs.c.booked, legs.c.moved))
    sums = select(legs.c.program_id, booked, moved).group_by(legs.c.program_id, legs.c.currency).subquery()
    return off(sums.c.program_id, [sums.c.moved < 0, sums.c.moved > sums.c.booked])
