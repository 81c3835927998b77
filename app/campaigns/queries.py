"""What campaigns gave, to read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import members, programs
from app.campaigns.models import CampaignBudget, CampaignGrant
from app.campaigns.rules import latest
from app.programs import Campaign, Version


@dataclass(frozen=True, slots=True)
class Granted:
    """What a member was given, with the campaign as it was then."""

    grant: CampaignGrant
    campaign: Campaign
    version: int


def granted(session: Session, program_id: UUID, member_id: UUID, after: UUID | None, limit: int) -> list[Granted]:
    """What a member was given, oldest first, from the one after `after`. NotFound if the programme has no such one."""
    members.read(session, program_id, member_id)
    rows = select(CampaignGrant).where(CampaignGrant.member_id == member_id)
    if after is not None:
        rows = rows.where(CampaignGrant.id > after)
    versions = {version.id: version for version in programs.timeline(session, program_id).versions}
    found = session.scalars(rows.order_by(CampaignGrant.id).limit(limit))
    return [_granted(grant, versions[grant.terms_id]) for grant in found]


def _granted(grant: CampaignGrant, version: Version) -> Granted:
    campaign = next(each for each in version.terms.campaigns if each.code == grant.campaign)
    return Granted(grant, campaign, version.number)


@dataclass(frozen=True, slots=True)
class Summary:
    """A campaign, whether the terms in force have it, and how many points it gave in how many grants."""

    campaign: Campaign
    in_force: bool
    points: int
    grants: int


def summaries(session: Session, program_id: UUID, now: datetime) -> Sequence[Summary]:
    """The campaigns of all terms that have taken effect, by code."""
    rows = select(CampaignBudget).where(CampaignBudget.program_id == program_id)
    given = {row.campaign: (row.points, row.grants) for row in session.scalars(rows)}
    known = latest(programs.timeline(session, program_id), now)
    return [
        Summary(campaign, in_force, *given.get(code, (0, 0))) for code, (campaign, in_force) in sorted(known.items())
    ]
