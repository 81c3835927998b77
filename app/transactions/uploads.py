"""Carry out an upload in parts, where something is in the way of doing it as one."""

import time
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app import db
from app.db import Database, Patience, met_a_lock
from app.errors import Busy, InternalError, Problem
from app.halving import by_halves
from app.transactions import service
from app.transactions.return_rules import Return
from app.transactions.service import Item, Outcome


def keys_of(item: Item) -> list[Hashable]:
    """The documents that an item names: itself, and what it takes back."""
    original = item.original if isinstance(item, Return) else None
    return [item.key] if original is None else [item.key, original]


def names_of(item: Item) -> list[Hashable]:
    """Whom an item is for, as it says."""
    return [] if item.member is None else list(item.member.given())


def record_in_parts(database: Database, program_id: UUID, items: Sequence[Item], now: datetime) -> list[Outcome]:
    """An outcome for each item, in order: only what is to blame for the failure of the whole is refused.

    What somebody else has locked is tried again for as long as a request waits for a lock, and nothing that shares a
    document or an identifier with it overtakes it; the others do not wait.
    """
    outcomes: dict[int, Outcome] = {}
    left, patience = dict(enumerate(items)), Patience.NONE
    until = time.monotonic() + database.lock_seconds
    while left:
        done, blocked = _try(database, program_id, left, now, patience)
        if time.monotonic() >= until:
            done |= blocked
        outcomes |= done
        left, patience = {place: item for place, item in left.items() if place not in done}, Patience.LONG
    return [outcomes[place] for place in range(len(items))]


def _try(
    database: Database, program_id: UUID, items: Mapping[int, Item], now: datetime, patience: Patience
) -> tuple[dict[int, Outcome], dict[int, Problem]]:
    """What came of items, by their place, and the refusals of those that are blocked if nobody waits any longer."""
    outcomes: dict[int, Outcome] = {}
    blocked: dict[int, Problem] = {}
    marks = {place: {*keys_of(item), *names_of(item)} for place, item in items.items()}
    ahead: set[Hashable] = set()

    def record(places: Sequence[int], patience: Patience) -> dict[int, Outcome]:
        ready = []
        for place in places:
            if ahead.isdisjoint(marks[place]):
                ready.append(place)
            else:
                ahead.update(marks[place])
                blocked.setdefault(place, Busy())
        made = _record(database, program_id, [items[place] for place in ready], now, patience)
        return dict(zip(ready, made, strict=True))

    for places, result in by_halves(list(items), record, patience):
        if isinstance(result, dict):
            outcomes |= result
        elif met_a_lock(result):
            ahead.update(marks[places[0]])
            blocked[places[0]] = result if isinstance(result, Problem) else Busy()
        else:
            outcomes |= dict.fromkeys(places, _refusal(result))
    return outcomes, blocked


def _record(
    database: Database, program_id: UUID, items: Sequence[Item], now: datetime, patience: Patience
) -> list[Outcome]:
    def work(session: Session) -> list[Outcome]:
        with db.patient(session, patience):
            return service.record(session, program_id, items, now)

    return database.write(work, repeatable=True) if items else []


def _refusal(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    structlog.get_logger().error("item of a batch", exc_info=error)
    return InternalError()
