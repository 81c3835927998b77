"""What may be given, and who gives how much when a pool is drawn on. Pure."""

from collections.abc import Collection
from datetime import UTC, datetime
from uuid import UUID

from app import ledger
from app.errors import Problem
from app.ledger import Account, InsufficientPoints
from app.programs import Terms


class TransferNotOffered(Problem):
    """By the programme's terms members cannot give each other points."""

    status, code, title, final = 422, "transfer_not_offered", "Points cannot be given away", True


class TransferToSelf(Problem):
    """`from` and `to` are the same member, perhaps by two identifiers."""

    status, code, title, final = 422, "transfer_to_self", "Giver and receiver are the same member", True


class TransferBelowMinimum(Problem):
    """The terms ask for at least `transfers.minimum` points."""

    status, code, title, final = 422, "transfer_below_minimum", "That is less than can be given", True


class TransferAboveLimit(Problem):
    """The terms limit what is given at once, and by one member in a local day; `left` says what could be given now."""

    status, code, title, final = 422, "transfer_above_limit", "That is more than can be given now", True


class PoolNotOffered(Problem):
    """By the programme's terms members cannot put their points together."""

    status, code, title, final = 422, "pool_not_offered", "There are no pools", True


class PoolFull(Problem):
    """The terms let at most `pools.most_members` be in one pool."""

    status, code, title, final = 409, "pool_full", "The pool is full", True


class AlreadyInPool(Problem):
    """A member is in one pool at most. Let them leave the other one first."""

    status, code, title, final = 409, "already_in_pool", "The member is in another pool", True


class NotInPool(Problem):
    """Only who is in the pool can draw on it."""

    status, code, title, final = 422, "not_in_pool", "The member is not in this pool", True


def check_gift(points: int, given_today: int, terms: Terms) -> None:
    """Refuses a gift that the terms do not let a member make who has given so much today. TransferNotOffered,
    TransferBelowMinimum, TransferAboveLimit."""
    policy = terms.transfers
    if policy is None:
        raise TransferNotOffered
    if points < policy.minimum:
        raise TransferBelowMinimum(f"at least {policy.minimum} points", extra={"minimum": policy.minimum})
    limits = [policy.most_at_once]
    limits.append(None if policy.most_per_day is None else max(0, policy.most_per_day - given_today))
    left = min((limit for limit in limits if limit is not None), default=None)
    if left is not None and points > left:
        raise TransferAboveLimit(f"{left} points can be given now", extra={"left": left})


_NEVER = datetime.max.replace(tzinfo=UTC)


def missing(account: Account, points: int) -> int:
    """How many points have to arrive so that `points` are available: arriving points pay debt first."""
    return max(0, points - account.available + account.debt)


def shares(givers: Collection[Account], points: int) -> dict[UUID, int]:
    """Who gives how many of `points`: soonest-expiring first over all of them, then by member. InsufficientPoints.

    The part of each is what spending would take from them first, so `ledger.transfer` takes just these lots.
    """
    steps = [
        (account.expiry_of(lot) or _NEVER, account.member_id, lot.free)
        for account in givers
        for lot in ledger.spendable(account)
    ]
    parts: dict[UUID, int] = {}
    for _, member_id, free in sorted(steps):
        part = min(free, points)
        if part:
            parts[member_id] = parts.get(member_id, 0) + part
            points -= part
    if points:
        raise InsufficientPoints.by(points)
    return parts
