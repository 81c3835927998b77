"""How members rise and fall by what they buy. Pure.

A tier is reached by what counts in the window, never by a balance: spending does not lower it. `Course` follows a
member from change to change; whatever it needs to go on is its `State`, so that it can be left and taken up again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.programs import Rolling, SinceLastChange, Sums, TierTerms, Timeline
from app.tiers.record import Counted
from app.tiers.windows import MOMENT, Periods, Span

_PERIODS_AHEAD = 3
"""Who does nothing is where they will be after so many: one that is kept, one that is lost, one that was spared."""


class State(NamedTuple):
    """Where somebody stands by what they bought.

    `tier` since `since` (None: never changed). `begins`: from when the window counts that goes from the last change.
    `spared_until`: up to and with that instant nobody falls again. `short_since`: since when a moving window has had
    too little for the tier.
    """

    tier: str | None
    since: datetime | None
    begins: datetime
    spared_until: datetime | None = None
    short_since: datetime | None = None


class Change(NamedTuple):
    """From an instant on, another tier; None: none."""

    at: datetime
    tier: str | None


@dataclass(frozen=True)  # without slots: its parts are kept
class Scheme:
    """The tiers of a version of terms, for one member. `joined_at` tells when a year of theirs begins."""

    terms: TierTerms
    zone: ZoneInfo
    joined_at: datetime

    @cached_property
    def span(self) -> Span | None:
        """The window if it moves; else they are `periods`."""
        window = self.terms.window
        return Span(self.terms, window, self.zone) if isinstance(window, Rolling) else None

    @cached_property
    def periods(self) -> Periods:
        year_begins = self.terms.year_begins(self.joined_at.astimezone(self.zone).date())
        return Periods(self.terms, self.zone, year_begins)

    def window(self, at: datetime, state: State) -> tuple[datetime, datetime | None]:
        """From when to when purchases count that are made at `at`; one that moves has no end."""
        return (self.span.opens(at), None) if self.span else self.periods.of(at, state.begins)

    def resumed_from(self, at: datetime, state: State) -> tuple[datetime, datetime | None]:
        """From when on purchases have to be known to go on from `at`, and until when their sum is enough; None: they
        are needed one by one."""
        if self.span:
            return self.span.opens(at), None
        begins, ends = self.periods.of(at, state.begins)
        if self._first(begins, state) or state.tier is None or at >= self.periods.review_of(begins):
            return begins, ends
        return self.periods.before(begins, state.begins), None

    def _first(self, begins: datetime, state: State) -> bool:
        """Whether a period has none before it: it goes from the last change."""
        return isinstance(self.terms.window, SinceLastChange) and begins <= state.begins

    def deciding(self, falls_at: datetime, state: State) -> datetime:
        """From when on purchases count for not to fall at `falls_at`."""
        if self.span:
            return self.span.opens(falls_at)
        begins, _ = self.periods.of(falls_at, state.begins)
        return self.periods.before(begins, state.begins)

    def horizon(self, at: datetime, state: State) -> datetime:
        """By when somebody has fallen who buys nothing more and does not keep the tier for good."""
        if self.span:
            return self.span.review_of(self.span.leaves(max(at, state.spared_until or at)))
        ends = at
        for _ in range(_PERIODS_AHEAD):
            _, ends = self.periods.of(ends, state.begins)
        return self.periods.review_of(ends)

    def next(self, counted: Counted, state: State, after: datetime) -> datetime | None:
        """The next instant at which anything can change."""
        instants = self._moving(counted, state, after) if self.span else self._ending(counted, state, after)
        return min([each for each in instants if each > after], default=None)

    def _moving(self, counted: Counted, state: State, after: datetime) -> Iterator[datetime]:
        assert self.span is not None
        if (bought := counted.next(after + MOMENT)) is not None:
            yield bought
        for loss, _ in counted.losses:
            yield self.span.leaves(loss)  # what a return without a receipt took counts again
        if self.terms.downgrade == "none" or state.tier is None:
            return
        if state.short_since is not None:
            yield max(self.span.review_of(state.short_since), state.spared_until or state.short_since)
        oldest = counted.next(self.span.opens(after))
        if oldest is not None and oldest <= after:
            yield self.span.leaves(oldest)

    def _ending(self, counted: Counted, state: State, after: datetime) -> list[datetime]:
        at_once, falls = self.terms.upgrade == "at_once", self.terms.downgrade != "none" and state.tier is not None
        bought = counted.next(after + MOMENT) if at_once else None
        found = [] if bought is None else [bought]
        if falls or not at_once:
            begins, ends = self.periods.of(after, state.begins)
            found += (self.periods.review_of(begins), ends)
        return found

    def step(self, counted: Counted, state: State, at: datetime) -> State:
        """The state after what happens at `at`."""
        return self._move(counted, state, at) if self.span else self._end(counted, state, at)

    def _move(self, counted: Counted, state: State, at: datetime) -> State:
        assert self.span is not None
        reached = self.terms.reached(counted.between(self.span.opens(at), at + MOMENT))
        rank = self.terms.rank(state.tier)
        if reached >= rank:
            state = state._replace(short_since=None)
            return self._risen(state, reached, at) if reached > rank else state
        state = state._replace(short_since=state.short_since or at)
        assert state.short_since is not None
        due = max(self.span.review_of(state.short_since), state.spared_until or at)
        if self.terms.downgrade == "none" or at < due:
            return state
        fallen = self._fallen(state, reached, at)
        if self.terms.rank(fallen.tier) > reached:
            fallen = fallen._replace(short_since=at)
        step_by_step = self.terms.soft_landing or self.terms.downgrade == "one_step"
        return fallen._replace(spared_until=self.span.leaves(at)) if step_by_step else fallen

    def _end(self, counted: Counted, state: State, at: datetime) -> State:
        begins, _ = self.periods.of(at, state.begins)
        if not self._first(begins, state):
            state = self._reviewed(counted, state, at, begins)
            begins, _ = self.periods.of(at, state.begins)
        if self.terms.upgrade == "at_once":
            return self._raised(state, counted.between(begins, at + MOMENT), at)
        return state

    def _reviewed(self, counted: Counted, state: State, at: datetime, begins: datetime) -> State:
        """After the end of a period, if `at` is that, and after its days of grace."""
        if at == begins and self.terms.upgrade == "at_period_end":
            state = self._raised(state, counted.between(self.periods.before(begins, state.begins), begins), at)
        if at != self.periods.review_of(begins) or self.terms.downgrade == "none":
            return state
        reached = self.terms.reached(counted.between(self.periods.before(begins, state.begins), at))
        spared = state.spared_until is not None and at <= state.spared_until
        if reached >= self.terms.rank(state.tier) or spared:
            return state
        fallen = self._fallen(state, reached, at)
        if not self.terms.soft_landing:
            return fallen
        _, ends = self.periods.of(at, fallen.begins)
        return fallen._replace(spared_until=self.periods.review_of(ends))

    def _raised(self, state: State, sums: Sums, at: datetime) -> State:
        reached = self.terms.reached(sums)
        return self._risen(state, reached, at) if reached > self.terms.rank(state.tier) else state

    def _risen(self, state: State, rank: int, at: datetime) -> State:
        # what has lifted somebody is used up where the window goes from there
        return State(self.terms.codes[rank], at, at + MOMENT, state.spared_until)

    def _fallen(self, state: State, reached: int, at: datetime) -> State:
        rank = self.terms.rank(state.tier)
        rank = max(reached, self.terms.below(rank)) if self.terms.downgrade == "one_step" else reached
        return State(self.terms.codes[rank] if rank >= 0 else None, at, at)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of time with one scheme, or, where terms have no tiers, none; up to the next part."""

    begins: datetime
    scheme: Scheme | None


def same_for_all(terms: Timeline) -> bool:
    """Whether periods are the same whenever a member joined."""
    return not any(version.terms.tiers and version.terms.tiers.by_anniversary for version in terms.versions)


def parts(terms: Timeline, joined_at: datetime) -> list[Part]:
    """Time by versions of terms, the oldest first."""
    return [
        Part(
            version.effective_from,
            Scheme(version.terms.tiers, version.terms.zone, joined_at) if version.terms.tiers else None,
        )
        for version in terms.versions
    ]


class Course:
    """The way of a member through tiers, on from `at`, where they stand as `state` says."""

    def __init__(self, parts_: Sequence[Part], counted: Counted, at: datetime, state: State) -> None:
        self._parts, self._counted = parts_, counted
        self.at, self.state = at, state
        self.reached_at = at
        """When anything last could have changed."""
        self._enter(sum(part.begins <= at for part in parts_) - 1)

    def _enter(self, place: int) -> None:
        self._place = place
        self.scheme: Scheme | None = self._parts[place].scheme if place >= 0 else None
        """The tiers in force at `at`."""
        self._turn = self._parts[place + 1].begins if place + 1 < len(self._parts) else None

    @property
    def turns(self) -> set[datetime]:
        """When the parts of time begin."""
        return {part.begins for part in self._parts}

    def terms_at(self, instant: datetime) -> TierTerms | None:
        """The tiers in force at an instant."""
        schemes = [part.scheme for part in self._parts if part.begins <= instant]
        return schemes[-1].terms if schemes and schemes[-1] is not None else None

    def to(self, at: datetime) -> Iterator[Change]:
        """Goes on up to and with `at`; answers each change on the way."""
        while (following := self._next()) is not None and following <= at:
            before = self.state.tier
            self.state = self._after(following)
            self.at = self.reached_at = following
            if self.state.tier != before:
                yield Change(following, self.state.tier)
        self.at = max(self.at, at)

    def ahead(self) -> Change | None:
        """The next change if nothing more is bought. The course has gone there afterwards."""
        if self.state.tier is None and self._rises_by_purchases_only:
            return None
        starts = [(self.at, self.scheme), *((part.begins, part.scheme) for part in self._parts[self._place + 1 :])]
        ends = [scheme.horizon(begins, self.state) for begins, scheme in starts if scheme is not None]
        return next(self.to(max([*ends, *(begins for begins, _ in starts)])), None)

    @property
    def _rises_by_purchases_only(self) -> bool:
        """Whether time, and other terms to come, raise nobody."""
        if self._counted.losses or self._turn is not None:
            return False
        return self.scheme is None or self.scheme.terms.upgrade == "at_once"

    def _next(self) -> datetime | None:
        following = None if self.scheme is None else self.scheme.next(self._counted, self.state, self.at)
        if following is None or self._turn is None:
            return following or self._turn
        return min(following, self._turn)

    def _after(self, at: datetime) -> State:
        state = self.state
        if at == self._turn:
            old = self.scheme
            self._enter(self._place + 1)
            state = carried(state, old, self.scheme, at)
        return state if self.scheme is None else self.scheme.step(self._counted, state, at)


def carried(state: State, old: Scheme | None, new: Scheme | None, at: datetime) -> State:
    """The state under other terms: the same tier, or where there is none of its code the next lower one that stays."""
    if state.tier is None or (new is not None and new.terms.rank(state.tier) >= 0):
        return state
    codes = old.terms.codes[: old.terms.rank(state.tier)] if old is not None and new is not None else ()
    kept = next((code for code in reversed(codes) if new is not None and new.terms.rank(code) >= 0), None)
    return State(kept, at, at)
