"""How points go back: what a return takes back, what it gives back, what was wrongly gone. Pure.

A return takes back points that the returned goods earned: first what is left of their own lots, then what of them has
expired (that costs the member nothing), then, for points already spent, from the member's other lots in spending
order. What is missing then becomes debt, as far as the terms let it; the rest is forgiven. Sums are cumulative, so
that any number of partial returns ends exactly as one return of everything.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from app.accounting import returned_part
from app.ledger.rules import (
    Account,
    Act,
    Effect,
    LotReturn,
    OpenLot,
    Use,
    add_rows,
    due,
    grant,
    move,
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

    `used` is what of the points granted with the lot still counts as used in its cohort, wherever they live on; less
    than `points` if a return of the purchase that granted them has taken back spent points meanwhile.
    """

    lot: OpenLot
    points: int
    used: int


@dataclass(frozen=True, slots=True)
class Reversal:
    """What a claw-back came to, points: `taken` from lots, `expired` before, `debt` owed now, `forgiven`; and what was
    deferred for them and is not any more, minor units."""

    taken: int
    expired: int
    debt: int
    forgiven: int
    allocated: int


def reverse(
    account: Account, granted: Sequence[GrantedLot], points: int, act: Act, most_debt: int | None, qualifying: int
) -> tuple[Account, Reversal]:
    """The account after a return took back `points` (at most what is left of `granted`) and `qualifying` ones.

    `most_debt` is how much debt the account may have in all (None: any); a shortfall beyond it is forgiven.
    """
    assert account.complete, "claimed without lots"
    own = {lot.id: lot for root in granted for lot in _own(account, root)}
    returns, uses, others = [], [], 0
    expired = allocated = 0
    for root, part in _shared(granted, points):
        left = pick(_own(account, root), part, "returned")
        taken = sum(use.points for use in left)
        of_expired = min(root.expired + _unwritten(account, root.lot, "expired"), part - taken)
        of_used = min(root.used + _unwritten(account, root.lot, "used"), part - taken - of_expired)
        returned = _lot_return(root, part, of_used, of_expired)
        returns.append(returned)
        uses += left
        # what was spent is paid by other lots, which count as used instead; what lives on elsewhere (held, given to
        # somebody) stays issued there, so the lots that pay for it leave their cohorts
        elsewhere = part - taken - of_expired - of_used
        rest = [lot for lot in spendable(account) if lot.id not in own]
        paid = pick(_less(rest, uses), of_used, "used")
        uses += paid
        also = pick(_less(rest, uses), elsewhere, "returned")
        uses += also
        others += of_used + elsewhere - sum(use.points for use in paid + also)
        expired += of_expired
        allocated += returned.allocated
    owed = _owed(account, others, most_debt)
    available = sum(use.points for use in uses if not use.lot.pending)
    pending = sum(use.points for use in uses if use.lot.pending)
    account, entry_id = move(
        account,
        "reversal",
        act,
        available=-available,
        pending=-pending,
        debt=owed,
        qualifying=-min(qualifying, account.qualifying),
        lifetime=-points,
    )
    account = take(account, entry_id, act, uses)
    account = add_rows(account, returns=tuple((act, replace(each, entry_id=entry_id)) for each in returns))
    return account, Reversal(available + pending, expired, owed, others - owed, allocated)


def reverse_any(account: Account, points: int, act: Act, most_debt: int | None) -> tuple[Account, Reversal]:
    """The account after a return of who knows what took back `points`: from any lots, as if they had expired, since
    what was deferred for the returned goods is not known either. `most_debt` as for `reverse`."""
    assert account.complete, "claimed without lots"
    uses = pick(spendable(account), points, "expired")
    taken = sum(use.points for use in uses)
    owed = _owed(account, points - taken, most_debt)
    account, entry_id = move(account, "reversal", act, available=-taken, debt=owed)
    return take(account, entry_id, act, uses), Reversal(taken, 0, owed, points - taken - owed, 0)


def _owed(account: Account, missing: int, most_debt: int | None) -> int:
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


def _shared(granted: Sequence[GrantedLot], points: int) -> Iterable[tuple[GrantedLot, int]]:
    for root in granted:
        part = min(root.granted - root.returned, points)
        if part:
            yield root, part
            points -= part
    assert points == 0, "a return takes back more than was granted"


def _less(lots: Sequence[OpenLot], uses: Sequence[Use]) -> list[OpenLot]:
    """`lots` as they are after `uses`."""
    gone = {lot.id: sum(use.points for use in uses if use.lot.id == lot.id) for lot in lots}
    return [replace(lot, remaining=lot.remaining - gone[lot.id]) for lot in lots]


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
) -> tuple[Account, int]:
    """The account after `points` spent on returned goods have come back to their lots, and how many of them stay
    expired because their lot has expired meanwhile.

    With `revive` those live on in a new lot instead, until `revived_until` (None: for ever). What no lot has paid,
    because a return was voided when its points were gone (`spend_again`), comes off the debt that made; where credits
    have paid that since, it comes back in a new lot.
    """
    parts = [(each, part, False) for each, part in _parts(spent, points)]
    short = points - sum(part for _, part, _ in parts)
    relieved = min(short, account.debt)
    if short > relieved:
        parts.append((spent[0], short - relieved, True))
    gone = 0 if revive else sum(part for each, part, _ in parts if _expired(account, each.lot, act))
    account, entry_id = move(account, "restoration", act, available=points - relieved - gone, debt=-relieved)
    arrived = []
    unbacked: dict[UUID, int] = {}
    for each, part, apart in parts:
        lot, expired = account.lots.get(each.lot.id, each.lot), _expired(account, each.lot, act)
        counted = min(part, each.used + _unwritten(account, lot, "used"))
        back = [Use(lot, -counted, "used"), Use(lot, counted - part, "returned")]
        if expired and not revive:
            back.append(Use(lot, part, "expired"))
        elif expired or apart:
            back.append(Use(lot, part, "moved"))
        account = take(account, entry_id, act, [use for use in back if use.points])
        if not (expired or apart):
            arrived.append(lot.id)
            unbacked[lot.id] = part - counted
        elif revive or not expired:
            fresh = moved(lot, part)
            if expired:
                fresh = replace(fresh, expires_at=revived_until, lapses=False)
            account = grant(account, entry_id, act, fresh, source_lot_id=lot.id)
            arrived.append(fresh.id)
            unbacked[fresh.id] = part - counted
    account = pay_debt(due(account), act, arrived, unbacked)
    return settle(account, act.recorded_at, act.zone, since=act.occurred_at), gone


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
    """The account with `points` (at most all) of its debt forgiven."""
    account, _ = move(account, "write_off", act, debt=-min(points, account.debt))
    return account


@dataclass(frozen=True, slots=True)
class Reversed:
    """What a return did to an account, read back to be undone. Uses carry the lots as they are.

    `uses`, `returns`, `debt` and `qualifying` are of what it took back (`reverse`), `heirs` the last lot of each
    document whose points it took, `stayed` the uses of lots whose points stayed expired when they came back
    (`restore`). `written_off`: debt of the account forgiven since, points.
    """

    uses: Sequence[Use] = ()
    returns: Sequence[LotReturn] = ()
    debt: int = 0
    qualifying: int = 0
    written_off: int = 0
    stayed: Sequence[Use] = ()
    heirs: Mapping[UUID, OpenLot] = field(default_factory=dict)


def undo(account: Account, done: Reversed, act: Act) -> Account:
    """The account as if the return had taken nothing back: its points are where they came from, its debt is gone.

    Debt that later credits have paid comes back as points of a new lot; what was written off stays so.
    """
    paid_since = max(0, done.debt - account.debt - done.written_off)
    back = [replace(use, lot=account.lots.get(use.lot.id, use.lot), points=-use.points) for use in done.uses]
    apart = list(_given_back(done, paid_since))
    fresh = [moved(_heir(account, done, use.lot), -use.points) for use in apart]
    pending = sum(lot.remaining for lot in fresh if lot.pending) - sum(use.points for use in back if use.lot.pending)
    points = sum(lot.remaining for lot in fresh) - sum(use.points for use in back)
    account, entry_id = move(
        account,
        "reversal",
        act,
        available=points - pending,
        pending=pending,
        debt=-min(account.debt, done.debt - paid_since),
        qualifying=done.qualifying,
        lifetime=sum(each.points for each in done.returns),
    )
    account = take(account, entry_id, act, [*back, *apart])
    for use, lot in zip(apart, fresh, strict=True):
        account = carry(account, entry_id, act, use.lot, lot)
    account = add_rows(account, returns=tuple((act, _negative(each, entry_id)) for each in done.returns))
    arrived = {use.lot.id for use in back if not use.lot.pending} | {lot.id for lot in fresh}
    return settle(pay_debt(account, act, arrived), act.recorded_at, act.zone, since=act.occurred_at)


def _given_back(done: Reversed, points: int) -> Iterable[Use]:
    """Uses that give back `points` of debt paid since: of what had been used, then of what lives on elsewhere."""
    for each in done.returns:
        mine = [use for use in done.uses if use.lot.document_id == each.lot.document_id]
        own = sum(use.points for use in mine if use.effect == "returned")  # else it paid for another lot of the return
        parts: tuple[tuple[int, Effect], ...] = (
            (each.of_used, "used"),
            (each.points - each.of_used - each.of_expired - own, "returned"),
        )
        for most, effect in parts:
            if part := min(most, points):
                yield Use(each.lot, -part, effect)
                points -= part


def _heir(account: Account, done: Reversed, lot: OpenLot) -> OpenLot:
    """The last lot that carries on what was granted with `lot`, as good as its points would be now."""
    here = [other for other in account.lots.values() if other.document_id == lot.document_id]
    return max([*here, done.heirs.get(lot.document_id, lot)], key=lambda other: other.id)


def _negative(each: LotReturn, entry_id: UUID) -> LotReturn:
    return LotReturn(
        each.lot,
        entry_id,
        -each.points,
        -each.allocated,
        -each.residue,
        -each.expected,
        -each.of_used,
        -each.of_expired,
    )


def spend_again(account: Account, points: int, act: Act, stayed: Sequence[Use] = ()) -> Account:
    """The account after points that a return gave back are spent again; what is missing becomes debt.

    `stayed`: the uses of lots whose points did not come back (`Reversed.stayed`); they count as before.
    """
    uses = pick(spendable(account), min(points, account.available), "used")
    taken = sum(use.points for use in uses)
    account, entry_id = move(account, "redemption", act, available=-taken, debt=points - taken)
    return take(account, entry_id, act, [*uses, *(replace(use, points=-use.points) for use in stayed)])
