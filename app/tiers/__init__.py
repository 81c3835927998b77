"""Tiers: a standing that members earn over time.

Owns what counts towards tiers (which is never spent), where each member stands, and the history of that. `standing`
answers where a member stood at any date: a pure function of what is on record, the terms and the date. `load` answers
the standings of a batch's members; they follow what is decided (`count`) and are written with it.
`review` writes down what time has changed.
"""

from app.tiers.kept import Coming
from app.tiers.queries import DueReview, due_reviews
from app.tiers.record import Credit, Decision, Record
from app.tiers.schemas import BenefitOut, StandingOut, benefits_out
from app.tiers.service import Effect, Standings, counts, load, outdated, past, records, review, standings
from app.tiers.standing import Standing, standing

__all__ = [
    "BenefitOut",
    "Coming",
    "Credit",
    "Decision",
    "DueReview",
    "Effect",
    "Record",
    "Standing",
    "StandingOut",
    "Standings",
    "benefits_out",
    "counts",
    "due_reviews",
    "load",
    "outdated",
    "past",
    "records",
    "review",
    "standing",
    "standings",
]
