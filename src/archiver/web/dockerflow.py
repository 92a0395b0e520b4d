"""What operators and their machines ask (https://github.com/mozilla-services/Dockerflow)."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from archiver.health import render_heartbeat
from archiver.telemetry import METRICS_TYPE, exposition
from archiver.web.site import State


async def version(request: Request[State]) -> Response:
    return JSONResponse(request.state["site"].version)


async def lbheartbeat(_request: Request[State]) -> Response:
    """Return 200 without asking another part."""
    return Response()


async def heartbeat(request: Request[State]) -> Response:
    """Return 200 if the service can do its work, else 500, with the result for each part."""
    status, body = render_heartbeat(await request.state["heartbeat"].checks())
    return JSONResponse(body, status_code=status)


async def metrics(_request: Request[State]) -> Response:
    """Return the metrics of this process, or of all that share PROMETHEUS_MULTIPROC_DIR."""
    return Response(await asyncio.to_thread(exposition), media_type=METRICS_TYPE)
