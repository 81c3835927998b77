"""Where members stood before and after a period, under the terms that were in force and under a draft. Pure.

Nobody's standing is read: each is found again from what counted and what staff decided, on both sides. On the draft's,
purchases of the period count what they would have earned; all others, and what came back without a receipt, what they
did.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.programs import MEASURES, Basket, Earning, Reason, Sums, Terms, TierTerms, Timeline, Version
from app.tiers import Credit, Record, standing
from app.transactions.return_rules import before, left
from app.transactions.rules import counted, credit_back, credit_of, credit_of_claim

_MOMENT = timedelta(microseconds=1)


@dataclass(slots=True)
class Moves:
    """Members by their tier before a period and at its end (None: none), and how many `rose` and `fell` between."""

    members: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    rose: int = 0
    fell: int = 0

    def add(self, first: str | None, last: str | None, rose: bool) -> None:
        self.members[first, last] += 1
        self.rose += first != last and rose
        self.fell += first != last and not rose


@dataclass(slots=True)
class MovesCompared:
    """The same members under the terms that were in force, and under the draft."""

    published: Moves = field(default_factory=Moves)
    draft: Moves = field(default_factory=Moves)


@dataclass(frozen=True, slots=True)
class Course:
    """Tiers over a period, `since` an instant and before `until`: as they were `published`, and with the `draft` in
    force from its beginning on. By what was known at `known_at`."""

    published: Timeline
    draft: Timeline
    since: datetime
    until: datetime
    known_at: datetime

    @staticmethod
    def of(published: Timeline, draft: Version, until: datetime, known_at: datetime) -> "Course":
        """The `draft` is in force from the beginning of the period on."""
        since = draft.effective_from
        earlier = [version for version in published.versions if version.effective_from < since]
        return Course(published, Timeline((*earlier, draft)), since, until, known_at)

    @property
    def has_tiers(self) -> bool:
        """Whether there is anything to compare."""
        return any(version.terms.tiers for version in (*self.published.versions, *self.draft.versions))

    def add(self, record: Record, replayed: "Counting", compared: Iterable[MovesCompared]) -> None:
        """Adds a member to figures: what is on `record`, and what is `replayed` instead of a part of it."""
        instead = [each for each in record.credits if each.document_id not in replayed.documents]
        other = Record(record.joined_at, [*instead, *replayed.credits], record.decisions)
        sides = (self._moved(record, self.published), self._moved(other, self.draft))
        for each in compared:
            each.published.add(*sides[0])
            each.draft.add(*sides[1])

    def _moved(self, record: Record, terms: Timeline) -> tuple[str | None, str | None, bool]:
        last = self.until - _MOMENT
        stands = standing(record, terms, last, self.known_at)
        stood = [change.tier for change in stands.history if change.at < self.since]
        first = stood[-1] if stood else None
        old, new = (_tiers_at(terms, at) for at in (self.since - _MOMENT, last))
        return first, stands.tier, _higher(first, stands.tier, old, new)


def _tiers_at(terms: Timeline, at: datetime) -> TierTerms | None:
    version = terms.at(at)
    return None if version is None else version.terms.tiers


def _higher(first: str | None, last: str | None, old: TierTerms | None, new: TierTerms | None) -> bool:
    """Whether the tier of now is higher. One that there is no more was just above the next lower that has stayed."""
    if new is None:
        return False
    if first is None or new.rank(first) >= 0:
        return new.rank(last) > new.rank(first)
    lower = old.codes[: old.rank(first)] if old is not None and old.rank(first) >= 0 else ()
    return new.rank(last) > max((new.rank(code) for code in lower), default=-1)


# --- what counts ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Counting:
    """What a member's purchases of a period, with all that came back of them, would have counted: the `documents` that
    is about, whether or not they would count, and the `credits`."""

    documents: set[UUID] = field(default_factory=set)
    credits: list[Credit] = field(default_factory=list)


def in_turn(basket: Basket, past: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """What came back of a purchase, in an order in which it can have. Clocks of two servers may number a return before
    the void that made room for it: then what was undone comes first, each with its void."""
    bought = {line.number: line.quantity for line in basket.lines}
    if all(_fit(bought, past[:count]) for count in range(1, len(past) + 1)):
        return past
    undone = {row["original_id"] for row in past if row["type"] == "void"}
    return sorted(past, key=lambda row: _turn(row, undone))


def _turn(row: Mapping[str, Any], undone: Collection[UUID]) -> tuple[bool, UUID, bool]:
    void = _undoes_a_return(row)
    return not (void or row["id"] in undone), row["original_id"] if void else row["id"], void


def _fit(bought: Mapping[int, Decimal], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last of these can have come after the others."""
    if _undoes_a_return(rows[-1]):
        return rows[-1]["original_id"] in {row["id"] for row in rows}
    return all(quantity <= bought[number] for number, quantity in before(rows).lines.items())


def _undoes_a_return(row: Mapping[str, Any]) -> bool:
    return bool(row["type"] == "void" and row["original_id"] != row["purchase_id"])


def given_back(basket: Basket, terms: Terms, earning: Earning, past: Sequence[Mapping[str, Any]]) -> list[Sums]:
    """What each return or void of a purchase would have taken of what that counted, in the order in which they came;
    negative: given again. Each takes what all so far come to less what those before took."""
    reasons: Sequence[Reason] = earning.reasons
    whole, taken, found = counted(earning), Sums(), dict[UUID, Sums]()
    for count, row in enumerate(past, start=1):
        if row["type"] == "void" and row["original_id"] in found:
            sums = Sums().less(found[row["original_id"]])
        else:
            kept = left(basket, terms, before(past[:count]), reasons)
            stays = counted(kept.earning)._replace(visits=int(any(kept.lines)))
            sums = _possible(whole.less(stays).less(taken))
        found[row["id"]] = sums
        taken = taken.plus(sums)
    return list(found.values())


def _possible(sums: Sums) -> Sums:
    return Sums(*(max(0, getattr(sums, name)) for name in MEASURES))


def credits_of(
    document_id: UUID,
    purchase: Mapping[str, Any],
    recorded_at: datetime,
    earning: Earning,
    past: Sequence[Mapping[str, Any]],
    back: Collection[Sums],
) -> Iterator[Credit]:
    """What a `purchase` would have counted, or its claim, recorded at `recorded_at`; and what each return of it would
    have taken from that. Of a claimed one only what was left of it counts."""
    gone = [sums for row, sums in zip(past, back, strict=True) if row["member_id"] is None]
    sums = counted(earning)
    for each in gone:
        sums = sums.less(each)
    if document_id == purchase["id"]:
        yield credit_of(document_id, sums, purchase["occurred_at"], recorded_at)
    else:
        yield credit_of_claim(document_id, sums, purchase, recorded_at)
    for row, taken in zip(past, back, strict=True):
        if row["member_id"] is not None:
            yield credit_back(row, Sums().less(taken), purchase, row["recorded_at"])
