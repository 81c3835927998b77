"""What is known of a member that tiers rest on: what counted, and what staff decided. Pure.

Two times, as everywhere: a purchase counts in the window of `counted_at`, when it happened. What came back of it counts
there, too, from its own `occurred_at` on: as if it had not been bought. `recorded_at` says since when that is known.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from operator import itemgetter
from typing import Literal, NamedTuple
from uuid import UUID

from app.programs import Sums

DecisionKind = Literal["manual", "invitation", "lock"]
"""A tier that staff gave: the member has at least this one. A lock: exactly this one, whatever they buy."""


class Credit(NamedTuple):
    """What a purchase or a claim counts, or what a return or a void takes from that: then negative."""

    document_id: UUID
    counted_at: datetime
    occurred_at: datetime
    recorded_at: datetime
    sums: Sums


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody of staff decided, from when it was recorded until it ends: by itself, or at `ended_at`."""

    id: UUID
    kind: DecisionKind
    tier: str | None
    begins_at: datetime
    until: datetime
    ended_at: datetime | None = None

    def ends_at(self, known_at: datetime) -> datetime:
        """When it ends, as known at an instant."""
        return self.until if self.ended_at is None or self.ended_at > known_at else min(self.until, self.ended_at)

    def stands(self, at: datetime, known_at: datetime) -> bool:
        return self.begins_at <= at < self.ends_at(known_at)


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of a member, in any order."""

    joined_at: datetime
    credits: Sequence[Credit] = ()
    decisions: Sequence[Decision] = ()

    def counted(self, at: datetime, known_at: datetime) -> "Counted":
        """What counts of what happened up to `at` and was known at `known_at`."""
        known = (each for each in self.credits if each.recorded_at <= known_at and each.occurred_at <= at)
        return Counted.of((each.counted_at, each.sums) for each in known)

    def decided(self, known_at: datetime) -> list[Decision]:
        return [each for each in self.decisions if each.begins_at <= known_at]


@dataclass(frozen=True, slots=True)
class Counted:
    """What counted, in the order in which it did, with the sums up to each instant."""

    instants: Sequence[datetime] = ()
    totals: Sequence[Sums] = field(default=(Sums(),))
    """Before the first instant, and after each."""
    losses: Sequence[tuple[datetime, Sums]] = ()
    """Where less was bought than came back, for once without a receipt: how much less."""

    @staticmethod
    def of(credits_: Iterable[tuple[datetime, Sums]]) -> "Counted":
        instants: list[datetime] = []
        totals, less = [Sums()], False
        for instant, sums in sorted(credits_, key=itemgetter(0)):
            total, less = totals[-1].plus(sums), less or min(sums) < 0
            if instants and instants[-1] == instant:
                totals[-1] = total
            else:
                instants.append(instant)
                totals.append(total)
        steps = zip(instants, pairwise(totals), strict=True) if less else ()
        each = ((at, after.less(before)) for at, (before, after) in steps)
        return Counted(instants, totals, [(at, sums.lost) for at, sums in each if min(sums) < 0])

    def between(self, begins: datetime, ends: datetime) -> Sums:
        """The sums from an instant on and before another."""
        first, last = bisect_left(self.instants, begins), bisect_left(self.instants, ends)
        return self.totals[last].less(self.totals[first]) if first < last else Sums()

    def gained(self, begins: datetime, ends: datetime) -> Sums:
        """The same without losses: what is left when those have gone out of a window, and more."""
        sums = self.between(begins, ends)
        for at, lost in self.losses:
            sums = sums.plus(lost) if begins <= at < ends else sums
        return sums

    def next(self, after: datetime) -> datetime | None:
        """The first instant from `after` on at which anything counted."""
        place = bisect_left(self.instants, after)
        return self.instants[place] if place < len(self.instants) else None
