"""What has to change for a programme to be as a blueprint says. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.blueprints.schemas import Blueprint
from app.programs import Terms
from app.programs.changes import Change, changes
from app.redemptions.schemas import RewardIn

Verb = Literal["create", "rename", "publish", "add", "change", "retire"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A reward as it is: its offer, its revision, how many pieces have been ordered, and whether it is retired."""

    offer: RewardIn
    revision: int
    taken: int
    retired: bool


@dataclass(frozen=True, slots=True)
class Current:
    """A programme as it is: its name, account codes by role, the terms published last, drafts that could be published
    (by version), and its rewards by code."""

    name: str
    accounts: Mapping[str, str]
    terms: Terms | None
    drafts: Mapping[int, Terms]
    rewards: Mapping[str, Standing]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: a `verb`, what it is done to, what there is of it now (a draft's version, a reward's revision),
    and which fields that changes."""

    verb: Verb
    subject: str
    at: int | None = None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """What a blueprint asks for and cannot be: where in it (JSON pointer), and why."""

    pointer: str
    detail: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps to take, in order; or the conflicts because of which none can be taken."""

    steps: tuple[Step, ...]
    conflicts: tuple[Conflict, ...]


def planned(wanted: Blueprint, current: Current | None, default_accounts: Mapping[str, str]) -> Plan:
    """What turns `current`, or nothing, into what is `wanted`. Nothing to do if it is so."""
    code = wanted.program.code
    if current is None:
        steps = [Step("create", code), Step("publish", "terms")]
        return Plan((*steps, *(Step("add", reward.code) for reward in wanted.rewards)), ())
    steps = [] if current.name == wanted.program.name else [Step("rename", code)]
    steps += _of_terms(wanted.terms, current)
    steps += _of_rewards(wanted.rewards, current.rewards)
    found = [*_of_accounts(wanted, current, default_accounts), *_of_supplies(wanted.rewards, current.rewards)]
    return Plan(() if found else tuple(steps), tuple(found))


def _of_terms(wanted: Terms, current: Current) -> list[Step]:
    if wanted == current.terms:
        return []
    draft = next((version for version, terms in sorted(current.drafts.items()) if terms == wanted), None)
    changed = () if current.terms is None else _changes(current.terms, wanted)
    return [Step("publish", "terms", draft, changed)]


def _of_rewards(wanted: Sequence[RewardIn], current: Mapping[str, Standing]) -> list[Step]:
    steps = []
    for reward in wanted:
        known = current.get(reward.code)
        if known is None:
            steps.append(Step("add", reward.code))
        elif known.offer != reward:
            steps.append(Step("change", reward.code, known.revision, _changes(known.offer, reward)))
    kept = {reward.code for reward in wanted}
    gone = [code for code, known in current.items() if code not in kept and not known.retired]
    return [*steps, *(Step("retire", code, current[code].revision) for code in sorted(gone))]


def _of_accounts(wanted: Blueprint, current: Current, default: Mapping[str, str]) -> list[Conflict]:
    chosen = dict(default) | wanted.program.accounts
    return [
        Conflict(f"/program/accounts/{role}", f"the account's code is {current.accounts[role]}, for good")
        for role in sorted(current.accounts)
        if chosen.get(role) != current.accounts[role]
    ]


def _of_supplies(wanted: Sequence[RewardIn], current: Mapping[str, Standing]) -> list[Conflict]:
    found = []
    for position, reward in enumerate(wanted):
        known = current.get(reward.code)
        if known is not None and known.retired:
            found.append(Conflict(f"/rewards/{position}/code", "a reward of this code was retired, for good"))
        elif known is not None and reward.supply is not None and reward.supply < known.taken:
            found.append(Conflict(f"/rewards/{position}/supply", f"{known.taken} pieces have been ordered"))
    return found


def _changes(old: Terms | RewardIn, new: Terms | RewardIn) -> tuple[Change, ...]:
    before: dict[str, Any] = old.model_dump(mode="json")
    return tuple(changes(before, new.model_dump(mode="json")))


# --- in words -------------------------------------------------------------------------------------------------------

_WORDS: Mapping[Verb, str] = {
    "create": "+ programme {}",
    "rename": "~ programme {}: another name",
    "publish": "~ {}: publish{}",
    "add": "+ reward {}",
    "change": "~ reward {}",
    "retire": "- reward {}: retire",
}


def lines_of(plan: Plan) -> list[str]:
    """A plan as people read it: a line for each step, and one for each change."""
    lines = []
    for step in plan.steps:
        draft = "" if step.at is None else f" draft {step.at}"
        lines.append(_WORDS[step.verb].format(step.subject, draft))
        lines += [f"    {change.text}" for change in step.changes]
    return lines
