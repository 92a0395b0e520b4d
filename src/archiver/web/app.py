"""The web application: all of its routes, on one page."""

import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from archiver import __version__
from archiver.errors import ArchiverError
from archiver.health import Heartbeat
from archiver.runtime.tasks import in_background
from archiver.service import Archiver
from archiver.telemetry import log
from archiver.web import dockerflow, problems
from archiver.web.answers import Answers
from archiver.web.archives import archive
from archiver.web.events import events
from archiver.web.fastlane import FastLane
from archiver.web.files import by_digest, checksum, file
from archiver.web.handlers import Handlers
from archiver.web.ledger import Ledger
from archiver.web.request_log import RequestLog
from archiver.web.site import Site, State
from archiver.web.status import status
from archiver.web.targets import LiteralPaths, ShortTargets
from archiver.web.waiting import open_waiting

__all__ = ["ROUTES", "Site", "create_app"]


async def robots(_request: Request[State]) -> Response:
    """Keep crawlers out: they have filled many a forge's disk by way of its archive links."""
    return PlainTextResponse("User-agent: *\nDisallow: /\n")


async def openapi(request: Request[State]) -> Response:
    document = json.loads(resources.files(__package__).joinpath("openapi.json").read_bytes())
    document["info"]["version"] = __version__
    document["servers"] = [{"url": request.state["site"].public_url}]
    return JSONResponse(document)


TO_ARCHIVES = (
    Route("/archiver/{address:path}", archive, name="archive"),
    Route("/get/{file:path}.sha256", checksum, name="checksum"),
    Route("/get/{file:path}", file, name="file"),
    Route("/sha256/{digest}", by_digest, name="digest"),
)
OTHERS = (
    Route("/archiver/status/{task_id}", status, name="status"),
    Route("/archiver/status/{task_id}/events", events, name="events"),
    Route("/__version__", dockerflow.version, name="version"),
    Route("/__heartbeat__", dockerflow.heartbeat, name="heartbeat"),
    Route("/__lbheartbeat__", dockerflow.lbheartbeat, name="lbheartbeat"),
    Route("/metrics", dockerflow.metrics, name="metrics"),
    Route("/openapi.json", openapi, name="openapi"),
    Route("/robots.txt", robots, name="robots"),
)
ROUTES = (*TO_ARCHIVES, *OTHERS)


def create_app(
    *,
    open_archiver: Callable[[], AbstractAsyncContextManager[Archiver]],
    site: Site,
    on_stop: Callable[[Callable[[], None]], None] = lambda _: None,
) -> FastLane:
    """Return the application; it opens its Archiver when it starts and closes it when it ends.

    *on_stop* is told, when it starts, what to do as soon as it is to end.
    """
    answers = Answers(ttl=site.hit_ttl)
    ledger = Ledger(interval=site.hits_told_every, clients=site.clients)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[State]:
        try:
            async with (
                open_archiver() as archiver,
                open_waiting(archiver, site.holding) as waiting,
                in_background(answers.keep_fresh(archiver.notifications), ledger.keep()),
            ):
                on_stop(waiting.close)
                log.info("web.started", public_url=site.public_url, pid=os.getpid())
                yield State(
                    archiver=archiver,
                    site=site,
                    heartbeat=Heartbeat(check=archiver.check_health),
                    answers=answers,
                    waiting=waiting,
                )
        except Exception:
            log.exception("web.failed", pid=os.getpid())
            raise
        log.info("web.stopped", pid=os.getpid())

    app = Starlette(
        routes=OTHERS,
        middleware=[
            Middleware(RequestLog, ledger=ledger),
            Middleware(ShortTargets),
            Middleware(LiteralPaths),
        ],
        exception_handlers={ArchiverError: problems.answer, HTTPException: problems.answer},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # such a redirect would be made from the Host header
    return FastLane(
        archives=RequestLog(Handlers(TO_ARCHIVES), ledger=ledger),
        others=app,
        answers=answers,
        ledger=ledger,
        clients=site.clients,
    )
