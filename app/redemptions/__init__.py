"""Rewards: what points buy.

Owns the catalogue, redemptions and vouchers. An order reserves its points by a hold that nothing but its fulfilment or
cancellation ends, so that cost and revenue follow the handing over. `judge` says whether a member can have a reward
and every reason why not; `options` does so for the catalogue.
"""

from app.redemptions.catalogue import options
from app.redemptions.choices import choice_cursor, choice_page
from app.redemptions.rules import Facts, Had, Judgement, Reward, eligible, judge
from app.redemptions.schemas import ChoicePage

__all__ = [
    "ChoicePage",
    "Facts",
    "Had",
    "Judgement",
    "Reward",
    "choice_cursor",
    "choice_page",
    "eligible",
    "judge",
    "options",
]
