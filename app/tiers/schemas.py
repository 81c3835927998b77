"""The wire of tiers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import RowMapping

from app.paging import page
from app.programs import Benefit, Span, Sums, TierTerms, best_discount
from app.tiers.kept import Why
from app.tiers.record import DecisionKind
from app.tiers.standing import Standing
from app.wire import Answer, Request, Stamp, Text, Token, WireInstant

Reason = Annotated[Token, Field(description="Why, as a short word of yours", examples=["complaint"])]


class DecisionIn(Request):
    """A tier to give (`manual`; `invitation` for one that cannot be earned), or to `lock`: the one the member has.
    It ends at `until`, if not before."""

    kind: DecisionKind
    tier: Token | None = None
    until: WireInstant
    reason: Reason
    note: Annotated[Text, Field(description="For colleagues; no personal data")] | None = None

    @model_validator(mode="after")
    def _names_a_tier(self) -> Self:
        if (self.kind == "lock") == (self.tier is not None):
            raise PydanticCustomError("tier_to_give", "a lock is on the tier there is, anything else names one")
        return self


class EndingIn(Request):
    """Why a decision ends early."""

    reason: Reason


class BenefitOut(Answer):
    """Something a tier or a club is good for, beside points. `discount`: percent, a decimal; `adds_nothing`: that of
    another in the same list is as high or higher, and one holds."""

    code: str
    name: str
    kind: Literal["soft", "hard"]
    discount: str | None
    adds_nothing: bool


class TierOut(Answer):
    """A tier by the terms of now. `earning_multiplier` is a decimal; `expiry`: how long the points are good that its
    members' purchases earn, null: as the programme's."""

    code: str
    name: str
    earning_multiplier: str
    expiry: Span | None
    benefits: list[BenefitOut]


class SumsOut(Answer):
    """What counts: points, minor units of the earning base, purchases, and units of the goods that are counted."""

    points: int
    spend: int
    visits: int
    units: int


class MissingOut(Answer):
    """What is still to be counted, by measure: any one of them, or all. Null: nothing is asked of it, or missing."""

    need: Literal["any", "all"]
    points: int | None = None
    spend: int | None = None
    visits: int | None = None
    units: int | None = None


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


class DecisionOut(Answer):
    """What staff decided of a member's tier, and how it ended if it did before `until`. `tier` is null for a lock on
    having none."""

    id: UUID
    member_id: UUID
    kind: DecisionKind
    tier: str | None
    reason: str
    note: str | None
    decided_by: str
    decided_at: Stamp
    until: Stamp
    ended_by: str | None
    ended_at: Stamp | None
    ended_reason: str | None


class DecidedOut(DecisionOut):
    """And what it did to the tier: `before` and `after` it."""

    before: str | None
    after: str | None


class DecisionPage(Answer):
    """The latest first."""

    items: list[DecisionOut]
    next: str | None


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
    return SumsOut(points=sums.points, spend=sums.spend, visits=sums.visits, units=sums.units)


def _tier(tiers: TierTerms | None, code: str | None) -> TierOut | None:
    tier = None if tiers is None else tiers.tier(code)
    if tier is None:
        return None
    benefits = benefits_out(tier.benefits)
    return TierOut(
        code=tier.code,
        name=tier.name,
        earning_multiplier=tier.earning_multiplier,
        expiry=tier.expiry,
        benefits=benefits,
    )


def benefits_out(benefits: Sequence[Benefit]) -> list[BenefitOut]:
    """What somebody is entitled to; of its discounts one holds."""
    best = best_discount(benefits)
    return [
        BenefitOut(
            code=benefit.code,
            name=benefit.name,
            kind=benefit.kind,
            discount=benefit.discount,
            adds_nothing=benefit.discount is not None and benefit is not best,
        )
        for benefit in benefits
    ]


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


def decided_out(row: Mapping[str, Any], before: str | None, after: str | None) -> DecidedOut:
    return DecidedOut(**_facts(row), before=before, after=after)


def decision_page(rows: Sequence[RowMapping], limit: int) -> DecisionPage:
    found = page(rows, limit, lambda row: [str(row["id"])])
    return DecisionPage(items=[DecisionOut(**_facts(row)) for row in found.rows], next=found.next)


def _facts(row: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
    persons = {"decided_by": row["decided_person"], "ended_by": row["ended_person"]}
    return {name: row[name] for name in DecisionOut.model_fields.keys() - persons.keys()} | persons
