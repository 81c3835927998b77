"""Adjustments: what people of staff change of a member's points, and who approved it.

Owns what was asked for, by whom, and how it ended. Points without a purchase, points for an order that failed,
corrections, debt that is forgiven, lots that live longer or again: each has a class, which says what pays for it. Above
the terms' limit a second person approves, and nobody adjusts their own account.
"""

from app.adjustments.rules import AdjustmentClass, Asked
from app.adjustments.service import Adjusted, Wanted, adjust, approve, reject, request

__all__ = ["Adjusted", "AdjustmentClass", "Asked", "Wanted", "adjust", "approve", "reject", "request"]
