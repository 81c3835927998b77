"""Programmes: what a programme promises.

Owns programmes and the versions of their terms. A version is drafted, changed while it is a draft, and published; a
published one never changes. `timeline` answers the published versions; `Timeline.at` the one in force at an instant.
The rules are pure: `earn` says what a basket earns and why, `expires_at` until when.
"""

from app.programs.models import Program
from app.programs.rules import (
    Basket,
    Earning,
    Line,
    Reason,
    Tender,
    check_basket,
    consideration,
    earn,
    expires_at,
    local_month,
    stand_alone_prices,
    tax_of,
)
from app.programs.schemas import EXAMPLE_TERMS, Terms
from app.programs.service import (
    NoTerms,
    Timeline,
    Version,
    create_program,
    draft_terms,
    find_program,
    publish_terms,
    timeline,
)

__all__ = [
    "EXAMPLE_TERMS",
    "Basket",
    "Earning",
    "Line",
    "NoTerms",
    "Program",
    "Reason",
    "Tender",
    "Terms",
    "Timeline",
    "Version",
    "check_basket",
    "consideration",
    "create_program",
    "draft_terms",
    "earn",
    "expires_at",
    "find_program",
    "local_month",
    "publish_terms",
    "stand_alone_prices",
    "tax_of",
    "timeline",
]
