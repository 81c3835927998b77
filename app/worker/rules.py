"""When a job runs as of, and how much it takes at a time. Pure."""

from datetime import UTC, date, datetime, timedelta, tzinfo

from app.programs import day_begins

AIM_SECONDS, AIM_SECONDS_BESIDE_OTHERS = 0.1, 0.3
"""How long a slice should take: where there is one writer, nobody else writes meanwhile. Beside others it is only the
accounts of the slice that wait."""

FIRST_SLICE, LARGEST_SLICE = 50, 1000


class AsOfInvalid(ValueError):
    """Not an instant or a day that a job can run as of."""


def as_of_in(text: str, zone: tzinfo, now: datetime) -> datetime:
    """The business instant that `text` means: an instant with its offset (RFC 3339), or a date, which means the end of
    that day in `zone`. AsOfInvalid for anything else, and for what is still to come."""
    try:
        instant = _instant(text, zone)
    except ValueError:
        raise AsOfInvalid(f"{text} is neither a date nor an instant with its offset") from None
    if instant > now:
        raise AsOfInvalid(f"{text} is not over yet")
    return instant


def _instant(text: str, zone: tzinfo) -> datetime:
    if len(text) == len("2026-11-22"):
        return day_begins(date.fromisoformat(text) + timedelta(days=1), zone)
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError
    return instant.astimezone(UTC)


def next_slice(size: int, seconds: float, aim: float = AIM_SECONDS) -> int:
    """How many to take next, when `size` took so long: half as many after a slow slice, twice as many after a fast."""
    if seconds > aim:
        return max(1, size // 2)
    return min(LARGEST_SLICE, size * 2) if seconds < aim / 3 else size
