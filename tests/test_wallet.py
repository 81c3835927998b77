"""What members see of their own points, and that nobody sees another's."""

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.clients import takes_token
from app.edge import has_tag, weak_tag
from tests.points import publish
from tests.shop import Shop, purchase
from tests.test_access import CALLS, ROUTES, Made, check_problem, made
from tests.test_campaigns import WELCOME, with_, work
from tests.test_tokens import change, token_of

__all__ = ["made"]  # a fixture

MINE = {name: route for name, route in ROUTES.items() if takes_token(route)}
"""The routes that take a member's token."""

PARAMETERS = {"month": "2026-11"}
"""A good value for each parameter in a path of `MINE`."""

OTHERS = [name for name in CALLS if name not in MINE]


def path_of(route: str) -> str:
    """The path that asks a route. They all read: a member's token writes nothing."""
    method, path = route.split()
    assert method == "GET"
    return path.format(**PARAMETERS)


def phone(shop: Shop, card: str = "900") -> TestClient:
    """A member's app, with a fresh token."""
    return shop.client(token_of(shop, card=card))


def read(http: TestClient, path: str, **query: Any) -> Any:
    response = http.get(path, params=query)
    assert response.status_code == 200, response.text
    return response.json()


# --- what there is to see -------------------------------------------------------------------------------------------


def test_a_member_reads_their_membership(shop: Shop) -> None:
    """Status, what it permits, and their own profile; no identifiers."""
    body = {"identifiers": [{"kind": "card", "value": "900"}], "profile": {"name": "Ada", "language": "en"}}
    member = shop.http.post("/v1/members", json=body, headers={"Idempotency-Key": "k"}).json()["id"]
    expected = {
        "id": member,
        "status": "active",
        "may_earn": True,
        "may_spend": True,
        "profile": {"name": "Ada", "language": "en", "born_on": None, "attributes": None, "segments": None},
    }
    ada = phone(shop)
    assert read(ada, "/v1/me") == expected
    change(shop, member, "earn_only")
    assert read(ada, "/v1/me") == expected | {"status": "earn_only", "may_spend": False}


def test_a_member_sees_the_same_as_the_shop(shop: Shop) -> None:
    """Balance and entries are the shop's; lots come without the money deferred for them, which is the shop's own."""
    for number in range(3):
        member = shop.post(purchase(f"r{number}", total=1000 * (number + 1))).json()["member"]["id"]
    ada, path = phone(shop), f"/v1/members/{member}"
    assert read(ada, "/v1/me/balance") == shop.get(f"{path}/balance")
    assert read(ada, "/v1/me/balance")["balance"]["available"] == 60
    assert read(ada, "/v1/me/ledger") == shop.get(f"{path}/entries")
    mine, booked = read(ada, "/v1/me/lots"), shop.get(f"{path}/lots")
    money = {"currency", "allocated", "allocated_exact", "cohort_id"}
    for lot in booked["items"]:
        assert money <= lot.keys()
    assert mine["items"] == [{name: lot[name] for name in lot.keys() - money} for lot in booked["items"]]
    assert mine["expiring"] == booked["expiring"] == [{"points": 60, "at": "2027-12-01T05:00:00+00:00"}]


@pytest.mark.parametrize(("path", "key"), [("/v1/me/ledger", "number"), ("/v1/me/lots", "granted")])
def test_pages(shop: Shop, path: str, key: str) -> None:
    """Two at a time, by the cursor and by the link; entries newest first, lots oldest first."""
    for number in range(5):
        shop.post(purchase(f"r{number}", total=100 * (number + 1)))
    ada, seen = phone(shop), []
    page = ada.get(path, params={"limit": 2})
    while True:
        seen += [row[key] for row in page.json()["items"]]
        if page.json()["next"] is None:
            break
        assert page.json()["next"] in page.links["next"]["url"]
        page = ada.get(page.links["next"]["url"])
    assert seen == ([5, 4, 3, 2, 1] if path.endswith("ledger") else [1, 2, 3, 4, 5])
    check_problem(ada.get(path, params={"cursor": "x"}), 400, "cursor_invalid")
    check_problem(ada.get(path, params={"limit": 0}), 422, "invalid_request")


def test_nothing_is_kept_by_caches_in_between(shop: Shop) -> None:
    shop.post(purchase())
    ada = phone(shop)
    for route in MINE:
        assert ada.get(path_of(route)).headers["Cache-Control"] == "private, no-cache", route


# --- asking again ---------------------------------------------------------------------------------------------------


def test_a_balance_that_did_not_change_is_304(shop: Shop) -> None:
    """An hour later it still says the same. A purchase changes it."""
    shop.post(purchase())
    first = phone(shop).get("/v1/me/balance")
    tag = first.headers["ETag"]
    shop.clock.forward(hours=1)
    ada = phone(shop)
    second = ada.get("/v1/me/balance", headers={"If-None-Match": tag})
    assert (second.status_code, second.content) == (304, b"")
    assert (second.headers["ETag"], second.headers["Cache-Control"]) == (tag, "private, no-cache")
    assert ada.get("/v1/me/balance").headers["ETag"] == tag
    shop.post(purchase("r2"))
    third = ada.get("/v1/me/balance", headers={"If-None-Match": tag})
    assert (third.status_code, third.json()["balance"]["available"]) == (200, 20)
    assert third.headers["ETag"] != tag


def test_an_expiry_in_between_changes_the_tag(shop: Shop) -> None:
    """Nobody wrote anything down: the points are gone by the clock alone, and 304 would hide it."""
    shop.post(purchase())
    before = phone(shop).get("/v1/me/balance")
    assert before.json()["expiring_next"] == {"points": 10, "at": "2027-12-01T05:00:00+00:00"}
    shop.clock.now = datetime.fromisoformat("2027-12-01T04:59:59.999999+00:00")
    last = phone(shop).get("/v1/me/balance", headers={"If-None-Match": before.headers["ETag"]})
    assert last.status_code == 304
    shop.clock.forward(microseconds=1)
    after = phone(shop).get("/v1/me/balance", headers={"If-None-Match": before.headers["ETag"]})
    assert (after.status_code, after.json()["balance"]["available"]) == (200, 0)
    assert after.headers["ETag"] != before.headers["ETag"]


def test_equal_balances_of_two_members_have_two_tags(shop: Shop) -> None:
    """One phone, two people: what the one has does not answer the other."""
    for card in ("900", "901"):
        shop.post(purchase(card, member={"card": card}))
    tag = phone(shop, "900").get("/v1/me/balance").headers["ETag"]
    assert phone(shop, "901").get("/v1/me/balance", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, False),
        ("", False),
        ("*", True),
        ('W/"1"', True),
        ('"1"', True),
        ('"0", W/"1"', True),
        ('"0" ,"1"', True),
        ('W/"0"', False),
        ("1", False),
        ('w/"1"', False),
    ],
)
def test_if_none_match_is_read(header: str | None, found: bool) -> None:
    """RFC 9110, 13.1.2: a list, compared weakly, or a star."""
    assert has_tag(header, 'W/"1"') is found


def test_a_tag_is_of_what_is_said() -> None:
    assert weak_tag(b"1") == weak_tag(b"1") != weak_tag(b"2")
    assert weak_tag(b"1").startswith('W/"')


# --- nobody else's --------------------------------------------------------------------------------------------------


def test_the_routes_of_members_are_below_me() -> None:
    assert {route.split()[1] for route in MINE} >= {"/v1/me", "/v1/me/balance", "/v1/me/ledger", "/v1/me/lots"}
    assert all(route.split()[1].startswith("/v1/me") for route in MINE)
    assert all("{member" not in route for route in MINE)
    below = {route for route in ROUTES if f"{route.split()[1]}/".startswith("/v1/me/")}
    assert below == MINE.keys(), "and nothing else is there"


def ids_in(value: Any) -> set[str]:
    """Every id in an answer."""
    if isinstance(value, dict):
        return set().union(*map(ids_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(ids_in, value))
    try:
        return {str(UUID(value))} if isinstance(value, str) else set()
    except ValueError:
        return set()


def ids_of(shop: Shop, member: str) -> set[str]:
    """Every id that is a member's own, as the shop sees them: theirs, of their entries, lots and purchases."""
    path = f"/v1/members/{member}"
    shared = {lot["cohort_id"] for lot in shop.get(f"{path}/lots")["items"]}
    seen = [shop.get(f"{path}{below}") for below in ("", "/balance", "/entries", "/lots")]
    return set().union(*map(ids_in, seen)) - shared


@pytest.mark.parametrize("route", MINE)
def test_each_member_sees_their_own_only(shop: Shop, route: str) -> None:
    """Two members of one programme: nothing of the other's is in an answer, whoever the request names."""
    people = {}
    publish(shop, with_(WELCOME, stamp_cards=[{"code": "ten", "name": "Ten", "stamps": 10, "points_per_stamp": 1}]))
    at = shop.clock().isoformat()
    for card, purchases in (("900", 3), ("901", 2)):
        for number in range(purchases):
            bought = shop.post(purchase(f"{card}-{number}", member={"card": card}, occurred_at=at)).json()
            people[card] = bought["member"]["id"]
    mug = {"code": "mug", "name": "Mug", "points": 1000, "supplier": {"type": "own"}, "currency": "USD"}
    assert shop.http.post("/v1/rewards", json=mug).status_code == 201  # of which each is told what is missing
    assert work(shop).rows == 2
    ada, ben, path = phone(shop, "900"), phone(shop, "901"), path_of(route)
    hers, his = read(ada, path), read(ben, path)
    assert hers != his
    assert not ids_in(hers) & ids_of(shop, people["901"])
    assert not ids_in(his) & ids_of(shop, people["900"])
    for name in ("member", "member_id", "id", "sub", "card", "program_id", "program"):
        for value in (people["901"], "901", str(shop.program_id)):
            assert read(ada, path, **{name: value}) == hers
    headers = {"X-Member-Id": people["901"], "Cookie": f"member={people['901']}"}
    assert ada.get(path, headers=headers).json() == hers
    assert ada.get(f"{path}/{people['901']}").status_code in (404, 422), "no such path, or not a month"


@pytest.mark.parametrize("path", ["/v1/me/ledger", "/v1/me/lots"])
def test_another_s_cursor_leads_to_one_s_own(shop: Shop, path: str) -> None:
    """A cursor is a place in a list, not a right to it."""
    for number in range(4):
        for card in ("900", "901"):
            shop.post(purchase(f"{card}-{number}", member={"card": card}))
    ada, ben = phone(shop, "900"), phone(shop, "901")
    whole = ids_in(read(ada, path))
    assert ids_in(read(ada, path, cursor=read(ben, path, limit=2)["next"])) <= whole


@pytest.mark.parametrize("route", MINE)
def test_a_closed_member_sees_nothing(shop: Shop, route: str) -> None:
    """On every route: that one forgot to look would not be seen from its token, which is still good."""
    member = shop.post(purchase()).json()["member"]["id"]
    ada = phone(shop)
    change(shop, member, "closed")
    check_problem(ada.get(path_of(route)), 401, "unauthenticated")


def test_an_api_key_is_no_member(shop: Shop, subtests: pytest.Subtests) -> None:
    shop.post(purchase())
    for route in MINE:
        for http in (TestClient(shop.app), *(shop.client(key) for key in shop.keys)):
            with subtests.test(route=route):
                check_problem(http.get(path_of(route)), 401, "unauthenticated")


def test_a_member_s_token_opens_nothing_else(made: Made, subtests: pytest.Subtests) -> None:
    """Every route that needs a key, asked with all else right."""
    ada = phone(made.shop)
    for route in OTHERS:
        with subtests.test(route=route):
            check_problem(made.call(ada, route), 401, "unauthenticated")


def test_which_rewards_a_member_can_have_and_what_is_missing(shop: Shop) -> None:
    shop.post(purchase(total=30_000))
    for code, points in (("pen", 100), ("mug", 1000)):
        reward = {"code": code, "name": code, "points": points, "supplier": {"type": "own"}, "currency": "USD"}
        assert shop.http.post("/v1/rewards", json=reward).status_code == 201
    pen, mug = read(phone(shop), "/v1/me/rewards")["items"]
    assert (pen["code"], pen["possible"], pen["refusals"]) == ("pen", True, [])
    assert (mug["code"], mug["possible"]) == ("mug", False)
    assert [(refusal["code"], refusal["missing"]) for refusal in mug["refusals"]] == [("insufficient_points", 700)]
