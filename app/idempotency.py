"""Retries with an `Idempotency-Key`: the first outcome is kept for 30 days, in the transaction that made it.

The key row is inserted in the same database transaction as the effect, so there is no moment in which one exists
without the other. A business refusal is an outcome too and is kept; a crash, a schema error or a 503 is not.
"""

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Request, Response
from sqlalchemy import LargeBinary, delete, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, Session, mapped_column

from app import db
from app.errors import MEDIA_TYPE, Problem

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


Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="1-255 visible ASCII characters; the answer is kept for 30 days"),
]


async def attempt_of(request: Request, client_id: UUID, key: str | None, *, required: bool) -> Attempt:
    """The attempt in `request`. IdempotencyKeyMissing or IdempotencyKeyInvalid when its key will not do."""
    if key is None and required:
        raise IdempotencyKeyMissing
    if key is not None and not (1 <= len(key) <= 255 and key.isascii() and key.isprintable() and " " not in key):
        raise IdempotencyKeyInvalid
    body = await request.json() if await request.body() else None
    told = [request.method, request.scope["route"].path, dict(request.path_params), body]
    # keyed: a body may be little more than a phone number, which a plain hash would give away
    mark = hmac.new(request.app.state.pepper, _canonical(told), hashlib.sha256).hexdigest()
    return Attempt(client_id, key, mark, request.scope.get("state", {}).get("request_id"))


def fingerprint(value: Any) -> str:
    """SHA-256 of `value` as canonical JSON, in hex."""
    return hashlib.sha256(_canonical(value)).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str).encode()


def once(session: Session, attempt: Attempt, now: datetime, act: Callable[[], Reply]) -> Reply:
    """The reply of `act`, or the one it gave the first time this key came.

    Raises IdempotencyKeyReused for another request under the same key, IdempotencyInProgress when the first one is
    still running elsewhere. A refusal that `act` raises is kept when it is `final`; its writes are undone either way.
    """
    if attempt.key is None:
        return act()
    if not _claim(session, attempt, now):
        return _replay(session, attempt)
    try:
        with session.begin_nested():
            reply = act()
    except Problem as problem:
        if not problem.final:
            raise
        body = json.dumps(problem.body() | {"request_id": attempt.request_id}, ensure_ascii=False)
        reply = Reply(problem.status, body.encode(), MEDIA_TYPE, refusal=problem)
    session.execute(
        update(IdempotencyRecord)
        .where(IdempotencyRecord.client_id == attempt.client_id, IdempotencyRecord.key == attempt.key)
        .values(status=reply.status, media_type=reply.media_type, body=reply.body)
    )
    return reply


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


def forget(session: Session, now: datetime) -> int:
    """Deletes the outcomes older than `KEPT`; answers how many."""
    result = session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.created_at < now - KEPT))
    return int(getattr(result, "rowcount", 0))


def _claim(session: Session, attempt: Attempt, now: datetime) -> bool:
    row = {"client_id": attempt.client_id, "key": attempt.key, "fingerprint": attempt.fingerprint, "created_at": now}
    try:
        return bool(db.claim_rows(session, IdempotencyRecord, [row], ["key"]))
    except DBAPIError as error:
        if db.row_locked(error):
            raise IdempotencyInProgress from error
        raise


def _replay(session: Session, attempt: Attempt) -> Reply:
    stored = session.execute(
        select(IdempotencyRecord).where(
            IdempotencyRecord.client_id == attempt.client_id, IdempotencyRecord.key == attempt.key
        )
    ).scalar_one_or_none()
    if stored is None or stored.status is None:  # rolled back, or forgotten, since we collided with it
        raise IdempotencyInProgress
    if stored.fingerprint != attempt.fingerprint:
        raise IdempotencyKeyReused
    return replace(Reply(stored.status, stored.body or b"", stored.media_type or ""), replayed=True)
