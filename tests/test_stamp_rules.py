"""How stamps fill cards, and what of a purchase's points they are: without a database."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accounting import CohortKey
from app.ids import new_id
from app.ledger import Accrual, Act, GrantedLot, OpenLot
from app.programs import Earning, Reason, StampCard, Version
from app.programs.schemas import Terms
from app.stamps.rules import Card, Stamping, placed, split, taken_back
from tests.shop import TERMS

ZONE = ZoneInfo("America/New_York")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MEMBER, PROGRAM = UUID(int=1), UUID(int=2)
TEN: dict[str, Any] = {"code": "ten", "name": "Ten", "stamps": 10, "points_per_stamp": 5}
VERSION = Version(UUID(int=3), 1, NOW, Terms.model_validate(TERMS))


def promise(**changes: Any) -> StampCard:
    return StampCard.model_validate(TEN | changes)


def act(at: datetime = NOW, recorded_at: datetime | None = None) -> Act:
    return Act(PROGRAM, new_id(), at, recorded_at or at, ZONE)


def put(card: Card | None, more: int, at: datetime = NOW, **changes: Any) -> list[tuple[int, int, bool, bool]]:
    """The number, stamps, whether full and whether begun of each card that stamps fall on."""
    found = placed(card, promise(**changes), more, act(at), MEMBER, VERSION)
    return [(each.card.number, each.card.stamps, each.card.full_at is not None, each.begun) for each in found]


def some_card(on_it: int, **changes: Any) -> Card:
    (first,) = placed(None, promise(**changes), on_it, act(), MEMBER, VERSION)
    return first.card


@pytest.mark.parametrize(
    ("on_it", "more", "changes", "expected"),
    [
        (None, 1, {}, [(1, 1, False, True)]),
        (None, 1, {"head_start": 2}, [(1, 3, False, True)]),
        (None, 10, {}, [(1, 10, True, True)]),
        (None, 8, {"head_start": 2}, [(1, 10, True, True)]),
        (None, 8, {"stamps": 8}, [(1, 8, True, True)]),
        (None, 11, {"head_start": 2}, [(1, 10, True, True), (2, 3, False, True)]),
        (None, 25, {}, [(1, 10, True, True), (2, 10, True, True), (3, 5, False, True)]),
        (9, 1, {}, [(1, 10, True, False)]),
        (9, 2, {}, [(1, 10, True, False), (2, 1, False, True)]),
        (9, 12, {}, [(1, 10, True, False), (2, 10, True, True), (3, 1, False, True)]),
        (10, 1, {}, [(2, 1, False, True)]),
        (4, 5, {"stamps": 3}, [(1, 9, False, False)]),
    ],
)
def test_where_stamps_fall(
    on_it: int | None, more: int, changes: dict[str, Any], expected: list[tuple[int, int, bool, bool]]
) -> None:
    """Also where the terms have made cards smaller: the one that was begun stays as it is."""
    assert put(None if on_it is None else some_card(on_it), more, **changes) == expected


def test_a_card_is_over_at_the_end_of_its_last_local_day() -> None:
    card = some_card(3, good_for_days=30)
    assert card.ends_at == datetime(2026, 12, 23, 5, tzinfo=UTC)
    last = datetime(2026, 12, 23, 4, 59, 59, tzinfo=UTC)
    assert (card.open_at(last), card.open_at(card.ends_at)) == (True, False)
    assert put(card, 1, last, good_for_days=30) == [(1, 4, False, False)]
    assert put(card, 1, card.ends_at, good_for_days=30) == [(2, 1, False, True)]


def test_a_late_upload_begins_a_card_that_lives_from_its_arrival() -> None:
    late = act(NOW - timedelta(days=40), NOW)
    (found,) = placed(None, promise(good_for_days=30), 1, late, MEMBER, VERSION)
    assert (found.card.begun_at, found.card.ends_at) == (late.occurred_at, datetime(2026, 12, 23, 5, tzinfo=UTC))


def test_a_card_is_full_when_the_latest_of_its_stamps_was_earned() -> None:
    card = some_card(9)
    (late,) = placed(card, promise(), 1, act(NOW - timedelta(days=3), NOW), MEMBER, VERSION)
    assert late.card.full_at == NOW
    (later,) = placed(card, promise(), 1, act(NOW + timedelta(days=3)), MEMBER, VERSION)
    assert later.card.full_at == NOW + timedelta(days=3)


def test_stamps_that_come_off_do_not_change_when_it_was_stamped() -> None:
    card = some_card(9).with_more(-4, NOW + timedelta(days=1))
    assert (card.stamps, card.missing, card.stamped_at, card.full_at) == (5, 5, NOW, None)


# --- shares ---------------------------------------------------------------------------------------------------------


def accrual(points: int, allocated: int, residue: int) -> Accrual:
    cohort = CohortKey(PROGRAM, "USD", date(2026, 11, 1), "purchase", "4/5")
    expected = points * 800_000
    return Accrual(points, act(), cohort, allocated, residue, expected, None, NOW, qualifying=points)


@given(
    points=st.lists(st.integers(1, 10**6), min_size=1, max_size=12),
    allocated=st.integers(0, 10**9),
    residue=st.integers(-1_000_000, 1_000_000),
)
def test_shares_sum_to_the_whole_and_none_is_off_by_more_than_a_unit(
    points: list[int], allocated: int, residue: int
) -> None:
    """In every rounding mode: what rounding cut off is up to a whole unit either way."""
    if allocated * 1_000_000 + residue < 0:
        residue = -residue
    whole = accrual(sum(points), allocated, residue)
    parts = split(whole, points)
    assert [part.points for part in parts] == points
    for name in ("points", "allocated", "residue", "expected", "qualifying"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name), name
    assert all(part.allocated >= 0 and -1_000_000 <= part.residue <= 1_000_000 for part in parts)
    assert all(0 <= part.expected <= part.points * 1_000_000 for part in parts)
    for part in parts:
        exact = (allocated * 1_000_000 + residue) * part.points / sum(points)
        assert abs(part.allocated * 1_000_000 + part.residue - exact) <= max(1, exact * 1e-9)


# --- what comes back ------------------------------------------------------------------------------------------------


def granted(points: int, returned: int = 0, document_id: UUID | None = None) -> GrantedLot:
    id_ = new_id()
    lot = OpenLot(id_, points, 0, False, NOW, None, False, id_, "USD", "purchase", document_id or id_, NOW, points)
    return GrantedLot(lot, points, 0, 0, 0, 0, 0, returned, 0, 0, 0)


def on_card(code: str, points: int, returned: int = 0) -> tuple[Stamping, GrantedLot]:
    stamping = Stamping(new_id(), MEMBER, new_id(), code, points // 5, points)
    return stamping, granted(points, returned, stamping.id)


def kept(base: int, **stamps: int) -> Earning:
    reasons = [Reason(f"stamps:{code}", 100, points) for code, points in stamps.items()]
    return Earning(base + sum(stamps.values()), (Reason("base", 100, base), *reasons), ())


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (kept(10, ten=25, six=10), (0, 0, 0, 0)),
        (kept(10, ten=20, six=10), (0, 0, 5, 0)),
        (kept(10, ten=10, six=10), (0, 5, 10, 0)),
        (kept(7, ten=25, six=10), (3, 0, 0, 0)),
        (kept(7, ten=25), (3, 0, 0, 10)),
        (kept(0), (10, 15, 10, 10)),
    ],
)
def test_each_reason_gives_back_its_own(left: Earning, expected: tuple[int, ...]) -> None:
    """The base 10 points; ten's stamps on two cards, 15 and then 10, of which the last loses first; six's 10."""
    base, stamped = granted(10), [on_card("ten", 15), on_card("ten", 10), on_card("six", 10)]
    back = {lot.lot.id: points for lot, points in taken_back([base], stamped, left)}
    assert tuple(back.get(lot.lot.id, 0) for lot in (base, *(lot for _, lot in stamped))) == expected


def test_what_came_back_before_is_not_taken_again() -> None:
    stamped = [on_card("ten", 15, returned=5)]
    assert [points for _, points in taken_back([granted(10, returned=4)], stamped, kept(6, ten=5))] == [5]
    assert taken_back([granted(10, returned=4)], stamped, kept(6, ten=10)) == []
