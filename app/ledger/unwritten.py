"""What a batch has decided and not written yet, on top of what was read when its accounts were claimed. Pure.

So what is bought, returned and voided within one batch comes to what it would one after the other.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from app.ledger.returning import GrantedLot, Reversed, SpentPart, last_first
from app.ledger.rules import Account, Kind, OpenLot


def granted_by(account: Account, document_id: UUID) -> list[GrantedLot]:
    """The lots that a document of the batch has granted, as they were granted."""
    return [
        GrantedLot(
            account.lots[row["id"]], row["granted"], row["allocated"], row["residue"], row["expected"], 0, 0, 0, 0, 0, 0
        )
        for row in account.rows.lots
        if row["document_id"] == document_id and row["source_lot_id"] is None
    ]


def granted_now(account: Account, granted: GrantedLot) -> GrantedLot:
    """A granted lot with what the batch's returns took back of it. What was used of it, or has expired, the account
    knows."""
    back = [each for _, each in account.rows.returns if each.lot.id == granted.lot.id]
    return replace(
        granted,
        returned=granted.returned + sum(each.points for each in back),
        returned_allocated=granted.returned_allocated + sum(each.allocated for each in back),
        returned_residue=granted.returned_residue + sum(each.residue for each in back),
        returned_expected=granted.returned_expected + sum(each.expected for each in back),
    )


def spent_now(
    account: Account, spent: Sequence[SpentPart], document_ids: Collection[UUID], used: Mapping[UUID, int]
) -> list[SpentPart]:
    """What a purchase has `spent`, and what it and its returns (`document_ids`) spent and gave back in this batch.

    `used`: what of the points that a document granted counted as used before the batch, of lots not `spent` before.
    """
    spending = _entries(account, document_ids, "redemption", "restoration")
    parts = {part.lot.id: part for part in spent}
    points: Counter[UUID] = Counter()
    for entry_id, _, use in account.rows.uses:
        if entry_id in spending and use.effect in ("used", "returned"):
            parts.setdefault(use.lot.id, SpentPart(use.lot, 0, used.get(use.lot.document_id, 0)))
            points[use.lot.id] += use.points
    for entry_id, cover in account.rows.covers:
        for lot, sign in ((cover.of, 1), (cover.by, -1)):
            if entry_id in spending and cover.of and lot:
                parts.setdefault(lot.id, SpentPart(lot, 0, used.get(lot.document_id, 0)))
                points[lot.id] += sign * cover.points
    now = [replace(part, points=part.points + points[id_]) for id_, part in parts.items()]
    return sorted(now, key=lambda part: last_first(part.lot))


def reversed_now(account: Account, document_id: UUID, heirs: Mapping[UUID, OpenLot]) -> Reversed:
    """What a return of the batch did to the account. `heirs`: the last lot of each document before the batch."""
    taking = _entries(account, [document_id], "reversal")
    giving = _entries(account, [document_id], "restoration")
    rows, lots = account.rows, account.lots
    made = [(entry_id, use) for entry_id, _, use in rows.uses if entry_id in taking or entry_id in giving]
    uses = [(entry_id, replace(use, lot=lots.get(use.lot.id, use.lot))) for entry_id, use in made]
    back = [use for entry_id, use in uses if entry_id in giving]
    relieved = [cover for entry_id, cover in rows.covers if entry_id in giving]
    gone = {use.lot.id for use in back if use.effect == "expired"}
    restored = [use.lot for use in back] + [each.of for each in relieved if each.of]
    return Reversed(
        uses=[use for entry_id, use in uses if entry_id in taking],
        returns=[each for _, each in rows.returns if each.entry_id in taking],
        covers=[cover for entry_id, cover in rows.covers if entry_id in taking],
        qualifying=-sum(entry["qualifying"] for entry in rows.entries if entry["id"] in taking),
        heirs=heirs,
        stayed=[use for use in back if use.lot.id in gone],
        settled=[each for each in relieved if each.forgiven],
        restored=restored[0] if restored else None,
    )


def _entries(account: Account, document_ids: Collection[UUID], *kinds: Kind) -> set[UUID]:
    """The ids of the batch's entries of some kinds and documents."""
    return {
        entry["id"] for entry in account.rows.entries if entry["document_id"] in document_ids and entry["kind"] in kinds
    }
