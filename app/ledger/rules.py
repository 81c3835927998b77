"""How an account changes. Pure: an account and a movement in, the next account out, with the rows it means.

    balance = available + held + pending - debt

`available` can be spent now, `held` is reserved for one spend, `pending` is not available yet, `debt` is owed and paid
by the next credits. An account knows what has been decided for it and is not written yet (`Rows`); a refused movement
leaves it as it was. What is due has happened: `settle` writes down activations, ends of holds and expiries, each at
its own instant, before anything else is decided.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime, tzinfo
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, Literal, TypeVar
from uuid import UUID

from app.accounting import CohortKey, Funding
from app.errors import Problem
from app.ids import new_id

MOST_POINTS = 2**53 - 1
"""The largest balance; every reader of JSON keeps it exactly."""

MOST_GRANTED = 10**10
"""The largest lot: what a batch of 500 expects to be used, in millionths of a point, still is a 64-bit number."""

Kind = Literal[
    "accrual",
    "redemption",
    "hold",
    "capture",
    "release",
    "activation",
    "cancellation",
    "expiration",
    "reversal",
    "restoration",
    "adjustment",
    "bonus",
    "transfer_out",
    "transfer_in",
    "extension",
    "reinstatement",
    "debt_payment",
    "write_off",
]
"""What a movement is. Reversal: a return takes back what it earned. Restoration: spent points come back. Bonus: points
that a campaign gave, without a purchase."""

Effect = Literal["used", "expired", "returned", "moved"]
"""What taking points from a lot means to its cohort: they count as used (X), as expired or forfeited (Z), as never
issued (N falls), or they live on in another lot."""

Ending = Literal["captured", "released", "expired"]


class TooManyPoints(Problem):
    """The points would pass the largest number that all parties can hold exactly (2^53 - 1; 10^10 at once)."""

    status, code, title, final = 422, "too_many_points", "That is more points than an account can hold", True


class InsufficientPoints(Problem):
    """Fewer points can be spent than this takes; `missing` says how many more it needs."""

    status, code, title, final = 422, "insufficient_points", "There are not enough points", True

    @classmethod
    def by(cls, missing: int) -> "InsufficientPoints":
        return cls(f"{missing} points are missing", extra={"missing": missing})


# --- values ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Act:
    """What moves points: the document that caused it, when it happened and was recorded, and the programme's `zone`.

    `lapses_at`: the act is an activity that keeps points from lapsing until then; None if it is not one.
    """

    program_id: UUID
    document_id: UUID
    occurred_at: datetime
    recorded_at: datetime
    zone: tzinfo
    lapses_at: datetime | None = None

    @property
    def period(self) -> date:
        """First day of the accounting month."""
        return _month(self.occurred_at, self.zone)


@lru_cache(maxsize=1024)
def _month(instant: datetime, zone: tzinfo) -> date:
    return instant.astimezone(zone).date().replace(day=1)


@dataclass(frozen=True, slots=True)
class Expiring:
    """Points that expire together, and the instant from which they are gone."""

    points: int
    at: datetime


@dataclass(frozen=True, slots=True)
class OpenLot:
    """Points granted together, as they stand. `held` is part of `remaining`."""

    id: UUID
    remaining: int
    held: int
    pending: bool
    available_from: datetime | None
    """None: pending until an event."""
    expires_at: datetime | None
    lapses: bool
    """Whether they expire when the account lapses, instead of at a time of their own."""
    cohort_id: UUID
    currency: str
    funding: Funding
    document_id: UUID
    occurred_at: datetime
    granted: int

    @property
    def free(self) -> int:
        """What is neither held nor gone."""
        return self.remaining - self.held

    def with_remaining(self, remaining: int) -> "OpenLot":
        """The lot with so many points left; in half of the time that `replace` takes, since every movement does it."""
        id_, _, *rest = _fields(self)
        return OpenLot(id_, remaining, *rest)


_fields = attrgetter(*(each.name for each in fields(OpenLot)))


@dataclass(frozen=True, slots=True)
class OpenHold:
    """Points reserved for one spend, lot by lot. `ends_at` None: until somebody ends it."""

    id: UUID
    points: int
    ends_at: datetime | None
    parts: tuple[tuple[UUID, int], ...]


@dataclass(frozen=True, slots=True)
class Use:
    """Points taken from a lot (negative: given back), and what that means to its cohort."""

    lot: OpenLot
    points: int
    effect: Effect
    as_agent: bool = False


@dataclass(frozen=True, slots=True)
class Cover:
    """What stands in for `points` of the lot `of` that a return could not take from it: another lot, debt (None), or
    nobody, since they were `forgiven`.

    `effect` says why, and what it means to the cohort of what stands in: the points had been used (it counts as used
    instead), or they live on elsewhere, held or given away (it leaves its cohort). Debt of a return that names no
    purchase is of no lot and counts as expired. Negative: no longer.
    """

    of: OpenLot | None
    by: OpenLot | None
    effect: Effect
    points: int
    forgiven: bool = False

    @property
    def owed(self) -> bool:
        """Whether it is debt."""
        return self.by is None and not self.forgiven

    @property
    def key(self) -> tuple[UUID | None, UUID | None, Effect, bool]:
        """All that was granted together is covered together."""
        of, by = self.of, self.by
        return None if of is None else of.document_id, None if by is None else by.id, self.effect, self.forgiven


@dataclass(frozen=True, slots=True)
class RewardCosts:
    """What the rewards have cost that a member's points bought: for `returning.move_costs`.

    `bought`: by the document that granted points, which documents they paid for, and with how many. `priced`: each of
    those documents' currency, cost in minor units, and how many points paid for it in all. `moved`: how much of it all
    has become marketing, by currency.
    """

    bought: Mapping[UUID, Sequence[tuple[UUID, int]]]
    priced: Mapping[UUID, tuple[str, int, int]]
    moved: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Need:
    """Which open lots decisions need: those that `documents` granted, and of all that can be spent the first, in the
    order in which they are used, that `points` can be taken from."""

    points: int = 0
    documents: frozenset[UUID] = frozenset()

    def plus(self, points: int, *documents: UUID) -> "Need":
        return Need(self.points + points, self.documents.union(documents))


NO_LOTS = Need()


def to_spend(points: Iterable[tuple[UUID, int]]) -> dict[UUID, Need]:
    """What members' accounts need for spending so many points, one spend after the other."""
    needs: dict[UUID, Need] = {}
    for member_id, part in points:
        needs[member_id] = needs.get(member_id, NO_LOTS).plus(part)
    return needs


Facts = TypeVar("Facts")


@dataclass(frozen=True)  # without slots, for `but`
class Rows:
    """What was decided for an account and is not written yet, in the order of the decisions."""

    entries: tuple[dict[str, Any], ...] = ()
    uses: tuple[tuple[UUID, Act, Use], ...] = ()
    """With the entry that made them, and its act."""
    accruals: tuple["Accrual", ...] = ()
    lots: tuple[dict[str, Any], ...] = ()
    """New lots, without what changes of them."""
    returns: tuple[tuple[Act, "LotReturn"], ...] = ()
    covers: tuple[tuple[UUID, Cover], ...] = ()
    """With the entry that made them."""
    holds: tuple[dict[str, Any], ...] = ()
    endings: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)  # without slots, for `but`
class Account:
    """A member's account at one instant, points."""

    member_id: UUID
    program_id: UUID
    available: int = 0
    held: int = 0
    pending: int = 0
    debt: int = 0
    qualifying: int = 0
    lifetime: int = 0
    last_entry: int = 0
    next_due_at: datetime | None = None
    lapses_at: datetime | None = None
    asked: Need | None = None
    """Which lots were asked for; None: all. `lots` are those, and those that came in this batch."""
    lots: Mapping[UUID, OpenLot] = field(default_factory=dict)
    holds: Mapping[UUID, OpenHold] = field(default_factory=dict)
    loaded: Mapping[UUID, OpenLot] = field(default_factory=dict)
    """The lots as the database has them."""
    first_expiring: Expiring | None = None
    """What expires next of the lots that are not here and have an end of their own."""
    lapsing: int = 0
    """Free points of those that have none, and go when the account lapses."""
    others_due_at: datetime | None = None
    """When the next thing happens to those."""
    covers: tuple[Cover, ...] | None = None
    """What stands in for points that returns could not take, oldest first; None: not read, because nothing is owed."""
    costs: RewardCosts | None = None
    """None: not read, because nothing can be forgiven."""
    rows: Rows = Rows()

    def but(self, **changes: Any) -> "Account":
        """The account with some fields changed."""
        return _but(self, changes)

    @property
    def balance(self) -> int:
        return self.available + self.held + self.pending - self.debt

    @property
    def expiring_next(self) -> Expiring | None:
        """The points that expire first, held ones left out."""
        steps = [(at, lot.free) for lot in self.lots.values() if lot.free and (at := self.expiry_of(lot)) is not None]
        if self.first_expiring is not None:
            steps.append((self.first_expiring.at, self.first_expiring.points))
        if self.lapsing and self.lapses_at is not None:
            steps.append((self.lapses_at, self.lapsing))
        first = min((at for at, _ in steps), default=None)
        return None if first is None else Expiring(sum(points for at, points in steps if at == first), first)

    def expiry_of(self, lot: OpenLot) -> datetime | None:
        """The first instant at which the lot's points are gone; None if they stay."""
        return self.lapses_at if lot.lapses else lot.expires_at


def _but(value: Facts, changes: Mapping[str, Any]) -> Facts:
    """What `dataclasses.replace` does, which took most of the time of a movement: no field is looked at twice."""
    other = object.__new__(type(value))
    other.__dict__.update(value.__dict__, **changes)
    assert len(other.__dict__) == len(value.__dict__), "no such field"
    return other


@dataclass(frozen=True, slots=True)
class LotReturn:
    """What a return takes back of one lot: points, and the money deferred for them.

    `of_used` had been used and `of_expired` had expired before; the others were still there. Minor units, millionths
    of one, millionths of a point.
    """

    lot: OpenLot
    entry_id: UUID
    points: int
    allocated: int
    residue: int
    expected: int
    of_used: int
    of_expired: int


@dataclass(frozen=True, slots=True)
class Accrual:
    """Points to grant as one lot, with the money deferred for them.

    `allocated` is in minor units of the cohort's currency, `residue` in millionths of one (`accounting.Allocation`),
    `expected` in millionths of a point.
    """

    points: int
    act: Act
    cohort: CohortKey
    allocated: int
    residue: int
    expected: int
    expires_at: datetime | None
    available_from: datetime | None
    """None: pending until an event."""
    lapses: bool = False
    qualifying: int = 0
    kind: Kind = "accrual"
    document_id: UUID | None = None
    """What the lot is said to be granted by, if not what moves the points: for what goes back, or waits, by itself."""


# --- movements ------------------------------------------------------------------------------------------------------


def move(account: Account, kind: Kind, act: Act, **changes: int) -> tuple[Account, UUID]:
    """The account after one entry that changes `available`, `held`, ... by `changes`; and the entry's id."""
    sums = {name: getattr(account, name) + changes.get(name, 0) for name in BALANCES}
    if max(sums.values()) > MOST_POINTS:
        raise TooManyPoints
    lapses_at = account.lapses_at
    if act.lapses_at is not None and (lapses_at is None or act.lapses_at > lapses_at):
        lapses_at = act.lapses_at
    after = account.but(**sums, last_entry=account.last_entry + 1, lapses_at=lapses_at)
    entry_id = new_id()
    entry = {
        "member_id": account.member_id,
        "id": entry_id,
        "number": after.last_entry,
        "kind": kind,
        "points": after.balance - account.balance,
        **{name: changes.get(name, 0) for name in BALANCES},
        "balance_after": after.balance,
        "lapses_at": None if lapses_at == account.lapses_at else lapses_at,
        "document_id": act.document_id,
        "occurred_at": act.occurred_at,
        "recorded_at": act.recorded_at,
    }
    if lapses_at != account.lapses_at:
        after = due(after)
    return add_rows(after, entries=(entry,)), entry_id


BALANCES = ("available", "held", "pending", "debt", "qualifying", "lifetime")
"""The figures of an account that are sums of its entries."""


def add_rows(account: Account, **new: tuple[Any, ...]) -> Account:
    """The account with more rows to write."""
    rows = account.rows
    return account.but(rows=_but(rows, {name: getattr(rows, name) + made for name, made in new.items()}))


def take(account: Account, entry_id: UUID, act: Act, uses: Iterable[Use]) -> Account:
    """The account with `uses` made of its lots, as parts of the entry `entry_id`."""
    made, changed = tuple(uses), dict[UUID, OpenLot]()
    for use in made:
        id_ = use.lot.id
        lot = changed.get(id_) or account.lots.get(id_, use.lot)
        changed[id_] = lot.with_remaining(lot.remaining - use.points)
    return _with(add_rows(account, uses=tuple((entry_id, act, use) for use in made)), changed)


def put(account: Account, lots: Iterable[OpenLot]) -> Account:
    """The account with some of its lots as they are now."""
    return _with(account, {lot.id: lot for lot in lots})


def _with(account: Account, changed: Mapping[UUID, OpenLot]) -> Account:
    """The same, looking at the others only if one of the `changed` was due first: an account may have thousands."""
    before = [account.lots[id_] for id_ in changed if id_ in account.lots]
    after = account.but(lots={**account.lots, **changed})
    if account.next_due_at in _instants(account, before):
        return due(after)
    first = min(_instants(account, changed.values()), default=None)
    if first is None or (account.next_due_at is not None and account.next_due_at <= first):
        return after
    return after.but(next_due_at=first)


def due(account: Account) -> Account:
    """The account with the next instant at which something happens by itself."""
    instants = _instants(account, account.lots.values())
    instants += [hold.ends_at for hold in account.holds.values() if hold.ends_at is not None]
    if account.others_due_at is not None:
        instants.append(account.others_due_at)
    first = min(instants, default=None)
    return account if first == account.next_due_at else account.but(next_due_at=first)


def _instants(account: Account, lots: Iterable[OpenLot]) -> list[datetime]:
    """When something happens to lots by itself."""
    free = [lot for lot in lots if lot.free]
    instants = [at for lot in free if (at := account.expiry_of(lot)) is not None]
    return instants + [lot.available_from for lot in free if lot.pending and lot.available_from]


def grant(account: Account, entry_id: UUID, act: Act, lot: OpenLot, **facts: Any) -> Account:
    """The account with a new lot, granted by the entry `entry_id`. `facts` are what an `OpenLot` does not know."""
    row = {
        "member_id": account.member_id,
        "id": lot.id,
        "entry_id": entry_id,
        "granted": lot.granted,
        "available_from": lot.available_from,
        "expires_at": lot.expires_at,
        "lapses": lot.lapses,
        "cohort_id": lot.cohort_id,
        "currency": lot.currency,
        "funding": lot.funding,
        "allocated": 0,
        "residue": 0,
        "expected": 0,
        "document_id": lot.document_id,
        "source_lot_id": None,
        "occurred_at": lot.occurred_at,
        "recorded_at": act.recorded_at,
    } | facts
    return put(add_rows(account, lots=(row,)), [lot])


def accrue(account: Account, accrual: Accrual) -> Account:
    """The account after a grant of 1 to `MOST_GRANTED` points. TooManyPoints beyond `MOST_POINTS` in all.

    Points that are available at once pay debt first; points that have expired before they arrived (a late upload)
    expire at once, at their instant.
    """
    act = accrual.act
    pending = accrual.available_from is None or accrual.available_from > act.recorded_at
    account, entry_id = move(
        account,
        accrual.kind,
        act,
        **{"pending" if pending else "available": accrual.points},
        qualifying=accrual.qualifying,
        lifetime=accrual.points,
    )
    lot = OpenLot(
        id=new_id(),
        remaining=accrual.points,
        held=0,
        pending=pending,
        available_from=accrual.available_from,
        expires_at=accrual.expires_at,
        lapses=accrual.lapses,
        cohort_id=accrual.cohort.id,
        currency=accrual.cohort.currency,
        funding=accrual.cohort.funding,
        document_id=accrual.document_id or act.document_id,
        occurred_at=act.occurred_at,
        granted=accrual.points,
    )
    facts = {"allocated": accrual.allocated, "residue": accrual.residue, "expected": accrual.expected}
    account = add_rows(grant(account, entry_id, act, lot, **facts), accruals=(accrual,))
    return settle(pay_debt(account, act, [lot.id]), act.recorded_at, act.zone)


def pay_debt(account: Account, act: Act, lot_ids: Collection[UUID]) -> Account:
    """The account after what was just credited, the free points of some lots, has paid what is owed, oldest first."""
    lots = in_turn(account, [lot for id_ in set(lot_ids) if not (lot := account.lots[id_]).pending])
    payment = min(account.debt, sum(lot.free for lot in lots))
    if not payment:
        return account
    uses: list[Use] = []
    covers: list[Cover] = []
    for debt in owed(account, payment):
        paid = pick(less(lots, uses), debt.points, debt.effect)
        uses += paid
        covers += [replace(debt, points=-debt.points), *(replace(debt, by=use.lot, points=use.points) for use in paid)]
    account, entry_id = move(account, "debt_payment", act, available=-payment, debt=-payment)
    return cover(take(account, entry_id, act, uses), entry_id, covers)


def owed(account: Account, points: int) -> Iterable[Cover]:
    """What `points` (at most all) of the account's debt are owed for, oldest first."""
    for debt in [each for each in account.covers or () if each.owed]:
        if part := min(debt.points, points):
            yield replace(debt, points=part)
            points -= part
    if points:  # an account as it was knows its debt, but not what for
        yield Cover(None, None, "used", points)


def cover(account: Account, entry_id: UUID, covers: Iterable[Cover]) -> Account:
    """The account with more to stand in for what returns could not take, or less, by the entry `entry_id`."""
    made = tuple(each for each in covers if each.points)
    account = account.but(covers=_stand_in(account.covers or (), made))
    return add_rows(account, covers=tuple((entry_id, each) for each in made))


def _stand_in(standing: Iterable[Cover], more: Iterable[Cover]) -> tuple[Cover, ...]:
    """What stands in for what, with `more`: each once, and none that stands in no longer."""
    covers = {each.key: each for each in standing}
    for each in more:
        before = covers.get(each.key)
        covers[each.key] = each if before is None else replace(before, points=before.points + each.points)
    return tuple(each for each in covers.values() if each.points)


def less(lots: Sequence[OpenLot], uses: Iterable[Use]) -> list[OpenLot]:
    """`lots` as they are after `uses`."""
    gone: Counter[UUID] = Counter()
    for use in uses:
        gone[use.lot.id] += use.points
    return [lot.with_remaining(lot.remaining - gone[lot.id]) if lot.id in gone else lot for lot in lots]


def in_turn(account: Account, lots: Iterable[OpenLot]) -> list[OpenLot]:
    """`lots` in the order in which they are used: soonest-expiring first, then oldest."""
    return sorted(lots, key=lambda lot: (account.expiry_of(lot) or _NEVER, lot.occurred_at, lot.id))


_NEVER = datetime.max.replace(tzinfo=UTC)


def pick(lots: Iterable[OpenLot], points: int, effect: Effect, *, as_agent: bool = False) -> list[Use]:
    """Uses of the free points of `lots`, in their order, for `points` in all (or as many as there are)."""
    uses = []
    for lot in lots:
        part = min(lot.free, points)
        if part:
            uses.append(Use(lot, part, effect, as_agent))
            points -= part
    return uses


# --- what happens by itself -----------------------------------------------------------------------------------------


def settle(
    account: Account, now: datetime, zone: tzinfo, since: datetime | None = None, until: datetime | None = None
) -> Account:
    """The account after everything that was due by `until` (None: by `now`, when it is recorded), each at its instant.

    Pending points become available, holds end, lots expire. Held points do not expire until their hold ends; then
    they do so at that instant. `since` is when the last thing happened to the account, if something just did: nothing
    is written down as having happened before it.
    """
    end = now if until is None else until
    if account.next_due_at is None or account.next_due_at > end:
        return account
    first = account.next_due_at if since is None else max(since, account.next_due_at)
    account = _happen(account, first, now, zone)
    if account.next_due_at is not None and account.next_due_at <= end:
        account = _happen_one_by_one(account, end, now, zone)
    return account


def _happen(account: Account, at: datetime, now: datetime, zone: tzinfo) -> Account:
    """The account after everything that was due by `at`, which happens then."""
    account = _activate_due(account, at, now, zone)
    for hold in [hold for hold in account.holds.values() if hold.ends_at is not None and hold.ends_at <= at]:
        account = end_hold(account, hold, 0, "expired", Act(account.program_id, hold.id, at, now, zone))
    # Also where nothing was due: an activity may have moved the lapse of lots that were not loaded with it.
    return due(_expire_due(account, at, now, zone))


def _happen_one_by_one(account: Account, end: datetime, now: datetime, zone: tzinfo) -> Account:
    """The account after everything that was due by `end`, each at its instant.

    In its turn the account has nothing but what is due then and what is owed: there may be as many turns as lots.
    """
    lots, holds, standing, rows = dict(account.lots), dict(account.holds), account.covers, [account.rows]
    for at, of_lots, ending in _turns(account, end):
        mine = {id_: lots[id_] for id_ in of_lots}
        covers = account.covers and tuple(each for each in account.covers if each.owed)
        account = _happen(account.but(lots=mine, holds=ending, covers=covers, rows=Rows()), at, now, zone)
        lots.update(account.lots)
        rows.append(account.rows)
        for id_ in ending:
            del holds[id_]
    if paid := [each for part in rows[1:] for _, each in part.covers]:
        standing = _stand_in(standing or (), paid)
    made = {each.name: tuple(chain.from_iterable(getattr(part, each.name) for part in rows)) for each in fields(Rows)}
    return due(account.but(lots=lots, holds=holds, covers=standing, rows=Rows(**made)))


def _turns(account: Account, end: datetime) -> Iterator[tuple[datetime, list[UUID], dict[UUID, OpenHold]]]:
    """The instants at which something may be due by `end`: the lots that it happens to, and the holds that end then."""
    lots: defaultdict[datetime, set[UUID]] = defaultdict(set)
    holds: defaultdict[datetime, dict[UUID, OpenHold]] = defaultdict(dict)
    for lot in account.lots.values():
        for at in (account.expiry_of(lot), lot.available_from if lot.pending else None):
            if lot.remaining and at is not None and at <= end:
                lots[at].add(lot.id)
    for hold in account.holds.values():
        if hold.ends_at is not None and hold.ends_at <= end:
            holds[hold.ends_at][hold.id] = hold
            lots[hold.ends_at].update(id_ for id_, _ in hold.parts)
    place = {id_: number for number, id_ in enumerate(account.lots)}  # they expire in the order in which they stand
    for at in sorted(lots):
        yield at, sorted(lots[at], key=place.__getitem__), holds[at]


def _by_itself(account: Account, at: datetime, now: datetime, zone: tzinfo) -> Act:
    """The act of something that time alone has caused: it is its own document."""
    return Act(account.program_id, new_id(), at, now, zone)


def _activate_due(account: Account, at: datetime, now: datetime, zone: tzinfo) -> Account:
    ripe = [
        lot
        for lot in account.lots.values()
        if lot.pending and lot.free and lot.available_from is not None and lot.available_from <= at
    ]
    if not ripe:
        return account
    act = _by_itself(account, at, now, zone)
    points = sum(lot.free for lot in ripe)
    account, _ = move(account, "activation", act, available=points, pending=-points)
    account = put(account, [replace(lot, pending=False) for lot in ripe])
    return pay_debt(account, act, [lot.id for lot in ripe])


def _expire_due(account: Account, at: datetime, now: datetime, zone: tzinfo) -> Account:
    gone = [
        lot
        for lot in account.lots.values()
        if lot.free and (expiry := account.expiry_of(lot)) is not None and expiry <= at
    ]
    for kind, bucket, lots in (
        ("expiration", "available", [lot for lot in gone if not lot.pending]),
        ("cancellation", "pending", [lot for lot in gone if lot.pending]),
    ):
        if lots:
            act = _by_itself(account, at, now, zone)
            account = forfeit(account, kind, bucket, lots, act)  # type: ignore[arg-type]  # one of two literals
    return account


def forfeit(account: Account, kind: Kind, bucket: str, lots: Collection[OpenLot], act: Act) -> Account:
    """The account without the free points of `lots`, which counted as available or pending (`bucket`)."""
    points = sum(lot.free for lot in lots)
    account, entry_id = move(account, kind, act, **{bucket: -points})
    return take(account, entry_id, act, pick(lots, points, "expired"))


def end_hold(
    account: Account, hold: OpenHold, captured: int, ending: Ending, act: Act, *, as_agent: bool = False
) -> Account:
    """The account after a hold has ended: `captured` of its points are spent, the others free again."""
    holds = {id_: other for id_, other in account.holds.items() if id_ != hold.id}
    freed = [replace(account.lots[id_], held=account.lots[id_].held - points) for id_, points in hold.parts]
    account = account.but(holds=holds, lots={**account.lots, **{lot.id: lot for lot in freed}})
    if captured:
        account, entry_id = move(account, "capture", act, held=-captured)
        account = take(account, entry_id, act, _of_hold(account, hold, captured, as_agent))
    if rest := hold.points - captured:
        account, _ = move(account, "release", act, available=rest, held=-rest)
        account = pay_debt(account, act, [id_ for id_, _ in hold.parts])
    row = {
        "member_id": account.member_id,
        "id": hold.id,
        "status": ending,
        "captured": captured,
        "ended_at": act.occurred_at,
    }
    return due(add_rows(account, endings=(row,)))


def _of_hold(account: Account, hold: OpenHold, points: int, as_agent: bool) -> list[Use]:
    uses, reserved = [], dict(hold.parts)
    for lot in in_turn(account, [account.lots[id_] for id_ in reserved]):
        part = min(reserved[lot.id], points)
        if part:
            uses.append(Use(lot, part, "used", as_agent))
            points -= part
    return uses
