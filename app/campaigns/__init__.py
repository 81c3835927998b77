"""Campaigns: points that members are given without a purchase.

Owns what was given, to whom and on which occasion, and how much of each campaign's budget that has used up. What a
campaign is, the terms say (`programs.Campaign`). `rounds` says whose turn it is by a run's instant, `members_of`
answers them a slice at a time, and `give` gives them what is due: each occasion once, whoever runs how often. `report`
records what partners and apps report of members, and gives what that is worth at once. `granted` answers what a member
was given.
"""

from app.campaigns.queries import granted
from app.campaigns.rules import Bought, Round, rounds
from app.campaigns.schemas import BonusPage, bonus_cursor, bonus_page
from app.campaigns.service import Purchases, give, members_of

__all__ = [
    "BonusPage",
    "Bought",
    "Purchases",
    "Round",
    "bonus_cursor",
    "bonus_page",
    "give",
    "granted",
    "members_of",
    "rounds",
]
