"""The proof, and what a draft would have given, over HTTP."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app import programs
from app.clients import Caller, needs
from app.db import Database
from app.edge import READING, Db, Now
from app.errors import NotFound, answers
from app.insight.moves import Moves, MovesCompared
from app.insight.replaying import Period, PeriodInvalid, count_members, period, replay
from app.insight.rules import Compared, Totals
from app.insight.service import prove
from app.programs import Terms
from app.wire import Answer, WireInstant

router = APIRouter(prefix="/v1", tags=["accounting"])


class DifferenceOut(Answer):
    """One row that does not hold: what the rows beneath it come to, and what it says."""

    subject: str
    expected: str
    actual: str


class CheckedOut(Answer):
    """One check: how many rows differ, and the first twenty of them."""

    name: str
    meaning: str
    differences: int
    shown: list[DifferenceOut]


class ProofOut(Answer):
    """All checks. `holds` when no row differs anywhere."""

    holds: bool
    checks: list[CheckedOut]


@router.get("/proof", responses=answers(*READING), summary="Prove the books")
def read_proof(caller: Annotated[Caller, needs("accounting:read")], database: Db) -> ProofOut:
    """Recomputes balances from entries and lots, cohorts from lots, the liability from cohorts, and more."""
    return ProofOut.model_validate(database.read(lambda session: prove(session, caller.program)))


# --- replay ---------------------------------------------------------------------------------------------------------


class FiguresOut(Answer):
    """Purchases that earned, their points, and the revenue deferred for those (minor units); of both what returns took
    back since."""

    purchases: int
    points: int
    taken_back: int
    deferred: int
    given_back: int


class ComparedOut(Answer):
    """The same purchases under the terms they were decided under, and under the draft."""

    published: FiguresOut
    draft: FiguresOut


class StoreOut(ComparedOut):
    """In one store; null: the till named none."""

    store: str | None


class SegmentOut(ComparedOut):
    """Of members who are in a segment today. Who is in several counts in each."""

    segment: str


class GivenOut(Answer):
    """What a rule gave, and for how many purchases. What came back since is not taken off."""

    purchases: int
    points: int


class BothOut(Answer):
    """What a rule gave under the published terms, and under the draft."""

    published: GivenOut
    draft: GivenOut


class RuleOut(BothOut):
    """A rule; `base` is what every purchase earns."""

    rule: str


class RefusedOut(Answer):
    """Purchases that the draft would not have taken, by the code of the refusal. They earn nothing under it."""

    code: str
    purchases: int


class MoveOut(Answer):
    """Members in one tier before the period and in another at its end; null: in none."""

    from_tier: str | None
    to_tier: str | None
    members: int


class InTierOut(Answer):
    """Members in a tier at the end of the period."""

    tier: str
    members: int


class MovesOut(Answer):
    """How many members `rose` and `fell`, from which tier to which, and how many were in each at the end."""

    rose: int
    fell: int
    moves: list[MoveOut]
    at_end: list[InTierOut]


class MovesComparedOut(Answer):
    """The same members under the terms that were in force, and under the draft."""

    published: MovesOut
    draft: MovesOut


class SegmentMovesOut(MovesComparedOut):
    """Of members who are in a segment today."""

    segment: str


class TiersOut(MovesComparedOut):
    """Of all members, and by segment."""

    segments: list[SegmentMovesOut]


class ReplayOut(Answer):
    """Both sides of a replay. `assumed`: purchases for which the draft asked what is known of members today only.
    `tiers` is null where there are none on either side."""

    currency: str
    purchases: int
    assumed: int
    total: ComparedOut
    stores: list[StoreOut]
    segments: list[SegmentOut]
    rules: list[RuleOut]
    refused: list[RefusedOut]
    tiers: TiersOut | None


class ReplayLine(Answer):
    """How many members have been looked at, of how many; in the last line the `result`."""

    members: int
    of: int
    result: ReplayOut | None


class JsonLines(StreamingResponse):
    """One JSON document a line."""

    media_type = "application/jsonl"


_SINCE = Query(alias="from", description="Purchases that happened from this instant on")
_UNTIL = Query(alias="to", description="and before this one")


@router.get(
    "/programs/{program_id}/terms/{version}/replay",
    response_model=None,
    response_class=JsonLines,
    responses=answers(*READING, NotFound, PeriodInvalid) | {200: {"model": ReplayLine}},
    tags=["programmes"],
    summary="Replay terms over the past",
)
def replay_terms(
    program_id: UUID,
    version: int,
    since: Annotated[WireInstant, _SINCE],
    until: Annotated[WireInstant, _UNTIL],
    caller: Annotated[Caller, needs("accounting:read")],
    database: Db,
    now: Now,
) -> JsonLines:
    """What a version, a draft for instance, would have given for the purchases of a past period, against what they
    gave. Writes nothing. Lines of progress come while it works; only with a `result` was it all."""
    caller.must_see_program(program_id)
    within = period(since, until, now)
    terms, of = database.read(
        lambda session: (programs.terms_of(session, program_id, version), count_members(session, program_id))
    )
    return JsonLines(_lines(database, program_id, terms, within, now, of))


def _lines(database: Database, program_id: UUID, terms: Terms, within: Period, now: datetime, of: int) -> Iterator[str]:
    totals = Totals()
    for totals in replay(database, program_id, terms, within, now):
        yield ReplayLine(members=totals.members, of=of, result=None).model_dump_json() + "\n"
    result = replay_out(totals, terms.currency)
    yield ReplayLine(members=totals.members, of=of, result=result).model_dump_json() + "\n"


def replay_out(totals: Totals, currency: str) -> ReplayOut:
    """What a replay came to, as it is answered."""
    return ReplayOut(
        currency=currency,
        purchases=totals.purchases,
        assumed=totals.assumed,
        total=ComparedOut.model_validate(totals.all),
        stores=[StoreOut(store=name, **_sides(each)) for name, each in sorted(totals.stores.items(), key=_by_name)],
        segments=[SegmentOut(segment=name, **_sides(each)) for name, each in sorted(totals.segments.items())],
        rules=[RuleOut(rule=name, **dict(BothOut.model_validate(each))) for name, each in totals.rules.items()],
        refused=[RefusedOut(code=code, purchases=count) for code, count in sorted(totals.refused.items())],
        tiers=_tiers(totals) if totals.tiers.published.members else None,
    )


def _tiers(totals: Totals) -> TiersOut:
    segments = [SegmentMovesOut(segment=name, **_moved(each)) for name, each in sorted(totals.tiers_by_segment.items())]
    return TiersOut(segments=segments, **_moved(totals.tiers))


def _moved(compared: MovesCompared) -> dict[str, MovesOut]:
    return {"published": _moves(compared.published), "draft": _moves(compared.draft)}


def _moves(moves: Moves) -> MovesOut:
    pairs = sorted(moves.members.items(), key=lambda item: tuple(tier or "" for tier in item[0]))
    at_end: Counter[str] = Counter()
    for (_, last), count in pairs:
        if last is not None:
            at_end[last] += count
    return MovesOut(
        rose=moves.rose,
        fell=moves.fell,
        moves=[
            MoveOut(from_tier=first, to_tier=last, members=count) for (first, last), count in pairs if first != last
        ],
        at_end=[InTierOut(tier=tier, members=count) for tier, count in sorted(at_end.items())],
    )


def _by_name(item: tuple[str | None, Compared]) -> str:
    return item[0] or ""


def _sides(compared: Compared) -> dict[str, FiguresOut]:
    return dict(ComparedOut.model_validate(compared))
