"""Routes without parameters: for operators (Dockerflow), for generators of clients, for crawlers.

https://github.com/mozilla-services/Dockerflow
"""

import asyncio
import json
from importlib import resources

from starlette.responses import JSONResponse, PlainTextResponse, Response

from archiver import __version__
from archiver.health import render_heartbeat, source_of
from archiver.telemetry import METRICS_TYPE, exposition
from archiver.web.problems import problem
from archiver.web.reply import Reply
from archiver.web.request_context import RequestContext


async def version(context: RequestContext) -> Reply:
    return Reply(response=JSONResponse(context.state.config.version))


async def lbheartbeat(_context: RequestContext) -> Reply:
    """Return 200 without contacting any other part."""
    return Reply(response=Response())


async def heartbeat(context: RequestContext) -> Reply:
    """Return the health of each part, with 200 if the service can do its work, else 500.

    The route is public, so it names no source that is private.
    """
    health = await context.state.heartbeat.health()
    hides = context.state.access.hides
    shown = {
        part: error
        for part, error in health.items()
        if not ((source := source_of(part)) and hides(source))
    }
    status, body = render_heartbeat(shown)
    return Reply(response=JSONResponse(body, status_code=status))


async def metrics(context: RequestContext) -> Reply:
    """Return the metrics of this process, or of all that share PROMETHEUS_MULTIPROC_DIR."""
    if not context.state.config.serves_metrics:
        return problem(context, "no_such_route", "metrics are served at another address")
    return Reply(response=Response(await asyncio.to_thread(exposition), media_type=METRICS_TYPE))


async def robots(_context: RequestContext) -> Reply:
    """Keep crawlers out: by following archive links, they have filled the disks of many forges."""
    return Reply(response=PlainTextResponse("User-agent: *\nDisallow: /\n"))


async def openapi(context: RequestContext) -> Reply:
    document = json.loads(resources.files("archiver.web").joinpath("openapi.json").read_bytes())
    document["info"]["version"] = __version__
    document["servers"] = [{"url": context.state.config.public_url}]
    return Reply(response=JSONResponse(document))
