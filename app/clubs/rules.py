"""Who belongs to a club and until when: joined, renewed, ended. Pure.

A membership is for whole days of the programme's zone, the one on which it begins included: joined on 22 November for
twelve months, it is good to the end of 21 November. One that renews another begins when that ends.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from app.errors import Problem
from app.ids import new_id
from app.programs import (
    Club,
    JoinedByFee,
    JoinedByPromise,
    JoinedByPurchase,
    Line,
    Timeline,
    Version,
    add_months,
    day_begins,
)

Why = Literal["purchase", "promise", "fee"]
"""What brought a membership."""

EndedWhy = Literal["over", "renewed", "not_kept", "left", "refunded", "returned"]
"""How a membership ended: its time was over, or over with another that goes on; a promise was not kept; the member
left, without a refund or with one; the purchase that brought it came back."""


class ClubUnknown(Problem):
    """The terms in force have no club of this code."""

    status, code, title, final = 422, "club_unknown", "There is no such club", True


class JoinedByBuying(Problem):
    """Members join this club by a purchase, and not otherwise."""

    status, code, title, final = 422, "joined_by_buying", "The club is joined by a purchase", True


class ReceiptOfFee(Problem):
    """A club with a fee is joined with the receipt of the fee, any other without one."""

    status, code, title, final = 422, "receipt_of_fee", "A receipt belongs to a fee", True


class AlreadyInClub(Problem):
    """The member belongs to the club, and it is too soon to renew."""

    status, code, title, final = 409, "already_in_club", "The member is in the club already", True


class NotInClub(Problem):
    """The member has no membership that could be ended: none was agreed, or it is over."""

    status, code, title, final = 409, "not_in_club", "The member is not in the club", True


class MembershipConflict(Problem):
    """This receipt has paid for another membership. Number the receipt anew."""

    status, code, title, final = 409, "membership_conflict", "The receipt has paid for another membership", True


@dataclass(frozen=True, slots=True)
class Membership:
    """A membership; fields as the columns of `models.ClubMembership`."""

    id: UUID
    program_id: UUID
    member_id: UUID
    club: str
    why: Why
    document_id: UUID
    terms_id: UUID
    begins_at: datetime
    until_at: datetime | None
    ends_at: datetime | None
    currency: str
    recorded_at: datetime
    months: int | None = None
    follows_id: UUID | None = None
    ended_why: EndedWhy | None = None
    ended_at: datetime | None = None
    ended_reason: str | None = None
    promised: int | None = None
    spent: int = 0
    source: str | None = None
    external_id: str | None = None
    fee: int = 0
    tax: int = 0
    deferred: int = 0
    points: int = 0
    recognised: int = 0
    refunded: int = 0
    passed: int = 0
    earns_at: datetime | None = None
    warn_at: datetime | None = None

    @property
    def open(self) -> bool:
        """Whether nobody has written an end down."""
        return self.ended_why is None

    @property
    def left(self) -> int:
        """What is deferred still, minor units."""
        return self.deferred - self.recognised - self.refunded

    def stands(self, at: datetime) -> bool:
        return self.begins_at <= at and (self.ends_at is None or at < self.ends_at)

    def lasts_to(self, instant: datetime) -> bool:
        """Whether the end that stands is not before an instant."""
        return self.ends_at is None or instant <= self.ends_at

    def row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS = tuple(each.name for each in fields(Membership))


@dataclass(frozen=True, slots=True)
class Joining:
    """Who becomes a member of which programme, when, and by which document."""

    program_id: UUID
    member_id: UUID
    document_id: UUID
    at: datetime
    recorded_at: datetime


def month_end(begins_at: datetime, months: int, zone: ZoneInfo) -> datetime:
    """The end of so many months from the day of `begins_at` on."""
    return day_begins(add_months(begins_at.astimezone(zone).date(), months), zone)


def _begun(joining: Joining, club: Club, version: Version, begins_at: datetime, **facts: Any) -> Membership:
    months, zone = club.joining.months, version.terms.zone
    until = None if months is None else month_end(begins_at, months, zone)
    return Membership(
        program_id=joining.program_id,
        member_id=joining.member_id,
        club=club.code,
        why=club.joining.type,
        terms_id=version.id,
        begins_at=begins_at,
        until_at=until,
        ends_at=until,
        currency=version.terms.currency,
        recorded_at=joining.recorded_at,
        months=months,
        warn_at=_warned_at(begins_at, until, club, zone),
        **facts,
    )


def _warned_at(begins_at: datetime, until: datetime | None, club: Club, zone: ZoneInfo) -> datetime | None:
    """When to tell of an end: on a day so many before it; not where that is before the beginning."""
    if until is None or club.warn_days is None:
        return None
    at = day_begins(until.astimezone(zone).date() - timedelta(days=club.warn_days), zone)
    return at if at > begins_at else None


# --- by a purchase --------------------------------------------------------------------------------------------------


def brought(
    joining: Joining, version: Version, lines: Sequence[Line], bases: Sequence[int], mine: Iterable[Membership]
) -> list[Membership]:
    """The memberships that a purchase brings to who has those that are `mine`; none for good beside another."""
    known = list(mine)
    found = []
    for club in version.terms.clubs:
        if isinstance(club.joining, JoinedByPurchase) and club.joining.met(lines, bases):
            new = _begun(joining, club, version, joining.at, id=new_id(), document_id=joining.document_id)
            # one for good is asked of one purchase only: else each would leave a row that is open for ever
            if new.ends_at is not None or not any(_within(new, each) for each in known):
                found.append(new)
    return found


def _within(one: Membership, other: Membership) -> bool:
    if one.club != other.club or not other.begins_at <= one.begins_at:
        return False
    return other.ends_at is None or (one.ends_at is not None and one.ends_at <= other.ends_at)


def kept(
    membership: Membership, version: Version, lines: Sequence[Line], bases: Sequence[int], at: datetime, now: datetime
) -> Membership:
    """A membership after something of the purchase that brought it came back at an instant, or that was undone.

    `bases`: of what is left. It ends when that would not have been enough, and goes on when it is again.
    """
    club = version.terms.club(membership.club)
    assert club is not None
    enough = isinstance(club.joining, JoinedByPurchase) and club.joining.met(lines, bases)
    if enough and membership.ended_why == "returned":
        return replace(membership, ends_at=membership.until_at, ended_why=None, ended_at=None)
    if enough or membership.ended_why == "returned" or (membership.ends_at is not None and membership.ends_at <= at):
        return membership
    return replace(membership, ends_at=max(at, membership.begins_at), ended_why="returned", ended_at=now)


# --- by a promise or a fee ------------------------------------------------------------------------------------------


def joined(joining: Joining, club: Club, version: Version, mine: Iterable[Membership]) -> Membership:
    """The membership of somebody who joins a club at an instant, or renews. JoinedByBuying, AlreadyInClub.

    What of a fee is for the membership is said by `fees.sold`.
    """
    how = club.joining
    if isinstance(how, JoinedByPurchase):
        raise JoinedByBuying
    own = [each for each in mine if each.club == club.code and each.open]
    last = max(own, key=lambda each: each.begins_at, default=None)
    if last is not None and not _may_follow(last, how, joining.at, version.terms.zone):
        raise AlreadyInClub
    begins_at = joining.at if last is None or last.ends_at is None else last.ends_at
    facts = {"id": joining.document_id, "document_id": joining.document_id}
    more = {"follows_id": None if last is None else last.id}
    if isinstance(how, JoinedByPromise):
        return _begun(joining, club, version, begins_at, promised=how.spend, **facts, **more)
    return _begun(joining, club, version, begins_at, fee=how.fee, tax=how.tax, **facts, **more)


def _may_follow(last: Membership, how: JoinedByPromise | JoinedByFee, at: datetime, zone: ZoneInfo) -> bool:
    if isinstance(how, JoinedByPromise) or last.ends_at is None or not last.stands(at):
        return False
    first_day = last.ends_at.astimezone(zone).date() - timedelta(days=how.sold_ahead_days)
    return at >= day_begins(first_day, zone)


# --- a promise counts -----------------------------------------------------------------------------------------------


def counts_for(membership: Membership, counted_at: datetime, occurred_at: datetime) -> bool:
    """Whether something that counts for tiers in the window of `counted_at` counts for a promise: it was bought in its
    time, and what came back of it came back before the end."""
    return (
        membership.promised is not None
        and membership.open
        and membership.stands(counted_at)
        and membership.stands(occurred_at)
    )


# --- ends -----------------------------------------------------------------------------------------------------------


def settled(mine: Iterable[Membership], terms: Timeline, now: datetime) -> list[Membership]:
    """A member's memberships at `now`: those whose time is over have ended, promises that were kept go on."""
    found = {each.id: each for each in mine}
    while over := [each for each in found.values() if each.open and each.ends_at is not None and each.ends_at <= now]:
        first = min(over, key=lambda each: (each.ends_at, each.id))
        after = _renewal(first, terms, now)
        if after is not None:
            found[after.id] = after
        found[first.id] = replace(first, ended_why=_why_over(first, found.values()), ended_at=now)
    return list(found.values())


def _renewal(membership: Membership, terms: Timeline, now: datetime) -> Membership | None:
    """The membership that follows a promise that was kept, under the terms in force then."""
    assert membership.ends_at is not None
    version = terms.at(membership.ends_at)
    club = None if version is None else version.terms.club(membership.club)
    if version is None or club is None or not _was_kept(membership):
        return None
    if not isinstance(club.joining, JoinedByPromise) or not club.joining.renews:
        return None
    id_ = new_id()
    joining = Joining(membership.program_id, membership.member_id, id_, membership.ends_at, now)
    facts = {"promised": club.joining.spend, "follows_id": membership.id}
    return _begun(joining, club, version, membership.ends_at, id=id_, document_id=id_, **facts)


def _was_kept(membership: Membership) -> bool:
    return membership.promised is not None and membership.spent >= membership.promised


def ending(membership: Membership, mine: Iterable[Membership]) -> bool:
    """Whether nothing follows the end of a membership."""
    at = membership.ends_at
    return at is not None and not any(
        each.club == membership.club and each.id != membership.id and each.stands(at) for each in mine
    )


def _why_over(membership: Membership, mine: Iterable[Membership]) -> EndedWhy:
    if not ending(membership, mine):
        return "renewed"
    return "over" if membership.promised is None or _was_kept(membership) else "not_kept"


def ended(
    mine: Iterable[Membership], club: str, why: Literal["left", "refunded"], reason: str, now: datetime
) -> list[Membership]:
    """The memberships by promise and fee of one club that go on or are to come, ended now. NotInClub."""
    found = [each for each in mine if each.club == club and each.open and each.why != "purchase"]
    if not found:
        raise NotInClub
    return [
        replace(each, ends_at=max(now, each.begins_at), ended_why=why, ended_at=now, ended_reason=reason)
        for each in sorted(found, key=lambda each: each.begins_at)
    ]


# --- where a member belongs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Belonging:
    """A club that a member belongs to at an instant: since when without a gap, until when as it is now (None: for
    good), by which membership, and whether it is that of somebody else in the household."""

    club: str
    since: datetime
    until: datetime | None
    by: Membership
    household: bool = False


def belongings(mine: Iterable[Membership], at: datetime) -> Iterator[Belonging]:
    """The clubs that memberships are good for at an instant, by code."""
    by_club: dict[str, list[Membership]] = {}
    for each in mine:
        by_club.setdefault(each.club, []).append(each)
    for club in sorted(by_club):
        standing = [each for each in by_club[club] if each.stands(at)]
        if standing:
            yield _belonging(club, by_club[club], standing)


def _belonging(club: str, mine: Sequence[Membership], standing: Sequence[Membership]) -> Belonging:
    by = max(standing, key=lambda each: (each.ends_at is None, each.ends_at or each.begins_at, each.begins_at))
    since = min(each.begins_at for each in standing)
    while before := [each for each in mine if each.begins_at < since and each.lasts_to(since)]:
        since = min(each.begins_at for each in before)
    until = by.ends_at
    while until is not None and (after := [each for each in mine if each.stands(until)]):
        ends = [each.ends_at for each in after]
        until = None if None in ends else max(each for each in ends if each is not None)
    return Belonging(club, since, until, by)
