"""The catalogue: add, change and retire rewards; which of them a member can have."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from app import db, members, programs, tiers
from app.errors import InvalidRequest, NotFound, PreconditionFailed, Problem, finding
from app.ids import new_id
from app.members import GATES
from app.programs import NoTerms, Timeline
from app.redemptions.models import Redemption, RewardRow
from app.redemptions.rules import Facts, Had, Judgement, Reward, RewardRetired, eligible, months_of
from app.redemptions.schemas import Offer, RewardChange, RewardIn, RewardRef


class RewardExists(Problem):
    """Another reward of the programme has, or had, this code. Choose a different one."""

    status, code, title, final = 409, "reward_exists", "The reward's code is taken", True


class SupplyTooSmall(Problem):
    """More pieces have been ordered than the new `supply`; `taken` says how many."""

    status, code, title, final = 409, "supply_too_small", "More pieces have been ordered", True


class UnknownReward(Problem):
    """The programme has no reward with this code or id."""

    status, code, title, final = 422, "unknown_reward", "There is no such reward", True


def add(session: Session, program_id: UUID, body: RewardIn, now: datetime) -> RewardRow:
    """A new reward. RewardExists if its code is taken; InvalidRequest for a currency or tiers the terms do not have."""
    _check(body, programs.timeline(session, program_id), now)
    row = {
        "id": new_id(),
        "program_id": program_id,
        "code": body.code,
        "offer": _offer_in(body),
        "currency": body.currency,
        "supply": body.supply,
        "taken": 0,
        "revision": 1,
        "created_at": now,
        "retired_at": None,
    }
    if not db.claim_rows(session, RewardRow, [row], ["id"]):
        raise RewardExists
    return RewardRow(**row)


def change(
    session: Session, program_id: UUID, reward_id: UUID, revision: int, body: RewardChange, now: datetime
) -> RewardRow:
    """Replaces a reward that is still at `revision`, else PreconditionFailed. Orders keep what they were promised.

    RewardRetired; SupplyTooSmall below what was ordered; InvalidRequest as for a new one.
    """
    row = _lock(session, program_id, reward_id)
    if row.revision != revision:
        raise PreconditionFailed
    if row.retired_at is not None:
        raise RewardRetired
    _check(body, programs.timeline(session, program_id), now)
    if body.supply is not None and body.supply < row.taken:
        raise SupplyTooSmall(extra={"taken": row.taken})
    row.offer, row.currency, row.supply = _offer_in(body), body.currency, body.supply
    row.revision += 1
    session.flush()
    return row


def retire(session: Session, program_id: UUID, reward_id: UUID, now: datetime) -> RewardRow:
    """Ends a reward for good; open orders stay. Retiring it again changes nothing."""
    row = _lock(session, program_id, reward_id)
    if row.retired_at is None:
        row.retired_at, row.revision = now, row.revision + 1
        session.flush()
    return row


def find(session: Session, program_id: UUID, reward_id: UUID) -> RewardRow:
    """One reward. NotFound if the programme has none such."""
    found = session.get(RewardRow, reward_id)
    if found is None or found.program_id != program_id:
        raise NotFound
    return found


def find_each(session: Session, reward_ids: Collection[UUID]) -> dict[UUID, RewardRow]:
    """Some rewards that there are."""
    chosen = db.any_of(session, RewardRow.id.expression, sorted(reward_ids))
    return {row.id: row for row in session.scalars(select(RewardRow).where(chosen))}


def named_each(session: Session, program_id: UUID, references: Sequence[RewardRef]) -> list[RewardRow | Problem]:
    """The reward each reference names; UnknownReward where the programme has none such."""
    codes = sorted({reference.code for reference in references if reference.code is not None})
    ids = sorted({reference.id for reference in references if reference.id is not None})
    this = db.any_of(session, RewardRow.code.expression, codes) | db.any_of(session, RewardRow.id.expression, ids)
    found: dict[UUID | str | None, RewardRow] = {}
    for row in session.scalars(select(RewardRow).where(RewardRow.program_id == program_id, this)):
        found[row.id] = found[row.code] = row
    return [found.get(each.id if each.code is None else each.code) or _unknown() for each in references]


def _unknown() -> Problem:
    return UnknownReward(findings=[finding(("reward",), "unknown", "the programme has no such reward")])


def rewards(
    session: Session, program_id: UUID, after: UUID | None, limit: int, *, retired: bool = False
) -> Sequence[RewardRow]:
    """Rewards in the order they were added, from the one after `after`; those in force, or the `retired` ones."""
    kind = RewardRow.retired_at.is_not(None) if retired else RewardRow.retired_at.is_(None)
    rows = select(RewardRow).where(RewardRow.program_id == program_id, kind)
    if after is not None:
        rows = rows.where(RewardRow.id > after)
    return session.scalars(rows.order_by(RewardRow.id).limit(limit)).all()


def every(session: Session, program_id: UUID) -> Sequence[RewardRow]:
    """All rewards there ever were, in the order they were added."""
    mine = select(RewardRow).where(RewardRow.program_id == program_id)
    return session.scalars(mine.order_by(RewardRow.id)).all()


def reward_of(row: RewardRow) -> Reward:
    """A stored reward as the rules want it."""
    left = None if row.supply is None else row.supply - row.taken
    offer = Offer.model_validate(row.offer)
    return Reward(row.id, row.code, row.currency, offer, left, row.retired_at is not None)


def _offer_in(body: RewardChange) -> dict[str, object]:
    return body.model_dump(mode="json", include=set(Offer.model_fields))


def _check(body: RewardChange, terms: Timeline, now: datetime) -> None:
    """NoTerms; InvalidRequest. A reward may be for tiers of terms that are published and not in force yet."""
    version = terms.at(now)
    if version is None:
        raise NoTerms
    if body.currency != version.terms.currency:
        detail = f"the programme's terms are in {version.terms.currency}"
        raise InvalidRequest(findings=[finding(("currency",), "not_the_programmes", detail)])
    schemes = (each.terms.tiers for each in (version, *terms.after(now)))
    known = {code for scheme in schemes if scheme is not None for code in scheme.codes}
    if unknown := [place for place, code in enumerate(body.tiers) if code not in known]:
        detail = "the programme's terms have no such tier"
        raise InvalidRequest(findings=[finding(("tiers", place), "unknown_tier", detail) for place in unknown])


def _lock(session: Session, program_id: UUID, reward_id: UUID) -> RewardRow:
    locked = select(RewardRow).where(RewardRow.id == reward_id).with_for_update(key_share=True)
    row = session.scalars(locked.execution_options(populate_existing=True)).one_or_none()
    if row is None or row.program_id != program_id:
        raise NotFound
    return row


# --- supply ---------------------------------------------------------------------------------------------------------


_PIECES = (("id", RewardRow.id.type), ("pieces", RewardRow.taken.type))


def take(session: Session, pieces: Mapping[UUID, int]) -> UUID | None:
    """Takes so many pieces of each reward from its supply; the first one by id of which too few are left, if any.

    One conditional statement, the last before the commit: orders of one reward wait for each other that long only.
    """
    return min(pieces.keys() - _count(session, pieces), default=None)


def left(session: Session, reward_id: UUID) -> int:
    """How many pieces of a limited supply are left now."""
    remaining = select(RewardRow.supply - RewardRow.taken).where(RewardRow.id == reward_id)
    return session.execute(remaining).scalar_one() or 0


def give_back(session: Session, pieces: Mapping[UUID, int]) -> None:
    """Returns the pieces of cancelled orders to their supplies."""
    _count(session, {reward_id: -quantity for reward_id, quantity in pieces.items()})


def _count(session: Session, pieces: Mapping[UUID, int]) -> set[UUID]:
    """Adds to what is taken of each reward where its supply has so many; answers where it had.

    The rows are locked in the order of their ids, so that two batches wait for each other in one order only.
    """
    if not pieces:
        return set()
    given, reward = db.given(session.get_bind().dialect.name, _PIECES), RewardRow
    mine = reward.id.in_(select(given.c.id))
    locked = select(reward.id).where(mine).order_by(reward.id).with_for_update(key_share=True).cte("locked")
    enough = reward.supply.is_(None) | (reward.taken + given.c.pieces <= reward.supply)
    counted = update(reward).values(taken=reward.taken + given.c.pieces).returning(reward.id)
    counted = counted.where(reward.id == given.c.id, reward.id.in_(select(locked.c.id)), enough)
    values = db.rows_of(session, _PIECES, list(pieces.items()))
    return set(session.scalars(counted.execution_options(synchronize_session=False), values))


# --- members --------------------------------------------------------------------------------------------------------


def had(
    session: Session, member_ids: Iterable[UUID], reward_ids: Iterable[UUID], month_began: datetime
) -> dict[UUID, dict[UUID, Had]]:
    """By member, the pieces of each reward that they have ordered and not cancelled, ever and since the month began."""
    this_month = func.sum(case((Redemption.ordered_at >= month_began, Redemption.quantity), else_=0))
    rows = session.execute(
        select(Redemption.member_id, Redemption.reward_id, func.sum(Redemption.quantity), this_month)
        .where(
            db.any_of(session, Redemption.member_id.expression, sorted(set(member_ids))),
            Redemption.status != "cancelled",
            db.any_of(session, Redemption.reward_id.expression, sorted(set(reward_ids))),
        )
        .group_by(Redemption.member_id, Redemption.reward_id)
    )
    found: dict[UUID, dict[UUID, Had]] = defaultdict(dict)
    for member_id, reward_id, in_all, month in rows:
        found[member_id][reward_id] = Had(int(in_all), int(month))
    return found


def options(
    session: Session, program_id: UUID, member_id: UUID, now: datetime, after: UUID | None, limit: int
) -> list[Judgement]:
    """The rewards in force from the one after `after`, at most `limit`: which the member can have, and why not others.

    NotFound if the programme has no such member.
    """
    if not members.find(session, program_id, [members.Identifier("id", str(member_id))]):
        raise NotFound
    found = [reward_of(row) for row in rewards(session, program_id, after, limit)]
    zone = programs.terms_at(session, program_id, now).zone
    available = programs.look(session, program_id, [member_id], now)[member_id].available
    may_spend = GATES[members.statuses(session, [member_id])[member_id]].spend
    pieces = had(session, [member_id], [reward.id for reward in found], months_of(now, zone)[0])
    tier = tiers_of(session, program_id, [member_id], found, now).get(member_id)
    return eligible(found, Facts(may_spend, available, pieces[member_id], tier), now, zone)


def tiers_of(
    session: Session, program_id: UUID, member_ids: Collection[UUID], wanted: Iterable[Reward], now: datetime
) -> dict[UUID, str | None]:
    """The tiers of members; nothing is read if none of the rewards asks for any."""
    if not any(reward.offer.tiers for reward in wanted):
        return {}
    ids = sorted(member_ids)
    standings = zip(ids, tiers.standings(session, program_id, ids, now), strict=True)
    return {
        id_: None if each.tier is None else each.tier.code for id_, each in standings if not isinstance(each, Problem)
    }
