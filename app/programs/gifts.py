"""Points that are given without a purchase, or for one that failed: what they put aside, how they are granted. Pure.

They are available at once, however long purchases wait for theirs, unless they wait for an event of their own; they
count for no tier, and defer no revenue.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from app import accounting, ledger
from app.accounting import Allocation, Chart, CohortKey, Event, Funding, Posting, expected_points, set_aside
from app.ledger import Account, Accrual, Act, Kind
from app.programs.calendar import lapses, lapses_at, local_month
from app.programs.schemas import Terms


@dataclass(frozen=True, slots=True)
class Gift:
    """Points to give: what pays for them, and how much of that is `put_aside` for them (minor units).

    `expires_at`: the first instant at which they are gone; None if they stay, or lapse with the account. `waits_for`:
    they are pending until an event of that document; None: they are available at once.
    """

    kind: Kind
    points: int
    funding: Funding
    put_aside: Allocation
    expires_at: datetime | None
    waits_for: UUID | None = None


def provided(points: int, terms: Terms) -> Allocation:
    """What points without a purchase will cost us."""
    return set_aside(points, terms.redemption_rate.fraction, (terms.point_cost or terms.point_value).each)


def keeping(account: Account, act: Act, terms: Terms) -> Act:
    """An act that makes points available which lapse with the account: they would stay for ever, or be gone at once,
    where the member has done nothing yet, or not for so long."""
    lapse = account.lapses_at
    if lapse is None or lapse <= act.occurred_at:
        return replace(act, lapses_at=lapses_at(act.occurred_at, terms))
    return act


def give(account: Account, gift: Gift, act: Act, terms: Terms, chart: Chart) -> tuple[Account, list[Posting]]:
    """The account after a gift at `act.occurred_at`, and what that posts."""
    waits = gift.waits_for is not None
    lapsing = gift.expires_at is None and not waits and lapses(terms)
    if lapsing:
        act = keeping(account, act, terms)
    rate = terms.redemption_rate.fraction
    cohort = CohortKey(act.program_id, terms.currency, local_month(act.occurred_at, terms), gift.funding, str(rate))
    accrual = Accrual(
        points=gift.points,
        act=act,
        cohort=cohort,
        allocated=gift.put_aside.points,
        residue=gift.put_aside.residue,
        expected=expected_points(gift.points, rate),
        expires_at=gift.expires_at,
        available_from=None if waits else act.occurred_at,
        lapses=lapsing,
        kind=gift.kind,
        document_id=gift.waits_for,
    )
    event = Event(act.program_id, act.document_id, terms.currency, act.occurred_at, act.period, cohort.id)
    post = accounting.concession_postings if gift.funding == "concession" else accounting.provision_postings
    return ledger.accrue(account, accrual), post(event, gift.put_aside.points, chart)
