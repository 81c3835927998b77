"""Create, list, revoke and recognise keys."""

import hmac
import time
from asyncio import AbstractEventLoop, Task, get_running_loop, shield
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from app import db
from app.clients.models import ApiKey, Client
from app.clients.rules import KINDS, Caller, Kind, hash_secret, new_secret, one_person, read_secret, unknown_scopes
from app.errors import Problem, Unauthenticated
from app.ids import new_id

_LIVE_KEYS = 2


class TooManyKeys(Problem):
    """A client may hold two live keys: the one in use and its successor. Revoke one first."""

    status, code, title = 409, "too_many_keys", "The client already holds two live keys"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `text` is shown once and never stored."""

    client_id: UUID
    public_id: str
    text: str


def create_client(
    session: Session,
    kind: Kind,
    name: str,
    now: datetime,
    *,
    program_id: UUID | None = None,
    stores: Collection[str] | None = None,
    person: str | None = None,
    role: str | None = None,
    member_id: UUID | None = None,
) -> UUID:
    """A new client without a key; `stores` None lets it act for all stores. Answers its id.

    `person` acts through it, in a `role` that terms may give limits; `member_id` is their own membership. ValueError
    for a role or a membership of nobody.
    """
    if person is None and (role is not None or member_id is not None):
        raise ValueError("a role and a membership are those of a person")
    client_id = new_id()
    row = {
        "id": client_id,
        "program_id": program_id,
        "kind": kind,
        "name": name,
        "stores": sorted(stores) if stores else None,
        "person": None if person is None else one_person(person),
        "role": role,
        "member_id": member_id,
        "created_at": now,
    }
    db.insert_rows(session, Client, [row])
    return client_id


def memberships(session: Session, program_id: UUID, persons: Collection[str]) -> dict[str, set[UUID]]:
    """By person, their own memberships, as any of their clients in the programme names them."""
    theirs = select(Client.person, Client.member_id).where(
        Client.program_id == program_id,
        db.any_of(session, Client.person.expression, sorted(persons)),
    )
    found: dict[str, set[UUID]] = {person: set() for person in persons}
    for person, member_id in session.execute(theirs):
        if person is not None and member_id is not None:
            found[person].add(member_id)
    return found


def find_client(session: Session, text: str) -> UUID | None:
    """The id of the client whose id `text` is, if there is one."""
    try:
        return session.scalars(select(Client.id).where(Client.id == UUID(text))).one_or_none()
    except ValueError:
        return None


def create_key(
    session: Session,
    client_id: UUID,
    pepper: bytes,
    now: datetime,
    *,
    scopes: Collection[str] | None = None,
    expires_at: datetime | None = None,
) -> NewKey:
    """A new key of a client; `scopes` None gives those of its last key, or of its kind. TooManyKeys for a third one."""
    client = session.execute(select(Client).where(Client.id == client_id).with_for_update()).scalar_one()
    live = select(func.count()).where(ApiKey.client_id == client_id, _live(now))
    if session.execute(live).scalar_one() >= _LIVE_KEYS:
        raise TooManyKeys
    chosen = _usual_scopes(session, client) if scopes is None else scopes
    if unknown := unknown_scopes(chosen):
        raise ValueError(f"unknown scopes: {', '.join(unknown)}")
    secret = new_secret(client.kind)
    row = {
        "public_id": secret.public_id,
        "client_id": client_id,
        "secret_hash": hash_secret(secret.secret, pepper),
        "scopes": sorted(chosen),
        "created_at": now,
        "expires_at": expires_at,
    }
    db.insert_rows(session, ApiKey, [row])
    return NewKey(client_id, secret.public_id, secret.text)


def _usual_scopes(session: Session, client: Client) -> Collection[str]:
    keys = select(ApiKey.scopes).where(ApiKey.client_id == client.id).order_by(ApiKey.created_at.desc()).limit(1)
    last = session.scalars(keys).one_or_none()
    return KINDS[client.kind] if last is None else last  # type: ignore[index]  # a CHECK holds the kind


def revoke_key(session: Session, public_id: str, now: datetime) -> bool:
    """Ends a key; answers whether there was such a live key. A process that has just looked it up accepts it for some
    seconds more (`KnownKeys`)."""
    live = update(ApiKey).where(ApiKey.public_id == public_id, ApiKey.revoked_at.is_(None))
    return bool(getattr(session.execute(live.values(revoked_at=now)), "rowcount", 0))


def list_keys(session: Session) -> Sequence[tuple[Client, ApiKey]]:
    """Every key with its client, oldest first."""
    pairs = select(Client, ApiKey).join(ApiKey, ApiKey.client_id == Client.id).order_by(ApiKey.created_at)
    return [(client, key) for client, key in session.execute(pairs)]


def authenticate(session: Session, text: str, pepper: bytes, now: datetime) -> Caller:
    """The caller behind a key. Unauthenticated, without saying why, for any key that will not do."""
    secret = read_secret(text)
    if secret is None:
        raise Unauthenticated
    found = session.execute(
        select(
            ApiKey.secret_hash,
            ApiKey.scopes,
            ApiKey.expires_at,
            Client.id,
            Client.kind,
            Client.program_id,
            Client.stores,
            Client.person,
            Client.role,
            Client.member_id,
        )
        .join(Client, Client.id == ApiKey.client_id)
        .where(ApiKey.public_id == secret.public_id, _live(now))
    ).one_or_none()
    if found is None or not hmac.compare_digest(found.secret_hash, hash_secret(secret.secret, pepper)):
        raise Unauthenticated
    stores = None if found.stores is None else frozenset(found.stores)
    return Caller(
        found.id,
        found.kind,
        found.program_id,
        frozenset(found.scopes),
        stores,
        found.person,
        found.role,
        found.member_id,
        found.expires_at,
    )


class KnownKeys:
    """Keys that were looked up a moment ago, and whom they speak for: a process accepts them for so many seconds."""

    MOST = 10_000

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._known: dict[str, tuple[float, Caller]] = {}
        self._asked: dict[tuple[AbstractEventLoop, str], Task[Caller]] = {}

    async def caller(self, text: str, now: datetime, look: Callable[[], Coroutine[Any, Any, Caller]]) -> Caller:
        """Who calls. All that come while it is looked up wait for the one answer: a till's requests come together."""
        caller = self._kept(text, now)
        if caller is not None:
            return caller
        loop = get_running_loop()
        task = self._asked.get((loop, text))
        if task is None:
            self._asked[loop, text] = task = loop.create_task(look())
            task.add_done_callback(lambda _: self._asked.pop((loop, text)))
        caller = await shield(task)  # who goes away does not take the answer from the others
        self._keep(text, caller)
        return caller

    def _kept(self, text: str, now: datetime) -> Caller | None:
        """Who calls, if that was looked up lately and the key has not expired since."""
        until, caller = self._known.get(text, (0.0, None))
        if caller is None or time.monotonic() >= until:
            return None
        return None if caller.expires_at is not None and caller.expires_at <= now else caller

    def _keep(self, text: str, caller: Caller) -> None:
        if len(self._known) >= self.MOST:
            self._known.clear()
        self._known[text] = time.monotonic() + self._seconds, caller


def is_live(session: Session, text: str, pepper: bytes, now: datetime) -> bool:
    """Whether a key would be accepted."""
    try:
        authenticate(session, text, pepper, now)
    except Unauthenticated:
        return False
    return True


def _live(now: datetime) -> ColumnElement[bool]:
    return ApiKey.revoked_at.is_(None) & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now)
