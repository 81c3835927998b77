"""Tiers: a standing that members earn over time.

Owns what counts towards tiers (which is never spent), where each member stands, and the history of that. `standing`
answers where a member stood at any date: a pure function of what is on record, the terms and the date.
"""

from app.tiers.record import Credit, Decision, Record
from app.tiers.standing import Standing, standing

__all__ = ["Credit", "Decision", "Record", "Standing", "standing"]
