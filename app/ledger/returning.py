"""How points go back: what a return takes back, what it gives back, what was wrongly gone. Pure.

A return takes back points that the returned goods earned: first what is left of their own lots, then what of them has
expired (that costs the member nothing), then, for points already spent, from the member's other lots in spending
order. What is missing then becomes debt, as far as the terms let it; the rest is forgiven. Sums are cumulative, so
that any number of partial returns ends exactly as one return of everything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from app.accounting import returned_part
from app.ids import new_id
from app.ledger.rules import (
    Account,
    Act,
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
from app.ledger.spending import spendable


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
    """Points of a lot that a document spent and that have not come back yet.

    `used` is what of the lot still counts as used in its cohort; less than `points` if a return of the purchase that
    granted the lot has taken back spent points meanwhile.
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
    granted = [_now(account, root) for root in granted]
    own = {lot.id: lot for root in granted for lot in _own(account, root)}
    returns, uses, others = [], [], 0
    expired = allocated = 0
    for root, part in _shared(granted, points):
        left = pick(_own(account, root), part, "returned")
        taken = sum(use.points for use in left)
        of_expired = min(root.expired, part - taken)
        of_used = min(root.used, part - taken - of_expired)
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
    owed = others if most_debt is None else max(0, min(others, most_debt - account.debt))
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


def _now(account: Account, root: GrantedLot) -> GrantedLot:
    """A granted lot as read, with what is decided and not written yet: what was due, what came before in the batch."""
    fresh = [use for _, _, use in account.rows.uses if use.lot.document_id == root.lot.document_id]
    used = sum(use.points for use in fresh if use.effect == "used")
    expired = sum(use.points for use in fresh if use.effect == "expired")
    return replace(root, used=root.used + used, expired=root.expired + expired)


def _own(account: Account, root: GrantedLot) -> list[OpenLot]:
    """What is left of a granted lot at its member: the lot itself, and lots it lives on in."""
    mine = [lot for lot in account.lots.values() if lot.free and lot.document_id == root.lot.document_id]
    return sorted(mine, key=lambda lot: lot.id)


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

    With `revive` those live on in a new lot instead, until `revived_until` (None: for ever).
    """
    parts = list(_parts(spent, points))
    gone = sum(part for each, part in parts if _expired(account, each.lot, act)) if not revive else 0
    account, entry_id = move(account, "restoration", act, available=points - gone)
    arrived = []
    for each, part in parts:
        lot = account.lots.get(each.lot.id, each.lot)
        counted = min(part, each.used)
        back = [Use(lot, -counted, "used"), Use(lot, counted - part, "returned")]
        account = take(account, entry_id, act, [use for use in back if use.points])
        if not _expired(account, lot, act):
            arrived.append(lot.id)
        elif revive:
            account = take(account, entry_id, act, [Use(lot, part, "moved")])
            fresh = replace(lot, id=new_id(), remaining=part, held=0, expires_at=revived_until, lapses=False)
            account = grant(account, entry_id, act, fresh, source_lot_id=lot.id)
            arrived.append(fresh.id)
        else:
            account = take(account, entry_id, act, [Use(lot, part, "expired")])
    return settle(pay_debt(due(account), act, arrived), act.recorded_at, act.zone, since=act.occurred_at), gone


def _parts(spent: Sequence[SpentPart], points: int) -> Iterable[tuple[SpentPart, int]]:
    for each in spent:
        part = min(each.points, points)
        if part:
            yield each, part
            points -= part
    assert points == 0, "more points come back than were spent"


def _expired(account: Account, lot: OpenLot, act: Act) -> bool:
    expiry = account.expiry_of(lot)
    return expiry is not None and expiry <= act.recorded_at


def reinstate(account: Account, lot: OpenLot, points: int, expires_at: datetime | None, act: Act) -> Account:
    """The account with `points` of an expired lot back, in a new lot that is good until `expires_at`."""
    account, entry_id = move(account, "reinstatement", act, available=points)
    account = take(account, entry_id, act, [Use(lot, -points, "expired"), Use(lot, points, "moved")])
    fresh = replace(lot, id=new_id(), remaining=points, held=0, pending=False, expires_at=expires_at, lapses=False)
    fresh = replace(fresh, available_from=act.occurred_at)
    return pay_debt(grant(account, entry_id, act, fresh, source_lot_id=lot.id), act, [fresh.id])


def write_off(account: Account, points: int, act: Act) -> Account:
    """The account with `points` (at most all) of its debt forgiven."""
    account, _ = move(account, "write_off", act, debt=-min(points, account.debt))
    return account


@dataclass(frozen=True, slots=True)
class Reversed:
    """What a return did to an account (`reverse`), read back to be undone. Uses carry the lots as they are."""

    uses: Sequence[Use]
    returns: Sequence[LotReturn]
    debt: int
    qualifying: int


def undo(account: Account, done: Reversed, act: Act) -> Account:
    """The account as if the return had not been: its points are back where they came from, its debt is gone.

    Debt that later credits have paid comes back as points of the returned lots.
    """
    paid_since = max(0, done.debt - account.debt)
    lots = [each.lot for each in done.returns if each.of_used]
    back = [replace(use, points=-use.points) for use in done.uses]
    back += _given_back(lots, done.returns, paid_since)
    account, entry_id = move(
        account,
        "reversal",
        act,
        available=-sum(use.points for use in back if not use.lot.pending),
        pending=-sum(use.points for use in back if use.lot.pending),
        debt=paid_since - done.debt,
        qualifying=done.qualifying,
        lifetime=sum(each.points for each in done.returns),
    )
    account = take(account, entry_id, act, back)
    account = add_rows(account, returns=tuple((act, _negative(each, entry_id)) for each in done.returns))
    account = pay_debt(account, act, {use.lot.id for use in back if not use.lot.pending})
    return settle(account, act.recorded_at, act.zone, since=act.occurred_at)


def _given_back(lots: Sequence[OpenLot], returns: Sequence[LotReturn], points: int) -> list[Use]:
    uses = []
    for lot, each in zip(lots, [each for each in returns if each.of_used], strict=True):
        part = min(each.of_used, points)
        if part:
            uses.append(Use(lot, -part, "used"))
            points -= part
    return uses


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


def spend_again(account: Account, points: int, act: Act) -> Account:
    """The account after points that a return gave back are spent again; what is missing becomes debt."""
    uses = pick(spendable(account), min(points, account.available), "used")
    taken = sum(use.points for use in uses)
    account, entry_id = move(account, "redemption", act, available=-taken, debt=points - taken)
    return take(account, entry_id, act, uses)
