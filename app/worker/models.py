"""Runs of jobs, and with them the lease of each."""

from datetime import datetime
from typing import Literal, get_args
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

Status = Literal["running", "done", "stopped", "failed"]
"""Stopped: told to, half-way. Failed: by an error, or it was not heard of until its lease ran out."""

_WORDS = ", ".join(f"'{status}'" for status in get_args(Status))


class JobRun(Base):
    """One run of a job. While it is running it has the job's lease: there is one such row per job at most."""

    __tablename__ = "job_run"
    __table_args__ = (
        CheckConstraint(f"status IN ({_WORDS})", name="status"),
        CheckConstraint("(status = 'running') = (ended_at IS NULL)", name="ended_has_time"),
        CheckConstraint("(status = 'failed') = (reason IS NOT NULL)", name="failed_has_reason"),
        CheckConstraint("rows >= 0 AND slices >= 0 AND failures >= 0", name="counts_not_negative"),
        Index(
            "uq_job_run_running",
            "job",
            unique=True,
            postgresql_where=text("status = 'running'"),
            sqlite_where=text("status = 'running'"),
        ),
        Index(None, "job", "started_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    job: Mapped[str]
    program_id: Mapped[UUID | None] = mapped_column(ForeignKey("program.id"))
    """Null: all programmes."""
    as_of: Mapped[datetime]
    """The business instant: what was due by then."""
    owner: Mapped[str]
    """Who runs it: machine and process."""
    leased_until: Mapped[datetime]
    """Renewed by every slice. From then on anybody may end the run and begin another."""
    status: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    rows: Mapped[int]
    """What it dealt with so far; which rows these are is the job's own."""
    slices: Mapped[int]
    failures: Mapped[int]
    """Things it left undone because of an error; the log names them."""
    reason: Mapped[str | None]
