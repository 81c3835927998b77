"""Terms: which make sense, what is refused and where, and that terms of before are still understood."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.programs import Terms
from app.programs.ends import PeriodExpiry
from tests.shop import TERMS, Shop

CARD: dict[str, Any] = {"code": "three", "name": "Three", "stamps": 3, "points_per_stamp": 1}
GIFT: dict[str, Any] = {"code": "gift", "name": "A gift", "occasion": {"type": "sign_up"}, "points": 5}

BAD_TERMS: dict[str, Any] = {
    "currency": "XAU",
    "time_zone": "Mars/Olympus",
    "prices_include_tax": "yes",
    "earning": {
        "points": -1,
        "per": "100",
        "rounding": "nearest",
        "minimum_spend": -1,
        "excluded": {"departments": [""]},
        "non_earning_tenders": ["Gift Card"],
    },
    "stamp_cards": [
        {
            "code": "Ten",
            "name": "",
            "stamps": 1,
            "points_per_stamp": 0,
            "for_each": {"type": "items", "items": 0},
            "on": {"departments": [""]},
            "when": {"weekdays": ["someday"]},
            "most_per_purchase": 1001,
            "most_per_day": 0,
            "good_for_days": 0,
        },
        {"code": "full", "name": "Full", "stamps": 5, "head_start": 5, "points_per_stamp": 1},
        {"code": "odd", "name": "Odd", "stamps": 5, "points_per_stamp": 1, "for_each": {"type": "smile"}},
    ],
    "campaigns": [
        {"code": "Gift", "name": "", "occasion": {"type": "sign_up", "days_before": 1}, "points": 0},
        {
            "code": "gift",
            "name": "Gift",
            "occasion": {"type": "birthday", "days_before": 61},
            "points": 5,
            "first_day": "2026-02-30",
            "who": {"first_purchase": True},
            "most_per_member": 0,
            "good_for_days": 0,
            "priority": -1,
        },
        {"code": "back", "name": "Back", "occasion": {"type": "win_back"}, "points": 5, "budget": 0},
        {"code": "odd", "name": "Odd", "occasion": {"type": "full_moon"}, "points": 5},
    ],
    "point_value": {"amount": 10.5},
    "redemption_rate": {"numerator": 3, "denominator": 2},
    "allocation": {"method": "guess"},
    "expiry": {"mode": "period", "months": 601, "round_up_to": "week", "warn_days": [0]},
    "pending": {"mode": "days", "days": 0},
    "points_tender": {
        "value": {"amount": 1, "points": 1},
        "step": 0,
        "largest_share": {"numerator": 3, "denominator": 2},
    },
    "returns": {"minimum_spend": "halved"},
    "holds": {"default_minutes": 10_081},
    "adjustments": {"limits": {"Duty Manager": 5000}},
    "transfers": {"minimum": 10, "most_at_once": 9},
    "pools": {"most_members": 1},
    "posting_profile": "none",
    "enrolment": {"identifiers": [], "phone_region": "ZZ"},
    "uploads": {"future_minutes": True},
    "double_points_on_sundays": True,
}
MISTAKES = {
    "#/currency",
    "#/time_zone",
    "#/prices_include_tax",
    "#/earning/points",
    "#/earning/per",
    "#/earning/rounding",
    "#/earning/minimum_spend",
    "#/earning/excluded/departments/0",
    "#/earning/non_earning_tenders/0",
    "#/stamp_cards/0/code",
    "#/stamp_cards/0/name",
    "#/stamp_cards/0/stamps",
    "#/stamp_cards/0/points_per_stamp",
    "#/stamp_cards/0/for_each/items",
    "#/stamp_cards/0/on/departments/0",
    "#/stamp_cards/0/when/weekdays/0",
    "#/stamp_cards/0/most_per_purchase",
    "#/stamp_cards/0/most_per_day",
    "#/stamp_cards/0/good_for_days",
    "#/stamp_cards/1",
    "#/stamp_cards/2/for_each/type",
    "#/campaigns/0/code",
    "#/campaigns/0/name",
    "#/campaigns/0/occasion/days_before",
    "#/campaigns/0/points",
    "#/campaigns/1/occasion/days_before",
    "#/campaigns/1/first_day",
    "#/campaigns/1/who/first_purchase",
    "#/campaigns/1/most_per_member",
    "#/campaigns/1/good_for_days",
    "#/campaigns/1/priority",
    "#/campaigns/2/occasion/after_days",
    "#/campaigns/2/budget",
    "#/campaigns/3/occasion/type",
    "#/point_value/amount",
    "#/point_value/points",
    "#/redemption_rate",
    "#/allocation/method",
    "#/expiry/months",
    "#/expiry/round_up_to",
    "#/expiry/warn_days/0",
    "#/pending/days",
    "#/points_tender/step",
    "#/points_tender/largest_share",
    "#/returns/minimum_spend",
    "#/holds",
    "#/adjustments/limits/Duty Manager",
    "#/transfers",
    "#/pools/most_members",
    "#/posting_profile",
    "#/enrolment/identifiers",
    "#/enrolment/phone_region",
    "#/uploads/future_minutes",
    "#/double_points_on_sundays",
}


def test_bad_terms_are_refused_with_every_finding_at_once(shop: Shop) -> None:
    """Whoever writes terms corrects them once, not once per mistake; and nothing is drafted meanwhile."""
    path = f"/v1/programs/{shop.program_id}/terms"
    answer = shop.http.post(path, json=BAD_TERMS, headers={"Idempotency-Key": "bad-terms"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_request"
    found = [error["pointer"] for error in answer.json()["errors"]]
    assert sorted(found) == sorted(MISTAKES)
    assert len(shop.get(path)["items"]) == 1


def test_good_terms_are_drafted_as_they_were_sent(shop: Shop) -> None:
    """Every field that the bad terms get wrong, right."""
    good = {
        "currency": "KWD",
        "time_zone": "Asia/Kuwait",
        "prices_include_tax": False,
        "earning": {
            "points": 1,
            "per": 100,
            "rounding": "half_even",
            "minimum_spend": 1,
            "earn_on_tax": False,
            "excluded": {"departments": ["Gift cards"], "categories": [], "products": []},
            "non_earning_tenders": ["gift_card"],
        },
        "stamp_cards": [
            {
                "code": "ten",
                "name": "Ten",
                "stamps": 10,
                "head_start": 2,
                "points_per_stamp": 50,
                "for_each": {"type": "items", "items": 2},
                "on": {"departments": ["Coffee"], "categories": [], "products": []},
                "excluded": {"departments": [], "categories": [], "products": ["p1"]},
                "when": {
                    "first_day": "2026-12-01",
                    "last_day": None,
                    "weekdays": ["mon"],
                    "hours": {"begin": "06:00", "end": "11:00"},
                    "stores": ["1"],
                    "channels": [],
                    "tenders": [],
                    "minimum_spend": 1,
                    "minimum_quantity": 1,
                },
                "who": {
                    "attributes": {},
                    "segments": ["north"],
                    "first_purchase": False,
                    "birthday": None,
                    "tiers": [],
                    "clubs": [],
                },
                "most_per_purchase": 5,
                "most_per_day": 5,
                "good_for_days": 30,
            }
        ],
        "campaigns": [
            {
                "code": "gift",
                "name": "A gift",
                "occasion": {"type": "win_back", "after_days": 30, "again_after_days": 60},
                "points": 5,
                "who": {"attributes": {"occupation": ["student"]}, "segments": ["north"], "tiers": []},
                "first_day": "2026-12-01",
                "last_day": "2026-12-31",
                "budget": 5,
                "most_per_member": 1,
                "good_for_days": 30,
                "group": "gifts",
                "priority": 1,
            }
        ],
        "point_value": {"amount": 10, "points": 3},
        "redemption_rate": {"numerator": 2, "denominator": 3},
        "allocation": {"method": "residual", "rounding": "half_up"},
        "expiry": {
            "existing_points": "never",
            "warn_days": [60, 7],
            "months": 600,
            "days": None,
            "round_up_to": "half_year",
            "mode": "period",
        },
        "pending": {"mode": "event", "event": "shipped", "cancel_after_days": 60},
        "point_cost": {"amount": 8, "points": 3},
        "points_tender": {
            "value": {"amount": 10, "points": 3},
            "minimum": 300,
            "step": 3,
            "largest_share": {"numerator": 1, "denominator": 2},
        },
        "posting_profile": "full",
        "returns": {
            "points_already_spent": "withhold",
            "debt_limit": 500,
            "without_receipt": "accept",
            "without_receipt_limit": 100,
            "expired_meanwhile": "new_lot",
            "grace_days": 30,
            "minimum_spend": "kept",
            "withhold_value": {"amount": 1, "points": 1},
            "waiting_alarm_days": 3,
        },
        "holds": {"default_minutes": 10, "longest_minutes": 60},
        "adjustments": {"limit": 0, "limits": {"duty_manager": 5000}, "concession_needs_consent": False},
        "transfers": {"minimum": 10, "most_at_once": 100, "most_per_day": None},
        "pools": {"most_members": 4},
        "enrolment": {"automatic": False, "identifiers": ["phone"], "phone_region": "KW"},
        "uploads": {"latest_days": None, "future_minutes": 0, "largest_total": 1},
    }
    path = f"/v1/programs/{shop.program_id}/terms"
    answer = shop.http.post(path, json=good, headers={"Idempotency-Key": "good-terms"})
    assert answer.status_code == 201, answer.text
    kept = shop.get(f"{path}/{answer.json()['version']}")["terms"]
    assert kept == answer.json()["terms"]
    assert {name: kept[name] for name in good} == good


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"currency": "usd"}, "#/currency"),
        ({"currency": "XXX"}, "#/currency"),
        ({"time_zone": "America/Nowhere"}, "#/time_zone"),
        ({"time_zone": "../../etc/passwd"}, "#/time_zone"),
        ({"time_zone": "EST5EDT4"}, "#/time_zone"),
        ({"time_zone": "localtime"}, "#/time_zone"),
        ({"redemption_rate": {"numerator": 0, "denominator": 3}}, "#/redemption_rate/numerator"),
        ({"redemption_rate": {"numerator": 1, "denominator": 0}}, "#/redemption_rate/denominator"),
        ({"redemption_rate": 0.6667}, "#/redemption_rate"),
        ({"point_value": {"amount": 0, "points": 1000}}, "#/point_value/amount"),
        ({"point_value": {"amount": 1, "points": 0}}, "#/point_value/points"),
        ({"earning": {"points": 1, "per": 0}}, "#/earning/per"),
        ({"earning": {"points": True, "per": 100}}, "#/earning/points"),
        ({"expiry": {"months": 0}}, "#/expiry/months"),
        ({"expiry": {}}, "#/expiry"),
        ({"expiry": {"months": 12, "days": 365}}, "#/expiry"),
        ({"expiry": {"days": 18_251}}, "#/expiry/days"),
        ({"expiry": {"mode": ["period"], "months": 12}}, "#/expiry/mode"),
        ({"expiry": {"mode": None, "months": 12}}, "#/expiry/mode"),
        ({"expiry": [12]}, "#/expiry"),
        ({"expiry": {"months": 12, "dates": ["12-31"]}}, "#/expiry/dates"),
        ({"expiry": {"months": 12, "warn_days": [367]}}, "#/expiry/warn_days/0"),
        ({"expiry": {"months": 12, "warn_days": [1, 2, 3, 4, 5, 6]}}, "#/expiry/warn_days"),
        ({"expiry": {"mode": "fixed_dates", "dates": []}}, "#/expiry/dates"),
        ({"expiry": {"mode": "fixed_dates", "dates": ["12-31", "02-30"]}}, "#/expiry/dates/1"),
        ({"expiry": {"mode": "fixed_dates", "dates": ["04-31"]}}, "#/expiry/dates/0"),
        ({"expiry": {"mode": "fixed_dates", "dates": ["31-12"]}}, "#/expiry/dates/0"),
        ({"expiry": {"mode": "fixed_dates", "dates": ["12-31", "12-31"]}}, "#/expiry/dates"),
        ({"expiry": {"mode": "fixed_dates", "dates": ["12-31"], "at_least_days": -1}}, "#/expiry/at_least_days"),
        ({"expiry": {"mode": "inactivity"}}, "#/expiry"),
        ({"expiry": {"mode": "inactivity", "months": 6, "activities": []}}, "#/expiry/activities"),
        ({"expiry": {"mode": "inactivity", "months": 6, "activities": ["login"]}}, "#/expiry/activities/0"),
        ({"pending": {"mode": "days"}}, "#/pending/days"),
        ({"pending": {"days": 14}}, "#/pending/mode"),
        ({"pending": 14}, "#/pending"),
        ({"pending": {"mode": "event", "event": "shipped"}}, "#/pending/cancel_after_days"),
        ({"pending": {"mode": "event", "event": "Has Shipped", "cancel_after_days": 1}}, "#/pending/event"),
        ({"expiry": {"days": 13}, "pending": {"mode": "days", "days": 14}}, "#/pending"),
        ({"expiry": {"months": 1}, "pending": {"mode": "days", "days": 29}}, "#/pending"),
        (
            {
                "expiry": {"mode": "fixed_dates", "dates": ["12-31"], "at_least_days": 13},
                "pending": {"mode": "event", "event": "shipped", "cancel_after_days": 14},
            },
            "#/pending",
        ),
        ({"points_tender": {}}, "#/points_tender/value"),
        ({"point_cost": {"amount": 0, "points": 1}}, "#/point_cost/amount"),
        ({"returns": {"waiting_alarm_days": 0}}, "#/returns/waiting_alarm_days"),
        ({"holds": {"longest_minutes": 1439}}, "#/holds"),
        ({"adjustments": {"limits": {"clerk": -1}}}, "#/adjustments/limits/clerk"),
        ({"transfers": {"minimum": 10, "most_per_day": 9}}, "#/transfers"),
        ({"campaigns": [GIFT, GIFT]}, "#/campaigns/1/code"),
        ({"campaigns": [GIFT | {"budget": 4}]}, "#/campaigns/0"),
        ({"campaigns": [GIFT | {"first_day": "2026-12-02", "last_day": "2026-12-01"}]}, "#/campaigns/0"),
        ({"campaigns": [GIFT | {"occasion": "sign_up"}]}, "#/campaigns/0/occasion"),
        ({"earning": None}, "#/earning"),
        ({"stamp_cards": [CARD, CARD]}, "#/stamp_cards/1/code"),
        ({"stamp_cards": [CARD | {"head_start": 3}]}, "#/stamp_cards/0"),
        ({"stamp_cards": [CARD | {"for_each": "visit"}]}, "#/stamp_cards/0/for_each"),
        ({"stamp_cards": [CARD | {"stamps": 101}]}, "#/stamp_cards/0/stamps"),
        ({"stamp_cards": [CARD | {"who": {"tiers": ["gold"]}}]}, "#/stamp_cards/0/who/tiers/0"),
        ({"stamp_cards": [CARD | {"code": f"c{number}"} for number in range(21)]}, "#/stamp_cards"),
    ],
)
def test_terms_that_make_no_sense(change: dict[str, Any], pointer: str) -> None:
    """One mistake alone is one finding, at its place."""
    with pytest.raises(ValidationError) as refused:
        Terms.model_validate(TERMS | change)
    assert ["#" + "".join(f"/{step}" for step in error["loc"]) for error in refused.value.errors()] == [pointer]


BEFORE: dict[str, Any] = {
    "currency": "USD",
    "time_zone": "America/New_York",
    "prices_include_tax": True,
    "earning": {
        "points": 1,
        "per": 100,
        "rounding": "down",
        "minimum_spend": 0,
        "earn_on_tax": True,
        "excluded": {"departments": [], "categories": [], "products": []},
        "non_earning_tenders": ["points", "gift_card", "store_credit"],
    },
    "point_value": {"amount": 1000, "points": 1000},
    "redemption_rate": {"numerator": 4, "denominator": 5},
    "allocation": {"method": "relative", "rounding": "half_even"},
    "expiry": {"months": 12, "round_up_to": "month"},
    "posting_profile": "adjustment",
    "returns": {
        "points_already_spent": "debt",
        "debt_limit": None,
        "without_receipt": "refuse",
        "without_receipt_limit": 0,
        "expired_meanwhile": "grace_days",
        "grace_days": 14,
    },
    "enrolment": {"automatic": True, "identifiers": ["card"], "phone_region": None},
    "uploads": {"latest_days": 45, "future_minutes": 10, "largest_total": 10**10},
}
"""A version as it was stored before terms spoke of pending points, tenders, holds, adjustments and transfers."""


def test_terms_of_before_keep_their_meaning() -> None:
    """They say nothing of what they did not know: nothing is pending, tendered or given away because of it."""
    read = Terms.model_validate(BEFORE)
    assert read.expiry == PeriodExpiry(months=12, round_up_to="month")
    assert (read.pending, read.points_tender, read.transfers, read.pools) == (None, None, None, None)
    assert read.returns.minimum_spend == "lost"
    kept = read.model_dump(mode="json")
    assert {name: kept[name] for name in BEFORE.keys() - {"expiry", "returns"}} == {
        name: BEFORE[name] for name in BEFORE.keys() - {"expiry", "returns"}
    }
    for part in ("expiry", "returns"):
        assert kept[part].items() >= BEFORE[part].items()


@pytest.mark.parametrize(
    "change",
    [
        {"expiry": None},
        {"expiry": {"months": 1}},
        {"expiry": {"days": 90, "round_up_to": "day"}},
        {"expiry": {"mode": "period", "months": 1, "warn_days": []}},
        {"expiry": {"mode": "fixed_dates", "dates": ["02-29", "12-31"], "at_least_days": 60}},
        {"expiry": {"mode": "inactivity", "months": 18}},
        {"expiry": {"mode": "inactivity", "days": 400, "activities": ["transfer", "adjustment"]}},
        {"pending": {"mode": "days", "days": 14}},
        {"pending": {"mode": "event", "event": "stay_completed", "cancel_after_days": 366}, "expiry": None},
        {"expiry": {"days": 14}, "pending": {"mode": "days", "days": 14}},
        {"expiry": {"months": 1}, "pending": {"mode": "days", "days": 28}},
        {"points_tender": {"value": {"amount": 2, "points": 1}}},
        {"transfers": {}, "pools": {}},
        {"transfers": {"minimum": 10, "most_at_once": 10, "most_per_day": 10}},
    ],
)
def test_terms_are_read_back_as_they_were_stored(change: dict[str, Any]) -> None:
    """Whatever is chosen: the stored document is the same value again."""
    chosen = Terms.model_validate(TERMS | change)
    assert Terms.model_validate(chosen.model_dump(mode="json")) == chosen
