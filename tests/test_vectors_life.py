"""The worked examples after their sale: use, expiry, returns, new estimates, goodwill. Every step, both profiles.

After each step the recognition is run and its postings count as the step's; the net of each account in the step, and
every balance after it, must be what the example says. Points leave through the ledger's verbs and returns through the
till's door; what an example books for the customer (cost of goods) and what the till books is added by hand.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from fractions import Fraction
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import accounting, ledger, members, transactions
from app.accounting import CohortKey, Profile, expected_points, set_aside
from app.accounting.models import Cohort
from app.db import Database
from app.ids import new_id
from app.insight import prove
from app.programs import Terms, draft_terms, publish_terms
from app.transactions import Recorded
from app.transactions.schemas import PurchaseIn, ReturnIn, purchase_of, return_of
from tests.conftest import ENGINES, Engines, settings_for
from tests.shop import FOREVER, make_program, purchase, returned
from tests.test_vectors import (
    CARD,
    COMPLETE,
    NOW,
    PROFILES,
    PROSE,
    VECTORS,
    Example,
    Facts,
    Net,
    bodies_of,
    code_of,
    compact,
    example_of,
    minor,
    needs_file,
    net_of_journal,
    plus,
    terms_of,
    till_entry,
)

LIVES = [id_ for id_ in [*COMPLETE, *PROSE] if len(VECTORS.get(id_, {"steps": ()})["steps"]) > 1]
ELSEWHERE = {
    "constructed-tiny-sales-true-up": "the true-up belongs to the close of a period",
    "constructed-points-plus-cash": "a case of its own below",
}
"""Examples with later steps that are not run by the table here."""

RETURNED_LOT_USED = 100
"""In the examples of returns after redemption, 100 of the 400 used points are of the purchase that comes back."""

COST = Fraction(8, 10)
"""A point costs 0.008 of major unit where an example says what (8.00 for 1,000): in hundredths of it, 0.8."""

POLICIES = {"withhold_from_refund": "withhold", "negative_balance": "debt", "write_off": "write_off"}
UNKNOWN = "there is no verb for this step yet"


@dataclass(slots=True)
class Life:
    """One example under way: its programme, what is booked beside our entries, and how much was used in all."""

    database: Database
    program_id: UUID
    example: Example
    profile: Profile
    by_hand: Net = field(default_factory=dict)
    used: int = 0
    expired: int = 0
    returns: int = 0
    expected: int = 0
    """How many points are expected to be used in all, by the latest estimate."""

    def net(self) -> Net:
        """Balances of our journal and of what others book, debit positive; breakage is revenue from points."""
        lines = self.database.read(partial(accounting.balances, program_id=self.program_id))
        ours = compact({line.account.code: line.debits - line.credits for line in lines})
        return plus(ours, self.by_hand)

    def till(self, entry: Mapping[str, int]) -> None:
        """What the till books beside us, where it books sales itself."""
        if self.profile == "adjustment":
            self.by_hand = plus(self.by_hand, entry)

    def fold(self) -> None:
        folded = accounting.fold(self.database, NOW, self.program_id)
        assert folded.left == 0

    def move(self, change: Callable[[ledger.Account, ledger.Act], ledger.Account], card: str = "900") -> None:
        """Something that happens to the points of the member with `card`."""

        def work(session: Session) -> None:
            found = members.find(session, self.program_id, [members.Identifier("card", card)])
            (member,) = found.values()
            account = ledger.claim(session, [member], NOW, UTC, [member])[member]
            act = ledger.Act(self.program_id, new_id(), NOW, NOW, UTC)
            ledger.write(session, [change(account, act)], NOW)

        self.database.write(work)

    def use(self, points: int, card: str = "900", cost: int = 0) -> None:
        """They pay for a reward; an example that leaves its `cost` out has that taken off again."""
        self.used += points
        event = self.event()

        def spend(account: ledger.Account, act: ledger.Act) -> ledger.Account:
            return ledger.spend(account, points, replace(act, document_id=event.document_id))

        self.move(spend, card)
        self.post(accounting.fulfilment_postings(event, cost, "own", self.chart()))
        self.by_hand = plus(self.by_hand, {"5100": -cost, "1400": cost})

    def expire(self, points: int) -> None:
        self.expired += points
        self.move(lambda account, act: ledger.spend(account, points, act, "expiration", "expired"))

    def post(self, postings: list[accounting.Posting]) -> None:
        self.database.write(lambda session: accounting.post(session, postings, NOW))

    def event(self) -> accounting.Event:
        return accounting.Event(self.program_id, new_id(), self.example.currency, NOW, NOW.date().replace(day=1))

    def chart(self) -> accounting.Chart:
        return self.database.read(partial(accounting.chart, program_id=self.program_id))

    def revise(self, expected: int) -> None:
        """A new estimate is approved."""
        (cohort,) = self.database.read(lambda session: session.scalars(self._cohorts()).all())
        month = NOW.date().replace(day=1)
        self.database.write(lambda session: accounting.revise_estimate(session, cohort, expected, NOW, month))

    def _cohorts(self) -> Any:
        return select(Cohort.id).where(Cohort.program_id == self.program_id)

    def record(self, body: dict[str, Any]) -> Recorded:
        item: Any = (
            return_of(ReturnIn.model_validate(body))
            if body["type"] == "return"
            else purchase_of(PurchaseIn.model_validate(body))
        )
        (outcome,) = self.database.write(
            partial(transactions.record, program_id=self.program_id, items=[item], now=NOW)
        )
        assert isinstance(outcome, Recorded), outcome
        return outcome


@pytest.fixture(scope="module", params=ENGINES)
def database(engines: Engines, request: pytest.FixtureRequest) -> Iterator[Database]:
    """One database per engine for all examples, each a programme of its own; at the end the proof holds for all."""
    database = Database(settings_for(engines.fresh(request.param)))
    yield database
    proof = database.read(prove)
    database.close()
    assert proof.holds, [check for check in proof.checks if check.differences]


def begin(database: Database, id_: str, profile: Profile) -> Life:
    """The example's sales, recorded. Where one lot comes back later, each sale is another member's."""
    example = example_of(id_)
    terms = terms_of(example, profile) | {"point_cost": {"amount": COST.numerator, "points": COST.denominator}}
    if (policy := id_.removeprefix("constructed-return-after-redemption-")) in POLICIES:
        terms["returns"] = {"points_already_spent": POLICIES[policy]}
    program_id = database.write(partial(make_program, terms=terms, now=NOW, code=f"p{new_id().hex}"))
    life = Life(database, program_id, example, profile)
    life.expected = example.facts.expected * example.facts.sales
    for number, body in enumerate(bodies_of(example)):
        member = {"member": {"card": f"9{number:02}"}} if "return" in id_ else {}
        life.record(body | member)
    sales = example.facts.sales
    life.till(till_entry(example.total * sales, example.tax * sales))
    return life


def recognise(life: Life, id_: str, step: Mapping[str, Any]) -> None:
    """Redeem up to X; then approve E, if it is a new one."""
    params = step.get("params") or {}
    told = next((int(params[name]) for name in ("cumulative_redeemed", "X", "redeemed") if name in params), None)
    wanted = ONLY_IN_PROSE[id_] if told is None else told
    expected = next((int(params[name]) for name in ("expected_total", "E", "expected") if name in params), None)
    if life.example.facts.sales == 1:
        life.use(wanted - life.used)
    else:  # 400 used points: 100 of the lot that comes back later where that was used, the others of other members
        of_returned = RETURNED_LOT_USED if "after-redemption" in id_ else 0
        if of_returned:
            life.use(of_returned, "900", round(of_returned * COST))
        for number in range(1, 10):
            part = min(150, wanted - life.used)
            if part:
                life.use(part, f"9{number:02}")
    life.fold()
    if expected is not None and expected != life.expected:
        life.expected = expected
        life.revise(expected)


ONLY_IN_PROSE = {
    "cas-2019-residual-10": 600,
    "pwc-telecom-ifric13": 240,
    "constructed-return-before-redemption": 400,
    "constructed-return-after-redemption-withhold_from_refund": 400,
    "constructed-return-after-redemption-negative_balance": 400,
    "constructed-return-after-redemption-write_off": 400,
    "constructed-expiry-unanticipated": 600,
    "constructed-expiry-partial": 400,
    "constructed-negative-catch-up": 4500,
    "constructed-devaluation": 4500,
    "constructed-fx-nonmonetary": 50,
}
"""X after the step, where only the prose about the example says it."""


def play(life: Life, id_: str, step: Mapping[str, Any]) -> None:  # noqa: C901  # one case per event
    """Carries out one step of an example."""
    event, params = str(step["event"]), step.get("params") or {}
    facts = life.example.facts
    match event:
        case "recognise" | "recognise_half":
            recognise(life, id_, step)
        case "reward_cost":
            cost = round(int(params["points"]) * Fraction(params["unit_cost"]) * 10 ** life_digits(id_))
            life.post(accounting.fulfilment_postings(life.event(), cost, "own", life.chart()))
        case "goods_cost":
            life.by_hand = plus(life.by_hand, net_of_journal(step["journal"], life_digits(id_)))
        case "expiry_anticipated":
            life.expire(int(params["points"]))
        case "expiry_of_rest":
            life.expire(facts.points - life.used - life.expired)
        case "expire":
            life.expire(facts.points - life.used)
        case "estimate_revised" | "devaluation":
            life.revise({"estimate_revised": 9900, "devaluation": 9000}[event])
        case "return" | "partial_return":
            life.returns += 1
            part = {} if event == "return" else {"total": 5000}
            done = life.record(returned(f"b{life.returns}", "r0", **part))
            figures = done.row["outcome"]["figures"]
            life.till({"1000": -figures["total"], "4000": figures["consideration"], "2400": figures["tax"]})
            if kept_back := done.row["outcome"]["withheld_amount"]:
                life.till({"1000": kept_back, "4000": -kept_back})
        case "reverse_recognised_of_lot":
            life.fold()
        case "reward_cost_to_marketing":
            pass  # the return has posted it: our write-off does not wait
        case _:
            taken = re.fullmatch(r"expire_(\d+)", event)
            assert taken, UNKNOWN
            life.expire(int(taken[1]))


def life_digits(id_: str) -> int:
    digits: int = VECTORS[id_]["minor_unit_digits"]
    return digits


def breakage_is_revenue(net: Net) -> Net:
    """The examples' account of breakage, 4120, is ours of revenue from points."""
    return plus({code: amount for code, amount in net.items() if code != "4120"}, {"4100": net.get("4120", 0)})


SPLIT_LATER = {"return", "reverse_recognised_of_lot", "reward_cost_to_marketing"}
"""Steps of one return: the example books it, then recognises, then reclassifies. We compare when all is done."""


@needs_file
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("id_", [id_ for id_ in LIVES if id_ not in ELSEWHERE])
def test_life_of_the_example(database: Database, id_: str, profile: Profile) -> None:
    """Each step posts what the example says, and leaves the balances it says."""
    life = begin(database, id_, profile)
    steps, digits = VECTORS[id_]["steps"], life_digits(id_)
    booked: Net = {}
    before = life.net()
    for position, step in enumerate(steps[1:], 1):
        play(life, id_, step)
        booked = plus(booked, net_of_journal(step["journal"], digits))
        following = steps[position + 1]["event"] if position + 1 < len(steps) else ""
        if following in SPLIT_LATER - {"return"}:
            continue
        life.fold()
        after = life.net()
        assert plus(after, {code: -amount for code, amount in before.items()}) == breakage_is_revenue(booked), step
        balances = {code_of(name): 0 for name in step["balances_after"]}
        for name, value in step["balances_after"].items():
            balances[code_of(name)] += minor(value, digits)
        assert after == breakage_is_revenue(compact(balances)), step
        booked, before = {}, after


@needs_file
@pytest.mark.parametrize("profile", PROFILES)
def test_100_single_redemptions_release_exactly_what_was_deferred(database: Database, profile: Profile) -> None:
    """1.97 over 100 points, one at a time: each cumulative sum is rounded, so no cent is made or lost (not 2.00)."""
    vector = VECTORS["seed-case1-100-single-redemptions"]
    expected = [minor(amount, 2) for amount in vector["expected_deltas"]]
    life = begin(database, "seed-case1-ifrs15", profile)
    deltas = []
    for _ in range(100):
        life.use(1)
        seen = -life.net().get("4100", 0)
        life.fold()
        deltas.append(-life.net().get("4100", 0) - seen)
    assert deltas == expected
    assert sum(deltas) == minor(vector["checks"][0]["value"], 2) == 197


@needs_file
@pytest.mark.parametrize("profile", PROFILES)
def test_points_plus_cash(database: Database, profile: Profile) -> None:
    """Goods of 100.00 for 4,000 points and 20.00: the points' cohort releases 100.00, the cash earns 20 points."""
    id_ = "constructed-points-plus-cash"
    vector = VECTORS[id_]
    earlier, later, goods = vector["steps"]
    example = example_of(id_)
    # the points of the purchase at hand are worth 0.02 each and earned at one per 1.00, as the prose says
    terms = terms_of(example, profile) | {"points_tender": {"value": {"amount": 2, "points": 1}}}
    program_id = database.write(partial(make_program, terms=terms, now=NOW, code=f"p{new_id().hex}"))
    life = Life(database, program_id, example, profile)
    life.record(bodies_of(example)[0])
    life.till(till_entry(example.total, example.tax))
    assert life.net() == net_of_journal(earlier["journal"], 2)

    now_terms = terms | {
        "earning": {"points": 1, "per": 100},
        "point_value": {"amount": 2, "points": 1},
        "redemption_rate": {"numerator": 2, "denominator": 3},
    }
    publish_later(database, program_id, now_terms)
    tenders = [{"type": "points", "amount": 8000}, {"type": "cash", "amount": 2000}]
    after = NOW + timedelta(minutes=2)
    body = purchase("r9", 10_000, currency="CNY", tenders=tenders, occurred_at=after.isoformat())
    item = purchase_of(PurchaseIn.model_validate(body))
    before = life.net()
    (outcome,) = database.write(partial(transactions.record, program_id=program_id, items=[item], now=after))
    assert isinstance(outcome, Recorded), outcome
    assert outcome.row["points"] == 20
    assert outcome.row["outcome"]["tendered_points"] == 4000
    life.fold()
    # the till sells for 100.00: 20.00 in cash, 80.00 against the clearing account that our entry empties
    life.till({"1000": 2000, "2190": 8000, "4000": -10_000})
    posted = plus(life.net(), {code: -amount for code, amount in before.items()})
    assert posted == net_of_journal(later["journal"], 2)
    life.by_hand = plus(life.by_hand, net_of_journal(goods["journal"], 2))
    balances = {code_of(name): minor(value, 2) for name, value in goods["balances_after"].items()}
    assert life.net() == compact(balances)


def publish_later(database: Database, program_id: UUID, terms: dict[str, Any]) -> None:

    def publish(session: Session) -> None:
        start = NOW + timedelta(minutes=1)
        draft = draft_terms(session, program_id, Terms.model_validate(terms), NOW)
        publish_terms(session, program_id, draft.version, NOW, start)

    database.write(publish)


@needs_file
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("id_", ["constructed-goodwill-points", "constructed-goodwill-less-redeemed"])
def test_goodwill_is_a_provision_at_cost(database: Database, id_: str, profile: Profile) -> None:
    """500 points given without a purchase, 400 expected at 0.008 each: 3.20 of marketing, never deferred revenue."""
    life = without_purchase(database, profile)
    grant(life, 500, Fraction(4, 5), COST, "marketing")
    grants, *steps = VECTORS[id_]["steps"]
    assert life.net() == net_of_journal(grants["journal"], 2)
    for step in steps:
        verb, points = str(step["event"]).split("_")
        before = life.net()
        if verb == "redeem":
            life.use(int(points))
            # the reward is handed over: its cost is ours, and the provision pays for it
            life.post(accounting.fulfilment_postings(life.event(), round(int(points) * COST), "own", life.chart()))
        else:
            life.expire(int(points))
        life.fold()
        posted = plus(life.net(), {code: -amount for code, amount in before.items()})
        assert posted == net_of_journal(step["journal"], 2), step
        assert life.net() == compact({code_of(name): minor(v, 2) for name, v in step["balances_after"].items()})


@needs_file
@pytest.mark.parametrize("profile", PROFILES)
def test_goodwill_for_a_failed_order_is_a_price_concession(database: Database, profile: Profile) -> None:
    life = without_purchase(database, profile)
    grant(life, 500, Fraction(4, 5), Fraction(2), "concession")
    (step,) = VECTORS["constructed-goodwill-price-concession"]["steps"]
    assert life.net() == net_of_journal(step["journal"], 2)


def without_purchase(database: Database, profile: Profile) -> Life:
    terms = FOREVER | {"currency": "CNY", "posting_profile": profile}
    program_id = database.write(partial(make_program, terms=terms, now=NOW, code=f"p{new_id().hex}"))
    database.write(lambda session: members.enrol(session, program_id, [CARD], NOW))
    nothing = Example(Facts(1, 1, None), "CNY", "half_even", 0, 0, Fraction(0), [], {}, {})
    return Life(database, program_id, nothing, profile)


def grant(life: Life, points: int, rate: Fraction, each: Fraction, funding: Any) -> None:
    """Points that came with no purchase, and what they post."""
    share = set_aside(points, rate, each)
    month = NOW.date().replace(day=1)
    key = CohortKey(life.program_id, "CNY", month, funding, str(rate))
    event = accounting.Event(life.program_id, new_id(), "CNY", NOW, month, key.id)

    def give(account: ledger.Account, act: ledger.Act) -> ledger.Account:
        same = ledger.Act(act.program_id, event.document_id, NOW, NOW, UTC)
        expected = expected_points(points, rate)
        return ledger.accrue(
            account, ledger.Accrual(points, same, key, share.points, share.residue, expected, None, NOW)
        )

    life.move(give)
    post = accounting.provision_postings if funding == "marketing" else accounting.concession_postings
    life.post(post(event, share.points, life.chart()))


@needs_file
def test_every_life_is_run_or_named() -> None:
    assert set(ELSEWHERE) <= set(LIVES)
    assert {"constructed-return-before-redemption", "constructed-expiry-partial", "ifrs15-ex52"} <= set(LIVES)
