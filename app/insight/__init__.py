"""Insight: reads everything, writes nothing.

The proof recomputes every sum the service keeps from the rows it was made of, and answers what differs. A replay says
what other terms would have given for the purchases of the past, and how members' tiers would have moved.
"""

from app.insight.checks import CHECKS
from app.insight.moves import Moves
from app.insight.replaying import Period, PeriodInvalid, count_members, period, replay
from app.insight.rules import Compared, Figures, Given, Totals
from app.insight.service import Checked, Difference, Proof, prove

__all__ = [
    "CHECKS",
    "Checked",
    "Compared",
    "Difference",
    "Figures",
    "Given",
    "Moves",
    "Period",
    "PeriodInvalid",
    "Proof",
    "Totals",
    "count_members",
    "period",
    "prove",
    "replay",
]
