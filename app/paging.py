"""Pages of long lists: opaque cursors that name the last row seen, so that rows added meanwhile shift nothing."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Request, Response

from app.errors import CursorInvalid

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=500, description="Rows on the page")]
Cursor = Annotated[str | None, Query(max_length=400, description="From the previous page's `next`")]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows of one page, and the cursor of the next, if there is one."""

    rows: list[T]
    next: str | None


def page(rows: Sequence[T], limit: int, position: Callable[[T], Sequence[str | int]]) -> Page[T]:
    """A page of at most `limit` from `rows`, which were asked for with `limit + 1`."""
    if len(rows) <= limit:
        return Page(list(rows), None)
    kept = list(rows[:limit])
    return Page(kept, encode(position(kept[-1])))


def encode(position: Sequence[str | int]) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(position)).encode()).decode().rstrip("=")


def decode(cursor: str, *kinds: Callable[[str], T]) -> list[T]:
    """The position in `cursor`, each part read by its kind (`UUID`, `int`, ...). CursorInvalid for anything else."""
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(parts, list) or len(parts) != len(kinds):
            raise CursorInvalid
        return [kind(str(part)) for kind, part in zip(kinds, parts, strict=True)]
    except (ValueError, binascii.Error, RecursionError, OverflowError):
        raise CursorInvalid from None


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Adds the `Link` header (RFC 8288) to the next page, with the filters of this one."""
    if cursor is not None:
        query = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
        response.headers["Link"] = f'<{request.url.path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'
