"""Many requests as one batch of a known order, and two shops to compare: one that gathers and one that does not."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.coalesce import Gatherer
from app.db import Base, Patience
from app.ids import new_id
from app.ledger import PointEntry
from app.ledger.models import PointAccount
from tests.shop import Shop

PATIENT = {"gathered_seconds": 60, "writers": 1, "readers": 1}
"""Settings by which requests are gathered, whatever the environment says, and none is refused for waiting: a batch may
take a while to be put together here."""

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-Z]{4}(-[0-9A-Z]{4}){4}")
"""What differs from one shop to another: ids, and codes of vouchers."""


@dataclass(frozen=True, slots=True)
class Call:
    """A POST, with a key of its own unless `key` says otherwise, by the shop's staff or another caller."""

    path: str
    body: Any = None
    by: TestClient | None = None
    key: str | None = field(default_factory=lambda: new_id().hex)


def send(shop: Shop, call: Call) -> Any:
    headers = {} if call.key is None else {"Idempotency-Key": call.key}
    return (call.by or shop.http).post(call.path, json=call.body, headers=headers)


def together(shop: Shop, calls: Sequence[Call], watching: AbstractContextManager[Any] | None = None) -> list[Any]:
    """The answers to `calls`, carried out as one batch (of each lane), in their order. `watching` is entered for as
    long as they are carried out."""
    return at_once(shop, shop.app.state.writer._gatherer, [partial(send, shop, call) for call in calls], watching)


def at_once(
    shop: Shop,
    gatherer: Gatherer,
    asks: Sequence[Callable[[], Any]],
    watching: AbstractContextManager[Any] | None = None,
) -> list[Any]:
    """The answers to requests that all wait, in their order, when the gatherer's only worker turns to them."""
    with ThreadPoolExecutor(len(asks)) as pool:
        with _occupied(shop, gatherer):
            asked = []
            for number, ask in enumerate(asks, 1):
                asked.append(pool.submit(ask))
                while gatherer._waiting < number and not asked[-1].done():
                    time.sleep(0.001)
            watched = watching or nullcontext()
            watched.__enter__()
        try:
            return [answer.result() for answer in asked]
        finally:
            watched.__exit__(None, None, None)


@contextmanager
def _occupied(shop: Shop, gatherer: Gatherer) -> Iterator[None]:
    """The worker has something else to do while this lasts."""
    begun, over = threading.Event(), threading.Event()

    def wait(items: Sequence[None], _patience: Patience) -> Sequence[None]:
        begun.set()
        over.wait()
        return items

    assert shop.http.portal is not None
    shop.http.portal.start_task_soon(gatherer.ask, "something else", wait, None)
    begun.wait()
    try:
        yield
    finally:
        over.set()


def told(answers: Sequence[Any]) -> list[tuple[int, str]]:
    """Statuses and bodies, with a number for each id, so that two shops can be compared."""
    names: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"<{len(names)}>")

    bodies = ({**answer.json(), "request_id": None} for answer in answers)
    return [(answer.status_code, ID.sub(named, json.dumps(body))) for answer, body in zip(answers, bodies, strict=True)]


def written(shop: Shop) -> tuple[dict[str, int], list[tuple[Any, ...]], tuple[int, ...]]:
    """How many rows each table has, what all entries say, member by member, and what cohorts were told: a batch tells
    each of them once."""
    facts = (PointEntry.kind, PointEntry.number, PointEntry.points, PointEntry.available, PointEntry.debt)
    entries = select(*facts).order_by(PointEntry.member_id, PointEntry.number)
    told = Base.metadata.tables["cohort_change"]
    sums = [func.sum(told.c[name]) for name in ("allocated", "residue", "issued", "used", "expired")]
    sums.append(func.sum(told.c.expected * 10**6 + told.c.expected_millionths))
    with shop.database.engine.connect() as connection:
        counts = {
            name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for name, table in Base.metadata.tables.items()
            if table is not told
        }
        in_all = tuple(map(int, connection.execute(select(*sums)).one()))
        return counts, [tuple(row) for row in connection.execute(entries)], in_all


@contextmanager
def locked(shop: Shop, member_ids: list[str]) -> Iterator[Callable[[], None]]:
    """Somebody else has locked these members' accounts, until the function given is called."""
    with shop.database.engine.connect() as connection:
        rows = select(PointAccount.member_id).where(PointAccount.member_id.in_(map(UUID, member_ids)))
        assert len(connection.execute(rows.with_for_update()).all()) == len(member_ids)
        yield connection.rollback
