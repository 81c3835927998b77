"""When what was put aside for points is released: per cohort, by one formula. Pure, exact.

Sources: IFRS 15.B44-B47 (unexercised rights: revenue in proportion to the pattern of rights exercised) and .88
(changes after inception), IE267-IE270 (Example 52); ASC 606-10-55-46 ff.

    A allocated   N issued   X used   Z expired or forfeited   R recognised so far
    E = E0 x k     expected to be used in all: E0 at issue, k by the latest approved estimate
    E' = min(max(E, X), N - Z)
    target = A                   if N - X - Z = 0 or E' = 0
             A x X / E' rounded  otherwise

What is posted is target - R, so roundings never add up, and at the end of every cohort R is A. A release may be
negative: an estimate that rises reduces revenue.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from fractions import Fraction
from functools import lru_cache
from itertools import groupby
from typing import Literal
from uuid import UUID, uuid5

from app.accounting.postings import Event, Posting, leg
from app.accounting.rules import MILLION, Chart, Funding
from app.money import Rounding, round_to_int

ChangeCause = Literal["accrual", "return", "redemption", "expiry"]
ReleaseCause = Literal["return", "redemption", "expiry", "estimate"]

FOLDED_AS: tuple[ChangeCause, ...] = ("accrual", "return", "redemption", "expiry")
"""The order in which a fold takes the changes of one month: totals do not depend on it, the split by cause does."""


@dataclass(frozen=True, slots=True)
class CohortKey:
    """The pool a lot's revenue is recognised from. Lots of one key share one redemption estimate."""

    program_id: UUID
    currency: str
    month: date
    """First day of the month of `occurred_at`, in the programme's zone."""
    funding: Funding
    estimate_class: str
    """The redemption rate in force at issue, as a fraction in lowest terms: `2/3`."""

    @property
    def id(self) -> UUID:
        """The cohort's id, the same wherever it is computed, so that no accrual has to look it up."""
        return _cohort_id(self.program_id, self.currency, self.month, self.funding, self.estimate_class)


@lru_cache(maxsize=1024)
def _cohort_id(program_id: UUID, currency: str, month: date, funding: Funding, estimate_class: str) -> UUID:
    return uuid5(program_id, f"{currency}/{month:%Y-%m}/{funding}/{estimate_class}")


@dataclass(frozen=True, slots=True)
class CohortChange:
    """What a document, or a whole batch, does to one cohort in one month. What returns take back is negative.

    `period` is the accounting month that what follows from it is posted in, `occurred_at` the latest instant of what
    is in it. An accrual carries the `key`, from which the first fold makes the cohort, and neither uses nor expiries.
    """

    cohort_id: UUID
    program_id: UUID
    currency: str
    cause: ChangeCause
    period: date
    occurred_at: datetime
    key: CohortKey | None = None
    allocated: int = 0
    """Minor units."""
    residue: int = 0
    """What rounding cut off the exact shares, millionths of a minor unit."""
    issued: int = 0
    """Points."""
    expected: int = 0
    """Expected to be used, millionths of a point."""
    used: int = 0
    used_as_agent: int = 0
    """The part of `used` that went for rewards which we only broker."""
    expired: int = 0


FIGURES = ("allocated", "residue", "issued", "expected", "used", "expired")
"""What of a cohort adds up."""


def sum_changes(changes: Iterable[CohortChange]) -> list[CohortChange]:
    """One change per cohort, cause and month; by the cohorts' ids, and in the order in which a fold takes them."""
    return [_sum(list(alike)) for _, alike in groupby(sorted(changes, key=_place), key=_place)]


def _place(change: CohortChange) -> tuple[UUID, date, int]:
    return change.cohort_id, change.period, FOLDED_AS.index(change.cause)


def _sum(alike: Sequence[CohortChange]) -> CohortChange:
    sums = {name: sum(getattr(change, name) for change in alike) for name in (*FIGURES, "used_as_agent")}
    return replace(alike[0], occurred_at=max(change.occurred_at for change in alike), **sums)


# --- the formula ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CohortState:
    """A cohort as far as it is folded."""

    allocated: int = 0
    """A, minor units."""
    residue: int = 0
    """What rounding cut off the exact shares, millionths of a minor unit."""
    issued: int = 0
    """N, points."""
    expected: int = 0
    """E0, millionths of a point. Beyond 64 bits in a large cohort: tables keep whole points and millionths apart."""
    used: int = 0
    """X, points."""
    expired: int = 0
    """Z, points."""
    estimate: Fraction = Fraction(1)
    """k: what the latest approved estimate expects to be used, over what was expected at issue."""
    recognised: int = 0
    """R, minor units."""


@dataclass(frozen=True, slots=True)
class Release:
    """What a cohort releases for one cause in one month, minor units; negative takes back. It is never zero.

    `as_agent` is the part of `amount` that belongs to rewards which we only broker.
    """

    cause: ReleaseCause
    amount: int
    as_agent: int
    period: date
    occurred_at: datetime


def target(state: CohortState, rounding: Rounding = "half_even") -> int:
    """How much of what `state` allocated should be recognised by now, minor units."""
    used = max(state.used, 0)  # half-way through a fold a return may stand before the uses it takes back
    most = state.issued - state.expired
    expected = min(max(state.expected * state.estimate / MILLION, Fraction(used)), Fraction(most))
    if most <= used or expected == 0:
        return state.allocated
    return round_to_int(state.allocated * used / expected, rounding)


def fold(state: CohortState, changes: Iterable[CohortChange]) -> tuple[CohortState, list[Release]]:
    """The cohort after `changes` of it, and what that releases: month by month, in a month by `FOLDED_AS`.

    Accruals release nothing by themselves: what they change of the target goes with the next use, return or expiry.
    """
    releases: list[Release] = []
    for change in sum_changes(changes):
        sums = {name: getattr(state, name) + getattr(change, name) for name in FIGURES}
        state = replace(state, **sums)
        if change.cause != "accrual":
            due = target(state)
            as_agent = _agents_part(due - state.recognised, change) if change.cause == "redemption" else 0
            release = Release(change.cause, due - state.recognised, as_agent, change.period, change.occurred_at)
            state = replace(state, recognised=due)
            releases += [release] if release.amount else []
    return state, releases


def revise(
    state: CohortState, points: Fraction | int, period: date, occurred_at: datetime
) -> tuple[CohortState, list[Release]]:
    """The cohort when `points` are expected to be used in all, and what that releases (at most one release).

    ValueError where nothing was expected at issue: there is no proportion to change.
    """
    if state.expected <= 0:
        raise ValueError("nothing was expected to be used at issue")
    after = replace(state, estimate=points * MILLION / Fraction(state.expected))
    due = target(after)
    released = due - state.recognised
    releases = [Release("estimate", released, 0, period, occurred_at)] if released else []
    return replace(after, recognised=due), releases


def _agents_part(amount: int, change: CohortChange) -> int:
    """The part of a release for rewards which we only broker: in proportion to the points used for them, half-even."""
    if change.used == 0:
        return 0
    return round(amount * min(max(Fraction(change.used_as_agent, change.used), Fraction(0)), Fraction(1)))


# --- what a release posts -------------------------------------------------------------------------------------------


def release_postings(key: CohortKey, release: Release, accounts: Chart) -> list[Posting]:
    """What a release posts, in the cohort's own name. A negative one posts the other way round."""
    event = Event(key.program_id, key.id, key.currency, release.occurred_at, release.period, key.id)
    cause = release.cause
    if key.funding == "marketing":
        saved = accounts["cost_rewards" if cause == "redemption" else "marketing_points"]
        return leg(event, cause, accounts["provision_points"], saved, release.amount)
    liability = accounts["liability_points"]
    return [
        *leg(event, cause, liability, accounts["revenue_points"], release.amount - release.as_agent),
        *leg(event, cause, liability, accounts["revenue_commission"], release.as_agent),
    ]
