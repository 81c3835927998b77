"""Who is due for what, and who gets it: tables of cases, without a database."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.campaigns import rounds
from app.campaigns.rules import Bonus, Due, Given, Known, Round, Window, decide, due
from app.members import Person
from app.programs import Anniversary, Birthday, Customer, Terms, Timeline, Version, WinBack
from tests.shop import TERMS

SINCE = datetime(2000, 1, 1, tzinfo=UTC)
ANN, BOB = UUID(int=1), UUID(int=2)
GIFT: dict[str, Any] = {"code": "gift", "name": "Gift", "occasion": {"type": "sign_up"}, "points": 10}


def day(text: str) -> date:
    return date.fromisoformat(text)


# --- days -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("born_on", "days_before", "first", "last", "expected"),
    [
        ("1990-11-24", 0, "2026-11-24", "2026-11-24", ["2026 2026-11-24"]),
        ("1990-11-24", 0, "2026-11-25", "2027-11-23", []),
        ("1990-11-24", 0, "2026-01-01", "2028-12-31", ["2026 2026-11-24", "2027 2027-11-24", "2028 2028-11-24"]),
        ("1992-02-29", 0, "2027-01-01", "2028-12-31", ["2027 2027-02-28", "2028 2028-02-29"]),
        ("1992-02-29", 1, "2027-01-01", "2028-12-31", ["2027 2027-02-27", "2028 2028-02-28"]),
        ("1990-01-03", 7, "2026-12-01", "2026-12-31", ["2027 2026-12-27"]),
        ("1990-03-01", 60, "2028-01-01", "2028-01-01", ["2028 2028-01-01"]),
        ("2026-11-24", 0, "2026-01-01", "2027-12-31", ["2027 2027-11-24"]),
        ("2030-05-05", 0, "2026-01-01", "2026-12-31", []),
        ("1990-12-31", 0, "9999-01-01", "9999-12-31", ["9999 9999-12-31"]),
    ],
)
def test_birthdays(born_on: str, days_before: int, first: str, last: str, expected: list[str]) -> None:
    found = Birthday(type="birthday", days_before=days_before).days(day(born_on), day(first), day(last))
    assert [f"{key} {on}" for key, on in found] == expected


@pytest.mark.parametrize(
    ("joined_on", "first", "last", "expected"),
    [
        ("2026-11-22", "2026-11-22", "2027-11-21", []),
        ("2026-11-22", "2026-11-22", "2028-11-22", ["2027 2027-11-22", "2028 2028-11-22"]),
        ("2024-02-29", "2024-02-29", "2026-03-01", ["2025 2025-02-28", "2026 2026-02-28"]),
    ],
)
def test_anniversaries(joined_on: str, first: str, last: str, expected: list[str]) -> None:
    found = Anniversary(type="anniversary").days(day(joined_on), day(first), day(last))
    assert [f"{key} {on}" for key, on in found] == expected


@pytest.mark.parametrize(
    ("first", "last", "falls"), [("2026-12-22", "2026-12-22", True), ("2026-12-23", "2027-01-01", False)]
)
def test_days_of_absence(first: str, last: str, falls: bool) -> None:
    found = list(WinBack(type="win_back", after_days=30).days(day("2026-11-22"), day(first), day(last)))
    assert found == ([("2026-11-22", day("2026-12-22"))] if falls else [])


# --- who is due -----------------------------------------------------------------------------------------------------


def promised(*versions: tuple[datetime, list[dict[str, Any]]], zone: str = "UTC") -> Timeline:
    """Terms with campaigns, each version from an instant on."""
    return Timeline(
        tuple(
            Version(
                UUID(int=number), number, at, Terms.model_validate(TERMS | {"time_zone": zone, "campaigns": offered})
            )
            for number, (at, offered) in enumerate(versions, 1)
        )
    )


def walk(terms: Timeline, as_of: datetime, since: datetime | None = None) -> list[Round]:
    return rounds(terms, since, as_of)


def person(joined: datetime = SINCE, status: str = "active", **profile: Any) -> Known:
    return Known(Person(ANN, status, joined, Customer(False, **profile)))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def falls(known: Known, round_: Round) -> list[str]:
    return [f"{each.window.campaign.code} {each.at:%Y-%m-%dT%H}" for each in due(known, round_)]


def test_members_join_by_the_terms_of_that_instant() -> None:
    terms = promised((at("2026-11-01T12:00"), [GIFT]), (at("2026-11-10T12:00"), []))
    (round_,) = walk(terms, at("2026-12-01"))
    assert falls(person(at("2026-11-01T11:00")), round_) == []
    assert falls(person(at("2026-11-01T12:00")), round_) == ["gift 2026-11-01T12"]
    assert falls(person(at("2026-11-10T11:00")), round_) == ["gift 2026-11-10T11"]
    assert falls(person(at("2026-11-10T12:00")), round_) == []


def test_who_joined_on_their_birthday_had_none_as_a_member() -> None:
    terms = promised((SINCE, [GIFT | {"occasion": {"type": "birthday"}}]))
    (round_,) = walk(terms, at("2026-12-01"))
    assert falls(person(at("2026-11-24T00:00"), born_on=day("1990-11-24")), round_) == ["gift 2026-11-24T00"]
    assert falls(person(at("2026-11-24T00:01"), born_on=day("1990-11-24")), round_) == []
    assert falls(person(at("2026-11-01T00:00")), round_) == [], "nobody knows when it is"


@pytest.mark.parametrize(
    ("since", "as_of", "walks"),
    [
        ("2026-11-22T10:00", "2026-11-22T11:00", False),
        ("2026-11-22T23:59", "2026-11-23T00:00", True),
        ("2026-11-21T10:00", "2026-11-22T10:00", True),
    ],
)
def test_days_are_looked_at_when_one_has_begun(since: str, as_of: str, walks: bool) -> None:
    terms = promised((SINCE, [GIFT | {"occasion": {"type": "anniversary"}}]))
    assert bool(walk(terms, at(as_of), at(since))) == walks


def test_campaigns_that_are_over_are_not_walked_for() -> None:
    days = GIFT | {"occasion": {"type": "anniversary"}, "last_day": "2026-11-20"}
    gone = promised((SINCE, [GIFT]), (at("2026-11-20"), []))
    assert walk(promised((SINCE, [days])), at("2026-11-23"), at("2026-11-21T10:00")) == []
    assert walk(gone, at("2026-11-23"), at("2026-11-21T10:00")) == []
    assert len(walk(gone, at("2026-11-23"), at("2026-11-20T00:05"))) == 1, "somebody may just have joined"
    assert walk(promised((at("2026-12-01"), [GIFT])), at("2026-11-23")) == [], "not yet"
    assert walk(Timeline(()), at("2026-11-23")) == []


def test_the_last_day_of_all_ends() -> None:
    terms = promised((SINCE, [GIFT | {"last_day": "9999-12-31"}]))
    (round_,) = walk(terms, at("2026-12-01"))
    assert falls(person(at("2026-11-24")), round_) == ["gift 2026-11-24T00"]


# --- who gets it ----------------------------------------------------------------------------------------------------


def occasions(offered: Sequence[dict[str, Any]], *falling: tuple[str, UUID, str]) -> list[Due]:
    """Occasions that fall: of which campaign, of which member, on which day."""
    terms = promised((SINCE, list(offered)))
    windows = {
        campaign.code: Window(terms.versions[0], campaign, place, None)
        for place, campaign in enumerate(terms.versions[0].terms.campaigns)
    }
    return [Due(windows[code], member, f"{code} {on}", at(on)) for code, member, on in falling]


def got(bonuses: Sequence[Bonus]) -> list[tuple[str, UUID, int]]:
    return [(bonus.campaign, bonus.member_id, bonus.points) for bonus in bonuses]


A, B = GIFT | {"code": "a", "group": "g"}, GIFT | {"code": "b", "group": "g", "points": 7}


@pytest.mark.parametrize(
    ("offered", "before", "expected"),
    [
        ([A, B], [], ["a"]),
        ([B, A], [], ["b"]),
        ([A, B | {"priority": 99}], [], ["b"]),
        ([A, B | {"group": None}], [], ["a", "b"]),
        ([A, B | {"group": "other"}], [], ["a", "b"]),
        ([A | {"budget": 10}, B], [("x", ANN, "x 1", "2026-11-21")], ["a"]),
        ([A, B], [("b", ANN, "b 2026-11-01", "2026-11-22")], []),
        ([A, B], [("b", ANN, "b 2026-11-01", "2026-11-21")], ["a"]),
        ([A, B], [("b", BOB, "b 2026-11-01", "2026-11-22")], ["a"]),
        ([A, B], [("a", ANN, "a 2026-11-22", "2026-11-22")], []),
    ],
)
def test_of_one_group_on_one_day_one_stands(
    offered: list[dict[str, Any]], before: list[tuple[str, UUID, str, str]], expected: list[str]
) -> None:
    falling = occasions(offered, ("a", ANN, "2026-11-22"), ("b", ANN, "2026-11-22"))
    past = [Given(code, member, key, day(on)) for code, member, key, on in before]
    assert [bonus.campaign for bonus in decide(falling, past, {})] == expected


def test_a_campaign_whose_budget_is_used_up_stands_in_nobodys_way() -> None:
    falling = occasions([A | {"budget": 10}, B], ("a", ANN, "2026-11-22"), ("b", ANN, "2026-11-22"))
    assert got(decide(falling, [], {"a": 1})) == [("b", ANN, 7)]


@pytest.mark.parametrize(("spent", "members"), [(0, [BOB, ANN]), (79, [BOB, ANN]), (81, [BOB]), (91, [])])
def test_a_budget_goes_to_whoever_was_first(spent: int, members: list[UUID]) -> None:
    falling = occasions([GIFT | {"budget": 100}], ("gift", ANN, "2026-11-23"), ("gift", BOB, "2026-11-22"))
    assert [member for _, member, _ in got(decide(falling, [], {"gift": spent}))] == members


def test_most_per_member_counts_what_was_before() -> None:
    falling = occasions([GIFT | {"most_per_member": 2}], ("gift", ANN, "2026-11-22"), ("gift", ANN, "2026-11-23"))
    past = [Given("gift", ANN, "earlier", day("2020-01-01"))]
    assert len(decide(falling, [], {})) == 2
    assert len(decide(falling, past, {})) == 1
    assert len(decide(falling, [replace(past[0], member_id=BOB)], {})) == 2


@pytest.mark.parametrize(("days", "expected"), [(364, 0), (365, 1)])
def test_nobody_is_asked_back_too_often(days: int, expected: int) -> None:
    offered = GIFT | {"occasion": {"type": "win_back", "after_days": 1}}
    last = day("2026-11-22") - timedelta(days=days)
    falling = occasions([offered], ("gift", ANN, "2026-11-22"))
    assert len(decide(falling, [Given("gift", ANN, "earlier", last)], {})) == expected
