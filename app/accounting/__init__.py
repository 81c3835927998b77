"""Accounting: the only place the journal is written.

Owns the chart of accounts, the journal, and the cohorts that revenue is recognised from. Other folders decide with
pure functions (`allocate` and `set_aside` share out, `..._postings` say what an event posts), then hand what came out
to `post` and `change_cohorts`, each once per batch. `fold` is the job that adds the small change rows up into cohorts
and posts what that releases.
"""

from app.accounting.models import JournalPosting
from app.accounting.postings import (
    Event,
    Posting,
    Sale,
    Supply,
    concession_postings,
    concession_return_postings,
    fulfilment_postings,
    grant_postings,
    provision_postings,
    return_postings,
    sale_postings,
    tender_postings,
    tender_return_postings,
    withheld_postings,
    write_off_postings,
)
from app.accounting.queries import Journal, balances, cohorts, journal, postings_of, reward_costs, written_off
from app.accounting.recognition import CohortChange, CohortKey, Release
from app.accounting.rules import (
    ROLES,
    Allocation,
    Cause,
    Chart,
    Funding,
    Method,
    Profile,
    allocate,
    default_codes,
    expected_points,
    returned_part,
    set_aside,
)
from app.accounting.schemas import PostingOut
from app.accounting.service import (
    Folded,
    change_cohorts,
    chart,
    fold,
    fold_in_steps,
    open_chart,
    post,
    revise_estimate,
)

__all__ = [
    "ROLES",
    "Allocation",
    "Cause",
    "Chart",
    "CohortChange",
    "CohortKey",
    "Event",
    "Folded",
    "Funding",
    "Journal",
    "JournalPosting",
    "Method",
    "Posting",
    "PostingOut",
    "Profile",
    "Release",
    "Sale",
    "Supply",
    "allocate",
    "balances",
    "change_cohorts",
    "chart",
    "cohorts",
    "concession_postings",
    "concession_return_postings",
    "default_codes",
    "expected_points",
    "fold",
    "fold_in_steps",
    "fulfilment_postings",
    "grant_postings",
    "journal",
    "open_chart",
    "post",
    "postings_of",
    "provision_postings",
    "return_postings",
    "returned_part",
    "revise_estimate",
    "reward_costs",
    "sale_postings",
    "set_aside",
    "tender_postings",
    "tender_return_postings",
    "withheld_postings",
    "write_off_postings",
    "written_off",
]
