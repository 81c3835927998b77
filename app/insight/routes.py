"""The proof over HTTP."""

from typing import Annotated

from fastapi import APIRouter

from app.clients import Caller, needs
from app.edge import READING, Db
from app.errors import answers
from app.insight.service import prove
from app.wire import Answer

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
