"""What an adjustment does to an account and to the books. Pure: what was asked for and the terms in, a decision out."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args
from uuid import UUID

from app import accounting, ledger
from app.accounting import Allocation, Chart, Event, Funding, Posting, set_aside
from app.errors import Problem, finding
from app.ledger import Account, Act, OpenLot
from app.members import MemberClosed
from app.programs import Gift, Terms, expires_at, give, provided
from app.transactions import CurrencyMismatch, Order

GrantClass = Literal["goodwill", "sign_up", "referral", "promotion", "correction", "concession"]
"""Points given, or by a correction taken. A concession makes up for an order; the others come without a purchase."""

AdjustmentClass = Literal[GrantClass, "debt_write_off", "extension", "reinstatement"]

GRANTS: tuple[str, ...] = get_args(GrantClass)


class SamePerson(Problem):
    """A second person approves or rejects, not the same one with another key."""

    status, code, title = 403, "same_person", "Somebody else has to decide this"


class AdjustmentEnded(Problem):
    """It was applied or rejected before."""

    status, code, title, final = 409, "adjustment_ended", "The adjustment has ended", True


class UnknownOrder(Problem):
    """The member has no purchase with this number to make up for."""

    status, code, title, final = 422, "unknown_order", "The member has no such order", True


class ConsentMissing(Problem):
    """The programme gives points for a failed order only to members who agreed to them; `consent` says when."""

    status, code, title, final = 422, "consent_missing", "The member's consent is needed", True


class NothingToConcede(Problem):
    """Nothing is left of what was paid for the order: it came back, or was conceded before. Goodwill is another way."""

    status, code, title, final = 422, "nothing_to_concede", "Nothing of the order's price is left", True


class NothingToWriteOff(Problem):
    """The member owes fewer points, or none."""

    status, code, title, final = 422, "nothing_to_write_off", "The member does not owe that", True


class NothingToExtend(Problem):
    """The lot has no points that could live longer: they are used, expired or held. Expired ones can be reinstated."""

    status, code, title, final = 422, "nothing_to_extend", "The lot has nothing left to extend", True


class NothingToReinstate(Problem):
    """Fewer points of the lot have expired, or none."""

    status, code, title, final = 422, "nothing_to_reinstate", "The lot has not that many expired points", True


class ExpiryNotLater(Problem):
    """Points can be made to live longer, not shorter: later than now, and than they would."""

    status, code, title, final = 422, "expiry_not_later", "The points would not live longer", True


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants done. `points`: given, or taken if negative; None: all there are to forgive, to extend, to
    reinstate. A concession has an order and the member's consent, an extension or a reinstatement a lot and an expiry.
    """

    class_: AdjustmentClass
    member_id: UUID
    points: int | None
    reason: str
    note: str | None = None
    consented_at: datetime | None = None
    lot_id: UUID | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What a decision rests on. `order` and what was `conceded` on it before are a concession's; `lot` and how many of
    its points are `expired` those of an extension or a reinstatement."""

    account: Account
    status: str
    terms: Terms
    chart: Chart
    order: Order | None = None
    conceded: int = 0
    lot: OpenLot | None = None
    expired: int = 0


@dataclass(frozen=True, slots=True)
class Decided:
    """What an adjustment comes to: how many points, the account after it, what it posts, and how much of the order's
    price is `conceded`, minor units."""

    points: int
    account: Account
    postings: list[Posting]
    conceded: int = 0


def needs_approval(asked: Asked, points: int, role: str | None, terms: Terms) -> bool:
    """Whether a second person has to approve. An extension gives and takes nothing."""
    policy = terms.adjustments
    limit = policy.limit if role is None else policy.limits.get(role, policy.limit)
    return asked.class_ != "extension" and abs(points) > limit


def decide(asked: Asked, known: Known, act: Act) -> Decided:
    """What `asked` comes to at `act.occurred_at`. A closed member gets nothing, but may be forgiven and corrected."""
    match asked.class_:
        case "debt_write_off":
            return _write_off(asked, known, act)
        case "extension":
            _check_open(known)
            return _extend(asked, known, act)
        case "reinstatement":
            _check_open(known)
            return _reinstate(asked, known, act)
    assert asked.points is not None
    if asked.points < 0:
        account = ledger.spend(known.account, -asked.points, act, "adjustment", "expired")
        return Decided(asked.points, account, [])
    _check_open(known)
    return _grant(asked, asked.points, known, act)


def _check_open(known: Known) -> None:
    if known.status == "closed":
        raise MemberClosed


# --- grants ---------------------------------------------------------------------------------------------------------


def _grant(asked: Asked, points: int, known: Known, act: Act) -> Decided:
    """Points at once that expire as those of a purchase of now would."""
    terms = known.terms
    funding: Funding = "concession" if asked.class_ == "concession" else "marketing"
    put_aside = _concession(asked, points, known, act) if funding == "concession" else provided(points, terms)
    gift = Gift("adjustment", points, funding, put_aside, expires_at(act.occurred_at, terms))
    account, postings = give(known.account, gift, act, terms, known.chart)
    return Decided(points, account, postings, put_aside.points if funding == "concession" else 0)


def _concession(asked: Asked, points: int, known: Known, act: Act) -> Allocation:
    """What points for a failed order take off its price: their value, at most what is left of it."""
    terms, order = known.terms, known.order
    if order is None or order.member_id != asked.member_id:
        raise UnknownOrder(findings=[finding(("order",), "unknown", "the member has no such purchase")])
    if order.currency != terms.currency:
        raise CurrencyMismatch(f"the order is in {order.currency}, the terms are in {terms.currency}")
    if asked.consented_at is None and terms.adjustments.concession_needs_consent:
        raise ConsentMissing(findings=[finding(("consent",), "missing", "when did the member agree")])
    ahead = timedelta(minutes=terms.uploads.future_minutes)
    if asked.consented_at is not None and asked.consented_at > act.recorded_at + ahead:
        raise ConsentMissing(findings=[finding(("consent",), "in_future", "later than the service's clock")])
    left = order.price_left - known.conceded
    if left <= 0:
        raise NothingToConcede
    return set_aside(points, terms.redemption_rate.fraction, terms.point_value.each, left)


# --- what is there already ------------------------------------------------------------------------------------------


def _write_off(asked: Asked, known: Known, act: Act) -> Decided:
    """What rewards have cost that owed points bought becomes marketing; their revenue stays as it is."""
    owed = known.account.debt
    points = owed if asked.points is None else asked.points
    if not 0 < points <= owed:
        raise NothingToWriteOff(f"{owed} points are owed")
    event = Event(act.program_id, act.document_id, known.terms.currency, act.occurred_at, act.period)
    account, cost = ledger.move_costs(ledger.write_off(known.account, points, act), event.currency)
    return Decided(points, account, accounting.write_off_postings(event, cost, known.chart))


def _extend(asked: Asked, known: Known, act: Act) -> Decided:
    assert known.lot is not None
    assert asked.expires_at is not None
    lot = known.account.lots.get(known.lot.id)
    if lot is None or lot.free == 0:
        raise NothingToExtend
    expiry = known.account.expiry_of(lot)
    if expiry is None or asked.expires_at <= expiry:
        until = "for ever" if expiry is None else f"until {expiry.isoformat()}"
        raise ExpiryNotLater(findings=[finding(("expires_at",), "not_later", f"they are good {until}")])
    return Decided(lot.free, ledger.extend(known.account, lot.id, asked.expires_at, act), [])


def _reinstate(asked: Asked, known: Known, act: Act) -> Decided:
    assert known.lot is not None
    assert asked.expires_at is not None
    points = known.expired if asked.points is None else asked.points
    if not 0 < points <= known.expired:
        raise NothingToReinstate(f"{known.expired} points of the lot have expired")
    if asked.expires_at <= act.recorded_at:
        raise ExpiryNotLater(findings=[finding(("expires_at",), "not_later", "that is in the past")])
    return Decided(points, ledger.reinstate(known.account, known.lot, points, asked.expires_at, act), [])
