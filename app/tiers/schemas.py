"""The wire of tiers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import RowMapping

from app.paging import page
from app.programs import Sums, TierTerms
from app.tiers.kept import Why
from app.tiers.standing import Standing
from app.wire import Answer, Stamp


class BenefitOut(Answer):
    """Something a tier is good for, beside points."""

    code: str
    name: str
    kind: Literal["soft", "hard"]


class TierOut(Answer):
    """A tier by the terms of now. `earning_multiplier` is a decimal."""

    code: str
    name: str
    earning_multiplier: str
    benefits: list[BenefitOut]


class SumsOut(Answer):
    """What counts: points, minor units of the earning base, and purchases."""

    points: int
    spend: int
    visits: int


class MissingOut(Answer):
    """What is still to be counted, by measure: any one of them, or all. Null: nothing is asked of it, or missing."""

    need: Literal["any", "all"]
    points: int | None = None
    spend: int | None = None
    visits: int | None = None


class NextTierOut(Answer):
    """The next tier that can be reached, and what is missing for it in the window."""

    code: str
    name: str
    missing: MissingOut


class WindowOut(Answer):
    """From when to when purchases count together; `ends` is null for a window that moves along with time."""

    begins: Stamp
    ends: Stamp | None


class StandingOut(Answer):
    """Where a member stands at `at`. Null `tier`: in none. `until`: when that changes if nothing more is bought, into
    `projected`, which is lower if it `falls`; `keep`: what is missing not to. `decided`: staff gave or locked it."""

    member_id: UUID
    at: Stamp
    tier: TierOut | None
    since: Stamp | None
    until: Stamp | None
    projected: str | None
    falls: bool
    decided: bool
    window: WindowOut | None
    counted: SumsOut
    keep: MissingOut | None
    next: NextTierOut | None


class TierChangeOut(Answer):
    """A change of tier: what was known to stand before and from `changed_at` on, and why. `document_id`: the
    transaction, claim or decision that caused it."""

    id: UUID
    from_tier: str | None
    to_tier: str | None
    why: Why
    document_id: UUID | None
    changed_at: Stamp
    recorded_at: Stamp


class TierChangePage(Answer):
    """The latest first."""

    items: list[TierChangeOut]
    next: str | None


def standing_out(member_id: UUID, stands: Standing, tiers: TierTerms | None, at: datetime) -> StandingOut:
    window = None if stands.begins is None else WindowOut(begins=stands.begins, ends=stands.ends)
    return StandingOut(
        member_id=member_id,
        at=at,
        tier=_tier(tiers, stands.tier),
        since=stands.since,
        until=stands.until,
        projected=stands.projected,
        falls=stands.falls,
        decided=stands.decided,
        window=window,
        counted=sums_out(stands.counted),
        keep=_missing(tiers, stands.tier, stands.keep) if stands.keep else None,
        next=_next(tiers, stands),
    )


def sums_out(sums: Sums) -> SumsOut:
    return SumsOut(points=sums.points, spend=sums.spend, visits=sums.visits)


def _tier(tiers: TierTerms | None, code: str | None) -> TierOut | None:
    tier = None if tiers is None else tiers.tier(code)
    return None if tier is None else TierOut.model_validate(tier)


def _next(tiers: TierTerms | None, stands: Standing) -> NextTierOut | None:
    tier = None if tiers is None else tiers.tier(stands.next)
    if tier is None:
        return None
    return NextTierOut(code=tier.code, name=tier.name, missing=_missing(tiers, tier.code, stands.missing))


def _missing(tiers: TierTerms | None, code: str | None, missing: Mapping[str, int]) -> MissingOut:
    tier = None if tiers is None else tiers.tier(code)
    need = tier.qualification.need if tier is not None and tier.qualification is not None else "any"
    return MissingOut(need=need, **missing)


def change_page(rows: Sequence[RowMapping], limit: int) -> TierChangePage:
    found = page(rows, limit, lambda row: [str(row["id"])])
    return TierChangePage(items=[TierChangeOut(**_told(row)) for row in found.rows], next=found.next)


def _told(row: RowMapping) -> dict[str, Any]:
    return {name: row[name] for name in TierChangeOut.model_fields}
