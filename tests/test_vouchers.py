"""Vouchers: codes that nobody can guess and nothing stores, which a till looks up and burns once."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.db import Base
from app.redemptions.codes import code_of
from tests.shop import PEPPER, TERMS, Shop, make_key, make_program
from tests.test_rewards import added, balance, end, events, member_with, ordered, redeem, refusal

FIVE_OFF: dict[str, Any] = {
    "code": "five-off",
    "name": "5.00 off",
    "points": 500,
    "item": {"kind": "voucher", "value": 500, "valid_days": 90},
}
RECEIPT = {"source": "store-1", "external_id": "r77"}


@pytest.fixture
def voucher_shop(shop: Shop) -> Shop:
    """A shop whose catalogue has one voucher: 5.00 off for 500 points, good for 90 days."""
    added(shop, **FIVE_OFF)
    return shop


def issued(shop: Shop, quantity: int = 1) -> dict[str, Any]:
    """The answer to a till's redemption of `quantity` vouchers by a new member."""
    member = member_with(shop, 500 * quantity, card=uuid4().hex)
    return ordered(shop, member, "five-off", quantity=quantity, immediate=True)


def new_code(shop: Shop) -> str:
    code: str = issued(shop)["vouchers"][0]["code"]
    return code


def look_up(shop: Shop, code: str) -> Any:
    return shop.client("terminal").get(f"/v1/vouchers/{code}")


def burn(shop: Shop, code: str, **receipt: str) -> Any:
    return shop.client("terminal").post(f"/v1/vouchers/{code}/burn", json=RECEIPT | receipt)


def cancel(shop: Shop, code: str) -> Any:
    return shop.http.post(f"/v1/vouchers/{code}/cancellation")


# --- issue ----------------------------------------------------------------------------------------------------------


def test_each_piece_is_a_voucher_of_its_own(voucher_shop: Shop) -> None:
    vouchers = issued(voucher_shop, quantity=3)["vouchers"]
    assert len({voucher["code"] for voucher in vouchers}) == 3
    first = vouchers[0]
    assert first == {
        "id": first["id"],
        "code": code_of(UUID(first["id"]), PEPPER.encode()),
        "value": {"amount": 500, "currency": "USD"},
        "issued_at": "2026-11-22T12:00:00+00:00",
        "expires_at": "2027-02-21T05:00:00+00:00",
        "status": "issued",
    }
    assert events(voucher_shop) == ["redemption.ordered", "redemption.fulfilled", *["voucher.issued"] * 3]
    voucher_shop.prove()


def test_an_order_has_no_voucher_until_it_is_fulfilled(voucher_shop: Shop) -> None:
    order = ordered(voucher_shop, member_with(voucher_shop, 500), "five-off")
    assert order["vouchers"] == []
    voucher_shop.clock.forward(days=10)
    voucher = end(voucher_shop, order, "fulfilment").json()["vouchers"][0]
    assert voucher["expires_at"] == "2027-03-03T05:00:00+00:00", "its days count from its issue"
    assert look_up(voucher_shop, voucher["code"]).status_code == 200


def test_a_retry_shows_the_code_again_and_nothing_keeps_it(voucher_shop: Shop) -> None:
    """The answer kept for retries is in the database; the code is put in on the way out."""
    member = member_with(voucher_shop, 500)
    with StringIO() as log, redirect_stderr(log):
        first, again = (
            redeem(voucher_shop, member, "five-off", key="k", immediate=True),
            redeem(voucher_shop, member, "five-off", key="k", immediate=True),
        )
        code = first.json()["vouchers"][0]["code"]
        assert code is not None
        assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
        assert first.headers["Cache-Control"] == again.headers["Cache-Control"] == "no-store"
        burn(voucher_shop, code)
        logged = log.getvalue()
    stored = voucher_shop.database.read(
        lambda session: [
            str(row) for table in Base.metadata.tables.values() for row in session.execute(table.select()).all()
        ]
    )
    assert any(first.json()["vouchers"][0]["id"] in row for row in stored)
    for spelling in (code, code.replace("-", "")):
        assert not [row for row in stored if spelling in row]
        assert spelling not in logged


def test_reading_a_redemption_does_not_show_codes(voucher_shop: Shop) -> None:
    redemption = issued(voucher_shop)
    shown = voucher_shop.get(f"/v1/redemptions/{redemption['id']}")["vouchers"]
    assert shown == [redemption["vouchers"][0] | {"code": None}]


def test_a_dry_run_makes_no_code(voucher_shop: Shop) -> None:
    member = member_with(voucher_shop, 500)
    told = redeem(voucher_shop, member, "five-off", immediate=True, dry_run=True).json()["vouchers"]
    assert [(voucher["id"], voucher["code"]) for voucher in told] == [(None, None)]


# --- look up --------------------------------------------------------------------------------------------------------


def test_a_till_looks_a_voucher_up_however_it_is_typed(voucher_shop: Shop) -> None:
    code = new_code(voucher_shop)
    shown = look_up(voucher_shop, code).json()
    assert shown == {
        "id": shown["id"],
        "valid": True,
        "status": "issued",
        "value": {"amount": 500, "currency": "USD"},
        "issued_at": "2026-11-22T12:00:00+00:00",
        "expires_at": "2027-02-21T05:00:00+00:00",
        "ended_at": None,
        "source": None,
        "external_id": None,
    }
    for spelling in (code.replace("-", ""), code.lower(), code.replace("-", "%20"), code.replace("0", "O")):
        assert look_up(voucher_shop, spelling).json() == shown


@pytest.mark.parametrize("code", ["nonsense", "0000-0000-0000-0000-0000", "x" * 5000, "%00", "%F0%9F%8D%89"])
def test_what_is_no_voucher(voucher_shop: Shop, code: str) -> None:
    assert refusal(look_up(voucher_shop, code)) == (404, "not_found")
    assert refusal(burn(voucher_shop, code)) == (404, "not_found")
    assert refusal(cancel(voucher_shop, code)) == (404, "not_found")


def test_another_programmes_voucher_is_not_there(voucher_shop: Shop) -> None:
    code = new_code(voucher_shop)
    program = voucher_shop.database.write(lambda session: make_program(session, TERMS, voucher_shop.clock(), "other"))
    key = voucher_shop.database.write(lambda session: make_key(session, "staff", voucher_shop.clock(), program))
    other = voucher_shop.client(key)
    answers = [
        other.get(f"/v1/vouchers/{code}"),
        other.post(f"/v1/vouchers/{code}/burn", json=RECEIPT),
        other.post(f"/v1/vouchers/{code}/cancellation"),
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert look_up(voucher_shop, code).json()["valid"]


# --- burn -----------------------------------------------------------------------------------------------------------


def test_a_voucher_burns_once_and_its_receipt_may_ask_again(voucher_shop: Shop) -> None:
    code = new_code(voucher_shop)
    voucher_shop.clock.forward(days=1)
    burnt = burn(voucher_shop, code)
    assert burnt.status_code == 200
    assert (burnt.json()["status"], burnt.json()["valid"]) == ("burnt", False)
    assert burnt.json()["ended_at"] == "2026-11-23T12:00:00+00:00"
    assert {name: burnt.json()[name] for name in RECEIPT} == RECEIPT
    voucher_shop.clock.forward(days=400)
    assert burn(voucher_shop, code).json() == burnt.json(), "long after it would have expired"
    assert look_up(voucher_shop, code).json() == burnt.json()
    assert refusal(burn(voucher_shop, code, external_id="r78")) == (409, "voucher_burnt")
    assert refusal(burn(voucher_shop, code, source="store-2")) == (409, "voucher_burnt")
    assert events(voucher_shop).count("voucher.burnt") == 1


def test_a_voucher_is_good_to_the_end_of_its_last_day(voucher_shop: Shop) -> None:
    first, second = new_code(voucher_shop), new_code(voucher_shop)
    voucher_shop.clock.forward(days=90, hours=16, minutes=59)  # 23:59 on 20 February in New York
    assert burn(voucher_shop, first).status_code == 200
    voucher_shop.clock.forward(minutes=1)
    shown = look_up(voucher_shop, second).json()
    assert (shown["valid"], shown["status"]) == (False, "issued")
    response = burn(voucher_shop, second)
    assert refusal(response) == (422, "voucher_expired")
    assert response.json()["expires_at"] == "2027-02-21T05:00:00+00:00"


def test_many_tills_at_once_burn_it_on_one_receipt(voucher_shop: Shop) -> None:
    code = new_code(voucher_shop)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda number: burn(voucher_shop, code, external_id=f"r{number % 6}"), range(24)))
    assert Counter(answer.status_code for answer in answers) == {200: 4, 409: 20}
    assert len({answer.json()["external_id"] for answer in answers if answer.status_code == 200}) == 1
    assert events(voucher_shop).count("voucher.burnt") == 1


def test_a_cancelled_voucher_is_worth_nothing(voucher_shop: Shop) -> None:
    redemption = issued(voucher_shop)
    code, burnt = redemption["vouchers"][0]["code"], new_code(voucher_shop)
    cancelled = cancel(voucher_shop, code)
    assert (cancelled.json()["status"], cancelled.json()["valid"]) == ("cancelled", False)
    voucher_shop.clock.forward(days=1)
    assert cancel(voucher_shop, code).json() == cancelled.json()
    assert refusal(burn(voucher_shop, code)) == (409, "voucher_cancelled")
    burn(voucher_shop, burnt)
    assert refusal(cancel(voucher_shop, burnt)) == (409, "voucher_burnt")
    assert balance(voucher_shop, redemption["member_id"])["available"] == 0, "its points stay spent"
    assert events(voucher_shop).count("voucher.cancelled") == 1
    assert voucher_shop.client("terminal").post(f"/v1/vouchers/{code}/cancellation").status_code == 403


def test_the_event_of_a_voucher_does_not_carry_its_code(voucher_shop: Shop) -> None:
    redemption = issued(voucher_shop)
    voucher = redemption["vouchers"][0]
    burn(voucher_shop, voucher["code"])
    statement = text("SELECT payload FROM outbox WHERE topic = 'voucher.burnt'")
    payload = voucher_shop.database.read(lambda session: session.execute(statement).scalar_one())
    expected = {"voucher_id": voucher["id"], "redemption_id": redemption["id"], **RECEIPT}
    assert (json.loads(payload) if isinstance(payload, str) else payload) == expected
