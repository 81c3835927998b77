"""What operations sees: JSON logs with request ids, and metrics. Logs hold no names, keys, bodies or query strings."""

import atexit
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections import deque
from functools import lru_cache

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
from sqlalchemy.exc import DBAPIError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.ids import new_id

REQUESTS = Counter("loyalty_http_requests_total", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram(
    "loyalty_http_request_seconds",
    "Time from request to answer",
    ["method", "route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
PROBLEMS = Counter("loyalty_problems_total", "Refusals, by code", ["code"])

_ITEMS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
BATCH = Histogram("loyalty_gathered_batch_items", "Items in a batch", ["kind"], buckets=_ITEMS[1:])
LEFT = Histogram("loyalty_gathered_left_items", "Items still waiting when a batch begins", ["kind"], buckets=_ITEMS)
WAITED = Histogram(
    "loyalty_gathered_wait_seconds",
    "How long the first of a batch has waited",
    ["kind"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
SET_ASIDE = Counter("loyalty_gathered_set_aside_total", "Items that had to wait for somebody else's lock", ["kind"])

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
"""Methods counted by name. Anybody can send any word: others share one label, so that labels stay few."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class _Lines:
    """Writes lines to standard error: anything graver than `info` at once, after what came before it; the rest from a
    thread of its own, a few times a second, so that no request waits for the log's reader."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._some = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    def info(self, line: str) -> None:
        self._lines.append(line)
        if self._thread is None or not self._thread.is_alive():  # a fork leaves threads behind
            self._thread = threading.Thread(target=self._write, name="log", daemon=True)
            self._thread.start()
        self._some.set()

    debug = info

    def warning(self, line: str) -> None:
        self._lines.append(line)
        self.flush()

    error = critical = exception = warning

    def flush(self) -> None:
        """Writes what has not been written."""
        with self._writing:
            text = "".join(self._lines.popleft() + "\n" for _ in range(len(self._lines)))
            sys.stderr.write(text)  # whatever it is by then
            sys.stderr.flush()

    def _write(self) -> None:
        while self._some.wait():
            self._some.clear()
            self.flush()
            time.sleep(0.05)


LINES = _Lines()
atexit.register(LINES.flush)


def _exceptions(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Where it happened and what kind it was. Database errors quote rows, so of those only the SQLSTATE is logged."""
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else sys.exception() if given else None
    chain = []
    while error is not None:
        place = traceback.extract_tb(error.__traceback__)[-8:]
        words = getattr(error.orig, "sqlstate", "") if isinstance(error, DBAPIError) else str(error)
        frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in place]
        chain.append({"type": type(error).__name__, "message": words, "frames": frames})
        error = error.__cause__ or error.__context__ if not isinstance(error, DBAPIError) else None
    if chain:
        event["exception"] = chain
    return event


def configure_logging(level: str) -> None:
    """One JSON object per line on standard error, ours and the libraries' alike."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _exceptions,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: LINES,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("httpx", "httpx2", "httpcore", "alembic"):
        logging.getLogger(name).setLevel("WARNING")  # at "info" they log whole URLs, or a line per readiness probe
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = name != "uvicorn.access"  # access lines are ours, below


def exposition() -> bytes:
    """All metrics in Prometheus' text format; of all processes when there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types here
    return generate_latest(registry)


_requests = lru_cache(maxsize=1024)(REQUESTS.labels)
_seconds = lru_cache(maxsize=1024)(SECONDS.labels)


class Gathered:
    """Counts what is gathered: once per batch, whatever its size."""

    def __init__(self, kind: str):
        self._batch, self._left, self._waited = (metric.labels(kind) for metric in (BATCH, LEFT, WAITED))
        self._aside = SET_ASIDE.labels(kind)

    def batch(self, items: int, waited: float, left: int) -> None:
        """A batch begins whose first item has waited so many seconds; `left` go on waiting."""
        self._batch.observe(items)
        self._waited.observe(waited)
        self._left.observe(left)

    def set_aside(self) -> None:
        self._aside.inc()


class Observe:
    """ASGI middleware, outermost: gives each request an id, counts it, times it, logs one line."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id().hex
        trace = _TRACEPARENT.fullmatch(headers.get(b"traceparent", b"").decode("latin-1"))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id, **({"trace_id": trace[1]} if trace else {}))
        status = 500
        start = time.perf_counter()

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, stamped)
        finally:
            self._account(scope, status, time.perf_counter() - start)

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "unmatched")
        problem = scope["state"].get("problem")
        _requests(method, route, status).inc()
        _seconds(method, route).observe(seconds)
        if problem:
            PROBLEMS.labels(problem).inc()
        structlog.get_logger().info(
            "request",
            method=method,
            route=route,
            status=status,
            problem=problem,
            milliseconds=round(seconds * 1000, 2),
        )
