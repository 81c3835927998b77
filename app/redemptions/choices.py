"""Which rewards a member can have, and why not the others, as a page: for partners and for the member."""

from collections.abc import Sequence
from uuid import UUID

from app.errors import ProblemBody
from app.paging import decode, page
from app.redemptions.rules import Judgement
from app.redemptions.schemas import ChoiceOut, ChoicePage


def choice_page(judged: Sequence[Judgement], limit: int) -> ChoicePage:
    """A page of `judged`, which were asked for with `limit + 1`."""
    found = page(judged, limit, lambda judgement: [str(judgement.reward.id)])
    return ChoicePage(items=[_choice(judgement) for judgement in found.rows], next=found.next)


def choice_cursor(cursor: str | None) -> UUID | None:
    """The id of the reward a page begins after. CursorInvalid if it is not one of ours."""
    return None if cursor is None else decode(cursor, UUID)[0]


def _choice(judgement: Judgement) -> ChoiceOut:
    reward = judgement.reward
    return ChoiceOut(
        id=reward.id,
        code=reward.code,
        name=reward.offer.name,
        points=judgement.points,
        item=reward.offer.item,
        currency=reward.currency,
        possible=not judgement.refusals,
        refusals=[ProblemBody(**refusal.body()) for refusal in judgement.refusals],
    )
