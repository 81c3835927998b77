"""Drafts of terms: changed by whoever read them last, published once or retired; and what differs between versions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.programs import Terms
from app.programs.changes import changes
from tests.baskets import examples
from tests.shop import TERMS, Shop, purchase

DOUBLE: dict[str, Any] = {"code": "double", "name": "Double points", "gives": {"type": "multiply", "times": 2}}
VISIT: dict[str, Any] = {"code": "visit", "name": "A visit", "gives": {"type": "fixed", "points": 5}}


def draft(shop: Shop, **changed: Any) -> str:
    """A new draft; answers its path."""
    path = f"/v1/programs/{shop.program_id}/terms"
    answer = shop.http.post(path, json=TERMS | changed)
    assert answer.status_code == 201, answer.text
    return f"{path}/{answer.json()['version']}"


@pytest.mark.parametrize("verb", ["publish", "retirement"])
def test_only_the_draft_that_was_read_is_published_or_retired(shop: Shop, verb: str) -> None:
    """Somebody else has changed it meanwhile."""
    path = draft(shop)
    read = shop.http.get(path).headers["ETag"]
    assert shop.http.put(path, json=TERMS | {"rules": [VISIT]}, headers={"If-Match": read}).status_code == 200
    body: dict[str, Any] | None = {} if verb == "publish" else None
    late = shop.http.post(f"{path}/{verb}", json=body, headers={"If-Match": read})
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert shop.get(path)["status"] == "draft"
    now = shop.http.get(path).headers["ETag"]
    assert shop.http.post(f"{path}/{verb}", json=body, headers={"If-Match": now}).status_code == 200


def test_a_retired_draft_is_listed_and_nothing_else(shop: Shop) -> None:
    path = draft(shop)
    retired = shop.http.post(f"{path}/retirement").json()
    assert (retired["status"], retired["retired_at"]) == ("retired", "2026-11-22T12:00:00+00:00")
    assert shop.http.post(f"{path}/retirement").json() == retired
    for answer in (
        shop.http.post(f"{path}/publish", json={}),
        shop.http.put(path, json=TERMS, headers={"If-Match": shop.http.get(path).headers["ETag"]}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "terms_retired")
    listed = shop.get(f"/v1/programs/{shop.program_id}/terms")["items"]
    assert [each["status"] for each in listed] == ["published", "retired"]


def test_what_is_published_is_not_retired(shop: Shop) -> None:
    answer = shop.http.post(f"/v1/programs/{shop.program_id}/terms/1/retirement")
    assert (answer.status_code, answer.json()["code"]) == (409, "terms_published")


def test_what_is_published_for_later_leaves_the_time_before_it_open(shop: Shop) -> None:
    """Else nothing could be changed until then."""
    later, until_then = draft(shop, earning={"points": 3, "per": 100}), draft(shop, earning={"points": 2, "per": 100})
    advent = "2026-11-29T00:00:00+00:00"
    assert shop.http.post(f"{later}/publish", json={"effective_from": advent}).status_code == 200
    shop.clock.forward(hours=1)
    assert shop.http.post(f"{until_then}/publish", json={}).status_code == 200
    assert shop.post(purchase("r1", 1000)).json()["points"]["earned"] == 10, "bought an hour ago"
    now = shop.clock().isoformat()
    assert shop.post(purchase("r2", 1000, occurred_at=now)).json()["points"]["earned"] == 20
    shop.clock.forward(days=7)
    assert shop.post(purchase("r3", 1000, occurred_at=shop.clock().isoformat())).json()["points"]["earned"] == 30
    assert shop.post(purchase("r4", 1000, occurred_at=now)).json()["points"]["earned"] == 20, "uploaded late"
    shop.prove()


@pytest.mark.parametrize(
    ("since", "detail"),
    [
        ("2027-01-01T01:00:00+01:00", "version 2 takes effect at that instant; a moment later would do"),
        ("2026-11-22T11:59:59Z", "new terms cannot take effect in the past"),
    ],
)
def test_terms_neither_replace_others_nor_rewrite_the_past(shop: Shop, since: str, detail: str) -> None:
    later = draft(shop)
    assert shop.http.post(f"{later}/publish", json={"effective_from": "2027-01-01T00:00:00Z"}).status_code == 200
    answer = shop.http.post(f"{draft(shop)}/publish", json={"effective_from": since})
    assert (answer.status_code, answer.json()["code"]) == (422, "effective_from_invalid")
    found = {"pointer": "#/effective_from", "code": "effective_from_invalid", "detail": detail}
    assert answer.json()["errors"] == [found]


def test_versions_are_compared_over_the_api(shop: Shop) -> None:
    draft(shop, rules=[VISIT, DOUBLE])
    draft(shop, rules=[DOUBLE | {"gives": {"type": "multiply", "times": 3}}, VISIT])
    path = f"/v1/programs/{shop.program_id}/terms"
    assert shop.get(f"{path}/2/diff/3")["items"] == [
        {
            "op": "replace",
            "path": "/rules/0/gives/times",
            "old": 2,
            "new": 3,
            "text": "rule double, gives, times: 3 instead of 2",
        },
        {
            "op": "move",
            "path": "/rules",
            "old": ["visit", "double"],
            "new": ["double", "visit"],
            "text": "rules: in the order double, visit instead of visit, double",
        },
    ]
    assert shop.get(f"{path}/3/diff/3") == {"items": []}
    assert shop.http.get(f"{path}/3/diff/9").status_code == 404


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({}, {}, []),
        ({}, {"earning": {"points": 2, "per": 100}}, ["earning, points: 2 instead of 1"]),
        ({"rules": []}, {"rules": [VISIT]}, ["rule visit: new (A visit)"]),
        ({"rules": [VISIT, DOUBLE]}, {"rules": [DOUBLE]}, ["rule visit: gone (A visit)"]),
        (
            {"rules": [VISIT]},
            {"rules": [VISIT | {"gives": {"type": "per_item", "points": 5}}]},
            [
                'rule visit, gives: {"type": "per_item", "points": 5, "items": 1} instead of '
                '{"type": "fixed", "points": 5}'
            ],
        ),
        (
            {"earning": {"points": 1, "per": 100, "excluded": {"departments": ["TOBACCO", "WINE"]}}},
            {"earning": {"points": 1, "per": 100, "excluded": {"departments": ["WINE", "GIFT CARDS"]}}},
            ["earning, excluded, departments: also GIFT CARDS; no longer TOBACCO"],
        ),
        ({"prices_include_tax": True}, {"prices_include_tax": False}, ["prices include tax: no instead of yes"]),
        ({"pools": None}, {"pools": {"most_members": 3}}, ['pools: {"most_members": 3} instead of none']),
        (
            {"stacking": {"a": "all"}},
            {"stacking": {"b": "best"}},
            ["stacking, b: best, new", "stacking, a: gone, was all"],
        ),
    ],
)
def test_changes_in_plain_words(old: dict[str, Any], new: dict[str, Any], lines: list[str]) -> None:
    documents = [Terms.model_validate(TERMS | each).model_dump(mode="json") for each in (old, new)]
    assert [each.text for each in changes(*documents)] == lines


def test_paths_are_json_pointers() -> None:
    (change,) = changes({"a": {"x/y~z": False}}, {"a": {"x/y~z": True}})
    assert (change.path, change.text) == ("/a/x~1y~0z", "a, x/y~z: yes instead of no")


def applied(document: Any, found: Any) -> Any:
    """The document after its changes."""
    for change in found:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in change.path.split("/")[1:]]
        document = _applied(document, steps, change)
    return document


def _applied(document: Any, steps: list[str], change: Any) -> Any:
    name, *rest = steps
    kept = dict(document)
    if rest:
        kept[name] = _applied(kept[name], rest, change)
    elif change.op == "remove":
        del kept[name]
    else:
        kept[name] = change.new
    return kept


plain = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from("ab"),
    lambda inner: st.lists(st.integers(0, 3), max_size=3) | st.dictionaries(st.sampled_from(["a", "b/c", "~"]), inner),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from(["a", "b/c", "~", "kind"]), plain)


@given(documents, documents)
@examples
def test_changes_applied_to_the_old_give_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    found = changes(old, new)
    assert applied(old, found) == new
    assert (found == []) == (old == new)
