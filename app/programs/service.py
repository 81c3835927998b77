"""Create programmes; draft, change, publish and retire their terms."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, func, select, update
from sqlalchemy.orm import Session

from app import accounting, db, outbox
from app.errors import NotFound, PreconditionFailed, Problem, finding
from app.ids import new_id
from app.programs.budgets import given
from app.programs.calendar import Timeline, Version
from app.programs.changes import Change, changes
from app.programs.models import Program, ProgramTerms
from app.programs.schemas import BudgetOut, Terms, budget_out


class ProgramExists(Problem):
    """Another programme has this code. Choose a different one."""

    status, code, title, final = 409, "program_exists", "The programme's code is taken", True


class TermsPublished(Problem):
    """A published version never changes. Draft a new one."""

    status, code, title, final = 409, "terms_published", "These terms are published", True


class TermsRetired(Problem):
    """A retired draft is never published. Draft a new version."""

    status, code, title, final = 409, "terms_retired", "These terms are retired", True


class EffectiveFromInvalid(Problem):
    """New terms take effect from now on, no two at one instant; only a programme's first may start in the past."""

    status, code, title, final = 422, "effective_from_invalid", "Terms cannot take effect then", True


class OccurredInFuture(Problem):
    """`occurred_at` lies further ahead than the terms allow. Set the till's clock."""

    status, code, title, final = 422, "occurred_in_future", "That lies in the future", True


class OccurredTooLongAgo(Problem):
    """`occurred_at` lies further back than the terms accept late uploads."""

    status, code, title, final = 422, "occurred_too_long_ago", "That is too old", True


class NoTerms(Problem):
    """No published terms were in force at `occurred_at`, or now. Publish terms, or correct the time."""

    status, code, title, final = 422, "no_terms", "The programme had no terms then", True


def create_program(
    session: Session, code: str, name: str, now: datetime, accounts: Mapping[str, str] | None = None
) -> Program:
    """A new programme with its chart of accounts; `accounts` are codes by role. ProgramExists if the code is taken."""
    row = {"id": new_id(), "code": code, "name": name, "created_at": now}
    if not db.claim_rows(session, Program, [row], ["id"]):
        raise ProgramExists
    program = Program(**row)
    accounting.open_chart(session, program.id, accounts or {})
    return program


def rename_program(session: Session, program_id: UUID, name: str) -> None:
    """What a programme is called, by people; its code stays."""
    session.execute(update(Program).where(Program.id == program_id).values(name=name))


def find_program(session: Session, code: str) -> Program | None:
    return session.scalars(select(Program).where(Program.code == code)).one_or_none()


def every_program(session: Session) -> Sequence[UUID]:
    """The ids of all programmes, oldest first."""
    return session.scalars(select(Program.id).order_by(Program.id)).all()


def timeline(session: Session, program_id: UUID) -> Timeline:
    """The published terms of a programme, read once per transaction."""
    read: dict[UUID, Timeline] = session.info.setdefault("timelines", {})
    if program_id not in read:
        read[program_id] = _timeline(session, program_id)
    return read[program_id]


def _timeline(session: Session, program_id: UUID) -> Timeline:
    rows = db.found(session, _published, program_id=program_id)
    if new := [row.id for row in rows if row.id not in _PARSED]:
        chosen = db.any_of(session, ProgramTerms.id.expression, new)
        for id_, document in session.execute(select(ProgramTerms.id, ProgramTerms.terms).where(chosen)):
            _PARSED[id_] = Terms.model_validate(document)
    return Timeline(tuple(Version(row.id, row.version, row.effective_from, _PARSED[row.id]) for row in rows))


def _published(_engine: str) -> Select[*tuple[Any, ...]]:
    mine = ProgramTerms.program_id == bindparam("program_id", type_=ProgramTerms.program_id.type)
    columns = ProgramTerms.id, ProgramTerms.version, ProgramTerms.effective_from
    return select(*columns).where(mine, ProgramTerms.published_at.is_not(None)).order_by(ProgramTerms.effective_from)


_PARSED: dict[UUID, Terms] = {}
"""Terms by the version's id, parsed once per process: a published version never changes."""


def terms_at(session: Session, program_id: UUID, instant: datetime) -> Terms:
    """The terms in force at `instant`. NoTerms if there were none."""
    version = timeline(session, program_id).at(instant)
    if version is None:
        raise NoTerms
    return version.terms


def zone_at(session: Session, program_id: UUID, instant: datetime) -> tzinfo:
    """The programme's time zone at `instant`."""
    return timeline(session, program_id).zone_at(instant)


def check_time(occurred_at: datetime, version: Version, now: datetime) -> None:
    """Raises OccurredInFuture or OccurredTooLongAgo."""
    uploads = version.terms.uploads
    if occurred_at > now + timedelta(minutes=uploads.future_minutes):
        raise OccurredInFuture(findings=[finding(("occurred_at",), "in_future", "later than the service's clock")])
    if uploads.latest_days is not None and occurred_at < now - timedelta(days=uploads.latest_days):
        detail = f"more than {uploads.latest_days} days ago"
        raise OccurredTooLongAgo(findings=[finding(("occurred_at",), "too_old", detail)])


def terms_of(session: Session, program_id: UUID, version: int) -> Terms:
    """The terms of a version, published or not. NotFound if there is none such."""
    return Terms.model_validate(find_version(session, program_id, version).terms)


def draft_terms(session: Session, program_id: UUID, terms: Terms, now: datetime) -> ProgramTerms:
    """A new draft, numbered after the programme's last version."""
    lock(session, program_id)
    last = select(func.coalesce(func.max(ProgramTerms.version), 0)).where(ProgramTerms.program_id == program_id)
    row = {
        "id": new_id(),
        "program_id": program_id,
        "version": session.execute(last).scalar_one() + 1,
        "revision": 1,
        "terms": terms.model_dump(mode="json"),
        "created_at": now,
        "published_at": None,
        "effective_from": None,
        "retired_at": None,
    }
    db.insert_rows(session, ProgramTerms, [row])
    return ProgramTerms(**row)


def change_draft(session: Session, program_id: UUID, version: int, revision: int, terms: Terms) -> ProgramTerms:
    """Replaces a draft that is still at `revision`, else PreconditionFailed. TermsPublished, TermsRetired."""
    draft = _draft(session, program_id, version, revision)
    draft.terms, draft.revision = terms.model_dump(mode="json"), revision + 1
    session.flush()
    return draft


def publish_terms(
    session: Session,
    program_id: UUID,
    version: int,
    now: datetime,
    effective_from: datetime | None = None,
    revision: int | None = None,
) -> ProgramTerms:
    """Publishes a draft from `effective_from` (now, if None) until that of the next, if there is one published for
    later. EffectiveFromInvalid if it would rewrite the past or replace another. TermsPublished, TermsRetired;
    PreconditionFailed if it is not at `revision` (None: at whichever)."""
    draft = _draft(session, program_id, version, revision)
    start = (effective_from or now).astimezone(UTC)
    if wrong := _why_not_from(start, _timeline(session, program_id), now):
        raise EffectiveFromInvalid(wrong, findings=[finding(("effective_from",), "effective_from_invalid", wrong)])
    draft.published_at, draft.effective_from = now, start
    session.flush()
    session.info.pop("timelines", None)
    event = {"version": version, "effective_from": start.isoformat()}
    outbox.put(session, [outbox.Event(program_id, "terms.published", None, event)], now)
    return draft


def _why_not_from(start: datetime, published: Timeline, now: datetime) -> str | None:
    if published.versions and start < now:
        return "new terms cannot take effect in the past"
    there = published.at(start)
    if there is not None and there.effective_from == start:
        return f"version {there.number} takes effect at that instant; a moment later would do"
    return None


def drafts(session: Session, program_id: UUID) -> dict[int, Terms]:
    """The drafts that could be published, by version."""
    return {
        row.version: Terms.model_validate(row.terms)
        for row in versions(session, program_id)
        if row.published_at is None and row.retired_at is None
    }


def retire_terms(
    session: Session, program_id: UUID, version: int, now: datetime, revision: int | None = None
) -> ProgramTerms:
    """Gives up a draft for good; retiring it again changes nothing. TermsPublished: what is published ends when other
    terms take effect. PreconditionFailed if it is not at `revision` (None: at whichever)."""
    lock(session, program_id)
    found = find_version(session, program_id, version)
    if found.retired_at is None:
        draft = _draft(session, program_id, version, revision)
        draft.retired_at, draft.revision = now, draft.revision + 1
        session.flush()
    return found


def differences(session: Session, program_id: UUID, version: int, other: int) -> list[Change]:
    """What turns one version of a programme's terms into another. NotFound if there is none such."""
    rows = [find_version(session, program_id, number) for number in (version, other)]
    # through the model: stored terms of before say nothing of what they did not know
    old, new = (Terms.model_validate(row.terms).model_dump(mode="json") for row in rows)
    return changes(old, new)


def budgets(session: Session, program_id: UUID, now: datetime) -> list[BudgetOut]:
    """Rules with a budget, of all terms that have taken effect, by code. NotFound if there is no such programme."""
    if session.get(Program, program_id) is None:
        raise NotFound
    terms, points = timeline(session, program_id), given(session, program_id)
    known = {
        rule.code: (rule, version is terms.at(now))
        for version in terms.versions
        if version.effective_from <= now
        for rule in version.terms.rules
        if rule.budget is not None
    }
    return [budget_out(rule, points.get(code, 0), in_force) for code, (rule, in_force) in sorted(known.items())]


def versions(session: Session, program_id: UUID) -> Sequence[ProgramTerms]:
    """All versions of a programme's terms, drafts too, oldest first."""
    rows = select(ProgramTerms).where(ProgramTerms.program_id == program_id).order_by(ProgramTerms.version)
    return session.scalars(rows).all()


def find_version(session: Session, program_id: UUID, version: int) -> ProgramTerms:
    """One version. NotFound if there is none."""
    if not 0 < version < 2**31:  # a number no version can have, before a database has to refuse it
        raise NotFound
    rows = select(ProgramTerms).where(ProgramTerms.program_id == program_id, ProgramTerms.version == version)
    found = session.scalars(rows).one_or_none()
    if found is None:
        raise NotFound
    return found


def _draft(session: Session, program_id: UUID, version: int, revision: int | None) -> ProgramTerms:
    lock(session, program_id)
    found = find_version(session, program_id, version)
    if found.published_at is not None:
        raise TermsPublished
    if found.retired_at is not None:
        raise TermsRetired
    if revision not in (None, found.revision):
        raise PreconditionFailed
    return found


def lock(session: Session, program_id: UUID) -> None:
    """Changes of one programme's terms take turns. NotFound if there is no such programme."""
    locked = select(Program.id).where(Program.id == program_id).with_for_update(key_share=True)
    if session.execute(locked).one_or_none() is None:
        raise NotFound
