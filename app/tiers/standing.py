"""A member's standing: which tier, since when, until when, and what is missing. Pure: a record, terms and a date in.

What was earned and what staff decided are kept apart: a decision raises or locks the tier while it stands, and when it
ends the member is where their purchases have put them meanwhile.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from app.programs import Sums, Tier, TierTerms, Timeline
from app.tiers.record import Counted, Decision, Record
from app.tiers.rules import Change, Course, Scheme, State, parts
from app.tiers.windows import MOMENT


class Standing(NamedTuple):
    """Where a member stands at an instant.

    `tier` (None: none) since `since` (None: never another). `until`: when that changes if nothing more is bought, into
    `projected`; None: never. `counted`: in the window, from `begins` until `ends` (None: it moves along). `decided`: a
    decision stands; the `state` is without it. `at_most`: what may be counted later of what counts until now.
    `reached_at`, `counted_from` and `sums_until`: how to go on from here (`Scheme.resumed_from`). `known` is what all
    of it was found from.
    """

    tier: str | None
    since: datetime | None
    until: datetime | None
    projected: str | None
    counted: Sums
    begins: datetime | None
    ends: datetime | None
    decided: bool
    state: State
    at_most: Sums
    reached_at: datetime
    counted_from: datetime | None
    sums_until: datetime | None
    at: datetime
    scheme: Scheme | None
    known: Counted
    history: Sequence[Change] = ()
    """All changes up to now, the oldest first."""

    @property
    def falls(self) -> bool:
        """Whether what comes is a lower tier."""
        return self.until is not None and self._rank(self.projected) < self._rank(self.tier)

    @property
    def keep(self) -> Mapping[str, int]:
        """What is missing, by measure, so as not to lose a tier that was earned."""
        if self.scheme is None or self.until is None or not self.falls or self.tier != self.state.tier:
            return {}
        mine = self.scheme.terms.tier(self.tier)
        if mine is None or mine.qualification is None:
            return {}
        deciding = self.scheme.deciding(self.until, self.state)
        return mine.qualification.missing(self.known.between(deciding, self.at + MOMENT))

    @property
    def next(self) -> str | None:
        """The next higher tier that can be reached."""
        above = self._above
        return None if above is None else above.code

    @property
    def missing(self) -> Mapping[str, int]:
        """What is missing for that, by measure, where one is enough unless all are needed."""
        above = self._above
        return {} if above is None or above.qualification is None else above.qualification.missing(self.counted)

    @property
    def _above(self) -> Tier | None:
        return None if self.scheme is None else self.scheme.terms.above(self._rank(self.tier))

    def _rank(self, tier: str | None) -> int:
        return -1 if self.scheme is None else self.scheme.terms.rank(tier)


def standing(record: Record, terms: Timeline, at: datetime, known_at: datetime) -> Standing:
    """Where a member stood at `at`, by what was known at `known_at`; at any date, as often as it is asked."""
    counted = record.counted(at, known_at)
    begins = min([record.joined_at, *counted.instants[:1]])
    course = Course(parts(terms, record.joined_at), counted, begins - MOMENT, State(None, None, begins))
    return stood(course, counted, record.decided(known_at), at, known_at)


def stood(
    course: Course,
    counted: Counted,
    decisions: Sequence[Decision],
    at: datetime,
    known_at: datetime,
    since: datetime | None = None,
) -> Standing:
    """The same, from where a `course` has got to; the tier there has stood `since` an instant."""
    before = course.state
    earned = [Change(before.since or course.at, before.tier), *course.to(at)]
    state, scheme, reached_at = course.state, course.scheme, course.reached_at
    history = list(_decided(earned, decisions, course, known_at, at))
    now = history[-1]
    window = (None, None) if scheme is None else scheme.window(at, state)
    resumed = (None, None) if scheme is None else scheme.resumed_from(at, state)
    known = Sums() if window[0] is None else counted.between(window[0], at + MOMENT)
    coming = _coming(course, state, decisions, at, known_at, now.tier)
    return Standing(
        tier=now.tier,
        since=now.at if len(history) > 1 else since,
        until=None if coming is None else coming.at,
        projected=now.tier if coming is None else coming.tier,
        counted=known,
        begins=window[0],
        ends=window[1],
        decided=any(each.stands(at, known_at) for each in decisions),
        state=state,
        at_most=known if scheme is None or not scheme.span else counted.gained(window[0] or at, at + MOMENT),
        reached_at=reached_at,
        counted_from=resumed[0],
        sums_until=resumed[1],
        at=at,
        scheme=scheme,
        known=counted,
        history=history,
    )


def overlaid(
    earned: str | None, decisions: Sequence[Decision], terms: TierTerms | None, at: datetime, known_at: datetime
) -> str | None:
    """The tier at an instant, by what was `earned` and what was decided: a lock holds it, the highest given raises it.
    A tier that the terms have no more is none."""
    standing_ = [each for each in decisions if each.stands(at, known_at)]
    if terms is None or not standing_:
        return earned
    locks = [each for each in standing_ if each.kind == "lock"]
    if locks:
        return locks[-1].tier if terms.rank(locks[-1].tier) >= 0 else None
    rank = max([terms.rank(earned), *(terms.rank(each.tier) for each in standing_)])
    return terms.codes[rank] if rank >= 0 else None


def _decided(
    earned: Sequence[Change], decisions: Sequence[Decision], course: Course, known_at: datetime, at: datetime
) -> Iterator[Change]:
    """The changes of a tier, decisions included."""
    if not decisions:
        yield from earned
        return
    turns = {each.begins_at for each in decisions} | {each.ends_at(known_at) for each in decisions} | course.turns
    instants = sorted({change.at for change in earned} | {turn for turn in turns if earned[0].at < turn <= at})
    place, before, first = 0, None, True
    for instant in instants:
        while place + 1 < len(earned) and earned[place + 1].at <= instant:
            place += 1
        tier = overlaid(earned[place].tier, decisions, course.terms_at(instant), instant, known_at)
        if first or tier != before:
            yield Change(instant, tier)
        before, first = tier, False


def _coming(
    course: Course, state: State, decisions: Sequence[Decision], at: datetime, known_at: datetime, tier: str | None
) -> Change | None:
    """The next change of a tier, if nothing more is bought and nothing more decided."""
    if not decisions:
        return course.ahead()
    turns = sorted(each.ends_at(known_at) for each in decisions if each.stands(at, known_at))
    earned, change = state.tier, course.ahead()
    while turns or change is not None:
        if change is not None and not (turns and turns[0] < change.at):
            instant, earned = change.at, change.tier
            change = course.ahead()
        else:
            instant = turns.pop(0)
        terms = None if course.scheme is None else course.scheme.terms
        if (found := overlaid(earned, decisions, terms, instant, known_at)) != tier:
            return Change(instant, found)
    return None
