"""What differs between two documents, for programs and for people. Pure; documents as JSON has them.

What has a `code` (rules, rewards) is matched by it, wherever it stands in its list. Values that are documents of
different kinds (`type`, `mode`, `kind`) are replaced as a whole; so are lists of plain values.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Document = Mapping[str, Any]
Path = tuple[str, ...]

_KINDS = ("type", "mode", "kind")


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `path`: where, as a JSON pointer (RFC 6901) into the new document, or the old if it is a `remove`.

    `move` is about the order of a list of what has codes: `old` and `new` are those that stay, in order. `text` says it
    in words.
    """

    op: Literal["add", "remove", "replace", "move"]
    path: str
    old: Any
    new: Any
    text: str


def changes(old: Document, new: Document) -> list[Change]:
    """What turns `old` into `new`, in the order of the fields; nothing if they say the same."""
    return list(_of_fields(old, new, (), ()))


def _of_fields(old: Document, new: Document, path: Path, words: Path) -> Iterator[Change]:
    for name in [*new, *(name for name in old if name not in new)]:
        inner, called = (*path, name), (*words, name.replace("_", " "))
        if name not in old:
            yield _change("add", inner, None, new[name], f"{_label(called)}: {said(new[name])}, new")
        elif name not in new:
            yield _change("remove", inner, old[name], None, f"{_label(called)}: gone, was {said(old[name])}")
        else:
            yield from _of_value(old[name], new[name], inner, called)


def _of_value(old: Any, new: Any, path: Path, words: Path) -> Iterator[Change]:
    if old == new and type(old) is type(new):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping) and _kind(old) == _kind(new):
        yield from _of_fields(old, new, path, words)
    elif isinstance(old, list) and isinstance(new, list) and (_coded(old) or _coded(new)) and _coded([*old, *new]):
        yield from _of_coded(old, new, path, words)
    elif isinstance(old, list) and isinstance(new, list) and not any(isinstance(each, dict) for each in (*old, *new)):
        yield _change("replace", path, old, new, f"{_label(words)}: {_listed(old, new)}")
    else:
        yield _change("replace", path, old, new, f"{_label(words)}: {said(new)} instead of {said(old)}")


def _of_coded(old: Sequence[Document], new: Sequence[Document], path: Path, words: Path) -> Iterator[Change]:
    before = {each["code"]: (position, each) for position, each in enumerate(old)}
    after = {each["code"]: each for each in new}
    one = words[-1].removesuffix("s")
    for code, (position, each) in before.items():
        if code not in after:
            text = f"{_label((*words[:-1], f'{one} {code}'))}: gone{_named(each)}"
            yield _change("remove", (*path, str(position)), each, None, text)
    for position, each in enumerate(new):
        inner, called = (*path, str(position)), (*words[:-1], f"{one} {each['code']}")
        if each["code"] in before:
            yield from _of_value(before[each["code"]][1], each, inner, called)
        else:
            yield _change("add", inner, None, each, f"{_label(called)}: new{_named(each)}")
    stayed = [code for code in before if code in after]
    order = [code for code in after if code in before]
    if stayed != order:
        text = f"{_label(words)}: in the order {', '.join(order)} instead of {', '.join(stayed)}"
        yield _change("move", path, stayed, order, text)


def _coded(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(each, Mapping) and "code" in each for each in values)


def _kind(document: Document) -> list[Any]:
    return [document.get(name) for name in _KINDS]


def _change(op: Literal["add", "remove", "replace", "move"], path: Path, old: Any, new: Any, text: str) -> Change:
    pointer = "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in path)
    return Change(op, pointer, old, new, text)


# --- in words -------------------------------------------------------------------------------------------------------


def said(value: Any) -> str:
    """A value in a sentence."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _label(words: Path) -> str:
    return ", ".join(words)


def _named(document: Document) -> str:
    return f" ({document['name']})" if isinstance(document.get("name"), str) else ""


def _listed(old: Sequence[Any], new: Sequence[Any]) -> str:
    """What a list of plain values has more or less than before."""
    more, less = [each for each in new if each not in old], [each for each in old if each not in new]
    if not (more or less):
        return "in another order"
    parts = [("also ", more), ("no longer ", less)]
    return "; ".join(word + ", ".join(map(said, values)) for word, values in parts if values)
