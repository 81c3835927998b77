"""Who can have which reward, for how many points, and why not; and what may happen to a voucher. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any
from uuid import UUID

from app.errors import Problem, finding
from app.ledger import InsufficientPoints
from app.members import MemberMayNotSpend
from app.redemptions.schemas import Offer

_SEARCHED_DAYS = 800
"""How far ahead a day that is not blacked out is looked for: two years, so that yearly dates have come round."""


class RewardRetired(Problem):
    """The reward was retired for good. Choose another one."""

    status, code, title, final = 409, "reward_retired", "The reward is retired", True


class RewardUnavailable(Problem):
    """The reward is not offered now: switched off, or outside `available_from` and `available_until`."""

    status, code, title, final = 422, "reward_unavailable", "The reward is not offered now", True


class RewardBlackedOut(Problem):
    """The reward is not given out today. `next_date` is the next local date on which it is."""

    status, code, title, final = 422, "reward_blacked_out", "The reward is not given out today", True


class RewardNotForTier(Problem):
    """The reward is for members in certain `tiers`, and this one is in none of them now."""

    status, code, title, final = 422, "reward_not_for_tier", "The reward is for other tiers", True


class RewardOutOfStock(Problem):
    """Fewer pieces are left than asked for; `left` says how many."""

    status, code, title, final = 422, "reward_out_of_stock", "The reward is out of stock", True


class RewardLimitReached(Problem):
    """The member may not have so many pieces; `left` says how many they may. A monthly limit ends at `again_at`."""

    status, code, title, final = 422, "reward_limit_reached", "The member has had their share of the reward", True


class RedemptionFulfilled(Problem):
    """The reward was handed over, so the order can be neither fulfilled again nor cancelled."""

    status, code, title, final = 409, "redemption_fulfilled", "The redemption is fulfilled", True


class RedemptionCancelled(Problem):
    """The order was cancelled and its points given back. Redeem anew."""

    status, code, title, final = 409, "redemption_cancelled", "The redemption is cancelled", True


class VoucherBurnt(Problem):
    """The voucher was used on another receipt."""

    status, code, title, final = 409, "voucher_burnt", "The voucher has been used", True


class VoucherCancelled(Problem):
    """The voucher was cancelled and is worth nothing."""

    status, code, title, final = 409, "voucher_cancelled", "The voucher is cancelled", True


class VoucherExpired(Problem):
    """The voucher was good until an instant that has passed; `expires_at` says which."""

    status, code, title, final = 422, "voucher_expired", "The voucher has expired", True


ENDED: dict[str, type[Problem]] = {"fulfilled": RedemptionFulfilled, "cancelled": RedemptionCancelled}
"""Why a redemption that is not `ordered` any more cannot end again."""


# --- who can have what ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward as it stands: what it offers, and how many pieces of a limited supply are left."""

    id: UUID
    code: str
    currency: str
    offer: Offer
    left: int | None
    retired: bool

    def less(self, quantity: int) -> "Reward":
        """The reward after `quantity` pieces were ordered."""
        return self if self.left is None else replace(self, left=self.left - quantity)


@dataclass(frozen=True, slots=True)
class Had:
    """Pieces of one reward a member has ordered and not cancelled: ever, and this calendar month."""

    in_all: int = 0
    this_month: int = 0

    def and_now(self, quantity: int) -> "Had":
        """With `quantity` pieces that are ordered now."""
        return Had(self.in_all + quantity, self.this_month + quantity)


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides about a member: whether they may spend, points available, pieces had of each reward, and their tier
    where a reward asks for it."""

    may_spend: bool
    available: int
    had: Mapping[UUID, Had] = field(default_factory=dict)
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a member would pay for some pieces of a reward, points, and every reason why they cannot have them."""

    reward: Reward
    quantity: int
    points: int
    refusals: tuple[Problem, ...]

    def check(self) -> None:
        """Raises the weightiest refusal, if there is one; its `errors` name them all."""
        if self.refusals:
            first = self.refusals[0]
            found = [finding for refusal in self.refusals for finding in refusal.findings]
            raise type(first)(first.detail, findings=found, extra=first.extra)


def judge(reward: Reward, facts: Facts, quantity: int, now: datetime, zone: tzinfo) -> Judgement:
    """Whether a member can have `quantity` pieces of a reward at `now`, by the clocks of the programme's `zone`.

    Points are spent piece by piece: 1,999 points buy one piece of 1,000.
    """
    points = reward.offer.points * quantity
    refusals = (
        _retired(reward),
        _unavailable(reward.offer, now),
        _blacked_out(reward.offer, now.astimezone(zone).date()),
        _may_not_spend(facts),
        _not_for_tier(reward.offer, facts),
        _limited(reward.offer, facts.had.get(reward.id, Had()), quantity, now, zone),
        _out_of_stock(reward, quantity),
        _too_few_points(points, facts),
    )
    return Judgement(reward, quantity, points, tuple(refusal for refusal in refusals if refusal is not None))


def eligible(rewards: Iterable[Reward], facts: Facts, now: datetime, zone: tzinfo) -> list[Judgement]:
    """For each reward, in order, whether a member can have one piece now, and why not."""
    return [judge(reward, facts, 1, now, zone) for reward in rewards]


def _refusal(kind: type[Problem], at: str, detail: str, **extra: Any) -> Problem:
    return kind(detail, findings=[finding((at,), kind.code, detail)], extra=extra)


def _retired(reward: Reward) -> Problem | None:
    return _refusal(RewardRetired, "reward", "the reward is retired") if reward.retired else None


def _unavailable(offer: Offer, now: datetime) -> Problem | None:
    begins, ends = offer.available_from, offer.available_until
    extra = {
        "available_from": begins and begins.isoformat(),
        "available_until": ends and ends.isoformat(),
    }
    if not offer.active:
        return _refusal(RewardUnavailable, "reward", "the reward is switched off", **extra)
    if begins is not None and now < begins:
        return _refusal(RewardUnavailable, "reward", "the reward is not offered yet", **extra)
    if ends is not None and now >= ends:
        return _refusal(RewardUnavailable, "reward", "the reward is not offered any more", **extra)
    return None


def _blacked_out(offer: Offer, today: date) -> Problem | None:
    if not _is_blackout(offer, today):
        return None
    days = (today + timedelta(days=ahead) for ahead in range(1, _SEARCHED_DAYS))
    free = next((day.isoformat() for day in days if not _is_blackout(offer, day)), None)
    return _refusal(RewardBlackedOut, "reward", "the reward is not given out today", next_date=free)


def _is_blackout(offer: Offer, day: date) -> bool:
    text = day.isoformat()
    return text in offer.blackout_dates or text[5:] in offer.blackout_dates


def _may_not_spend(facts: Facts) -> Problem | None:
    return None if facts.may_spend else _refusal(MemberMayNotSpend, "member", "the member's status forbids it")


def _not_for_tier(offer: Offer, facts: Facts) -> Problem | None:
    if not offer.tiers or facts.tier in offer.tiers:
        return None
    return _refusal(RewardNotForTier, "member", "the member is in no such tier", tiers=offer.tiers)


def _limited(offer: Offer, had: Had, quantity: int, now: datetime, zone: tzinfo) -> Problem | None:
    in_all, per_month = offer.limits.in_all, offer.limits.per_month
    if in_all is not None and had.in_all + quantity > in_all:
        left = max(in_all - had.in_all, 0)
        return _refusal(RewardLimitReached, "quantity", f"{in_all} for each member", left=left, again_at=None)
    if per_month is not None and had.this_month + quantity > per_month:
        left = max(per_month - had.this_month, 0)
        again_at = months_of(now, zone)[1].astimezone(zone).isoformat()
        detail = f"{per_month} for each member a month"
        return _refusal(RewardLimitReached, "quantity", detail, left=left, again_at=again_at)
    return None


def _out_of_stock(reward: Reward, quantity: int) -> Problem | None:
    return None if reward.left is None or quantity <= reward.left else out_of_stock(reward.left)


def out_of_stock(left: int) -> Problem:
    """The refusal of more pieces than are `left`."""
    return _refusal(RewardOutOfStock, "quantity", f"{left} left", left=left)


def _too_few_points(points: int, facts: Facts) -> Problem | None:
    missing = points - facts.available
    if missing <= 0:
        return None
    return _refusal(InsufficientPoints, "quantity", f"{missing} points are missing", missing=missing)


# --- time -----------------------------------------------------------------------------------------------------------


def months_of(now: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """When the calendar month of `now` began, and when the next one begins, in `zone`; in UTC."""
    first = now.astimezone(zone).date().replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return _midnight(first, zone), _midnight(following, zone)


def voucher_expires_at(issued_at: datetime, valid_days: int, zone: tzinfo) -> datetime:
    """The first instant at which a voucher is worth nothing: the end of the local day `valid_days` after its issue."""
    return _midnight(issued_at.astimezone(zone).date() + timedelta(days=valid_days + 1), zone)


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


# --- vouchers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt a voucher is used on: whoever numbers receipts, and the number."""

    source: str
    external_id: str


def check_burn(status: str, burnt_on: Receipt | None, expires_at: datetime, receipt: Receipt, now: datetime) -> bool:
    """Whether a voucher is to be burnt now; False if it was burnt on this very receipt. Else the refusal."""
    if burnt_on == receipt:
        return False
    check_open(status)
    if now >= expires_at:
        raise VoucherExpired(extra={"expires_at": expires_at.isoformat()})
    return True


def check_open(status: str) -> None:
    """VoucherBurnt or VoucherCancelled for a voucher whose `status` is not `issued`."""
    if status == "burnt":
        raise VoucherBurnt
    if status == "cancelled":
        raise VoucherCancelled
