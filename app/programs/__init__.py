"""Programmes: what a programme promises.

Owns programmes and the versions of their terms. A version is drafted, changed while it is a draft, and published; a
published one never changes. `timeline` answers the published versions; `Timeline.at` the one in force at an instant.
The rules are pure. Of a basket: `earn` says what it earns and why, `explain` what became of each rule,
`tender_of` what it pays with points, `kept` what is
left of it all after returns. Of the calendar: `available_from` says from when points are good, `expires_at` (or
`lapses_at`, where inactivity decides) until when, `switched_on` what becomes of those from before there was any expiry.
A `Gift` is given by `give`, what it puts aside is `provided`.
`adopt_expiry` and `warn_of_expiry` do that to accounts; `claim` and `look` answer accounts to which it has happened.
"""

from app.programs.basket import Basket, Line, Tender
from app.programs.calendar import (
    Timeline,
    Version,
    available_from,
    cancels_at,
    day_end,
    day_start,
    end_adopted,
    expires_at,
    lapses,
    lapses_after,
    lapses_at,
    local_month,
    month_begins,
    switched_on,
    warnings_before,
)
from app.programs.campaigns import Anniversary, Birthday, Campaign, Referral, SignUp, WinBack
from app.programs.conditions import Customer, Occasion
from app.programs.days import add_months, date_in, day_begins
from app.programs.expiry import adopt_expiry, claim, ended, look, members_to_adopt, points_to_warn_of, warn_of_expiry
from app.programs.gifts import Gift, give, keeping, provided
from app.programs.limits import Key as UseKey
from app.programs.limits import Uses, keys_of, uses
from app.programs.models import Program
from app.programs.rules import (
    Earning,
    Explained,
    Kept,
    PointsTender,
    Reason,
    cash_part,
    check_basket,
    check_points_tender,
    consideration,
    earn,
    explain,
    kept,
    net_paid_with_points,
    stand_alone_prices,
    tax_of,
    tender_of,
)
from app.programs.schemas import EXAMPLE_TERMS, InactivityExpiry, PendingEvent, Terms
from app.programs.service import (
    NoTerms,
    create_program,
    draft_terms,
    drafts,
    every_program,
    find_program,
    lock,
    publish_terms,
    rename_program,
    terms_at,
    terms_of,
    timeline,
    zone_at,
)
from app.programs.stamps import STAMPS, StampCard
from app.programs.tiers import MEASURES, Rolling, SinceLastChange, Sums, Tier, TierTerms

__all__ = [
    "EXAMPLE_TERMS",
    "MEASURES",
    "STAMPS",
    "Anniversary",
    "Basket",
    "Birthday",
    "Campaign",
    "Customer",
    "Earning",
    "Explained",
    "Gift",
    "InactivityExpiry",
    "Kept",
    "Line",
    "NoTerms",
    "Occasion",
    "PendingEvent",
    "PointsTender",
    "Program",
    "Reason",
    "Referral",
    "Rolling",
    "SignUp",
    "SinceLastChange",
    "StampCard",
    "Sums",
    "Tender",
    "Terms",
    "Tier",
    "TierTerms",
    "Timeline",
    "UseKey",
    "Uses",
    "Version",
    "WinBack",
    "add_months",
    "adopt_expiry",
    "available_from",
    "cancels_at",
    "cash_part",
    "check_basket",
    "check_points_tender",
    "claim",
    "consideration",
    "create_program",
    "date_in",
    "day_begins",
    "day_end",
    "day_start",
    "draft_terms",
    "drafts",
    "earn",
    "end_adopted",
    "ended",
    "every_program",
    "expires_at",
    "explain",
    "find_program",
    "give",
    "keeping",
    "kept",
    "keys_of",
    "lapses",
    "lapses_after",
    "lapses_at",
    "local_month",
    "lock",
    "look",
    "members_to_adopt",
    "month_begins",
    "net_paid_with_points",
    "points_to_warn_of",
    "provided",
    "publish_terms",
    "rename_program",
    "stand_alone_prices",
    "switched_on",
    "tax_of",
    "tender_of",
    "terms_at",
    "terms_of",
    "timeline",
    "uses",
    "warn_of_expiry",
    "warnings_before",
    "zone_at",
]
