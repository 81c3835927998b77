"""Replaying a draft over the past: what was published, replayed, gives what was granted, to the point."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import members, programs, transactions
from app.db import Database
from app.errors import Problem
from app.ids import new_id
from app.insight.replay import Period, replay
from app.insight.rules import Totals
from app.members import Identifier, MemberRef
from app.members.service import change
from app.programs import Terms
from app.transactions.claims import Wanted
from app.transactions.models import Transaction, TransactionClaim
from app.transactions.schemas import TransactionIn, item_of
from tests.shop import TERMS, make_program, purchase, returned, voided

bodies: TypeAdapter[Any] = TypeAdapter(TransactionIn)
START = datetime(2026, 11, 1, 12, tzinfo=UTC)
ALWAYS = Period(datetime(2000, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))


def rule(code: str, gives: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"code": code, "name": code, "gives": gives} | more


FIXED = {"type": "fixed", "points": 7}
DOUBLE = {"type": "multiply", "times": 2}
RULES: dict[str, dict[str, Any]] = {
    "first": rule("first", {"type": "fixed", "points": 50}, who={"first_purchase": True}),
    "birthday": rule("birthday", DOUBLE, who={"birthday": {"days_before": 1, "days_after": 1}}),
    "students": rule("students", FIXED, who={"attributes": {"occupation": ["student"]}}, group="kind"),
    "north": rule("north", DOUBLE, who={"segments": ["north"]}, group="kind"),
    "daily": rule("daily", DOUBLE, limits=[{"per": "day", "points": 15}, {"per": "lifetime", "times": 5}]),
    "weekly": rule("weekly", FIXED, limits=[{"per": "week", "times": 1}], when={"minimum_spend": 700}),
    "rested": rule("rested", {"type": "per_item", "points": 3}, cooldown_hours=30, on={"products": ["p1"]}),
    "mondays": rule("mondays", {"type": "per_amount", "points": 1, "per": 250}, when={"weekdays": ["mon"]}, most=9),
}
FIGURES = ("granted", "taken_back", "deferred", "given_back")


def terms(*codes: str, **more: Any) -> dict[str, Any]:
    """Points stay; an expiry would only say when they go."""
    rules = [RULES[code] for code in codes]
    kind = {"stacking": {"kind": "best"}}
    return TERMS | {"expiry": None, "uploads": {"latest_days": None}, "rules": rules} | kind | more


def replayed(database: Database, program_id: UUID, draft: dict[str, Any], within: Period = ALWAYS) -> Totals:
    *_, totals = replay(database, program_id, Terms.model_validate(draft), within, ALWAYS.until)
    return totals


class History:
    """A programme with members of all sorts, and what happens there."""

    def __init__(self, database: Database, draft: dict[str, Any]) -> None:
        self.database, self.now, self.count = database, START, 0
        self.guests: list[UUID] = []
        self.receipts: list[str] = []
        self.returns: list[str] = []
        cards = [Identifier("card", f"90{number}") for number in range(3)]

        def furnish(session: Session) -> tuple[UUID, list[UUID]]:
            program_id = make_program(session, draft, START, f"p-{new_id().hex}")
            enrolled = members.enrol_unknown(session, program_id, cards[:2], START)[0]
            return program_id, [enrolled[card] for card in cards[:2]]

        self.program_id, self.members = database.write(furnish)

    def publish(self, draft: dict[str, Any]) -> datetime:
        """Other terms from a moment later on."""
        self.now += timedelta(seconds=1)

        def write(session: Session) -> None:
            made = programs.draft_terms(session, self.program_id, Terms.model_validate(draft), self.now)
            programs.publish_terms(session, self.program_id, made.version, self.now)

        self.database.write(write)
        return self.now

    def profile(self, member: int, **profile: Any) -> None:
        def write(session: Session) -> None:
            id_ = self.members[member]
            revision = members.read(session, self.program_id, id_).member.revision
            change(session, self.program_id, id_, revision, self.now, status=None, profile=profile)

        self.database.write(write)

    def post(self, *posted: dict[str, Any]) -> list[Any]:
        """A batch of a till; what is refused is let go."""
        items = [item_of(bodies.validate_python(body)) for body in posted]
        return self.database.write(lambda session: transactions.record(session, self.program_id, items, self.now))

    def bought(self, card: str | None, units: int, price: int, hours_ago: int) -> dict[str, Any]:
        """The body of a purchase; each is made in a store of its own, so that totals by store are those of each."""
        self.count += 1
        self.receipts.append(f"r{self.count}")
        total = units * price
        return purchase(
            self.receipts[-1],
            total,
            occurred_at=(self.now - timedelta(hours=hours_ago)).isoformat(),
            member=None if card is None else {"card": card},
            store=str(self.count),
            lines=[{"line": 1, "product": f"p{price % 2}", "quantity": str(units), "amount": total}],
            tenders=[{"type": "cash", "amount": total}],
        )

    def back(self, body: dict[str, Any]) -> None:
        self.count += 1
        sent = body | {"external_id": f"b{self.count}", "occurred_at": self.now.isoformat()}
        (outcome,) = self.post(sent)
        if body["type"] == "return" and not isinstance(outcome, Problem):
            self.returns.append(sent["external_id"])

    def claim(self, guest: UUID, card: str) -> None:
        wanted = Wanted(guest, MemberRef(card=card))
        with suppress(Problem):
            self.database.write(lambda session: transactions.claim(session, self.program_id, [wanted], self.now))


cards = st.sampled_from(["900", "900", "901", "902", None])
single = st.tuples(
    cards, st.integers(1, 4), st.sampled_from([0, 1, 99, 350, 700, 1201]), st.sampled_from([0, 0, 5, 40])
)
some = st.integers(0, 1000)
steps = st.one_of(
    st.tuples(st.just("buy"), st.lists(single, min_size=1, max_size=4)),
    st.tuples(st.just("wait"), st.sampled_from([1, 9, 26, 80, 200])),
    st.tuples(st.just("back"), some, st.sampled_from(["all", "unit", "amount", "void"])),
    st.tuples(st.just("unback"), some),
    st.tuples(st.just("claim"), some, st.sampled_from(["900", "901", "903"])),
    st.tuples(
        st.just("profile"),
        st.integers(0, 1),
        st.sampled_from([None, date(1990, 11, 2), date(1992, 11, 5)]),
        st.sampled_from([{}, {"occupation": "student"}]),
        st.sampled_from([[], ["north"], ["south", "north"]]),
    ),
)


def take(history: History, step: tuple[Any, ...]) -> None:
    match step:
        case "buy", bought:
            done = history.post(*(history.bought(*each) for each in bought))
            rows = [each.row for each in done if not isinstance(each, Problem)]
            history.guests += [row["id"] for row in rows if row["member_id"] is None]
        case "wait", hours:
            history.now += timedelta(hours=hours)
        case "back", which, how if history.receipts:
            receipt = history.receipts[which % len(history.receipts)]
            lines, total = [{"line": 1, "quantity": "1"}], 1 + which % 400
            history.back(
                {
                    "all": returned(of=receipt),
                    "unit": returned(of=receipt, lines=lines),
                    "amount": returned(of=receipt, total=total),
                    "void": voided(of=receipt),
                }[how]
            )
        case "unback", which if history.returns:
            history.back(voided(of=history.returns[which % len(history.returns)], type_="return"))
        case "claim", which, card if history.guests:
            history.claim(history.guests[which % len(history.guests)], card)
        case "profile", member, born_on, attributes, segments:
            history.profile(member, born_on=born_on, attributes=attributes, segments=segments)


@given(first=st.lists(steps, max_size=25), then=st.lists(steps, max_size=25), cut=st.integers(0, 400))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_what_was_published_replayed_is_what_was_granted(
    database: Database, first: list[Any], then: list[Any], cut: int
) -> None:
    """Over all the time a version was in force, and over any part of it: purchase by purchase, and rule by rule. With
    returns, claims of guests, limits, cooldowns, first purchases, birthdays, and profiles that changed since."""
    old = terms("first", "birthday", "students", "daily", "weekly", "mondays")
    new = terms("first", "birthday", "students", "north", "daily", "rested", "mondays", stacking={"kind": "priority"})
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
        totals = replayed(database, history.program_id, draft, within)
        assert (totals.refused, totals.assumed) == ({}, 0)
        assert all(each.published == each.draft for each in totals.stores.values()), totals
        assert all(each.published == each.draft for each in (totals.all, *totals.segments.values()))
        assert all(each.published == each.draft for each in totals.rules.values())
    whole = replayed(database, history.program_id, new)
    assert whole.all.published.points == points_of(database, history.program_id)


def points_of(database: Database, program_id: UUID) -> int:
    """What purchases and claims have given, by their own word."""
    own = select(func.coalesce(func.sum(Transaction.points), 0)).where(
        Transaction.program_id == program_id, Transaction.type == "purchase"
    )
    claimed = (
        select(func.coalesce(func.sum(TransactionClaim.points), 0))
        .join(Transaction, Transaction.id == TransactionClaim.transaction_id)
        .where(Transaction.program_id == program_id)
    )
    return database.read(lambda session: sum(session.execute(rows).scalar_one() for rows in (own, claimed)))
