"""Blueprints as YAML: read with everything that is wrong at once, each with its line; written so that it reads well.

As in YAML 1.2, only `true` and `false` are truth values and only digits are numbers: `on` is a word, `20:00` a time
and `2026-12-24` a date, which 1.1 would make a truth value, a number and something else. Keys given twice, anchors and
tags of one's own are refused.
"""

import re
from collections.abc import Hashable, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from app.blueprints.schemas import Blueprint


class NotABlueprint(ValueError):
    """A text that cannot be read as a blueprint; the message has a line for each reason."""


class _Loader(yaml.SafeLoader):
    """Safe, and of YAML 1.2's JSON-like values only."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "anchors are not read", self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", "null|~|", ["n", "~", ""]),
    ("bool", "true|false", ["t", "f"]),
    ("int", "-?(0|[1-9][0-9]*)", list("-0123456789")),
    ("float", r"-?[0-9]+\.[0-9]+", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first)


def read(text: str) -> Blueprint:
    """The blueprint in a YAML text. NotABlueprint with a line for each thing that is wrong."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        document = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise NotABlueprint(f"{line}{error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise NotABlueprint(f"not YAML: {error}") from None
    finally:
        loader.dispose()
    try:
        return Blueprint.model_validate(document)
    except ValidationError as error:
        wrong = sorted((_line(root, each["loc"]), _place(each["loc"]), each["msg"]) for each in error.errors())
        raise NotABlueprint("\n".join(f"line {line}: {place}: {reason}" for line, place, reason in wrong)) from None


def line_of(text: str, pointer: str) -> int:
    """The line of what a JSON pointer names in a text that was read, or of what should have had it."""
    loader = _Loader(text)
    try:
        return _line(loader.get_single_node(), pointer.split("/")[1:])
    finally:
        loader.dispose()


def _line(node: Any, place: Sequence[str | int]) -> int:
    line = 1
    for step in place:
        line = line if node is None else node.start_mark.line + 1
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in children if key.value == str(step)), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif str(step).isdigit() and int(step) < len(children):
            node = children[int(step)]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def _place(loc: Sequence[str | int]) -> str:
    return ".".join(str(step) for step in loc) or "the file"


def write(blueprint: Blueprint) -> str:
    """The YAML text of a blueprint."""
    text: str = yaml.safe_dump(blueprint.document(), sort_keys=False, allow_unicode=True, width=120)
    return text
