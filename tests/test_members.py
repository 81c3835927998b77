"""Members: how a till recognises them, what their status permits, and where their personal data is (and is not)."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import Base
from app.members import GATES, IdentifierInvalid, normalise
from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, make_key, make_program, open_shop, purchase

UNKNOWN = dict.fromkeys(("name", "language", "born_on", "attributes", "segments"))
"""The profile of somebody of whom nothing is known."""


def enrol(shop: Shop, *identifiers: tuple[str, str], **profile: str) -> Any:
    """Enrols a member and answers the response."""
    body = {"identifiers": [{"kind": kind, "value": value} for kind, value in identifiers], "profile": profile}
    return shop.http.post("/v1/members", json=body, headers={"Idempotency-Key": uuid4().hex})


def look_up(shop: Shop, **identifier: str) -> Any:
    return shop.http.get("/v1/members/lookup", params=identifier)


def change(shop: Shop, member: str, revision: int | None, **changes: Any) -> Any:
    headers = {} if revision is None else {"If-Match": f'"{revision}"'}
    return shop.http.patch(f"/v1/members/{member}", json=changes, headers=headers)


def add(shop: Shop, member: str, kind: str, value: str) -> Any:
    return shop.http.post(f"/v1/members/{member}/identifiers", json={"kind": kind, "value": value})


def remove(shop: Shop, member: str, kind: str, value: str) -> Any:
    return shop.http.delete(f"/v1/members/{member}/identifiers/{kind}/{value}")


def refusal(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def terms_with(**enrolment: Any) -> dict[str, Any]:
    return TERMS | {"enrolment": enrolment}


@pytest.fixture
def american(database_url: str, clock: TestClock) -> Iterator[Shop]:
    """A shop that reads phone numbers without a country code as American, and enrols by phone and card."""
    terms = terms_with(phone_region="US", identifiers=["card", "phone"])
    with open_shop(settings_for(database_url), clock, terms) as shop:
        yield shop


# --- spelling (no database) -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "region", "spelled"),
    [
        ("card", "12-34 ab", None, "1234AB"),
        ("card", "1234AB", None, "1234AB"),
        ("card", " 1\u00a02-3 ", None, "123"),
        ("card", "007", None, "007"),
        ("phone", "+1 415 555 0100", None, "+14155550100"),
        ("phone", "+1 (415) 555-0100", "DE", "+14155550100"),
        ("phone", "(415) 555-0100", "US", "+14155550100"),
        ("phone", "1-415-555-0100", "US", "+14155550100"),
        ("phone", "030 901820", "DE", "+4930901820"),
        ("phone", "06 698 12345", "IT", "+390669812345"),
        ("phone", "\uff0b\uff11 415 555 0100", None, "+14155550100"),
        ("email", "Ann.Lee@Example.COM", None, "ann.lee@example.com"),
        ("email", "ann@EXÄMPLE.com", None, "ann@exämple.com"),
        ("partner", "  Gym:Member/7 ", None, "Gym:Member/7"),
    ],
)
def test_one_spelling(kind: str, value: str, region: str | None, spelled: str) -> None:
    """However a till or a form writes it, it is the same member."""
    assert normalise(kind, value, region).value == spelled


@pytest.mark.parametrize(
    ("kind", "value", "region"),
    [
        ("card", "", None),
        ("card", " - ", None),
        ("card", "12_34", None),
        ("card", "1" * 65, None),
        ("card", "\u0661\u0662", None),
        ("card", "\uff11\uff12", None),
        ("card", "straße", None),  # in capitals it would be somebody else's STRASSE
        ("card", "ſ1", None),  # an old long s: in capitals, S1
        ("phone", "415 555 0100", None),
        ("phone", "+1 415", None),
        ("phone", "+999 415 555 0100", None),
        ("phone", "555 0100", "US"),  # without its area code it is a different number in every town
        ("phone", "+1 555 0100", None),
        ("phone", "call me", "US"),
        ("email", "ann", None),
        ("email", "ann@localhost", None),
        ("email", "Ann <ann@example.com>", None),
        ("email", "ann@@example.com", None),
        ("partner", "  ", None),
    ],
)
def test_not_an_identifier(kind: str, value: str, region: str | None) -> None:
    with pytest.raises(IdentifierInvalid):
        normalise(kind, value, region)


# --- enrol and look up ----------------------------------------------------------------------------------------------


def test_enrolled_under_several_identifiers(shop: Shop) -> None:
    """Found by each, in any spelling; the till sees no personal data, staff see all of it."""
    identifiers = [("card", "12-34 ab"), ("phone", "+1 415 555 0100"), ("email", "Ann@Example.com"), ("partner", "g7")]
    response = enrol(shop, *identifiers, name="Ann Lee", language="en-US")
    assert response.status_code == 201
    member = response.json()["id"]
    found = [
        look_up(shop, **query).json()
        for query in (
            {"card": "1234AB"},
            {"card": "1234-a b"},
            {"phone": "+14155550100"},
            {"phone": "+1 (415) 555-0100"},
            {"email": "ANN@EXAMPLE.COM"},
            {"partner": " g7"},
        )
    ]
    nothing = {"available": 0, "held": 0, "pending": 0, "debt": 0}
    expected = {"id": member, "status": "active", "may_earn": True, "may_spend": True}
    assert found == [expected | {"balance": nothing, "expiring_next": None}] * 6
    assert shop.get(f"/v1/members/{member}") == expected | {
        "enrolled_at": "2026-11-22T12:00:00+00:00",
        "identifiers": [
            {"kind": "card", "value": "1234AB"},
            {"kind": "email", "value": "ann@example.com"},
            {"kind": "partner", "value": "g7"},
            {"kind": "phone", "value": "+14155550100"},
        ],
        "profile": UNKNOWN | {"name": "Ann Lee", "language": "en-US"},
    }
    assert response.json() == expected | {"enrolled_at": "2026-11-22T12:00:00+00:00"}, "kept for retries: not personal"
    shop.prove()


def test_the_same_identifier_twice_is_one(shop: Shop) -> None:
    member = enrol(shop, ("card", "12-34"), ("card", "1234")).json()["id"]
    assert shop.get(f"/v1/members/{member}")["identifiers"] == [{"kind": "card", "value": "1234"}]


def test_kinds_do_not_mix(shop: Shop) -> None:
    """Card 77 and partner 77 are different people."""
    card, partner = enrol(shop, ("card", "77")).json()["id"], enrol(shop, ("partner", "77")).json()["id"]
    assert look_up(shop, card="77").json()["id"] == card
    assert look_up(shop, partner="77").json()["id"] == partner


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("card", "1234AB"), ("card", "12-34 ab")),
        (("phone", "+14155550100"), ("phone", "+1 415-555-0100")),
        (("email", "ann@example.com"), ("email", "ANN@example.com")),
        (("partner", "g7"), ("partner", " g7 ")),
    ],
)
def test_an_identifier_has_one_member(shop: Shop, first: tuple[str, str], second: tuple[str, str]) -> None:
    """In whatever spelling it is claimed again: by enrolling, or by adding it to somebody else."""
    enrol(shop, first)
    assert refusal(enrol(shop, ("card", "another"), second)) == (409, "identifier_taken")
    other = enrol(shop, ("card", "other")).json()["id"]
    assert refusal(add(shop, other, *second)) == (409, "identifier_taken")
    assert look_up(shop, card="another").status_code == 404


def test_an_identifier_is_free_in_another_programme(shop: Shop) -> None:
    """Programmes do not know of each other's members."""

    def second(session: Session) -> str:
        return make_key(session, "staff", shop.clock(), make_program(session, TERMS, shop.clock(), "second"))

    here = enrol(shop, ("card", "900")).json()["id"]
    other = shop.client(shop.database.write(second))
    assert other.get("/v1/members/lookup", params={"card": "900"}).status_code == 404
    body = {"identifiers": [{"kind": "card", "value": "900"}]}
    there = other.post("/v1/members", json=body, headers={"Idempotency-Key": "k"})
    assert there.status_code == 201
    assert other.get("/v1/members/lookup", params={"card": "900"}).json()["id"] == there.json()["id"] != here
    assert look_up(shop, card="900").json()["id"] == here
    assert other.get(f"/v1/members/{here}").status_code == 404


def test_phone_numbers_of_the_programme_s_region(american: Shop) -> None:
    """Found with and without the country code; the same number elsewhere is another one."""
    member = enrol(american, ("phone", "(415) 555-0100")).json()["id"]
    for phone in ("+14155550100", "415.555.0100", "1 415 555 0100"):
        assert look_up(american, phone=phone).json()["id"] == member
        assert american.post(purchase(uuid4().hex, member={"phone": phone})).json()["member"]["id"] == member
    assert look_up(american, phone="+49 415 5550100").status_code == 404


def test_without_a_region_the_country_code_is_needed(shop: Shop) -> None:
    assert refusal(enrol(shop, ("phone", "415 555 0100"))) == (422, "identifier_invalid")
    assert refusal(look_up(shop, phone="415 555 0100")) == (422, "identifier_invalid")
    assert refusal(shop.post(purchase(member={"phone": "415 555 0100"}))) == (422, "identifier_invalid")


# --- identifiers come and go ----------------------------------------------------------------------------------------


def test_a_lost_card(shop: Shop) -> None:
    """The new one in, the old one out; points stay with the member, and the old card is nobody's."""
    member = shop.post(purchase()).json()["member"]["id"]
    assert add(shop, member, "card", "901").status_code == 200
    assert remove(shop, member, "card", "9-00").status_code == 204
    assert look_up(shop, card="901").json()["balance"]["available"] == 10
    assert look_up(shop, card="900").status_code == 404
    assert refusal(remove(shop, member, "card", "900")) == (404, "not_found")
    finder = shop.post(purchase("r2")).json()
    assert finder["member"] == {"id": finder["member"]["id"], "enrolled": True}
    assert finder["member"]["id"] != member
    shop.prove()


def test_adding_it_again_changes_nothing(shop: Shop) -> None:
    member = enrol(shop, ("card", "900")).json()
    again = add(shop, member["id"], "card", "9 0 0")
    assert (again.status_code, again.json()) == (200, member)
    assert len(shop.get(f"/v1/members/{member['id']}")["identifiers"]) == 1


def test_the_last_identifier_stays(shop: Shop) -> None:
    """Else nobody could ever spend the points. The refusal takes nothing away."""
    member = enrol(shop, ("card", "900"), ("partner", "g7")).json()["id"]
    assert remove(shop, member, "partner", "g7").status_code == 204
    assert refusal(remove(shop, member, "card", "900")) == (409, "last_identifier")
    assert look_up(shop, card="900").json()["id"] == member


def test_only_the_member_s_own_identifier_is_removed(shop: Shop) -> None:
    ann, bob = (enrol(shop, ("card", card), ("partner", card)).json()["id"] for card in ("900", "901"))
    assert refusal(remove(shop, ann, "card", "901")) == (404, "not_found")
    assert look_up(shop, card="901").json()["id"] == bob


@pytest.mark.parametrize(
    ("kind", "value"), [("partner", "gym/7"), ("email", "a/b@example.com"), ("partner", "a?b#c%d")]
)
def test_whatever_was_added_can_be_removed(shop: Shop, kind: str, value: str) -> None:
    """Also what has a slash in it: erasing a person must not depend on how their address is spelled."""
    member = enrol(shop, ("card", "900"), (kind, value)).json()["id"]
    escaped = "".join(f"%{byte:02X}" for byte in value.encode())
    assert remove(shop, member, kind, escaped).status_code == 204
    assert look_up(shop, **{kind: value}).status_code == 404


# --- status and changes ---------------------------------------------------------------------------------------------


def test_a_change_needs_what_was_read(shop: Shop) -> None:
    """Two people at two desks: the second has not seen what the first did, and is told so."""
    member = enrol(shop, ("card", "900"), name="Ann").json()["id"]
    assert shop.http.get(f"/v1/members/{member}").headers["ETag"] == '"1"'
    assert refusal(change(shop, member, None, status="suspended")) == (428, "precondition_required")
    first = change(shop, member, 1, status="suspended")
    assert (first.status_code, first.headers["ETag"]) == (200, '"2"')
    assert refusal(change(shop, member, 1, status="active")) == (412, "precondition_failed")
    assert shop.get(f"/v1/members/{member}")["status"] == "suspended"
    assert change(shop, member, 2, status="active").headers["ETag"] == '"3"'


def test_what_is_absent_stays(shop: Shop) -> None:
    member = enrol(shop, ("card", "900"), name="Ann", language="en").json()["id"]
    renamed = change(shop, member, 1, profile={"name": "Ann Lee"}).json()
    assert (renamed["profile"], renamed["status"]) == (UNKNOWN | {"name": "Ann Lee", "language": "en"}, "active")
    assert change(shop, member, 2, status="earn_only").json()["profile"] == renamed["profile"]
    assert change(shop, member, 3, profile={"name": None}).json()["profile"] == UNKNOWN | {"language": "en"}
    plain = enrol(shop, ("card", "901")).json()["id"]
    assert change(shop, plain, 1, profile={"language": "de"}).json()["profile"] == UNKNOWN | {"language": "de"}


@pytest.mark.parametrize("status", GATES)
def test_a_status_gates_earning_and_spending_apart(shop: Shop, status: str) -> None:
    """Who may not earn is refused the points, and keeps those they have."""
    member = shop.post(purchase()).json()["member"]["id"]
    guest = shop.post(purchase("guest", member=None)).json()["id"]
    changed = change(shop, member, 1, status=status).json()
    earns, spends = {
        "active": (True, True),
        "earn_only": (True, False),
        "spend_only": (False, True),
        "suspended": (False, False),
        "closed": (False, False),
    }[status]
    assert (changed["status"], changed["may_earn"], changed["may_spend"]) == (status, earns, spends)
    looked = look_up(shop, card="900").json()
    assert (looked["status"], looked["may_earn"], looked["may_spend"]) == (status, earns, spends)

    claim = shop.http.post(f"/v1/transactions/{guest}/claim", json={"member": {"card": "900"}})
    posted, again = shop.post(purchase("r2")), shop.post(purchase())
    item = shop.batch([purchase("r3"), purchase("r4", member={"card": "901"})])
    assert again.status_code == 200, "what was recorded before stays what it was"
    assert item[1]["status"] == 201
    if earns:
        assert (posted.status_code, claim.status_code, item[0]["status"]) == (201, 201, 201)
    else:
        assert refusal(posted) == refusal(claim) == (422, "member_may_not_earn")
        assert item[0]["problem"]["code"] == "member_may_not_earn"
    assert look_up(shop, card="900").json()["balance"]["available"] == (40 if earns else 10)
    shop.prove()


def test_closed_is_for_good(shop: Shop) -> None:
    member = enrol(shop, ("card", "900"), name="Ann").json()["id"]
    change(shop, member, 1, status="closed")
    for status in GATES.keys() - {"closed"}:
        assert refusal(change(shop, member, 2, status=status)) == (409, "member_closed")
    assert change(shop, member, 2, profile={"name": None}).json()["profile"]["name"] is None, "but can be erased"
    assert shop.get(f"/v1/members/{member}")["status"] == "closed"


def test_after_closing_the_person_can_be_enrolled_anew(shop: Shop) -> None:
    """With the card they still hold: `member_closed` tells staff to do just that."""
    member = enrol(shop, ("card", "900")).json()["id"]
    change(shop, member, 1, status="closed")
    remove(shop, member, "card", "900")
    assert enrol(shop, ("card", "900")).status_code == 201


@pytest.mark.parametrize("changes", [{"status": "gold"}, {"id": "x"}, {"profile": {"language": "English"}}])
def test_a_change_that_is_none(shop: Shop, changes: dict[str, Any]) -> None:
    member = enrol(shop, ("card", "900")).json()["id"]
    assert refusal(change(shop, member, 1, **changes)) == (422, "invalid_request")
    assert shop.http.get(f"/v1/members/{member}").headers["ETag"] == '"1"'


# --- enrolled by a first purchase -----------------------------------------------------------------------------------


def test_a_first_purchase_enrols(shop: Shop) -> None:
    """By card unless the terms say otherwise; once, however the card is written."""
    first = shop.post(purchase("r1", member={"card": "12-34 ab"})).json()
    second = shop.post(purchase("r2", member={"card": "1234AB"})).json()
    assert (first["member"]["enrolled"], second["member"]) == (True, {"id": first["member"]["id"], "enrolled": False})
    batch = [purchase(str(number), member={"card": card}) for number, card in enumerate(("x1", "X-1", "x2"))]
    results = [result["transaction"]["member"] for result in shop.batch(batch)]
    assert [result["enrolled"] for result in results] == [True, False, True]
    assert results[0]["id"] == results[1]["id"] != results[2]["id"]
    shop.prove()


def test_other_identifiers_do_not_enrol(shop: Shop) -> None:
    """An e-mail address typed at a till is more often wrong than new, so only the kinds in the terms enrol."""
    people = {"phone": "+14155550100", "email": "a@example.com", "partner": "g7", "id": str(uuid4())}
    for kind, value in people.items():
        response = shop.post(purchase(kind, member={kind: value}))
        assert refusal(response) == (422, "unknown_member")
        assert response.json()["errors"][0]["pointer"] == "#/member"


def test_by_what_a_purchase_enrols_is_in_the_terms(american: Shop) -> None:
    assert american.post(purchase("p", member={"phone": "(415) 555-0100"})).json()["member"]["enrolled"]
    assert american.post(purchase("c", member={"card": "900"})).json()["member"]["enrolled"]
    assert refusal(american.post(purchase("e", member={"email": "a@example.com"}))) == (422, "unknown_member")


def test_a_refused_purchase_enrols_nobody(shop: Shop) -> None:
    """Nor does a dry run."""
    assert shop.post(purchase("r1", total=-1)).status_code == 422
    assert shop.post(purchase("r2", currency="EUR")).status_code == 422
    assert shop.post(purchase("r3"), dry_run=True).json()["member"] == {"id": None, "enrolled": True}
    assert shop.batch([purchase("r4", total=-1)])[0]["status"] == 422
    assert look_up(shop, card="900").status_code == 404


def test_terms_without_automatic_enrolment(database_url: str, clock: TestClock) -> None:
    with open_shop(settings_for(database_url), clock, terms_with(automatic=False)) as shop:
        guest = shop.post(purchase("guest", member=None)).json()["id"]
        claim = f"/v1/transactions/{guest}/claim"
        assert refusal(shop.post(purchase())) == (422, "unknown_member")
        assert refusal(shop.http.post(claim, json={"member": {"card": "900"}})) == (422, "unknown_member")
        enrol(shop, ("card", "900"))
        assert shop.post(purchase()).json()["member"]["enrolled"] is False
        assert shop.http.post(claim, json={"member": {"card": "900"}}).json()["member"]["enrolled"] is False
        shop.prove()


def test_a_claim_enrols_too(shop: Shop) -> None:
    guest = shop.post(purchase("guest", member=None)).json()["id"]
    claim = shop.http.post(f"/v1/transactions/{guest}/claim", json={"member": {"card": "9-00"}}).json()
    assert claim["member"] == {"id": look_up(shop, card="900").json()["id"], "enrolled": True}
    assert look_up(shop, card="900").json()["balance"]["available"] == 10
    shop.prove()


# --- where personal data is -----------------------------------------------------------------------------------------


PERSONAL = ("member_profile", "member_identifier")
NAME, PHONE, EMAIL, CARD, PARTNER = "Canary Mustermann", "+14155550199", "canary@example.com", "CANARY5318", "canary-7"
EVERYTHING = [("card", CARD), ("phone", PHONE), ("email", EMAIL), ("partner", PARTNER)]


def tables_with(shop: Shop, *words: str) -> set[str]:
    """The tables in which any of `words` stands, in whatever column."""
    found = set()
    with shop.database.engine.connect() as connection:
        for name, table in Base.metadata.tables.items():
            values = [str(value) for row in connection.execute(select(table)) for value in row]
            if any(word.lower() in value.lower() for value in values for word in (*words, PHONE[2:])):
                found.add(name)
    return found


def test_purchases_claims_and_refusals_hold_no_personal_data(shop: Shop) -> None:
    """Members are enrolled by staff without a key here; all else refers to them by id only."""
    member = shop.post(purchase("first", member={"card": CARD})).json()["member"]["id"]
    for kind, value in EVERYTHING:
        assert add(shop, member, kind, value).status_code == 200
    assert change(shop, member, 1, profile={"name": NAME}).status_code == 200
    guest = shop.post(purchase("guest", member=None)).json()["id"]
    for number, (kind, value) in enumerate(EVERYTHING):
        keyed = {"Idempotency-Key": kind}
        shop.http.post("/v1/transactions", json=purchase(kind, member={kind: value}), headers=keyed)
        shop.http.post("/v1/transactions", json=purchase(f"no-{kind}", member={kind: value}, total=-1), headers=keyed)
        refused = purchase(f"never-{kind}", member={kind: f"{value}9"}, currency="EUR")
        shop.http.post("/v1/transactions", json=refused, headers={"Idempotency-Key": f"never-{kind}"})
        shop.batch([purchase(f"batch-{kind}", member={kind: value}), refused], dry_run=bool(number % 2))
        claim = {"member": {kind: value}}
        shop.http.post(f"/v1/transactions/{guest}/claim", json=claim, headers={"Idempotency-Key": f"claim-{kind}"})
    look_up(shop, card=CARD)
    change(shop, member, 2, status="suspended")
    assert tables_with(shop, NAME, PHONE, EMAIL, CARD, PARTNER) == set(PERSONAL)
    shop.prove()


def test_an_enrolment_s_kept_answer_holds_no_personal_data(shop: Shop) -> None:
    """Else erasing a person would leave them behind for 30 days, under a key nobody remembers."""
    response = enrol(shop, *EVERYTHING, name=NAME)
    assert response.status_code == 201
    assert tables_with(shop, NAME, PHONE, EMAIL, CARD, PARTNER) == set(PERSONAL)


def test_an_added_identifier_s_kept_answer_holds_none_either(shop: Shop) -> None:
    member = shop.post(purchase()).json()["member"]["id"]
    path = f"/v1/members/{member}/identifiers"
    body = {"kind": "email", "value": EMAIL}
    assert shop.http.post(path, json=body, headers={"Idempotency-Key": "k"}).status_code == 200
    assert tables_with(shop, EMAIL) == {"member_identifier"}


def test_the_till_is_shown_no_personal_data(shop: Shop) -> None:
    """A look-up, a purchase and a claim say who it is by id, and no more."""
    enrol(shop, *EVERYTHING, name=NAME)
    guest = shop.post(purchase("guest", member=None)).json()["id"]
    till: TestClient = shop.client("terminal")
    answers = [
        till.get("/v1/members/lookup", params={"card": CARD}),
        till.post("/v1/transactions", json=purchase(member={"phone": PHONE})),
        till.post("/v1/transactions/batch", json={"transactions": [purchase("r2", member={"email": EMAIL})]}),
        till.post(f"/v1/transactions/{guest}/claim", json={"member": {"partner": PARTNER}}),
        till.get("/v1/transactions/store-1/r1"),
    ]
    for answer in answers:
        assert answer.status_code in (200, 201), answer.text
        assert not any(word.lower() in answer.text.lower() for word in (NAME, PHONE, EMAIL, CARD, PARTNER))
