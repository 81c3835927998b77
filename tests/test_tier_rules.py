"""Tiers by the rules alone, without a database: who stands where, on which day, and what is missing."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.ids import new_id
from app.programs import Sums, Terms, Tier, Timeline, Version, best_discount
from app.tiers import Credit, Decision, Record, Standing, standing
from app.tiers.kept import BEGINNING, Coming, Followed, Kept, Moved, Present, needed_from
from tests.shop import TERMS

ZONE = ZoneInfo("America/New_York")
JOINED = datetime(2025, 3, 15, 12, tzinfo=UTC)

SILVER: dict[str, Any] = {"code": "silver", "name": "Silver", "qualification": {"spend": 50_000}}
GOLD: dict[str, Any] = {"code": "gold", "name": "Gold", "qualification": {"spend": 100_000}}
BLACK = {"code": "black", "name": "Black"}
PLATINUM = {"code": "platinum", "name": "Platinum", "qualification": {"spend": 200_000}}
LEVELS: list[dict[str, Any]] = [SILVER, GOLD, BLACK, PLATINUM]
NIGHTS: list[dict[str, Any]] = [
    SILVER | {"qualification": {"units": 3}},
    GOLD | {"qualification": {"units": 6, "spend": 50_000, "need": "all"}},
]
ROLLING = {"type": "rolling", "months": 3}


def scheme(levels: Sequence[dict[str, Any]] = LEVELS, **changes: Any) -> dict[str, Any]:
    return {"levels": list(levels), **changes}


def timeline(*schemes: tuple[str, dict[str, Any] | None]) -> Timeline:
    """Versions of terms with these tiers, each from a day on."""
    made = [
        Version(new_id(), number, day(since), Terms.model_validate(TERMS | {"tiers": tiers}))
        for number, (since, tiers) in enumerate(schemes, 1)
    ]
    return Timeline(tuple(made))


def always(levels: Sequence[dict[str, Any]] = LEVELS, **changes: Any) -> Timeline:
    return timeline(("2000-01-01", scheme(levels, **changes)))


def day(text: str) -> datetime:
    """The beginning of a day in the programme's zone; or noon of it, at `12`."""
    date, _, hour = text.partition(" ")
    year, month, number = map(int, date.split("-"))
    return datetime(year, month, number, int(hour or 0), tzinfo=ZONE).astimezone(UTC)


def bought(at: str, spend: int = 0, points: int = 0, visits: int = 1, known: str | None = None) -> Credit:
    return Credit(new_id(), day(at), day(at), day(known or at), Sums(points, spend, visits))


def back(at: str, of: Credit, spend: int, visits: int = 0) -> Credit:
    return Credit(new_id(), of.counted_at, day(at), day(at), Sums(0, -spend, -visits))


def on(when: str, terms: Timeline, *credits_: Credit, decisions: Sequence[Decision] = (), known: str = "") -> Standing:
    at = day(when)
    return standing(Record(JOINED, credits_, decisions), terms, at, day(known) if known else at)


def tiers_on(days: str, terms: Timeline, *credits_: Credit) -> list[str | None]:
    return [on(each, terms, *credits_).tier for each in days.split(", ")]


# --- five hundred within three months -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cents", "tier"), [([49_999], None), ([50_000], "silver"), ([30_000, 19_999], None), ([30_000, 20_000], "silver")]
)
def test_five_hundred_or_more_within_three_months(cents: list[int], tier: str | None) -> None:
    purchases = [bought(f"2026-0{month}-10 12", spend) for month, spend in enumerate(cents, 1)]
    assert on("2026-02-20", always(window=ROLLING), *purchases).tier == tier


@pytest.mark.parametrize(
    ("first", "second", "tier"),
    [
        ("2026-01-15 12", "2026-04-14 23", "silver"),
        ("2026-01-15 0", "2026-04-15 0", None),
        ("2026-11-30 12", "2027-02-27 23", "silver"),
        ("2026-11-30 12", "2027-02-28 0", None),
    ],
)
def test_three_months_are_whole_days_of_the_programme(first: str, second: str, tier: str | None) -> None:
    assert on(second, always(window=ROLLING), bought(first, 25_000), bought(second, 25_000)).tier == tier


def test_what_has_left_the_window_keeps_no_tier() -> None:
    terms = always(window=ROLLING)
    purchases = bought("2026-01-15 12", 30_000), bought("2026-03-01 12", 20_000)
    assert tiers_on("2026-02-28, 2026-03-01 12, 2026-04-14 23, 2026-04-15 0", terms, *purchases) == [
        None,
        "silver",
        "silver",
        None,
    ]
    stands = on("2026-03-02", terms, *purchases)
    assert (stands.since, stands.until, stands.projected, stands.falls) == (
        day("2026-03-01 12"),
        day("2026-04-15"),
        None,
        True,
    )
    assert (stands.keep, stands.next, stands.missing) == ({"spend": 30_000}, "gold", {"spend": 50_000})


# --- years ----------------------------------------------------------------------------------------------------------


def test_a_tier_is_kept_to_the_end_of_the_year_after_and_then_lost() -> None:
    terms = always()
    credit = bought("2026-05-01 12", 120_000)
    days = "2026-04-30, 2026-05-01 12, 2026-12-31 23, 2027-06-01, 2027-12-31 23, 2028-01-01"
    assert tiers_on(days, terms, credit) == [None, "gold", "gold", "gold", "gold", None]
    assert on("2026-06-01", terms, credit).until == day("2028-01-01")
    later = on("2027-06-01", terms, credit, bought("2027-02-01 12", 70_000))
    assert (later.counted.spend, later.keep, later.projected) == (70_000, {"spend": 30_000}, "silver")
    assert (later.begins, later.ends) == (day("2027-01-01"), day("2028-01-01"))


@pytest.mark.parametrize(
    ("window", "begins", "ends"),
    [
        ({"type": "calendar_year"}, "2026-01-01", "2027-01-01"),
        ({"type": "program_year", "begins": "04-01"}, "2025-04-01", "2026-04-01"),
        ({"type": "program_year", "begins": "02-29"}, "2025-02-28", "2026-02-28"),
        ({"type": "anniversary"}, "2025-03-15", "2026-03-15"),
        ({"type": "rolling", "days": 30}, "2026-01-13", None),
        (ROLLING, "2025-11-12", None),
    ],
)
def test_what_counts_on_11_february(window: dict[str, Any], begins: str, ends: str | None) -> None:
    terms = always(window=window)
    stands = on("2026-02-11 12", terms, bought("2025-03-16 12", 1))
    assert stands.begins == day(begins)
    assert stands.ends == (None if ends is None else day(ends))
    before, from_then = day(begins) - timedelta(microseconds=1), day(begins)
    for instant, counts in ((before, 0), (from_then, 1)):
        credit = Credit(new_id(), instant, instant, instant, Sums(0, 1, 1))
        assert (
            standing(Record(JOINED, [credit]), terms, day("2026-02-11 12"), day("2026-02-11 12")).counted.spend
            == counts
        )


def test_since_the_last_change_what_lifted_somebody_is_used_up() -> None:
    terms = always(window={"type": "since_last_change", "months": 12})
    purchases = [bought("2026-02-01 12", 50_000), bought("2026-03-01 12", 60_000), bought("2026-04-01 12", 40_000)]
    assert tiers_on("2026-02-01 12, 2026-03-01 12, 2026-04-01 12", terms, *purchases) == ["silver", "silver", "gold"]
    stands = on("2026-04-02", terms, *purchases)
    assert (stands.counted.spend, stands.until) == (0, day("2027-04-01"))
    assert on("2026-03-02", terms, *purchases).missing == {"spend": 40_000}


# --- how far, and when ----------------------------------------------------------------------------------------------


def test_at_the_end_of_the_period_or_at_once() -> None:
    credit = bought("2026-05-01 12", 60_000)
    assert tiers_on("2026-05-02, 2026-12-31 23, 2027-01-01", always(upgrade="at_period_end"), credit) == [
        None,
        None,
        "silver",
    ]
    waiting = on("2026-05-02", always(upgrade="at_period_end"), credit)
    assert (waiting.until, waiting.projected, waiting.falls) == (day("2027-01-01"), "silver", False)


@pytest.mark.parametrize(
    ("changes", "after_one_year", "after_two", "after_three"),
    [
        ({"downgrade": "none"}, "platinum", "platinum", "platinum"),
        ({"downgrade": "one_step"}, "gold", "silver", None),
        ({"downgrade": "to_points"}, "silver", None, None),
        ({"downgrade": "to_points", "soft_landing": True}, "silver", "silver", None),
    ],
)
def test_how_far_members_fall(
    changes: dict[str, Any], after_one_year: str, after_two: str | None, after_three: str | None
) -> None:
    """By 2027 enough for silver only: what is by invitation is no step on the way down."""
    purchases = bought("2026-02-01 12", 200_000), bought("2027-02-01 12", 50_000)
    days = "2028-01-01, 2029-01-01, 2030-01-01"
    assert tiers_on(days, always(**changes), *purchases) == [after_one_year, after_two, after_three]


def test_days_of_grace_to_keep_a_tier() -> None:
    terms = always(grace_days=31)
    old = bought("2026-02-01 12", 50_000)
    assert tiers_on("2028-01-31 23, 2028-02-01", terms, old) == ["silver", None]
    kept = old, bought("2027-12-01 12", 30_000), bought("2028-01-31 23", 20_000)
    assert tiers_on("2028-02-01, 2029-01-31 23, 2029-02-01", terms, *kept) == ["silver", "silver", None]
    stands = on("2028-01-10", terms, *kept)
    assert (stands.until, stands.keep, stands.counted.spend) == (day("2028-02-01"), {"spend": 20_000}, 0)


def test_grace_and_soft_landing_where_the_window_moves() -> None:
    terms = always(window=ROLLING, grace_days=10, downgrade="one_step")
    credit = bought("2026-01-15 12", 100_000)
    days = "2026-04-24 23, 2026-04-25, 2026-07-24 23, 2026-07-25"
    assert tiers_on(days, terms, credit) == ["gold", "silver", "silver", None]
    assert tiers_on("2026-04-25", terms, credit, bought("2026-04-20 12", 100_000)) == ["gold"]
    soft = always(window=ROLLING, soft_landing=True)
    purchases = credit, bought("2026-03-01 12", 50_000)
    assert tiers_on("2026-04-15, 2026-06-01, 2026-07-14 23, 2026-07-15", soft, *purchases) == ["silver"] * 3 + [None]


@pytest.mark.parametrize(
    ("need", "spend", "points", "visits", "reached"),
    [
        ("any", 499, 10, 0, True),
        ("any", 499, 9, 4, False),
        ("any", 0, 0, 5, True),
        ("all", 500, 10, 5, True),
        ("all", 500, 10, 4, False),
    ],
)
def test_any_of_the_measures_or_all(need: str, spend: int, points: int, visits: int, reached: bool) -> None:
    asked = {"spend": 500, "points": 10, "visits": 5, "need": need}
    terms = always([{"code": "gold", "name": "Gold", "qualification": asked}])
    stands = on("2026-02-02", terms, bought("2026-02-01 12", spend, points, visits))
    assert (stands.tier == "gold") == reached
    if not reached:
        given_ = {"spend": spend, "points": points, "visits": visits}
        limits = {"spend": 500, "points": 10, "visits": 5}
        assert stands.missing == {name: limits[name] - have for name, have in given_.items() if have < limits[name]}


# --- what comes back ------------------------------------------------------------------------------------------------


def test_tiers_follow_returns() -> None:
    """From the return on, as if it had not been bought; even where nobody falls otherwise, and years later."""
    terms = always(downgrade="none")
    credit = bought("2026-12-30 12", 60_000)
    gone = back("2027-02-01 12", credit, 60_000, visits=1)
    assert tiers_on("2027-01-31, 2027-02-01 12, 2027-02-02", terms, credit, gone) == ["silver", None, None]
    undone = Credit(new_id(), credit.counted_at, day("2027-02-03"), day("2027-02-03"), Sums(0, 60_000, 1))
    again = on("2027-02-04", terms, credit, gone, undone)
    assert (again.tier, again.since) == ("silver", credit.counted_at)


def test_a_late_upload_counts_when_it_happened() -> None:
    terms = always()
    credit = bought("2026-12-31 23", 50_000, known="2027-01-05 12")
    assert on("2027-01-05 11", terms, credit).tier is None
    known = on("2027-01-05 12", terms, credit)
    assert (known.tier, known.since, known.counted.spend) == ("silver", credit.counted_at, 0)
    assert on("2027-01-01", terms, credit, known="2027-01-06").tier == "silver"


# --- what staff decide ----------------------------------------------------------------------------------------------


def decision(kind: Any, tier: str | None, begins: str, until: str, ended: str | None = None) -> Decision:
    return Decision(new_id(), kind, tier, day(begins), day(until), None if ended is None else day(ended))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (("manual", "gold", "2026-02-01", "2026-07-01"), [None, "gold", "gold", "platinum", None, None]),
        (("invitation", "black", "2026-02-01", "2026-07-01"), [None, "black", "black", "platinum", None, None]),
        (("lock", "silver", "2026-02-01", "2026-07-01"), [None, "silver", "silver", "silver", None, None]),
        (("lock", None, "2026-02-01", "2026-07-01"), [None, None, None, None, None, None]),
        (("manual", "gold", "2026-02-01", "2027-07-01", "2026-03-01"), [None, "gold", None, "platinum", None, None]),
    ],
)
def test_what_staff_decide_ends(made: tuple[Any, ...], expected: list[str | None]) -> None:
    """A given tier is a floor, a lock the very tier; after the end only what was bought counts."""
    terms = always(window={"type": "rolling", "months": 1})
    credit = bought("2026-04-10 12", 200_000)
    dates = "2026-01-31, 2026-02-01, 2026-03-01, 2026-04-11, 2026-07-01, 2026-12-01".split(", ")
    assert [on(each, terms, credit, decisions=[decision(*made)]).tier for each in dates] == expected


def test_the_end_of_a_decision_is_foreseen() -> None:
    terms = always()
    given_ = decision("manual", "platinum", "2026-02-01", "2026-07-01")
    stands = on("2026-03-02", terms, bought("2026-03-01 12", 60_000), decisions=[given_])
    assert (stands.tier, stands.until, stands.projected, stands.falls) == (
        "platinum",
        day("2026-07-01"),
        "silver",
        True,
    )
    assert (stands.next, stands.keep, stands.decided) == (None, {}, True)


# --- other terms ----------------------------------------------------------------------------------------------------


def test_a_tier_is_inserted_between_two() -> None:
    """Whoever has bought enough for it is there at once; nobody falls before their time."""
    between = {"code": "pearl", "name": "Pearl", "qualification": {"spend": 80_000}}
    terms = timeline(("2000-01-01", scheme([SILVER, GOLD])), ("2026-06-01", scheme([SILVER, between, GOLD])))
    purchases = [bought("2026-03-01 12", 90_000)]
    assert tiers_on("2026-05-31, 2026-06-01", terms, *purchases) == ["silver", "pearl"]
    assert tiers_on("2026-05-31, 2026-06-01", terms, bought("2026-03-01 12", 110_000)) == ["gold", "gold"]


def test_a_tier_is_taken_out_and_made_harder() -> None:
    harder = {"code": "gold", "name": "Gold", "qualification": {"spend": 150_000}}
    terms = timeline(
        ("2000-01-01", scheme([SILVER, GOLD, PLATINUM])),
        ("2026-06-01", scheme([SILVER, harder])),
        ("2029-01-01", None),
    )
    assert tiers_on("2026-05-31, 2026-06-01, 2028-01-01", terms, bought("2026-03-01 12", 200_000)) == [
        "platinum",
        "gold",
        None,
    ]
    kept = bought("2026-03-01 12", 100_000), bought("2027-03-01 12", 149_999), bought("2028-03-01 12", 150_000)
    assert tiers_on("2026-06-01, 2026-12-31, 2027-01-01, 2028-04-01, 2029-01-01", terms, *kept) == [
        "gold",
        "gold",
        "silver",
        "gold",
        None,
    ]


# --- properties -----------------------------------------------------------------------------------------------------

AMOUNTS = st.integers(0, 120).map(lambda n: n * 1000)
DAYS = st.integers(0, 900) | st.sampled_from([10, 11, 240, 241])  # some days have several, at one instant
MOVING: list[dict[str, Any]] = [{"type": "rolling", "months": 3}, {"type": "rolling", "days": 45}]
WINDOWS: list[dict[str, Any]] = [
    {"type": "calendar_year"},
    {"type": "program_year", "begins": "04-01"},
    {"type": "anniversary"},
    {"type": "since_last_change", "months": 6},
    *MOVING,
]


@st.composite
def schemes(draw: st.DrawFn) -> dict[str, Any]:
    window = draw(st.sampled_from(WINDOWS))
    ends = window["type"] != "rolling"
    return scheme(
        draw(st.sampled_from([LEVELS, NIGHTS])),
        counted={"products": ["night"]},
        window=window,
        upgrade=draw(st.sampled_from(["at_once", "at_period_end"])) if ends else "at_once",
        downgrade=draw(st.sampled_from(["none", "one_step", "to_points"])),
        grace_days=draw(st.sampled_from([0, 0, 10])),
        soft_landing=draw(st.booleans()),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Credit]:
    """Purchases, some of them known later, some of them returned, now and then something without a receipt."""
    found = []
    for number, amount in draw(st.lists(st.tuples(DAYS, AMOUNTS), max_size=25)):
        at = JOINED + timedelta(days=number, hours=number % 24)
        sums = Sums(0, amount, 1, number % 3)
        credit = Credit(new_id(), at, at, at + timedelta(days=draw(st.sampled_from([0, 0, 3, 40]))), sums)
        found.append(credit)
        if draw(st.sampled_from([False, False, True])):
            when = credit.recorded_at + timedelta(days=draw(st.integers(0, 400)))
            found.append(Credit(new_id(), at, when, when, Sums().less(sums)))
        if draw(st.sampled_from([False] * 7 + [True])):
            when = credit.recorded_at + timedelta(days=draw(st.integers(0, 90)))
            found.append(Credit(new_id(), when, when, when, Sums(0, -draw(AMOUNTS), 0, 0)))
    return found


def moments(credits_: Sequence[Credit]) -> list[datetime]:
    return sorted({each.recorded_at for each in credits_})


@given(histories(), st.sampled_from(MOVING))
@settings(max_examples=60, deadline=None)
def test_without_policies_a_moving_window_alone_decides(credits_: list[Credit], window: dict[str, Any]) -> None:
    """By another way: whatever is in the window, of that the highest tier."""
    terms = always(window=window)
    tiers = terms.versions[0].terms.tiers
    assert tiers is not None
    for number in range(0, 1000, 29):
        at = JOINED + timedelta(days=number, hours=7)
        stands = standing(Record(JOINED, credits_), terms, at, at)
        assert stands.begins is not None
        known = [each for each in credits_ if max(each.occurred_at, each.recorded_at) <= at]
        spend = sum(each.sums.spend for each in known if stands.begins <= each.counted_at)
        assert tiers.rank(stands.tier) == tiers.reached(Sums(0, spend, 0))


@given(histories(), schemes())
@settings(max_examples=60, deadline=None)
def test_what_is_foreseen_comes_to_pass(credits_: list[Credit], tiers: dict[str, Any]) -> None:
    """If nothing more is bought: the tier stands to the instant told, and is the one told then."""
    terms = always(**tiers)
    for at in moments(credits_)[-3:]:
        known = [each for each in credits_ if each.recorded_at <= at]
        stands = standing(Record(JOINED, known), terms, at, at)
        if stands.until is None:
            far = at + timedelta(days=4000)
            assert standing(Record(JOINED, known), terms, far, far).tier == stands.tier
            continue
        before, then = stands.until - timedelta(microseconds=1), stands.until
        assert standing(Record(JOINED, known), terms, before, before).tier == stands.tier
        assert standing(Record(JOINED, known), terms, then, then).tier == stands.projected != stands.tier


@given(histories(), schemes(), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_in_which_things_become_known_does_not_matter(
    credits_: list[Credit], tiers: dict[str, Any], random: Any
) -> None:
    terms, at = always(**tiers), JOINED + timedelta(days=1400)
    shuffled = list(credits_)
    random.shuffle(shuffled)
    first, second = (standing(Record(JOINED, each), terms, at, at) for each in (credits_, shuffled))
    assert first == second
    assert all(one.tier != other.tier for one, other in pairwise(first.history))


def recorded(credits_: Sequence[Credit], terms: Timeline, until: datetime) -> tuple[Kept | None, list[Moved], set[str]]:
    """What is stored when purchases and returns are recorded one after the other, and what of them was read for it.
    Each time the sums that it goes on from are those of the whole record."""
    stored: Kept | None = None
    moved: list[Moved] = []
    known: list[Credit] = []
    ways: set[str] = set()
    for each in [*sorted(credits_, key=lambda credit: credit.recorded_at), None]:
        now = until if each is None else each.recorded_at
        coming = [] if each is None else [Coming(each.counted_at, each.sums.spend, each.sums.points, each.sums.units)]
        reads = BEGINNING if stored is None else needed_from(stored, Present(terms, now), coming)
        if each is None or each.sums.spend < 0:
            reads = BEGINNING
        ways.add("sums" if reads is None else "all" if reads == BEGINNING else "some")
        read = None if reads is None else [one for one in known if one.counted_at >= reads]
        followed = Followed(JOINED, Present(terms, now), stored, read, [], reads == BEGINNING)
        if each is not None:
            before = standing(Record(JOINED, known), terms, each.counted_at, now)
            assert followed.tier_at(each.counted_at) == before.tier
            followed.count(each, "earned" if each.sums.spend >= 0 else "returned")
            known.append(each)
        stored = followed.kept
        moved += followed.moved
        if stored is not None:
            whole = standing(Record(JOINED, known), terms, now, now)
            assert stored.tier == whole.tier
            assert stored.sums_until is None or stored.counted == whole.counted
    return stored, moved, ways


@given(histories(), schemes())
@settings(max_examples=150, deadline=None)
def test_what_is_stored_is_what_the_record_comes_to(credits_: list[Credit], tiers: dict[str, Any]) -> None:
    """Step by step as all at once; and the history that was written is, for any date, the standing as known then."""
    terms, until = always(**tiers), JOINED + timedelta(days=1500)
    stored, moved, _ = recorded(credits_, terms, until)
    record = Record(JOINED, credits_)
    assert (None if stored is None else stored.tier) == standing(record, terms, until, until).tier
    assert [one.after for one in moved[:-1]] == [other.before for other in moved[1:]]
    for number in range(0, 1500, 37):
        at = JOINED + timedelta(days=number, hours=5)
        told = [one.after for one in moved if one.at <= at]
        assert (told[-1] if told else None) == standing(record, terms, at, at).tier


def test_uploads_from_the_old_year_count_in_it_though_the_new_one_has_begun() -> None:
    """The first leaves the member in the new year with nothing; the second came before that, not after the first."""
    late = [bought("2025-12-30", 100, known="2026-01-02"), bought("2025-12-31", 49_000, known="2026-01-03")]
    stored, _, ways = recorded([*late, bought("2026-01-10", 1_000)], always(), day("2026-02-01"))
    assert stored is not None
    assert (stored.tier, stored.counted.spend) == (None, 1_000)
    assert "all" in ways


def test_two_receipts_of_one_instant_need_no_other_one() -> None:
    pairs = [bought(f"2026-{month:02}-08 12", 100) for month in range(1, 13) for _ in range(2)]
    later = [each._replace(recorded_at=each.recorded_at + timedelta(seconds=n)) for n, each in enumerate(pairs)]
    stored, _, ways = recorded(later, always(), day("2026-12-30"))
    assert stored is not None
    assert (stored.counted, ways) == (Sums(0, 2_400, 24), {"sums", "all"})
    assert recorded(later, always([SILVER | {"qualification": {"spend": 200}}]), day("2026-12-30"))[0] is not None


def test_most_purchases_need_no_other_one() -> None:
    weekly = [bought(f"2026-{month:02}-{number:02} 12", 100) for month in range(1, 13) for number in (1, 8, 15, 22)]
    for window, ways in (({"type": "calendar_year"}, {"sums", "all"}), (ROLLING, {"sums", "all"})):
        assert recorded(weekly, always(window=window), day("2026-12-30"))[2] == ways


# --- terms that make no sense ---------------------------------------------------------------------------------------


OFF: dict[str, str | None] = {"code": "off", "name": "Five percent off", "kind": "hard", "discount": "5"}


@pytest.mark.parametrize(
    ("discounts", "best"),
    [([], None), (["5"], 0), (["5", "7.5", "7.25"], 1), (["5", "5.0"], 0), ([None, "9", "10"], 2)],
)
def test_of_discounts_the_highest_holds(discounts: list[str | None], best: int | None) -> None:
    benefits = [OFF | {"code": f"off{place}", "discount": discount} for place, discount in enumerate(discounts)]
    tier = Tier.model_validate(GOLD | {"benefits": benefits})
    assert best_discount(tier.benefits) is (None if best is None else tier.benefits[best])


@pytest.mark.parametrize(
    ("tiers", "places"),
    [
        ({"levels": []}, {"levels"}),
        (scheme([SILVER, SILVER | {"name": "Again"}]), {"levels"}),
        (scheme([GOLD, SILVER]), {"levels"}),
        (scheme(window=ROLLING, upgrade="at_period_end"), {"upgrade"}),
        (scheme(window={"type": "rolling"}), {"window"}),
        (scheme(window={"type": "program_year", "begins": "02-30"}, grace_days=91), {"window.begins", "grace_days"}),
        (
            scheme([SILVER | {"qualification": {"need": "all"}}, GOLD | {"earning_multiplier": "0.9"}]),
            {"levels.0.qualification", "levels.1.earning_multiplier"},
        ),
        (scheme([GOLD | {"earning_multiplier": 1.5}]), {"levels.0.earning_multiplier"}),
        (scheme(NIGHTS), {"counted"}),
        (scheme([GOLD | {"benefits": [OFF | {"kind": "soft"}]}]), {"levels.0.benefits.0"}),
        (scheme([GOLD | {"benefits": [OFF | {"discount": "0"}]}]), {"levels.0.benefits.0.discount"}),
        (scheme([GOLD | {"benefits": [OFF | {"discount": "100.5"}]}]), {"levels.0.benefits.0.discount"}),
        (scheme([GOLD | {"benefits": [OFF | {"discount": 5}]}]), {"levels.0.benefits.0.discount"}),
        (scheme([GOLD | {"qualification": {"spend": 0}}]), {"levels.0.qualification.spend"}),
        (
            scheme([GOLD | {"benefits": [{"code": "Lounge", "name": "Lounge", "kind": "firm"}]}]),
            {"levels.0.benefits.0.code", "levels.0.benefits.0.kind"},
        ),
    ],
)
def test_tiers_that_make_no_sense_are_refused_with_all_that_is_wrong(tiers: dict[str, Any], places: set[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        Terms.model_validate(TERMS | {"tiers": tiers})
    found = {".".join(map(str, error["loc"])) for error in refused.value.errors()}
    assert found == {f"tiers.{place}" for place in places}
