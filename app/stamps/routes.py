"""Stamp cards over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter

from app.clients import Caller, needs
from app.edge import READING, Db, Now, StrictRoute
from app.errors import NotFound, answers
from app.stamps import service
from app.stamps.schemas import CardList

router = APIRouter(prefix="/v1/members", tags=["members"], route_class=StrictRoute)


@router.get("/{member_id}/cards", responses=answers(*READING, NotFound), summary="Read a member's stamp cards")
def read_cards(member_id: UUID, caller: Annotated[Caller, needs("members:read")], database: Db, now: Now) -> CardList:
    """The last of each kind, and those that the terms offer and the member has not begun. Stamps count in the order in
    which purchases arrive."""
    return database.read(lambda session: service.cards_of(session, caller.program, member_id, now))
