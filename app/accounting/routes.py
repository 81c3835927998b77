"""The journal and what is made of it, over HTTP."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select

from app.accounting import queries, schemas, service
from app.accounting.models import Account, JournalPosting
from app.accounting.queries import Journal
from app.accounting.rules import Cause
from app.clients import Caller, needs
from app.edge import READING, Db, Now
from app.errors import CursorInvalid, Finding, InvalidRequest, answers
from app.paging import Cursor, Limit, decode, link_next, page
from app.wire import Answer, Text

router = APIRouter(prefix="/v1/accounting", tags=["accounting"])

Finance = Annotated[Caller, needs("accounting:read")]
Period = Annotated[schemas.Period | None, Query()]


@router.get("/accounts", responses=answers(*READING), summary="Read the chart of accounts")
def list_accounts(caller: Finance, database: Db) -> schemas.AccountList:
    chart = select(Account).where(Account.program_id == caller.program).order_by(Account.code)
    rows = database.read(lambda session: session.scalars(chart).all())
    return schemas.AccountList(items=[schemas.AccountOut.model_validate(row) for row in rows])


@router.get("/journal", responses=answers(*READING, CursorInvalid), summary="Read the journal")
def read_journal(
    caller: Finance,
    database: Db,
    request: Request,
    response: Response,
    period_from: Period = None,
    period_to: Period = None,
    account: Annotated[Text | None, Query(description="Debited or credited")] = None,
    cause: Annotated[Cause | None, Query()] = None,
    document_id: Annotated[UUID | None, Query(description="A transaction, or the claim of one")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> schemas.JournalPage:
    """Postings in the order they were made, each balanced in itself."""
    after = None if cursor is None else decode(cursor, UUID)[0]
    since, until = _month("period_from", period_from), _month("period_to", period_to)
    wanted = Journal(caller.program, since, until, account, cause, document_id)
    rows = database.read(lambda session: queries.journal(session, wanted, after, limit + 1))
    found = page(rows, limit, lambda row: [str(row.id)])
    link_next(request, response, found.next)
    return schemas.JournalPage(items=[_journal_row(row) for row in found.rows], next=found.next)


@router.get("/trial-balance", responses=answers(*READING), summary="Read the trial balance")
def read_trial_balance(caller: Finance, database: Db, period_to: Period = None) -> schemas.TrialBalance:
    """Per account and currency, up to and including a month; all of it without one."""
    until = _month("period_to", period_to)
    rows = database.read(lambda session: queries.balances(session, caller.program, until))
    items = [
        schemas.BalanceRow(
            code=row.account.code,
            name=row.account.name,
            kind=row.account.kind,
            currency=row.currency,
            debits=row.debits,
            credits=row.credits,
            balance=row.debits - row.credits,
        )
        for row in rows
    ]
    return schemas.TrialBalance(period_to=period_to, items=items)


@router.get("/cohorts", responses=answers(*READING, CursorInvalid), summary="Read the cohorts")
def list_cohorts(
    caller: Finance,
    database: Db,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> schemas.CohortPage:
    """What was deferred per currency, month, funding and redemption rate, and what became of it, with what waits for
    the next fold."""
    after = None if cursor is None else _place(decode(cursor, _word, _day, _word, _word))
    rows = database.read(lambda session: queries.cohorts(session, caller.program, after, limit + 1))
    found = page(rows, limit, lambda row: [row.currency, row.month.isoformat(), row.funding, row.estimate_class])
    link_next(request, response, found.next)
    return schemas.CohortPage(items=[_cohort(row) for row in found.rows], next=found.next)


@router.post("/recognitions", responses=answers(*READING), summary="Recognise revenue now")
def recognise(caller: Annotated[Caller, needs("accounting:write")], database: Db, now: Now) -> schemas.RecognitionOut:
    """Takes up everything that waits in the programme's cohorts and posts what that releases, as the worker does every
    minute. A repetition finds only what has come since."""
    folded = service.fold(database, now, caller.program)
    released = [
        schemas.ReleasedOut(currency=currency, funding=funding, cause=cause, amount=amount)
        for (currency, funding, cause), amount in sorted(folded.released.items())
    ]
    return schemas.RecognitionOut(
        cohorts=folded.cohorts,
        changes=folded.changes,
        postings=folded.postings,
        left=folded.left,
        released=released,
    )


def _word(text: str) -> str:
    """A part of a cohort's place. ValueError for what no cohort has and a database may not take."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError("not a part of a cohort's key")
    return text


def _day(text: str) -> str:
    return date.fromisoformat(text).isoformat()


def _place(parts: Sequence[str]) -> queries.CohortPlace:
    currency, month, funding, estimate_class = parts
    return currency, date.fromisoformat(month), funding, estimate_class


def _journal_row(row: JournalPosting) -> schemas.JournalRow:
    return schemas.JournalRow(**_columns(row, schemas.JournalRow), period=schemas.show_period(row.period))


def _cohort(row: queries.CohortSum) -> schemas.CohortOut:
    return schemas.CohortOut(**_columns(row, schemas.CohortOut), month=schemas.show_period(row.month))


def _columns(row: Any, answer: type[Answer]) -> dict[str, Any]:
    """The fields of `answer` that `row` has under the same name and in the same form."""
    return {name: getattr(row, name) for name in answer.model_fields if name not in ("period", "month")}


def _month(parameter: str, period: str | None) -> date | None:
    if period is None:
        return None
    try:
        return schemas.read_period(period)
    except ValueError:
        raise InvalidRequest(findings=[Finding(parameter, "period", "no such month")]) from None
