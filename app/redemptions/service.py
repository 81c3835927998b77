"""Redeem points for rewards: load, decide, write. And fulfil or cancel what was ordered.

The account is claimed first: whatever a decision rests on is read after it, and who ends an order at the same moment
waits here. An order reserves its points by a hold with its id that no clock ends; to fulfil it is to capture that hold.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import accounting, db, ledger, members, outbox, programs
from app.errors import NotFound, Problem, or_problem
from app.ids import new_id
from app.ledger import Account, Act, Payment
from app.members import GATES
from app.programs import Terms
from app.redemptions import catalogue, vouchers
from app.redemptions.models import Redemption, RewardRow, VoucherRow
from app.redemptions.rules import ENDED, Facts, Had, Judgement, Reward, judge, months_of, out_of_stock
from app.redemptions.schemas import RedemptionIn

Posted = Sequence[accounting.Posting] | Sequence[accounting.JournalPosting]


@dataclass(frozen=True, slots=True)
class _Handover:
    """What handing over a reward means: rows of vouchers, and its cost."""

    vouchers: list[dict[str, Any]]
    postings: list[accounting.Posting]


_NOTHING = _Handover([], [])


@dataclass(frozen=True, slots=True)
class Redeemed:
    """A redemption as the database has it, or would have it after a dry run, and the member's account after it.

    `paid_by`: the lots that paid, or that are reserved while it is ordered.
    """

    redemption: Redemption
    reward: RewardRow
    paid_by: Sequence[Payment]
    vouchers: Sequence[VoucherRow]
    postings: Posted
    account: Account
    handover: _Handover = _NOTHING


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the decisions of a batch rest on. `accounts`, `rewards` and `pieces` follow them as they fall."""

    now: datetime
    terms: Terms
    pepper: bytes
    chart: accounting.Chart
    statuses: dict[UUID, str]
    accounts: dict[UUID, Account]
    rewards: dict[UUID, Reward]
    pieces: dict[UUID, dict[UUID, Had]]


def redeem(
    session: Session,
    program_id: UUID,
    wanted: Sequence[RedemptionIn],
    now: datetime,
    pepper: bytes,
    *,
    dry_run: bool = False,
) -> list[Redeemed | Problem]:
    """Orders rewards for members, and hands those over that are `immediate`.

    Each may be refused: UnknownMember, IdentifierInvalid, UnknownReward, or what `judge` refuses. Raises NoTerms, and
    RewardOutOfStock if somebody else took the last pieces meanwhile. A `dry_run` locks and writes nothing.
    """
    terms = programs.terms_at(session, program_id, now)
    people = members.named_each(
        session, program_id, [{"member": each.member} for each in wanted], terms.enrolment.phone_region
    )
    member_ids = {found[0] for found in people if not isinstance(found, Problem)}
    accounts = _accounts(session, member_ids, now, terms, dry_run)
    rewards = catalogue.named_each(session, program_id, [each.reward for each in wanted])
    by_id = {row.id: catalogue.reward_of(row) for row in rewards if not isinstance(row, Problem)}
    pieces = catalogue.had(session, member_ids, by_id, months_of(now, terms.zone)[0])
    statuses = members.statuses(session, member_ids)
    chart = accounting.chart(session, program_id)
    loaded = _Loaded(now, terms, pepper, chart, statuses, accounts, by_id, pieces)
    outcomes = [or_problem(_redeem, loaded, *each) for each in zip(wanted, people, rewards, strict=True)]
    if not dry_run:
        _write_new(session, [done for done in outcomes if isinstance(done, Redeemed)], accounts, now)
    return outcomes


def _redeem(
    loaded: _Loaded, wanted: RedemptionIn, found: Sequence[UUID] | Problem, row: RewardRow | Problem
) -> Redeemed:
    if isinstance(found, Problem):
        raise found
    if isinstance(row, Problem):
        raise row
    now, terms, (member_id,) = loaded.now, loaded.terms, found
    account, reward = loaded.accounts[member_id], loaded.rewards[row.id]
    had = loaded.pieces.setdefault(member_id, {})
    facts = Facts(GATES[loaded.statuses[member_id]].spend, account.available, had)
    judgement = judge(reward, facts, wanted.quantity, now, terms.zone)
    judgement.check()
    redemption = _redemption(account, judgement, now, immediate=wanted.immediate)
    act = _act(redemption, now, terms, lapses_at=programs.lapses_after(now, terms, "redemption"))
    handover = _NOTHING
    if wanted.immediate:
        account = ledger.spend(account, redemption.points, act, as_agent=redemption.supplier == "agent")
        handover = _hand_over(redemption, act, loaded.chart, loaded.pepper)
    else:
        account = ledger.hold(account, redemption.id, redemption.points, None, act)
    loaded.accounts[member_id] = account
    had[row.id] = had.get(row.id, Had()).and_now(wanted.quantity)
    loaded.rewards[row.id] = reward.less(wanted.quantity)
    return _redeemed(redemption, row, handover, account)


def _write_new(session: Session, made: Sequence[Redeemed], accounts: Mapping[UUID, Account], now: datetime) -> None:
    columns = [column.name for column in Redemption.__table__.columns]
    orders = [done.redemption for done in made]
    db.insert_rows(session, Redemption, [{name: getattr(order, name) for name in columns} for order in orders])
    _write(session, made, [accounts[id_] for id_ in sorted({order.member_id for order in orders})], now, new=True)
    counted = Counter[UUID]()
    for order in orders:
        if order.counted:
            counted[order.reward_id] += order.quantity
    for reward_id in sorted(counted):
        if not catalogue.take(session, reward_id, counted[reward_id]):
            raise out_of_stock(catalogue.left(session, reward_id))


def fulfil(
    session: Session, program_id: UUID, redemption_id: UUID, now: datetime, pepper: bytes, *, dry_run: bool = False
) -> Redeemed:
    """Hands over what was ordered: the points are spent now, the cost is posted, vouchers are issued.

    NotFound, RedemptionFulfilled, RedemptionCancelled.
    """
    redemption, account, terms = _open(session, program_id, redemption_id, now, dry_run)
    act = _act(redemption, now, terms)
    account = ledger.capture(account, redemption.id, redemption.points, act, as_agent=redemption.supplier == "agent")
    redemption.status, redemption.ended_at = "fulfilled", now
    handover = _hand_over(redemption, act, accounting.chart(session, program_id), pepper)
    done = _redeemed(redemption, catalogue.find(session, program_id, redemption.reward_id), handover, account)
    if not dry_run:
        session.flush()
        _write(session, [done], [account], now)
    return done


def cancel(
    session: Session, program_id: UUID, redemption_id: UUID, now: datetime, *, dry_run: bool = False
) -> Redeemed:
    """Calls an order off: its points are free again, its pieces go back, and it counts towards no limit.

    Points whose time has passed meanwhile expire now. NotFound, RedemptionFulfilled, RedemptionCancelled.
    """
    redemption, account, terms = _open(session, program_id, redemption_id, now, dry_run)
    account = ledger.release(account, redemption.id, _act(redemption, now, terms))
    redemption.status, redemption.ended_at = "cancelled", now
    done = _redeemed(redemption, catalogue.find(session, program_id, redemption.reward_id), _NOTHING, account)
    if not dry_run:
        session.flush()
        _write(session, [done], [account], now)
        if redemption.counted:
            catalogue.give_back(session, redemption.reward_id, redemption.quantity)
    return done


# --- load -----------------------------------------------------------------------------------------------------------


def _accounts(
    session: Session, member_ids: Collection[UUID], now: datetime, terms: Terms, dry_run: bool
) -> dict[UUID, Account]:
    get = ledger.look if dry_run else ledger.claim
    return get(session, member_ids, now, terms.zone, lots=member_ids)


def _open(
    session: Session, program_id: UUID, redemption_id: UUID, now: datetime, dry_run: bool
) -> tuple[Redemption, Account, Terms]:
    """An order that has not ended, locked after its member's account. RedemptionFulfilled or RedemptionCancelled."""
    member_id = find(session, program_id, redemption_id).member_id
    terms = programs.terms_at(session, program_id, now)
    account = _accounts(session, [member_id], now, terms, dry_run)[member_id]
    rows = select(Redemption).where(Redemption.id == redemption_id).execution_options(populate_existing=True)
    redemption = session.scalars(rows if dry_run else rows.with_for_update(key_share=True)).one()
    if redemption.status in ENDED:
        raise ENDED[redemption.status]
    return redemption, account, terms


# --- decide ---------------------------------------------------------------------------------------------------------


def _redemption(account: Account, judgement: Judgement, now: datetime, *, immediate: bool) -> Redemption:
    """The order, with what is agreed by it."""
    reward, offer = judgement.reward, judgement.reward.offer
    voucher = offer.item if offer.item.kind == "voucher" else None
    return Redemption(
        id=new_id(),
        program_id=account.program_id,
        member_id=account.member_id,
        reward_id=reward.id,
        quantity=judgement.quantity,
        points=judgement.points,
        counted=reward.left is not None,
        supplier=offer.supplier.type,
        cost=offer.supplier.each * judgement.quantity,
        currency=reward.currency,
        voucher_value=voucher and voucher.value,
        voucher_days=voucher and voucher.valid_days,
        status="fulfilled" if immediate else "ordered",
        ordered_at=now,
        ended_at=now if immediate else None,
    )


def _act(redemption: Redemption, now: datetime, terms: Terms, lapses_at: datetime | None = None) -> Act:
    return Act(redemption.program_id, redemption.id, now, now, terms.zone, lapses_at)


def _hand_over(redemption: Redemption, act: Act, chart: accounting.Chart, pepper: bytes) -> _Handover:
    event = accounting.Event(act.program_id, act.document_id, redemption.currency, act.occurred_at, act.period)
    postings = accounting.fulfilment_postings(event, redemption.cost, redemption.supplier, chart)  # type: ignore[arg-type]  # a CHECK holds it
    return _Handover(vouchers.made_for(redemption, act.zone, pepper, act.occurred_at), postings)


def _redeemed(redemption: Redemption, reward: RewardRow, handover: _Handover, account: Account) -> Redeemed:
    issued = [VoucherRow(**row) for row in handover.vouchers]
    return Redeemed(redemption, reward, _paid_by(redemption, account), issued, handover.postings, account, handover)


def _paid_by(redemption: Redemption, account: Account) -> list[Payment]:
    if redemption.status == "cancelled":
        return []
    if redemption.status == "ordered":
        return [Payment(lot_id, points) for lot_id, points in account.holds[redemption.id].parts]
    uses = [use for _, act, use in account.rows.uses if act.document_id == redemption.id]
    return [Payment(use.lot.id, use.points) for use in uses]


# --- write ----------------------------------------------------------------------------------------------------------


def _write(
    session: Session, made: Sequence[Redeemed], accounts: Sequence[Account], now: datetime, *, new: bool = False
) -> None:
    """What became of redemptions, and the accounts as they are after all of them. `new`: they were ordered just now."""
    ledger.write(session, accounts, now)
    accounting.post(session, [posting for done in made for posting in done.handover.postings], now)
    outbox.put(session, [event for done in made for event in _events(done.redemption, new)], now)
    vouchers.issue(session, [(done.redemption, row) for done in made for row in done.handover.vouchers], now)


def _events(redemption: Redemption, new: bool) -> Iterable[outbox.Event]:
    figures = {
        "redemption_id": str(redemption.id),
        "reward_id": str(redemption.reward_id),
        "quantity": redemption.quantity,
        "points": redemption.points,
    }
    happened = ["ordered"] if new else []
    if redemption.status != "ordered":
        happened.append(redemption.status)
    for what in happened:
        yield outbox.Event(redemption.program_id, f"redemption.{what}", redemption.member_id, figures)


# --- read -----------------------------------------------------------------------------------------------------------


def find(session: Session, program_id: UUID, redemption_id: UUID) -> Redemption:
    """One redemption. NotFound if the programme has none such."""
    found = session.get(Redemption, redemption_id)
    if found is None or found.program_id != program_id:
        raise NotFound
    return found


def read(session: Session, program_id: UUID, redemption_id: UUID, now: datetime) -> Redeemed:
    """One redemption, with what paid for it, its vouchers and its postings. NotFound if there is none."""
    redemption = find(session, program_id, redemption_id)
    terms = programs.terms_at(session, program_id, now)
    account = _accounts(session, [redemption.member_id], now, terms, dry_run=True)[redemption.member_id]
    paid_by = _paid_by(redemption, account)
    if redemption.status == "fulfilled":
        paid_by = ledger.payments(session, redemption.id)
    return Redeemed(
        redemption,
        catalogue.find(session, program_id, redemption.reward_id),
        paid_by,
        vouchers.of_redemption(session, redemption.id),
        accounting.postings_of(session, [redemption.id]),
        account,
    )


def redemptions(
    session: Session, program_id: UUID, member_id: UUID | None, status: str | None, after: UUID | None, limit: int
) -> Sequence[Redemption]:
    """Redemptions in the order they were made, from the one after `after`; of one member or in one status, if given."""
    rows = select(Redemption).where(Redemption.program_id == program_id)
    if member_id is not None:
        rows = rows.where(Redemption.member_id == member_id)
    if status is not None:
        rows = rows.where(Redemption.status == status)
    if after is not None:
        rows = rows.where(Redemption.id > after)
    return session.scalars(rows.order_by(Redemption.id).limit(limit)).all()
