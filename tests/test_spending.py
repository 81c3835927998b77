"""Which lots pay, and what becomes of them when they are given away. No database."""

from dataclasses import replace
from datetime import timedelta

from app import ledger
from app.ids import new_id
from tests.accounts import COHORT, NOW, act, member


def test_a_part_is_paid_by_what_expires_first() -> None:
    """The lots of a hold come back from the database by their id: the oldest first, which need not expire first."""
    late, soon = NOW + timedelta(days=90), NOW + timedelta(days=30)
    account = ledger.hold(member((100, late), (100, soon)), hold_id := new_id(), 150, None, act())
    old, young = sorted(account.lots.values(), key=lambda lot: lot.id)
    stored = account.holds[hold_id]
    account = replace(account, holds={hold_id: replace(stored, parts=tuple(sorted(stored.parts)))})
    account = ledger.capture(account, hold_id, 100, act())
    assert account.lots[young.id].remaining == 0
    assert (account.lots[old.id].remaining, account.lots[old.id].held) == (100, 0)


def test_given_points_keep_expiry_and_cohort() -> None:
    """120 points out of two lots: all that expires soon and 20 of the others."""
    late, soon = NOW + timedelta(days=90), NOW + timedelta(days=30)
    giver, receiver = ledger.transfer(member((100, late), (100, soon)), member(), 120, act())
    assert (giver.available, receiver.available) == (80, 120)
    given = sorted((lot.remaining, lot.expires_at, lot.cohort_id) for lot in receiver.lots.values())
    assert given == [(20, late, COHORT.id), (100, soon, COHORT.id)]


def test_points_that_lapse_by_inactivity_keep_their_day_when_given_away() -> None:
    """The receiver was inactive for so long that points of theirs would have lapsed, or was never active at all: what
    they are given is good for as long as it was at the giver."""
    then, day = NOW - timedelta(days=400), timedelta(days=1)
    giver = member((100, None), lapses_at=NOW + timedelta(days=7))
    for lapsed in (replace(member(), lapses_at=then), member()):
        _, receiver = ledger.transfer(giver, lapsed, 100, act())
        assert receiver.available == 100
        assert receiver.next_due_at == NOW + timedelta(days=7)
        moved = act()
        assert ledger.settle(receiver, NOW + 6 * day, moved.zone).available == 100
        assert ledger.settle(receiver, NOW + 7 * day, moved.zone).available == 0
