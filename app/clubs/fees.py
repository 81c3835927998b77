"""Fees of memberships: shared with the points that come along, earned month by month, paid back. Pure.

Minor units; IFRS 15.73-86 for the shares, 15.35(a) for the months.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

from app.accounting import Allocation, Fee, allocate
from app.clubs.rules import Membership, month_end
from app.programs import Club, JoinedByFee, Terms


def points_with(membership: Membership, club: Club) -> int:
    """The points that a membership with a fee comes with."""
    assert isinstance(club.joining, JoinedByFee)
    return club.joining.welcome_points if membership.follows_id is None else club.joining.renewal_points


def shared(membership: Membership, points: int, terms: Terms) -> Allocation:
    """A fee, net of tax, shared between the membership and the points that come with it, by what each is sold for
    alone: the membership for that fee (IFRS 15.74)."""
    net = membership.fee - membership.tax
    price = points * terms.point_value.each * terms.redemption_rate.fraction
    return allocate(net, [net], Fraction(price), terms.allocation.method, terms.allocation.rounding)


def sold(membership: Membership, points: int, parts: Allocation, zone: ZoneInfo) -> Membership:
    """A membership with what of its fee is deferred for its time."""
    (deferred,) = parts.goods
    earns_at = month_end(membership.begins_at, 1, zone) if deferred else None
    return replace(membership, points=points, deferred=deferred, earns_at=earns_at)


@dataclass(frozen=True, slots=True)
class Earned:
    """A month of a membership that has passed at an instant: `amount` of its fee becomes revenue, minor units, in the
    accounting month of its last day."""

    at: datetime
    period: date
    amount: int


def recognised(membership: Membership, zone: ZoneInfo, now: datetime) -> tuple[Membership, list[Earned]]:
    """A membership at `now`, and each month of it that has passed since the last was recognised.

    Cumulative: what so many of its months come to, half-even, less what was recognised before. So they sum up exactly,
    however late anybody looks.
    """
    found = []
    while membership.earns_at is not None and membership.earns_at <= now:
        assert membership.months is not None
        passed, at = membership.passed + 1, membership.earns_at
        due = round(Fraction(membership.deferred * passed, membership.months))
        found.append(Earned(at, _month_before(at, zone), due - membership.recognised))
        following = month_end(membership.begins_at, passed + 1, zone) if passed < membership.months else None
        membership = replace(membership, passed=passed, recognised=due, earns_at=following)
    return membership, found


def _month_before(instant: datetime, zone: ZoneInfo) -> date:
    """First day of the month of the day that ends at `instant`."""
    return (instant.astimezone(zone).date() - timedelta(days=1)).replace(day=1)


def forfeited(membership: Membership) -> tuple[Membership, int]:
    """A membership that ends before its time without a refund, and what nothing is owed for any more."""
    rest = membership.left
    return replace(membership, recognised=membership.recognised + rest, earns_at=None), rest


def refunded(membership: Membership, points_part: int) -> tuple[Membership, Fee]:
    """A membership that ends with a refund, and what of its fee is paid back: what was not recognised, `points_part`
    for the points that are taken back with it, and the tax on both."""
    rest, net = membership.left, membership.fee - membership.tax
    tax = round(Fraction(membership.tax * (rest + points_part), net)) if net else 0
    return replace(membership, refunded=rest, earns_at=None), Fee(rest, points_part, tax)
