"""What is stored of a standing, and how a purchase moves it, most often without looking at any other. Pure.

Whoever buys again and reaches no other tier by it only has their sums to change. Who may reach one, whose tier may have
changed with time, or whose purchase comes late, is followed anew: from where they were left, or from the beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Literal, NamedTuple
from uuid import UUID

from app.programs import Rolling, Sums, TierTerms, Timeline, Version, day_begins
from app.tiers.record import Counted, Credit, Decision, Record
from app.tiers.rules import Change, Course, Part, State, parts, same_for_all
from app.tiers.standing import Standing, standing, stood

Why = Literal["earned", "returned", "review", "terms", "manual", "invitation", "lock", "ended"]
"""What changed a tier: a purchase; what came back or was voided, or that undone; the end of a period or what left the
window; other terms; a decision of staff, or its end."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Present:
    """What holds `now`, for all members of a batch: the `version` of the terms in force, and its `tiers`."""

    def __init__(self, terms: Timeline, now: datetime) -> None:
        self.terms, self.now = terms, now
        versions = terms.until(now)
        self.version = versions[-1] if versions else None
        self.tiers = None if self.version is None else self.version.terms.tiers
        self._alike = list(takewhile(lambda version: _tiers_of(version) == _tiers_of(versions[-1]), reversed(versions)))
        self.same = [version.id for version in self._alike]
        """The versions up to the one in force that have had the same tiers all the while, the latest first."""
        self.others_ahead = any(_tiers_of(each) != _tiers_of(versions[-1]) for each in terms.after(now) if versions)
        """Whether other tiers have been published, to come: what they will count may be long ago."""
        self._parts = parts(terms, now) if same_for_all(terms) else None

    def parts(self, joined_at: datetime) -> Sequence[Part]:
        """Time by versions of terms, for a member."""
        return self._parts if self._parts is not None else parts(self.terms, joined_at)

    def held(self, at: datetime) -> bool:
        """Whether the same tiers held at an instant up to now."""
        return bool(self._alike) and at >= self._alike[-1].effective_from


def _tiers_of(version: Version) -> tuple[TierTerms | None, str]:
    return version.terms.tiers, version.terms.time_zone


class Kept(NamedTuple):
    """A standing as it is stored, since `recorded_at` under the terms `terms_id`.

    `counted` is what counted from `counted_from` on; where the window moves, at most that. It is enough to go on if
    there is a `sums_until`, the end of its period. By time alone nothing changes before `review_at`, and nobody has to
    be warned. The rest as in `Standing`.
    """

    terms_id: UUID
    tier: str | None
    since: datetime | None
    reached_at: datetime
    counted_from: datetime
    sums_until: datetime | None
    review_at: datetime | None
    decided: bool
    recorded_at: datetime
    state: State
    counted: Sums


def kept(stands: Standing, version: Version, now: datetime) -> Kept:
    """What is stored of a standing of `now`, by the `version` in force."""
    ahead = [at for at in (*warnings(stands, version), stands.until) if at is not None and at > now]
    return Kept(
        terms_id=version.id,
        tier=stands.tier,
        since=stands.since,
        state=stands.state,
        counted=stands.at_most,
        reached_at=stands.reached_at,
        counted_from=stands.counted_from or BEGINNING,
        sums_until=stands.sums_until,
        review_at=min(ahead, default=None),
        decided=stands.decided,
        recorded_at=now,
    )


def warnings(stands: Standing, version: Version) -> list[datetime]:
    """When to warn of a fall that is ahead: the beginnings of days so many ahead."""
    tiers, zone = version.terms.tiers, version.terms.zone
    if tiers is None or not tiers.warn_days or stands.until is None or not stands.falls:
        return []
    day = stands.until.astimezone(zone).date()
    return [day_begins(day - timedelta(days=days), zone) for days in tiers.warn_days]


# --- what has to be known -------------------------------------------------------------------------------------------


class Coming(NamedTuple):
    """A purchase that is about to count: when it happened, and what for at most; `points` None: that is not known."""

    counted_at: datetime
    spend: int
    points: int | None
    units: int = 0


def needed_from(stored: Kept, present: Present, coming: Sequence[Coming]) -> datetime | None:
    """From when on the member's record has to be read for what is coming, in this order; None: not at all."""
    if stored.terms_id not in present.same or stored.decided or present.others_ahead:
        return BEGINNING
    reached_at, tied = stored.reached_at, False
    for each in coming:
        # what is late counts in a window of before, and earns by the tier that stood then: neither is stored
        late = each.counted_at < stored.recorded_at or each.counted_at < reached_at
        if late or each.counted_at < stored.counted_from or not present.held(each.counted_at):
            return BEGINNING
        tied = tied or each.counted_at == reached_at
        reached_at = each.counted_at
    suffice = _sums_suffice(stored, present, coming)
    if tied and (not suffice or _due(stored, present.now) or _may_rise(present.tiers, stored, coming)):
        return BEGINNING  # who goes on from an instant has left it behind
    return None if suffice else stored.counted_from


def _sums_suffice(stored: Kept, present: Present, coming: Sequence[Coming]) -> bool:
    tiers = present.tiers
    if tiers is None:
        return False
    if not isinstance(tiers.window, Rolling):
        return stored.sums_until is not None  # all that counted is among them, also for a review of their period
    if stored.review_at is not None and present.now >= stored.review_at:
        return False
    # a tier that is short, or will be, falls by instants that only following it tells
    falls_at_once = tiers.grace_days == 0 and stored.state.spared_until is None
    return (stored.state.tier is None or falls_at_once) and not _may_rise(tiers, stored, coming)


def _due(stored: Kept, now: datetime) -> bool:
    """Whether time alone may have changed anything since."""
    return any(at is not None and at <= now for at in (stored.review_at, stored.sums_until))


def _may_rise(tiers: TierTerms | None, stored: Kept, coming: Sequence[Coming]) -> bool:
    if tiers is None or tiers.above(tiers.rank(stored.state.tier)) is None:
        return False
    if any(each.points is None for each in coming) and tiers.asks_for("points"):
        return True
    more = Sums(
        points=sum(each.points or 0 for each in coming),
        spend=sum(each.spend for each in coming),
        visits=len(coming),
        units=sum(each.units for each in coming),
    )
    return tiers.reached(stored.counted.plus(more)) > tiers.rank(stored.state.tier)


def asked_from(stored: Kept, present: Present) -> datetime | None:
    """The same for who asks where the member stands now: exactly, so where the window moves all of it is needed."""
    since, tiers = needed_from(stored, present, []), present.tiers
    return stored.counted_from if since is None and tiers and isinstance(tiers.window, Rolling) else since


# --- one member -----------------------------------------------------------------------------------------------------


class Moved(NamedTuple):
    """A change of a member's tier as history has it: what was known to stand before and from `at` on, and why."""

    at: datetime
    before: str | None
    after: str | None
    why: Why
    document_id: UUID | None


@dataclass(slots=True)
class Followed:
    """A member whose standing follows what is decided one after the other, all at the `present`.

    `stored`: as it was read, None: nothing ever counted. `credits`: those from where the member was left on (`whole`:
    all), None: not read, since the sums are enough. What is new is in `new` and `moved`; `kept` is to be stored if
    anything `changed`. Unless the member was found anew (`stands`), only what has `counted`, up to `reached_at`, has.
    """

    joined_at: datetime
    present: Present
    stored: Kept | None
    credits: list[Credit] | None = None
    decisions: list[Decision] = field(default_factory=list)
    whole: bool = True
    new: list[Credit] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    changed: bool = False
    stands: Standing | None = None
    """Found anew, where the sums were not enough."""
    counted: Sums = field(default_factory=Sums)
    reached_at: datetime = BEGINNING
    _kept: Kept | None = None

    def __post_init__(self) -> None:
        self._kept = self.stored
        if self.stored is None:
            self.credits = []
            return
        self.counted, self.reached_at = self.stored.counted, self.stored.reached_at
        if self.credits is not None or _due(self.stored, self.present.now):
            self._settle()

    @property
    def tier(self) -> str | None:
        """At `now`."""
        return None if self._kept is None else self._kept.tier

    @property
    def kept(self) -> Kept | None:
        """What is stored of the member from now on."""
        if self._kept is None or self.stands is not None or not self.changed:
            return self._kept
        return self._kept._replace(counted=self.counted, reached_at=self.reached_at, recorded_at=self.present.now)

    def tier_at(self, at: datetime) -> str | None:
        """What stood at an instant, as known now."""
        if self._kept is None:
            return None
        if self.credits is not None and self.whole and at < self.present.now:
            return standing(self._record(), self.present.terms, at, self.present.now).tier
        if self._kept.since is None or at >= self._kept.since:
            return self.tier
        before = [each.after for each in self.moved if each.at <= at]
        return before[-1] if before else None if self.stored is None else self.stored.tier

    @property
    def warned(self) -> Standing | None:
        """The standing, if the member has to be warned of its end by now, and was not."""
        version = self.present.version
        if self.stands is None or self.stored is None or version is None:
            return None
        due = [at for at in warnings(self.stands, version) if self.stored.recorded_at < at <= self.present.now]
        return self.stands if due else None

    def has(self, document_id: UUID) -> bool:
        """Whether a document counted; of a member whose whole record was read."""
        return any(each.document_id == document_id for each in self.credits or ())

    def count(self, credit: Credit, why: Why) -> None:
        """Lets something count, and the tier follow."""
        self.new.append(credit)
        self.changed = True
        if self.credits is not None:
            self.credits.append(credit)
        elif self._adds_only(credit):
            return
        self._follow(why, credit.document_id)

    def decide(self, decisions: Sequence[Decision], why: Why, document_id: UUID) -> None:
        """Puts other decisions in the place of those that were known."""
        self.decisions, self.changed = list(decisions), True
        self._follow(why, document_id)

    def _adds_only(self, credit: Credit) -> bool:
        """Whether all there is to do for a purchase in order was to add it to the sums."""
        stored, tiers = self.stored, self.present.tiers
        if stored is None or tiers is None or self.stands is not None:
            return False  # time has just moved the member, and this may have come before that
        if credit.counted_at < self.reached_at or credit.counted_at < stored.counted_from:
            return False
        sums = self.counted.plus(credit.sums)
        if tiers.reached(sums) > tiers.rank(stored.state.tier):
            return False
        self.counted, self.reached_at = sums, credit.counted_at
        return True

    def _follow(self, why: Why, document_id: UUID | None) -> None:
        self._keep(self._stands(), why, document_id)

    def _settle(self) -> None:
        """What has changed with time since the standing was stored, with the instant at which it did."""
        assert self.stored is not None
        stands = self._stands()
        for change in stands.history:
            if change.at > self.stored.recorded_at:
                self._move(change, _why_then(change.at, self.present.terms, self.decisions), None)
        self._keep(stands, "review", None)

    def _keep(self, stands: Standing, why: Why, document_id: UUID | None) -> None:
        self._move(Change(self.present.now, stands.tier), why, document_id)
        self.stands = stands
        if self.present.version is not None:
            self._kept = kept(stands, self.present.version, self.present.now)

    def _move(self, change: Change, why: Why, document_id: UUID | None) -> None:
        before = self.moved[-1].after if self.moved else None if self.stored is None else self.stored.tier
        if change.tier != before:
            self.moved.append(Moved(change.at, before, change.tier, why, document_id))

    def _stands(self) -> Standing:
        if self.credits is None and self.stored is not None:
            more = [(each.counted_at, each.sums) for each in self.new]
            return resumed(self.stored, self.joined_at, self.present, more)
        return found_again(self._record(), self.present, None if self.whole else self.stored)

    def _record(self) -> Record:
        return Record(self.joined_at, self.credits or [], self.decisions)


def found_again(record: Record, present: Present, stored: Kept | None) -> Standing:
    """The standing now: from the whole `record`; or from where it was `stored`, and what has counted since."""
    if stored is None:
        return standing(record, present.terms, present.now, present.now)
    return _gone_on(stored, record.joined_at, present, record.counted(present.now, present.now))


def resumed(
    stored: Kept, joined_at: datetime, present: Present, more: Sequence[tuple[datetime, Sums]] = ()
) -> Standing:
    """The standing now of somebody whose sums are enough, with what more has counted since."""
    return _gone_on(stored, joined_at, present, Counted.of([(stored.counted_from, stored.counted), *more]))


def _gone_on(stored: Kept, joined_at: datetime, present: Present, counted: Counted) -> Standing:
    course = Course(present.parts(joined_at), counted, stored.reached_at, stored.state)
    return stood(course, counted, [], present.now, present.now, stored.since)


def _why_then(at: datetime, terms: Timeline, decisions: Sequence[Decision]) -> Why:
    """Why a tier changed with time."""
    if any(version.effective_from == at for version in terms.versions):
        return "terms"
    return "ended" if any(each.until == at for each in decisions) else "review"
