"""The clock, injected: whoever needs the time is given it, so that a test can choose it."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Answers the current instant, aware, in UTC."""


def system_clock() -> datetime:
    return datetime.now(UTC)
