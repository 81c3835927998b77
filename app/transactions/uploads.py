"""Carry out an upload: as one, or in parts where something is in the way of that."""

import time
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog
from fastapi import Response
from sqlalchemy.orm import Session

from app import db, idempotency
from app.db import Database, Patience, met_a_lock
from app.errors import Busy, InternalError, Problem
from app.halving import by_halves
from app.idempotency import Attempt, Reply
from app.transactions import service
from app.transactions.return_rules import Return
from app.transactions.service import Item, Outcome

_PAUSE_SECONDS = 0.2
"""Between tries, without a connection: uploads that wait for a lock must not have them all."""


class _OneIsRefused(Exception):
    """A refusal that no item of an upload can be given beside the others. It is no answer to the whole."""


def keys_of(item: Item) -> list[Hashable]:
    """The documents that an item names: itself, and what it takes back."""
    original = item.original if isinstance(item, Return) else None
    return [item.key] if original is None else [item.key, original]


def names_of(item: Item) -> list[Hashable]:
    """Whom an item is for, as it says."""
    return [] if item.member is None else list(item.member.given())


def carry_out(
    database: Database,
    attempt: Attempt,
    program_id: UUID,
    items: Sequence[Item],
    now: datetime,
    reply: Callable[[Sequence[Outcome]], Reply],
) -> Response:
    """What `reply` makes of an outcome for each item, once for the key of `attempt`; with or without one natural keys
    make a second run harmless.

    It is kept unless an item was refused for now: sent again, that gets its chance.
    """
    begun = False

    def as_one(session: Session) -> Reply:
        nonlocal begun
        begun = True
        try:
            with db.patient(session, Patience.BRIEF):
                outcomes = service.record(session, program_id, items, now)
        except Problem as problem:
            if problem.passing:
                raise
            raise _OneIsRefused from problem
        return reply(outcomes)

    try:
        return idempotency.carry_out(database, attempt, now, as_one, repeatable=True)
    except Exception as error:
        if not begun or (isinstance(error, Problem) and error.passing and not met_a_lock(error)):
            raise
        structlog.get_logger().warning("an upload is carried out in parts", exc_info=True)
    apart = reply(outcomes := record_in_parts(database, program_id, items, now))
    if any(isinstance(outcome, Problem) and outcome.passing for outcome in outcomes):
        return apart.response()
    return idempotency.carry_out(database, attempt, now, lambda _session: apart, repeatable=True)


def record_in_parts(database: Database, program_id: UUID, items: Sequence[Item], now: datetime) -> list[Outcome]:
    """An outcome for each item, in order: only what is to blame for the failure of the whole is refused.

    What somebody else has locked is tried again for as long as a request waits for a lock, and nothing that shares a
    member or a document with it overtakes it; the others do not wait.
    """
    until = time.monotonic() + database.lock_seconds
    people = database.read(lambda session: service.members_of(session, program_id, items))
    marks = [{*keys_of(item), member} - {None} for item, member in zip(items, people, strict=True)]
    outcomes: dict[int, Outcome] = {}
    refusals: dict[int, Problem] = {}
    left: Sequence[int] = range(len(items))
    while True:
        outcomes |= _Trial(database, program_id, items, marks, now, until, refusals).of(left)
        left = [place for place in left if place not in outcomes]
        if not left or time.monotonic() >= until:
            told = refusals | outcomes
            return [told[place] for place in range(len(items))]
        time.sleep(_PAUSE_SECONDS)


@dataclass(slots=True)
class _Trial:
    """One try of what is left of an upload. `marks`: by place, what an item must not overtake another about;
    `refusals`: by place, what is answered those that have to wait, once there is no time for it any more."""

    database: Database
    program_id: UUID
    items: Sequence[Item]
    marks: Sequence[Collection[Hashable]]
    now: datetime
    until: float
    refusals: dict[int, Problem]
    ahead: set[Hashable] = field(default_factory=set)
    """The marks of those that have to wait."""

    def of(self, places: Sequence[int]) -> dict[int, Outcome]:
        """The outcomes of what was in nobody's way, by place."""
        outcomes: dict[int, Outcome] = {}
        for part, result in by_halves(places, self._record, Patience.NONE):
            if isinstance(result, dict):
                outcomes |= result
            elif met_a_lock(result):
                self.ahead.update(self.marks[part[0]])
                self.refusals[part[0]] = result if isinstance(result, Problem) else Busy()
            else:
                outcomes |= dict.fromkeys(part, _refusal(result))
        return outcomes

    def _record(self, places: Sequence[int], patience: Patience) -> dict[int, Outcome]:
        ready = [place for place in places if not self._waits(place)]
        items = [self.items[place] for place in ready]

        def work(session: Session) -> list[Outcome]:
            with db.patient(session, patience):
                return service.record(session, self.program_id, items, self.now)

        made = self.database.write(work, repeatable=True) if items else []
        return dict(zip(ready, made, strict=True))

    def _waits(self, place: int) -> bool:
        """Whether an item is behind one that is blocked, or there is no time any more to look for who else is."""
        late = bool(self.refusals) and time.monotonic() >= self.until
        waits = late or not self.ahead.isdisjoint(self.marks[place])
        if waits:
            self.ahead.update(self.marks[place])
            self.refusals.setdefault(place, Busy())
        return waits


def _refusal(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    structlog.get_logger().error("item of a batch", exc_info=error)
    return InternalError()
