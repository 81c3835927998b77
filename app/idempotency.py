"""Retries with an `Idempotency-Key`: the first outcome is kept for 30 days, in the transaction that made it.

The key row is inserted in the same database transaction as the effect, so there is no moment in which one exists
without the other. A business refusal is an outcome too and is kept; a crash, a schema error or a 503 is not.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Header, Request, Response
from sqlalchemy import ColumnElement, LargeBinary, delete, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, Session, mapped_column
from starlette.concurrency import run_in_threadpool

from app import db
from app.clock import Clock
from app.coalesce import Gatherer
from app.errors import MEDIA_TYPE, Finding, Problem

T = TypeVar("T")
Result = TypeVar("Result")

KEPT = timedelta(days=30)


class IdempotencyKeyMissing(Problem):
    """Send an `Idempotency-Key` header: a new one per operation, the same one when you repeat it."""

    status, code, title = 400, "idempotency_key_missing", "An Idempotency-Key is needed"


class IdempotencyKeyInvalid(Problem):
    """An `Idempotency-Key` has 1 to 255 visible ASCII characters."""

    status, code, title = 400, "idempotency_key_invalid", "The Idempotency-Key is malformed"


class IdempotencyKeyReused(Problem):
    """This `Idempotency-Key` came before with another request. Use a new key for a new operation."""

    status, code, title = 422, "idempotency_key_reused", "The Idempotency-Key belongs to another request"


class IdempotencyInProgress(Problem):
    """The same request is being worked on. Repeat it in a moment to get its answer."""

    status, code, title, retry_after = 409, "idempotency_in_progress", "The same request is still running", 1


REFUSALS = (IdempotencyKeyInvalid, IdempotencyKeyReused, IdempotencyInProgress)
"""What a route with an optional key may refuse with; one that requires it adds `IdempotencyKeyMissing`."""


class IdempotencyRecord(db.Base):
    """The outcome of one keyed request of one client. `status` and `body` are null only inside its transaction."""

    __tablename__ = "idempotency_key"

    client_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    status: Mapped[int | None]
    media_type: Mapped[str | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(index=True)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that may be a repetition. Without a key it is simply carried out."""

    client_id: UUID
    key: str | None
    fingerprint: str
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished answer: status, bytes, whether it was given before, and the refusal it is, if it is a new one."""

    status: int
    body: bytes
    media_type: str = "application/json"
    replayed: bool = False
    refusal: Problem | None = None

    def response(self) -> Response:
        """The answer as HTTP. A new refusal is raised, now that it is kept, to leave like any other."""
        if self.refusal is not None:
            raise self.refusal
        headers = {"Idempotent-Replayed": "true"} if self.replayed else {}
        if self.media_type == MEDIA_TYPE:
            headers["Cache-Control"] = "no-store"
        return Response(self.body, self.status, headers, self.media_type)


NOT_YET = Reply(0, b"")
"""The outcome of an attempt that has to be made after the others: in the next batch it is what it would be alone."""


Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="1-255 visible ASCII characters; the answer is kept for 30 days"),
]


async def attempt_of(request: Request, client_id: UUID, key: str | None, *, required: bool) -> Attempt:
    """The attempt in `request`. IdempotencyKeyMissing or IdempotencyKeyInvalid when its key will not do."""
    if key is None and required:
        raise IdempotencyKeyMissing(findings=[Finding("Idempotency-Key", "missing", "1 to 255 visible characters")])
    if key is not None and not (1 <= len(key) <= 255 and key.isascii() and key.isprintable() and " " not in key):
        raise IdempotencyKeyInvalid(findings=[Finding("Idempotency-Key", "malformed", "1 to 255 visible characters")])
    request_id = request.scope.get("state", {}).get("request_id")
    if key is None:
        return Attempt(client_id, None, "", request_id)
    body = await request.json() if await request.body() else None
    told = [request.method, request.scope["route"].path, dict(request.path_params), body]
    # keyed: a body may be little more than a phone number, which a plain hash would give away
    mark = hmac.new(request.app.state.pepper, _canonical(told), hashlib.sha256).hexdigest()
    return Attempt(client_id, key, mark, request_id)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str).encode()


def once(session: Session, attempt: Attempt, now: datetime, act: Callable[[], Reply]) -> Reply:
    """The reply of `act`, or the one it gave the first time this key came: `each_once` for one, whose refusal is
    raised. Its writes are undone if it refuses."""
    if attempt.key is None:
        return act()
    (outcome,) = each_once(session, [attempt], now, lambda new: [apart(session, act) for _ in new])
    return raised(outcome)


def apart(session: Session, act: Callable[[], Reply | Problem]) -> Reply | Problem:
    """The reply or the refusal of `act`; what it had written when it raised one is undone."""
    try:
        with session.begin_nested():
            return act()
    except Problem as problem:
        return problem


def raised(outcome: Reply | Problem) -> Reply:
    """A reply; a refusal is raised."""
    if isinstance(outcome, Problem):
        raise outcome
    return outcome


def each_once(
    session: Session,
    attempts: Sequence[Attempt],
    now: datetime,
    act: Callable[[Sequence[int]], Sequence[Reply | Problem]],
) -> list[Reply | Problem]:
    """What comes of each attempt: what `act` makes of it, or what that gave the first time its key came.

    `act` gets the places of those that are new, and must have written nothing for those it refuses; a refusal is kept
    when it is `final`. IdempotencyKeyReused for another request under the same key; `NOT_YET` if the first of them was
    refused and its refusal is not kept, so that the key is free. Raises IdempotencyInProgress when a first one is still
    running elsewhere.
    """
    keys: dict[_Key, int] = {}
    for place, attempt in enumerate(attempts):
        if attempt.key is not None:
            keys.setdefault(_key(attempt), place)
    if not keys:
        return list(act(range(len(attempts))))
    won = _claim(session, [attempts[place] for _, place in sorted(keys.items())], now)
    known = _known(session, sorted(keys.keys() - won))
    new = [
        place
        for place, attempt in enumerate(attempts)
        if attempt.key is None or (_key(attempt) in won and keys[_key(attempt)] == place)
    ]
    outcomes = dict(zip(new, act(new), strict=True))
    kept = {place: _kept(attempts[place], outcomes[place]) for place in new if attempts[place].key is not None}
    _keep(session, [(attempts[place], reply) for place, reply in kept.items()])
    for place, attempt in enumerate(attempts):
        if place in outcomes:
            outcomes[place] = kept.get(place) or outcomes[place]
        elif _key(attempt) in won:
            first = keys[_key(attempt)]
            same = attempt.fingerprint == attempts[first].fingerprint
            if kept[first] is None:  # refused for now: one after the other, the same again would be refused alike
                outcomes[place] = outcomes[first] if same else NOT_YET
            else:
                outcomes[place] = _again(attempt, attempts[first].fingerprint, kept[first])
        else:
            outcomes[place] = _again(attempt, *known[_key(attempt)])
    return [outcomes[place] for place in range(len(attempts))]


def carry_out(
    database: db.Database,
    attempt: Attempt,
    now: datetime,
    act: Callable[[Session], Reply],
    *,
    repeatable: bool = False,
    dry_run: bool = False,
) -> Response:
    """Runs `act` in one transaction, `once`, and makes its reply the response.

    `repeatable`: a second run is harmless even without a key. A `dry_run` reads only, and keeps nothing.
    """
    if dry_run:
        return database.read(act).response()
    reply = database.write(
        lambda session: once(session, attempt, now, lambda: act(session)),
        repeatable=repeatable or attempt.key is not None,
    )
    return reply.response()


Act = Callable[[Session, Sequence[T], datetime], Sequence[Reply | Problem]]
"""Carries out requests of one kind: a reply or a refusal for each, in order; it has written nothing for a refusal. What
it raises is the refusal of a single one; several are then halved until it stands alone."""


class Writer:
    """Carries out writes that come one by one, each `once`, gathered in batches of one transaction (`coalesce`)."""

    def __init__(self, database: db.Database, clock: Clock, gatherer: Gatherer):
        self._database, self._clock, self._gatherer = database, clock, gatherer

    async def carry_out(
        self,
        lane: Hashable,
        act: Act[T],
        attempt: Attempt,
        item: T,
        keys: Collection[Hashable] = (),
        members: Collection[Hashable] = (),
    ) -> Response:
        """What `act` makes of `item`, committed, as the response. All that is asked for in one `lane` is one batch:
        `act` depends on nothing else. A second run of `item` must be harmless: by the key of `attempt`, or its own.

        `keys` are the documents that `item` names, `members` those whose accounts it needs. Items that share one are
        not worked on at the same moment, and wait for each other if somebody else has locked their rows.
        """
        of_attempt = () if attempt.key is None else (_key(attempt),)
        run = partial(self._batch, act)
        while True:
            reply = await self._gatherer.ask(lane, run, (attempt, item), (*keys, *of_attempt), members)
            if reply is not NOT_YET:
                return reply.response()

    async def try_out(self, act: Act[T], item: T) -> Response:
        """What `act`, which must write nothing, makes of `item`: a dry run."""

        def work(session: Session) -> Reply:
            return raised(act(session, [item], self._clock())[0])

        return (await run_in_threadpool(self._database.read, work)).response()

    async def each(
        self,
        verb: Callable[..., Sequence[Result | Problem]],
        program_id: UUID,
        attempt: Attempt,
        item: T,
        reply: Callable[[T, Result, datetime], Reply],
        *,
        keys: Collection[Hashable] = (),
        members: Collection[Hashable] = (),
        dry_run: bool = False,
        **options: Any,
    ) -> Response:
        """What `verb(session, program_id, items, now, **options)`, which has a `dry_run` if this may be one, makes of
        `item`, as `reply` tells it. All that is asked of a verb for a programme is one lane, so `reply` and `options`
        depend on nothing else, but for a dry run. `keys` and `members` as in `carry_out`, of the programme."""

        def act(session: Session, items: Sequence[T], now: datetime) -> list[Reply | Problem]:
            outcomes = verb(session, program_id, items, now, **options)
            told = zip(items, outcomes, strict=True)
            return [done if isinstance(done, Problem) else reply(each, done, now) for each, done in told]

        if dry_run:
            options["dry_run"] = True
            return await self.try_out(act, item)
        ours, theirs = ([(program_id, name) for name in names] for names in (keys, members))
        return await self.carry_out((verb, program_id), act, attempt, item, ours, theirs)

    def _batch(
        self, act: Act[T], batch: Sequence[tuple[Attempt, T]], patience: db.Patience
    ) -> Sequence[Reply | Problem]:
        now = self._clock()

        def work(session: Session) -> Sequence[Reply | Problem]:
            def new(places: Sequence[int]) -> Sequence[Reply | Problem]:
                items = [batch[place][1] for place in places]
                if len(items) == 1:
                    return [apart(session, lambda: act(session, items, now)[0])]
                return act(session, items, now) if items else []

            return each_once(session, [attempt for attempt, _ in batch], now, new)

        return self._database.write(work, repeatable=True, patience=patience)


Kept = tuple[datetime, UUID, str]
"""A key that was used: when, by which client, and the key itself."""


def outlived(session: Session, now: datetime, after: Kept | None, limit: int) -> list[Kept]:
    """The keys of outcomes older than `KEPT`, the oldest first, from the one after `after`; at most `limit`."""
    columns = [IdempotencyRecord.created_at.expression, *_columns()]
    rows = select(*columns).where(IdempotencyRecord.created_at < now - KEPT).order_by(*columns).limit(limit)
    if after is not None:
        rows = rows.where(IdempotencyRecord.created_at >= after[0], db.beyond(columns, after))
    return [(at, client_id, key) for at, client_id, key in session.execute(rows)]


def forget(session: Session, outlived: Sequence[Kept]) -> int:
    """Deletes outcomes; answers how many."""
    these = db.any_row_of(session, _columns(), [(client_id, key) for _, client_id, key in outlived])
    return int(getattr(session.execute(delete(IdempotencyRecord).where(these)), "rowcount", 0))


_Key = tuple[UUID, str | None]


def _key(attempt: Attempt) -> _Key:
    return attempt.client_id, attempt.key


def _columns() -> list[ColumnElement[Any]]:
    return [IdempotencyRecord.client_id.expression, IdempotencyRecord.key.expression]


def _claim(session: Session, attempts: Sequence[Attempt], now: datetime) -> set[_Key]:
    """Takes the keys nobody has had; answers which those were."""
    rows = [
        {"client_id": attempt.client_id, "key": attempt.key, "fingerprint": attempt.fingerprint, "created_at": now}
        for attempt in attempts
    ]
    try:
        won = db.claim_rows(session, IdempotencyRecord, rows, ["client_id", "key"])
    except DBAPIError as error:
        if db.row_locked(error):
            raise IdempotencyInProgress from error
        raise
    return {(row["client_id"], row["key"]) for row in won}


def _known(session: Session, keys: Sequence[_Key]) -> dict[_Key, tuple[str, Reply | None]]:
    """The fingerprints and replies that are kept under keys."""
    found: dict[_Key, tuple[str, Reply | None]] = dict.fromkeys(keys, ("", None))  # forgotten since we collided with it
    if keys:
        stored = session.scalars(select(IdempotencyRecord).where(db.any_row_of(session, _columns(), keys)))
        for row in stored:
            reply = None if row.status is None else Reply(row.status, row.body or b"", row.media_type or "")
            found[row.client_id, row.key] = row.fingerprint, reply
    return found


def _again(attempt: Attempt, fingerprint: str, first: Reply | None) -> Reply | Problem:
    if first is None:
        return IdempotencyInProgress()
    if fingerprint != attempt.fingerprint:
        return IdempotencyKeyReused()
    return replace(first, replayed=True, refusal=None)


def _kept(attempt: Attempt, outcome: Reply | Problem) -> Reply | None:
    """The reply that is kept; None for a refusal that a retry may turn into something else."""
    if isinstance(outcome, Reply):
        return outcome
    if not outcome.final:
        return None
    body = json.dumps(outcome.body() | {"request_id": attempt.request_id}, ensure_ascii=False)
    return Reply(outcome.status, body.encode(), MEDIA_TYPE, refusal=outcome)


def _keep(session: Session, outcomes: Sequence[tuple[Attempt, Reply | None]]) -> None:
    """Keeps the replies under their keys, and lets go of the keys of the others."""
    rows = [
        {
            "client_id": attempt.client_id,
            "key": attempt.key,
            "status": reply.status,
            "media_type": reply.media_type,
            "body": reply.body,
        }
        for attempt, reply in outcomes
        if reply is not None
    ]
    db.update_rows(session, IdempotencyRecord, ["client_id", "key"], rows)
    if free := [_key(attempt) for attempt, reply in outcomes if reply is None]:
        session.execute(delete(IdempotencyRecord).where(db.any_row_of(session, _columns(), free)))
