"""Who can have which reward, for how many points, and every reason why not. No database."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.errors import Problem
from app.redemptions import Facts, Had, Reward, eligible, judge
from app.redemptions.codes import ALPHABET, code_of, hash_code, read_code
from app.redemptions.rules import (
    Receipt,
    VoucherBurnt,
    VoucherCancelled,
    VoucherExpired,
    check_burn,
    months_of,
    voucher_expires_at,
)
from app.redemptions.schemas import Offer, RewardIn
from tests.shop import PEPPER

NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MUG = UUID(int=1)

examples = settings(deadline=None, max_examples=200)


def reward(left: int | None = None, *, retired: bool = False, id_: UUID = MUG, **offer: Any) -> Reward:
    """A mug for 1,000 points, unless told otherwise."""
    value = Offer.model_validate({"name": "Mug", "points": 1000} | offer)
    return Reward(id_, "mug", "USD", value, left, retired)


def facts(available: int = 5000, in_all: int = 0, this_month: int = 0, *, may_spend: bool = True) -> Facts:
    return Facts(may_spend, available, {MUG: Had(in_all, this_month)})


REFUSED: dict[str, tuple[Reward, Facts, int, datetime, str, dict[str, Any]]] = {
    # this reward, for this member, so many, then: the code, what it says besides
    "999 of 1,000 buy nothing": (reward(), facts(999), 1, NOW, "insufficient_points", {"missing": 1}),
    "1,999 buy one, not two": (reward(), facts(1999), 2, NOW, "insufficient_points", {"missing": 1}),
    "no points at all": (reward(), facts(0), 3, NOW, "insufficient_points", {"missing": 3000}),
    "owing points buys nothing": (reward(), facts(-200), 1, NOW, "insufficient_points", {"missing": 1200}),
    "retired": (reward(retired=True), facts(), 1, NOW, "reward_retired", {}),
    "switched off": (
        reward(active=False),
        facts(),
        1,
        NOW,
        "reward_unavailable",
        {"available_from": None, "available_until": None},
    ),
    "a second too early": (
        reward(available_from="2026-11-22T07:00:01-05:00"),
        facts(),
        1,
        NOW,
        "reward_unavailable",
        {"available_from": "2026-11-22T07:00:01-05:00", "available_until": None},
    ),
    "at its end it is over": (
        reward(available_until="2026-11-22T12:00:00Z"),
        facts(),
        1,
        NOW,
        "reward_unavailable",
        {"available_from": None, "available_until": "2026-11-22T12:00:00+00:00"},
    ),
    "a date": (
        reward(blackout_dates=["2026-11-22"]),
        facts(),
        1,
        NOW,
        "reward_blacked_out",
        {"next_date": "2026-11-23"},
    ),
    "a date of every year": (
        reward(blackout_dates=["12-24", "12-25", "2027-12-26"]),
        facts(),
        1,
        datetime(2027, 12, 24, 12, tzinfo=UTC),
        "reward_blacked_out",
        {"next_date": "2027-12-27"},
    ),
    "it is still the 24th in New York": (
        reward(blackout_dates=["12-24"]),
        facts(),
        1,
        datetime(2026, 12, 25, 4, 59, tzinfo=UTC),
        "reward_blacked_out",
        {"next_date": "2026-12-25"},
    ),
    "29 February": (
        reward(blackout_dates=["02-29"]),
        facts(),
        1,
        datetime(2028, 2, 29, 12, tzinfo=UTC),
        "reward_blacked_out",
        {"next_date": "2028-03-01"},
    ),
    "every day of every year": (
        reward(blackout_dates=[(date(2028, 1, 1) + timedelta(days=n)).isoformat()[5:] for n in range(366)]),
        facts(),
        1,
        NOW,
        "reward_blacked_out",
        {"next_date": None},
    ),
    "suspended": (reward(), facts(may_spend=False), 1, NOW, "member_may_not_spend", {}),
    "one left of three, two wanted": (
        reward(limits={"in_all": 3}),
        facts(in_all=2),
        2,
        NOW,
        "reward_limit_reached",
        {"left": 1, "again_at": None},
    ),
    "the limit was lowered below what they had": (
        reward(limits={"in_all": 3}),
        facts(in_all=7),
        1,
        NOW,
        "reward_limit_reached",
        {"left": 0, "again_at": None},
    ),
    "one a month, had": (
        reward(limits={"per_month": 1}),
        facts(in_all=9, this_month=1),
        1,
        NOW,
        "reward_limit_reached",
        {"left": 0, "again_at": "2026-12-01T00:00:00-05:00"},
    ),
    "two left, three wanted": (reward(2), facts(), 3, NOW, "reward_out_of_stock", {"left": 2}),
    "none left": (reward(0), facts(), 1, NOW, "reward_out_of_stock", {"left": 0}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    wanted, member, quantity, now, code, extra = REFUSED[case]
    judgement = judge(wanted, member, quantity, now, NEW_YORK)
    assert [refusal.code for refusal in judgement.refusals] == [code]
    assert judgement.refusals[0].extra == extra
    with pytest.raises(Problem) as refused:
        judgement.check()
    assert (refused.value.code, refused.value.final) == (code, True)


GRANTED: dict[str, tuple[Reward, Facts, int, datetime, int]] = {
    # this reward, for this member, so many, then: the points
    "exactly enough": (reward(), facts(1000), 1, NOW, 1000),
    "three pieces": (reward(points=250), facts(750), 3, NOW, 750),
    "the last two": (reward(2), facts(), 2, NOW, 2000),
    "the first instant": (reward(available_from="2026-11-22T12:00:00Z"), facts(), 1, NOW, 1000),
    "the last instant": (reward(available_until="2026-11-22T12:00:00.000001Z"), facts(), 1, NOW, 1000),
    "the 25th has begun in New York": (
        reward(blackout_dates=["12-24"]),
        facts(),
        1,
        datetime(2026, 12, 25, 5, 0, tzinfo=UTC),
        1000,
    ),
    "another year's blackout": (reward(blackout_dates=["2025-11-22"]), facts(), 1, NOW, 1000),
    "up to the limit": (reward(limits={"in_all": 3}), facts(in_all=2), 1, NOW, 1000),
    "had last month, not this": (reward(limits={"per_month": 1}), facts(in_all=9), 1, NOW, 1000),
}


@pytest.mark.parametrize("case", GRANTED)
def test_granted(case: str) -> None:
    wanted, member, quantity, now, points = GRANTED[case]
    judgement = judge(wanted, member, quantity, now, NEW_YORK)
    assert judgement.refusals == ()
    assert judgement.points == points
    judgement.check()


def test_every_reason_is_given_and_the_weightiest_first() -> None:
    """Whoever asks learns everything at once; the answer's own code is what no points could cure."""
    wanted = reward(0, retired=True, active=False, blackout_dates=["11-22"], limits={"in_all": 1}, tiers=["gold"])
    judgement = judge(wanted, facts(0, in_all=1, may_spend=False), 1, NOW, NEW_YORK)
    codes = [
        "reward_retired",
        "reward_unavailable",
        "reward_blacked_out",
        "member_may_not_spend",
        "reward_not_for_tier",
        "reward_limit_reached",
        "reward_out_of_stock",
        "insufficient_points",
    ]
    assert [refusal.code for refusal in judgement.refusals] == codes
    with pytest.raises(Problem) as refused:
        judgement.check()
    assert refused.value.code == "reward_retired"
    assert [(found.pointer, found.code) for found in refused.value.findings] == [
        ("#/reward", "reward_retired"),
        ("#/reward", "reward_unavailable"),
        ("#/reward", "reward_blacked_out"),
        ("#/member", "member_may_not_spend"),
        ("#/member", "reward_not_for_tier"),
        ("#/quantity", "reward_limit_reached"),
        ("#/quantity", "reward_out_of_stock"),
        ("#/quantity", "insufficient_points"),
    ]


@pytest.mark.parametrize(
    ("tiers", "tier", "possible"),
    [
        ([], None, True),
        ([], "gold", True),
        (["gold"], "gold", True),
        (["silver", "gold"], "silver", True),
        (["gold"], "silver", False),
        (["gold"], None, False),
    ],
)
def test_some_rewards_are_for_some_tiers(tiers: list[str], tier: str | None, possible: bool) -> None:
    refusals = judge(reward(tiers=tiers), replace(facts(), tier=tier), 1, NOW, NEW_YORK).refusals
    told = [(refusal.code, refusal.extra) for refusal in refusals]
    assert told == ([] if possible else [("reward_not_for_tier", {"tiers": tiers})])


def test_which_can_i_get_and_why_not_the_others() -> None:
    """Each is judged for one piece, by itself: what one would cost is not taken off for the next."""
    cup = reward(id_=UUID(int=2), points=800)
    chosen = eligible([reward(), cup, reward(0)], facts(900), NOW, NEW_YORK)
    assert [[refusal.code for refusal in judgement.refusals] for judgement in chosen] == [
        ["insufficient_points"],
        [],
        ["reward_out_of_stock", "insufficient_points"],
    ]
    assert chosen[0].refusals[0].extra == {"missing": 100}


# --- what a reward may say ------------------------------------------------------------------------------------------


REWARD: dict[str, Any] = {"code": "mug", "name": "Mug", "points": 1000, "currency": "USD"}


@pytest.mark.parametrize(
    "change",
    [
        {"points": 0},
        {"points": "1000"},
        {"points": True},
        {"code": "Mug"},
        {"code": ""},
        {"supply": -1},
        {"blackout_dates": ["2026-02-29"]},
        {"blackout_dates": ["02-30"]},
        {"blackout_dates": ["24-12"]},
        {"blackout_dates": ["2026-1-1"]},
        {"available_from": "2026-12-01T00:00:00Z", "available_until": "2026-12-01T00:00:00Z"},
        {"available_from": "2026-12-01"},
        {"item": {"kind": "voucher", "value": 500}},
        {"item": {"kind": "voucher", "value": 0, "valid_days": 1}},
        {"item": {"kind": "goods", "value": 500}},
        {"supplier": {"type": "own", "charge": 5}},
        {"supplier": {"type": "own", "cost": -1}},
        {"supplier": {"type": "agent", "cost": 5}},
        {"supplier": {"type": "principal", "name": "Gym"}},
        {"limits": {"per_month": 0}},
        {"taken": 5},
    ],
    ids=str,
)
def test_makes_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RewardIn.model_validate(REWARD | change)


def test_an_offer_survives_storing() -> None:
    written = RewardIn.model_validate(
        REWARD
        | {
            "item": {"kind": "voucher", "value": 500, "valid_days": 90},
            "supplier": {"type": "agent", "name": "Gym", "reference": "G-7", "charge": 92},
            "available_from": "2026-11-01T00:00:00.5-04:00",
            "blackout_dates": ["02-29", "2026-12-24"],
            "limits": {"in_all": 3, "per_month": 1},
            "tiers": ["gold"],
        }
    )
    stored = written.model_dump(mode="json", include=set(Offer.model_fields))
    assert Offer.model_validate(stored).model_dump() == written.model_dump(include=set(Offer.model_fields))


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "began", "ends"),
    [
        ("2026-11-22T12:00:00+00:00", "2026-11-01T04:00:00+00:00", "2026-12-01T05:00:00+00:00"),
        ("2026-12-01T04:59:59+00:00", "2026-11-01T04:00:00+00:00", "2026-12-01T05:00:00+00:00"),
        ("2026-12-01T05:00:00+00:00", "2026-12-01T05:00:00+00:00", "2027-01-01T05:00:00+00:00"),
        ("2026-01-31T12:00:00+00:00", "2026-01-01T05:00:00+00:00", "2026-02-01T05:00:00+00:00"),
    ],
)
def test_months_are_the_programmes(now: str, began: str, ends: str) -> None:
    assert [at.isoformat() for at in months_of(datetime.fromisoformat(now), NEW_YORK)] == [began, ends]


@pytest.mark.parametrize(
    ("issued", "days", "expires"),
    [
        # the end of the local day, whatever the hour of issue, and over both changes of the clocks
        ("2026-11-22T12:00:00+00:00", 1, "2026-11-24T05:00:00+00:00"),
        ("2026-11-22T04:59:00+00:00", 1, "2026-11-23T05:00:00+00:00"),
        ("2026-10-30T12:00:00+00:00", 2, "2026-11-02T05:00:00+00:00"),
        ("2026-03-06T12:00:00+00:00", 2, "2026-03-09T04:00:00+00:00"),
        ("2028-02-28T12:00:00+00:00", 1, "2028-03-01T05:00:00+00:00"),
    ],
)
def test_vouchers_are_good_for_whole_local_days(issued: str, days: int, expires: str) -> None:
    assert voucher_expires_at(datetime.fromisoformat(issued), days, NEW_YORK).isoformat() == expires


# --- vouchers -------------------------------------------------------------------------------------------------------

RECEIPT = Receipt("store-1", "r1")


@pytest.mark.parametrize(
    ("status", "burnt_on", "later", "outcome"),
    [
        ("issued", None, -1, True),
        ("issued", None, 0, VoucherExpired),
        ("burnt", RECEIPT, -1, False),
        ("burnt", RECEIPT, 1000, False),
        ("burnt", Receipt("store-2", "r1"), -1, VoucherBurnt),
        ("burnt", Receipt("store-1", "r2"), 1000, VoucherBurnt),
        ("cancelled", None, -1, VoucherCancelled),
        ("cancelled", None, 1000, VoucherCancelled),
    ],
)
def test_a_voucher_burns_once(status: str, burnt_on: Receipt | None, later: int, outcome: bool | type[Problem]) -> None:
    """`later`: seconds after the voucher's end."""
    end = datetime(2026, 12, 1, tzinfo=UTC)
    now = end + timedelta(seconds=later)
    if isinstance(outcome, bool):
        assert check_burn(status, burnt_on, end, RECEIPT, now) is outcome
        return
    with pytest.raises(outcome) as refused:
        check_burn(status, burnt_on, end, RECEIPT, now)
    if outcome is VoucherExpired:
        assert refused.value.extra == {"expires_at": "2026-12-01T00:00:00+00:00"}


KEY = PEPPER.encode()


def test_a_code_is_the_vouchers_for_ever() -> None:
    """Held to a value: a code that is out must still be found after any change of ours."""
    code = code_of(UUID("0199d3a6-b1f0-7c1e-8a52-000000000001"), KEY)
    assert code == "DJ1A-6ZMS-M5BG-F9FJ-VT2Q"
    assert hash_code("0" * 20, KEY) == "bdc8eb82873d6c9dc180d6bd742448a59fca37b52e2b20e025049a54c3d73151"


@examples
@given(st.uuids(), st.binary(min_size=32, max_size=64))
def test_a_code_reads_back_however_it_is_typed(id_: UUID, pepper: bytes) -> None:
    code = code_of(id_, pepper)
    assert [len(group) for group in code.split("-")] == [4] * 5
    symbols = read_code(code)
    assert symbols == code.replace("-", "")
    assert read_code(code.lower().replace("-", " ")) == symbols
    assert read_code(f" {code.replace('0', 'o').replace('1', 'l')}\n") == symbols
    assert read_code(code.replace("0", "O").replace("1", "i")) == symbols
    assert code_of(id_, pepper + b"x") != code


@examples
@given(st.uuids(), st.integers(0, 19), st.integers(1, 31))
def test_every_wrong_symbol_is_noticed(id_: UUID, place: int, step: int) -> None:
    symbols = code_of(id_, KEY).replace("-", "")
    wrong = ALPHABET[(ALPHABET.index(symbols[place]) + step) % 32]
    assert read_code(symbols[:place] + wrong + symbols[place + 1 :]) is None


@examples
@given(st.uuids())
def test_every_swap_of_neighbours_is_noticed(id_: UUID) -> None:
    symbols = code_of(id_, KEY).replace("-", "")
    for place, (first, second) in enumerate(pairwise(symbols)):
        swapped = symbols[:place] + second + first + symbols[place + 2 :]
        assert (read_code(swapped) is None) == (first != second)


@pytest.mark.parametrize("text", ["", "0", "0" * 19, "0" * 21, "U" * 20, "0" * 19 + "U", "é" * 20, "0" * 10_000])
def test_what_is_no_code(text: str) -> None:
    assert read_code(text) is None


def test_codes_use_every_symbol_in_every_place() -> None:
    """95 bits from the HMAC: no place is constant, no symbol is missing."""
    codes = [code_of(UUID(int=number), KEY).replace("-", "") for number in range(1000)]
    assert len(set(codes)) == 1000
    for place in range(20):
        assert {code[place] for code in codes} == set(ALPHABET)
