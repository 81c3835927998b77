"""How points go back: what a return takes back, what it gives back, what was wrongly gone. Pure.

A return takes back points that the returned goods earned: first what is left of their own lots, then what of them has
expired (that costs the member nothing), then, for points already spent, from the member's other lots in spending
order. What is missing then becomes debt, as far as the terms let it; the rest is forgiven. Sums are cumulative, so
that any number of partial returns ends exactly as one return of everything.

Whatever stands in for spent points is remembered (`Cover`): when the goods they paid for come back too, it is free
again, so that two returns may come in either order.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from typing import Literal
from uuid import UUID

from app.accounting import returned_part
from app.ledger.rules import (
    Account,
    Act,
    Cover,
    Effect,
    LotReturn,
    OpenLot,
    Use,
    add_rows,
    cover,
    less,
    move,
    owed,
    pay_debt,
    pick,
    settle,
    take,
)
from app.ledger.spending import carry, moved, spendable


@dataclass(frozen=True, slots=True)
class GrantedLot:
    """A lot that a returned document granted, and all that has become of it.

    `used` and `expired` count its own points and those of lots it lives on in at this member, less what earlier
    returns took back of them (`LotReturn.of_used`, `of_expired`). `returned` sums up those earlier returns.
    """

    lot: OpenLot
    granted: int
    allocated: int
    residue: int
    expected: int
    used: int
    expired: int
    returned: int
    """Points earlier returns took back."""
    returned_allocated: int
    returned_residue: int
    returned_expected: int


@dataclass(frozen=True, slots=True)
class SpentPart:
    """Points of a lot that a document spent and that have not come back yet; 0 when all have.

    `used` is what of the points granted with the lot still counts as used in its cohort, whatever used them; less
    than `points` if a return of the purchase that granted them has taken back spent points meanwhile.
    """

    lot: OpenLot
    points: int
    used: int


def last_first(lot: OpenLot) -> tuple[float, int]:
    """Sorts lots by when they expire, the last first; then the newest first."""
    expiry = float("-inf") if lot.expires_at is None else -lot.expires_at.timestamp()
    return expiry, -lot.id.int


@dataclass(frozen=True, slots=True)
class Reversal:
    """What a claw-back came to, points: `taken` from lots, `expired` before, `debt` owed now, `missing` beyond that.

    `allocated` was deferred for them and is not any more, minor units. `gaps` and `entry_id` are for `forgive`.
    """

    taken: int
    expired: int
    debt: int
    missing: int
    allocated: int
    gaps: Sequence[Cover]
    entry_id: UUID


def reverse(
    account: Account, back: Sequence[tuple[GrantedLot, int]], act: Act, most_debt: int | None, qualifying: int
) -> tuple[Account, Reversal]:
    """The account after a return took `back` so many points of each of some lots (at most what is left of them, and
    each granted by a document of its own), and `qualifying` ones.

    `most_debt` is how much debt the account may have in all (None: any); what is missing beyond it is left to the
    caller, to `forgive` or to be paid for.
    """
    documents = {root.lot.document_id for root, _ in back}
    points = sum(part for _, part in back)
    assert len(documents) == len(back), "what has become of them is known by document"
    assert all(part <= root.granted - root.returned for root, part in back), "a return takes more than was granted"
    assert account.asked is None or documents <= account.asked.documents, "claimed without their lots"
    parts = [_part(account, root, part) for root, part in back]
    own = [use for part in parts for use in part.own]
    gaps = [gap for part in parts for gap in part.gaps if gap.points]
    others = [lot for lot in spendable(account) if lot.document_id not in documents] if gaps else []
    paid, covers, short = _filled(gaps, others)
    lacking = sum(each.points for each in short)
    assert not lacking or _all_there(account), "claimed without the lots"
    debt = _as_debt(account, lacking, most_debt)
    uses = [*own, *paid]
    available = sum(use.points for use in uses if not use.lot.pending)
    pending = sum(use.points for use in uses if use.lot.pending)
    account, entry_id = move(
        account,
        "reversal",
        act,
        available=-available,
        pending=-pending,
        debt=debt,
        qualifying=-min(qualifying, account.qualifying),
        lifetime=-points,
    )
    account = take(account, entry_id, act, uses)
    account = add_rows(account, returns=tuple((act, replace(part.row, entry_id=entry_id)) for part in parts))
    ended = [_ended(each) for part in parts for each in part.ended]
    owing = _first(short, debt)
    account = cover(account, entry_id, [*ended, *covers, *owing])
    expired = sum(part.row.of_expired for part in parts)
    allocated = sum(part.row.allocated for part in parts)
    left = _less_ended(short, owing)
    return account, Reversal(available + pending, expired, debt, lacking - debt, allocated, left, entry_id)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a return takes back of one granted lot: what is `own` left of it, and `gaps`, points that other lots or
    debt must stand in for. `ended`: it does so itself for others no more; they have gaps now."""

    own: list[Use]
    row: LotReturn
    gaps: list[Cover]
    ended: list[Cover]


def _part(account: Account, root: GrantedLot, points: int) -> _Part:
    lots = _own(account, root)
    used = root.used + _unwritten(account, root.lot, "used")
    expired = root.expired + _unwritten(account, root.lot, "expired")
    elsewhere = root.granted - root.returned - sum(lot.free for lot in lots) - used - expired
    own = pick(lots, points, "returned")
    missing = points - sum(use.points for use in own)
    of_expired = min(expired, missing)
    of_used = min(used, missing - of_expired)
    gaps: list[Cover] = []
    ended: list[Cover] = []
    parts: tuple[tuple[Effect, int, int], ...] = (
        ("used", used, of_used),
        ("returned", elsewhere, missing - of_expired - of_used),
    )
    for effect, there, gone in parts:
        stood_in = _covers_by(account, root.lot, effect)
        no_more = _first(stood_in, sum(each.points for each in stood_in) - (there - gone))
        gaps += [replace(each, by=None) for each in no_more]
        gaps.append(Cover(root.lot, None, effect, gone - sum(each.points for each in no_more)))
        ended += no_more
    return _Part(own, _lot_return(root, points, of_used, of_expired), gaps, ended)


def _all_there(account: Account) -> bool:
    """Whether all lots are here that can be spent."""
    return sum(lot.free for lot in spendable(account)) == account.available


def _filled(gaps: Iterable[Cover], lots: Sequence[OpenLot]) -> tuple[list[Use], list[Cover], list[Cover]]:
    """Uses of the free points of `lots`, in their order, to fill `gaps`; who covers whom; and what is short."""
    uses: list[Use] = []
    covers: list[Cover] = []
    short: list[Cover] = []
    for gap in gaps:
        paid = pick(less(lots, uses), gap.points, gap.effect)
        uses += paid
        covers += [replace(gap, by=use.lot, points=use.points) for use in paid]
        short.append(replace(gap, points=gap.points - sum(use.points for use in paid)))
    return uses, covers, short


def reverse_any(account: Account, points: int, act: Act, most_debt: int | None) -> tuple[Account, Reversal]:
    """The account after a return of who knows what took back `points`: from any lots, as if they had expired, since
    what was deferred for the returned goods is not known either. `most_debt` as for `reverse`."""
    uses = pick(spendable(account), points, "expired")
    taken = sum(use.points for use in uses)
    assert taken == points or _all_there(account), "claimed without the lots"
    debt = _as_debt(account, points - taken, most_debt)
    account, entry_id = move(account, "reversal", act, available=-taken, debt=debt)
    account = cover(take(account, entry_id, act, uses), entry_id, [Cover(None, None, "expired", debt)])
    return account, Reversal(taken, 0, debt, points - taken - debt, 0, (), entry_id)


def forgive(account: Account, reversal: Reversal, points: int) -> Account:
    """The account with `points` of what a claw-back was missing forgiven: when what they were spent on comes back, they
    do not, for it is they that were missing."""
    forgiven = [replace(each, forgiven=True) for each in _first(reversal.gaps, points)]
    return cover(account, reversal.entry_id, forgiven)


def move_costs(account: Account, currency: str) -> tuple[Account, int]:
    """The account, and how much of the cost of rewards becomes marketing now, minor units of `currency`: what those
    cost that forgiven points bought, less what became it before; negative where they are there again after all.

    Of each document's points those count as forgiven first that bought a reward, in the order in which they were spent;
    so it is the same in any order of returns, and never more than was booked. What is held or was given away has bought
    nothing here, and of a return without a receipt nothing is known.
    """
    if account.costs is None:
        return account, 0
    bought, priced, moved = account.costs.bought, account.costs.priced, account.costs.moved
    paid: Counter[UUID] = Counter()
    for document_id, left in _forgiven(account).items():
        for paid_for, points in bought.get(document_id, ()):
            part = min(points, left)
            paid[paid_for] += part
            left -= part  # noqa: PLW2901  # a sum that is used up
    parts = [(priced[paid_for], points) for paid_for, points in paid.items()]
    in_all = sum(round(Fraction(cost * points, whole)) for (of, cost, whole), points in parts if of == currency)
    costs = replace(account.costs, moved={**moved, currency: in_all})
    return account.but(costs=costs), in_all - moved.get(currency, 0)


def _forgiven(account: Account) -> Counter[UUID]:
    """How many points were forgiven that had been used, by the document that granted them."""
    points: Counter[UUID] = Counter()
    for each in account.covers or ():
        if each.forgiven and each.effect == "used" and each.of is not None:
            points[each.of.document_id] += each.points
    return points


def _as_debt(account: Account, missing: int, most_debt: int | None) -> int:
    return missing if most_debt is None else max(0, min(missing, most_debt - account.debt))


def _own(account: Account, root: GrantedLot) -> list[OpenLot]:
    """What is left of a granted lot at its member: the lot itself, and lots it lives on in."""
    mine = [lot for lot in account.lots.values() if lot.free and lot.document_id == root.lot.document_id]
    return sorted(mine, key=lambda lot: lot.id)


def _unwritten(account: Account, lot: OpenLot, effect: Literal["used", "expired"]) -> int:
    """How many points of what granted `lot` count as used or expired that were not written when it was read: what
    `settle` found due, and what the same batch decided before."""
    made = sum(
        use.points for _, _, use in account.rows.uses if use.effect == effect and use.lot.document_id == lot.document_id
    )
    returns = [each for _, each in account.rows.returns if each.lot.document_id == lot.document_id]
    return made - sum(each.of_used if effect == "used" else each.of_expired for each in returns)


def _covers_of(account: Account, document_id: UUID, effect: Effect) -> list[Cover]:
    """What stands in for points that a document granted: debt, which is the easiest to take back, then lots, then
    nobody."""
    assert account.covers is not None, "claimed without covers"
    covers = [each for each in account.covers if each.of and each.of.document_id == document_id]
    return sorted((each for each in covers if each.effect == effect), key=lambda each: (not each.owed, each.forgiven))


def _covers_by(account: Account, lot: OpenLot, effect: Effect) -> list[Cover]:
    """What the points granted with `lot` stand in for."""
    assert account.covers is not None, "claimed without covers"
    covers = [each for each in account.covers if each.by and each.by.document_id == lot.document_id]
    return [each for each in covers if each.effect == effect]


def _first(covers: Iterable[Cover], points: int) -> list[Cover]:
    """The first `points` of `covers`, or as many as there are."""
    parts = []
    for each in covers:
        part = min(each.points, points)
        if part > 0:
            parts.append(replace(each, points=part))
            points -= part
    return parts


def _ended(each: Cover) -> Cover:
    return replace(each, points=-each.points)


def _lot_return(root: GrantedLot, points: int, of_used: int, of_expired: int) -> LotReturn:
    in_all = root.returned + points
    return LotReturn(
        lot=root.lot,
        entry_id=root.lot.id,
        points=points,
        allocated=returned_part(root.allocated, in_all, root.granted, root.returned_allocated),
        residue=returned_part(root.residue, in_all, root.granted, root.returned_residue),
        expected=returned_part(root.expected, in_all, root.granted, root.returned_expected),
        of_used=of_used,
        of_expired=of_expired,
    )


def restore(
    account: Account, spent: Sequence[SpentPart], points: int, act: Act, revived_until: datetime | None, *, revive: bool
) -> tuple[Account, int, int]:
    """The account after `points` spent on returned goods have come back to their lots, how many of them stay expired
    because their lot has expired meanwhile, and how many settle what was forgiven.

    With `revive` the former live on in a new lot instead, until `revived_until` (None: for ever). Where a return has
    taken the spent points back from other lots, it is those they come back to; where that made debt, it is gone.
    """
    back, ended = _sources(account, spent, points)
    relieved = sum(each.points for each in ended if each.owed)
    settled = sum(each.points for each in ended if each.forgiven)
    gone = 0 if revive else sum(-use.points for use in back if _expired(account, use.lot, act))
    account, entry_id = move(account, "restoration", act, available=points - relieved - settled - gone, debt=-relieved)
    account = cover(account, entry_id, [_ended(each) for each in ended])
    arrived = []
    for use in back:
        if not _expired(account, use.lot, act):
            account, lot = _put_back(account, entry_id, act, use)
            arrived.append(lot.id)
        elif revive:
            fresh = moved(use.lot, -use.points, expires_at=revived_until, lapses=False)
            account = carry(take(account, entry_id, act, [use]), entry_id, act, use.lot, fresh)
            arrived.append(fresh.id)
        else:
            account = take(account, entry_id, act, [use, Use(use.lot, -use.points, "expired")])
    account = pay_debt(account, act, arrived)
    return settle(account, act.recorded_at, act.zone, since=act.occurred_at), gone, settled


def _sources(account: Account, spent: Sequence[SpentPart], points: int) -> tuple[list[Use], list[Cover]]:
    """Uses that give `points` back to where they came from in the end, and what stands in for them no more.

    Debt comes off first. Then points come back that still count as used by what was spent, then those that stand in,
    then what was forgiven is settled. What the member paid for, when it was withheld from a refund, comes back with
    nothing deferred for it.
    """
    uses: list[Use] = []
    ended: list[Cover] = []
    counted: Counter[UUID] = Counter()
    for each, part in _parts(spent, points):
        lot = account.lots.get(each.lot.id, each.lot)
        covers = _less_ended(_covers_of(account, lot.document_id, "used"), ended)
        relieved = _first([cover for cover in covers if cover.owed], part)
        spent_by_lots = part - sum(cover.points for cover in relieved)
        used = each.used + _unwritten(account, lot, "used") - counted[lot.document_id]
        own = max(0, min(spent_by_lots, used - sum(cover.points for cover in _covers_by(account, lot, "used"))))
        counted[lot.document_id] += own
        freed = _first([cover for cover in covers if not cover.owed], spent_by_lots - own)
        bare = spent_by_lots - own - sum(cover.points for cover in freed)
        ended += [replace(cover, of=lot) for cover in relieved + freed]
        uses += [Use(lot, -own, "used"), *_freed(account, freed), Use(lot, -bare, "returned")]
    return [use for use in uses if use.points], ended


def _less_ended(covers: Iterable[Cover], ended: Iterable[Cover]) -> list[Cover]:
    gone: Counter[object] = Counter()
    for each in ended:
        gone[each.key] += each.points
    return [replace(each, points=each.points - gone[each.key]) for each in covers]


def _freed(account: Account, covers: Iterable[Cover]) -> list[Use]:
    """Uses that give back what lots stood in with."""
    by = [(account.lots.get(each.by.id, each.by), each) for each in covers if each.by]
    return [Use(lot, -each.points, each.effect) for lot, each in by]


def _put_back(account: Account, entry_id: UUID, act: Act, use: Use) -> tuple[Account, OpenLot]:
    """The account after a negative use, and the lot that has its points: a new one if its own has no room for them,
    since it got others instead before."""
    lot = account.lots.get(use.lot.id, use.lot)
    account = take(account, entry_id, act, [use])
    if lot.remaining - use.points <= lot.granted:
        return account, lot
    fresh = moved(lot, -use.points)
    return carry(account, entry_id, act, lot, fresh), fresh


def _parts(spent: Sequence[SpentPart], points: int) -> Iterable[tuple[SpentPart, int]]:
    for each in spent:
        part = min(each.points, points)
        if part > 0:
            yield each, part
            points -= part


def _expired(account: Account, lot: OpenLot, act: Act) -> bool:
    expiry = account.expiry_of(lot)
    return expiry is not None and expiry <= act.recorded_at


def reinstate(account: Account, lot: OpenLot, points: int, expires_at: datetime | None, act: Act) -> Account:
    """The account with `points` of an expired lot back, in a new lot that is good until `expires_at`."""
    account, entry_id = move(account, "reinstatement", act, available=points)
    account = take(account, entry_id, act, [Use(lot, -points, "expired")])
    since = act.occurred_at
    fresh = moved(lot, points, pending=False, available_from=since, expires_at=expires_at, lapses=False)
    return pay_debt(carry(account, entry_id, act, lot, fresh), act, [fresh.id])


def write_off(account: Account, points: int, act: Act) -> Account:
    """The account with `points` (at most all) of its debt forgiven, the oldest first."""
    debts = list(owed(account, min(points, account.debt)))
    account, entry_id = move(account, "write_off", act, debt=-min(points, account.debt))
    return cover(account, entry_id, [*map(_ended, debts), *(replace(each, forgiven=True) for each in debts)])


@dataclass(frozen=True, slots=True)
class Reversed:
    """What a return did to an account, read back to be undone. Lots are as they are now.

    `uses`, `returns`, `covers` and `qualifying` are of what it took back (`reverse`), `heirs` the last lot of each
    document whose points it took. Of what came back (`restore`): `stayed` are the uses of lots whose points stayed
    expired, `settled` is what was forgiven and made up for, `restored` a lot to which points came back.
    """

    uses: Sequence[Use] = ()
    returns: Sequence[LotReturn] = ()
    covers: Sequence[Cover] = ()
    qualifying: int = 0
    heirs: Mapping[UUID, OpenLot] = field(default_factory=dict)
    stayed: Sequence[Use] = ()
    settled: Sequence[Cover] = ()
    restored: OpenLot | None = None


def undo(account: Account, done: Reversed, act: Act) -> Account:
    """The account as if the return had taken nothing back: its points are where they came from, its debt is gone.

    Lots that have paid that debt get their points back. What was written off stays so.
    """
    freed, again, loose = _uncovered(account, done)
    back = [*_own_uses(account, done), *_freed(account, freed)]
    fresh = [moved(_heir(account, done, use.lot), -use.points) for use in loose]
    pending = sum(lot.remaining for lot in fresh if lot.pending) - sum(use.points for use in back if use.lot.pending)
    points = sum(lot.remaining for lot in fresh) - sum(use.points for use in back)
    account, entry_id = move(
        account,
        "reversal",
        act,
        available=points - pending,
        pending=pending,
        debt=-sum(each.points for each in freed if each.owed),
        qualifying=done.qualifying,
        lifetime=sum(each.points for each in done.returns),
    )
    account = cover(account, entry_id, [*(_ended(each) for each in freed), *again])
    account = add_rows(account, returns=tuple((act, _undone(each, entry_id)) for each in done.returns))
    arrived = [lot.id for lot in fresh]
    for use in back:
        account, lot = _put_back(account, entry_id, act, use)
        arrived.append(lot.id)
    for use, lot in zip(loose, fresh, strict=True):
        account = carry(take(account, entry_id, act, [use]), entry_id, act, use.lot, lot)
    return settle(pay_debt(account, act, arrived), act.recorded_at, act.zone, since=act.occurred_at)


def _own_uses(account: Account, done: Reversed) -> list[Use]:
    """Uses that give back what the return took of the very lots it was about, not of those that stand in for them."""
    stand_ins: Counter[tuple[UUID, Effect]] = Counter()
    for each in done.covers:
        if each.by and each.points > 0:
            stand_ins[each.by.id, each.effect] += each.points
    uses = []
    for use in done.uses:
        key = use.lot.id, use.effect
        part = min(use.points, stand_ins[key])
        stand_ins[key] -= part
        uses.append(replace(use, lot=account.lots.get(use.lot.id, use.lot), points=part - use.points))
    return [use for use in uses if use.points]


def _uncovered(account: Account, done: Reversed) -> tuple[list[Cover], list[Cover], list[Use]]:
    """What stands in for a return's points no more, when it is undone; what its own points stand in for again; and, as
    uses, those of them that nobody needs any more, because what they were spent on has come back meanwhile."""
    freed: list[Cover] = []
    again: list[Cover] = []
    loose: list[Use] = []
    for (document_id, effect), covers in _grouped(done.covers).items():
        made = sum(each.points for each in covers if each.points > 0)
        ended = _first(_covers_of(account, document_id, effect), made)
        freed += ended
        lost = made - sum(each.points for each in ended)
        for each in covers:
            if each.points < 0 and each.by:
                part = min(-each.points, lost)
                lost -= part
                again.append(replace(each, points=-each.points - part))
                loose.append(Use(each.by, -part, effect))
        if covers[-1].of and lost > 0:
            loose.append(Use(covers[-1].of, -lost, effect))
    return freed, again, [use for use in loose if use.points]


def _grouped(covers: Iterable[Cover]) -> dict[tuple[UUID, Effect], list[Cover]]:
    groups: dict[tuple[UUID, Effect], list[Cover]] = {}
    for each in covers:
        if each.of:
            groups.setdefault((each.of.document_id, each.effect), []).append(each)
    return groups


def _heir(account: Account, done: Reversed, lot: OpenLot) -> OpenLot:
    """The last lot that carries on what was granted with `lot`, as good as its points would be now."""
    here = [other for other in account.lots.values() if other.document_id == lot.document_id]
    return max([*here, done.heirs.get(lot.document_id, lot)], key=lambda other: other.id)


def _undone(each: LotReturn, entry_id: UUID) -> LotReturn:
    names = ("points", "allocated", "residue", "expected", "of_used", "of_expired")
    return replace(each, entry_id=entry_id, **{name: -getattr(each, name) for name in names})


def spend_again(account: Account, points: int, act: Act, done: Reversed) -> Account:
    """The account after `points` that a return gave back are spent again; what is missing becomes debt. Those that
    stayed expired then count as they did before."""
    uses = pick(spendable(account), min(points, account.available), "used")
    taken = sum(use.points for use in uses)
    account, entry_id = move(account, "redemption", act, available=-taken, debt=points - taken)
    stayed = (replace(use, points=-use.points) for use in done.stayed)
    account = take(account, entry_id, act, [*uses, *stayed])
    return cover(account, entry_id, [Cover(done.restored, None, "used", points - taken), *map(_ended, done.settled)])
