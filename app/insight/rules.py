"""What other terms would have given for purchases of the past, in the order in which those arrived. Pure.

A member's purchases are replayed one after the other: `Life` follows what the rules have given so far. What was known
of a member when a purchase was decided is on record by the rules that asked for it; a rule that asks something else is
answered with what is known of them today, which is counted (`assumed`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.accounting import returned_part
from app.errors import Problem
from app.insight.moves import Counting, MovesCompared, credits_of, given_back
from app.ledger import MOST_GRANTED
from app.programs import Basket, Customer, Occasion, Reason, Terms, Uses, Version, earn
from app.transactions.rules import Judged, check_amounts, check_currency, occasion_of, price

AT_ONCE = timedelta(minutes=1)
"""How far apart two purchases may have been recorded whose order of arrival only the ledger knows: a unit of work does
not last longer."""


@dataclass(frozen=True, slots=True)
class Bought:
    """A member's purchase, or a guest's that the member claimed: what was sent, decided and known then.

    `number`: of its first entry in the ledger, if it made one. `basket` None: it is outside the period, and only what
    it gave counts. `granted`, `taken_back` (points), `deferred`, `given_back` (minor units): what the books say of it.
    """

    document_id: UUID
    member_id: UUID
    recorded_at: datetime
    occurred_at: datetime
    number: int | None
    purchase: Mapping[str, Any]
    """When what was bought happened and was recorded, as a row."""
    terms: Terms
    """Those it was decided under."""
    reasons: Sequence[Reason]
    facts: Mapping[str, Any] | None
    store: str | None
    channel: str | None
    basket: Basket | None
    past: Sequence[Any]
    """What came back of it, as rows."""
    profile: Customer
    """The member as known today, but for what they bought."""
    granted: int
    taken_back: int
    deferred: int
    given_back: int


def in_order(rows: Iterable[Bought]) -> Iterator[Bought]:
    """One member's purchases of about one time in the order in which they were decided.

    The ledger has numbered those that moved points; each of the others keeps its place by `recorded_at`.
    """
    known = sorted(rows, key=lambda row: (row.recorded_at, row.document_id))
    numbered = iter(sorted((row for row in known if row.number is not None), key=lambda row: row.number or 0))
    return (row if row.number is None else next(numbered) for row in known)


def at_once(rows: Iterable[Bought]) -> Iterator[list[Bought]]:
    """Purchases, sorted by member and `recorded_at`, in groups that `in_order` can put in order each by itself."""
    group: list[Bought] = []
    for row in rows:
        if group and (row.member_id != group[-1].member_id or row.recorded_at - group[-1].recorded_at > AT_ONCE):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


# --- figures --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Figures:
    """What purchases came to: points, and minor units of deferred revenue; of both what returns took back since."""

    purchases: int = 0
    """That earned anything."""
    points: int = 0
    taken_back: int = 0
    deferred: int = 0
    given_back: int = 0

    def add(self, points: int, taken_back: int, deferred: int, given_back: int) -> None:
        self.purchases += points > 0
        self.points += points
        self.taken_back += taken_back
        self.deferred += deferred
        self.given_back += given_back


@dataclass(slots=True)
class Compared:
    """The same purchases under the terms they were decided under, and under the draft."""

    published: Figures = field(default_factory=Figures)
    draft: Figures = field(default_factory=Figures)


@dataclass(slots=True)
class Given:
    """What a rule gave: `points` for so many `purchases`. What came back since is not taken off."""

    purchases: int = 0
    points: int = 0

    def add(self, points: int) -> None:
        self.purchases += 1
        self.points += points


@dataclass(slots=True)
class ByRule:
    """What a rule gave under the published terms, and under the draft."""

    published: Given = field(default_factory=Given)
    draft: Given = field(default_factory=Given)


@dataclass(slots=True)
class Totals:
    """What a replay has come to so far. A member's purchases count in each of the member's segments."""

    purchases: int = 0
    members: int = 0
    """Looked at, with purchases or without."""
    all: Compared = field(default_factory=Compared)
    stores: dict[str | None, Compared] = field(default_factory=dict)
    segments: dict[str, Compared] = field(default_factory=dict)
    rules: dict[str, ByRule] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    """Purchases that the draft would not take, by the code of the refusal: they earn nothing under it."""
    assumed: int = 0
    """Purchases for which the draft asked what is known of a member today only."""
    tiers: MovesCompared = field(default_factory=MovesCompared)
    tiers_by_segment: dict[str, MovesCompared] = field(default_factory=dict)

    def add(self, row: Bought, replayed: "Replayed") -> None:
        self.purchases += 1
        self.assumed += replayed.assumed
        if replayed.refusal is not None:
            self.refused[replayed.refusal] += 1
        each = [self.all, self.stores.setdefault(row.store, Compared())]
        each += [self.segments.setdefault(segment, Compared()) for segment in sorted(set(row.profile.segments))]
        for compared in each:
            compared.published.add(row.granted, row.taken_back, row.deferred, row.given_back)
            compared.draft.add(replayed.points, replayed.taken_back, replayed.deferred, replayed.given_back)
        for reason in row.reasons:
            self.rules.setdefault(reason.rule, ByRule()).published.add(reason.points)
        for reason in replayed.reasons:
            self.rules.setdefault(reason.rule, ByRule()).draft.add(reason.points)

    def moves(self, segments: Iterable[str]) -> list[MovesCompared]:
        """The figures that a member of some segments counts in."""
        theirs = [self.tiers_by_segment.setdefault(segment, MovesCompared()) for segment in sorted(set(segments))]
        return [self.tiers, *theirs]


# --- replay ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a purchase would have come to. `refusal`: the code of why it would not have been taken."""

    reasons: Sequence[Reason] = ()
    points: int = 0
    taken_back: int = 0
    deferred: int = 0
    given_back: int = 0
    assumed: bool = False
    refusal: str | None = None


class Life:
    """One member's purchases, in the order of arrival: what rules have given for them so far, and what has counted
    towards tiers."""

    def __init__(self, member_id: UUID) -> None:
        self.member_id = member_id
        self.counting = Counting()
        self._uses = Uses({})
        self._bought = False

    def skip(self, row: Bought) -> None:
        """A purchase outside the period: what it really gave counts."""
        at = row.occurred_at.astimezone(row.terms.zone)
        self._uses.count(self.member_id, row.terms, at, row.reasons)
        self._bought = True

    def replay(self, row: Bought, draft: Version, program_id: UUID) -> Replayed:
        """What a purchase of the period comes to under the draft, with all that came back of it."""
        assert row.basket is not None
        terms = draft.terms
        facts = row.facts or {}
        occasion = occasion_of(row.occurred_at, row.store, row.channel, terms)
        occasion = occasion._replace(tier=facts.get("tier"), clubs=facts.get("clubs", ()))
        recorded = recalled(terms, row, occasion)
        customer = replace(row.profile, bought=self._bought)
        short = budgets_short(terms, row, occasion)
        occasion = self._uses.known(self.member_id, terms, occasion, customer, recorded, short)
        self._bought = True
        self.counting.documents |= {row.document_id, *(each["id"] for each in row.past)}
        try:
            check_currency(row.terms.currency, terms.currency)
            check_amounts(row.basket, terms)
        except Problem as problem:
            return Replayed(refusal=problem.code)
        earning = earn(row.basket, terms, occasion)
        points, reasons = earning.points, earning.reasons
        if points > MOST_GRANTED:
            return Replayed(refusal="too_many_points")
        self._uses.count(self.member_id, terms, occasion.at, reasons)
        back = given_back(row.basket, terms, earning, row.past)
        taken_back = sum(sums.points for sums in back)
        self.counting.credits += credits_of(row.document_id, row.purchase, row.recorded_at, earning, row.past, back)
        judged = Judged(draft, occasion, earning)
        deferred = price(program_id, row.basket, judged, granted=True).allocation.points
        return Replayed(
            reasons=reasons,
            points=points,
            taken_back=taken_back,
            deferred=deferred,
            given_back=returned_part(deferred, taken_back, points, 0) if taken_back else 0,
            assumed=_assumed(terms, occasion, recorded) or _standing_unknown(terms, row),
        )


def recalled(draft: Terms, row: Bought, occasion: Occasion) -> dict[str, str | None]:
    """By rule of the draft, what was found of who the member was, where the terms of the purchase asked the same by a
    rule of that name: which condition was not met, or None."""
    if not row.terms.selective or row.terms.time_zone != draft.time_zone:
        return {}
    asked = {rule.code: rule.who for rule in row.terms.rulebook.personal(occasion.at.date()) if not rule.who.everybody}
    unmet = (row.facts or {}).get("unmet", {})
    same = [rule.code for rule in draft.rulebook.personal(occasion.at.date()) if asked.get(rule.code) == rule.who]
    return {code: None if unmet.get(code) in _NOT_OF_WHO else unmet[code] for code in same}


def budgets_short(draft: Terms, row: Bought, occasion: Occasion) -> dict[str, int]:
    """By rule of the draft that is the same as one of the purchase's terms: what its budget left then, if too little.

    A budget of the draft's own is not followed: members are walked through one after the other, not in the order in
    which they would use it up.
    """
    facts, day = row.facts or {}, occasion.at.date()
    unmet, allowed = facts.get("unmet", {}), facts.get("allowed", {})
    before = row.terms.rulebook.personal(day)
    same = {rule.code for rule in draft.rulebook.personal(day) if rule.budget is not None and rule in before}
    none = {code: 0 for code in same if unmet.get(code) == "budget"}
    return none | {code: allowed[code] for code in same if code in allowed}


_NOT_OF_WHO = (None, "limit", "cooldown", "budget")
"""Why a rule gave nothing to a member who was as it asks."""


def _assumed(terms: Terms, occasion: Occasion, recorded: Mapping[str, str | None]) -> bool:
    return any(
        rule.code not in recorded and (rule.who.birthday or rule.who.attributes or rule.who.segments)
        for rule in terms.rulebook.personal(occasion.at.date())
    )


def _standing_unknown(terms: Terms, row: Bought) -> bool:
    """Whether it matters in which tier the member was, or in which clubs, and nobody kept that, there being none."""
    ranked = any(rule.who.tiers for rule in terms.every_rule) or (terms.tiers is not None and terms.tiers.multiplies)
    named = {code for rule in terms.every_rule for code in rule.who.clubs}
    known = {club.code for club in row.terms.clubs}
    return (ranked and row.terms.tiers is None) or not named <= known
