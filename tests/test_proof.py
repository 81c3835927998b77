"""The proof finds what it says it finds: each check goes red when the books are tampered with."""

import json
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.insight import CHECKS, prove
from app.worker import run_jobs
from tests.points import publish
from tests.shop import TERMS, Shop, make_program, purchase, returned
from tests.test_guards import TRIGGERS, table_of
from tests.test_rewards import added, member_with, ordered
from tests.test_vouchers import FIVE_OFF

TAMPERING = {
    "accounts_are_sums_of_entries": "UPDATE point_account SET lifetime = lifetime + 1",
    "balance_is_sum_of_lots": "UPDATE lot SET remaining = remaining - 1",
    "entries_are_numbered_without_gaps": "UPDATE point_entry SET number = number + 100 WHERE number = 3",
    "entries_carry_the_running_balance": "UPDATE point_entry SET balance_after = balance_after + 1",
    "entries_move_lots": "UPDATE point_entry SET points = points + 1, available = available + 1",
    "next_due_is_known": "UPDATE point_account SET next_due_at = NULL",
    "documents_granted_their_points": "UPDATE \"transaction\" SET points = points + 1 WHERE external_id = 'r1'",
    "bonuses_are_in_their_lots": "UPDATE point_entry SET kind = 'bonus' WHERE kind = 'accrual'",
    "budgets_are_sums_of_grants": "INSERT INTO campaign_budget (program_id, campaign, points, grants) "
    "SELECT id, 'birthday', 1, 1 FROM program",
    "rule_budgets_are_what_members_were_given": "INSERT INTO rule_budget (program_id, rule, reserved, budget) "
    "SELECT id, 'welcome', 1, 1 FROM program",
    "deferrals_are_posted": "UPDATE journal_posting SET amount = amount + 1",
    "cohorts_are_sums_of_lots": "UPDATE cohort SET residue = residue + 1",
    "liability_is_sum_of_cohorts": "DELETE FROM journal_posting",
    "provision_is_sum_of_cohorts": "UPDATE journal_posting SET credit = '2300'",
    "recognised_is_posted": "UPDATE cohort SET recognised = recognised + 1",
    "clearing_is_points_tendered": "UPDATE journal_posting SET credit = '2190' WHERE credit = '2100'",
    "forgiven_costs_were_booked": "UPDATE journal_posting SET cause = 'write_off' WHERE cause = 'fulfilment'",
    "lots_are_what_uses_left": "UPDATE lot SET granted = granted + 1",
    "held_points_are_of_open_holds": "UPDATE lot SET held = held + 1",
    "moved_points_live_on": "UPDATE lot SET source_lot_id = id, allocated = 0, residue = 0, expected = 0",
    "returns_are_within_lots": "UPDATE lot_return SET allocated = allocated + 100",
    "debt_is_owed_for_something": "UPDATE point_account SET debt = debt + 1",
    "lots_stand_in_once": "INSERT INTO cover (member_id, id, entry_id, lot_id, by_lot_id, points, effect, forgiven) "
    "SELECT member_id, id, entry_id, id, id, 1, 'used', false FROM lot WHERE remaining = granted",
    "transfers_conserve_points": "UPDATE point_entry SET kind = 'transfer_in' WHERE kind = 'accrual'",
    "transfers_moved_their_points": "INSERT INTO transfer (id, program_id, from_member_id, to_member_id, points, "
    "client_id, occurred_at, recorded_at) SELECT id, program_id, (SELECT id FROM member ORDER BY id LIMIT 1), "
    "(SELECT id FROM member ORDER BY id DESC LIMIT 1), 1, (SELECT id FROM client LIMIT 1), occurred_at, recorded_at "
    "FROM \"transaction\" WHERE external_id = 'r1'",
    "money_is_posted_whole": "UPDATE journal_posting SET debit = '1000' WHERE debit = '4000'",
    "transactions_hold_their_keys": "DELETE FROM transaction_key",
    "rows_belong_to_one_program": "UPDATE point_account SET program_id = (SELECT id FROM program WHERE code = 'other')",
    "orders_hold_their_points": "UPDATE redemption SET points = points + 1 WHERE status = 'ordered'",
    "redemptions_took_their_points": "UPDATE redemption SET points = points + 1 WHERE status = 'fulfilled'",
    "fulfilments_are_posted": "UPDATE redemption SET cost = cost + 1 WHERE status = 'fulfilled'",
    "vouchers_are_issued": "DELETE FROM voucher",
    "supplies_count_their_orders": "UPDATE reward SET taken = taken + 1 WHERE supply IS NOT NULL",
    "standings_are_sums_of_entries": "UPDATE member_tier SET spend = spend + 1",
    "tiers_are_their_last_change": "UPDATE member_tier SET tier = 'gold'",
    "purchases_count_what_they_earned": "UPDATE qualifying_entry SET points = points + 1",
    "memberships_have_left_what_is_posted": "UPDATE club_membership SET recognised = recognised + 1 WHERE fee > 0",
    "promises_are_sums_of_credits": "UPDATE club_membership SET spent = spent + 1",
    "memberships_follow_each_other": "UPDATE club_membership SET club = 'friends', follows_id = id "
    "WHERE promised IS NOT NULL",
    "cards_hold_their_stamps": "UPDATE stamp_card SET stamps = stamps + 1",
    "stamps_are_points": "UPDATE stamp SET points = points + 1",
    "points_wait_on_open_cards": "UPDATE lot SET pending = false, available_from = occurred_at WHERE pending",
}
"""For each check a way to make it fail."""


SILVER = {"code": "silver", "name": "Silver", "qualification": {"spend": 1000}}


@pytest.fixture
def busy(shop: Shop) -> Shop:
    """Purchases of two members, a claim, a return, an order and a voucher, some of it folded; a tier, a stamp; and
    another programme."""
    shop.post(purchase("r1", 1234))
    run_jobs(shop.database, shop.clock())
    shop.post(purchase("r2", 567))
    guest = shop.post(purchase("g1", member=None)).json()
    shop.http.post(f"/v1/transactions/{guest['id']}/claim", json={"member": {"card": "900"}})
    assert shop.post(returned(of="r2", total=100)).status_code == 201
    _redeem(shop)
    shop.post(purchase("r3", member={"card": "901"}))
    shop.database.write(lambda session: make_program(session, TERMS, shop.clock(), "other"))
    _reach_a_tier_and_get_a_stamp(shop)
    _join_clubs(shop)
    shop.prove()
    return shop


def _reach_a_tier_and_get_a_stamp(shop: Shop) -> None:
    ten = {"code": "ten", "name": "Ten", "stamps": 10, "head_start": 2, "points_per_stamp": 5}
    publish(shop, TERMS | {"tiers": {"levels": [SILVER]}, "stamp_cards": [ten]})
    shop.clock.forward(hours=1)
    shop.post(purchase("t1", 2000, occurred_at=shop.clock().isoformat()))


def _join_clubs(shop: Shop) -> None:
    paid = {"type": "fee", "fee": 1000, "months": 12, "welcome_points": 100}
    promised = {"type": "promise", "spend": 5000, "months": 12}
    joining = {"friends": paid, "regulars": promised}
    clubs = [{"code": code, "name": code, "joining": how} for code, how in joining.items()]
    publish(shop, TERMS | {"tiers": {"levels": [SILVER]}, "clubs": clubs})
    shop.clock.forward(hours=1)
    member = shop.get("/v1/members/lookup", card="900")["id"]
    receipt = {"receipt": {"source": "store-1", "external_id": "f1"}}
    for club, body in (("friends", receipt), ("regulars", {})):
        path = f"/v1/members/{member}/clubs/{club}"
        assert shop.http.post(path, json=body, headers={"Idempotency-Key": club}).status_code == 201
    shop.post(purchase("c1", 2000, occurred_at=shop.clock().isoformat()))


def _redeem(shop: Shop) -> None:
    added(shop, points=2, supply=9)
    added(shop, **FIVE_OFF | {"points": 3})
    member = member_with(shop, 10, card="902")
    ordered(shop, member)
    ordered(shop, member, "five-off", immediate=True)


def tamper(shop: Shop, statement: str) -> None:
    """What nobody can do through the service, or against the guards of the schema."""
    with shop.database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET session_replication_role = replica"))
        else:
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            for trigger in sorted(TRIGGERS["sqlite"]):
                if table_of(trigger) in statement.replace('"', "").split():
                    connection.execute(text(f"DROP TRIGGER {trigger}"))
        assert connection.execute(text(statement)).rowcount > 0
        connection.commit()
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET session_replication_role = DEFAULT"))
            connection.commit()


def test_every_check_has_its_tampering() -> None:
    assert {check.__name__ for check in CHECKS} == set(TAMPERING)


@pytest.mark.parametrize("check", TAMPERING)
def test_a_check_finds_what_was_tampered_with(busy: Shop, check: str) -> None:
    tamper(busy, TAMPERING[check])
    proof = busy.get("/v1/proof")
    failed = {result["name"]: result for result in proof["checks"] if result["differences"]}
    assert proof["holds"] is False
    assert check in failed
    first = failed[check]["shown"][0]
    assert first["expected"] != first["actual"]


def test_the_proof_of_one_programme_is_silent_about_another(busy: Shop) -> None:
    tamper(busy, TAMPERING["accounts_are_sums_of_entries"])
    with busy.database.engine.connect() as connection:
        id_ = connection.execute(text("SELECT id FROM program WHERE code = 'other'")).scalar_one()
    other = UUID(str(id_))
    assert busy.database.read(lambda session: prove(session, other)).holds
    assert not busy.database.read(lambda session: prove(session, busy.program_id)).holds
    assert not busy.database.read(prove).holds


def test_many_differences_are_counted_and_the_first_are_shown(shop: Shop) -> None:
    shop.batch([purchase(f"r{number}", member={"card": str(number)}) for number in range(30)])
    tamper(shop, TAMPERING["accounts_are_sums_of_entries"])
    checks: list[dict[str, Any]] = shop.get("/v1/proof")["checks"]
    by_name = {check["name"]: check for check in checks}
    assert by_name["accounts_are_sums_of_entries"]["differences"] == 30
    assert len(by_name["accounts_are_sums_of_entries"]["shown"]) == 20
    assert len(json.dumps(checks)) < 20_000


def test_a_proof_joins_whole_tables(busy: Shop) -> None:
    """Row by row it would take hours where a million points have expired. Nobody after it is concerned."""
    if busy.database.one_writer:
        pytest.skip("SQLite joins as it does")
    asked = text("SHOW enable_nestloop")
    assert busy.database.read(lambda session: (prove(session), session.scalar(asked))[1]) == "off"
    assert {busy.database.read(lambda session: session.scalar(asked)) for _ in range(3)} == {"on"}
