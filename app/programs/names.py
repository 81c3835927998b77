"""What the parts of terms call each other: codes that differ, and names of what there is. Pure.

Looked for in terms as they were sent: so all of it is said at once, at the part at fault, beside whatever else is
wrong.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_OF_ITS_OWN = {
    "rules": ("rule_code_twice", "each rule has a code of its own, other than `base`"),
    "stamp_cards": ("card_code_twice", "each stamp card has a code of its own"),
    "clubs": ("club_code_twice", "each club has a code of its own"),
    "campaigns": ("campaign_code_twice", "each campaign has a code of its own"),
}
_FOR_SOME = ("rules", "stamp_cards", "campaigns")
"""The parts of terms that may be for members of some tiers or clubs."""


class Misnomer(NamedTuple):
    """A name that does not fit. `where` it is in the terms; `among` which part's names it should be, or not be."""

    where: tuple[str | int, ...]
    among: str
    code: str
    text: str


def misnomers(terms: Any, base: str) -> Iterator[Misnomer]:
    """Those of terms that may be anything. `base` is no code of a rule."""
    for part, (code, text) in _OF_ITS_OWN.items():
        seen = {base} if part == "rules" else set[str]()
        for place, each in _items(terms, part):
            name = each.get("code")
            if isinstance(name, str) and name in seen:
                yield Misnomer((part, place, "code"), part, code, text)
            seen |= {name} if isinstance(name, str) else set()
    stacking = _at(terms, "stacking")
    said = set(stacking) if isinstance(stacking, Mapping) else set()
    for place, rule in _items(terms, "rules"):
        group = rule.get("group")
        if isinstance(group, str) and group not in said:
            said.add(group)
            text = f"what holds in group {group} is not said in `stacking`"
            yield Misnomer(("rules", place, "group"), "stacking", "group_without_stacking", text)
    yield from _unknown(terms, "tiers", _codes(_at(terms, "tiers"), "levels"), "unknown_tier")
    yield from _unknown(terms, "clubs", _codes(terms, "clubs"), "unknown_club")


def _unknown(terms: Any, among: str, known: set[Any], code: str) -> Iterator[Misnomer]:
    """Where something is for tiers or clubs that there are not."""
    for part in _FOR_SOME:
        for place, each in _items(terms, part):
            named = _at(each.get("who"), among)
            for number, name in enumerate(named if isinstance(named, list) else ()):
                if isinstance(name, str) and name not in known:
                    yield Misnomer((part, place, "who", among, number), among, code, f"there is no {name}")


def _codes(value: Any, part: str) -> set[Any]:
    return {name for _, each in _items(value, part) if isinstance(name := each.get("code"), str)}


def _items(value: Any, part: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The items of a list that are objects, with their places in it."""
    items = _at(value, part)
    for place, each in enumerate(items if isinstance(items, list) else ()):
        if isinstance(each, Mapping):
            yield place, each


def _at(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None
