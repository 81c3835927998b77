"""What is accepted, and what a purchase comes to. Pure: a purchase and its terms in, a refusal or a decision out."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from app.accounting import Allocation, CohortKey, Sale, allocate, expected_points
from app.clubs import Bought
from app.errors import Finding, Problem, finding
from app.ledger import MOST_GRANTED, Accrual, Act, TooManyPoints
from app.members import MemberRef
from app.programs import (
    Basket,
    Earning,
    Need,
    NoTerms,
    Occasion,
    PointsTender,
    Sums,
    Terms,
    Timeline,
    Version,
    available_from,
    cancels_at,
    check_basket,
    check_points_tender,
    check_time,
    consideration,
    earn,
    earn_at_least,
    end_adopted,
    expires_at,
    lapses,
    lapses_after,
    local_month,
    most,
    net_paid_with_points,
    stand_alone_prices,
    tax_of,
    tender_of,
)
from app.tiers import Coming, Credit
from app.wire import JsonText


class TransactionConflict(Problem):
    """This natural key came before with other content; `errors` points at what differs. Number the receipt anew."""

    status, code, title, final = 409, "transaction_conflict", "The receipt's number belongs to other content", True


class CurrencyMismatch(Problem):
    """The purchase is not in the currency of the programme's terms."""

    status, code, title, final = 422, "currency_mismatch", "Not the programme's currency", True


class NegativeLine(Problem):
    """A purchase has no negative amount or quantity. A return is a transaction of its own."""

    status, code, title, final = 422, "negative_line", "A purchase has no negative amounts", True


class SumsDoNotMatch(Problem):
    """Lines, tenders and total do not add up; `errors` says where."""

    status, code, title, final = 422, "sums_do_not_match", "The sums do not match", True


class PurchaseTooLarge(Problem):
    """The total is above what the terms take for a mistake."""

    status, code, title, final = 422, "purchase_too_large", "The total is too large", True


class PointsTenderRefused(Problem):
    """Points cannot pay this way: `errors` says what the terms ask for. A guest has none to pay with."""

    status, code, title, final = 422, "points_tender_refused", "Points cannot pay for this", True


class StoreNotAllowed(Problem):
    """The key acts for certain stores only, and this is not one of them."""

    status, code, title = 403, "store_not_allowed", "The key does not act for this store"


class TransactionHasMember(Problem):
    """Only a guest's purchase can be claimed; this one belongs to a member."""

    status, code, title, final = 409, "transaction_has_member", "The purchase belongs to a member", True


class TransactionClaimed(Problem):
    """Somebody else has claimed this purchase."""

    status, code, title, final = 409, "transaction_claimed", "The purchase has been claimed", True


@dataclass(frozen=True, slots=True)
class Purchase:
    """A purchase a till posts. `content` is what it sent, normalised, less the member."""

    type: str
    source: str
    external_id: str
    occurred_at: datetime
    store: str | None
    channel: str | None
    currency: str
    basket: Basket
    member: MemberRef | None
    content: JsonText

    @property
    def key(self) -> tuple[str, str, str]:
        """The natural key, within the programme."""
        return self.source, self.external_id, self.type


class Judged(NamedTuple):
    """An acceptable purchase: the version of terms it falls under, when and where it was, what it earns, and what of it
    is paid with points.

    `most`: what rules with a budget could give for it, by their codes.
    """

    version: Version
    occasion: Occasion
    earning: Earning
    tender: PointsTender | None = None
    most: Mapping[str, Need] = MappingProxyType({})


def judge(purchase: Purchase, terms: Timeline, now: datetime) -> Judged:
    """What a purchase earns, as far as that does not depend on the member. Raises the refusal of one that cannot be
    accepted, whoever the member is."""
    version = terms.at(purchase.occurred_at)
    if version is None:
        raise NoTerms
    check_time(purchase.occurred_at, version, now)
    check_currency(purchase.currency, version.terms.currency)
    check_amounts(purchase.basket, version.terms)
    occasion = occasion_of(purchase.occurred_at, purchase.store, purchase.channel, version.terms)
    basket, tender = purchase.basket, tender_of(purchase.basket, version.terms)
    if purchase.member is None:
        if tender is not None:
            raise PointsTenderRefused("a guest has no points to pay with")
        return Judged(version, occasion, no_more_than_fits(earn(basket, version.terms, occasion)))
    return of_a_member(version, basket, occasion, tender)


def of_a_member(version: Version, basket: Basket, occasion: Occasion, tender: PointsTender | None = None) -> Judged:
    """The same of a purchase by some member. TooManyPoints."""
    terms = version.terms
    # what rules give a member is found out once, when it is known who that is
    earning = earn_at_least(basket, terms) if terms.personal else earn(basket, terms, occasion)
    return Judged(version, occasion, no_more_than_fits(earning), tender, most(basket, terms, occasion))


def no_more_than_fits(earning: Earning) -> Earning:
    """TooManyPoints."""
    if earning.points > MOST_GRANTED:
        raise TooManyPoints
    return earning


def facts_of(occasion: Occasion) -> dict[str, Any] | None:
    """What was known of a member, for the record."""
    known = {"unmet": dict(occasion.unmet), "allowed": dict(occasion.allowed), "tier": occasion.tier}
    known["clubs"] = list(occasion.clubs)
    return {name: facts for name, facts in known.items() if facts} or None


def tier_of(facts: dict[str, Any] | None) -> str | None:
    """The tier somebody bought in, by the record."""
    return None if facts is None else facts.get("tier")


def remembered(occasion: Occasion, facts: dict[str, Any] | None) -> Occasion:
    """The occasion with what was known of a member, by the record."""
    return occasion._replace(known=True, **facts or {})


def reasons_of(earning: Earning) -> list[dict[str, Any]]:
    """Each rule's part of the points, for the record."""
    return [{"rule": reason.rule, "base": reason.base, "points": reason.points} for reason in earning.reasons]


def check_currency(stated: str | None, currency: str) -> None:
    """Raises CurrencyMismatch. Nothing stated is right."""
    if stated not in (None, currency):
        raise CurrencyMismatch(findings=[finding(("currency",), "currency_mismatch", f"the terms are in {currency}")])


def check_amounts(basket: Basket, terms: Terms) -> None:
    """Raises NegativeLine, PurchaseTooLarge, SumsDoNotMatch or PointsTenderRefused."""
    if negative := list(_negatives(basket)):
        raise NegativeLine(findings=negative)
    largest = terms.uploads.largest_total
    if basket.total > largest:
        raise PurchaseTooLarge(findings=[finding(("total",), "too_large", f"above {largest}")])
    if mismatches := [*check_basket(basket, terms), *_repeated_numbers(basket)]:
        raise SumsDoNotMatch(findings=mismatches)
    if refused := check_points_tender(basket, terms):
        raise PointsTenderRefused(findings=refused)


def _negatives(basket: Basket) -> Iterator[Finding]:
    for position, line in enumerate(basket.lines):
        if line.quantity < 0 or line.amount < 0 or line.discount < 0 or line.tax < 0:
            for name in ("quantity", "amount", "discount", "tax"):
                if getattr(line, name) < 0:
                    yield finding(("lines", position, name), "negative", "must not be negative")
    for position, tender in enumerate(basket.tenders):
        if tender.amount < 0:
            yield finding(("tenders", position, "amount"), "negative", "must not be negative")
    if basket.total < 0:
        yield finding(("total",), "negative", "must not be negative")


def _repeated_numbers(basket: Basket) -> Iterator[Finding]:
    seen = set()
    for position, line in enumerate(basket.lines):
        if line.number in seen:
            yield finding(("lines", position, "line"), "line_number_twice", "two lines have this number")
        seen.add(line.number)


def fingerprint(content: JsonText) -> str:
    """SHA-256 of what is compared, in hex."""
    return hashlib.sha256(content.encode()).hexdigest()


def parsed(content: Any) -> Any:
    """A content as it was read, or, where it is not written yet, made."""
    return content.parsed() if isinstance(content, JsonText) else content


def differences(first: Any, second: Any, path: tuple[str | int, ...] = ()) -> Iterator[Finding]:
    """Where two contents of one natural key differ; never what they hold."""
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted(first.keys() | second.keys()):
            yield from differences(first.get(name), second.get(name), (*path, name))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for position, pair in enumerate(zip(first, second, strict=True)):
            yield from differences(*pair, path=(*path, position))
    elif first != second:
        yield finding(path, "differs", "differs from what was recorded")


@dataclass(frozen=True, slots=True)
class Priced:
    """What a basket comes to under its terms: points with reasons, the price shared out, and the cohort they join."""

    earning: Earning
    allocation: Allocation
    consideration: int
    tax: int
    expected: int
    """Millionths of a point expected to be used."""
    expires_at: datetime | None
    available_from: datetime | None
    """None: pending until an event."""
    cohort: CohortKey
    tender: PointsTender | None
    """What of it is paid with points."""
    net_tendered: int
    """That part of the price, net of VAT."""


def occasion_of(occurred_at: datetime, store: str | None, channel: str | None, terms: Terms) -> Occasion:
    """When and where a purchase happened, as earning rules see it."""
    return Occasion(occurred_at.astimezone(terms.zone), store, channel)


def price(program_id: UUID, basket: Basket, judged: Judged, *, granted: bool) -> Priced:
    """What an acceptable basket comes to. IFRS 15.74: by stand-alone prices, at the time of the sale.

    Where nobody is `granted` the points (a guest), they are counted but get no part of the price.
    """
    terms, occurred_at, earning = judged.version.terms, judged.occasion.at, judged.earning
    rate = terms.redemption_rate.fraction
    paid = consideration(basket, terms)
    allocation = allocate(
        paid,
        stand_alone_prices(basket, terms),
        earning.points * terms.point_value.each * rate if granted else Fraction(0),
        terms.allocation.method,
        terms.allocation.rounding,
    )
    month = local_month(occurred_at, terms)
    return Priced(
        earning,
        allocation,
        paid,
        tax_of(basket),
        expected_points(earning.points, rate),
        cancels_at(occurred_at, terms) or expires_at(occurred_at, terms, judged.occasion.tier),
        available_from(occurred_at, terms),
        CohortKey(program_id, terms.currency, month, "purchase", str(rate)),
        judged.tender,
        net_paid_with_points(basket, terms),
    )


def with_end(priced: Priced, terms: Timeline, occurred_at: datetime, now: datetime) -> Priced:
    """The same where its points, of a time before there was any expiry, end by one that was switched on since."""
    adopted = end_adopted(terms, occurred_at, priced.available_from, now)
    return priced if adopted is None else replace(priced, expires_at=adopted)


def act_of(program_id: UUID, document_id: UUID, occurred_at: datetime, now: datetime, terms: Terms, *kinds: str) -> Act:
    """What moves points for a document. It keeps them from lapsing if one of `kinds` is an activity of the terms."""
    lapse = lapses_after(occurred_at, terms, *kinds)
    return Act(program_id, document_id, occurred_at, now, terms.zone, lapse)


def accrual_of(priced: Priced, terms: Terms, act: Act) -> Accrual:
    """The points of a priced basket, for the ledger."""
    return Accrual(
        points=priced.earning.points,
        act=act,
        cohort=priced.cohort,
        allocated=priced.allocation.points,
        residue=priced.allocation.residue,
        expected=priced.expected,
        expires_at=priced.expires_at,
        available_from=priced.available_from,
        lapses=lapses(terms) and priced.available_from is not None,
        qualifying=priced.earning.points,
    )


def counting(judged: Judged, occurred_at: datetime, now: datetime) -> Coming:
    """What a purchase may count towards its member's tier."""
    earning, terms = judged.earning, judged.version.terms
    sure = not (terms.personal or (terms.tiers is not None and terms.tiers.multiplies))
    points = earning.points if sure else None
    return Coming(min(occurred_at, now), sum(earning.line_bases), points, earning.units)


def counted(earning: Earning) -> Sums:
    """What a purchase that earned so much counts towards its member's tier."""
    return Sums(earning.points, sum(earning.line_bases), 1, earning.units)


def bought(document_id: UUID, judged: Judged, basket: Basket, at: datetime) -> Bought:
    """A purchase, as clubs see it."""
    return Bought(document_id, judged.version, basket.lines, judged.earning.line_bases, at)


def counted_back(row: Any) -> Sums:
    """What a return or a void takes from that again, or the void of a return gives back."""
    outcome = row["outcome"]
    figures = outcome["figures"]
    return Sums(row["points"] + outcome["conceded"], -figures["base"], -figures["visits"], -figures.get("units", 0))


def credit_of(document_id: UUID, sums: Sums, occurred_at: datetime, now: datetime) -> Credit:
    """A purchase counts in the window in which it happened."""
    at = min(occurred_at, now)
    return Credit(document_id, at, at, now, sums)


def credit_of_claim(claim_id: UUID, sums: Sums, purchase: Any, now: datetime) -> Credit:
    """So does a claimed one, from the claim on."""
    return Credit(claim_id, min(purchase["occurred_at"], purchase["recorded_at"]), now, now, sums)


def credit_back(row: Any, sums: Sums, purchase: Any | None, now: datetime) -> Credit:
    """What came back counts in the window of the purchase, without one in its own."""
    at = min(row["occurred_at"], now)
    counted_at = at if purchase is None else min(purchase["occurred_at"], purchase["recorded_at"])
    return Credit(row["id"], counted_at, max(at, counted_at), now, sums)


def sale_of(priced: Priced, document_id: UUID, occurred_at: datetime) -> Sale:
    """A priced basket, for the journal."""
    return Sale(
        program_id=priced.cohort.program_id,
        document_id=document_id,
        currency=priced.cohort.currency,
        occurred_at=occurred_at,
        period=priced.cohort.month,
        consideration=priced.consideration,
        tax=priced.tax,
        share=priced.allocation.points,
        cohort_id=priced.cohort.id,
    )


def tendered(priced: Priced) -> dict[str, Any] | None:
    """What a purchase pays with points, for the record: minor units with tax and net of it, and points."""
    if priced.tender is None:
        return None
    tender = priced.tender
    return {"tendered": tender.amount, "net_paid_with_points": priced.net_tendered, "tendered_points": tender.points}


def shares_of(basket: Basket, priced: Priced) -> list[dict[str, int]]:
    """Per line: its part of the earning base and of the price allocated to goods, for the record."""
    parts = zip(basket.lines, priced.earning.line_bases, priced.allocation.goods, strict=True)
    return [{"line": line.number, "base": base, "goods": goods} for line, base, goods in parts]
