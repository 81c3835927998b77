"""What a file says of a programme: the same values as the API takes, in one document."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.programs import Terms
from app.programs.schemas import ProgramIn
from app.redemptions.schemas import RewardIn
from app.wire import Request


class Blueprint(Request):
    """A programme, its terms, and the rewards that are offered."""

    program: ProgramIn
    terms: Terms
    rewards: Annotated[list[RewardIn], Field(max_length=1000)] = []

    @model_validator(mode="after")
    def _rewards_belong(self) -> Self:
        codes = [reward.code for reward in self.rewards]
        if len(set(codes)) < len(codes):
            raise PydanticCustomError("reward_code_twice", "two rewards have the same code")
        if foreign := [reward.code for reward in self.rewards if reward.currency != self.terms.currency]:
            raise PydanticCustomError("not_the_programmes", f"reward {foreign[0]} is not in the currency of the terms")
        known = self.terms.tiers.codes if self.terms.tiers is not None else ()
        if unknown := [code for reward in self.rewards for code in reward.tiers if code not in known]:
            raise PydanticCustomError("unknown_tier", f"a reward is for the tier {unknown[0]}, which there is not")
        return self

    def document(self) -> dict[str, Any]:
        """As a file has it: what goes without saying is left out."""
        said: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        for reward, each in zip(said.get("rewards", []), self.rewards, strict=True):
            if "supplier" in reward:  # of which kind it is says how the rest is read
                reward["supplier"]["type"] = each.supplier.type
        return said
