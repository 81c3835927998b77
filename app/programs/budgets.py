"""What earning rules may give all members together, without making all purchases wait for one row.

A rule's budget is reserved in chunks for slices, and given out of these: a batch of purchases locks one slice of each
rule that nobody else has locked, with room for all that the batch may give. Only where none has, it reserves more, in
turn with others; and only where nothing is left to reserve, it gathers what slices have left. So no more than the
budget is ever given, and all of it can be. What comes back does not make room again.

Locked after the members' accounts, rule by rule in the order of their codes: first a slice that is free, else the
budget and then its slices. Whoever waits for a budget holds no slice of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from app import db
from app.programs.conditions import Need
from app.programs.models import RuleBudget, RuleBudgetSlice

_SLICE = ("program_id", "rule", "number")

CHUNKS = 16
"""Into so many parts what is left of a budget is cut, if a batch does not need more: how seldom one is reserved, and
how many points may lie in a slice that nobody takes until they are gathered."""


class Budgets:
    """What may still be given, by rule: the room of a slice that it has locked; or, to look at, all that is left.

    `given`: what each rule had given before, where that is known: a purchase under terms with a smaller budget gets no
    more than that one leaves.
    """

    def __init__(self, room: Mapping[str, int], given: Mapping[str, int], slices: Mapping[str, db.Row]) -> None:
        self._room = dict(room)
        self._before = room
        self._given = given
        self._slices = slices

    def room(self, rule: str, budget: int) -> int:
        room = self._room.get(rule, 0)
        if rule not in self._given or not room:
            return room
        return max(0, min(room, budget - self._given[rule] - (self._before[rule] - room)))

    def give(self, rule: str, points: int) -> None:
        """Takes what a purchase was given; of a rule that there is no room for nothing is given."""
        if points:
            self._room[rule] -= points

    def write(self, session: Session) -> None:
        """Writes what is left of the slices."""
        changed = {rule: room for rule, room in self._room.items() if room != self._before[rule]}
        rows = [dict(self._slices[rule]) | {"room": room} for rule, room in sorted(changed.items())]
        db.update_rows(session, RuleBudgetSlice, _SLICE, rows)


def budgets(session: Session, program_id: UUID, most: Iterable[Mapping[str, Need]], *, lock: bool) -> Budgets:
    """A slice of each budget with room for all that purchases need (`most`, by rule), or for all that is left; or what
    is left, if nothing is to be locked.

    Where nothing is left nothing is locked. A statement for all rules, and one for each that has points to give; a few
    more for one that reserves.
    """
    needs = wanted(most)
    before = given(session, program_id) if needs else {}
    left = {rule: max(0, need.budget - before.get(rule, 0)) for rule, need in needs.items()}
    if not lock:
        return Budgets(left, {rule: before.get(rule, 0) for rule in needs}, {})
    room, known, slices = {}, dict[str, int](), dict[str, db.Row]()
    for rule in sorted(rule for rule, points in left.items() if points):
        found = _free(session, program_id, rule, needs[rule]) or _reserved(session, program_id, rule, needs[rule])
        room[rule], slices[rule] = found.room, {"program_id": program_id, "rule": rule, "number": found.number}
        if found.given is not None:
            known[rule] = found.given
    return Budgets(room, known, slices)


def wanted(most: Iterable[Mapping[str, Need]]) -> dict[str, "Wanted"]:
    """What purchases want in all, by rule."""
    found: dict[str, Wanted] = {}
    for each in most:
        for rule, need in each.items():
            found[rule] = found[rule].plus(need) if rule in found else Wanted(need.points, need.budget, need.budget)
    return found


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a batch may give by a rule at the most; the largest `budget` of the terms of its purchases, and the `least`:
    where they differ, it has to be known exactly what was given."""

    points: int
    budget: int
    least: int

    def plus(self, need: Need) -> "Wanted":
        return Wanted(self.points + need.points, max(self.budget, need.budget), min(self.least, need.budget))


def given(session: Session, program_id: UUID) -> dict[str, int]:
    """By rule, the points that were given of its budget."""
    rows = select(*_GIVEN).outerjoin(RuleBudgetSlice, _SAME).where(RuleBudget.program_id == program_id)
    found = session.execute(rows.group_by(RuleBudget.rule, RuleBudget.reserved))
    return {rule: int(points) for rule, points in found}


_SAME = (RuleBudgetSlice.program_id == RuleBudget.program_id) & (RuleBudgetSlice.rule == RuleBudget.rule)
_GIVEN = (RuleBudget.rule, RuleBudget.reserved - func.coalesce(func.sum(RuleBudgetSlice.room), 0))


@dataclass(frozen=True, slots=True)
class _Slice:
    number: int
    room: int
    given: int | None = None
    """What the rule had given, if all slices were locked to know it."""


def _slices(program_id: UUID, rule: str) -> Select[*tuple[int, int]]:
    mine = (RuleBudgetSlice.program_id == program_id) & (RuleBudgetSlice.rule == rule)
    return select(RuleBudgetSlice.number, RuleBudgetSlice.room).where(mine).order_by(RuleBudgetSlice.number)


def _free(session: Session, program_id: UUID, rule: str, need: Wanted) -> _Slice | None:
    """A slice with room enough that nobody has locked. None where a budget is less than what is reserved."""
    if need.least < need.budget:
        return None
    within = select(RuleBudget.rule).where(
        RuleBudget.program_id == program_id, RuleBudget.rule == rule, RuleBudget.reserved <= need.budget
    )
    rows = _slices(program_id, rule).where(RuleBudgetSlice.room >= need.points, within.exists()).limit(1)
    return _one(session.execute(rows.with_for_update(skip_locked=True, of=RuleBudgetSlice)).first())


def _one(row: Row[*tuple[int, int]] | None) -> _Slice | None:
    return None if row is None else _Slice(*row)


def _reserved(session: Session, program_id: UUID, rule: str, need: Wanted) -> _Slice:
    """A slice with more room than it had: from what is not reserved yet, else from all slices. With the first come
    others."""
    key = {"program_id": program_id, "rule": rule}
    db.claim_rows(session, RuleBudget, [key | {"reserved": 0, "budget": need.budget}], ["rule"])
    budget = select(RuleBudget.reserved).where(RuleBudget.program_id == program_id, RuleBudget.rule == rule)
    reserved = session.execute(budget.with_for_update()).scalar_one()
    rows = _slices(program_id, rule)
    mine = _one(session.execute(rows.limit(1).with_for_update(skip_locked=True)).first())
    room, before = 0 if mine is None else mine.room, None
    if need.least < need.budget or reserved > need.budget or room + need.budget - reserved < need.points:
        found = [_Slice(*row) for row in session.execute(rows.with_for_update())]
        reserved -= sum(each.room for each in found)
        db.update_rows(session, RuleBudgetSlice, _SLICE, [key | {"number": each.number, "room": 0} for each in found])
        mine, room, before = (found[0] if found else None), 0, reserved
    more = chunk(need, reserved, room)
    reserved += more
    if mine is None:
        number = _next(session, program_id, rule)
        others = [] if number > 1 else opened(need, reserved)
        rooms = enumerate([more, *others], start=number)
        db.insert_rows(session, RuleBudgetSlice, [key | {"number": place, "room": free} for place, free in rooms])
        reserved += sum(others)
    else:
        number = mine.number
        db.update_rows(session, RuleBudgetSlice, _SLICE, [key | {"number": number, "room": room + more}])
    kept = key | {"reserved": reserved, "budget": max(need.budget, reserved)}
    db.update_rows(session, RuleBudget, ["program_id", "rule"], [kept])
    return _Slice(number, room + more, before)


def chunk(need: Wanted, reserved: int, room: int) -> int:
    """How many points to reserve more for a slice that has some `room`, at most what is left: what is needed, and in
    advance of that a part of what is left, so that few batches have to."""
    left = max(0, need.budget - reserved)
    return min(left, max(need.points - room, left // CHUNKS))


def opened(need: Wanted, reserved: int) -> list[int]:
    """What the other slices get that are made with the first: half of what is left. So those who begin together to take
    of a budget wait for each other once."""
    part = max(0, need.budget - reserved) // (2 * CHUNKS)
    return [part] * (CHUNKS - 1) if part else []


def _next(session: Session, program_id: UUID, rule: str) -> int:
    """The number of one slice more; asked by whoever has locked the budget."""
    rows = _slices(program_id, rule).order_by(None).subquery()
    return int(session.execute(select(func.coalesce(func.max(rows.c.number), 0))).scalar_one()) + 1
