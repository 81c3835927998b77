"""What happened to members between two instants, for statements: each as known at itself (`history`).

A month's worth of members is read by sets: figures and the points that are left are summed up in the database, by the
instant they expire at. That is all there is to most accounts. Those to which something was due that was not written
down, or with holds, or whose entries were recorded out of turn, are told by `as_of`, lot by lot.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import FromClause, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from app import db
from app.ledger.history import Past, as_of, instant, whole
from app.ledger.models import Lot, LotUse, PointAccount, PointEntry
from app.ledger.queries import Ladder, expiry_ladder, ladder
from app.ledger.rules import BALANCES, NO_LOTS, Account


@dataclass(frozen=True, slots=True)
class Span:
    """A member's account at two instants, and what led from one to the other.

    Of the accounts only the figures are there to be read. `movements` are entries, by column, those that were due and
    not written down among them: they are the same whenever that is done, and have the same numbers. `ladder` is that of
    the closing.
    """

    opening: Account
    movements: Sequence[Mapping[str, Any]]
    closing: Account
    ladder: Ladder


def spans(
    session: Session, member_ids: Collection[UUID], opens_at: datetime, closes_at: datetime, zone: tzinfo
) -> dict[UUID, Span]:
    """What happened to members after `opens_at` and up to `closes_at`. Who has no account is left out. The number of
    SQL statements does not depend on how many members they are."""
    asked = {"ids": list(member_ids), "opens_at": opens_at, "closes_at": closes_at}
    steps: dict[UUID, list[_Step]] = defaultdict(list)
    for member_id, *step in db.found(session, _steps, **asked):
        steps[member_id].append(_Step(*step))
    ends: dict[UUID, _Ends | None] = {
        row[0]: _plain(row, steps[row[0]], opens_at, closes_at) for row in db.found(session, _figures, **asked)
    }
    if others := [member_id for member_id, plain in ends.items() if plain is None]:
        opening, closing = (as_of(session, others, Past(at, at), zone) for at in (opens_at, closes_at))
        ends |= {id_: _Ends(opening[id_], closing[id_], expiry_ladder(closing[id_])) for id_ in others}
    told = {id_: each for id_, each in ends.items() if each is not None}
    moved = _movements(session, told)
    return {id_: Span(each.opening, moved[id_], each.closing, each.ladder) for id_, each in told.items()}


class _Ends(NamedTuple):
    """A span but for its movements."""

    opening: Account
    closing: Account
    ladder: Ladder


# --- figures --------------------------------------------------------------------------------------------------------

_WIDTH = 3 + len(BALANCES)


def _figures(engine: str) -> Select[*tuple[Any, ...]]:
    """Of each member: the programme; then, at both instants, how many entries were recorded by then, the number of the
    last of them, the balances, and when the account lapses."""
    entry = PointEntry.__table__.c
    columns: list[Any] = []
    for end in ("opens_at", "closes_at"):
        by_then = entry.recorded_at <= instant(end)
        columns.append(func.count().filter(by_then))
        columns.append(func.coalesce(func.max(entry.number).filter(by_then), 0))
        columns += [whole(func.sum(entry[name]).filter(by_then)) for name in BALANCES]
        columns.append(func.max(entry.lapses_at).filter(by_then))
    sums = (
        select(entry.member_id, *(each.label(f"c{place}") for place, each in enumerate(columns)))
        .where(db.one_of(engine, entry.member_id, "ids"), entry.recorded_at <= instant("closes_at"))
        .group_by(entry.member_id)
        .subquery()
    )
    account = PointAccount.member_id.expression
    return (
        select(account, PointAccount.program_id, *(each for each in sums.c if each.name != "member_id"))
        .outerjoin(sums, sums.c.member_id == account)
        .where(db.one_of(engine, account, "ids"))
    )


class _Step(NamedTuple):
    """Points of a member that expire together: how many there were, and how many of those were not available yet, at
    both instants."""

    expires_at: datetime | None
    lapses: bool
    opening: int
    opening_pending: int
    closing: int
    closing_pending: int


def _steps(engine: str) -> Select[*tuple[Any, ...]]:
    """A row per member and `_Step`."""
    used = _used(engine)
    opened = Lot.recorded_at <= instant("opens_at")
    opening = (Lot.granted - func.coalesce(used.c.opening, 0), and_(opened, _waiting("opens_at")))
    closing = (Lot.granted - func.coalesce(used.c.closing, 0), _waiting("closes_at"))
    return (
        select(
            Lot.member_id,
            Lot.expires_at,
            Lot.lapses,
            whole(func.sum(opening[0]).filter(opened)),
            whole(func.sum(opening[0]).filter(opening[1])),
            whole(func.sum(closing[0])),
            whole(func.sum(closing[0]).filter(closing[1])),
        )
        .outerjoin(used, and_(used.c.member_id == Lot.member_id, used.c.lot_id == Lot.id))
        .where(db.one_of(engine, Lot.member_id.expression, "ids"), Lot.recorded_at <= instant("closes_at"))
        .where(or_(and_(opened, opening[0] != 0), closing[0] != 0))
        .group_by(Lot.member_id, Lot.expires_at, Lot.lapses)
    )


def _waiting(end: str) -> Any:
    """Which lots were not available yet."""
    return or_(Lot.available_from.is_(None), Lot.available_from > instant(end))


def _used(engine: str) -> FromClause:
    """How many points of each lot had been taken, at both instants."""
    by_opening = PointEntry.recorded_at <= instant("opens_at")
    return (
        select(
            LotUse.member_id,
            LotUse.lot_id,
            whole(func.sum(LotUse.points).filter(by_opening)).label("opening"),
            whole(func.sum(LotUse.points)).label("closing"),
        )
        .join(PointEntry, and_(PointEntry.member_id == LotUse.member_id, PointEntry.id == LotUse.entry_id))
        .where(db.one_of(engine, LotUse.member_id.expression, "ids"), PointEntry.recorded_at <= instant("closes_at"))
        .where(db.one_of(engine, PointEntry.member_id.expression, "ids"))  # said again, or all entries are read
        .group_by(LotUse.member_id, LotUse.lot_id)
        .subquery()
    )


# --- most accounts --------------------------------------------------------------------------------------------------


def _plain(row: Sequence[Any], steps: Sequence[_Step], opens_at: datetime, closes_at: datetime) -> _Ends | None:
    """What sums say of a member; None where they do not say all."""
    opening, at_opening = _account(row, 2)
    closing, at_closing = _account(row, 2 + _WIDTH)
    opened = [(_expiry(step, opening), step.opening, step.opening_pending) for step in steps]
    left = [(_expiry(step, closing), step.closing, step.closing_pending) for step in steps]
    if not (_fits(opening, at_opening, opened, opens_at) and _fits(closing, at_closing, left, closes_at)):
        return None
    return _Ends(opening, closing, ladder((expires_at, points) for expires_at, points, _ in left))


def _account(row: Sequence[Any], start: int) -> tuple[Account, int]:
    """The figures at an instant, whose columns begin at `start`; and how many entries had been recorded."""
    entries, last, *sums, lapses_at = row[start : start + _WIDTH]
    figures: dict[str, Any] = dict(zip(BALANCES, (each or 0 for each in sums), strict=True))
    account = Account(row[0], row[1], **figures, last_entry=last or 0, lapses_at=lapses_at, asked=NO_LOTS)
    return account, entries or 0


def _expiry(step: _Step, account: Account) -> datetime | None:
    return account.lapses_at if step.lapses else step.expires_at


def _fits(account: Account, entries: int, steps: Sequence[tuple[datetime | None, int, int]], at: datetime) -> bool:
    """Whether that is the account: no entry recorded before an earlier one, no holds, nothing due that is not written
    down, and figures that its points come to."""
    return (
        entries == account.last_entry
        and not account.held
        and account.pending == sum(pending for _, _, pending in steps)
        and account.available + account.pending == sum(points for _, points, _ in steps)
        and not any(points and expires_at is not None and expires_at <= at for expires_at, points, _ in steps)
    )


# --- movements ------------------------------------------------------------------------------------------------------

_SPAN = (("member_id", PointEntry.member_id.type), ("after", PointEntry.number.type), ("last", PointEntry.number.type))
_MOVEMENT = (
    "number",
    "kind",
    "points",
    "available",
    "held",
    "pending",
    "debt",
    "balance_after",
    "occurred_at",
    "recorded_at",
)


def _movements(session: Session, told: Mapping[UUID, _Ends]) -> dict[UUID, list[Mapping[str, Any]]]:
    written = [
        (id_, each.opening.last_entry, each.closing.last_entry - len(each.closing.rows.entries))
        for id_, each in told.items()
    ]
    moved = [span for span in written if span[1] < span[2]]
    given = db.rows_of(session, _SPAN, moved) | {"ids": [member_id for member_id, _, _ in moved]}
    found: dict[UUID, list[Mapping[str, Any]]] = {id_: [] for id_ in told}
    for member_id, *entry in db.found(session, _entries, **given):
        found[member_id].append(dict(zip(_MOVEMENT, entry, strict=True)))
    for id_, each in told.items():
        unwritten = each.closing.rows.entries
        found[id_] += [entry for entry in unwritten if entry["number"] > each.opening.last_entry]
    return found


def _entries(engine: str) -> Select[*tuple[Any, ...]]:
    span, entry = db.given(engine, _SPAN), PointEntry.__table__.c
    within = and_(entry.member_id == span.c.member_id, entry.number > span.c.after, entry.number <= span.c.last)
    columns = (entry[name] for name in _MOVEMENT)
    mine = db.one_of(engine, entry.member_id, "ids")  # said again, or all entries are read
    return select(entry.member_id, *columns).join(span, within).where(mine).order_by(entry.member_id, entry.number)
