"""Wrong stamps cannot be written: as in `test_guards`, each is tried with its guard and without."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError

from tests.conftest import settings_for
from tests.shop import Shop, TestClock, open_shop, returned
from tests.test_guards import NEW_ID, check, check_guard, trigger
from tests.test_reward_guards import same
from tests.test_stamps import CAFE, drink
from tests.test_tier_guards import another

OTHER_ID = NEW_ID.replace("1'", "2'")
FACTS = "program_id member_id code number terms_id size head_start head_start_points begun_by begun_at ends_at"


def stamp(**changes: str) -> str:
    return another("stamp", **{"id": NEW_ID} | changes)


def card(**changes: str) -> str:
    return another("stamp_card", **{"id": NEW_ID, "number": "number + 10"} | changes)


ATTEMPTS = [
    trigger("stamp", "update", "UPDATE stamp SET stamps = stamps * 2"),
    trigger("stamp", "delete", "DELETE FROM stamp"),
    check("stamp", "stamps_are_points", stamp(stamps="0", of_id="id")),
    check("stamp", "stamps_are_points", stamp(stamps="1", points="-50")),
    check("stamp", "stamps_are_points", stamp(stamps="1", points="0")),
    check("stamp", "comes_off_what_was_put_there", stamp(stamps="-1", points="-50", of_id="NULL")),
    check("stamp_card", "number_positive", card(number="0")),
    check("stamp_card", "head_start_fills_no_card", card(head_start="size", stamps="size", full_at="stamped_at")),
    check("stamp_card", "head_start_has_points", card(head_start="1", head_start_points="0")),
    check("stamp_card", "head_start_has_points", card(head_start="0", head_start_points="5")),
    check("stamp_card", "begins_before_it_ends", card(ends_at="begun_at")),
    check("stamp_card", "stamps_within_size", "UPDATE stamp_card SET stamps = size + 1, full_at = NULL"),
    check("stamp_card", "stamps_within_size", "UPDATE stamp_card SET stamps = head_start - 1, full_at = NULL"),
    check("stamp_card", "full_with_all_stamps", "UPDATE stamp_card SET stamps = size WHERE full_at IS NULL"),
    check("stamp_card", "full_with_all_stamps", "UPDATE stamp_card SET full_at = stamped_at WHERE full_at IS NULL"),
    check("stamp_card", "begun_by_its_first_stamp", "UPDATE stamp_card SET stamped_at = '2020-01-01'"),
    *(same("stamp_card", "facts", f"UPDATE stamp_card SET {fact} = {fact}") for fact in FACTS.split()),
    same("stamp_card", "kept", "DELETE FROM stamp_card WHERE id NOT IN (SELECT card_id FROM stamp)"),
]


@pytest.fixture
def stocked(database_url: str, clock: TestClock) -> Iterator[Shop]:
    """A full card, one that has lost a stamp again, and one without any."""
    with open_shop(settings_for(database_url), clock, CAFE) as shop:
        drink(shop, 10)
        shop.post(returned(lines=[{"line": 1, "quantity": "1"}]))
        with shop.database.engine.begin() as connection:
            connection.execute(text(as_written(connection, card(id=OTHER_ID, number="number + 20"))))
        yield shop


def as_written(connection: Connection, statement: str) -> str:
    """With ids as each engine writes them."""
    ids = (NEW_ID, OTHER_ID) if connection.dialect.name == "sqlite" else ()
    for id_ in ids:
        statement = statement.replace(id_, id_.replace("-", ""))
    return statement


def test_each_guard_refuses_and_nothing_else_does(stocked: Shop) -> None:
    for wrong in ATTEMPTS:
        check_guard(stocked.database.engine, wrong)


def test_a_number_of_a_member_s_cards_is_given_once(stocked: Shop) -> None:
    with stocked.database.engine.connect() as connection:
        statement = as_written(connection, card(number="number"))
        with pytest.raises(DatabaseError, match=r"(?i)unique|has that row"):
            connection.execute(text(statement))
