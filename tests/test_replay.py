"""Replaying a draft over the past: what was published, replayed, gives what was granted, to the point."""

import json
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import permutations
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import blueprints, members, programs, transactions
from app.baskets import batches, purchase_body, read_baskets
from app.db import Database
from app.demo import EXAMPLES, SAMPLE
from app.errors import Problem
from app.ids import new_id
from app.insight.moves import in_turn
from app.insight.replaying import Period, PeriodInvalid, period, replay
from app.insight.rules import Totals, at_once, in_order
from app.members import Identifier, MemberRef
from app.members.service import change
from app.programs import Terms
from app.transactions.claims import Wanted
from app.transactions.models import Transaction, TransactionClaim
from app.transactions.schemas import PurchaseIn, TransactionIn, basket_of, item_of
from tests.shop import TERMS, Shop, make_program, purchase, returned, voided

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
    "shared": rule("shared", {"type": "per_amount", "points": 1, "per": 50}, budget=130),
    "scarce": rule("scarce", FIXED, budget=40, limits=[{"per": "week", "times": 2}], on={"products": ["p2"]}),
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
    returns, claims of guests, limits, budgets, cooldowns, first purchases, birthdays, and profiles that changed since.
    """
    old = terms("first", "birthday", "students", "daily", "weekly", "shared", "scarce", "mondays")
    codes = ("first", "birthday", "students", "north", "daily", "rested", "shared", "mondays")
    new = terms(*codes, stacking={"kind": "priority"})
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


def test_a_return_that_did_not_happen_gives_back_what_it_took_though_the_rest_came_back_since(
    database: Database,
) -> None:
    old = terms("mondays")
    history = History(database, old)
    history.post(history.bought("900", 1, 8_500, 0))
    history.back(returned(of="r1", total=400))
    history.back(returned(of="r1"))
    history.back(voided(of=history.returns[0], type_="return"))
    totals = replayed(database, history.program_id, old)
    assert totals.all.published == totals.all.draft
    assert (totals.all.draft.points, totals.all.draft.taken_back) == (85, 81)


def test_what_came_back_in_one_batch_is_replayed_in_its_order(shop: Shop) -> None:
    """All of it, that voided, and all of it again: not the second return before the void."""
    shop.batch([purchase("p", 10_000), returned("b1", "p"), voided("v1", "b1", "return"), returned("b2", "p")])
    shop.clock.forward(seconds=1)
    totals = replayed(shop.database, shop.program_id, TERMS)
    assert totals.all.published == totals.all.draft
    assert (totals.all.draft.points, totals.all.draft.taken_back) == (100, 100)


def test_what_came_back_is_put_in_an_order_in_which_it_can_have() -> None:
    """Two servers' clocks may number a return before the void that made room for it."""
    bought = basket_of(PurchaseIn.model_validate(purchase("p", 1000)))
    (line,) = bought.lines
    outcome = {"figures": {}, "lines": {line.number: str(line.quantity)}, "amount": 0}
    none = outcome | {"lines": {}}
    first = {"id": 1, "type": "return", "original_id": 0, "purchase_id": 0, "outcome": outcome}
    again, undone = first | {"id": 2}, {**first, "id": 3, "type": "void", "original_id": 1, "outcome": none}
    for past in permutations([first, again, undone]):
        assert list(in_turn(bought, past)) == [first, undone, again]


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


# --- what a draft changes -------------------------------------------------------------------------------------------


def test_other_terms_give_other_points(database: Database) -> None:
    """By hand: 10.00 and 7.00 at one point per dollar, and at two with 7 points a visit from 9.00 on."""
    history = History(database, terms())
    history.post(history.bought("900", 1, 1000, 0), history.bought("901", 1, 700, 0))
    visit = rule("visit", FIXED, when={"minimum_spend": 900})
    totals = replayed(database, history.program_id, terms(earning={"points": 2, "per": 100}) | {"rules": [visit]})
    assert (totals.all.published.points, totals.all.draft.points) == (17, 20 + 7 + 14)
    assert {store: each.draft.points for store, each in totals.stores.items()} == {"1": 27, "2": 14}
    assert {code: (each.published.points, each.draft.points) for code, each in totals.rules.items()} == {
        "base": (17, 34),
        "visit": (0, 7),
    }
    # 27 x 0.01 x 4/5 = 21.6 of 1000 + 21.6, so 21.14; 14 x 0.8 = 11.2 of 700 + 11.2: 11.02
    assert totals.all.draft.deferred == 21 + 11


def test_limits_of_a_draft_count_what_was_given_before_the_period(database: Database) -> None:
    """Once in a life: whoever had it before the period has had it."""
    welcome = rule("welcome", FIXED, limits=[{"per": "lifetime", "times": 1}])
    history = History(database, terms() | {"rules": [welcome]})
    history.post(history.bought("900", 1, 1000, 0))
    history.now += timedelta(hours=1)
    begins = history.now
    history.post(history.bought("900", 1, 1000, 0), history.bought("901", 1, 1000, 0))
    generous = terms() | {"rules": [welcome | {"gives": {"type": "fixed", "points": 9}}]}
    totals = replayed(database, history.program_id, generous, Period(begins, ALWAYS.until))
    assert totals.rules["welcome"].draft.points == 9
    assert replayed(database, history.program_id, generous).rules["welcome"].draft.points == 18


def test_what_nobody_asked_then_is_answered_with_today(database: Database) -> None:
    """And counted, since it may have been otherwise."""
    history = History(database, terms())
    history.post(history.bought("900", 1, 1000, 0), history.bought("901", 1, 1000, 0))
    history.profile(0, attributes={"occupation": "student"}, segments=["north"])
    totals = replayed(database, history.program_id, terms("students"))
    assert (totals.rules["students"].draft.points, totals.assumed) == (7, 2)
    assert {name: each.draft.points for name, each in totals.segments.items()} == {"north": 17}
    assert replayed(database, history.program_id, terms("first")).assumed == 0


def test_what_a_draft_would_refuse_earns_nothing(database: Database) -> None:
    history = History(database, terms())
    history.post(history.bought("900", 1, 10**9, 0))
    for changed, code in (
        ({"currency": "EUR"}, "currency_mismatch"),
        ({"uploads": {"largest_total": 999}}, "purchase_too_large"),
        ({"earning": {"points": 1_000_000, "per": 1}}, "too_many_points"),
    ):
        totals = replayed(database, history.program_id, terms(**changed))
        assert (totals.refused, totals.all.draft.points, totals.all.published.points) == ({code: 1}, 0, 10**7)


def test_arrivals_of_one_moment_are_put_in_the_order_of_the_ledger() -> None:
    """Those that moved no points keep the places that their times give them."""

    def at(seconds: int, number: int | None, member: int = 1) -> Any:
        return SimpleNamespace(
            member_id=member,
            recorded_at=START + timedelta(seconds=seconds),
            document_id=UUID(int=seconds * 100 + (number or 99)),
            number=number,
        )

    assert [row.number for row in in_order([at(0, 3), at(1, 1), at(2, None), at(3, 2)])] == [1, 2, None, 3]
    groups = at_once([at(0, 3), at(50, 1), at(200, 4), at(200, 9, member=2)])
    assert [[row.number for row in in_order(group)] for group in groups] == [[1, 3], [4], [9]]


def test_pages_do_not_change_the_figures(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(database, terms("daily", "first", "rested"))
    for number in range(12):
        history.post(*(history.bought(card, 1, 700, number) for card in ("900", "901", "902")))
    whole = replayed(database, history.program_id, terms("daily", "first", "rested"))
    monkeypatch.setattr("app.insight.replaying.MEMBERS", 2)
    monkeypatch.setattr("app.insight.replaying.PURCHASES", 5)
    assert replayed(database, history.program_id, terms("daily", "first", "rested")) == whole
    assert whole.purchases == 36
    assert whole.all.published == whole.all.draft


def test_a_period_is_past_and_begins_before_it_ends() -> None:
    assert period(START, START + timedelta(seconds=1), START + timedelta(seconds=1)).since == START
    for since, until, now in ((START, START, START), (START, START + timedelta(days=1), START)):
        with pytest.raises(PeriodInvalid):
            period(since, until, now)


def test_a_draft_is_replayed_over_the_api(shop: Shop) -> None:
    """Progress, then the result."""
    for number in range(3):
        shop.post(purchase(f"r{number}", member={"card": f"90{number}"}))
    path = f"/v1/programs/{shop.program_id}/terms"
    version = shop.http.post(path, json=TERMS | {"earning": {"points": 3, "per": 100}}).json()["version"]
    asked = {"from": "2026-11-22T00:00:00-05:00", "to": "2026-11-22T12:00:00Z"}
    answer = shop.http.get(f"{path}/{version}/replay", params=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jsonl")
    *progress, last = [json.loads(line) for line in answer.text.splitlines()]
    assert all((line["of"], line["result"]) == (3, None) for line in progress)
    result = last["result"]
    assert (result["currency"], result["purchases"], result["assumed"], result["refused"]) == ("USD", 3, 0, [])
    assert (result["total"]["published"]["points"], result["total"]["draft"]["points"]) == (30, 90)
    assert result["stores"][0]["store"] == "1"
    assert shop.http.get(f"{path}/9/replay", params=asked).status_code == 404
    late = shop.http.get(f"{path}/{version}/replay", params=asked | {"to": "2027-01-01T00:00:00Z"})
    assert (late.status_code, late.json()["code"]) == (422, "period_invalid")
    assert [each["pointer"] for each in late.json()["errors"]] == ["to"]


def test_an_example_replayed_over_real_baskets_is_what_it_gave(database: Database) -> None:
    """And without its rules, what the base alone would have given."""
    document = blueprints.read(EXAMPLES["grocer"].read_text(encoding="utf-8")).document()
    document["terms"]["uploads"] = {"latest_days": None}
    draft = Terms.model_validate(document["terms"])
    program_id = database.write(lambda session: make_program(session, document["terms"], START))
    for batch in batches(purchase_body(basket) for basket in read_baskets(SAMPLE)):
        items = [item_of(bodies.validate_python(body)) for body in batch]
        database.write(partial(transactions.record, program_id=program_id, items=items, now=START))
    totals = replayed(database, program_id, document["terms"])
    assert (totals.purchases, totals.members) == (1000, 711)
    assert totals.all.published == totals.all.draft
    assert {rule.code for rule in draft.rules} < totals.rules.keys(), "each rule gave somebody something"
    assert all(each.published == each.draft for each in totals.stores.values())
    assert all(each.published == each.draft for each in totals.rules.values())
    plain = replayed(database, program_id, document["terms"] | {"rules": []})
    assert plain.all.draft.points == totals.rules["base"].published.points
