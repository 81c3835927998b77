"""What the database refuses of memberships, whatever the service decides."""

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DatabaseError

from app import schema
from app.clubs.models import ClubMembership
from app.ids import new_id
from app.worker import run_jobs
from tests.clubs import ask, buy, clubs, forward_to, pay
from tests.shop import Shop

__all__ = ["clubs"]  # a fixture


REFUSED = {
    "why": "why = 'whim', fee = 0, tax = 0, deferred = 0, source = NULL, external_id = NULL",
    "club_not_empty": "club = ''",
    "ended_why": "ended_why = 'whim', ended_at = recorded_at",
    "ended_has_when": "ended_at = recorded_at",
    "lasts": "until_at = begins_at, ends_at = begins_at",
    "agreed_has_end": "until_at = NULL",
    "ends_in_time": "ends_at = recorded_at, begins_at = until_at, until_at = NULL, why = 'purchase', fee = 0, tax = 0, "
    "deferred = 0, recognised = 0, source = NULL, external_id = NULL",
    "ends_when_agreed": "ends_at = NULL",
    "promise_says_how_much": "promised = 1",
    "fee_positive": "fee = 0, tax = 0, deferred = 0, recognised = 0",
    "fee_has_receipt": "external_id = NULL",
    "deferred_within_fee": "tax = fee",
    "points_not_negative": "points = -1",
    "left_not_negative": "recognised = deferred, refunded = 1",
    "passed_within_months": "passed = 13",
    "warned_in_time": "warn_at = begins_at",
    "what_is_left_is_due": "earns_at = NULL",
}


def test_a_fee_that_was_earned_stops_the_way_back(clubs: Shop) -> None:
    """The older journal has no such cause."""
    pay(clubs)
    forward_to(clubs, "2026-12-22T05:00:00+00:00")
    run_jobs(clubs.database, clubs.clock())
    with pytest.raises(DatabaseError, match=r"(?i)check"):
        schema.migrate(clubs.database, "base")
    schema.migrate(clubs.database)  # what went back before it was stopped


@pytest.mark.parametrize("name", REFUSED)
def test_the_database_refuses(clubs: Shop, name: str) -> None:
    pay(clubs)
    with clubs.database.engine.connect() as connection:
        _without_facts(connection)
        with pytest.raises(DatabaseError, match=f"ck_club_membership_{name}"):
            connection.execute(text(f"UPDATE club_membership SET {REFUSED[name]}"))
        connection.rollback()


def test_the_database_refuses_a_promise_of_nothing(clubs: Shop) -> None:
    ask(clubs, "regulars", {})
    with clubs.database.engine.connect() as connection:
        _without_facts(connection)
        with pytest.raises(DatabaseError, match="promised_positive"):
            connection.execute(text("UPDATE club_membership SET promised = 0"))
        connection.rollback()


def _without_facts(connection: Connection) -> None:
    """Lets facts be changed, so that what else refuses a statement shows."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("DROP TRIGGER club_membership_facts ON club_membership"))
    else:
        connection.execute(text("DROP TRIGGER club_membership_facts"))


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("UPDATE club_membership SET fee = fee + 1", "append-only"),
        ("UPDATE club_membership SET begins_at = recorded_at", "append-only"),
        ("DELETE FROM club_membership", "append-only"),
        ("UPDATE club_credit SET spend = spend + 1", "append-only"),
        ("DELETE FROM club_credit", "append-only"),
        ("INSERT INTO club_credit SELECT membership_id, program_id, 0, recorded_at FROM OTHER", "counts_something"),
    ],
)
def test_facts_stay(clubs: Shop, statement: str, match: str) -> None:
    ask(clubs, "regulars", {})
    buy(clubs, "r1", 100)
    statement = statement.replace("SELECT membership_id, program_id", "SELECT id, program_id")
    statement = statement.replace("OTHER", "club_membership")
    with clubs.database.engine.connect() as connection:
        with pytest.raises(DatabaseError, match=match):
            connection.execute(text(statement))
        connection.rollback()


def test_two_open_memberships_cannot_be_written(clubs: Shop) -> None:
    """Whatever the service decides: one that nobody has ended per member and club, and one that follows another."""
    pay(clubs)
    table = ClubMembership.__table__
    columns = [column.name for column in table.columns]
    for changes in ({"follows_id": None}, {"external_id": "f1", "club": "other"}):
        with clubs.database.engine.connect() as connection:
            row = dict(connection.execute(select(*table.columns)).mappings().one())
            new = row | {"id": new_id(), "document_id": new_id(), "external_id": "f9"} | changes
            with pytest.raises(DatabaseError, match=r"(?i)unique|has that row"):
                connection.execute(insert(ClubMembership).values({name: new[name] for name in columns}))
            connection.rollback()
