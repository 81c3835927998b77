"""The wire of accounting. Amounts are minor units of the currency beside them."""

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from app.accounting.recognition import ReleaseCause
from app.accounting.rules import Funding
from app.wire import Answer, Stamp

Period = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}$", examples=["2026-11"])]


class AccountOut(Answer):
    """An account. `kind`: A asset, L liability, I income, X expense; `role` is what the service uses it for."""

    code: str
    role: str
    name: str
    kind: Literal["A", "L", "I", "X"]


class AccountList(Answer):
    items: list[AccountOut]


class JournalRow(Answer):
    """One posting. `document_id` is the transaction, or the claim of one, it belongs to; for what was released for a
    cohort it is the cohort."""

    id: UUID
    debit: str
    credit: str
    amount: int
    currency: str
    cause: str
    cohort_id: UUID | None
    document_id: UUID
    occurred_at: Stamp
    recorded_at: Stamp
    period: Period


class PostingOut(Answer):
    """One row of the journal: `amount` minor units from account `credit` to account `debit`."""

    debit: str
    credit: str
    amount: int
    currency: str
    cause: str


class JournalPage(Answer):
    items: list[JournalRow]
    next: str | None


class BalanceRow(Answer):
    """An account's movements in one currency. `balance` is debits less credits."""

    code: str
    name: str
    kind: Literal["A", "L", "I", "X"]
    currency: str
    debits: int
    credits: int
    balance: int


class TrialBalance(Answer):
    """All accounts with movements, up to and including `period_to`; the balances of a currency sum to zero."""

    period_to: Period | None
    items: list[BalanceRow]


class CohortOut(Answer):
    """A pool that revenue is recognised from, with what waits for the next fold, which `recognised` does not know yet.
    `allocated`, `recognised` and `unfolded` in minor units, `residue` in millionths of one; `issued`, `used` and
    `expired` in points, `expected` in millionths of a point."""

    id: UUID
    currency: str
    month: Period
    funding: str
    estimate_class: Annotated[str, Field(description="The redemption rate at issue, as a fraction")]
    allocated: int
    residue: int
    issued: int
    expected: Annotated[int, Field(description="At issue; times `estimate` it is what is expected now")]
    used: int
    expired: int
    recognised: int
    estimate: Annotated[str, Field(description="What is expected now over `expected`, as a fraction", examples=["1"])]
    unfolded: Annotated[int, Field(description="Part of `allocated` that the next fold will take up")]
    waiting: Annotated[int, Field(description="Changes that the next fold will take up")]


class CohortPage(Answer):
    items: list[CohortOut]
    next: str | None


class ReleasedOut(Answer):
    """What was released for one cause, minor units, in all months; negative where more was taken back. It is revenue,
    but for the funding `marketing`, where a provision is used up (`redemption`) or given back."""

    currency: str
    funding: Funding
    cause: ReleaseCause
    amount: int


class RecognitionOut(Answer):
    """What a run did. `left` cohorts could not be folded and wait, unchanged; the log says why."""

    cohorts: Annotated[int, Field(description="Cohorts with changes that were taken up")]
    changes: int
    postings: int
    left: int
    released: list[ReleasedOut]


def show_period(period: date) -> str:
    return f"{period:%Y-%m}"


def read_period(text: str) -> date:
    """First day of the month in `2026-11`. ValueError if there is no such month."""
    return date.fromisoformat(f"{text}-01")
