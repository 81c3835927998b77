"""The ledger against a model of it: every verb in any order, on both engines.

After each step every member's figures and lots are the model's, and what the model refuses the service refuses with the
same code. In the end everything is used or has expired: then all that was put aside is recognised, to the minor unit.
`STATE_MACHINE_EXAMPLES` says how many lives are tried, `STATE_MACHINE_RANDOM=1` tries others each time.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic import TypeAdapter
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app import accounting, insight, ledger, members, transactions
from app.accounting.models import Cohort
from app.db import Database
from app.errors import Problem
from app.ids import new_id
from app.ledger import Account, Act
from app.ledger.models import Lot
from app.members import Identifier
from app.programs import Terms
from app.transactions.events import Reported, happen
from app.transactions.models import Transaction
from app.transactions.rules import act_of
from app.transactions.schemas import TransactionIn, item_of
from tests import model
from tests.model import Member, Purchase, Refused, Rules, next_day
from tests.shop import TERMS, make_program, purchase, returned, voided

EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "300"))
PARTS = 3
"""Each with a seed of its own, so that several processes can share the work."""
STEPS = 60
START = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAYS = 3
"""After which points expire, or members lapse."""
CANCELLED_AFTER = 2
"""Days, for points that are pending until an event."""

bodies: TypeAdapter[Any] = TypeAdapter(TransactionIn)
some = st.integers(0, 10**6)
"""Picks one of however many there are."""
points = st.integers(1, 20) | st.integers(1, 200)
Accounts = dict[UUID, Account]


class Lives(RuleBasedStateMachine):
    """Three members of one programme, and what happens to their points."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.now = START
        self.receipts = 0
        self.unseen = False
        """Whether something has happened since the figures were compared."""
        self.members: list[Member] = []
        self.purchases: list[Purchase] = []
        self.holds: dict[model.Hold, UUID] = {}
        self.returns: list[tuple[Purchase, model.Return, str]] = []
        self.given = 0
        """Points without a purchase."""

    @initialize(
        mode=st.sampled_from([None, "period", "inactivity"]),
        pending=st.sampled_from([0, 0, 1, None]),
        spent_already=st.sampled_from(["debt", "debt", "withhold", "write_off"]),
        most_debt=st.sampled_from([None, 15]),
        expired_meanwhile=st.sampled_from(["stay_expired", "grace_days", "new_lot"]),
        profile=st.sampled_from(["adjustment", "full"]),
    )
    def begin(
        self,
        mode: str | None,
        pending: int | None,
        spent_already: str,
        most_debt: int | None,
        expired_meanwhile: str,
        profile: str,
    ) -> None:
        each = {"amount": 1, "points": 1}
        waiting = {"mode": "event", "event": "shipped", "cancel_after_days": CANCELLED_AFTER}
        terms = TERMS | {
            "time_zone": "UTC",
            "earning": {"points": 1, "per": 1},
            "point_value": each,
            "points_tender": {"value": each},
            "uploads": {"latest_days": None},
            "expiry": mode and {"mode": mode, "days": DAYS, "round_up_to": "day"},
            "pending": waiting if pending is None else {"mode": "days", "days": pending} if pending else None,
            "posting_profile": profile,
            "returns": {
                "points_already_spent": spent_already,
                "debt_limit": most_debt,
                "expired_meanwhile": expired_meanwhile,
                "grace_days": 1,
            },
        }
        self.terms = Terms.model_validate(terms)
        policy = Rules(
            spent_already,
            most_debt,
            expired_meanwhile,
            expiry_after=lambda at: next_day(at, DAYS) if mode == "period" else None,
            lapse_after=lambda at: next_day(at, DAYS) if mode == "inactivity" else None,
            pending_days=pending,
            cancel_days=CANCELLED_AFTER,
        )
        self.members = [Member(policy) for _ in range(3)]
        cards = [Identifier("card", f"90{number}") for number in range(3)]

        def furnish(session: Session) -> tuple[UUID, Mapping[Identifier, UUID]]:
            program_id = make_program(session, terms, START, f"p-{new_id().hex}")
            return program_id, members.enrol_unknown(session, program_id, cards, START)[0]

        self.program_id, enrolled = self.database.write(furnish)
        self.ids = [enrolled[card] for card in cards]

    # --- how a step is taken

    def act(self, *kinds: str) -> Act:
        return act_of(self.program_id, new_id(), self.now, self.now, self.terms, *kinds)

    def settle(self) -> None:
        for member in self.members:
            member.settle(self.now)

    def agree(self, expected: Callable[[], Any], actual: Callable[[], Any]) -> bool:
        """Both do it, or both refuse it for the same reason; whether they did."""
        refusal = None
        try:
            expected()
        except Refused as refused:
            refusal = str(refused)
        if refusal is None:
            actual()
        else:
            with pytest.raises(Problem) as raised:
                actual()
            assert raised.value.code == refusal
        return refusal is None

    def change(self, who: Sequence[int], decide: Callable[[Accounts], Sequence[Account]]) -> None:
        """One transaction of the ledger."""

        def work(session: Session) -> None:
            ids = {self.ids[number] for number in who}
            accounts = ledger.claim(session, ids, self.now, UTC, ids)
            accounts |= {account.member_id: account for account in decide(accounts)}
            ledger.write(session, accounts.values(), self.now)

        self.database.write(work)
        self.unseen = True

    def change_one(self, who: int, decide: Callable[[Account], Account]) -> None:
        self.change([who], lambda accounts: [decide(accounts[self.ids[who]])])

    def post(self, body: dict[str, Any]) -> None:
        """One transaction of a till."""
        item = item_of(bodies.validate_python(body))

        def work(session: Session) -> None:
            outcome = transactions.record(session, self.program_id, [item], self.now)[0]
            if isinstance(outcome, Problem):
                raise outcome

        self.database.write(work)
        self.unseen = True

    def receipt(self) -> str:
        self.receipts += 1
        return f"r{self.receipts}"

    # --- steps

    @rule(hours=st.sampled_from([1, 9, 25, 25, 60, 200]))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)
        self.unseen = True
        self.settle()

    @rule(
        who=st.integers(0, 2),
        quantity=st.integers(1, 4),
        price=st.integers(1, 30),
        ago=st.sampled_from([0, 0, 30, 100]),
    )
    def buy(self, who: int, quantity: int, price: int, ago: int) -> None:
        self._buy(who, quantity, price, 0, ago)

    @rule(who=st.integers(0, 2), quantity=st.integers(1, 4), price=st.integers(1, 30), share=st.integers(1, 120))
    def buy_with_points(self, who: int, quantity: int, price: int, share: int) -> None:
        self._buy(who, quantity, price, min(share, quantity * price), 0)

    def _buy(self, who: int, quantity: int, price: int, tendered: int, ago: int) -> None:
        at, receipt, total = self.now - timedelta(hours=ago), self.receipt(), quantity * price
        bought = Purchase(self.members[who], receipt, quantity, price, tendered, at)
        tenders = [{"type": "points", "amount": tendered}, {"type": "cash", "amount": total - tendered}]
        body = purchase(
            receipt,
            total,
            occurred_at=at.isoformat(),
            member={"card": f"90{who}"},
            lines=[{"line": 1, "product": "p1", "quantity": str(quantity), "amount": total}],
            tenders=[tender for tender in tenders if tender["amount"]],
        )
        if self.agree(lambda: model.buy(bought, self.now), lambda: self.post(body)):
            self.purchases.append(bought)

    @precondition(lambda self: self.terms.pending and self.terms.pending.mode == "event" and self.purchases)
    @rule(which=some, shipped=st.sampled_from([True, True, False]))
    def report_event(self, which: int, shipped: bool) -> None:
        bought = self.purchases[which % len(self.purchases)]
        event = "shipped" if shipped else "cancelled"

        def work(session: Session) -> None:
            mine = (Transaction.program_id == self.program_id) & (Transaction.external_id == bought.document)
            reported = Reported(session.scalars(select(Transaction.id).where(mine)).one(), event)
            (outcome,) = happen(session, self.program_id, [reported], self.now)
            if isinstance(outcome, Problem):
                raise outcome

        self.agree(lambda: model.happen(bought, shipped, self.now), lambda: self.database.write(work))
        self.unseen = True

    @precondition(lambda self: self.purchases)
    @rule(which=some, units=st.integers(1, 4))
    def bring_back(self, which: int, units: int) -> None:
        bought = self.purchases[which % len(self.purchases)]
        lines = [{"line": 1, "quantity": str(units)}]
        body = self._back(returned(self.receipt(), bought.document, lines=lines))
        done = []
        if self.agree(lambda: done.append(model.bring_back(bought, units, self.now)), lambda: self.post(body)):
            self.returns.append((bought, done[0], body["external_id"]))

    @precondition(lambda self: self.purchases)
    @rule(which=some)
    def void(self, which: int) -> None:
        bought = self.purchases[which % len(self.purchases)]
        body = self._back(voided(self.receipt(), bought.document))

        def expected() -> None:
            if bought.voided:
                raise Refused("already_voided")
            model.bring_back(bought, bought.quantity - bought.units_back, self.now, void=True)
            bought.voided = True

        self.agree(expected, lambda: self.post(body))

    @precondition(lambda self: self.returns)
    @rule(which=some)
    def void_a_return(self, which: int) -> None:
        bought, done, receipt = self.returns[which % len(self.returns)]
        body = self._back(voided(self.receipt(), receipt, "return"))
        self.agree(lambda: model.undo(bought, done, self.now), lambda: self.post(body))

    def _back(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"occurred_at": self.now.isoformat()}

    @rule(who=st.integers(0, 2), points=points)
    def spend(self, who: int, points: int) -> None:
        def expected() -> None:
            self.members[who].use(points)
            self.members[who].act(self.now)

        act = self.act("redemption")
        self.agree(expected, lambda: self.change_one(who, lambda account: ledger.spend(account, points, act)))

    @rule(who=st.integers(0, 2), points=points, hours=st.integers(1, 90))
    def hold(self, who: int, points: int, hours: int) -> None:
        id_, act, ends = new_id(), self.act(), self.now + timedelta(hours=hours)
        member = self.members[who]
        if self.agree(
            lambda: member.hold(points, ends),
            lambda: self.change_one(who, lambda account: ledger.hold(account, id_, points, ends, act)),
        ):
            self.holds[member.holds[-1]] = id_

    @precondition(lambda self: self.holds)
    @rule(which=some, points=st.integers(0, 60))
    def end_hold(self, which: int, points: int) -> None:
        """Captures some of it; with 0 points releases it."""
        hold, id_ = list(self.holds.items())[which % len(self.holds)]
        who = next((number for number, member in enumerate(self.members) if hold in member.holds), None)
        act = self.act()
        verb = partial(ledger.capture, hold_id=id_, points=points, act=act)
        if points == 0:
            verb = partial(ledger.release, hold_id=id_, act=act)

        def expected() -> None:
            if who is None:
                raise Refused("hold_ended")
            self.members[who].capture(hold, points)
            self.members[who].settle(self.now)

        self.agree(expected, lambda: self.change_one(who or 0, verb))

    @rule(giver=st.integers(0, 2), receiver=st.integers(0, 2), points=points)
    def transfer(self, giver: int, receiver: int, points: int) -> None:
        if giver == receiver:
            return
        act = self.act()

        def give(accounts: Accounts) -> Sequence[Account]:
            return ledger.transfer(accounts[self.ids[giver]], accounts[self.ids[receiver]], points, act)

        def expected() -> None:
            self.members[giver].give(points, self.members[receiver])
            self.settle()

        self.agree(expected, lambda: self.change([giver, receiver], give))

    @rule(who=st.integers(0, 2), points=points, hours=st.integers(1, 200))
    def add_goodwill(self, who: int, points: int, hours: int) -> None:
        """Points without a purchase."""
        rate, cost = self.terms.redemption_rate.fraction, self.terms.point_value.each
        aside, act, expires = accounting.set_aside(points, rate, cost), self.act(), self.now + timedelta(hours=hours)
        cohort = accounting.CohortKey(self.program_id, "USD", act.period, "marketing", str(rate))
        accrual = ledger.Accrual(
            points,
            act,
            cohort,
            aside.points,
            aside.residue,
            accounting.expected_points(points, rate),
            expires,
            self.now,
            kind="adjustment",
        )

        def work(session: Session) -> None:
            account = ledger.claim(session, [self.ids[who]], self.now, UTC)[self.ids[who]]
            ledger.write(session, [ledger.accrue(account, accrual)], self.now)
            event = accounting.Event(self.program_id, act.document_id, "USD", self.now, act.period, cohort.id)
            chart = accounting.chart(session, self.program_id)
            accounting.post(session, accounting.provision_postings(event, aside.points, chart), self.now)

        self.database.write(work)
        self.unseen = True
        member = self.members[who]
        member.grant(model.Lot(act.document_id, points, self.now, self.now, expires, lapses=False))
        member.lifetime += points
        self.given += points

    @rule(who=st.integers(0, 2), points=points)
    def correct(self, who: int, points: int) -> None:
        act = self.act()
        self.agree(
            lambda: self.members[who].forfeit(points),
            lambda: self.change_one(who, lambda account: ledger.spend(account, points, act, "adjustment", "expired")),
        )

    @rule(who=st.integers(0, 2), which=some, days=st.integers(2, 9))
    def extend(self, who: int, which: int, days: int) -> None:
        member = self.members[who]
        free = [lot for lot in member.lots if lot.left]
        if free:
            lot, until, act = free[which % len(free)], self.now + timedelta(days=days), self.act()
            place = [each for each in member.lots if each.left or each.held].index(lot)

            def real(account: Account) -> Account:
                return ledger.extend(account, open_lots(account)[place].id, until, act)

            self.change_one(who, real)
            member.extend(lot, until)

    @rule(who=st.integers(0, 2), which=some, points=points, days=st.integers(1, 9))
    def reinstate(self, who: int, which: int, points: int, days: int) -> None:
        member = self.members[who]
        gone = [lot for lot in member.lots if min(lot.expired, member.expired[lot.document]) > 0]
        if gone:
            lot, until, act = gone[which % len(gone)], self.now + timedelta(days=days), self.act()
            points = min(points, lot.expired, member.expired[lot.document])
            self._settle_one(who)
            found = self.database.read(lambda session: expired_lot(session, self.ids[who], member.lots.index(lot)))
            self.change_one(who, lambda account: ledger.reinstate(account, found, points, until, act))
            member.reinstate(lot, points, until, self.now)

    @precondition(lambda self: any(member.debt for member in self.members))
    @rule(points=points)
    def write_off(self, points: int) -> None:
        who = next(number for number, member in enumerate(self.members) if member.debt)
        act = self.act()
        self.change_one(who, lambda account: ledger.write_off(account, points, act))
        self.members[who].write_off(points)

    @rule(who=st.integers(0, 2))
    def job_settles(self, who: int) -> None:
        self._settle_one(who)

    def _settle_one(self, who: int) -> None:
        self.change([who], lambda accounts: list(accounts.values()))

    @rule()
    def job_recognises(self) -> None:
        assert accounting.fold(self.database, self.now, self.program_id).left == 0

    @rule(chance=st.integers(0, 5))
    def prove(self, chance: int = 0) -> None:
        if chance == 0:
            proof = self.database.read(lambda session: insight.prove(session, self.program_id))
            assert proof.holds, [check for check in proof.checks if check.differences]

    # --- what always holds

    @invariant()
    def the_service_agrees_with_the_model(self) -> None:
        if not self.unseen:
            return
        self.unseen = False
        look = partial(ledger.look, member_ids=self.ids, now=self.now, zone=UTC, lots=set(self.ids))
        accounts = self.database.read(look)
        for id_, member in zip(self.ids, self.members, strict=True):
            account = accounts[id_]
            assert figures(account) == figures(member)
            theirs = [(lot.free, lot.held, lot.pending, account.expiry_of(lot)) for lot in open_lots(account)]
            open_ = [lot for lot in member.lots if lot.left or lot.held]
            assert theirs == [(lot.left, lot.held, lot.pending, member.expiry(lot)) for lot in open_]
            assert not (member.debt and member.available), "credits pay debt first"

    def teardown(self) -> None:
        """Whatever is left is used or expires; then everything put aside is recognised."""
        if not self.members:
            return
        self.time_passes(hours=2400)
        self.the_service_agrees_with_the_model()
        for who, member in enumerate(self.members):
            if member.available:
                self.spend(who, member.available)
        for who in range(3):
            self._settle_one(who)
        self.job_recognises()
        self.prove()
        cohorts = select(Cohort).where(Cohort.program_id == self.program_id)
        for cohort in self.database.read(lambda session: session.scalars(cohorts).all()):
            assert cohort.recognised == cohort.allocated
            assert cohort.used + cohort.expired == cohort.issued
        self.points_are_issued_once(cohorts)

    def points_are_issued_once(self, cohorts: Select[Cohort]) -> None:
        """Cohorts have as many points as purchases keep and staff gave, once what is owed for points that live on
        elsewhere is paid: whatever came back in whatever order, nothing is backed by the money of others."""
        issued = sum(cohort.issued for cohort in self.database.read(lambda session: session.scalars(cohorts).all()))
        kept = self.given + sum(bought.kept for bought in self.purchases)
        covers = [cover for member in self.members for cover in member.covers]
        owed = sum(cover.points for cover in covers if cover.by is model.DEBT and cover.why == "elsewhere")
        unpaid = sum(member.unpaid for member in self.members)
        assert kept <= issued - owed <= kept + unpaid


def figures(of: Account | Member) -> list[int]:
    return [of.available, of.held, of.pending, of.debt, of.qualifying, of.lifetime]


def open_lots(account: Account) -> list[ledger.OpenLot]:
    """In the order they were made."""
    return sorted((lot for lot in account.lots.values() if lot.remaining), key=lambda lot: lot.id)


def expired_lot(session: Session, member_id: UUID, place: int) -> ledger.OpenLot:
    """The lot of a member that was made after so many others, whatever is left of it."""
    lot = session.scalars(select(Lot).where(Lot.member_id == member_id).order_by(Lot.id).offset(place).limit(1)).one()
    names = ("id", "remaining", "held", "pending", "available_from", "expires_at", "lapses", "cohort_id", "currency")
    return ledger.OpenLot(
        **{name: getattr(lot, name) for name in (*names, "funding", "document_id", "occurred_at", "granted")}
    )


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_the_ledger_is_what_the_model_says(database: Database, part: int) -> None:
    @seed(part if "STATE_MACHINE_RANDOM" not in os.environ else time.time_ns())
    class Tried(Lives):
        def __init__(self) -> None:
            super().__init__(database)

    run_state_machine_as_test(
        Tried,
        settings=settings(
            max_examples=EXAMPLES // PARTS,
            stateful_step_count=STEPS,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),  # to explain a failure traces every line: several times slower
            suppress_health_check=list(HealthCheck),
        ),
    )
