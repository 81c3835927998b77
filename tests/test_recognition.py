"""When what was put aside for points becomes revenue: the formula by worked numbers, lives of cohorts, and the fold."""

import random
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import accounting
from app.accounting import CohortChange, CohortKey, Folded, default_codes
from app.accounting.models import Cohort, CohortChangeRow
from app.accounting.recognition import (
    FIGURES,
    ChangeCause,
    CohortState,
    Release,
    fold,
    release_postings,
    revise,
    target,
)
from app.accounting.rules import MILLION
from app.money import Rounding
from app.paging import encode
from app.worker import run_jobs
from tests.shop import TERMS, Shop, make_program, purchase
from tests.test_accounting import all_pages

PROGRAM = UUID("0199d3a6-b1f0-7c1e-8a52-000000000001")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OCTOBER, NOVEMBER, DECEMBER = date(2026, 10, 1), date(2026, 11, 1), date(2026, 12, 1)
KEY = CohortKey(PROGRAM, "CNY", NOVEMBER, "purchase", "2/3")


def changed(
    cause: ChangeCause, key: CohortKey = KEY, period: date = NOVEMBER, at: datetime = NOW, **figures: int
) -> CohortChange:
    carried = key if cause == "accrual" else None
    return CohortChange(key.id, key.program_id, key.currency, cause, period, at, carried, **figures)


def sold(allocated: int, issued: int, expected: int, **place: Any) -> CohortChange:
    return changed("accrual", **place, allocated=allocated, issued=issued, expected=expected * MILLION)


def spent(points: int, as_agent: int = 0, **place: Any) -> CohortChange:
    return changed("redemption", **place, used=points, used_as_agent=as_agent)


def expired(points: int, **place: Any) -> CohortChange:
    return changed("expiry", **place, expired=points)


def summary(releases: Iterable[Release]) -> list[tuple[str, int]]:
    return [(release.cause, release.amount) for release in releases]


# --- the formula ----------------------------------------------------------------------------------------------------

SEED = CohortState(allocated=197, issued=150, expected=100 * MILLION)
EXAMPLE_52 = CohortState(allocated=8676, issued=10_000, expected=9500 * MILLION)
TEN_SALES = CohortState(allocated=1970, issued=1500, expected=1000 * MILLION)


@pytest.mark.parametrize(
    ("state", "due"),
    [
        pytest.param(SEED, 0, id="nothing used yet"),
        pytest.param(replace(SEED, used=33), 65, id="seed: 33 of 100 expected"),
        pytest.param(replace(SEED, used=67), 132, id="seed: 67"),
        pytest.param(replace(SEED, used=100), 197, id="seed: all that was expected"),
        pytest.param(replace(SEED, used=120), 197, id="more used than expected: E' is X"),
        pytest.param(replace(SEED, used=100, expired=50), 197, id="seed: the rest expires"),
        pytest.param(replace(EXAMPLE_52, used=4500), 4110, id="IE269: first year"),
        pytest.param(replace(EXAMPLE_52, used=8500, estimate=Fraction(97, 95)), 7603, id="IE270: second year"),
        pytest.param(replace(EXAMPLE_52, used=8500, expired=1500), 8676, id="nothing outstanding"),
        pytest.param(replace(EXAMPLE_52, expired=10_000), 8676, id="nobody used any, all expired"),
        pytest.param(CohortState(100_00, 0, 1000, 800 * MILLION, 400, 100), 50_00, id="expiry as expected"),
        pytest.param(CohortState(100_00, 0, 1000, 800 * MILLION, 400, 250), 53_33, id="E' clamps to 750"),
        pytest.param(CohortState(100_00, 0, 1000, 1000 * MILLION, 600, 400), 100_00, id="unanticipated"),
        pytest.param(replace(TEN_SALES, used=400), 788, id="ten seed sales"),
        pytest.param(CohortState(1773, 0, 1350, 900 * MILLION, 300), 591, id="one of them returned, all of it used"),
        pytest.param(CohortState(1773, 0, 1350, 900 * MILLION, 400), 788, id="one returned, none of it used"),
        pytest.param(replace(TEN_SALES, issued=0, allocated=0, expected=0), 0, id="all returned"),
        pytest.param(CohortState(2_000_00, 0, 100_000, 80_000 * MILLION, 4000), 100_00, id="points plus cash"),
        pytest.param(CohortState(1000, 0, 1000, 800 * MILLION, 600), 750, id="CAS 14 with the residual method"),
        pytest.param(CohortState(500, 0, 100, 0), 500, id="nobody is expected to use any"),
        pytest.param(CohortState(500, 0, 100, 0, used=1), 500, id="and one did: E' is X"),
        pytest.param(CohortState(5, 0, 10, 10 * MILLION, 1), 0, id="a half goes to the even neighbour below"),
        pytest.param(CohortState(5, 0, 10, 10 * MILLION, 3), 2, id="and to the even neighbour above"),
    ],
)
def test_target(state: CohortState, due: int) -> None:
    assert target(state) == due


@pytest.mark.parametrize(
    ("rounding", "allocated", "dues"), [("down", 197, [65, 131, 197]), ("up", 198, [66, 133, 198])]
)
def test_target_in_other_roundings(rounding: Rounding, allocated: int, dues: list[int]) -> None:
    states = [replace(SEED, allocated=allocated, used=used) for used in (33, 67, 100)]
    assert [target(state, rounding) for state in states] == dues


def test_a_tenfold_cohort_releases_the_same() -> None:
    """Points re-denominated, one old for ten new: every count of points times ten."""
    state = CohortState(197, 0, 150, 100 * MILLION, 33, 20)
    tenfold = CohortState(197, 0, 1500, 1000 * MILLION, 330, 200)
    assert target(state) == target(tenfold)


def test_a_hundred_single_redemptions_release_exactly_what_was_allocated() -> None:
    """Rounded one by one, 100 x 1.97 cents would be 2.00; the differences of a rounded total are 1.97."""
    state, amounts = SEED, []
    for _ in range(100):
        state, releases = fold(state, [spent(1)])
        amounts += [release.amount for release in releases]
    assert [number for number, amount in enumerate(amounts) if amount != 2] == [16, 49, 83]
    assert (len(amounts), sum(amounts), state.recognised) == (100, 197, 197)


@pytest.mark.parametrize(
    ("expected", "released"),
    [
        pytest.param(9900, -166, id="raised: revenue is reduced"),
        pytest.param(9000, 228, id="lowered, the programme was devalued"),
        pytest.param(4000, 4566, id="below what is used: X is the floor, everything is due"),
        pytest.param(20_000, -206, id="above what was issued: N is the ceiling"),
    ],
)
def test_a_new_estimate_catches_up_at_once(expected: int, released: int) -> None:
    state, _ = fold(EXAMPLE_52, [spent(4500)])
    after, releases = revise(state, expected, DECEMBER, NOW)
    assert releases == [Release("estimate", released, 0, DECEMBER, NOW)]
    assert (after.estimate, after.recognised) == (Fraction(expected, 9500), 4110 + released)


def test_an_estimate_holds_for_what_is_sold_later() -> None:
    """k, not E, is what was approved: a late upload of the same month is expected to be used alike."""
    state, _ = revise(SEED, 120, NOVEMBER, NOW)
    state, _ = fold(state, [sold(197, 150, 100)])
    assert state.estimate == Fraction(6, 5)
    assert target(replace(state, used=120)) == 197


def test_an_estimate_that_changes_nothing_posts_nothing() -> None:
    assert revise(SEED, 120, NOVEMBER, NOW)[1] == []


def test_without_an_expectation_there_is_nothing_to_revise() -> None:
    with pytest.raises(ValueError, match="nothing was expected"):
        revise(CohortState(500, 0, 100, 0), 10, NOVEMBER, NOW)


# --- one fold -------------------------------------------------------------------------------------------------------


def test_a_fold_of_sales_alone_posts_nothing() -> None:
    """Also where it moves the target: that goes with the next use."""
    state, _ = fold(SEED, [spent(50)])
    after, releases = fold(state, [sold(197, 150, 100)])
    assert releases == []
    assert (after.allocated, after.recognised, target(after)) == (394, 98, 98)


def test_causes_come_in_one_order_however_they_are_given() -> None:
    """Ten sales; one is returned whose points were all used (its uses go with it), 400 were used, 400 expire."""
    changes = [
        expired(400, at=NOW.replace(day=24)),
        spent(250),
        changed("return", allocated=-197, issued=-150, expected=-100 * MILLION, used=-100),
        spent(150, at=NOW.replace(day=23)),
        sold(1970, 1500, 1000),
    ]
    after, releases = fold(CohortState(), changes)
    assert releases == [Release("redemption", 591, 0, NOVEMBER, NOW.replace(day=23))]
    assert (after.used, after.expired, after.recognised) == (300, 400, 591)
    assert fold(CohortState(), reversed(changes)) == (after, releases)


def test_each_cause_has_its_own_release() -> None:
    """The return of a lot of which 100 points were used and recognised takes 1.97 back; see the worked example."""
    state, releases = fold(CohortState(), [sold(1970, 1500, 1000), spent(400)])
    assert summary(releases) == [("redemption", 788)]
    returned = changed("return", allocated=-197, issued=-150, expected=-100 * MILLION, used=-100)
    state, releases = fold(state, [expired(600), spent(60), returned])
    assert summary(releases) == [("return", -197), ("redemption", 118), ("expiry", 142)]
    assert state.recognised == target(state) == 851


def test_months_come_one_after_the_other() -> None:
    """A spend uploaded late is released in its own month, before what the next month brought."""
    changes = [spent(33, period=DECEMBER), spent(33), expired(50, period=DECEMBER), sold(197, 150, 100)]
    _, releases = fold(CohortState(), changes)
    assert [(release.period, release.cause, release.amount) for release in releases] == [
        (NOVEMBER, "redemption", 65),
        (DECEMBER, "redemption", 65),
    ]


def test_points_given_back_take_their_revenue_with_them() -> None:
    state, _ = fold(SEED, [spent(67)])
    state, releases = fold(state, [spent(-34)])
    assert summary(releases) == [("redemption", 65 - 132)]
    assert state.used == 33


@pytest.mark.parametrize(
    ("used", "as_agent", "amount", "agents"),
    [
        pytest.param(33, 0, 65, 0, id="all our own"),
        pytest.param(33, 33, 65, 65, id="all brokered"),
        pytest.param(33, 11, 65, 22, id="a third of 0.65"),
        pytest.param(1, 1, 2, 2, id="one point"),
        pytest.param(-10, -5, -19, -10, id="given back, half of it brokered: -9.5 goes to the even neighbour"),
        pytest.param(-10, 5, -19, 0, id="more is never taken back than the release"),
        pytest.param(10, 25, 20, 20, id="nor is more released"),
    ],
)
def test_the_part_for_brokered_rewards(used: int, as_agent: int, amount: int, agents: int) -> None:
    state = CohortState(197, 0, 150, 100 * MILLION, max(-used, 0) * 5, recognised=98 if used < 0 else 0)
    _, releases = fold(state, [spent(used, as_agent)])
    assert [(release.amount, release.as_agent) for release in releases] == [(amount, agents)]


def test_uses_and_what_comes_back_may_cancel_out() -> None:
    """No points in all, though a brokered reward was swapped for one of ours: nothing to divide by."""
    assert fold(SEED, [spent(10, 10), spent(-10)])[1] == []


# --- lives ----------------------------------------------------------------------------------------------------------


def moved(cause: ChangeCause, lot: CohortState, period: date) -> CohortChange:
    return changed(
        cause,
        period=period,
        allocated=lot.allocated,
        issued=lot.issued,
        expected=lot.expected,
        used=lot.used,
        expired=lot.expired,
    )


def a_life(chance: random.Random) -> list[CohortChange]:
    """What happens to a cohort until all its points are used or expired, in a possible order. Lots are returned whole,
    with what was used and expired of them."""
    changes: list[CohortChange] = []
    lots: list[CohortState] = []
    for _ in range(chance.randint(2, 7)):
        month = date(2026, chance.randint(1, 12), 1)
        what = chance.choice(["sell", "sell", "use", "use", "expire", "return"]) if lots else "sell"
        if what == "sell":
            issued = chance.randint(1, 300)
            lots.append(CohortState(chance.randint(0, 400), 0, issued, chance.randint(0, issued * MILLION)))
            changes.append(moved("accrual", lots[-1], month))
            continue
        lot = lots.pop(chance.randrange(len(lots)))
        left = lot.issued - lot.used - lot.expired
        if what == "use":
            points = chance.randint(-lot.used, left)
            lots.append(replace(lot, used=lot.used + points))
            changes.append(spent(points, period=month))
        elif what == "expire":
            points = chance.randint(0, left)
            lots.append(replace(lot, expired=lot.expired + points))
            changes.append(expired(points, period=month))
        else:
            back = CohortState(-lot.allocated, 0, -lot.issued, -lot.expected, -lot.used, -lot.expired)
            changes.append(moved("return", back, month))
    left = sum(lot.issued - lot.used - lot.expired for lot in lots)
    used = chance.randint(0, left)
    return [*changes, spent(used, period=DECEMBER), expired(left - used, period=DECEMBER)]


def in_pieces(chance: random.Random, changes: Sequence[CohortChange]) -> Iterable[Sequence[CohortChange]]:
    """`changes` cut anywhere."""
    start = 0
    while start < len(changes):
        end = chance.randint(start + 1, len(changes))
        yield changes[start:end]
        start = end


def test_twenty_thousand_lives_end_with_everything_recognised() -> None:
    """Never less than nothing, never more than was allocated, and in the end all of it, to the minor unit. And neither
    the order of what happens nor where the folds cut it changes the total."""
    chance = random.Random(3)
    for _ in range(20_000):
        *life, last = a_life(chance)
        state = CohortState()
        for change in (*life, last):
            state, _ = fold(state, [change])
            assert 0 <= state.recognised <= state.allocated, life
        assert state.recognised == state.allocated, life

        chance.shuffle(life)
        other, posted = CohortState(), 0
        for piece in (*in_pieces(chance, life), [last]):
            other, releases = fold(other, piece)
            posted += sum(release.amount for release in releases)
        assert other == state, life
        assert posted == state.recognised, life


def test_halfway_through_their_lives_cohorts_agree_too() -> None:
    """The same before the end, where what is due is less than everything: a last spend, and the totals are equal."""
    chance = random.Random(4)
    parts = 0
    for _ in range(2_000):
        *life, last = [sold(400, 300, 200), *a_life(chance)[:-2], spent(1)]
        state, _ = fold(CohortState(), [*life, last])
        chance.shuffle(life)
        other = CohortState()
        for piece in (*in_pieces(chance, life), [last]):
            other, _ = fold(other, piece)
        assert other.recognised == target(state), life
        parts += 0 < other.recognised < other.allocated
    assert parts > 1_000


# --- the books ------------------------------------------------------------------------------------------------------


def change(shop: Shop, *changes: CohortChange) -> None:
    shop.database.write(lambda session: accounting.change_cohorts(session, changes, shop.clock()))


def run(shop: Shop) -> Folded:
    return accounting.fold(shop.database, shop.clock())


def cohort_of(shop: Shop) -> dict[str, Any]:
    (cohort,) = shop.get("/v1/accounting/cohorts")["items"]
    return dict(cohort)


def key_of(shop: Shop, **changes: Any) -> CohortKey:
    """The cohort that the shop's purchases join: four of five are expected to be used."""
    return replace(CohortKey(shop.program_id, "USD", NOVEMBER, "purchase", "4/5"), **changes)


def posted(shop: Shop, **query: Any) -> list[tuple[str, str, int, str]]:
    rows = all_pages(shop, "/v1/accounting/journal", **query)
    return [(row["debit"], row["credit"], row["amount"], row["cause"]) for row in rows if row["cause"] != "accrual"]


@pytest.fixture
def sold_out(shop: Shop) -> Shop:
    """A thousand points sold for 1,000.00, of which 800 are expected to be used: 7.94 deferred; folded."""
    shop.post(purchase("r1", 100_000))
    run(shop)
    assert (cohort_of(shop)["allocated"], cohort_of(shop)["recognised"]) == (794, 0)
    return shop


def prove_money(shop: Shop) -> None:
    """The proof holds but for the lots: these tests tell cohorts of uses that no lot knows."""
    proof = shop.get("/v1/proof")
    failed = [check["name"] for check in proof["checks"] if check["differences"]]
    assert set(failed) <= {"cohorts_are_sums_of_lots"}, proof


def test_a_fold_posts_what_uses_release(sold_out: Shop) -> None:
    key = key_of(sold_out)
    sold_out.clock.forward(minutes=5)
    change(sold_out, spent(200, 50, key=key), spent(200, key=key, at=NOW.replace(hour=13)), expired(300, key=key))
    waiting = cohort_of(sold_out)
    assert (waiting["used"], waiting["expired"], waiting["recognised"], waiting["waiting"]) == (400, 300, 0, 2)
    prove_money(sold_out)
    folded = run(sold_out)
    assert folded == Folded(1, 2, 3, 0, {("USD", "purchase", "redemption"): 397, ("USD", "purchase", "expiry"): 57})
    rows = [row for row in all_pages(sold_out, "/v1/accounting/journal") if row["cause"] != "accrual"]
    assert [(row["debit"], row["credit"], row["amount"], row["cause"]) for row in rows] == [
        ("2100", "4100", 347, "redemption"),
        ("2100", "4400", 50, "redemption"),
        ("2100", "4100", 57, "expiry"),
    ]
    assert {(row["cohort_id"], row["document_id"], row["period"]) for row in rows} == {
        (str(key.id),) * 2 + ("2026-11",)
    }
    assert [row["occurred_at"][:16] for row in rows] == ["2026-11-22T13:00", "2026-11-22T13:00", "2026-11-22T12:00"]
    assert {row["recorded_at"][:16] for row in rows} == {"2026-11-22T12:05"}
    after = cohort_of(sold_out)
    assert after == waiting | {"recognised": 454, "waiting": 0}
    assert run(sold_out) == Folded(0, 0, 0, 0, {})
    prove_money(sold_out)


def test_a_backlog_is_summed_up_before_it_is_folded(sold_out: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement takes up more than so many changes, and what is posted is the same as if one had taken up all."""
    key = key_of(sold_out)
    each_time = [sold(0, 10, 8, key=key), spent(20, 7, key=key), spent(30, 5, key=key, period=DECEMBER)]
    backlog = [*each_time, expired(10, key=key)] * 7
    for each in backlog:
        change(sold_out, each)
    before = cohort_of(sold_out)
    assert before["waiting"] == 28
    releases = fold(CohortState(794, 0, 1000, 800_000_000), backlog)[1]
    monkeypatch.setattr("app.accounting.service.SUMMED_AT_ONCE", 10)
    steps = list(accounting.fold_in_steps(sold_out.database, sold_out.clock()))
    assert (len(steps), sum(step.changes for step in steps)) == (3, 28)
    assert [row[2] for row in posted(sold_out)] == [
        part for each in releases for part in (each.amount - each.as_agent, each.as_agent) if part
    ]
    assert cohort_of(sold_out) == before | {"recognised": sum(each.amount for each in releases), "waiting": 0}
    prove_money(sold_out)


def test_a_fold_of_purchases_alone_posts_nothing_to_the_journal(shop: Shop) -> None:
    shop.batch([purchase(f"r{number}") for number in range(5)])
    assert run(shop) == Folded(1, 1, 0, 0, {})
    assert posted(shop) == []
    shop.prove()


def test_what_is_taken_back_is_posted_the_other_way_round(sold_out: Shop) -> None:
    key = key_of(sold_out)
    change(sold_out, spent(400, 400, key=key))
    run(sold_out)
    change(sold_out, spent(-400, -400, key=key))
    run(sold_out)
    assert posted(sold_out) == [("2100", "4400", 397, "redemption"), ("4400", "2100", 397, "redemption")]
    prove_money(sold_out)


def test_points_without_a_purchase_release_their_provision(shop: Shop) -> None:
    """500 goodwill points at 0.008, 400 expected to be used: 3.20 provided; 300 are used and 200 expire."""
    key = key_of(shop, funding="marketing")
    provided = accounting.set_aside(500, Fraction(4, 5), Fraction(4, 5))
    assert (provided.points, provided.residue) == (320, 0)
    grant = accounting.Event(shop.program_id, PROGRAM, "USD", NOW, NOVEMBER, key.id)

    def act(session: Session) -> None:
        codes = accounting.chart(session, shop.program_id)
        accounting.post(session, accounting.provision_postings(grant, provided.points, codes), NOW)

    shop.database.write(act)
    change(shop, sold(320, 500, 400, key=key))
    change(shop, spent(300, key=key), expired(200, key=key))
    holds = {"liability_is_sum_of_cohorts", "provision_is_sum_of_cohorts", "recognised_is_posted"}
    before = {check["name"]: check["differences"] for check in shop.get("/v1/proof")["checks"]}
    assert {name: before[name] for name in holds} == dict.fromkeys(holds, 0)
    run(shop)
    assert posted(shop) == [
        ("6100", "2300", 320, "provision"),
        ("2300", "5100", 240, "redemption"),
        ("2300", "6100", 80, "expiry"),
    ]
    after = {check["name"]: check["differences"] for check in shop.get("/v1/proof")["checks"]}
    assert {name: after[name] for name in holds} == dict.fromkeys(holds, 0)


def test_recognition_on_demand_says_what_it_released(sold_out: Shop) -> None:
    change(sold_out, spent(400, key=key_of(sold_out)))
    answer = sold_out.http.post("/v1/accounting/recognitions")
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "cohorts": 1,
            "changes": 1,
            "postings": 1,
            "left": 0,
            "released": [{"currency": "USD", "funding": "purchase", "cause": "redemption", "amount": 397}],
        },
    )
    again = sold_out.http.post("/v1/accounting/recognitions").json()
    assert again == {"cohorts": 0, "changes": 0, "postings": 0, "left": 0, "released": []}


def test_recognition_on_demand_leaves_other_programmes_alone(sold_out: Shop) -> None:
    other = sold_out.database.write(partial(make_program, terms=TERMS, now=NOW, code="other"))
    change(sold_out, sold(5, 10, 8, key=key_of(sold_out, program_id=other)))
    assert sold_out.http.post("/v1/accounting/recognitions").json()["changes"] == 0
    assert run_jobs(sold_out.database, NOW)["fold-cohorts"] == 1


def test_folds_at_once_release_everything_once(sold_out: Shop) -> None:
    key, stop = key_of(sold_out), threading.Event()

    def keep_folding() -> list[Folded]:
        folds = []
        while not stop.is_set():
            folds.append(run(sold_out))
        return [*folds, run(sold_out)]

    with ThreadPoolExecutor(4) as pool:
        folds = [pool.submit(keep_folding) for _ in range(2)]
        list(pool.map(lambda _: change(sold_out, spent(10, key=key)), range(40)))
        stop.set()
        done = [folded for future in folds for folded in future.result()]
    assert sum(folded.changes for folded in done) == 40
    assert sum(sum(folded.released.values()) for folded in done) == 397
    after = cohort_of(sold_out)
    assert (after["used"], after["recognised"], after["waiting"]) == (400, 397, 0)
    assert sum(amount for *_, amount, _ in posted(sold_out)) == 397
    prove_money(sold_out)


def test_the_first_folds_of_a_cohort_at_once_make_it_once(shop: Shop) -> None:
    for number in range(10):
        shop.post(purchase(f"r{number}"))
        with ThreadPoolExecutor(3) as pool:
            assert sum(folded.changes for folded in pool.map(lambda _: run(shop), range(3))) == 1
    assert cohort_of(shop)["issued"] == 100


def test_a_cohort_that_cannot_be_folded_is_left_and_the_others_go_on(sold_out: Shop) -> None:
    """More used than was issued: the constraint refuses it, after the changes were taken and the release posted."""
    wrong, right = key_of(sold_out), key_of(sold_out, estimate_class="1")
    change(sold_out, spent(2000, key=wrong), sold(10, 10, 10, key=right))
    change(sold_out, spent(5, key=right))
    folded = run(sold_out)
    assert (folded.cohorts, folded.changes, folded.left) == (1, 2, 1)
    assert posted(sold_out) == [("2100", "4100", 5, "redemption")]
    with sold_out.database.engine.connect() as connection:
        assert connection.scalars(select(CohortChangeRow.used)).all() == [2000]
        assert connection.scalars(select(Cohort.used).where(Cohort.id == wrong.id)).all() == [0]
    change(sold_out, spent(-1900, key=wrong))
    assert run(sold_out).released == {("USD", "purchase", "redemption"): 99}


@pytest.mark.parametrize("carried", ["another cohort's key", "none"])
def test_changes_without_their_cohort_are_left(shop: Shop, carried: str) -> None:
    key = key_of(shop)
    if carried == "none":
        change(shop, spent(5, key=key))
    else:
        change(shop, replace(sold(5, 10, 8, key=key), key=key_of(shop, estimate_class="1")))
    folded = run(shop)
    assert (folded.changes, folded.left) == (0, 1)
    with shop.database.engine.connect() as connection:
        assert connection.scalars(select(Cohort.id)).all() == []


def test_more_points_than_64_bits_hold_in_millionths(shop: Shop) -> None:
    """Three batches of 9 million million points: beyond 2^63 millionths, in a change, in their sum, in the cohort."""
    key, many = key_of(shop), 9 * 10**15
    for _ in range(3):
        change(shop, changed("accrual", key=key, allocated=4 * 10**18 // 3, issued=many, expected=many * MILLION - 1))
    for _ in range(2):
        cohort = cohort_of(shop)
        assert (cohort["issued"], cohort["expected"]) == (3 * many, 3 * many * MILLION - 3)
        assert shop.http.get("/v1/proof").status_code == 200
        run(shop)
    change(shop, spent(2 * many, key=key))
    answer = shop.http.post("/v1/accounting/recognitions").json()
    assert [row["amount"] for row in answer["released"]] == [
        cohort["allocated"] * 2 * many * MILLION // cohort["expected"]
    ]


def test_many_changes_fold_as_their_sums_do(shop: Shop) -> None:
    """One cohort is told of each change by itself, its twin of all at once; both end where the formula ends."""
    chance, many = random.Random(5), 3 * 10**13
    alone, at_once = key_of(shop, estimate_class="1/2"), key_of(shop, estimate_class="2/3")

    def some(key: CohortKey) -> Iterable[CohortChange]:
        for number in range(300):
            at = NOW.replace(hour=number % 24)
            place: dict[str, Any] = {"key": key, "period": chance.choice([OCTOBER, NOVEMBER, DECEMBER]), "at": at}
            points, part = chance.randint(many, 2 * many), chance.randint(-many, many)
            match number % 4:
                case 0:
                    exact = points * MILLION - 1
                    issued = points * 5 // 4
                    yield changed("accrual", **place, allocated=points, residue=part, issued=issued, expected=exact)
                case 1:
                    yield changed("return", **place, issued=-points // 100, expected=part, used=-points // 200)
                case 2:
                    yield spent(points // 2, abs(part), **place)
                case _:
                    yield expired(points // 2, **place)

    changes = list(some(alone))
    for each in changes:
        change(shop, each)
    twins = [replace(each, cohort_id=at_once.id, key=at_once if each.key else None) for each in changes]
    change(shop, *twins)
    assert sum(each.expected for each in changes) > 2**63
    run(shop)
    state, releases = fold(CohortState(), changes)
    assert {release.cause for release in releases} == {"return", "redemption", "expiry"}
    for key in (alone, at_once):
        (cohort,) = [each for each in shop.get("/v1/accounting/cohorts")["items"] if each["id"] == str(key.id)]
        known = {name: cohort[name] for name in (*FIGURES, "recognised")}
        assert known == {name: getattr(state, name) for name in known}
        rows = [row for row in all_pages(shop, "/v1/accounting/journal") if row["cohort_id"] == str(key.id)]
        legs = [posting for release in releases for posting in release_postings(key, release, default_codes())]
        assert [(row["debit"], row["credit"], row["amount"], row["cause"]) for row in rows] == [
            (leg.debit, leg.credit, leg.amount, leg.cause) for leg in legs
        ]
        instants = [datetime.fromisoformat(row["occurred_at"]) for row in rows]
        assert instants == [leg.occurred_at for leg in legs]


def test_more_money_than_64_bits_hold_is_left_unfolded(shop: Shop) -> None:
    """Nobody has that much: but it is answered, and nothing is lost."""
    key = key_of(shop)
    for _ in range(3):
        change(shop, changed("accrual", key=key, allocated=2**62, issued=10, expected=8 * MILLION))
    answer = shop.http.post("/v1/accounting/recognitions")
    assert (answer.status_code, answer.json()["left"]) == (200, 1)
    assert (cohort_of(shop)["allocated"], cohort_of(shop)["waiting"]) == (3 * 2**62, 3)
    assert shop.http.get("/v1/proof").status_code == 200


def test_a_trial_balance_beyond_64_bits(shop: Shop) -> None:
    deferral = accounting.Event(shop.program_id, PROGRAM, "USD", NOW, NOVEMBER, key_of(shop).id)

    def act(session: Session) -> None:
        codes = accounting.chart(session, shop.program_id)
        for _ in range(3):
            accounting.post(session, accounting.concession_postings(deferral, 2**62 + 1, codes), NOW)

    shop.database.write(act)
    rows = shop.get("/v1/accounting/trial-balance")["items"]
    assert {row["code"]: row["balance"] for row in rows} == {"2100": -3 * (2**62 + 1), "4000": 3 * (2**62 + 1)}
    assert shop.http.get("/v1/proof").status_code == 200


# --- estimates ------------------------------------------------------------------------------------------------------


def test_an_approved_estimate_is_posted_after_what_waits(shop: Shop) -> None:
    """IFRS 15, Example 52 to its end: 4,110 in the first year, 3,493 in the second, and the rest expires."""
    key = key_of(shop, currency="JPY", estimate_class="19/20")
    change(shop, sold(8676, 10_000, 9500, key=key))
    change(shop, spent(4500, key=key))
    run(shop)
    change(shop, spent(4000, key=key))
    revised = shop.database.write(
        lambda session: accounting.revise_estimate(session, key.id, 9700, shop.clock(), DECEMBER)
    )
    assert summary(revised) == [("redemption", 3653), ("estimate", -160)]
    assert sum(release.amount for release in revised) == 3493
    assert cohort_of(shop)["estimate"] == "97/95"
    change(shop, expired(1500, key=key, period=DECEMBER))
    run(shop)
    assert posted(shop) == [
        ("2100", "4100", 4110, "redemption"),
        ("2100", "4100", 3653, "redemption"),
        ("4100", "2100", 160, "estimate"),
        ("2100", "4100", 1073, "expiry"),
    ]
    assert posted(shop, period_from="2026-12")[0] == ("4100", "2100", 160, "estimate")


def test_a_cohort_without_expectations_takes_no_estimate(shop: Shop) -> None:
    key = key_of(shop, estimate_class="0")
    change(shop, sold(0, 10, 0, key=key))
    with pytest.raises(ValueError, match="nothing was expected"):
        shop.database.write(lambda session: accounting.revise_estimate(session, key.id, 5, NOW, NOVEMBER))
    assert cohort_of(shop)["waiting"] == 1


# --- reading cohorts ------------------------------------------------------------------------------------------------


def test_cohorts_are_paged_without_loss_or_repetition(shop: Shop) -> None:
    """Some folded and some waiting, some both."""
    keys = [
        key_of(shop, currency=currency, month=date(2026, month, 1), funding=funding, estimate_class=rate)
        for currency in ("USD", "EUR")
        for month in (12, 2)
        for funding in ("purchase", "marketing")
        for rate in ("4/5", "1")
    ]
    change(shop, *(sold(5, 10, 8, key=key) for key in keys[::2]))
    run(shop)
    change(shop, *(sold(5, 10, 8, key=key) for key in keys[::3]))
    change(shop, *(spent(1, key=key) for key in keys[::6]))
    whole = all_pages(shop, "/v1/accounting/cohorts", limit=500)
    known = {str(key.id) for key in keys[::2] + keys[::3]}
    assert {row["id"] for row in whole} == known
    assert len(whole) == len(known)
    places = [(row["currency"], row["month"], row["funding"]) for row in whole]
    assert places == sorted(places)
    assert all_pages(shop, "/v1/accounting/cohorts", limit=1) == whole
    assert all_pages(shop, "/v1/accounting/cohorts", limit=3) == whole


@pytest.mark.parametrize(
    "position",
    [
        ["USD"],
        ["USD", "November", "purchase", "4/5"],
        ["USD", "2026-11-01", "purchase", "4\x00/5"],
        ["\ud800", "2026-11-01", "purchase", "4/5"],
        ["USD", "2026-11-01", "purchase", "4/5", "5"],
        {"currency": "USD"},
    ],
)
def test_a_made_up_place_is_refused(shop: Shop, position: Any) -> None:
    response = shop.http.get("/v1/accounting/cohorts", params={"cursor": encode(position)})
    assert (response.status_code, response.json()["code"]) == (400, "cursor_invalid")
