"""Expiry over time: points from before there was any get one, and members are warned ahead. A slice at a time.

Whoever moves points claims accounts here: what is due has happened to them, whatever jobs have run.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from uuid import UUID

from sqlalchemy.orm import Session

from app import ledger
from app.ids import new_id
from app.ledger import Account, Act, Ahead, Need, OpenLot
from app.programs.calendar import (
    Adoption,
    Timeline,
    Version,
    adoptions,
    lapses_at,
    warnings_before,
)
from app.programs.days import day_begins
from app.programs.service import timeline

# --- accounts with all that is due ----------------------------------------------------------------------------------


def claim(
    session: Session,
    program_id: UUID,
    member_ids: Iterable[UUID],
    now: datetime,
    lots: Collection[UUID] = (),
    needs: Mapping[UUID, Need] | None = None,
) -> dict[UUID, Account]:
    """`ledger.claim` for members of a programme. Points are gone, too, that expiry takes which was switched on after
    they were granted, whether or not a job has given them their end."""
    return _whole(session, program_id, set(member_ids), now, lots, needs, ledger.claim)


def look(
    session: Session,
    program_id: UUID,
    member_ids: Iterable[UUID],
    now: datetime,
    lots: Collection[UUID] = (),
    needs: Mapping[UUID, Need] | None = None,
) -> dict[UUID, Account]:
    """What `claim` answers, without the lock: for reads and dry runs."""
    return _whole(session, program_id, set(member_ids), now, lots, needs, ledger.look)


def _whole(
    session: Session,
    program_id: UUID,
    member_ids: Collection[UUID],
    now: datetime,
    lots: Collection[UUID],
    needs: Mapping[UUID, Need] | None,
    get: Callable[..., dict[UUID, Account]],
) -> dict[UUID, Account]:
    terms = timeline(session, program_id)
    gone = [adoption for adoption in adoptions(terms, now) if adoption.begins_to_take() <= now]
    late = {
        member_id
        for adoption in gone
        for member_id, theirs in ledger.staying_lots(session, (adoption.since, adoption.until), member_ids).items()
        if theirs
    }
    accounts = get(session, member_ids, now, terms.zone_at(now), {*lots, *late}, needs)
    adopted, _ = _adopt(session, gone, {id_: accounts[id_] for id_ in late}, now, terms.zone_at(now))
    return accounts | adopted


def ended(
    session: Session, program_id: UUID, lots: Mapping[UUID, OpenLot], member_ids: Collection[UUID], now: datetime
) -> dict[UUID, OpenLot]:
    """Used-up lots of some members with the end that an expiry switched on later gives them: should their points come
    back, they are as old as all others."""
    found = dict(lots)
    for adoption in adoptions(timeline(session, program_id), now) if lots else ():
        for id_ in ledger.staying(session, (adoption.since, adoption.until), member_ids, list(lots)):
            end = adoption.expires_at(found[id_].available_from)
            found[id_] = replace(found[id_], expires_at=end, lapses=end is None)
    return found


# --- expiry switched on ---------------------------------------------------------------------------------------------


def members_to_adopt(
    session: Session, program_id: UUID, terms: Timeline, as_of: datetime, after: UUID | None, limit: int
) -> Sequence[UUID]:
    """Members with points that never expired and are to go after all, since expiry was switched on by `as_of`."""
    spans = [(adoption.since, adoption.until) for adoption in adoptions(terms, as_of)]
    return ledger.staying_members(session, program_id, spans, after, limit) if spans else []


def adopt_expiry(session: Session, terms: Timeline, as_of: datetime, member_ids: Sequence[UUID], now: datetime) -> int:
    """Gives such points of some members their expiry; answers how many lots that were.

    Points that are held keep none until their hold ends. It is written down as of the instant the terms took effect.
    """
    zone = terms.zone_at(now)
    accounts = ledger.claim(session, member_ids, now, zone, member_ids)
    accounts, count = _adopt(session, adoptions(terms, as_of), accounts, now, zone)
    ledger.write(session, accounts.values(), now)
    return count


def _adopt(
    session: Session, adoptions: Iterable[Adoption], accounts: Mapping[UUID, Account], now: datetime, zone: tzinfo
) -> tuple[dict[UUID, Account], int]:
    """The accounts, which came with their lots, after `adoptions`; and how many lots those gave an end."""
    after, count = dict(accounts), 0
    for adoption in adoptions:
        at, by = adoption.version.effective_from, adoption.version.terms
        lots = ledger.staying_lots(session, (adoption.since, adoption.until), list(after))
        for member_id, account in after.items():
            chosen = _adopted(account, lots[member_id], adoption)
            if chosen:
                act = Act(account.program_id, new_id(), at, now, zone, lapses_at(at, by))
                after[member_id] = ledger.settle(ledger.adopt(account, chosen, act), now, zone)
                count += len(chosen)
    return after, count


def _adopted(account: Account, lot_ids: Sequence[UUID], adoption: Adoption) -> dict[UUID, datetime | None]:
    """The expiry each of these lots gets, unless the adoption before took it already."""
    lots = [account.lots[lot_id] for lot_id in lot_ids]
    return {lot.id: adoption.expires_at(lot.available_from) for lot in lots if lot.free}


# --- warnings -------------------------------------------------------------------------------------------------------


def points_to_warn_of(
    session: Session,
    program_id: UUID,
    terms: Timeline,
    since: datetime | None,
    as_of: datetime,
    after: Ahead | None,
    limit: int,
) -> list[Ahead]:
    """Points whose warning day began after `since` (None: at any time) and by `as_of`, and perhaps some others."""
    version = _warning(terms, as_of)
    expiry = None if version is None else version.terms.expiry
    if version is None or expiry is None:
        return []
    spans = []
    for days in expiry.warn_days:
        # an expiry on one of these days is so many days ahead of one that has begun
        until = _days_on(as_of, days + 1, version)
        start = as_of + timedelta(microseconds=1) if since is None else _days_on(since, days + 1, version)
        if start < until:
            spans.append((start, until))
    return ledger.expiring_ahead(session, program_id, spans, after, limit) if spans else []


def warn_of_expiry(
    session: Session, program_id: UUID, terms: Timeline, as_of: datetime, found: Sequence[Ahead], now: datetime
) -> int:
    """Sends the warnings that are due by `as_of`, each once for ever; answers how many were new.

    Of several days that have passed unwarned only the last counts; a day that had begun before the points were
    granted warns of nothing.
    """
    version = _warning(terms, as_of)
    if version is None:
        return 0
    warnings = []
    for ahead in found:
        days = [day for day in warnings_before(ahead.expires_at, version.terms) if ahead.granted_at < day <= as_of]
        if days and as_of < ahead.expires_at:
            warnings.append((ahead, days[-1]))
    return ledger.warn(session, program_id, warnings, now)


def _warning(terms: Timeline, as_of: datetime) -> Version | None:
    """The terms that say when to warn: those in force, or the last that had expiry; points may have kept theirs."""
    past = [version for version in terms.versions if version.effective_from <= as_of and version.terms.expiry]
    return past[-1] if past else None


def _days_on(instant: datetime, days: int, version: Version) -> datetime:
    zone = version.terms.zone
    return day_begins(instant.astimezone(zone).date() + timedelta(days=days), zone)
