"""What adjustments come to: tables of cases, without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.accounting import default_codes
from app.adjustments import rules
from app.adjustments.rules import AdjustmentClass, Asked, Decided, Known
from app.clients.rules import one_person
from app.errors import Problem
from app.ids import new_id
from app.ledger import Account, Accrual, Act, InsufficientPoints, accrue
from app.ledger.rules import Cover, Effect, RewardCosts
from app.members import MemberClosed
from app.programs import Terms
from app.transactions import CurrencyMismatch, Order
from tests.shop import TERMS

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PROGRAM, MEMBER, DOCUMENT = new_id(), new_id(), new_id()
ACT = Act(PROGRAM, DOCUMENT, NOW, NOW, UTC)


def terms(**changes: Any) -> Terms:
    """A point costs 0.008 and is worth 0.02; four of five are used."""
    values = {"point_cost": {"amount": 4, "points": 5}, "point_value": {"amount": 2, "points": 1}}
    return Terms.model_validate(TERMS | values | changes)


def asked(class_: AdjustmentClass = "goodwill", points: int | None = 500, **changes: Any) -> Asked:
    return Asked(class_, MEMBER, points, "sorry", **changes)


def known(account: Account | None = None, **changes: Any) -> Known:
    usual = Known(account or Account(MEMBER, PROGRAM), "active", terms(), default_codes())
    return replace(usual, **changes)


def order(price_left: int = 10_000, **changes: Any) -> Order:
    return replace(Order(new_id(), ("store-1", "r1"), MEMBER, "USD", price_left), **changes)


def refusal(asked: Asked, known: Known) -> type[Problem]:
    with pytest.raises(Problem) as refused:
        rules.decide(asked, known, ACT)
    return type(refused.value)


def accrual_in(decided: Decided) -> Accrual:
    (accrual,) = decided.account.rows.accruals
    return accrual


@pytest.mark.parametrize(
    ("class_", "points", "role", "waits"),
    [
        ("goodwill", 1000, None, False),
        ("goodwill", 1001, None, True),
        ("correction", -1001, None, True),
        ("goodwill", 1001, "lead", False),
        ("goodwill", 5001, "lead", True),
        ("goodwill", 1, "trainee", True),
        ("goodwill", 1001, "unheard_of", True),
        ("debt_write_off", 1001, None, True),
        ("reinstatement", 1001, None, True),
        ("extension", 10**6, "trainee", False),
    ],
)
def test_who_needs_a_second_person(class_: AdjustmentClass, points: int, role: str | None, waits: bool) -> None:
    policy = terms(adjustments={"limit": 1000, "limits": {"lead": 5000, "trainee": 0}})
    assert rules.needs_approval(asked(class_), points, role, policy) is waits


@pytest.mark.parametrize(
    ("points", "amount", "residue"),
    [(500, 320, 0), (1, 1, -360_000), (3, 2, -80_000), (7, 4, 480_000), (10**10, 64 * 10**8, 0)],
)
def test_points_without_a_purchase_are_put_aside_at_cost(points: int, amount: int, residue: int) -> None:
    accrual = accrual_in(rules.decide(asked(points=points), known(), ACT))
    assert (accrual.allocated, accrual.residue) == (amount, residue)
    assert accrual.cohort.funding == "marketing"
    assert accrual.expected == points * 800_000


@pytest.mark.parametrize(
    ("points", "price_left", "before", "amount"),
    [(500, 10_000, 0, 800), (500, 800, 0, 800), (500, 799, 0, 799), (500, 1000, 400, 600), (1, 10_000, 9_999, 1)],
)
def test_a_concession_is_the_points_value_and_at_most_what_is_left(
    points: int, price_left: int, before: int, amount: int
) -> None:
    case = known(order=order(price_left), conceded=before)
    decided = rules.decide(asked("concession", points, consented_at=NOW), case, ACT)
    assert accrual_in(decided).allocated == amount
    assert [(posting.debit, posting.credit, posting.amount) for posting in decided.postings] == [
        ("4000", "2100", amount)
    ]


@pytest.mark.parametrize(
    ("case", "changes", "refused"),
    [
        ({"order": None}, {}, rules.UnknownOrder),
        ({"order": order(member_id=new_id())}, {}, rules.UnknownOrder),
        ({"order": order(member_id=None)}, {}, rules.UnknownOrder),
        ({"order": order(currency="EUR")}, {}, CurrencyMismatch),
        ({"order": order()}, {"consented_at": None}, rules.ConsentMissing),
        ({"order": order()}, {"consented_at": NOW + timedelta(minutes=11)}, rules.ConsentMissing),
        ({"order": order(0)}, {}, rules.NothingToConcede),
        ({"order": order(500), "conceded": 500}, {}, rules.NothingToConcede),
        ({"order": order(), "status": "closed"}, {}, MemberClosed),
    ],
)
def test_what_is_not_conceded(case: dict[str, Any], changes: dict[str, Any], refused: type[Problem]) -> None:
    given = asked("concession", **{"consented_at": NOW} | changes)
    assert refusal(given, known(**case)) is refused


def test_a_till_clock_a_little_ahead_is_not_a_missing_consent() -> None:
    given = asked("concession", consented_at=NOW + timedelta(minutes=10))
    assert rules.decide(given, known(order=order()), ACT).points == 500


REWARD = new_id()


def owing(points: int, effect: Effect = "used", bought: int | None = None, cost: int = 800) -> Account:
    """An account that owes points of a purchase that came back, when it had `bought` (all, unless told) a reward for
    1,000 points with them."""
    (lot,) = accrue(Account(MEMBER, PROGRAM), accrual_in(rules.decide(asked(), known(), ACT))).lots.values()
    spent = points if bought is None else bought
    costs = RewardCosts({DOCUMENT: [(REWARD, spent)]} if spent else {}, {REWARD: ("USD", cost, 1000)}, {})
    return Account(MEMBER, PROGRAM, debt=points, covers=(Cover(lot, None, effect, points),), costs=costs)


@pytest.mark.parametrize(("owed", "points", "cost"), [(100, None, 80), (100, 30, 24), (1, None, 1), (5, 2, 2)])
def test_forgiven_debt_costs_what_it_bought(owed: int, points: int | None, cost: int) -> None:
    case = known(owing(owed))
    decided = rules.decide(asked("debt_write_off", points), case, ACT)
    assert decided.points == (points or owed)
    assert decided.account.debt == owed - decided.points
    assert [(posting.debit, posting.credit, posting.amount) for posting in decided.postings] == [("6100", "5100", cost)]


@pytest.mark.parametrize(
    "account",
    [
        pytest.param(owing(100, bought=0), id="no reward"),
        pytest.param(owing(100, cost=0), id="for nothing"),
        pytest.param(owing(100, "returned"), id="held or given away"),
        pytest.param(replace(owing(100), covers=()), id="nobody knows which"),
        pytest.param(replace(owing(100), costs=None), id="not read"),
    ],
)
def test_what_bought_no_reward_has_cost_nothing(account: Account) -> None:
    assert rules.decide(asked("debt_write_off", None), known(account), ACT).postings == []


@pytest.mark.parametrize(("bought", "costs"), [(5, [0, 1, 0, 0, 1]), (3, [0, 1, 0, 0, 0])])
def test_the_cost_of_what_is_forgiven_does_not_depend_on_its_parts(bought: int, costs: list[int]) -> None:
    """A third each, rounded together; what bought a reward is forgiven first."""
    case, posted = known(owing(5, bought=bought, cost=333)), []
    for _ in range(5):
        decided = rules.decide(asked("debt_write_off", 1), case, ACT)
        posted.append(sum(posting.amount for posting in decided.postings))
        case = replace(case, account=decided.account)
    assert posted == costs


@pytest.mark.parametrize(("owed", "points"), [(0, None), (10, 11)])
def test_no_more_is_forgiven_than_is_owed(owed: int, points: int | None) -> None:
    account = Account(MEMBER, PROGRAM, debt=owed)
    assert refusal(asked("debt_write_off", points), known(account)) is rules.NothingToWriteOff


def test_a_correction_takes_the_soonest_expiring_first() -> None:
    account = Account(MEMBER, PROGRAM)
    cohort = accrual_in(rules.decide(asked(), known(), ACT)).cohort
    for days in (30, 10, 20):
        expires_at = NOW + timedelta(days=days)
        account = accrue(account, Accrual(5, ACT, cohort, 0, 0, 0, expires_at, available_from=NOW))
    case = known(account)
    uses = [use for _, _, use in rules.decide(asked("correction", -12), case, ACT).account.rows.uses]
    assert [(use.points, use.effect) for use in uses] == [(5, "expired"), (5, "expired"), (2, "expired")]
    assert [use.lot.expires_at for use in uses] == [NOW + timedelta(days=days) for days in (10, 20, 30)]
    assert refusal(asked("correction", -16), case) is InsufficientPoints


@pytest.mark.parametrize("spelling", ["J. Doe", " j.  doe ", "J. DOE", "\uff2a. Doe"])
def test_a_person_has_one_spelling(spelling: str) -> None:
    assert one_person(spelling) == "j. doe"


def test_a_person_has_a_name() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        one_person("  ")
