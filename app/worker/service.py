"""Run a job: take its lease, work in slices, record how it went."""

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app import db
from app.clock import Clock
from app.db import Database, Patience, met_a_lock
from app.errors import Problem
from app.halving import by_halves
from app.ids import new_id
from app.worker.models import JobRun, Status
from app.worker.rules import AIM_SECONDS, AIM_SECONDS_BESIDE_OTHERS, FIRST_SLICE, next_slice

LEASE = timedelta(minutes=5)
KEPT = timedelta(days=30)
PAUSE_SECONDS = 0.02
"""Between slices, where there is one writer: somebody else's turn."""

T = TypeVar("T")
Job = Callable[["Run"], None]


class LeaseLost(Exception):
    """Somebody else has taken the job over: this run was not heard of for too long."""


class Stopped(Exception):
    """The run was told to stop."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has its job's lease. All it writes goes through `write`."""

    database: Database
    id: UUID
    as_of: datetime
    program_id: UUID | None
    """None: all programmes."""
    since: datetime | None
    """The job has done all there was as of then; None: nobody knows, so it looks at everything."""
    clock: Clock
    stop: threading.Event

    def write(self, work: Callable[[Session], int], patience: Patience = Patience.BRIEF) -> int:
        """Runs `work` in one transaction, renews the lease with it, and adds the rows it answers to the run's.

        LeaseLost, with nothing written, when somebody else has the lease; Stopped when it is time to end.
        """
        if self.stop.is_set():
            raise Stopped

        def leased(session: Session) -> int:
            with db.patient(session, patience):
                rows = work(session)
            self._renew(session, rows=rows, slices=1)
            return rows

        return self.database.write(leased)

    def note(self, *, rows: int = 0, failures: int = 0) -> None:
        """Counts what was done outside of `write`, and what could not be; renews the lease. LeaseLost; Stopped when it
        is time to end."""
        self.database.write(lambda session: self._renew(session, rows=rows, failures=failures))
        if self.stop.is_set():
            raise Stopped

    def _renew(self, session: Session, **counts: int) -> None:
        sums = {name: getattr(JobRun, name) + count for name, count in counts.items()}
        mine = update(JobRun).where(JobRun.id == self.id, JobRun.status == "running")
        renewal = mine.values(leased_until=self.clock() + LEASE, **sums).returning(JobRun.id)
        # The session has no run to keep in step: to look for one takes longer than the statement.
        renewed = session.execute(renewal.execution_options(synchronize_session=False))
        if renewed.one_or_none() is None:
            raise LeaseLost

    def in_slices(
        self,
        find: Callable[[Session, T | None, int], Sequence[T]],
        work: Callable[[Session, Sequence[T]], int],
        *,
        at_most: float = math.inf,
    ) -> None:
        """Finds what there is to do, always from after the last thing on, and does it, a slice per transaction.

        A slice that fails is done again in halves, so that what cannot be done is left alone, logged and counted.
        After `at_most` seconds no other slice is begun.
        """
        began = time.monotonic()
        size, after = FIRST_SLICE, None
        aim = AIM_SECONDS if self.database.one_writer else AIM_SECONDS_BESIDE_OTHERS
        while found := self._find(find, after, size):
            started = time.monotonic()
            self._do(found, work)
            size, after = next_slice(size, time.monotonic() - started, aim), found[-1]
            if time.monotonic() - began > at_most:
                return
            if self.database.one_writer:
                self.stop.wait(PAUSE_SECONDS)

    def _find(self, find: Callable[[Session, T | None, int], Sequence[T]], after: T | None, size: int) -> Sequence[T]:
        return self.database.read(lambda session: find(session, after, size))

    def _do(self, found: Sequence[T], work: Callable[[Session, Sequence[T]], int]) -> None:
        blocked = self._try(found, work)
        for each in self._try(blocked, work) if blocked else ():  # somebody else's batch may have had it just then
            structlog.get_logger().warning("a job met somebody else's lock", run=str(self.id), what=str(each))
            self.note(failures=1)

    def _try(self, found: Sequence[T], work: Callable[[Session, Sequence[T]], int]) -> list[T]:
        """Does what there is to do, in halves if need be; answers what somebody else has locked."""

        def done(part: Sequence[T], patience: Patience) -> int:
            return self.write(lambda session: work(session, part), patience)

        blocked: list[T] = []
        for part, result in by_halves(found, done, Patience.BRIEF, ends=(LeaseLost, Stopped)):
            if met_a_lock(result):
                blocked += part
            elif isinstance(result, Problem) and result.passing:
                raise result  # the database is busy or away, which no other slice would change
            elif isinstance(result, Exception):
                about = {"run": str(self.id), "what": str(part[0])}
                structlog.get_logger().error("a job left something undone", exc_info=result, **about)
                self.note(failures=1)
        return blocked


# --- one job --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `failures` are things left undone; the next run tries them again."""

    status: Status
    rows: int
    failures: int


def run(
    database: Database,
    name: str,
    job: Job,
    as_of: datetime,
    clock: Clock,
    *,
    program_id: UUID | None = None,
    since: datetime | None = None,
    stop: threading.Event | None = None,
) -> Ended | None:
    """Runs a job as of an instant, for one programme or for all. None when somebody else is at it."""
    row = _row(name, as_of, program_id, clock())
    if not database.write(lambda session: _begin(session, row)):
        return None
    current = Run(database, row["id"], as_of, program_id, since, clock, stop or threading.Event())
    status: Status
    try:
        job(current)
    except LeaseLost:
        return Ended("failed", 0, 0)
    except Stopped:
        status, reason = "stopped", None
    except Exception as error:
        structlog.get_logger().exception("job failed", job=name)
        status, reason = "failed", type(error).__name__  # not its words: they may hold somebody's data
    else:
        status, reason = "done", None
    return database.write(lambda session: _end(session, name, row["id"], status, reason, clock()))


def _row(name: str, as_of: datetime, program_id: UUID | None, now: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "job": name,
        "program_id": program_id,
        "as_of": as_of,
        "owner": f"{socket.gethostname()}:{os.getpid()}",
        "leased_until": now + LEASE,
        "status": "running",
        "started_at": now,
        "ended_at": None,
        "rows": 0,
        "slices": 0,
        "failures": 0,
        "reason": None,
    }


def _begin(session: Session, row: db.Row) -> bool:
    """Takes the job's lease, from a run too that was not heard of until its own ran out."""
    now = row["started_at"]
    dead = update(JobRun).where(JobRun.job == row["job"], JobRun.status == "running", JobRun.leased_until <= now)
    session.execute(dead.values(status="failed", ended_at=now, reason="its lease ran out"))
    return bool(db.claim_rows(session, JobRun, [row], ["id"]))


def _end(session: Session, name: str, id_: UUID, status: Status, reason: str | None, now: datetime) -> Ended:
    session.execute(delete(JobRun).where(JobRun.job == name, JobRun.ended_at < now - KEPT))
    ended = update(JobRun).where(JobRun.id == id_, JobRun.status == "running")
    ended = ended.values(status=status, ended_at=now, reason=reason)
    counts = session.execute(ended.returning(JobRun.rows, JobRun.failures)).one_or_none()
    return Ended("failed", 0, 0) if counts is None else Ended(status, *counts)


def last_runs(session: Session) -> dict[str, JobRun]:
    """The latest run of each job that ever ran."""
    latest = select(JobRun.job, func.max(JobRun.started_at).label("at")).group_by(JobRun.job).subquery()
    same = (JobRun.job == latest.c.job) & (JobRun.started_at == latest.c.at)
    return {row.job: row for row in session.scalars(select(JobRun).join(latest, same).order_by(JobRun.id))}


def done_as_of(session: Session) -> dict[str, datetime]:
    """As of when each job has last done all there was, in all programmes."""
    whole = (JobRun.status == "done") & (JobRun.failures == 0) & JobRun.program_id.is_(None)
    rows = session.execute(select(JobRun.job, func.max(JobRun.as_of)).where(whole).group_by(JobRun.job))
    return {job: as_of for job, as_of in rows if as_of is not None}
