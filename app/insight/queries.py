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

from app.accounting.models import Account, Cohort, CohortChangeRow, JournalPosting
from app.accounting.rules import MILLION
from app.ledger.models import Lot, PointAccount, PointEntry
from app.members.models import Member, MemberIdentifier
from app.programs.models import ProgramTerms
from app.transactions.models import Transaction, TransactionClaim, TransactionKey

Check = Callable[[UUID | None], Select[*tuple[Any, ...]]]


def _within(column: ColumnElement[Any] | Any, program_id: UUID | None) -> ColumnElement[bool]:
    return true() if program_id is None else column == program_id


def _zero(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(value, 0)


def _differing(subject: Any, expected: Any, actual: Any) -> Select[*tuple[Any, ...]]:
    found = select(cast(subject, String).label("subject"), expected.label("expected"), actual.label("actual"))
    return found.where(expected.is_distinct_from(actual))


def balance_is_sum_of_entries(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What an account keeps as available is the sum of its entries."""
    sums = select(PointEntry.member_id, func.sum(PointEntry.points).label("points")).group_by(PointEntry.member_id)
    entries = sums.subquery()
    kept = PointAccount.available
    return (
        _differing(PointAccount.member_id, _zero(entries.c.points), kept)
        .outerjoin(entries, entries.c.member_id == PointAccount.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def balance_is_sum_of_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What an account keeps as available is what its lots have left."""
    lots = select(Lot.member_id, func.sum(Lot.remaining).label("points")).group_by(Lot.member_id).subquery()
    return (
        _differing(PointAccount.member_id, _zero(lots.c.points), PointAccount.available)
        .outerjoin(lots, lots.c.member_id == PointAccount.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def lifetime_is_sum_of_accruals(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Lifetime points are the accruals, and so far all of them qualify."""
    accrued = func.sum(case((PointEntry.kind == "accrual", PointEntry.points), else_=0))
    entries = select(PointEntry.member_id, accrued.label("points")).group_by(PointEntry.member_id).subquery()
    kept = case((PointAccount.lifetime == PointAccount.qualifying, PointAccount.lifetime), else_=-1)
    return (
        _differing(PointAccount.member_id, _zero(entries.c.points), kept)
        .outerjoin(entries, entries.c.member_id == PointAccount.member_id)
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


def accruals_are_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """Each accrual granted one lot of as many points, and nothing has been taken from it yet."""
    kept = case((Lot.remaining == Lot.granted, Lot.granted), else_=-1)
    return (
        _differing(PointEntry.id, PointEntry.points, kept)
        .outerjoin(Lot, and_(Lot.member_id == PointEntry.member_id, Lot.entry_id == PointEntry.id))
        .join(PointAccount, PointAccount.member_id == PointEntry.member_id)
        .where(PointEntry.kind == "accrual", _within(PointAccount.program_id, program_id))
    )


def next_due_is_first_expiry(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """An account knows when the first of its open lots expires."""
    lots = (
        select(Lot.member_id, func.min(Lot.expires_at).label("first"))
        .where(Lot.remaining > 0)
        .group_by(Lot.member_id)
        .subquery()
    )
    return (
        _differing(PointAccount.member_id, lots.c.first, PointAccount.next_due_at)
        .outerjoin(lots, lots.c.member_id == PointAccount.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )


def documents_granted_their_points(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A transaction, or the claim of one, granted the points it says."""
    claims = select(TransactionClaim.id, Transaction.program_id, TransactionClaim.points).join(
        Transaction, Transaction.id == TransactionClaim.transaction_id
    )
    documents = union_all(select(Transaction.id, Transaction.program_id, Transaction.points), claims).subquery()
    lots = select(Lot.document_id, func.sum(Lot.granted).label("points")).group_by(Lot.document_id).subquery()
    return (
        _differing(documents.c.id, _zero(lots.c.points), documents.c.points)
        .outerjoin(lots, lots.c.document_id == documents.c.id)
        .where(_within(documents.c.program_id, program_id))
    )


def deferrals_are_posted(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """What lots say was deferred is what the journal deferred, document by document."""
    lots = (
        select(Lot.document_id, func.sum(Lot.allocated).label("amount"))
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(_within(PointAccount.program_id, program_id))
        .group_by(Lot.document_id)
        .subquery()
    )
    posted = (
        select(JournalPosting.document_id, func.sum(JournalPosting.amount).label("amount"))
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


def _total(amount: ColumnElement[Any]) -> ColumnElement[Any]:
    """The sum of whole numbers. SQLite refuses a sum beyond 64 bits, so millions and the rest are summed apart; beyond
    that it answers an approximation, but of anything else than zero never zero."""
    return func.sum(amount // MILLION) * MILLION + func.sum(amount % MILLION)


def cohorts_are_sums_of_lots(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A cohort, with the changes that wait for it, is the sum of its lots: money, residue, points, expected points."""
    sums = ("allocated", "residue", "issued", "expected", "millionths")

    def part(id_: Any, columns: list[Any]) -> Select[*tuple[Any, ...]]:
        return select(id_.label("id"), *(column.label(name) for column, name in zip(columns, sums, strict=True)))

    def kept(model: type[Cohort] | type[CohortChangeRow], id_: Any) -> Select[*tuple[Any, ...]]:
        columns = [model.allocated, model.residue, model.issued, model.expected, model.expected_millionths]
        return part(id_, columns).where(_within(model.program_id, program_id))

    expected = [-(Lot.expected // MILLION), -(Lot.expected % MILLION)]
    lots = (
        part(Lot.cohort_id, [-Lot.allocated, -Lot.residue, -Lot.granted, *expected])
        .join(PointAccount, PointAccount.member_id == Lot.member_id)
        .where(_within(PointAccount.program_id, program_id))
    )
    parts = union_all(lots, kept(Cohort, Cohort.id), kept(CohortChangeRow, CohortChangeRow.cohort_id)).subquery()
    whole = func.sum(parts.c.expected) * MILLION + func.sum(parts.c.millionths)
    wrong = [*(_total(parts.c[name]) != 0 for name in sums[:3]), whole != 0]
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


def sales_are_posted_whole(program_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """In the full profile the cash debited for a purchase is its total; in the other it is nothing."""
    cash = (
        select(JournalPosting.document_id, func.sum(JournalPosting.amount).label("amount"))
        .join(
            Account,
            and_(
                Account.program_id == JournalPosting.program_id,
                Account.code == JournalPosting.debit,
                Account.role == "cash",
            ),
        )
        .group_by(JournalPosting.document_id)
        .subquery()
    )
    full = ProgramTerms.terms["posting_profile"].as_string() == "full"
    expected = case((full, Transaction.total), else_=0)
    return (
        _differing(Transaction.id, expected, _zero(cash.c.amount))
        .join(ProgramTerms, ProgramTerms.id == Transaction.terms_id)
        .outerjoin(cash, cash.c.document_id == Transaction.id)
        .where(_within(Transaction.program_id, program_id))
    )


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
    """A member's account, identifiers and transactions belong to the member's programme."""
    parts = [
        select(table.member_id, table.program_id).where(table.member_id.is_not(None))
        for table in (PointAccount, MemberIdentifier, Transaction)
    ]
    rows = union_all(*parts).subquery()
    return (
        _differing(rows.c.member_id, cast(Member.program_id, String), cast(rows.c.program_id, String))
        .join(Member, Member.id == rows.c.member_id)
        .where(_within(Member.program_id, program_id))
    )


CHECKS: tuple[Check, ...] = (
    balance_is_sum_of_entries,
    balance_is_sum_of_lots,
    lifetime_is_sum_of_accruals,
    entries_are_numbered_without_gaps,
    entries_carry_the_running_balance,
    accruals_are_lots,
    next_due_is_first_expiry,
    documents_granted_their_points,
    deferrals_are_posted,
    cohorts_are_sums_of_lots,
    liability_is_sum_of_cohorts,
    provision_is_sum_of_cohorts,
    recognised_is_posted,
    sales_are_posted_whole,
    transactions_hold_their_keys,
    rows_belong_to_one_program,
)
"""All checks, in the order they are answered."""
