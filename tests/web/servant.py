"""Programs for ``test_server`` and ``test_raw_requests``: the real server, in a world of fakes."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from archiver.access.access import Access
from archiver.access.policy import Policy
from archiver.runtime.tasks import in_background
from archiver.telemetry import LogFormat, set_up_logging
from archiver.web.address_claim import fleet_identity
from archiver.web.app import Services, create_app
from archiver.web.connection_guard import ConnectionGuard, connection_share
from archiver.web.server import on_stop, serve
from tests.memory_world import World
from tests.web.client import CONFIG, open_access

EXCEPTION_TEXT = "swordfish"


def fakes() -> ASGIApp:
    """Return the application with a route ``/fakes``, which lists the effects of the requests."""
    set_up_logging(LogFormat.JSON, level="info", process="web")
    world = World()

    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        yield world.archiver, world.operations

    async def effects(_request: Request) -> Response:
        tasks = [task.archive.task_id for task in world.engine.tasks.values()]
        return JSONResponse({"tasks": tasks, "asked": world.source.asked, "node": world.node})

    app = create_app(
        open_services=open_services, config=CONFIG, access=open_access(world), on_stop=on_stop
    )
    fakes_router = Router([Route("/fakes", effects)])

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        to_fakes = scope["type"] == "http" and scope["path"] == "/fakes"
        await (fakes_router if to_fakes else app)(scope, receive, send)

    return both


def guarded() -> ASGIApp:
    """Return the application; its clients may have as many connections as the last word says."""
    set_up_logging(LogFormat.JSON, level="info", process="web")
    world = World()
    guard = ConnectionGuard(
        port=int(sys.argv[2].rpartition(":")[2]),
        limit=connection_share(int(sys.argv[4])),
        clients=CONFIG.clients,
    )

    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        async with in_background(guard.watch()):
            yield world.archiver, world.operations

    config = replace(CONFIG, wait_limits=replace(CONFIG.wait_limits, hold_s=2))
    return create_app(
        open_services=open_services, config=config, access=open_access(world), on_stop=on_stop
    )


def broken() -> ASGIApp:
    set_up_logging(LogFormat.JSON, level="info", process="web")

    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        raise ValueError(EXCEPTION_TEXT)
        yield  # makes it a generator

    return create_app(open_services=open_services, config=CONFIG, access=Access(Policy(sources={})))


if __name__ == "__main__":
    app, listen, processes, *_ = [*sys.argv[1:], "1"]
    fleet = fleet_identity((), {})
    serve(f"tests.web.servant:{app}", listen=listen, fleet=fleet, processes=int(processes))
