"""The clock's door: jobs, run again and again. Each is safe to run twice, in two processes, and to kill half-way.

Jobs only write down what is true already: what is due has happened, whether a job came by or not. A run is recorded
and holds a lease, so that one process at a time works on a job; the work goes in slices, each a transaction of its own
that holds only while the lease does. Nothing is remembered between slices but what they wrote: whoever comes next finds
what is left. `run_jobs` is one round, `work` a worker's life, `run` a single job at an explicit business instant.
"""

from app.worker.jobs import JOBS, run_jobs, work
from app.worker.models import JobRun
from app.worker.rules import AsOfInvalid, as_of_in
from app.worker.service import Ended, Run, last_runs, run

__all__ = ["JOBS", "AsOfInvalid", "Ended", "JobRun", "Run", "as_of_in", "last_runs", "run", "run_jobs", "work"]
