"""How members' tiers would have moved under a draft: what was published, replayed, moves them as it did."""

import json
from collections.abc import Iterator
from datetime import timedelta
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import tiers
from app.db import Database
from app.insight import Moves
from app.insight.moves import Counting, Course
from app.insight.replaying import Period
from app.programs import Sums
from tests.conftest import settings_for
from tests.shop import Shop, TestClock, open_shop, purchase, returned
from tests.test_replay import ALWAYS, START, History, replayed, steps, take, terms
from tests.test_tier_decisions import decide
from tests.test_tiers import GOLD, SILVER, YEARLY, buy, check_history, code, history, until

SOME = {"code": "some", "name": "Some", "qualification": {"spend": 900, "visits": 3, "units": 5}}
SINGLE = {"products": ["p1"]}
MORE = {"code": "more", "name": "More", "qualification": {"points": 30, "visits": 2, "need": "all"}}
MOST = {"code": "most", "name": "Most", "qualification": {"points": 90}, "earning_multiplier": "1.5"}
TWO_DAYS = {"type": "rolling", "days": 2}


@given(first=st.lists(steps, max_size=20), then=st.lists(steps, max_size=20), cut=st.integers(0, 400))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_what_was_published_replayed_moves_members_as_it_did(
    database: Database, first: list[Any], then: list[Any], cut: int
) -> None:
    """In all and by segment, over all the time a version was in force and any part of it, with returns, voids of those,
    and claims of guests; and each purchase counts what it did."""
    old = terms("first", "daily", "weekly", tiers={"levels": [SOME, MOST], "window": TWO_DAYS, "counted": SINGLE})
    levels = {"levels": [SOME, MORE, MOST], "counted": SINGLE | {"departments": ["D1"]}}
    new = terms("north", "daily", tiers=levels | {"window": {"type": "since_last_change"}})
    history = History(database, old)
    for step in first:
        take(history, step)
    changed = history.publish(new)
    for step in then:
        take(history, step)
    middle = START + timedelta(hours=cut)
    for draft, within in (
        (old, Period(ALWAYS.since, changed)),
        (new, Period(changed, ALWAYS.until)),
        (old, Period(ALWAYS.since, min(middle, changed))),
        (new, Period(max(middle, changed), ALWAYS.until)),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Course, "add", counting_what_it_did)
            totals = replayed(database, history.program_id, draft, within)
        assert totals.tiers.published == totals.tiers.draft
        assert sum(totals.tiers.draft.members.values()) == totals.members
        assert all(each.published == each.draft for each in totals.tiers_by_segment.values())


def counting_what_it_did(course: Course, record: tiers.Record, replayed: Counting, *compared: Any) -> None:
    """`Course.add`, after a look at each purchase, claim and return on its own."""
    did = [each for each in record.credits if each.document_id in replayed.documents]
    would = [each for each in replayed.credits if each.sums != Sums()]
    assert sorted(would, key=attrgetter("document_id")) == sorted(did, key=attrgetter("document_id"))
    _add(course, record, replayed, *compared)


_add = Course.add


@pytest.fixture
def shop(database_url: str, clock: TestClock) -> Iterator[Shop]:
    with open_shop(settings_for(database_url), clock, YEARLY) as shop:
        yield shop
        check_history(shop)
        shop.prove()


def moved(shop: Shop, draft: dict[str, Any], within: Period | None = None) -> tuple[Any, Any]:
    """By tier before and after, the members whose tier another was: as it did, as the draft would have."""
    within = within or Period(ALWAYS.since, shop.clock())
    totals = replayed(shop.database, shop.program_id, draft, within)
    return _elsewhere(totals.tiers.published), _elsewhere(totals.tiers.draft)


def _elsewhere(side: Moves) -> dict[tuple[str | None, str | None], int]:
    return {pair: count for pair, count in side.members.items() if pair[0] != pair[1]}


def test_easier_and_harder_tiers_move_others(shop: Shop) -> None:
    buy(shop, "r1", 60_000, card="1")
    buy(shop, "r2", 40_000, card="2")
    buy(shop, "r3", 100_000, card="3")
    shop.post(returned("b3", "r3", total=20_000))
    shop.clock.forward(hours=1)
    as_it_was = {(None, "silver"): 2}
    easier = YEARLY | {"tiers": {"levels": [SILVER, GOLD | {"qualification": {"spend": 80_000}}]}}
    assert moved(shop, easier) == (as_it_was, {(None, "silver"): 1, (None, "gold"): 1})
    harder = YEARLY | {"tiers": {"levels": [SILVER | {"qualification": {"spend": 70_000}}, GOLD]}}
    assert moved(shop, harder) == (as_it_was, {(None, "silver"): 1})
    # twice the points, and tiers by points: 600 x 2, 400 x 2, 800 x 2
    by_points = [SILVER | {"qualification": {"points": 1_000}}, GOLD | {"qualification": {"points": 1_600}}]
    assert moved(shop, YEARLY | {"earning": {"points": 2, "per": 100}, "tiers": {"levels": by_points}}) == (
        as_it_was,
        {(None, "silver"): 1, (None, "gold"): 1},
    )
    assert moved(shop, YEARLY | {"tiers": None}) == (as_it_was, {})


def test_only_the_period_is_the_drafts(shop: Shop) -> None:
    """Who stood before it stands, by what they bought before; who does nothing falls when the draft says."""
    until(shop, "2026-11-23")
    buy(shop, "r1", 60_000, "2026-11-22T12:00:00-05:00")
    until(shop, "2027-06-01")
    buy(shop, "r2", 45_000)
    until(shop, "2028-02-01")
    assert (code(shop), history(shop)) == (None, [(None, "silver", "earned")])
    year = Period(START.replace(year=2027, month=1), START.replace(year=2028, month=1, day=31))
    generous = YEARLY | {"tiers": {"levels": [SILVER | {"qualification": {"spend": 45_000}}]}}
    assert moved(shop, YEARLY, year) == ({("silver", None): 1}, {("silver", None): 1})
    assert moved(shop, generous, year) == ({("silver", None): 1}, {})
    never = YEARLY | {"tiers": YEARLY["tiers"] | {"downgrade": "none"}}
    assert moved(shop, never, Period(START.replace(year=2028, month=1, day=1, hour=6), shop.clock())) == ({}, {})


def test_a_tier_that_the_draft_has_not_leaves_members_in_the_next_lower_one(shop: Shop) -> None:
    """Which is a fall."""
    buy(shop, "r1", 100_000, "2026-10-01T12:00:00-04:00")
    period = Period(START, shop.clock())
    totals = replayed(shop.database, shop.program_id, YEARLY | {"tiers": {"levels": [SILVER]}}, period)
    assert (totals.tiers.draft.members, totals.tiers.draft.rose, totals.tiers.draft.fell) == (
        {("gold", "silver"): 1},
        0,
        1,
    )
    assert (totals.tiers.published.members, totals.tiers.published.fell) == ({("gold", "gold"): 1}, 0)


def test_what_staff_decided_stands_on_both_sides(shop: Shop) -> None:
    buy(shop, "r1", 1_000)
    assert decide(shop).status_code == 201
    shop.clock.forward(hours=1)
    assert moved(shop, YEARLY) == ({(None, "gold"): 1}, {(None, "gold"): 1})


def test_moves_are_answered_over_the_api_and_by_segment(shop: Shop) -> None:
    shop.post(purchase("r1", 60_000, member={"card": "1"}))
    id_ = shop.get("/v1/members/lookup", card="1")["id"]
    change = {"profile": {"segments": ["north"]}}
    assert shop.http.patch(f"/v1/members/{id_}", json=change, headers={"If-Match": '"1"'}).status_code == 200
    path = f"/v1/programs/{shop.program_id}/terms"
    version = shop.http.post(path, json=YEARLY | {"tiers": {"levels": [GOLD]}}).json()["version"]
    asked = {"from": "2026-11-22T00:00:00-05:00", "to": "2026-11-22T12:00:00Z"}
    *_, last = shop.http.get(f"{path}/{version}/replay", params=asked).text.splitlines()
    told = json.loads(last)["result"]["tiers"]
    published = {
        "rose": 1,
        "fell": 0,
        "moves": [{"from_tier": None, "to_tier": "silver", "members": 1}],
        "at_end": [{"tier": "silver", "members": 1}],
    }
    nothing = {"rose": 0, "fell": 0, "moves": [], "at_end": []}
    both = {"published": published, "draft": nothing}
    assert told == both | {"segments": [{"segment": "north"} | both]}
