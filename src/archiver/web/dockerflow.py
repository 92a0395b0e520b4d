"""What operators and their machines ask (https://github.com/mozilla-services/Dockerflow)."""

import asyncio
import os

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from archiver.web.heartbeat import Check, Level
from archiver.web.site import State


async def version(request: Request[State]) -> Response:
    return JSONResponse(request.state["site"].version)


async def lbheartbeat(_request: Request[State]) -> Response:
    """Say that this process answers; asks nobody."""
    return Response()


async def heartbeat(request: Request[State]) -> Response:
    """Say whether all that the service needs answers: 500 when it cannot do its work."""
    checks = await request.state["heartbeat"].checks()
    worst = max(check.level for check in checks.values())
    return JSONResponse(
        {
            "status": worst.name.lower(),
            "checks": {name: check.level.name.lower() for name, check in checks.items()},
            "details": {name: _details(check) for name, check in checks.items()},
        },
        status_code=500 if worst is Level.ERROR else 200,
    )


def _details(check: Check) -> dict[str, object]:
    messages = {check.error.code: check.error.message} if check.error else {}
    return {"status": check.level.name.lower(), "level": int(check.level), "messages": messages}


async def metrics(_request: Request[State]) -> Response:
    """Expose the metrics of this process, or of all that share PROMETHEUS_MULTIPROC_DIR."""
    exposition = await asyncio.to_thread(_expose)
    return Response(exposition, media_type=CONTENT_TYPE_LATEST)


def _expose() -> bytes:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client has none
    return generate_latest(registry)
