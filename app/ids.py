"""Identifiers, made in the process so that a whole batch of rows can be built before any is written."""

import os
import random
import time
from uuid import UUID

_random = random.Random()  # noqa: S311  # seeded by the system, and not asked again for each id; ids are no secrets
os.register_at_fork(after_in_child=_random.seed)


def new_id() -> UUID:
    """A UUIDv7: 48 bits of milliseconds, 12 bits of their fraction, 62 random bits (RFC 9562, 5.7 and 6.2 method 3).

    Ids of one process sort by creation, to a quarter of a microsecond. They do not tell the order of commits.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = (rest << 12) // 1_000_000
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | _random.getrandbits(62))


def following(id_: UUID, place: int) -> UUID:
    """One of the ids that sort after another and before what is made next, by their `place`, from 0 (RFC 9562, 6.2
    method 2)."""
    random_bits = (id_.int + 1 + place) % (1 << 62)
    return UUID(int=id_.int >> 62 << 62 | random_bits)
