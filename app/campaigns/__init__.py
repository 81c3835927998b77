"""Campaigns: points that members are given without a purchase.

Owns what was given, to whom and on which occasion, and how much of each campaign's budget that has used up. What a
campaign is, the terms say (`programs.Campaign`). `rounds` says whose turn it is by a run's instant, `members_of`
answers them a slice at a time, and `give` gives them what is due: each occasion once, whoever runs how often.
"""

from app.campaigns.rules import Bought, Round, rounds
from app.campaigns.service import Purchases, give, members_of

__all__ = ["Bought", "Purchases", "Round", "give", "members_of", "rounds"]
