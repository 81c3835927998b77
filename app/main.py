"""Assembles the application."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Annotated

from fastapi import APIRouter, FastAPI, Path, Response
from fastapi.routing import APIRoute
from sqlalchemy import text
from starlette.routing import BaseRoute

from app import __version__, schema, telemetry
from app.accounting.routes import router as accounting_router
from app.adjustments.routes import router as adjustments_router
from app.campaigns.routes import router as campaigns_router
from app.clients import KnownKeys, check_routes, public
from app.clock import Clock, system_clock
from app.clubs.routes import router as clubs_router
from app.coalesce import Gatherer, Reader
from app.config import Settings
from app.db import Database
from app.direct import Direct
from app.edge import Db, Edge, answer_problem, handle_problems
from app.errors import Busy, InvalidRequest, NotFound, answers, every_problem
from app.garbage import collect_rarely
from app.holds.routes import router as holds_router
from app.idempotency import Writer
from app.insight.routes import router as insight_router
from app.members.routes import router as members_router
from app.programs.routes import router as programs_router
from app.redemptions.routes import router as redemptions_router
from app.stamps.routes import router as stamps_router
from app.telemetry import Observe
from app.tiers.routes import router as tiers_router
from app.transactions.routes import referrals as referrals_router
from app.transactions.routes import router as transactions_router
from app.transfers.routes import router as transfers_router
from app.wallet.routes import partners as statements_router
from app.wallet.routes import router as wallet_router
from app.wallet.routes import tokens as tokens_router
from app.wire import Answer

BATCH_BODY_BYTES = 1024 * 1024

DESCRIPTION = """
Members, purchases, points, and the deferred-revenue entries they cause.

* Money is in whole minor units of a currency: 1999 is 19.99 USD. Points are whole.
* A purchase earns once per (`source`, `external_id`, `type`), for ever. Post it again whenever you are not sure.
* `Idempotency-Key` makes any other write safe to repeat for 30 days.
* Every refusal is RFC 9457 `application/problem+json` with a stable `code`; `GET /problems/{code}` explains it.
"""

operations = APIRouter(tags=["operations"])


class Health(Answer):
    status: str


class ProblemHelp(Answer):
    """What a problem code means and what to do about it."""

    code: str
    status: int
    title: str
    help: str


@operations.get("/livez", summary="Is the process alive", dependencies=[public()])
def livez() -> Health:
    return Health(status="alive")


@operations.get("/readyz", summary="Can it serve", dependencies=[public()], responses=answers(Busy))
def readyz(database: Db) -> Health:
    """The database answers and has the schema of this version."""
    try:
        database.read(lambda session: session.execute(text("SELECT 1")))
        ready = schema.at_head(database)
    except Exception as error:
        raise Busy("the database does not answer") from error
    if not ready:
        raise Busy("the database needs `loyalty migrate`")
    return Health(status="ready")


@operations.get("/metrics", summary="Prometheus metrics", dependencies=[public()], response_class=Response)
def metrics() -> Response:
    return Response(telemetry.exposition(), media_type="text/plain; version=0.0.4")


@operations.get(
    "/problems/{code}",
    summary="Explain a problem code",
    dependencies=[public()],
    responses=answers(NotFound, InvalidRequest),
)
def explain_problem(code: Annotated[str, Path(pattern="^[a-z_]{1,64}$")]) -> ProblemHelp:
    for problem in every_problem():
        if problem.code == code:
            return ProblemHelp(code=code, status=problem.status, title=problem.title, help=problem.help())
    raise NotFound


ROUTERS = (
    transactions_router,
    members_router,
    tiers_router,
    clubs_router,
    wallet_router,
    redemptions_router,
    holds_router,
    transfers_router,
    tokens_router,
    adjustments_router,
    stamps_router,
    campaigns_router,
    referrals_router,
    statements_router,
    programs_router,
    accounting_router,
    insight_router,
    operations,
)
"""What is called most comes first: on FastAPI's way a path is compared with one route after the other."""


def _name_of(route: APIRoute) -> str:
    return route.name


@cache
def _routes() -> Sequence[BaseRoute]:
    """The routes of `ROUTERS` as FastAPI prepares them, once in a process: it takes more than a tenth of a second,
    which each application of a test would pay again."""
    app = FastAPI(openapi_url=None, generate_unique_id_function=_name_of)
    for router in ROUTERS:
        app.include_router(router)
    return tuple(app.routes)


def create_app(settings: Settings, clock: Clock = system_clock) -> FastAPI:
    """The service. RuntimeError if a route says neither what scope it needs nor that it is public."""

    writes, reads = (
        Gatherer(
            workers,
            largest=settings.gathered_most,
            waiting=settings.gathered_waiting,
            seconds=settings.gathered_seconds,
            lock_seconds=settings.lock_timeout_ms / 1000,
            kind=kind,
            later=kind == "writes",
        )
        for kind, workers in (("writes", settings.writers), ("reads", settings.readers))
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        writes.close()  # what waits is carried out first
        reads.close()
        app.state.database.close()

    app = FastAPI(
        title="Loyalty points",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # a path has one spelling; many clients drop their key on a redirect
        generate_unique_id_function=_name_of,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours are in `telemetry`
    )
    app.state.database = Database(settings)
    app.state.clock = clock
    app.state.pepper = settings.pepper
    app.state.writer = Writer(app.state.database, clock, writes)
    app.state.reader = Reader(app.state.database, clock, reads)
    app.state.known_keys = KnownKeys(settings.key_seconds)
    app.router.routes.extend(_routes())
    handle_problems(app)
    app.add_middleware(Direct, answer_problem=answer_problem)  # innermost
    app.add_middleware(
        Edge,
        max_concurrency=settings.max_concurrency,
        body_seconds=settings.body_seconds,
        body_bytes={"/v1/transactions/batch": BATCH_BODY_BYTES},
    )
    app.add_middleware(Observe)  # outermost: it sees every answer
    check_routes(app)
    return app


def from_environment() -> FastAPI:
    """The service as the environment configures it; what a server process runs."""
    settings = Settings()
    telemetry.configure_logging(settings.log_level)
    app = create_app(settings)
    tune_process()
    return app


def tune_process() -> None:
    """How a process that serves takes turns and collects garbage, once it has its application."""
    sys.setswitchinterval(0.0005)  # seconds; the event loop gets its turn beside a writer that is busy building rows
    collect_rarely()
