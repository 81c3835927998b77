"""Blueprints: all of a programme as one file that people write, compare and apply.

A file has the programme, its terms with their rules, and the catalogue of rewards. `read` makes a blueprint of a file's
text, or says everything that is wrong with it; `write` makes the text. `plan` says what would have to change for a
programme to be as its blueprint, `apply` changes just that. What a blueprint does not speak of stays: members, keys,
books, drafts.
"""

from app.blueprints.files import NotABlueprint, line_of, read, write
from app.blueprints.rules import Conflict, Plan, Step, lines_of
from app.blueprints.schemas import Blueprint
from app.blueprints.service import PlanChanged, apply, export, plan

__all__ = [
    "Blueprint",
    "Conflict",
    "NotABlueprint",
    "Plan",
    "PlanChanged",
    "Step",
    "apply",
    "export",
    "line_of",
    "lines_of",
    "plan",
    "read",
    "write",
]
