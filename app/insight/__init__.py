"""Insight: reads everything, writes nothing.

The proof recomputes every sum the service keeps from the rows it was made of, and answers what differs.
"""

from app.insight.queries import CHECKS
from app.insight.service import Checked, Difference, Proof, prove

__all__ = ["CHECKS", "Checked", "Difference", "Proof", "prove"]
