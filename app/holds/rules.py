"""How long points are held, and how a hold stands. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from app.errors import Problem
from app.programs import Terms

Status = Literal["open", "captured", "released", "expired"]


class HoldTooLong(Problem):
    """The terms hold points for at most `holds.longest_minutes`. Ask for less, and hold anew if need be."""

    status, code, title, final = 422, "hold_too_long", "Points are not held for so long", True


@dataclass(frozen=True, slots=True)
class HoldState:
    """A hold, as it stands at an instant. `captured` of its points were spent."""

    id: UUID
    member_id: UUID
    points: int
    captured: int
    status: Status
    reference: str | None
    ends_at: datetime
    ended_at: datetime | None
    recorded_at: datetime

    @property
    def facts(self) -> dict[str, Any]:
        """All of it by name, as answers tell it."""
        return {name: getattr(self, name) for name in self.__slots__}

    def at(self, now: datetime) -> "HoldState":
        """The hold at `now`: once its time is up it has ended then, whether or not that is written down."""
        if self.status == "open" and self.ends_at <= now:
            return replace(self, status="expired", ended_at=self.ends_at)
        return self


def ends_at(now: datetime, minutes: int | None, terms: Terms) -> datetime:
    """When a hold that begins `now` ends, by the terms' default if no `minutes` are asked for. HoldTooLong."""
    longest = terms.holds.longest_minutes
    if minutes is not None and minutes > longest:
        raise HoldTooLong(f"at most {longest} minutes", extra={"longest_minutes": longest})
    return now + timedelta(minutes=minutes or terms.holds.default_minutes)
