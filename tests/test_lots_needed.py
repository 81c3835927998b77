"""Decisions read only the lots they need: the result is what it would be with all of them, on both engines."""

from datetime import timedelta
from random import Random
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from app import ledger, programs
from app.accounting import CohortKey
from app.ids import new_id
from app.ledger import Account, Accrual, Act, Need
from tests.conftest import Engines, settings_for
from tests.points import move, publish
from tests.shop import TERMS, Shop, TestClock, open_shop
from tests.test_returns import FEW, bought, member_of

KEY = {"Idempotency-Key": "one"}


def stocked(shop: Shop, random: Random) -> UUID:
    """A member with lots of all sorts: with an end and without, pending, held in part and whole, spent in part."""
    answer = shop.http.post("/v1/members", json={"identifiers": [{"kind": "card", "value": "900"}]}, headers=KEY)
    member_id, now = UUID(answer.json()["id"]), shop.clock()

    def grant(account: Account, act: Act) -> Account:
        cohort = CohortKey(shop.program_id, "USD", act.period, "purchase", "default")
        for _ in range(random.randrange(1, 25)):
            days, pending = random.choice([None, 20, 40, 60]), random.random() < 0.2
            ends_at = None if days is None else now + timedelta(days=days)
            begins_at = now + timedelta(days=random.randrange(1, 15)) if pending else now
            points = random.randrange(1, 50)
            account = ledger.accrue(account, Accrual(points, act, cohort, 0, 0, 0, ends_at, begins_at))
        for _ in range(random.randrange(3)):
            if account.available > 3:
                ends_at = now + timedelta(days=random.randrange(1, 70))
                part = random.randrange(1, account.available // 2 + 1)
                account = ledger.hold(account, new_id(), part, ends_at, act)
        return account

    move(shop, member_id, grant)
    return member_id


def facts(account: Account, before: Account) -> tuple[object, ...]:
    """What a decision comes to, but for ids."""
    uses = [(use.lot.id, use.points, use.effect) for _, _, use in account.rows.uses]
    holds = [row["parts"] for row in account.rows.holds]
    figures = (account.available, account.held, account.pending)
    return before.expiring_next, account.expiring_next, uses, holds, figures


@pytest.mark.parametrize("seed", range(15))
def test_the_lots_that_suffice_are_enough(shop: Shop, seed: int) -> None:
    random = Random(seed)
    member_id = stocked(shop, random)

    def compare(session: Session) -> None:
        now, zone = shop.clock(), programs.zone_at(session, shop.program_id, shop.clock())
        whole = ledger.look(session, [member_id], now, zone, [member_id])[member_id]
        act = Act(shop.program_id, new_id(), now, now, zone)
        has = whole.available
        for points in {1, 2, has // 3, has // 2, has - 1, has} & set(range(1, has + 1)):
            need = {member_id: Need(points)}
            part = ledger.look(session, [member_id], now, zone, needs=need)[member_id]
            assert facts(ledger.spend(part, points, act), part) == facts(ledger.spend(whole, points, act), whole)
            ends_at = now + timedelta(days=5)
            held = [ledger.hold(account, act.document_id, points, ends_at, act) for account in (part, whole)]
            assert facts(held[0], part) == facts(held[1], whole)
            left, left_of_all = (ledger.spend(account, points, act).next_due_at for account in (part, whole))
            assert left == left_of_all
            if points <= has // 3 and len(whole.lots) > 6:
                assert len(part.lots) < len(whole.lots)

    shop.database.read(compare)


def test_a_document_brings_its_lots(shop: Shop) -> None:
    """However late they would be used, and however few points are needed of others."""
    random = Random(1)
    member_id = stocked(shop, random)

    def compare(session: Session) -> None:
        now, zone = shop.clock(), programs.zone_at(session, shop.program_id, shop.clock())
        whole = ledger.look(session, [member_id], now, zone, [member_id])[member_id]
        document_id = next(iter(whole.lots.values())).document_id
        need = {member_id: Need(0, frozenset({document_id}))}
        part = ledger.look(session, [member_id], now, zone, needs=need)[member_id]
        assert part.lots == {id_: lot for id_, lot in whole.lots.items() if lot.document_id == document_id}

    shop.database.read(compare)


def test_an_activity_of_the_same_batch_moves_the_lapse(engines: Engines, engine: str) -> None:
    """A lot with an end, and one that lapses before it until a purchase puts that off: the next spend takes the former
    first, in one upload as one by one."""
    left = []
    for at_once in (True, False):
        with open_shop(settings_for(engines.fresh(engine)), TestClock(), TERMS | FEW) as shop:
            assert shop.post(bought("fixed", 1000)).status_code == 201
            publish(shop, TERMS | FEW | {"expiry": {"mode": "inactivity", "months": 12, "round_up_to": "day"}})
            shop.clock.forward(minutes=5)
            assert shop.post(bought("lapses", 1000, occurred_at=shop.clock().isoformat())).status_code == 201
            shop.clock.forward(days=28)
            now = shop.clock().isoformat()
            bodies = [bought("c1", 100, occurred_at=now), bought("c2", 900, points=400, occurred_at=now)]
            for batch in [bodies] if at_once else [[body] for body in bodies]:
                assert {result["status"] for result in shop.batch(batch)} == {201}
            left.append([lot["remaining"] for lot in shop.get(f"/v1/members/{member_of(shop)}/lots")["items"]])
    assert left[0] == left[1]
    assert left[0][0] == 600


def test_without_the_lots_nothing_is_spent(shop: Shop) -> None:
    """Too few lots are a mistake of ours: it is found before anything is written."""
    member_id = stocked(shop, Random(2))

    def spend(session: Session) -> None:
        now, zone = shop.clock(), programs.zone_at(session, shop.program_id, shop.clock())
        account = ledger.claim(session, [member_id], now, zone)[member_id]
        with pytest.raises(AssertionError, match="without the lots"):
            ledger.spend(account, account.available, Act(shop.program_id, new_id(), now, now, zone))

    shop.database.write(spend)
