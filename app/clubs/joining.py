"""Join clubs, many members at a time, and end what was agreed for one: load, decide, write.

The members' accounts are claimed first; what is known of them, and of the receipts, is read after that.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy.orm import Session

from app import accounting, db, ledger, members, programs
from app.accounting import Allocation, Chart, CohortKey, Event, Fee, Posting
from app.clubs import fees, queries, rules, service
from app.clubs.models import ClubMembership
from app.clubs.rules import AlreadyInClub, ClubUnknown, Joining, Membership, MembershipConflict, ReceiptOfFee
from app.errors import NotFound, Problem, finding, or_problem
from app.ids import new_id
from app.ledger import Account, Accrual, Act
from app.members import GATES, Identifier, MemberMayNotEarn
from app.programs import Club, NoTerms, Timeline, Version

Receipt = tuple[str, str]
"""Source and external id."""

Posted = Sequence[Posting] | Sequence[accounting.JournalPosting]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A member who joins a club; `receipt`: on which its fee was paid."""

    member_id: UUID
    club: str
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """A membership, what selling it posted, and the account after it. `duplicate`: the receipt was known."""

    membership: Membership
    club: Club
    postings: Posted
    account: Account
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the decisions of a batch rest on; `accounts`, `found` and `receipts` follow them."""

    program_id: UUID
    now: datetime
    terms: Timeline
    chart: Chart
    accounts: dict[UUID, Account]
    statuses: Mapping[UUID, str]
    found: service.Memberships
    receipts: dict[Receipt, Membership]
    posted: dict[UUID, Posted]
    """What selling those posted."""


def join(
    session: Session, program_id: UUID, wanted: Sequence[Wanted], now: datetime, *, dry_run: bool = False
) -> list[Joined | Problem]:
    """Makes members join clubs now, by a promise or a fee, or renews what they have.

    A receipt that is known is answered as the first time. Each may be refused: NotFound, NoTerms, ClubUnknown,
    JoinedByBuying, ReceiptOfFee, AlreadyInClub, MembershipConflict, MemberMayNotEarn, TooManyPoints. A `dry_run` locks
    and writes nothing.
    """
    receipts = {each.receipt for each in wanted if each.receipt is not None}
    loaded = _load(session, program_id, {each.member_id for each in wanted}, receipts, now, dry_run=dry_run)
    outcomes = [or_problem(_join, loaded, each) for each in wanted]
    if not dry_run:
        _write(session, loaded, [each for each in outcomes if isinstance(each, Joined) and not each.duplicate])
    return outcomes


def _load(
    session: Session,
    program_id: UUID,
    member_ids: Collection[UUID],
    receipts: Collection[Receipt],
    now: datetime,
    *,
    dry_run: bool,
) -> _Loaded:
    """`member_ids` may be of anybody: only the programme's members have accounts in what is loaded."""
    terms = programs.timeline(session, program_id)
    named = {Identifier("id", str(member_id)) for member_id in member_ids}
    ours = sorted(members.find(session, program_id, named).values())
    accounts = (programs.look if dry_run else programs.claim)(session, program_id, ours, now, ours)
    known = queries.by_receipts(session, program_id, sorted(receipts))
    postings: dict[UUID, list[accounting.JournalPosting]] = {each.id: [] for each in known.values()}
    for posting in accounting.postings_of(session, list(postings)) if postings else ():
        if posting.cause in ("sale", "accrual"):
            postings[posting.document_id].append(posting)
    return _Loaded(
        program_id=program_id,
        now=now,
        terms=terms,
        chart=accounting.chart(session, program_id),
        accounts=accounts,
        statuses=members.statuses(session, ours),
        found=service.load(session, program_id, terms, ours, now, now),
        receipts=known,
        posted=dict(postings),
    )


def _join(loaded: _Loaded, wanted: Wanted) -> Joined:
    account = loaded.accounts.get(wanted.member_id)
    if account is None:
        raise NotFound
    version = loaded.terms.at(loaded.now)
    if version is None:
        raise NoTerms
    if wanted.receipt in loaded.receipts:
        return _again(loaded, wanted, loaded.receipts[wanted.receipt], account)
    club = version.terms.club(wanted.club)
    if club is None:
        raise ClubUnknown
    joining = Joining(loaded.program_id, wanted.member_id, new_id(), loaded.now, loaded.now)
    membership = rules.joined(joining, club, version, loaded.found.of(wanted.member_id))
    if (wanted.receipt is None) != (membership.why != "fee"):
        raise ReceiptOfFee(findings=[finding(("receipt",), "receipt_of_fee", "a fee has one, and nothing else")])
    if not GATES[loaded.statuses[wanted.member_id]].earn:
        raise MemberMayNotEarn
    postings: list[Posting] = []
    if wanted.receipt is not None:
        source, external_id = wanted.receipt
        membership = replace(membership, source=source, external_id=external_id)
        membership, account, postings = _sell(membership, club, version, account, loaded)
        loaded.receipts[wanted.receipt], loaded.posted[membership.id] = membership, postings
    loaded.accounts[wanted.member_id] = account
    loaded.found.put([membership])
    return Joined(membership, club, postings, account)


def _again(loaded: _Loaded, wanted: Wanted, membership: Membership, account: Account) -> Joined:
    """What a receipt that is known is answered. MembershipConflict if it has paid for something else."""
    if (membership.member_id, membership.club) != (wanted.member_id, wanted.club):
        raise MembershipConflict
    club = service.version_of(membership, loaded.terms).terms.club(membership.club)
    assert club is not None
    return Joined(membership, club, loaded.posted.get(membership.id, ()), account, duplicate=True)


def _sell(
    membership: Membership, club: Club, version: Version, account: Account, loaded: _Loaded
) -> tuple[Membership, Account, list[Posting]]:
    """A membership with what of its fee is deferred, the account with the points that come with it, and what the sale
    posts. TooManyPoints."""
    terms, points = version.terms, fees.points_with(membership, club)
    shared = fees.shared(membership, points, terms)
    membership = fees.sold(membership, points, shared, terms.zone)
    event, cohort = _event(membership, version, loaded.now), _cohort(membership, version, loaded.now)
    if points:
        account = ledger.accrue(account, _accrual(membership, shared, cohort, version, account, loaded))
    fee = Fee(membership.deferred, shared.points, membership.tax)
    cohort_id = cohort.id if points else None
    return membership, account, accounting.fee_postings(event, fee, cohort_id, terms.posting_profile, loaded.chart)


def _accrual(
    membership: Membership,
    shared: Allocation,
    cohort: CohortKey,
    version: Version,
    account: Account,
    loaded: _Loaded,
) -> Accrual:
    """The points that come with a membership: sold with it, available at once, good as long as those of a purchase."""
    terms, now = version.terms, loaded.now
    lapse = programs.lapses_after(now, terms, "purchase")
    if account.lapses_at is None or account.lapses_at <= now:
        lapse = programs.lapses_at(now, terms)  # else they would stay for ever, or be gone at once
    return Accrual(
        points=membership.points,
        act=Act(loaded.program_id, membership.id, now, now, terms.zone, lapse),
        cohort=cohort,
        allocated=shared.points,
        residue=shared.residue,
        expected=accounting.expected_points(membership.points, terms.redemption_rate.fraction),
        expires_at=programs.expires_at(now, terms),
        available_from=now,
        lapses=programs.lapses(terms),
    )


def _event(membership: Membership, version: Version, now: datetime) -> Event:
    month = programs.local_month(now, version.terms)
    return Event(membership.program_id, membership.id, membership.currency, now, month)


def _cohort(membership: Membership, version: Version, at: datetime) -> CohortKey:
    rate = version.terms.redemption_rate.fraction
    month = programs.local_month(at, version.terms)
    return CohortKey(membership.program_id, membership.currency, month, "purchase", str(rate))


def _write(session: Session, loaded: _Loaded, made: Sequence[Joined]) -> None:
    """MembershipConflict or AlreadyInClub when somebody else was faster with a receipt or a membership."""
    loaded.found.write_changes(session)
    rows = sorted((each.row() for each in loaded.found.new), key=lambda row: row["id"])
    won = db.claim_rows(session, ClubMembership, rows, ["id"])
    if len(won) < len(rows):
        raise MembershipConflict if any(row["source"] for row in rows) else AlreadyInClub
    changed = sorted({each.account.member_id for each in made})
    with db.together(session):
        loaded.found.write_rest(session)
        ledger.write(session, [loaded.accounts[id_] for id_ in changed], loaded.now)
        accounting.post(session, [posting for each in made for posting in each.postings], loaded.now)  # type: ignore[misc]  # what is new is no row of the journal yet


# --- end ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """How a member leaves a club: why, with a `refund` or not, and what then becomes of the points of what was paid."""

    member_id: UUID
    club: str
    reason: str
    refund: bool = False
    points: Literal["take_back", "keep"] = "take_back"


@dataclass(frozen=True, slots=True)
class Ended:
    """The memberships that ended, what of fees is to be paid back (minor units with tax), the points taken back, what
    that posted, and the account after it."""

    memberships: Sequence[Membership]
    refund: int
    taken_back: int
    postings: Sequence[Posting]
    account: Account


def leave(session: Session, program_id: UUID, wanted: Ending, now: datetime, *, dry_run: bool = False) -> Ended:
    """Ends what was agreed with a member of a club, now: what has begun and what is to follow. NotFound, NotInClub.

    Without a refund all that is deferred becomes revenue, for nothing is owed any more.
    """
    loaded = _load(session, program_id, [wanted.member_id], (), now, dry_run=dry_run)
    if wanted.member_id not in loaded.accounts:
        raise NotFound
    why: Literal["left", "refunded"] = "refunded" if wanted.refund else "left"
    ended = rules.ended(loaded.found.of(wanted.member_id), wanted.club, why, wanted.reason, now)
    granted = ledger.granted_lots(session, [each.id for each in ended if each.points])
    if wanted.refund and granted:
        loaded.accounts.update(ledger.with_covers(session, loaded.accounts))
    postings: list[Posting] = []
    refund = taken_back = 0
    for each in ended:
        passed, posted = service.passed_months(each, loaded.terms, loaded.chart, now)
        postings += posted
        if wanted.refund:
            lots = granted.get(each.id, ()) if wanted.points == "take_back" else ()
            passed, paid, points, posted = _refund(passed, lots, loaded)
            refund, taken_back = refund + paid, taken_back + points
        else:
            passed, posted = _forfeit(passed, loaded)
        postings += posted
        loaded.found.put([passed])
    account = loaded.accounts[wanted.member_id]
    if not dry_run:
        with db.together(session):
            loaded.found.write(session)
            ledger.write(session, [account], now)
            accounting.post(session, postings, now)
    ids = {each.id for each in ended}
    after = [each for each in loaded.found.of(wanted.member_id) if each.id in ids]
    return Ended(after, refund, taken_back, postings, account)


def _forfeit(membership: Membership, loaded: _Loaded) -> tuple[Membership, list[Posting]]:
    after, rest = fees.forfeited(membership)
    event = _event(membership, service.version_of(membership, loaded.terms), loaded.now)
    return after, accounting.membership_postings(event, rest, loaded.chart)


def _refund(
    membership: Membership, lots: Sequence[ledger.GrantedLot], loaded: _Loaded
) -> tuple[Membership, int, int, list[Posting]]:
    """A membership that is paid back, how much that is, the points taken back, and what it posts."""
    version = service.version_of(membership, loaded.terms)
    account, terms = loaded.accounts[membership.member_id], version.terms
    lots = [ledger.granted_now(account, lot) for lot in lots]
    back = [(lot, lot.granted - lot.returned) for lot in lots if lot.granted > lot.returned]
    share, cohort_id = 0, None
    if back:
        act = Act(loaded.program_id, membership.id, loaded.now, loaded.now, terms.zone)
        account, reversal = ledger.reverse(account, back, act, None, 0)
        loaded.accounts[membership.member_id] = account
        share, cohort_id = reversal.allocated, lots[0].lot.cohort_id
    after, fee = fees.refunded(membership, share)
    event = _event(membership, version, loaded.now)
    posted = accounting.fee_return_postings(event, fee, cohort_id, terms.posting_profile, loaded.chart)
    return after, fee.membership + fee.points + fee.tax, sum(points for _, points in back), posted
