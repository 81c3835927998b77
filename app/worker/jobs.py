"""The jobs, and the rounds in which a worker runs them."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app import accounting, campaigns, clubs, idempotency, ledger, programs, tiers, transactions
from app.clock import Clock
from app.db import Database
from app.idempotency import Kept
from app.ledger import Ahead, Due
from app.programs import Timeline
from app.worker import service
from app.worker.service import Job, LeaseLost, Run, Stopped

SECONDS_BETWEEN_ROUNDS = 60.0

SECONDS_TO_FORGET = 60.0
"""In one round: it is in nobody's way, and must not be in that of the other jobs. The next round goes on."""

Pair = tuple[str, str]
"""Source and external id."""


def _each_program(work: Callable[[Run, UUID, Timeline], None]) -> Job:
    """A job that does `work` for every programme of its run; one that fails leaves the others alone."""

    def job(run: Run) -> None:
        known = run.database.read(programs.every_program)
        for program_id in known if run.program_id is None else [run.program_id]:
            try:
                work(run, program_id, run.database.read(partial(programs.timeline, program_id=program_id)))
            except (LeaseLost, Stopped):
                raise
            except Exception:
                structlog.get_logger().exception("a job left a programme undone", program=str(program_id))
                run.note(failures=1)

    job.__doc__ = work.__doc__
    return job


def _settle(run: Run, program_id: UUID, terms: Timeline) -> None:
    """writes down what was due: expiries, activations and cancellations of pending points, ends of holds"""

    def find(session: Session, after: Due | None, limit: int) -> Sequence[Due]:
        return ledger.due_accounts(session, program_id, run.as_of, after, limit)

    def settle(session: Session, found: Sequence[Due]) -> int:
        now = run.clock()
        members = [each.member_id for each in found]
        return ledger.settle_due(session, members, run.as_of, now, terms.zone_at(now))

    run.in_slices(find, settle)


def _apply_waiting_returns(run: Run, program_id: UUID, terms: Timeline) -> None:
    """records returns that crossed with their purchase, and tells of those that wait for too long"""

    def arrived(session: Session, after: Pair | None, limit: int) -> Sequence[Pair]:
        return transactions.arrived_returns(session, program_id, after, limit)

    def apply(session: Session, found: Sequence[Pair]) -> int:
        return transactions.apply_waiting(session, program_id, found, run.clock())

    def overdue(session: Session, after: Pair | None, limit: int) -> Sequence[Pair]:
        return transactions.overdue_returns(session, program_id, before, after, limit)

    def alarm(session: Session, found: Sequence[Pair]) -> int:
        return transactions.alarm_waiting(session, program_id, found, run.clock())

    run.in_slices(arrived, apply)
    version = terms.at(run.as_of)
    if version is not None:
        before = run.as_of - timedelta(days=version.terms.returns.waiting_alarm_days)
        run.in_slices(overdue, alarm)


def _adopt_expiry(run: Run, program_id: UUID, terms: Timeline) -> None:
    """gives points from before expiry was switched on the expiry that the terms promise; once a local day"""

    def find(session: Session, after: UUID | None, limit: int) -> Sequence[UUID]:
        return programs.members_to_adopt(session, program_id, terms, run.as_of, after, limit)

    def adopt(session: Session, found: Sequence[UUID]) -> int:
        return programs.adopt_expiry(session, terms, run.as_of, found, run.clock())

    if run.since is None or _something_began(terms, run.since, run.as_of):
        run.in_slices(find, adopt)


def _something_began(terms: Timeline, since: datetime, as_of: datetime) -> bool:
    """Whether a day of the programme, or a version of its terms, began after `since`."""
    days = [instant.astimezone(terms.zone_at(as_of)).date() for instant in (since, as_of)]
    return days[0] < days[1] or terms.at(since) != terms.at(as_of)


_PURCHASES = campaigns.Purchases(transactions.last_purchases, transactions.kept_purchases)


def _give_bonuses(run: Run, program_id: UUID, terms: Timeline) -> None:
    """gives members what campaigns promise: once an occasion, as of its own instant"""
    for round_ in campaigns.rounds(terms, run.since, run.as_of):

        def find(session: Session, after: UUID | None, limit: int, round_: campaigns.Round = round_) -> Sequence[UUID]:
            return campaigns.members_of(session, program_id, round_, after, limit)

        def give(session: Session, found: Sequence[UUID], round_: campaigns.Round = round_) -> int:
            return campaigns.give(session, program_id, terms, round_, found, _PURCHASES, run.clock())

        run.in_slices(find, give)


def _warn_expiry(run: Run, program_id: UUID, terms: Timeline) -> None:
    """sends `points.expiring` ahead of an expiry, on the days that the terms name; once each"""

    def find(session: Session, after: Ahead | None, limit: int) -> Sequence[Ahead]:
        return programs.points_to_warn_of(session, program_id, terms, run.since, run.as_of, after, limit)

    def warn(session: Session, found: Sequence[Ahead]) -> int:
        return programs.warn_of_expiry(session, program_id, terms, run.as_of, found, run.clock())

    run.in_slices(find, warn)


def _review_tiers(run: Run, program_id: UUID, terms: Timeline) -> None:
    """writes down what time has done to members' tiers, and sends `member.tier_will_downgrade` ahead of a fall"""
    if not tiers.counts(terms):
        return

    def due(session: Session, after: tiers.DueReview | None, limit: int) -> Sequence[tiers.DueReview]:
        return tiers.due_reviews(session, program_id, run.as_of, after, limit)

    def review_due(session: Session, found: Sequence[tiers.DueReview]) -> int:
        return review(session, [each.member_id for each in found])

    def outdated(session: Session, after: UUID | None, limit: int) -> Sequence[UUID]:
        return tiers.outdated(session, program_id, terms, run.as_of, after, limit)

    def review(session: Session, found: Sequence[UUID]) -> int:
        return tiers.review(session, program_id, terms, found, run.clock())

    run.in_slices(due, review_due)
    if run.since is None or terms.at(run.since) != terms.at(run.as_of):
        run.in_slices(outdated, review)


def _end_memberships(run: Run, program_id: UUID, terms: Timeline) -> None:
    """ends memberships of clubs whose time is over, and sends `member.club_will_end` ahead"""
    if not clubs.offers(terms):
        return

    def find(session: Session, after: clubs.Due | None, limit: int) -> Sequence[clubs.Due]:
        return clubs.over(session, program_id, run.as_of, after, limit)

    def ahead(session: Session, after: clubs.Due | None, limit: int) -> Sequence[clubs.Due]:
        return clubs.ending(session, program_id, run.as_of, after, limit)

    def end(session: Session, found: Sequence[clubs.Due]) -> int:
        return clubs.end(session, program_id, terms, found, run.clock())

    run.in_slices(find, end)
    run.in_slices(ahead, end)


def _recognise_fees(run: Run, program_id: UUID, terms: Timeline) -> None:
    """recognises the months of memberships that have passed, each as of its own end"""
    if not clubs.offers(terms):
        return

    def find(session: Session, after: clubs.Due | None, limit: int) -> Sequence[clubs.Due]:
        return clubs.earning(session, program_id, run.as_of, after, limit)

    def recognise(session: Session, found: Sequence[clubs.Due]) -> int:
        return clubs.recognise(session, terms, found, run.clock())

    run.in_slices(find, recognise)


def _fold_cohorts(run: Run, program_id: UUID, _terms: Timeline) -> None:
    """adds what events left behind to their cohorts, and posts what that releases"""
    for folded in accounting.fold_in_steps(run.database, run.clock(), program_id):
        run.note(rows=folded.changes, failures=folded.left)


def _forget_keys(run: Run) -> None:
    """deletes answers kept under an Idempotency-Key after 30 days"""

    def find(session: Session, after: Kept | None, limit: int) -> Sequence[Kept]:
        return idempotency.outlived(session, run.as_of, after, limit)

    run.in_slices(find, idempotency.forget, at_most=SECONDS_TO_FORGET)


JOBS: dict[str, Job] = {
    "settle": _each_program(_settle),
    "apply-waiting-returns": _each_program(_apply_waiting_returns),
    "adopt-expiry": _each_program(_adopt_expiry),
    "give-bonuses": _each_program(_give_bonuses),
    "warn-expiry": _each_program(_warn_expiry),
    "review-tiers": _each_program(_review_tiers),
    "end-memberships": _each_program(_end_memberships),
    "recognise-fees": _each_program(_recognise_fees),
    "fold-cohorts": _each_program(_fold_cohorts),
    "forget-idempotency-keys": _forget_keys,
}
"""Every job by name, in the order of a round: cohorts are told of an expiry before they are folded."""


def run_jobs(
    database: Database, now: datetime, clock: Clock | None = None, stop: threading.Event | None = None
) -> dict[str, int]:
    """One round: every job once, as of `now`. Answers how many rows each dealt with.

    A job that fails, is stopped, or that another process is at is absent from the answer and leaves the others alone.
    """
    known = database.read(service.done_as_of)
    done = {}
    for name, job in JOBS.items():
        try:
            ended = service.run(database, name, job, now, clock or (lambda: now), since=known.get(name), stop=stop)
        except Exception:  # the database was away when the run began or ended
            structlog.get_logger().exception("job failed", job=name)
            continue
        if ended is not None and ended.status == "done":
            done[name] = ended.rows
            structlog.get_logger().info("job done", job=name, rows=ended.rows, failures=ended.failures)
    return done


def work(database: Database, clock: Clock, stop: threading.Event) -> None:
    """Runs a round every minute until `stop` is set."""
    while not stop.is_set():
        try:
            run_jobs(database, clock(), clock, stop)
        except Exception:
            structlog.get_logger().exception("no round")
        stop.wait(SECONDS_BETWEEN_ROUNDS)
