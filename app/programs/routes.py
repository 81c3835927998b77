"""Programmes and their terms over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import idempotency
from app.clients import Caller, keyed, needs
from app.edge import READING, WRITING, Db, IfMatch, Now, StrictRoute, revision_in
from app.errors import NotFound, PreconditionFailed, PreconditionRequired, answers
from app.idempotency import Attempt, Reply
from app.programs import service
from app.programs.models import Program, ProgramTerms
from app.programs.schemas import (
    EXAMPLE_TERMS,
    BudgetList,
    ChangeList,
    ChangeOut,
    ProgramIn,
    ProgramList,
    ProgramOut,
    PublishIn,
    Terms,
    TermsList,
    TermsOut,
)

router = APIRouter(prefix="/v1/programs", tags=["programmes"], route_class=StrictRoute)

TermsBody = Annotated[Terms, Body(openapi_examples={"grocer": {"value": EXAMPLE_TERMS}})]

_KEYED = (*WRITING, *idempotency.REFUSALS)
_FINAL = (service.TermsPublished, service.TermsRetired)
_EXAMPLE_PROGRAM = {"first": {"value": {"code": "corner-grocer", "name": "Corner Grocer points"}}}


@router.post(
    "",
    status_code=201,
    response_model=ProgramOut,
    responses=answers(*_KEYED, service.ProgramExists),
    summary="Create a programme",
)
def create_program(
    body: Annotated[ProgramIn, Body(openapi_examples=_EXAMPLE_PROGRAM)],
    attempt: Annotated[Attempt, keyed("programs:create")],
    database: Db,
    now: Now,
) -> Response:
    """With its chart of accounts. It earns nothing until terms are published."""

    def act(session: Session) -> Reply:
        program = service.create_program(session, body.code, body.name, now, body.accounts)
        return Reply(201, ProgramOut.model_validate(program).model_dump_json().encode())

    return idempotency.carry_out(database, attempt, now, act)


@router.get("", responses=answers(*READING), summary="List programmes")
def list_programs(caller: Annotated[Caller, needs("programs:read")], database: Db) -> ProgramList:
    """The caller's programme; for a key that belongs to none, all of them."""
    rows = select(Program).order_by(Program.code)
    if caller.program_id is not None:
        rows = rows.where(Program.id == caller.program_id)
    found = database.read(lambda session: session.scalars(rows).all())
    return ProgramList(items=[ProgramOut.model_validate(row) for row in found])


@router.get("/{program_id}/budgets", responses=answers(*READING, NotFound), summary="List budgets of earning rules")
def list_budgets(
    program_id: UUID, caller: Annotated[Caller, needs("programs:read")], database: Db, now: Now
) -> BudgetList:
    """What rules with a budget have given all members together, and what is left; by code."""
    caller.must_see_program(program_id)
    return BudgetList(items=database.read(lambda session: service.budgets(session, program_id, now)))


@router.get("/{program_id}", responses=answers(*READING, NotFound), summary="Read a programme")
def read_program(program_id: UUID, caller: Annotated[Caller, needs("programs:read")], database: Db) -> ProgramOut:
    caller.must_see_program(program_id)
    found = database.read(lambda session: session.get(Program, program_id))
    if found is None:
        raise NotFound
    return ProgramOut.model_validate(found)


@router.post(
    "/{program_id}/terms",
    status_code=201,
    response_model=TermsOut,
    responses=answers(*_KEYED, NotFound),
    summary="Draft terms",
)
def draft_terms(
    program_id: UUID,
    body: TermsBody,
    caller: Annotated[Caller, needs("programs:write")],
    attempt: Annotated[Attempt, keyed("programs:write")],
    database: Db,
    now: Now,
) -> Response:
    """Bad terms are refused with every finding at once."""
    caller.must_see_program(program_id)

    def act(session: Session) -> Reply:
        return _reply(201, service.draft_terms(session, program_id, body, now))

    response = idempotency.carry_out(database, attempt, now, act)
    if response.status_code == 201:
        response.headers["ETag"] = '"1"'
    return response


@router.get("/{program_id}/terms", responses=answers(*READING, NotFound), summary="List versions of terms")
def list_terms(program_id: UUID, caller: Annotated[Caller, needs("programs:read")], database: Db) -> TermsList:
    caller.must_see_program(program_id)
    found = database.read(lambda session: service.versions(session, program_id))
    return TermsList(items=[_out(row) for row in found])


@router.get("/{program_id}/terms/{version}", responses=answers(*READING, NotFound), summary="Read a version of terms")
def read_terms(
    program_id: UUID, version: int, caller: Annotated[Caller, needs("programs:read")], database: Db, response: Response
) -> TermsOut:
    caller.must_see_program(program_id)
    found = database.read(lambda session: service.find_version(session, program_id, version))
    response.headers["ETag"] = f'"{found.revision}"'
    return _out(found)


@router.put(
    "/{program_id}/terms/{version}",
    responses=answers(*WRITING, NotFound, PreconditionRequired, PreconditionFailed, *_FINAL),
    summary="Replace a draft",
)
def change_draft(
    program_id: UUID,
    version: int,
    body: TermsBody,
    caller: Annotated[Caller, needs("programs:write")],
    database: Db,
    response: Response,
    if_match: IfMatch = None,
) -> TermsOut:
    """Safe to repeat: `If-Match` carries the `ETag` of the draft that was read."""
    caller.must_see_program(program_id)
    revision = revision_in(if_match)
    changed = database.write(lambda session: service.change_draft(session, program_id, version, revision, body))
    response.headers["ETag"] = f'"{changed.revision}"'
    return _out(changed)


@router.post(
    "/{program_id}/terms/{version}/publish",
    response_model=TermsOut,
    responses=answers(*_KEYED, NotFound, PreconditionFailed, *_FINAL, service.EffectiveFromInvalid),
    summary="Publish a draft",
)
def publish_terms(
    program_id: UUID,
    version: int,
    body: Annotated[PublishIn, Body(openapi_examples={"now": {"value": {}}})],
    caller: Annotated[Caller, needs("programs:write")],
    attempt: Annotated[Attempt, keyed("programs:write")],
    database: Db,
    now: Now,
    if_match: IfMatch = None,
) -> Response:
    """From then on it never changes. Purchases take the version in force at their `occurred_at`. With `If-Match` only
    the draft that was read is published."""
    caller.must_see_program(program_id)
    revision = None if if_match is None else revision_in(if_match)

    def act(session: Session) -> Reply:
        return _reply(200, service.publish_terms(session, program_id, version, now, body.effective_from, revision))

    return idempotency.carry_out(database, attempt, now, act)


@router.post(
    "/{program_id}/terms/{version}/retirement",
    response_model=TermsOut,
    responses=answers(*_KEYED, NotFound, PreconditionFailed, service.TermsPublished),
    summary="Retire a draft",
)
def retire_terms(
    program_id: UUID,
    version: int,
    caller: Annotated[Caller, needs("programs:write")],
    attempt: Annotated[Attempt, keyed("programs:write")],
    database: Db,
    now: Now,
    if_match: IfMatch = None,
) -> Response:
    """For good; retiring it again changes nothing. A published version cannot be retired: others take its place."""
    caller.must_see_program(program_id)
    revision = None if if_match is None else revision_in(if_match)

    def act(session: Session) -> Reply:
        return _reply(200, service.retire_terms(session, program_id, version, now, revision))

    return idempotency.carry_out(database, attempt, now, act)


@router.get(
    "/{program_id}/terms/{version}/diff/{other}",
    responses=answers(*READING, NotFound),
    summary="Compare two versions of terms",
)
def compare_terms(
    program_id: UUID, version: int, other: int, caller: Annotated[Caller, needs("programs:read")], database: Db
) -> ChangeList:
    """What turns `version` into `other`. Rules are matched by their code."""
    caller.must_see_program(program_id)
    found = database.read(lambda session: service.differences(session, program_id, version, other))
    return ChangeList(items=[ChangeOut.model_validate(each) for each in found])


def _reply(status: int, row: ProgramTerms) -> Reply:
    return Reply(status, _out(row).model_dump_json().encode())


def _out(row: ProgramTerms) -> TermsOut:
    return TermsOut(
        id=row.id,
        version=row.version,
        status="retired" if row.retired_at else "published" if row.published_at else "draft",
        effective_from=row.effective_from,
        published_at=row.published_at,
        retired_at=row.retired_at,
        terms=Terms.model_validate(row.terms),
    )
