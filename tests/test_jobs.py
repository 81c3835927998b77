"""Jobs: one runner at a time, killed and gone on with, in slices; one bad thing leaves the others alone."""

import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from app import ledger
from app.accounting.models import Cohort
from app.db import Database
from app.ledger.models import PointAccount
from app.worker import JOBS, AsOfInvalid, JobRun, Run, as_of_in, run, run_jobs
from app.worker.rules import LARGEST_SLICE, next_slice
from app.worker.service import LEASE, LeaseLost
from tests.conftest import Engines, settings_for
from tests.gathered import locked
from tests.points import balance, earn, entries, events
from tests.shop import PEPPER, TERMS, Shop, TestClock, make_program, open_shop, purchase, returned

LATE = datetime(2028, 3, 1, tzinfo=UTC)
"""Everything that the shop's first month earned has expired by then."""


def runs(shop: Shop) -> list[JobRun]:
    rows = select(JobRun).order_by(JobRun.id)
    return list(shop.database.read(lambda session: session.scalars(rows).all()))


def crowd(shop: Shop, members: int, lots: int = 1) -> None:
    """So many members, with so many purchases of 1 point each."""
    for number in range(lots):
        bodies = [purchase(f"r{card}-{number}", 100, member={"card": str(card)}) for card in range(members)]
        for start in range(0, members, 500):
            results = shop.batch(bodies[start : start + 500])
            assert {result["status"] for result in results} == {201}


def written(shop: Shop, kind: str) -> int:
    counted = text("SELECT count(*) FROM point_entry WHERE kind = :kind")
    return int(shop.database.read(lambda session: session.execute(counted, {"kind": kind}).scalar_one()))


def idle(_run: Run) -> None:
    """does nothing"""


# --- as of ----------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


AHEAD = timezone(timedelta(hours=3))


@pytest.mark.parametrize(
    ("given", "instant"),
    [
        ("2026-11-21", "2026-11-21T21:00:00+00:00"),
        ("2026-02-28", "2026-02-28T21:00:00+00:00"),
        ("2026-11-22T12:00:00Z", "2026-11-22T12:00:00+00:00"),
        ("2026-11-22T12:00:00+03:00", "2026-11-22T09:00:00+00:00"),
    ],
)
def test_a_date_is_the_end_of_its_day_and_an_instant_itself(given: str, instant: str) -> None:
    assert as_of_in(given, AHEAD, NOW).isoformat() == instant


@pytest.mark.parametrize(
    "given", ["2026-11-22", "2026-11-22T12:00:01Z", "2026-11-22T11:00:00", "2026-02-30", "yesterday", ""]
)
def test_what_is_to_come_and_what_is_no_instant_is_refused(given: str) -> None:
    with pytest.raises(AsOfInvalid):
        as_of_in(given, AHEAD, NOW)


@pytest.mark.parametrize(
    ("size", "seconds", "following"),
    [(50, 0.001, 100), (50, 0.05, 50), (50, 0.2, 25), (1, 9.0, 1), (LARGEST_SLICE, 0.0, LARGEST_SLICE)],
)
def test_slices_aim_at_a_tenth_of_a_second(size: int, seconds: float, following: int) -> None:
    assert next_slice(size, seconds) == following


# --- runs and leases ------------------------------------------------------------------------------------------------


def test_a_round_is_recorded_in_its_order(shop: Shop) -> None:
    assert list(run_jobs(shop.database, shop.clock())) == list(JOBS)
    found = runs(shop)
    assert [row.job for row in found] == list(JOBS)
    assert {(row.status, row.as_of, row.started_at, row.failures) for row in found} == {
        ("done", shop.clock(), shop.clock(), 0)
    }


def test_one_process_at_a_time_works_on_a_job(shop: Shop) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(_run: Run) -> None:
        inside.set()
        assert go_on.wait(20)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, shop.database, "settle", slow, shop.clock(), shop.clock)
        assert inside.wait(20)
        assert run(shop.database, "settle", idle, shop.clock(), shop.clock) is None
        other = run(shop.database, "warn-expiry", idle, shop.clock(), shop.clock)
        assert "settle" not in run_jobs(shop.database, shop.clock()), "the round goes on without it"
        go_on.set()
        ended = first.result(20)
    assert ended is not None
    assert other is not None
    assert (ended.status, other.status) == ("done", "done")
    assert run(shop.database, "settle", idle, shop.clock(), shop.clock) is not None


def test_a_lease_that_ran_out_is_taken_over_and_its_owner_writes_nothing_more(shop: Shop) -> None:
    member = earn(shop, "r1", 100)
    shop.clock.now = LATE
    lost: list[bool] = []

    def slow(current: Run) -> None:
        shop.clock.forward(seconds=LEASE.total_seconds())  # the machine slept
        assert run(shop.database, "settle", JOBS["settle"], shop.clock(), shop.clock) is not None

        def more(session: Session) -> int:
            account = session.get_one(PointAccount, member)
            account.lifetime += 1
            session.flush()
            return 1

        with pytest.raises(LeaseLost):
            current.write(more)
        lost.append(True)
        current.note(rows=1)

    ended = run(shop.database, "settle", slow, shop.clock(), shop.clock)
    assert ended is not None
    assert (ended.status, lost) == ("failed", [True])
    first, second = runs(shop)
    assert (first.status, first.reason, first.rows) == ("failed", "its lease ran out", 0)
    assert (second.status, second.rows) == ("done", 1)
    assert len(entries(shop, member, "expiration")) == 1
    shop.prove()


def test_the_lease_is_renewed_by_work(shop: Shop) -> None:
    def long(current: Run) -> None:
        for _ in range(4):
            shop.clock.forward(minutes=4)
            current.write(lambda _session: 1)
            assert run(shop.database, "settle", idle, shop.clock(), shop.clock) is None

    ended = run(shop.database, "settle", long, shop.clock(), shop.clock)
    assert ended is not None
    assert (ended.status, ended.rows) == ("done", 4)


def test_the_database_knows_one_running_row_per_job(shop: Shop) -> None:
    """Whatever the code thinks."""
    run_jobs(shop.database, shop.clock())
    with shop.database.engine.connect() as connection:
        running = "UPDATE job_run SET status = 'running', ended_at = NULL"
        connection.exec_driver_sql(f"{running} WHERE job = 'settle'")
        columns = ", ".join(column.name for column in JobRun.__table__.c if column.name != "id")
        wrong = [
            f"INSERT INTO job_run (id, {columns}) SELECT program_id, {columns} FROM job_run WHERE job = 'settle'",
            "UPDATE job_run SET status = 'done' WHERE job = 'settle'",
            "UPDATE job_run SET reason = 'so' WHERE job = 'warn-expiry'",
            "UPDATE job_run SET status = 'lost' WHERE job = 'warn-expiry'",
            "UPDATE job_run SET rows = -1",
        ]
        for statement in wrong:
            savepoint = connection.begin_nested()
            with pytest.raises(DatabaseError):
                connection.exec_driver_sql(statement)
            savepoint.rollback()
        connection.rollback()


def test_old_runs_are_forgotten(shop: Shop) -> None:
    for _ in range(2):
        run_jobs(shop.database, shop.clock())
        shop.clock.forward(days=31)
    run_jobs(shop.database, shop.clock())
    assert len(runs(shop)) == len(JOBS)


def test_a_run_that_is_told_to_stop_ends_after_the_slice_at_hand(shop: Shop) -> None:
    crowd(shop, 60)
    shop.clock.now = LATE
    stop = threading.Event()

    def stopped(current: Run) -> None:
        def find(session: Session, after: int | None, limit: int) -> Sequence[int]:
            return range(0 if after is None else after + 1, 1000)[:limit]

        def work(_session: Session, found: Sequence[int]) -> int:
            stop.set()
            return len(found)

        current.in_slices(find, work)

    ended = run(shop.database, "settle", stopped, shop.clock(), shop.clock, stop=stop)
    assert ended is not None
    assert (ended.status, ended.rows) == ("stopped", 50)
    assert run_jobs(shop.database, shop.clock())["settle"] == 60


def test_a_failure_is_recorded_without_its_words(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(_run: Run) -> None:
        raise RuntimeError("card 4711")

    ended = run(shop.database, "settle", broken, shop.clock(), shop.clock)
    assert ended is not None
    assert ended.status == "failed"
    assert [row.reason for row in runs(shop)] == ["RuntimeError"]
    assert "job failed" in capfd.readouterr().err


# --- settling -------------------------------------------------------------------------------------------------------


@contextmanager
def second_service(shop: Shop) -> Iterator[Any]:
    """Another process's pool on the same database."""
    url = shop.database.engine.url.render_as_string(hide_password=False)
    database = Database(settings_for(url))
    yield database
    database.close()


def test_two_at_once_write_each_due_thing_once(shop: Shop) -> None:
    """Even if both had the lease: here each runs under a name of its own."""
    crowd(shop, 120)
    shop.clock.now = LATE
    with second_service(shop) as other, ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(run, database, name, JOBS["settle"], shop.clock(), shop.clock)
            for name, database in (("settle", shop.database), ("settle-too", other))
        ]
        ended = [future.result(60) for future in both]
    assert [each and (each.status, each.failures) for each in ended] == [("done", 0)] * 2
    assert sum(each.rows for each in ended if each) == 120
    assert written(shop, "expiration") == 120
    assert len(events(shop, "points.expired")) == 120
    shop.prove()


def test_a_slice_that_breaks_leaves_the_rest_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One account that cannot be settled: everybody else's is, and the next run tries it again."""
    crowd(shop, 60)
    bad = earn(shop, "bad", 1, card="bad")
    shop.clock.now = LATE
    settle_due = ledger.settle_due

    def failing(session: Session, member_ids: Sequence[UUID], *rest: Any) -> int:
        if bad in member_ids:
            raise RuntimeError("broken")
        return settle_due(session, member_ids, *rest)

    monkeypatch.setattr(ledger, "settle_due", failing)
    ended = run(shop.database, "settle", JOBS["settle"], shop.clock(), shop.clock)
    assert ended is not None
    assert (ended.status, ended.rows, ended.failures) == ("done", 60, 1)
    monkeypatch.undo()
    assert run_jobs(shop.database, shop.clock())["settle"] == 1
    shop.prove()


def test_an_account_that_somebody_keeps_locked_leaves_the_rest_alone(engines: Engines) -> None:
    with open_shop(settings_for(engines.fresh("postgresql")), TestClock()) as shop:
        crowd(shop, 120)
        first = shop.get("/v1/members/lookup", card="0")["id"]
        shop.clock.now = LATE
        with locked(shop, [first]):
            ended = run(shop.database, "settle", JOBS["settle"], shop.clock(), shop.clock)
        assert ended is not None
        assert (ended.status, ended.rows, ended.failures) == ("done", 119, 1)
        assert run_jobs(shop.database, shop.clock())["settle"] == 1
        shop.prove()


def test_a_cohort_that_somebody_keeps_locked_leaves_the_rest_alone(engines: Engines) -> None:
    with open_shop(settings_for(engines.fresh("postgresql")), TestClock()) as shop:
        for month in ("09", "10", "11"):
            shop.post(purchase(f"r{month}", 1000, occurred_at=f"2026-{month}-20T12:00:00Z"))
        assert run_jobs(shop.database, shop.clock())["fold-cohorts"]
        for month in ("09", "10", "11"):
            shop.post(purchase(f"s{month}", 1000, occurred_at=f"2026-{month}-20T13:00:00Z"))
        with shop.database.engine.connect() as connection:
            connection.execute(select(Cohort.id).limit(1).with_for_update())
            ended = run(shop.database, "fold-cohorts", JOBS["fold-cohorts"], shop.clock(), shop.clock)
        assert ended is not None
        assert (ended.status, ended.rows > 0, ended.failures) == ("done", True, 1)
        assert run(shop.database, "fold-cohorts", JOBS["fold-cohorts"], shop.clock(), shop.clock) != ended
        shop.prove()


def test_one_killed_after_some_slices_is_gone_on_with(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is gone in the middle of its second slice: the first is written, the second is not, at all."""
    crowd(shop, 130)
    shop.clock.now = LATE
    settle_due, slices = ledger.settle_due, [0]

    class Killed(BaseException):
        """Nothing catches it, so nothing ends the run, as with SIGKILL."""

    def killed(session: Session, member_ids: Sequence[UUID], *rest: Any) -> int:
        slices[0] += 1
        rows = settle_due(session, member_ids, *rest)
        if slices[0] == 2:
            raise Killed
        return rows

    monkeypatch.setattr(ledger, "settle_due", killed)
    with pytest.raises(Killed):
        run(shop.database, "settle", JOBS["settle"], shop.clock(), shop.clock)
    monkeypatch.undo()
    assert written(shop, "expiration") == 50
    assert "settle" not in run_jobs(shop.database, shop.clock()), "its lease is good for some minutes"
    shop.clock.forward(seconds=LEASE.total_seconds())
    assert run_jobs(shop.database, shop.clock())["settle"] == 80
    assert written(shop, "expiration") == 130
    shop.prove()


CHILD = """
import sys
import time
from datetime import UTC, datetime
from app import ledger
from app.db import Database
from app.config import Settings
from app.db import Database
from app.worker import JOBS, run
import app.worker.service as service
service.FIRST_SLICE = 7
service.next_slice = lambda *_: time.sleep(0.2) or 7
now = datetime.fromisoformat(sys.argv[1])
run(Database(Settings()), "settle", JOBS["settle"], now, lambda: now)
"""


def test_a_process_killed_by_the_system_is_gone_on_with(shop: Shop, tmp_path: Path) -> None:
    crowd(shop, 100)
    shop.clock.now = LATE
    url = shop.database.engine.url.render_as_string(hide_password=False)
    root = str(Path(__file__).parents[1])
    environment = {"DATABASE_URL": url, "LOYALTY_KEY_PEPPER": PEPPER, "PYTHONPATH": root}
    child = subprocess.Popen([sys.executable, "-c", CHILD, LATE.isoformat()], env=environment, cwd=tmp_path)
    deadline = time.monotonic() + 30
    while written(shop, "expiration") < 7 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    done = written(shop, "expiration")
    assert 0 < done < 100
    assert done % 7 == 0, "whole slices"
    shop.clock.forward(seconds=LEASE.total_seconds())
    assert run_jobs(shop.database, shop.clock())["settle"] == 100 - done
    assert written(shop, "expiration") == 100
    assert len(events(shop, "points.expired")) == 100
    shop.prove()


def test_thousands_of_lots_take_few_statements_and_little_memory(shop: Shop) -> None:
    """5,000 lots of 1,000 members: no slice takes more statements for what is in it, or keeps the one before."""
    crowd(shop, 1000, lots=5)
    shop.clock.now = LATE
    counts = [0]

    def count(*_: Any) -> None:
        counts[-1] += 1

    def begin(*_: Any) -> None:
        counts.append(0)

    engine = shop.database.engine
    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "begin", begin)
    tracemalloc.start()
    try:
        ended = run(shop.database, "settle", JOBS["settle"], shop.clock(), shop.clock)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        event.remove(engine, "before_cursor_execute", count)
        event.remove(engine, "begin", begin)
    assert ended is not None
    assert (ended.status, ended.rows, ended.failures) == ("done", 1000, 0)
    assert max(counts) <= 16, "statements of a transaction"
    assert peak < 100_000_000
    assert written(shop, "expiration") == 1000
    shop.prove()


def test_programmes_are_settled_each_in_its_zone_and_one_that_breaks_leaves_the_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.database.write(lambda s: make_program(s, TERMS | {"time_zone": "UTC"}, shop.clock(), "other"))
    earn(shop, "r1", 100)
    shop.clock.now = LATE
    due_accounts = ledger.due_accounts

    def failing(session: Session, program_id: UUID, *rest: Any) -> Any:
        if program_id != shop.program_id:
            raise RuntimeError("broken")
        return due_accounts(session, program_id, *rest)

    monkeypatch.setattr(ledger, "due_accounts", failing)
    ended = run(shop.database, "settle", JOBS["settle"], shop.clock(), shop.clock)
    assert ended is not None
    assert (ended.status, ended.rows, ended.failures) == ("done", 1, 1)
    monkeypatch.undo()
    only = run(shop.database, "settle", JOBS["settle"], shop.clock(), shop.clock, program_id=shop.program_id)
    assert only is not None
    assert (only.status, only.rows) == ("done", 0)
    assert runs(shop)[-1].program_id == shop.program_id


# --- returns that wait ----------------------------------------------------------------------------------------------


def crossed(shop: Shop, card: str = "900") -> UUID:
    """A return that did not see its purchase, which did not see it: as if both were under way at once."""
    assert shop.post(returned()).status_code == 202
    hidden = "UPDATE waiting_return SET original_external_id = :name"
    with shop.database.engine.begin() as connection:
        connection.execute(text(hidden), {"name": "elsewhere"})
    member = earn(shop, "r1", 100, "2026-11-22T06:00:00-05:00", card)
    with shop.database.engine.begin() as connection:
        connection.execute(text(hidden), {"name": "r1"})
    return member


def test_a_return_that_crossed_with_its_purchase_is_applied(shop: Shop) -> None:
    member = crossed(shop)
    assert balance(shop, member)["available"] == 100
    assert run_jobs(shop.database, shop.clock())["apply-waiting-returns"] == 1
    assert balance(shop, member)["available"] == 0
    assert shop.get("/v1/transactions/waiting")["items"] == []
    assert run_jobs(shop.database, shop.clock())["apply-waiting-returns"] == 0
    assert shop.post(returned()).json()["duplicate"] is True
    shop.prove()


def test_two_jobs_apply_a_crossed_return_once(shop: Shop) -> None:
    member = crossed(shop)
    with second_service(shop) as other, ThreadPoolExecutor(2) as pool:
        work = JOBS["apply-waiting-returns"]
        both = [
            pool.submit(run, database, name, work, shop.clock(), shop.clock)
            for name, database in (("one", shop.database), ("two", other))
        ]
        assert [each.status for future in both if (each := future.result(60))] == ["done", "done"]
    assert balance(shop, member)["available"] == 0
    assert len(entries(shop, member, "reversal")) == 1
    shop.prove()


def test_a_return_that_waits_too_long_is_told_of_once(shop: Shop) -> None:
    assert shop.post(returned(of="never")).status_code == 202
    assert run_jobs(shop.database, shop.clock())["apply-waiting-returns"] == 0
    shop.clock.forward(days=7)
    assert run_jobs(shop.database, shop.clock())["apply-waiting-returns"] == 1
    (told,) = events(shop, "return.waiting")
    assert (told["external_id"], told["original_external_id"], told["store"]) == ("b1", "never", "1")
    shop.clock.forward(days=7)
    assert run_jobs(shop.database, shop.clock())["apply-waiting-returns"] == 0
    assert len(events(shop, "return.waiting")) == 1


# --- the command line -----------------------------------------------------------------------------------------------


class Loyalty:
    """The command line against the shop's database."""

    def __init__(self, shop: Shop, folder: Path):
        url = shop.database.engine.url.render_as_string(hide_password=False)
        root = str(Path(__file__).parents[1])
        self.environment = {"DATABASE_URL": url, "LOYALTY_KEY_PEPPER": PEPPER, "PYTHONPATH": root}
        self.folder = folder

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli", "jobs", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=self.environment, cwd=self.folder, check=False
        )


def test_jobs_are_listed_and_run_by_hand(engines: Engines, engine: str, clock: TestClock, tmp_path: Path) -> None:
    clock.now = datetime(2020, 1, 15, 17, tzinfo=UTC)  # long ago for the command line, whose clock is the real one
    with open_shop(settings_for(engines.fresh(engine)), clock) as shop:
        member = earn(shop, "r1", 100)
        loyalty = Loyalty(shop, tmp_path)
        early = loyalty("run", "settle", "--as-of", "2021-01-30", "--program", "shop")
        assert (early.returncode, early.stdout) == (
            0,
            "settle as of 2021-01-31T05:00:00+00:00: done, 0 rows, 0 failures\n",
        ), early.stderr
        assert entries(shop, member, "expiration") == []
        due = loyalty("run", "settle", "--as-of", "2021-01-31")
        assert "as of 2021-02-01T05:00:00+00:00: done, 1 rows" in due.stdout, "the end of January in New York"
        (entry,) = entries(shop, member, "expiration")
        assert entry.occurred_at == datetime(2021, 2, 1, 5, tzinfo=UTC)
        assert entry.recorded_at.year >= 2026
        listed = loyalty("list")
        assert listed.returncode == 0, listed.stderr
        assert [line.split()[0] for line in listed.stdout.splitlines() if not line.startswith(" ")] == list(JOBS)
        assert "done" in listed.stdout
        assert "as of 2021-02-01T05:00:00+00:00: 1 rows, 0 failures" in listed.stdout
        for wrong, words in (
            (("run", "settle", "--as-of", "2999-01-01"), "not over yet"),
            (("run", "settle", "--as-of", "tomorrow"), "neither a date nor an instant"),
            (("run", "settle", "--program", "nobody"), "no programme nobody"),
            (("run", "dance"), "forget-idempotency-keys"),
        ):
            failed = loyalty(*wrong)
            assert failed.returncode != 0, wrong
            assert words in failed.stderr, failed.stderr
            assert "Traceback" not in failed.stderr
        running = text("UPDATE job_run SET status = 'running', ended_at = NULL, leased_until = :until")
        latest = text("DELETE FROM job_run WHERE as_of < :until")
        with shop.database.engine.begin() as connection:
            connection.execute(latest, {"until": "2021-02-01 00:00:00+00:00"})
            connection.execute(running, {"until": "2999-01-01T00:00:00.000000+00:00"})
        assert "running elsewhere" in loyalty("run", "settle").stderr
