"""Read a programme as a blueprint; plan what turns it into another, and do that."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from app import accounting, programs, redemptions
from app.blueprints.rules import Current, Plan, Standing, Step, planned
from app.blueprints.schemas import Blueprint
from app.errors import NotFound
from app.programs import Program
from app.programs.schemas import ProgramIn
from app.redemptions import RewardIn


class PlanChanged(ValueError):
    """The programme has changed since the plan was made. Plan again."""


def export(session: Session, code: str, version: int | None = None) -> Blueprint:
    """A programme with the terms it published last, or a certain version, and the rewards in force. NotFound."""
    program = programs.find_program(session, code)
    if program is None:
        raise NotFound
    published = programs.timeline(session, program.id).versions
    if version is None and not published:
        raise NotFound("the programme has no published terms")
    terms = published[-1].terms if version is None else programs.terms_of(session, program.id, version)
    codes = accounting.default_codes().items() ^ accounting.chart(session, program.id).items()
    chart = accounting.chart(session, program.id)
    return Blueprint(
        program=ProgramIn(
            code=program.code, name=program.name, accounts={role: chart[role] for role, _ in sorted(codes)}
        ),
        terms=terms,
        rewards=[each.offer for each in _rewards(session, program.id).values() if not each.retired],
    )


def plan(session: Session, wanted: Blueprint) -> Plan:
    """What would have to change, and why it cannot."""
    program = programs.find_program(session, wanted.program.code)
    current = None if program is None else _current(session, program)
    return planned(wanted, current, accounting.default_codes())


def apply(
    session: Session, wanted: Blueprint, expected: Plan, now: datetime, effective_from: datetime | None = None
) -> UUID:
    """Takes the steps of the plan that was made; answers the programme. Terms hold from `effective_from`, or now.

    PlanChanged if it is not the plan any more; EffectiveFromInvalid if other terms, published for later, would follow:
    the programme would not stay as it is wanted. And the refusals of the verbs that take the steps.
    """
    program = programs.find_program(session, wanted.program.code)
    if program is not None:
        programs.lock(session, program.id)
    if plan(session, wanted) != expected or expected.conflicts:
        raise PlanChanged("the programme has changed since the plan was made; plan again")
    program_id = None if program is None else program.id
    for step in expected.steps:
        program_id = _take(session, program_id, wanted, step, now, effective_from)
    if program_id is None:
        raise NotFound
    return program_id


def _take(
    session: Session,
    program_id: UUID | None,
    wanted: Blueprint,
    step: Step,
    now: datetime,
    effective_from: datetime | None,
) -> UUID:
    about = wanted.program
    if step.verb == "create" or program_id is None:
        return programs.create_program(session, about.code, about.name, now, about.accounts).id
    rewards = {reward.code: reward for reward in wanted.rewards}
    match step.verb:
        case "rename":
            programs.rename_program(session, program_id, about.name)
        case "publish":
            _check_last(session, program_id, effective_from or now)
            version = step.at or programs.draft_terms(session, program_id, wanted.terms, now).version
            programs.publish_terms(session, program_id, version, now, effective_from)
        case "add":
            redemptions.add_reward(session, program_id, rewards[step.subject], now)
        case "change":
            row = _row(session, program_id, step.subject)
            offer = redemptions.RewardChange.model_validate(rewards[step.subject].model_dump(exclude={"code"}))
            redemptions.change_reward(session, program_id, row.id, row.revision, offer, now)
        case "retire":
            row = _row(session, program_id, step.subject)
            redemptions.retire_reward(session, program_id, row.id, now)
    return program_id


def _check_last(session: Session, program_id: UUID, start: datetime) -> None:
    if following := programs.timeline(session, program_id).after(start):
        later = following[0]
        from_then = f"version {later.number} is published from {later.effective_from.isoformat()}"
        raise programs.EffectiveFromInvalid(f"{from_then} and would follow; a later --effective-from would do")


def _row(session: Session, program_id: UUID, code: str) -> redemptions.RewardRow:
    return next(row for row in redemptions.every_reward(session, program_id) if row.code == code)


def _current(session: Session, program: Program) -> Current:
    published = programs.timeline(session, program.id).versions
    return Current(
        name=program.name,
        accounts=accounting.chart(session, program.id),
        terms=published[-1].terms if published else None,
        drafts=programs.drafts(session, program.id),
        rewards=_rewards(session, program.id),
    )


def _rewards(session: Session, program_id: UUID) -> dict[str, Standing]:
    """All there ever were, by code, in the order in which they were added."""
    return {
        row.code: Standing(
            RewardIn.model_validate(row.offer | {"code": row.code, "currency": row.currency, "supply": row.supply}),
            row.revision,
            row.taken,
            row.retired_at is not None,
        )
        for row in redemptions.every_reward(session, program_id)
    }
