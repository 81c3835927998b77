"""How stamps fill cards, and what of a purchase's points they are. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from app.ids import new_id
from app.ledger import Accrual, Act, GrantedLot
from app.money import spread
from app.programs import STAMPS, Earning, StampCard, Version, day_begins

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Card:
    """A card of a member's: `stamps` of `size`, those it was begun with (`head_start`) included.

    `number` counts the member's cards of its code; only the last can be open. `ends_at`: the first instant at which a
    card that is not full is over; None: never. `stamped_at` is when its latest stamp was earned.
    """

    id: UUID
    member_id: UUID
    code: str
    number: int
    terms_id: UUID
    size: int
    head_start: int
    head_start_points: int
    stamps: int
    begun_by: UUID
    begun_at: datetime
    ends_at: datetime | None
    stamped_at: datetime
    full_at: datetime | None = None

    def open_at(self, at: datetime) -> bool:
        """Whether it takes stamps at an instant."""
        return self.full_at is None and (self.ends_at is None or at < self.ends_at)

    @property
    def missing(self) -> int:
        return self.size - self.stamps

    def with_more(self, stamps: int, at: datetime) -> "Card":
        """The card with more stamps, at most those that are missing; or, if negative, fewer."""
        stamped_at = max(self.stamped_at, at) if stamps > 0 else self.stamped_at
        full = self.stamps + stamps == self.size
        return replace(self, stamps=self.stamps + stamps, stamped_at=stamped_at, full_at=stamped_at if full else None)


@dataclass(frozen=True, slots=True)
class Stamping:
    """Stamps that one purchase put on one card, and the points they stand for. `id` is the document of their lot."""

    id: UUID
    member_id: UUID
    card_id: UUID
    code: str
    stamps: int
    points: int

    @property
    def each(self) -> int:
        """Points of one stamp."""
        return self.points // self.stamps

    @property
    def reason(self) -> str:
        """By which the purchase earned them."""
        return f"{STAMPS}{self.code}"


@dataclass(frozen=True, slots=True)
class Placed:
    """A card after it got `added` stamps, the points they stand for, and whether they began it."""

    card: Card
    added: int
    points: int
    begun: bool


@dataclass(frozen=True, slots=True)
class Effect:
    """What a transaction did to a card: stamps `added` (negative: taken off), and points `released` by filling it."""

    card: Card
    added: int
    released: int


def placed(last: Card | None, promise: StampCard, stamps: int, act: Act, member_id: UUID, by: Version) -> list[Placed]:
    """Where stamps of a purchase go: on the member's last card if that is open, else on new ones, one after the other.

    A card lives from the day of its first stamp, or, when that is uploaded late, from the day on which it is: no card
    is over before it has begun.
    """
    found: list[Placed] = []
    known = max(act.occurred_at, act.recorded_at)
    card = last if last is not None and last.open_at(known) else None
    number = 0 if last is None else last.number
    while stamps:
        begun = card is None
        if card is None:
            number += 1
            card = _begun(promise, number, act, member_id, by)
        added = min(stamps, card.missing)
        found.append(Placed(card.with_more(added, act.occurred_at), added, added * promise.points_per_stamp, begun))
        card, stamps = None, stamps - added
    return found


def _begun(promise: StampCard, number: int, act: Act, member_id: UUID, by: Version) -> Card:
    given = promise.head_start if number == 1 else 0
    day = max(act.occurred_at, act.recorded_at).astimezone(act.zone).date()
    days = promise.good_for_days
    return Card(
        id=new_id(),
        member_id=member_id,
        code=promise.code,
        number=number,
        terms_id=by.id,
        size=promise.stamps,
        head_start=given,
        head_start_points=given * promise.points_per_stamp,
        stamps=given,
        begun_by=act.document_id,
        begun_at=act.occurred_at,
        ends_at=None if days is None else day_begins(day + timedelta(days=days + 1), act.zone),
        stamped_at=act.occurred_at,
    )


def split(whole: Accrual, points: Sequence[int]) -> list[Accrual]:
    """An accrual as several, of so many points each: what was deferred for it, what rounding cut off, expected and
    qualifying points are shared by points, to the last unit."""
    if len(points) == 1:
        return [whole]
    in_all = whole.allocated * _MILLION + whole.residue
    exact = spread(in_all, points)
    allocated = _nearest(whole.allocated, exact)
    expected = spread(whole.expected, points)
    return [
        replace(
            whole,
            points=part,
            allocated=money,
            residue=share - money * _MILLION,
            expected=used,
            qualifying=part if whole.qualifying else 0,
        )
        for part, share, money, used in zip(points, exact, allocated, expected, strict=True)
    ]


def _nearest(total: int, exact: Sequence[int]) -> list[int]:
    """Whole units that sum to `total`, each within a unit of its exact share (millionths): by largest remainder."""
    parts = [share // _MILLION for share in exact]
    left = total - sum(parts)
    order = sorted(range(len(parts)), key=lambda place: exact[place] % _MILLION, reverse=left > 0)
    for place in [place for place in order if left > 0 or parts[place]][: abs(left)]:
        parts[place] += 1 if left > 0 else -1
    return parts


def taken_back(
    base: Sequence[GrantedLot], stamped: Sequence[tuple[Stamping, GrantedLot]], kept: Earning
) -> list[tuple[GrantedLot, int]]:
    """What a return takes of the lots of a purchase, so that what is `kept` is left: stamps with their own points, and
    the rest of `base`. Of several cards the last loses its stamps first."""
    left = {each.rule: each.points for each in kept.reasons if each.rule.startswith(STAMPS)}
    back = list(_back(base, kept.points - sum(left.values())))
    for reason in sorted({stamping.reason for stamping, _ in stamped}):
        lots = [lot for stamping, lot in stamped if stamping.reason == reason]
        back += _back(sorted(lots, key=lambda lot: lot.lot.document_id, reverse=True), left.get(reason, 0))
    return back


def _back(lots: Sequence[GrantedLot], kept: int) -> Iterable[tuple[GrantedLot, int]]:
    points = sum(lot.granted - lot.returned for lot in lots) - kept
    for lot in lots:
        part = min(lot.granted - lot.returned, points)
        if part > 0:
            yield lot, part
            points -= part
