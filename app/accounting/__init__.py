"""Accounting: the only place the journal is written.

Owns the chart of accounts, the journal, and the cohorts that revenue is recognised from. Other folders decide with
`allocate`, `sale_postings` and `grant_postings` (pure), then hand what came out to `post` and `change_cohorts`, each
once per batch. `fold` is the job that adds the small change rows up into cohorts.
"""

from app.accounting.models import JournalPosting
from app.accounting.queries import Journal, balances, cohorts, journal, postings_of
from app.accounting.rules import (
    ROLES,
    Allocation,
    Cause,
    Chart,
    CohortChange,
    CohortKey,
    Method,
    Posting,
    Profile,
    Sale,
    allocate,
    default_codes,
    expected_points,
    grant_postings,
    sale_postings,
)
from app.accounting.service import change_cohorts, chart, fold, open_chart, post

__all__ = [
    "ROLES",
    "Allocation",
    "Cause",
    "Chart",
    "CohortChange",
    "CohortKey",
    "Journal",
    "JournalPosting",
    "Method",
    "Posting",
    "Profile",
    "Sale",
    "allocate",
    "balances",
    "change_cohorts",
    "chart",
    "cohorts",
    "default_codes",
    "expected_points",
    "fold",
    "grant_postings",
    "journal",
    "open_chart",
    "post",
    "postings_of",
    "sale_postings",
]
