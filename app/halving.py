"""What fails as a whole is done in halves, until what is to blame stands alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import structlog

from app.db import Patience, met_a_lock
from app.errors import Problem

T = TypeVar("T")
Result = TypeVar("Result")


def by_halves(
    things: Sequence[T],
    do: Callable[[Sequence[T], Patience], Result],
    patience: Patience,
    ends: tuple[type[Exception], ...] = (),
) -> Iterator[tuple[Sequence[T], Result | Exception]]:
    """Parts of `things`, in order, and what `do` made of each in one transaction, or why it could not: one thing then,
    or several if the database itself is busy or away, which no smaller part would change.

    Once a part has met somebody else's lock, its halves wait for none: they only find out who is in the way. An error
    of a type in `ends` is raised.
    """
    try:
        result: Result | Exception = do(things, patience)
    except ends:
        raise
    except Exception as error:
        result = error
    if not (isinstance(result, Exception) and len(things) > 1 and _a_part_may_do_better(result)):
        yield things, result
        return
    if not met_a_lock(result):
        structlog.get_logger().warning("a batch failed as a whole and is halved", exc_info=result)
    patience, middle = Patience.NONE if met_a_lock(result) else patience, len(things) // 2
    for half in (things[:middle], things[middle:]):
        yield from by_halves(half, do, patience, ends)


def _a_part_may_do_better(error: Exception) -> bool:
    return met_a_lock(error) or not (isinstance(error, Problem) and error.passing)
