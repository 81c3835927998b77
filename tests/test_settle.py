"""What is due happens instant by instant: as if the whole account were looked at again after each, but sooner."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ids import new_id
from app.ledger import Account, Act, OpenLot, rules, settle
from app.ledger.rules import Cover, OpenHold
from tests.accounts import COHORT, NOW, PROGRAM

LATER = NOW + timedelta(days=9)
"""When it is recorded."""

days = st.integers(0, 12).map(lambda number: NOW + timedelta(days=number))


def by_looking_again(
    account: Account, now: datetime, since: datetime | None = None, until: datetime | None = None
) -> Account:
    """The account settled the plain way: whatever is due next, until nothing is."""
    cursor, end = since, now if until is None else until
    while account.next_due_at is not None and account.next_due_at <= end:
        cursor = account.next_due_at if cursor is None else max(cursor, account.next_due_at)
        account = rules._activate_due(account, cursor, now, UTC)
        for hold in [hold for hold in account.holds.values() if hold.ends_at is not None and hold.ends_at <= cursor]:
            account = rules.end_hold(account, hold, 0, "expired", Act(PROGRAM, hold.id, cursor, now, UTC))
        account = rules.due(rules._expire_due(account, cursor, now, UTC))
    return account


@st.composite
def lots(draw: st.DrawFn) -> OpenLot:
    points, pending, lapses = draw(st.integers(1, 9)), draw(st.booleans()), draw(st.booleans())
    available_from = draw(st.none() | days) if pending else NOW
    expires_at = None if lapses else draw(st.none() | days)
    return lot(points, 0, pending, available_from, expires_at, lapses)


def lot(
    points: int,
    held: int,
    pending: bool,
    available_from: datetime | None,
    expires_at: datetime | None,
    lapses: bool = False,
) -> OpenLot:
    times = (pending, available_from, expires_at, lapses)
    return OpenLot(new_id(), points, held, *times, COHORT.id, "USD", "purchase", new_id(), NOW, points)


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    """With lots, holds of parts of them, and debt; the next instant known may be one at which nothing is due."""
    open_lots = {lot.id: lot for lot in draw(st.lists(lots(), max_size=9))}
    holds = {}
    for ends_at in draw(st.lists(st.none() | days, max_size=4)):
        parts: list[tuple[UUID, int]] = []
        for lot in [lot for lot in open_lots.values() if not lot.pending and lot.free and draw(st.booleans())]:
            parts.append((lot.id, draw(st.integers(1, lot.free))))
            open_lots[lot.id] = replace(lot, held=lot.held + parts[-1][1])
        if parts:
            hold = OpenHold(new_id(), sum(points for _, points in parts), ends_at, tuple(parts))
            holds[hold.id] = hold
    account = Account(
        new_id(),
        PROGRAM,
        available=sum(lot.free for lot in open_lots.values() if not lot.pending),
        held=sum(lot.held for lot in open_lots.values()),
        pending=sum(lot.remaining for lot in open_lots.values() if lot.pending),
        lapses_at=draw(days),
        lots=open_lots,
        loaded=open_lots,
        holds=holds,
    )
    of = draw(st.lists(lots() | st.none(), max_size=3, unique_by=lambda lot: None if lot is None else lot.document_id))
    owed = [Cover(each, None, draw(st.sampled_from(["used", "moved"])), draw(st.integers(1, 9))) for each in of]
    standing = [Cover(each, next(iter(open_lots.values()), None), "used", 2) for each in of if each and open_lots]
    covers = draw(st.permutations([*owed, *standing]))
    known = draw(st.booleans()) or owed
    account = account.but(debt=sum(each.points for each in owed), covers=tuple(covers) if known else None)
    account = rules.due(account)
    if account.next_due_at is not None and draw(st.booleans()):
        account = account.but(next_due_at=min(account.next_due_at, draw(days)))
    return account


def numbered() -> Callable[[], UUID]:
    """Ids that are the same each time."""
    return partial(next, map(UUID, map("{:032x}".format, count())))


@given(accounts(), st.none() | days, st.none() | days)
@settings(max_examples=400, derandomize=True, deadline=None)
def test_the_same_entries_in_the_same_order_at_the_same_instants(
    account: Account, since: datetime | None, until: datetime | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "new_id", numbered())
        one = settle(account, LATER, UTC, since, until)
        patch.setattr(rules, "new_id", numbered())
        other = by_looking_again(account, LATER, since, until)
    assert one == other
    assert list(one.lots) == list(other.lots)
    assert list(one.holds) == list(other.holds)


@pytest.mark.parametrize("what", ["expiring", "pending", "pending and owed", "held"])
def test_lots_are_looked_at_as_often_however_many_instants_there_are(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Counter[int]()
    expiry_of = Account.expiry_of
    for number in (50, 200):

        def counted(account: Account, lot: OpenLot, number: int = number) -> datetime | None:
            looked[number] += 1
            return expiry_of(account, lot)

        account = crowd(what, number)
        with monkeypatch.context() as patch:
            patch.setattr(Account, "expiry_of", counted)
            account = settle(account, NOW + timedelta(days=300), UTC)
        assert len({entry["occurred_at"] for entry in account.rows.entries}) == number
    assert looked[200] < 5 * looked[50]


def crowd(what: str, number: int) -> Account:
    """An account to which something happens on each of so many days."""
    ends = [NOW + timedelta(days=each) for each in range(number)]
    pending = what.startswith("pending")
    open_lots, holds = {}, {}
    for at in ends:
        one = lot(10, 0, True, at, None) if pending else lot(10, 5 if what == "held" else 0, False, NOW, at)
        open_lots[one.id] = one
        if what == "held":
            hold = OpenHold(new_id(), 5, at, ((one.id, 5),))
            holds[hold.id] = hold
    debt = 10 * number if what == "pending and owed" else 0
    held = 5 * len(holds)
    return rules.due(
        Account(
            new_id(),
            PROGRAM,
            available=0 if pending else 10 * number - held,
            held=held,
            pending=10 * number if pending else 0,
            debt=debt,
            lots=open_lots,
            holds=holds,
            covers=(Cover(None, None, "used", debt),) if debt else (),
        )
    )
