"""The rules of the ledger by tables, without a database: what is used first, what pays debt, what happens by itself."""

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app import ledger
from app.accounting import CohortKey
from app.errors import Problem
from app.ids import new_id
from app.ledger import Account, Accrual, Act, GrantedLot, OpenLot, Reversed, SpentPart, rules
from app.ledger.rules import BALANCES

PROGRAM, MEMBER, OTHER = new_id(), new_id(), new_id()
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
COHORT = CohortKey(PROGRAM, "USD", date(2026, 11, 1), "purchase", "4/5")
EMPTY = Account(MEMBER, PROGRAM, covers=())


def day(number: int) -> datetime:
    """So many days from now."""
    return NOW + timedelta(days=number)


def act(at: datetime = NOW, document_id: UUID | None = None, recorded_at: datetime | None = None) -> Act:
    return Act(PROGRAM, document_id or new_id(), at, recorded_at or at, UTC)


def earned(
    account: Account,
    points: int,
    expires: int | None = None,
    *,
    at: int = 0,
    available: int | None = None,
    recorded: int | None = None,
    document_id: UUID | None = None,
) -> Account:
    """The account after a grant on day `at`, good until the day `expires` and from the day `available`."""
    cause = act(day(at), document_id, day(at if recorded is None else recorded))
    until = None if expires is None else day(expires)
    since = day(at if available is None else available)
    return ledger.accrue(account, Accrual(points, cause, COHORT, 10, 0, points * 800_000, until, since))


def newest(account: Account) -> OpenLot:
    return max(account.lots.values(), key=lambda lot: lot.id)


def figures(account: Account) -> tuple[int, int, int, int]:
    """Available, held, pending, debt."""
    return account.available, account.held, account.pending, account.debt


def left(account: Account) -> list[int]:
    """What remains of each lot, in the order they were made."""
    return [lot.remaining for lot in sorted(account.lots.values(), key=lambda lot: lot.id)]


def kinds(account: Account) -> list[str]:
    return [entry["kind"] for entry in account.rows.entries]


def check(account: Account) -> None:
    """Balance = sum of entries = what lots have left less debt; lots = granted - uses; no figure is negative."""
    for name in BALANCES:
        assert getattr(account, name) == sum(entry[name] for entry in account.rows.entries) >= 0
    lots = account.lots.values()
    assert account.available == sum(lot.free for lot in lots if not lot.pending)
    assert account.held == sum(lot.held for lot in lots)
    assert account.pending == sum(lot.remaining for lot in lots if lot.pending)
    for facts in account.rows.lots:
        uses = sum(use.points for _, _, use in account.rows.uses if use.lot.id == facts["id"])
        lot = account.lots[facts["id"]]
        assert 0 <= lot.held <= lot.remaining == facts["granted"] - uses <= facts["granted"]
    running = 0
    for number, entry in enumerate(account.rows.entries, start=1):
        running += entry["points"]
        assert (entry["number"], entry["balance_after"]) == (number, running)


# --- spending -------------------------------------------------------------------------------------------------------

ORDERS: dict[str, tuple[list[tuple[int, int | None, int]], int, list[int]]] = {
    # lots of (points, expire on day, earned on day), so many spent: what is left of each
    "soonest-expiring first": ([(10, 30, 0), (10, 5, 0)], 4, [10, 6]),
    "then the next": ([(10, 30, 0), (10, 5, 0)], 14, [6, 0]),
    "what never expires comes last": ([(10, None, 0), (10, 300, 0)], 12, [8, 0]),
    "of two that expire together the older": ([(10, 30, 0), (10, 30, -1)], 3, [10, 7]),
    "of two alike the first": ([(10, 30, 0), (10, 30, 0)], 3, [7, 10]),
    "all of it": ([(10, 30, 0), (10, 5, 0)], 20, [0, 0]),
}


@pytest.mark.parametrize(("lots", "points", "remaining"), ORDERS.values(), ids=ORDERS)
def test_which_lots_pay(lots: list[tuple[int, int | None, int]], points: int, remaining: list[int]) -> None:
    account = EMPTY
    for granted, expires, at in lots:
        account = earned(account, granted, expires, at=at)
    account = ledger.spend(account, points, act())
    assert left(account) == remaining
    check(account)


def test_a_refused_spend_says_what_is_missing_and_changes_nothing() -> None:
    account = earned(earned(EMPTY, 10), 90, available=1)
    with pytest.raises(ledger.InsufficientPoints) as raised:
        ledger.spend(account, 25, act())
    assert raised.value.extra == {"missing": 15}
    assert figures(account) == (10, 0, 90, 0)


def test_nothing_passes_the_largest_balance() -> None:
    account = replace(EMPTY, available=ledger.MOST_POINTS - 5)
    with pytest.raises(ledger.TooManyPoints):
        earned(account, 6)
    assert earned(account, 5).available == ledger.MOST_POINTS


# --- holds ----------------------------------------------------------------------------------------------------------


def held(points: int = 15, ends: int | None = 3) -> tuple[Account, UUID]:
    """An account with 10 points until day 1 and 10 until day 30, of which some are held."""
    account, id_ = earned(earned(EMPTY, 10, 30), 10, 1), new_id()
    return ledger.hold(account, id_, points, None if ends is None else day(ends), act()), id_


def test_a_hold_reserves_the_soonest_expiring() -> None:
    account, _ = held()
    assert figures(account) == (5, 15, 0, 0)
    assert [lot.held for lot in sorted(account.lots.values(), key=lambda lot: lot.id)] == [5, 10]
    check(account)


@pytest.mark.parametrize(("captured", "available", "remaining"), [(15, 5, [5, 0]), (12, 8, [8, 0]), (4, 16, [10, 6])])
def test_what_is_captured_is_spent_and_the_rest_is_free(captured: int, available: int, remaining: list[int]) -> None:
    """The soonest-expiring go first here, too, in whatever order the hold was read."""
    account, id_ = held()
    hold = account.holds[id_]
    for parts in (hold.parts, hold.parts[::-1]):
        after = ledger.capture(replace(account, holds={id_: replace(hold, parts=parts)}), id_, captured, act())
        assert (after.available, after.held, left(after)) == (available, 0, remaining)
        check(after)


def test_a_hold_ends_once() -> None:
    account, id_ = held()
    with pytest.raises(ledger.CaptureAboveHold):
        ledger.capture(account, id_, 16, act())
    account = ledger.release(account, id_, act())
    with pytest.raises(ledger.HoldEnded):
        ledger.release(account, id_, act())
    with pytest.raises(ledger.HoldEnded):
        ledger.capture(account, id_, 1, act())


# --- what happens by itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "expected", "happened"),
    [
        pytest.param(0, (5, 15, 0, 0), [], id="nothing yet"),
        pytest.param(2, (5, 15, 0, 0), [], id="held points do not expire"),
        pytest.param(3, (10, 0, 0, 0), ["release", "expiration"], id="when their hold ends they do"),
        pytest.param(30, (0, 0, 0, 0), ["release", "expiration", "expiration"], id="the others in their time"),
    ],
)
def test_what_is_due_happens(on: int, expected: tuple[int, int, int, int], happened: list[str]) -> None:
    account, _ = held()
    after = ledger.settle(account, day(on), UTC)
    assert figures(after) == expected
    assert kinds(after)[len(kinds(account)) :] == happened
    check(after)


def test_everything_happens_at_its_own_instant() -> None:
    """Long after: pending points came first, then the hold ended and what it protected expired, then the rest."""
    account, _ = held()
    account = ledger.settle(earned(account, 7, 40, available=2), day(100), UTC)
    happened = [(entry["kind"], entry["occurred_at"]) for entry in account.rows.entries[-5:]]
    assert happened == [
        ("activation", day(2)),
        ("release", day(3)),
        ("expiration", day(3)),
        ("expiration", day(30)),
        ("expiration", day(40)),
    ]
    assert account.next_due_at is None
    check(account)


def test_what_arrives_late_and_has_expired_expires_at_its_instant() -> None:
    account = earned(EMPTY, 10, -2, at=-9, recorded=0)
    assert figures(account) == (0, 0, 0, 0)
    assert [(entry["kind"], entry["occurred_at"]) for entry in account.rows.entries] == [
        ("accrual", day(-9)),
        ("expiration", day(-2)),
    ]
    assert account.lifetime == 10


# --- debt -----------------------------------------------------------------------------------------------------------


def owing(points: int = 10) -> Account:
    """An account that owes: it earned, spent, and brought the goods back."""
    account = ledger.spend(earned(EMPTY, points, document_id=(document := new_id())), points, act())
    account, _ = ledger.reverse(account, [(granted_in(account, document), points)], act(), None, 0)
    return account


def granted_in(account: Account, document_id: UUID) -> GrantedLot:
    """The lot of a document as it was when nothing of it had been written."""
    facts = next(facts for facts in account.rows.lots if facts["document_id"] == document_id)
    lot = account.lots[facts["id"]]
    return GrantedLot(lot, facts["granted"], facts["allocated"], 0, facts["expected"], 0, 0, 0, 0, 0, 0)


def test_every_credit_pays_debt_first() -> None:
    giver = earned(Account(OTHER, PROGRAM), 12)
    expired = ledger.settle(earned(EMPTY, 12, 1), day(2), UTC)
    credited: dict[str, Any] = {
        "accrual": earned(owing(), 12),
        "activation": ledger.settle(earned(owing(), 12, available=1), day(1), UTC),
        "transfer": ledger.transfer(giver, owing(), 12, act())[1],
        "reinstatement": ledger.reinstate(owing(), newest(expired), 12, None, act()),
    }
    assert {kind: figures(account) for kind, account in credited.items()} == dict.fromkeys(credited, (2, 0, 0, 0))
    assert {kind: kinds(account)[-1] for kind, account in credited.items()} == dict.fromkeys(credited, "debt_payment")


def test_debt_is_written_off_at_most_whole() -> None:
    assert figures(ledger.write_off(owing(), 4, act())) == (0, 0, 0, 6)
    assert figures(ledger.write_off(owing(), 40, act())) == (0, 0, 0, 0)


# --- moves ----------------------------------------------------------------------------------------------------------


def test_transferred_points_keep_expiry_and_cohort() -> None:
    giver, receiver = ledger.transfer(earned(earned(EMPTY, 10, 5), 10, 30), Account(OTHER, PROGRAM), 14, act())
    assert (figures(giver), figures(receiver)) == ((6, 0, 0, 0), (14, 0, 0, 0))
    arrived = sorted(receiver.lots.values(), key=lambda lot: lot.id)
    assert [(lot.remaining, lot.expires_at, lot.cohort_id) for lot in arrived] == [
        (10, day(5), COHORT.id),
        (4, day(30), COHORT.id),
    ]
    assert all(facts["allocated"] == 0 and facts["source_lot_id"] for facts in receiver.rows.lots)
    assert (receiver.lifetime, receiver.qualifying) == (0, 0)
    check(giver)
    check(receiver)


def test_extended_points_live_on() -> None:
    account = earned(EMPTY, 10, 5)
    account = ledger.extend(account, newest(account).id, day(50), act())
    assert ledger.settle(account, day(49), UTC).available == 10
    assert ledger.settle(account, day(50), UTC).available == 0
    check(account)


@pytest.mark.parametrize("comes", [True, False])
def test_what_waits_for_an_event(comes: bool) -> None:
    document = new_id()
    cause = Accrual(10, act(document_id=document), COHORT, 10, 0, 0, day(9), None)
    account = ledger.accrue(EMPTY, cause)
    assert figures(account) == (0, 0, 10, 0)
    if comes:
        account = ledger.activate(account, [document], act(day(1)), day(50), lapses=False)
    else:
        account = ledger.cancel(account, document, act(day(1)))
    assert figures(ledger.settle(account, day(49), UTC)) == (10 if comes else 0, 0, 0, 0)
    check(account)


# --- returns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spent", "elsewhere", "limit", "expected"),
    [
        pytest.param(0, 0, None, (0, 0, 0), id="all is there"),
        pytest.param(6, 0, None, (0, 6, 0), id="what was spent is owed"),
        pytest.param(6, 4, None, (0, 2, 0), id="other points pay first"),
        pytest.param(6, 9, None, (3, 0, 0), id="no more than that"),
        pytest.param(6, 0, 5, (0, 5, 1), id="debt has a limit"),
        pytest.param(6, 0, 0, (0, 0, 6), id="or is not allowed"),
    ],
)  # fmt: skip
def test_what_a_return_takes(spent: int, elsewhere: int, limit: int | None, expected: tuple[int, int, int]) -> None:
    """Of 10 points; answers what is left, owed, and forgiven."""
    account, document = EMPTY, new_id()
    account = earned(account, 10, document_id=document)
    if spent:
        account = ledger.spend(account, spent, act())
    if elsewhere:
        account = earned(account, elsewhere, at=1)
    account, reversal = ledger.reverse(account, [(granted_in(account, document), 10)], act(day(1)), limit, 0)
    assert (account.available, account.debt, reversal.missing) == expected
    assert reversal.taken + reversal.debt + reversal.missing == 10
    check(account)


def test_what_has_expired_is_not_taken_again() -> None:
    document = new_id()
    account = ledger.settle(earned(EMPTY, 10, 1, document_id=document), day(2), UTC)
    account, reversal = ledger.reverse(account, [(granted_in(account, document), 10)], act(day(2)), None, 0)
    assert (reversal.taken, reversal.expired, reversal.debt) == (0, 10, 0)
    assert figures(account) == (0, 0, 0, 0)


def test_the_void_of_a_return_undoes_it() -> None:
    document = new_id()
    before = ledger.spend(earned(EMPTY, 10, document_id=document), 6, act())
    account, _ = ledger.reverse(before, [(granted_in(before, document), 10)], act(), None, 0)
    entry = account.rows.entries[-1]
    uses = [use for entry_id, _, use in account.rows.uses if entry_id == entry["id"]]
    returns = [each for _, each in account.rows.returns]
    covers = [each for _, each in account.rows.covers]
    done = Reversed(uses, returns, covers, -entry["qualifying"])
    undone = ledger.undo(account, done, act())
    assert figures(undone) == figures(before)
    assert left(undone) == left(before)
    check(undone)
    paid = ledger.undo(earned(account, 9), done, act())
    assert figures(paid) == (4 + 9, 0, 0, 0), "6 points have paid the debt; they come back"
    check(paid)
    forgiven = ledger.undo(ledger.write_off(account, 6, act()), done, act())
    assert figures(forgiven) == figures(before), "what was written off is not given a second time"


@pytest.mark.parametrize(
    ("on", "revive", "until", "expected", "gone"),
    [
        pytest.param(0, False, None, 10, 0, id="to their lot"),
        pytest.param(6, False, None, 0, 10, id="stay expired"),
        pytest.param(6, True, 9, 10, 0, id="some days of grace"),
        pytest.param(6, True, None, 10, 0, id="a new lot that stays"),
    ],
)
def test_spent_points_come_back(on: int, revive: bool, until: int | None, expected: int, gone: int) -> None:
    account = ledger.spend(earned(EMPTY, 10, 5), 10, act())
    spent = [SpentPart(newest(account), 10, 0)]
    revived = None if until is None else day(until)
    account, stayed, _ = ledger.restore(account, spent, 10, act(day(on)), revived, revive=revive)
    assert (account.available, stayed) == (expected, gone)
    check(account)
    if revive:
        assert newest(account).expires_at == revived


def test_points_come_back_whose_own_purchase_came_back_before() -> None:
    """They had been counted as used, and were taken back as such; the debt that this made is gone."""
    document = new_id()
    account = ledger.spend(earned(EMPTY, 10, document_id=document), 10, act())
    account, _ = ledger.reverse(account, [(granted_in(account, document), 10)], act(), None, 0)
    spent = [SpentPart(account.lots[granted_in(account, document).lot.id], 10, 0)]
    account, *_ = ledger.restore(account, spent, 10, act(), None, revive=False)
    assert [(use.points, use.effect) for _, _, use in account.rows.uses] == [(10, "used")]
    assert account.covers == ()
    assert figures(account) == (0, 0, 0, 0)


def test_an_activity_puts_off_the_lapse_of_points_that_it_does_not_touch() -> None:
    account = EMPTY
    for lapse, until in ((30, None), (60, day(90))):
        cause = replace(act(), lapses_at=day(lapse))
        account = ledger.accrue(account, Accrual(10, cause, COHORT, 10, 0, 0, until, NOW, lapses=until is None))
    assert account.next_due_at == day(60)


# --- any order ------------------------------------------------------------------------------------------------------


def test_whatever_order_the_sums_hold() -> None:
    """Five hundred lives of forty movements."""
    chance = random.Random(5)
    refused = 0
    for _ in range(500):
        account, on = EMPTY, 0
        for _ in range(40):
            on += chance.choice([0, 0, 0, 1, 4])
            account = ledger.settle(account, day(on), UTC)
            try:
                account = something(chance, account, on)
            except Problem:
                refused += 1
            assert min(figures(account)) >= 0
            assert rules.due(account) is account, "whatever comes next is known"
            assert not (account.debt and account.available)
        check(account)
    assert 1_000 < refused < 10_000


def something(chance: random.Random, account: Account, on: int) -> Account:
    """One movement on the day `on`."""
    points, cause = chance.randint(1, 20), act(day(on))
    match chance.randrange(6):
        case 0 | 1:
            expires, available = on + chance.randint(3, 9), on + chance.choice([0, 0, 2])
            return earned(account, points, expires, at=on, available=available)
        case 2:
            return ledger.spend(account, points, cause)
        case 3:
            return ledger.hold(account, new_id(), points, day(on + chance.randint(1, 9)), cause)
        case 4 if account.holds:
            return ledger.capture(account, chance.choice(list(account.holds)), points, cause)
        case 5 if account.rows.lots:
            return returned(chance, account, cause)
        case _:
            return ledger.write_off(account, points, cause)


def returned(chance: random.Random, account: Account, cause: Act) -> Account:
    """The account after some purchase came back that has not come back before."""
    roots = [granted_in(account, facts["document_id"]) for facts in account.rows.lots]
    before = {each.lot.id for _, each in account.rows.returns}
    fresh = [root for root in roots if root.lot.id not in before]
    if not fresh:
        return account
    root = chance.choice(fresh)
    return ledger.reverse(account, [(root, root.granted)], cause, chance.choice([None, 5]), 0)[0]
