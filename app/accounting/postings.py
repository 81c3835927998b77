"""What each event posts: the legs of an entry, as rows of one debit and one credit. Pure.

Two profiles. `full` posts the whole event; `adjustment` posts what the till or ERP, which books the sale itself, does
not know. For every event: ours in `adjustment` and the till's own entry together are `full`. Amounts are minor units.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from app.accounting.rules import Cause, Chart, Profile

Supply = Literal["own", "principal", "agent"]
"""Whose reward it is: our own stock, or a partner's for which we are principal or agent (IFRS 15.B34-B38)."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One row of the journal: `amount` minor units from the account `credit` to the account `debit`."""

    program_id: UUID
    debit: str
    credit: str
    amount: int
    currency: str
    cause: Cause
    cohort_id: UUID | None
    document_id: UUID
    occurred_at: datetime
    period: date
    """First day of the accounting month."""


@dataclass(frozen=True, slots=True)
class Event:
    """What makes postings: a document of the programme, when it happened, and the month it belongs to.

    `cohort_id` is the cohort of the points it is about; None where it is about none, or not about points.
    """

    program_id: UUID
    document_id: UUID
    currency: str
    occurred_at: datetime
    period: date
    cohort_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Sale:
    """A purchase as the journal sees it, minor units. `consideration` is net of VAT; `share` is the points' part.

    Also the part of one that a return takes back, with the return's document and times.
    """

    program_id: UUID
    document_id: UUID
    currency: str
    occurred_at: datetime
    period: date
    consideration: int
    tax: int
    share: int
    cohort_id: UUID | None


# --- sales and returns ----------------------------------------------------------------------------------------------


def sale_postings(sale: Sale, profile: Profile, accounts: Chart) -> list[Posting]:
    """What a purchase posts. Nothing is posted for a part that is zero."""
    if profile == "adjustment":
        return grant_postings(sale, accounts)
    cash, whole = accounts["cash"], _event(sale, None)
    return [
        *leg(whole, "sale", cash, accounts["revenue_goods"], sale.consideration - sale.share),
        *leg(_event(sale, sale.cohort_id), "accrual", cash, accounts["liability_points"], sale.share),
        *leg(whole, "sale", cash, accounts["vat"], sale.tax),
    ]


def grant_postings(sale: Sale, accounts: Chart) -> list[Posting]:
    """What deferring the points' part of an already booked sale posts."""
    event = _event(sale, sale.cohort_id)
    return leg(event, "accrual", accounts["revenue_goods"], accounts["liability_points"], sale.share)


def return_postings(returned: Sale, profile: Profile, accounts: Chart) -> list[Posting]:
    """What taking back a part of a sale posts: the contra rows of `sale_postings`. `returned`: that part, all >= 0.

    A part may hold more of the points' share than of the price (a cheap line that earned most points): then its goods'
    part is negative, and posted the other way round.
    """
    goods, liability = accounts["revenue_goods"], accounts["liability_points"]
    whole, share = _event(returned, None), _event(returned, returned.cohort_id)
    if profile == "adjustment":
        return leg(share, "return", liability, goods, returned.share)
    cash = accounts["cash"]
    return [
        *leg(whole, "return", goods, cash, returned.consideration - returned.share),
        *leg(share, "return", liability, cash, returned.share),
        *leg(whole, "return", accounts["vat"], cash, returned.tax),
    ]


def withheld_postings(event: Event, amount: int, profile: Profile, accounts: Chart) -> list[Posting]:
    """What keeping back `amount` of a refund posts, for points that were earned with the goods and are spent."""
    paid = accounts["cash" if profile == "full" else "revenue_goods"]
    return leg(event, "return", paid, accounts["revenue_points"], amount)


# --- points as tender -----------------------------------------------------------------------------------------------


def tender_postings(event: Event, amount: int, profile: Profile, accounts: Chart) -> list[Posting]:
    """What paying with points posts; `amount` is the part they paid, net of its VAT.

    The till books those goods as sold, against 2190; that is no revenue, for the points' share becomes revenue by
    cohort. In `full` only what was paid otherwise is a sale, so there is nothing to take back.
    """
    if profile == "full":
        return []
    return leg(event, "tender", accounts["revenue_goods"], accounts["points_tender_clearing"], amount)


def tender_return_postings(event: Event, amount: int, profile: Profile, accounts: Chart) -> list[Posting]:
    """What goods coming back post for the part that points had paid, net of its VAT: the contra of its tender."""
    if profile == "full":
        return []
    return leg(event, "return", accounts["points_tender_clearing"], accounts["revenue_goods"], amount)


# --- points without a purchase --------------------------------------------------------------------------------------


def provision_postings(event: Event, amount: int, accounts: Chart) -> list[Posting]:
    """What giving points without a purchase posts: their expected cost is marketing (IAS 37.14)."""
    return leg(event, "provision", accounts["marketing_points"], accounts["provision_points"], amount)


def concession_postings(event: Event, amount: int, accounts: Chart) -> list[Posting]:
    """What giving points for a failed order posts: a part of its price becomes theirs (IFRS 15.51)."""
    return leg(event, "concession", accounts["revenue_goods"], accounts["liability_points"], amount)


def concession_return_postings(event: Event, amount: int, accounts: Chart) -> list[Posting]:
    """What taking back points given for an order posts when the order itself comes back: the contra of that."""
    return leg(event, "return", accounts["liability_points"], accounts["revenue_goods"], amount)


# --- rewards --------------------------------------------------------------------------------------------------------


def fulfilment_postings(event: Event, cost: int, supply: Supply, accounts: Chart) -> list[Posting]:
    """What handing over a reward posts; `cost` is ours, or what the partner charges.

    As agent the charge is set against the commission, to which recognition credits this part of the release.
    """
    spent = accounts["revenue_commission" if supply == "agent" else "cost_rewards"]
    source = accounts["inventory_rewards" if supply == "own" else "payable_partners"]
    return leg(event, "fulfilment", spent, source, cost)


def write_off_postings(event: Event, cost: int, accounts: Chart) -> list[Posting]:
    """What forgiving points that a member owes posts: the cost of the reward they bought becomes marketing."""
    return leg(event, "write_off", accounts["marketing_points"], accounts["cost_rewards"], cost)


# --- memberships ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fee:
    """A fee as the journal sees it, or the part of one that is paid back; minor units. `membership` is deferred over
    its time, `points` are the points' part, `tax` comes on top of both."""

    membership: int
    points: int
    tax: int


def fee_postings(event: Event, fee: Fee, cohort_id: UUID | None, profile: Profile, accounts: Chart) -> list[Posting]:
    """What selling a membership posts; `cohort_id` is that of the points that come with it."""
    paid, points = _fee_paid(profile, accounts), replace(event, cohort_id=cohort_id)
    return [
        *leg(event, "sale", paid, accounts["liability_membership"], fee.membership),
        *leg(points, "accrual", paid, accounts["liability_points"], fee.points),
        *(leg(event, "sale", paid, accounts["vat"], fee.tax) if profile == "full" else ()),
    ]


def fee_return_postings(
    event: Event, fee: Fee, cohort_id: UUID | None, profile: Profile, accounts: Chart
) -> list[Posting]:
    """What paying a part of a fee back posts: the contra rows of `fee_postings`."""
    paid, points = _fee_paid(profile, accounts), replace(event, cohort_id=cohort_id)
    return [
        *leg(event, "return", accounts["liability_membership"], paid, fee.membership),
        *leg(points, "return", accounts["liability_points"], paid, fee.points),
        *(leg(event, "return", accounts["vat"], paid, fee.tax) if profile == "full" else ()),
    ]


def _fee_paid(profile: Profile, accounts: Chart) -> str:
    """Where the price is: with us, or in the revenue that the till has booked."""
    return accounts["cash" if profile == "full" else "revenue_goods"]


def membership_postings(event: Event, amount: int, accounts: Chart) -> list[Posting]:
    """What a part of a membership's time that has passed posts (IFRS 15.35(a))."""
    return leg(event, "membership", accounts["liability_membership"], accounts["revenue_membership"], amount)


# --- legs -----------------------------------------------------------------------------------------------------------


def _event(sale: Sale, cohort_id: UUID | None) -> Event:
    return Event(sale.program_id, sale.document_id, sale.currency, sale.occurred_at, sale.period, cohort_id)


def leg(event: Event, cause: Cause, debit: str, credit: str, amount: int) -> list[Posting]:
    """`amount` from `credit` to `debit`; the other way round when it is negative, and nothing when it is zero."""
    if amount < 0:
        debit, credit, amount = credit, debit, -amount
    if amount == 0:
        return []
    return [
        Posting(
            event.program_id,
            debit,
            credit,
            amount,
            event.currency,
            cause,
            event.cohort_id,
            event.document_id,
            event.occurred_at,
            event.period,
        )
    ]
