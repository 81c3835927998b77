"""The service with one endpoint more, which does nothing: what HTTP, middleware and framework cost by themselves."""

import uvicorn
from fastapi import FastAPI

from app.clients import public
from app.config import Settings
from app.edge import StrictRoute
from app.main import Health, from_environment

PATH = "/nothing"


async def nothing() -> Health:
    return Health(status="alive")


def create() -> FastAPI:
    app = from_environment()
    app.router.add_api_route(PATH, nothing, dependencies=[public()], route_class_override=StrictRoute)
    app.router.routes.insert(
        0, app.router.routes.pop()
    )  # found and called at once, as the routes that do something are
    return app


if __name__ == "__main__":
    settings = Settings()
    uvicorn.run(
        "benchmarks.nothing:create",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
    )
