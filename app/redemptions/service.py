"""Redeem points for rewards, fulfil or cancel what was ordered, many at a time: load, decide, write.

The accounts are claimed first: whatever a decision rests on is read after it, and who ends an order at the same moment
waits here. An order reserves its points by a hold with its id that no clock ends; to fulfil it is to capture that hold.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
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
    tiers: Mapping[UUID, str | None]


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
    rewards = catalogue.named_each(session, program_id, [each.reward for each in wanted])
    by_id = {row.id: catalogue.reward_of(row) for row in rewards if not isinstance(row, Problem)}
    needs = ledger.to_spend(
        (found[0], by_id[row.id].offer.points * each.quantity)
        for each, found, row in zip(wanted, people, rewards, strict=True)
        if not isinstance(found, Problem) and not isinstance(row, Problem)
    )
    get = programs.look if dry_run else programs.claim
    accounts = get(session, program_id, member_ids, now, needs=needs)
    pieces = catalogue.had(session, member_ids, by_id, months_of(now, terms.zone)[0])
    statuses = members.statuses(session, member_ids)
    chart = accounting.chart(session, program_id)
    tiers = catalogue.tiers_of(session, program_id, member_ids, by_id.values(), now)
    loaded = _Loaded(now, terms, pepper, chart, statuses, accounts, by_id, pieces, tiers)
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
    may_spend = GATES[loaded.statuses[member_id]].spend
    facts = Facts(may_spend, account.available, had, loaded.tiers.get(member_id))
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
    orders = [done.redemption for done in made]
    with db.together(session):
        db.insert_rows(session, Redemption, [_fields(order) for order in orders])
        _write(session, made, [accounts[id_] for id_ in sorted({order.member_id for order in orders})], now, new=True)
    short = catalogue.take(session, _counted(orders))
    if short is not None:
        raise out_of_stock(catalogue.left(session, short))


@dataclass(frozen=True, slots=True)
class _Ending:
    """What the decisions on orders rest on. `accounts` and `orders` follow them as they fall."""

    now: datetime
    terms: Terms
    orders: dict[UUID, Redemption]
    rewards: dict[UUID, RewardRow]
    accounts: dict[UUID, Account]


def fulfil(
    session: Session,
    program_id: UUID,
    redemption_ids: Sequence[UUID],
    now: datetime,
    pepper: bytes,
    *,
    dry_run: bool = False,
) -> list[Redeemed | Problem]:
    """Hands over what was ordered: the points are spent now, the cost is posted, vouchers are issued.

    Each may be refused: NotFound, RedemptionFulfilled, RedemptionCancelled. Raises NoTerms.
    """
    chart = accounting.chart(session, program_id)
    decide = partial(_fulfil, chart=chart, pepper=pepper)
    return _end(session, program_id, redemption_ids, now, dry_run, decide)


def _fulfil(ending: _Ending, redemption_id: UUID, *, chart: accounting.Chart, pepper: bytes) -> Redeemed:
    order, account, act = _open(ending, redemption_id)
    account = ledger.capture(account, order.id, order.points, act, as_agent=order.supplier == "agent")
    return _ended(ending, order, "fulfilled", account, _hand_over(order, act, chart, pepper))


def cancel(
    session: Session, program_id: UUID, redemption_ids: Sequence[UUID], now: datetime, *, dry_run: bool = False
) -> list[Redeemed | Problem]:
    """Calls orders off: their points are free again, their pieces go back, and they count towards no limit.

    Points whose time has passed meanwhile expire now. Each may be refused: NotFound, RedemptionFulfilled,
    RedemptionCancelled. Raises NoTerms.
    """
    outcomes = _end(session, program_id, redemption_ids, now, dry_run, _cancel)
    if not dry_run:
        catalogue.give_back(session, _counted(done.redemption for done in outcomes if isinstance(done, Redeemed)))
    return outcomes


def _cancel(ending: _Ending, redemption_id: UUID) -> Redeemed:
    order, account, act = _open(ending, redemption_id)
    return _ended(ending, order, "cancelled", ledger.release(account, order.id, act), _NOTHING)


def _counted(orders: Iterable[Redemption]) -> Counter[UUID]:
    """By reward, the pieces that were taken from a limited supply."""
    pieces = Counter[UUID]()
    for order in orders:
        if order.counted:
            pieces[order.reward_id] += order.quantity
    return pieces


def _end(
    session: Session,
    program_id: UUID,
    redemption_ids: Sequence[UUID],
    now: datetime,
    dry_run: bool,
    decide: Callable[[_Ending, UUID], Redeemed],
) -> list[Redeemed | Problem]:
    known = _orders(session, program_id, redemption_ids)
    if not known:
        return [NotFound() for _ in redemption_ids]
    terms = programs.terms_at(session, program_id, now)
    accounts = _accounts(session, program_id, {order.member_id for order in known.values()}, now, dry_run)
    orders = _orders(session, program_id, list(known), lock=not dry_run)
    rewards = catalogue.find_each(session, {order.reward_id for order in orders.values()})
    ending = _Ending(now, terms, orders, rewards, accounts)
    outcomes = [or_problem(decide, ending, id_) for id_ in redemption_ids]
    if not dry_run:
        done = [outcome for outcome in outcomes if isinstance(outcome, Redeemed)]
        ends = [{name: getattr(each.redemption, name) for name in ("id", "status", "ended_at")} for each in done]
        with db.together(session):
            db.update_rows(session, Redemption, ["id"], ends)
            _write(session, done, [accounts[id_] for id_ in sorted({each.redemption.member_id for each in done})], now)
    return outcomes


def _open(ending: _Ending, redemption_id: UUID) -> tuple[Redemption, Account, Act]:
    """An order that has not ended, its member's account, and what ends it. NotFound, RedemptionFulfilled,
    RedemptionCancelled."""
    order = ending.orders.get(redemption_id)
    if order is None:
        raise NotFound
    if order.status in ENDED:
        raise ENDED[order.status]
    return order, ending.accounts[order.member_id], _act(order, ending.now, ending.terms)


def _ended(ending: _Ending, order: Redemption, status: str, account: Account, handover: _Handover) -> Redeemed:
    ended = Redemption(**_fields(order) | {"status": status, "ended_at": ending.now})
    ending.orders[order.id], ending.accounts[account.member_id] = ended, account
    return _redeemed(ended, ending.rewards[order.reward_id], handover, account)


def _fields(redemption: Redemption) -> dict[str, Any]:
    return {column.name: getattr(redemption, column.name) for column in Redemption.__table__.columns}


# --- load -----------------------------------------------------------------------------------------------------------


def _accounts(
    session: Session, program_id: UUID, member_ids: Collection[UUID], now: datetime, dry_run: bool
) -> dict[UUID, Account]:
    get = programs.look if dry_run else programs.claim
    return get(session, program_id, member_ids, now, member_ids)


def _orders(
    session: Session, program_id: UUID, redemption_ids: Sequence[UUID], *, lock: bool = False
) -> dict[UUID, Redemption]:
    """Those of some redemptions that the programme has, as they are now; with `lock` they stay so."""
    chosen = db.any_of(session, Redemption.id.expression, sorted(set(redemption_ids)))
    rows = select(*Redemption.__table__.c).where(Redemption.program_id == program_id, chosen).order_by(Redemption.id)
    found = session.execute(rows.with_for_update(key_share=True) if lock else rows).mappings()
    return {row["id"]: Redemption(**row) for row in found}


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
    account = _accounts(session, program_id, [redemption.member_id], now, dry_run=True)[redemption.member_id]
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
