"""Vouchers: issue and burn many at a time, look one up, cancel one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import db, outbox
from app.errors import NotFound, Problem, or_problem
from app.ids import new_id
from app.redemptions.codes import code_of, hash_code, read_code
from app.redemptions.models import Redemption, VoucherRow
from app.redemptions.rules import Receipt, check_burn, check_open, voucher_expires_at


def made_for(redemption: Redemption, zone: tzinfo, pepper: bytes, now: datetime) -> list[dict[str, Any]]:
    """The rows of a redemption's vouchers, one for each piece; none for goods."""
    if redemption.voucher_value is None or redemption.voucher_days is None:
        return []
    expires_at = voucher_expires_at(now, redemption.voucher_days, zone)
    rows = []
    for number in range(1, redemption.quantity + 1):
        id_ = new_id()
        code = read_code(code_of(id_, pepper))
        assert code is not None
        row = {
            "id": id_,
            "program_id": redemption.program_id,
            "redemption_id": redemption.id,
            "number": number,
            "code_hash": hash_code(code, pepper),
            "value": redemption.voucher_value,
            "currency": redemption.currency,
            "issued_at": now,
            "expires_at": expires_at,
            "status": "issued",
            "ended_at": None,
            "source": None,
            "external_id": None,
        }
        rows.append(row)
    return rows


def of_redemption(session: Session, redemption_id: UUID) -> Sequence[VoucherRow]:
    """The vouchers issued for a redemption, by piece."""
    rows = select(VoucherRow).where(VoucherRow.redemption_id == redemption_id).order_by(VoucherRow.number)
    return session.scalars(rows).all()


def find(session: Session, program_id: UUID, text: str, pepper: bytes) -> VoucherRow:
    """The voucher with the code somebody typed. NotFound if the programme has none such."""
    hashed = _hashed(text, pepper)
    return _known(_vouchers(session, program_id, [hashed], lock=False), hashed)


@dataclass(frozen=True, slots=True)
class Burning:
    """The code of a voucher, as somebody typed it, and the receipt to use it on."""

    code: str
    receipt: Receipt


def burn(
    session: Session, program_id: UUID, burnings: Sequence[Burning], now: datetime, pepper: bytes
) -> list[VoucherRow | Problem]:
    """Uses vouchers on receipts, each once; the same receipt again gets the same answer.

    Each may be refused: VoucherBurnt, VoucherCancelled, VoucherExpired, NotFound.
    """
    hashes = [_hashed(burning.code, pepper) for burning in burnings]
    loaded = _Loaded(now, _vouchers(session, program_id, hashes, lock=True))
    outcomes = [or_problem(_burn, loaded, *each) for each in zip(burnings, hashes, strict=True)]
    _write_ends(session, loaded)
    return outcomes


def cancel(session: Session, program_id: UUID, text: str, now: datetime, pepper: bytes) -> VoucherRow:
    """Makes a voucher worthless; its points stay spent. Cancelling it again changes nothing. VoucherBurnt, NotFound."""
    hashed = _hashed(text, pepper)
    loaded = _Loaded(now, _vouchers(session, program_id, [hashed], lock=True))
    voucher = _known(loaded.vouchers, hashed)
    if voucher.status == "cancelled":
        return voucher
    check_open(voucher.status)
    cancelled = loaded.end(voucher, "cancelled")
    _write_ends(session, loaded)
    return cancelled


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Vouchers by the hash of their code, which follow the decisions on them, and those that ended."""

    now: datetime
    vouchers: dict[str, VoucherRow]
    ended: list[VoucherRow] = field(default_factory=list)

    def end(self, voucher: VoucherRow, status: str, receipt: Receipt | None = None) -> VoucherRow:
        used = {} if receipt is None else {"source": receipt.source, "external_id": receipt.external_id}
        ended = VoucherRow(**_fields(voucher) | {"status": status, "ended_at": self.now} | used)
        self.vouchers[voucher.code_hash] = ended
        self.ended.append(ended)
        return ended


def _burn(loaded: _Loaded, burning: Burning, hashed: str | None) -> VoucherRow:
    voucher = _known(loaded.vouchers, hashed)
    burnt_on = None
    if voucher.source is not None and voucher.external_id is not None:
        burnt_on = Receipt(voucher.source, voucher.external_id)
    if check_burn(voucher.status, burnt_on, voucher.expires_at, burning.receipt, loaded.now):
        return loaded.end(voucher, "burnt", burning.receipt)
    return voucher


def _hashed(text: str, pepper: bytes) -> str | None:
    """What the voucher with a typed code is found by; None for what is no code."""
    code = read_code(text)
    return None if code is None else hash_code(code, pepper)


def _vouchers(session: Session, program_id: UUID, hashes: Sequence[str | None], *, lock: bool) -> dict[str, VoucherRow]:
    """The programme's vouchers by the hash of their code. `lock`: until the transaction ends, so that whatever a
    decision rests on stays."""
    chosen = db.any_of(session, VoucherRow.code_hash.expression, sorted({each for each in hashes if each is not None}))
    rows = select(*VoucherRow.__table__.c).where(VoucherRow.program_id == program_id, chosen).order_by(VoucherRow.id)
    found = session.execute(rows.with_for_update(key_share=True) if lock else rows).mappings()
    return {row["code_hash"]: VoucherRow(**row) for row in found}


def _known(vouchers: Mapping[str, VoucherRow], hashed: str | None) -> VoucherRow:
    if hashed is None or hashed not in vouchers:
        raise NotFound
    return vouchers[hashed]


def _fields(voucher: VoucherRow) -> dict[str, Any]:
    return {column.name: getattr(voucher, column.name) for column in VoucherRow.__table__.columns}


def _write_ends(session: Session, loaded: _Loaded) -> None:
    ended = loaded.ended
    if not ended:
        return
    names = ("id", "status", "ended_at", "source", "external_id")
    db.update_rows(session, VoucherRow, ["id"], [{name: getattr(each, name) for name in names} for each in ended])
    bought = db.any_of(session, Redemption.id.expression, sorted({each.redemption_id for each in ended}))
    owners = dict(session.execute(select(Redemption.id, Redemption.member_id).where(bought)).all())
    events = [
        outbox.Event(each.program_id, f"voucher.{each.status}", owners[each.redemption_id], _told(each))
        for each in ended
    ]
    outbox.put(session, events, loaded.now)


def _told(ended: VoucherRow) -> dict[str, Any]:
    payload = {"voucher_id": str(ended.id), "redemption_id": str(ended.redemption_id)}
    return payload if ended.source is None else payload | {"source": ended.source, "external_id": ended.external_id}


def issue(session: Session, issued: Sequence[tuple[Redemption, dict[str, Any]]], now: datetime) -> None:
    """Writes the vouchers of redemptions."""
    db.insert_rows(session, VoucherRow, [row for _, row in issued])
    events = [
        outbox.Event(
            redemption.program_id,
            "voucher.issued",
            redemption.member_id,
            {
                "voucher_id": str(row["id"]),
                "redemption_id": str(redemption.id),
                "value": row["value"],
                "currency": row["currency"],
            },
        )
        for redemption, row in issued
    ]
    outbox.put(session, events, now)
