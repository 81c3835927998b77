"""Who is given what by campaigns, and when. Pure.

An occasion is judged by the terms in force when it falls, whenever a worker comes by: so a late worker gives what one
in time would have given. Nothing is given for occasions of before a campaign was in the terms.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from types import UnionType
from typing import Any, NamedTuple
from uuid import UUID

from app.members import GATES, Person
from app.programs import (
    Anniversary,
    Birthday,
    Campaign,
    CustomEvent,
    Referral,
    SignUp,
    Timeline,
    Version,
    WinBack,
    day_begins,
)

SIGN_UP = "sign_up"
"""The key of the one occasion of its kind."""

COMMITTED_LATER = timedelta(minutes=10)
"""How long after a member's `enrolled_at` others may first see the member: a request that enrols may be under way."""

UPLOADED_LATER = timedelta(days=60)
"""How long after a referral campaign is over a friend's purchase of its days is still looked for."""


# --- whose turn it is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """A campaign of one version of the terms, as long as that is in force: before `until`; None: still."""

    version: Version
    campaign: Campaign
    place: int
    """Among the campaigns of its version."""
    until: datetime | None

    def contains(self, at: datetime) -> bool:
        """Whether it is for an occasion of that instant."""
        in_force = self.version.effective_from <= at and (self.until is None or at < self.until)
        return in_force and self.campaign.covers(self.day(at))

    def over(self, since: datetime) -> bool:
        """Whether it is for nothing that falls after `since`."""
        occasion, last_day = self.campaign.occasion, self.campaign.last_day
        if isinstance(occasion, Referral):
            since -= timedelta(days=occasion.wait_days) + UPLOADED_LATER
        return (self.until is not None and self.until <= since) or (last_day is not None and last_day < self.day(since))

    def day(self, at: datetime) -> date:
        """The day an instant falls on, in the programme's zone."""
        return at.astimezone(self.version.terms.zone).date()

    @property
    def turn(self) -> tuple[int, int]:
        """Of campaigns that compete the lowest goes first."""
        return self.campaign.priority, self.place


@dataclass(frozen=True, slots=True)
class Round:
    """A walk through members for what falls after `since` (None: ever) and by `as_of`.

    `newcomers`: only those who joined meanwhile have anything to get.
    """

    windows: tuple[Window, ...]
    since: datetime | None
    as_of: datetime
    newcomers: bool

    def falls(self, at: datetime) -> bool:
        return (self.since is None or self.since < at) and at <= self.as_of

    def has(self, kind: type[SignUp | Birthday | Anniversary | WinBack | Referral]) -> bool:
        """Whether any campaign is for occasions of a kind."""
        return any(isinstance(window.campaign.occasion, kind) for window in self.windows)


def rounds(terms: Timeline, since: datetime | None, as_of: datetime) -> list[Round]:
    """The walks that find all that is due by `as_of` when all that was due by `since` is given (None: nobody knows).

    Whoever joins is looked for each time; everything else falls at the beginning of a day.
    """
    found = []
    recent = None if since is None else since - COMMITTED_LATER
    if on_joining := _windows(terms, recent, as_of, SignUp):
        found.append(Round(on_joining, recent, as_of, newcomers=True))
    on_days = _windows(terms, since, as_of, Birthday | Anniversary | WinBack | Referral)
    if on_days and (since is None or any(each.day(since) < each.day(as_of) for each in on_days)):
        found.append(Round(on_days, since, as_of, newcomers=False))
    return found


def _windows(
    terms: Timeline, since: datetime | None, as_of: datetime, kinds: type[Any] | UnionType
) -> tuple[Window, ...]:
    ends = [*(version.effective_from for version in terms.versions[1:]), None]
    known = [
        Window(version, campaign, place, until)
        for version, until in zip(terms.versions, ends, strict=bool(terms.versions))
        if version.effective_from <= as_of
        for place, campaign in enumerate(version.terms.campaigns)
        if isinstance(campaign.occasion, kinds)
    ]
    return tuple(window for window in known if since is None or not window.over(since))


def latest(terms: Timeline, now: datetime) -> dict[str, tuple[Campaign, bool]]:
    """By code, each campaign as the latest terms have it that know it, and whether the terms in force do."""
    in_force = terms.at(now)
    return {
        campaign.code: (campaign, version is in_force)
        for version in terms.versions
        if version.effective_from <= now
        for campaign in version.terms.campaigns
    }


# --- what is due ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bought:
    """A purchase, and what is left of its total, minor units."""

    at: datetime
    left: int


@dataclass(frozen=True, slots=True)
class Friend:
    """Somebody a member brought: by whom, whether the referrer may earn, and what the friend has bought since, oldest
    first."""

    referrer_id: UUID
    referrer_earns: bool
    bought: Sequence[Bought]


@dataclass(frozen=True, slots=True)
class Known:
    """A member, with when they last bought; and if somebody brought them, with that."""

    person: Person
    bought_at: datetime | None = None
    friend: Friend | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """An occasion of a member's, at the instant from which it is due. Of a referral the member is the friend."""

    window: Window
    member_id: UUID
    occasion: str
    at: datetime
    friend: Friend | None = None

    @property
    def day(self) -> date:
        return self.window.day(self.at)

    @property
    def tiers(self) -> Collection[str]:
        """One of which the member has to have been in; none: it does not matter."""
        return self.window.campaign.who.tiers

    @property
    def concerns(self) -> set[UUID]:
        """The members who may be given something."""
        return {self.member_id} if self.friend is None else {self.member_id, self.friend.referrer_id}


def due(known: Known, round_: Round) -> list[Due]:
    """What falls for a member in a round, given before or not: of each campaign whose audience has such a profile."""
    if not GATES[known.person.status].earn:
        return []
    return [
        Due(window, known.person.id, falling.occasion, falling.at, falling.friend)
        for window in round_.windows
        if window.campaign.who.missed(known.person.customer) is None
        for falling in _falling(known, window, round_)
        if window.contains(falling.judged_at)
    ]


def awaited(version: Version, event: str) -> bool:
    """Whether any campaign of a version is for an event."""
    occasions = (campaign.occasion for campaign in version.terms.campaigns)
    return any(isinstance(each, CustomEvent) and each.event == event for each in occasions)


def due_for(person: Person, terms: Timeline, event: str, key: str, at: datetime) -> list[Due]:
    """What an event that happened `at` an instant is worth to a member, given before or not. `key`: which one it is.

    The clock of who reports it may be behind, so one of the day of joining counts as a member's.
    """
    if not GATES[person.status].earn:
        return []
    return [
        Due(window, person.id, key, at)
        for window in _windows(terms, None, at, CustomEvent)
        if isinstance(window.campaign.occasion, CustomEvent)
        and window.campaign.occasion.event == event
        and window.contains(at)
        and window.day(at) >= window.day(person.enrolled_at)
        and window.campaign.who.missed(person.customer) is None
    ]


class _Falling(NamedTuple):
    """An occasion: its key, the instant at which it falls, and the one by which it is judged whether it counts."""

    occasion: str
    at: datetime
    judged_at: datetime
    friend: Friend | None = None


def _falling(known: Known, window: Window, round_: Round) -> Iterator[_Falling]:
    """The occasions of one campaign that fall in a round."""
    person, occasion = known.person, window.campaign.occasion
    if isinstance(occasion, SignUp):
        moments = [(SIGN_UP, person.enrolled_at)]
    elif isinstance(occasion, Referral):
        yield from _referral(known, occasion, window, round_.as_of)
        return
    else:
        first = window.day(max(window.version.effective_from, round_.since or person.enrolled_at, person.enrolled_at))
        zone, days = window.version.terms.zone, _days(known, window, first, window.day(round_.as_of))
        moments = [(key, day_begins(day, zone)) for key, day in days]
    for key, at in moments:
        if round_.falls(at) and at >= person.enrolled_at:
            yield _Falling(key, at, at)


def _referral(known: Known, referral: Referral, window: Window, as_of: datetime) -> Iterator[_Falling]:
    """The friend's first purchase that is large enough, once it has been kept for so many days; in whichever round that
    is seen, for a purchase may be uploaded late. It is judged by when it was made.

    A till's clock may be behind, so a purchase of the day of joining counts as made by a member.
    """
    bought, joined_on = known.friend.bought if known.friend is not None else (), window.day(known.person.enrolled_at)
    least = max(referral.minimum_spend, 1)
    made = [each for each in bought if each.left >= least and window.day(each.at) >= joined_on]
    if made:
        day = window.day(made[0].at) + timedelta(days=referral.wait_days)
        at = day_begins(day, window.version.terms.zone)
        if at <= as_of:
            yield _Falling(str(known.person.id), at, made[0].at, known.friend)


def _days(known: Known, window: Window, first: date, last: date) -> Iterable[tuple[str, date]]:
    match window.campaign.occasion:
        case Birthday() as birthday if known.person.customer.born_on is not None:
            return birthday.days(known.person.customer.born_on, first, last)
        case Anniversary() as anniversary:
            return anniversary.days(window.day(known.person.enrolled_at), first, last)
        case WinBack() as win_back if known.bought_at is not None:
            return win_back.days(window.day(known.bought_at), first, last)
        case _:
            return ()


# --- what is given --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Given:
    """What a campaign gave a member before: of which occasion, and the day of that."""

    campaign: str
    member_id: UUID
    occasion: str
    day: date


@dataclass(frozen=True, slots=True)
class Bonus:
    """Points to give a member on an occasion."""

    due: Due
    member_id: UUID
    points: int

    @property
    def campaign(self) -> str:
        return self.due.window.campaign.code


@dataclass(slots=True)
class _Books:
    """What was given so far, before and by this decision."""

    occasions: set[tuple[UUID, str, str]] = field(default_factory=set)
    times: Counter[tuple[UUID, str]] = field(default_factory=Counter)
    last: dict[tuple[UUID, str], date] = field(default_factory=dict)
    days: dict[tuple[UUID, date], set[str]] = field(default_factory=dict)
    """By member and day, the campaigns."""
    points: Counter[str] = field(default_factory=Counter)
    friends: Counter[tuple[UUID, str]] = field(default_factory=Counter)
    """By member and campaign, what was given for others."""

    def note(self, given: Given) -> None:
        key = given.member_id, given.campaign
        self.occasions.add((*key, given.occasion))
        self.times[key] += 1
        self.friends[key] += given.occasion != str(given.member_id)
        self.last[key] = max(given.day, self.last.get(key, given.day))
        self.days.setdefault((given.member_id, given.day), set()).add(given.campaign)

    def has(self, due: Due) -> bool:
        return (due.member_id, due.window.campaign.code, due.occasion) in self.occasions


def not_given(dues: Iterable[Due], before: Iterable[Given]) -> list[Due]:
    """What of it was not given before."""
    books = _Books()
    for given in before:
        books.note(given)
    return [due for due in dues if not books.has(due)]


def decide(dues: Iterable[Due], before: Iterable[Given], points: Mapping[str, int]) -> list[Bonus]:
    """What is given of what is due, in the order in which it fell; on one day by the priority of the campaigns.

    `before`: all that these members were given; `points`: what each campaign has given to everybody.
    """
    books = _Books(points=Counter(points))
    for given in before:
        books.note(given)
    bonuses: list[Bonus] = []
    for due in sorted(dues, key=lambda due: (due.at, *due.window.turn, due.member_id)):
        if not books.has(due) and _stands(due, books):
            bonuses += _given(due, books)
    return bonuses


def _stands(due: Due, books: _Books) -> bool:
    """Whether a campaign's limits and its group let it give something on an occasion."""
    campaign = due.window.campaign
    rival = _rivals(due) & books.days.get((due.member_id, due.day), set())
    last = books.last.get((due.member_id, campaign.code))
    if rival or _rests(due, last) or not _may_have_more(due.member_id, campaign, books):
        return False
    return campaign.budget is None or books.points[campaign.code] + campaign.cost <= campaign.budget


def _may_have_more(member_id: UUID, campaign: Campaign, books: _Books) -> bool:
    most = campaign.most_per_member
    return most is None or books.times[member_id, campaign.code] < most


def _rests(due: Due, last: date | None) -> bool:
    """Whether it is too soon after the last time."""
    occasion = due.window.campaign.occasion
    return (
        isinstance(occasion, WinBack)
        and last is not None
        and due.day < last + timedelta(days=occasion.again_after_days)
    )


def _rivals(due: Due) -> set[str]:
    """The campaigns of its group, itself among them."""
    group = due.window.campaign.group
    return {each.code for each in due.window.version.terms.campaigns if group is not None and each.group == group}


def _given(due: Due, books: _Books) -> list[Bonus]:
    """What an occasion that stands gives: of a referral, the referrer too, unless they may not earn or have brought
    enough friends."""
    campaign = due.window.campaign
    bonuses = [Bonus(due, due.member_id, campaign.points)]
    referral, friend = campaign.occasion, due.friend
    if isinstance(referral, Referral) and friend is not None and friend.referrer_earns:
        brought = books.friends[friend.referrer_id, campaign.code]
        enough = referral.most_friends is not None and brought >= referral.most_friends
        if not enough and _may_have_more(friend.referrer_id, campaign, books):
            bonuses.append(Bonus(due, friend.referrer_id, referral.referrer_points))
    for bonus in bonuses:
        books.note(Given(campaign.code, bonus.member_id, due.occasion, due.day))
        books.points[campaign.code] += bonus.points
    return bonuses


def end_of_life(bonus: Bonus) -> datetime | None:
    """The first instant at which its points are gone, if the campaign says so itself."""
    days = bonus.due.window.campaign.good_for_days
    if days is None:
        return None
    return day_begins(bonus.due.day + timedelta(days=days + 1), bonus.due.window.version.terms.zone)


def budgets(bonuses: Sequence[Bonus]) -> dict[str, int | None]:
    """The budget of each campaign that gives something, by the terms by which it gives last."""
    return {bonus.campaign: bonus.due.window.campaign.budget for bonus in bonuses}
