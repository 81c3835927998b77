"""Rewards: what points buy.

Owns the catalogue, redemptions and vouchers. An order reserves its points by a hold that nothing but its fulfilment or
cancellation ends, so that cost and revenue follow the handing over. `judge` says whether a member can have a reward
and every reason why not; `options` does so for the catalogue. `add_reward`, `change_reward` and `retire_reward` change
that.
"""

from app.redemptions.catalogue import add as add_reward
from app.redemptions.catalogue import change as change_reward
from app.redemptions.catalogue import every as every_reward
from app.redemptions.catalogue import options
from app.redemptions.catalogue import retire as retire_reward
from app.redemptions.choices import choice_cursor, choice_page
from app.redemptions.models import RewardRow
from app.redemptions.rules import Facts, Had, Judgement, Reward, eligible, judge
from app.redemptions.schemas import ChoicePage, RewardChange, RewardIn

__all__ = [
    "ChoicePage",
    "Facts",
    "Had",
    "Judgement",
    "Reward",
    "RewardChange",
    "RewardIn",
    "RewardRow",
    "add_reward",
    "change_reward",
    "choice_cursor",
    "choice_page",
    "eligible",
    "every_reward",
    "judge",
    "options",
    "retire_reward",
]
