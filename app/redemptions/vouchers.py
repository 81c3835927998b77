"""Vouchers: issue, look up, burn, cancel."""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import db, outbox
from app.errors import NotFound
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


def find(session: Session, program_id: UUID, text: str, pepper: bytes, *, lock: bool = False) -> VoucherRow:
    """The voucher with the code somebody typed. NotFound if the programme has none such.

    `lock`: until the transaction ends, so that whatever a decision rests on stays.
    """
    code = read_code(text)
    if code is None:
        raise NotFound
    rows = select(VoucherRow).where(VoucherRow.code_hash == hash_code(code, pepper))
    if lock:
        rows = rows.with_for_update(key_share=True)
    found = session.scalars(rows).one_or_none()
    if found is None or found.program_id != program_id:
        raise NotFound
    return found


def burn(session: Session, program_id: UUID, text: str, pepper: bytes, receipt: Receipt, now: datetime) -> VoucherRow:
    """Uses a voucher on a receipt, once; the same receipt again gets the same answer.

    VoucherBurnt, VoucherCancelled, VoucherExpired, NotFound.
    """
    voucher = find(session, program_id, text, pepper, lock=True)
    burnt_on = None
    if voucher.source is not None and voucher.external_id is not None:
        burnt_on = Receipt(voucher.source, voucher.external_id)
    if check_burn(voucher.status, burnt_on, voucher.expires_at, receipt, now):
        changes = {"source": receipt.source, "external_id": receipt.external_id}
        return _end(session, voucher, now, "burnt", **changes)
    return voucher


def cancel(session: Session, program_id: UUID, text: str, pepper: bytes, now: datetime) -> VoucherRow:
    """Makes a voucher worthless; its points stay spent. Cancelling it again changes nothing. VoucherBurnt, NotFound."""
    voucher = find(session, program_id, text, pepper, lock=True)
    if voucher.status == "cancelled":
        return voucher
    check_open(voucher.status)
    return _end(session, voucher, now, "cancelled")


def _end(session: Session, voucher: VoucherRow, now: datetime, status: str, **changes: str) -> VoucherRow:
    this = update(VoucherRow).where(VoucherRow.id == voucher.id)
    session.execute(this.values(status=status, ended_at=now, **changes))
    redemption = select(Redemption.member_id).where(Redemption.id == voucher.redemption_id)
    payload = {"voucher_id": str(voucher.id), "redemption_id": str(voucher.redemption_id), **changes}
    member_id = session.execute(redemption).scalar_one()
    outbox.put(session, [outbox.Event(voucher.program_id, f"voucher.{status}", member_id, payload)], now)
    session.refresh(voucher)
    return voucher


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
