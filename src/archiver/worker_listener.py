"""A worker's own HTTP address: metrics, and the routes of Dockerflow."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from archiver.connection_cap import accept_errors_logged_rarely, listen
from archiver.health import Heartbeat, render_heartbeat
from archiver.telemetry import METRICS_TYPE, exposition, log

_LOG = logging.getLogger("archiver.worker_listener")
_LOG.setLevel(logging.CRITICAL)
"""aiohttp logs a malformed request with a traceback and the client's own text."""


IDLE_S = 10
"""How long a connection may take to send the head of a request, its first or a further one."""

LINGERING_S = 5
"""How long the body of a request is read. No route needs one."""


class CannotListen(Exception):
    """The address cannot be bound. The text has the reason."""


@asynccontextmanager
async def listening(
    addresses: Sequence[str],
    *,
    heartbeat: Heartbeat,
    version: Mapping[str, str],
    required: bool = True,
) -> AsyncIterator[str]:
    """Serve ``/metrics`` and Dockerflow's routes during the block. Yield the address.

    It is the first of *addresses* (``host:port``) that can be bound. If none can, raises
    CannotListen, or yields an empty text unless one is *required*. The worker's own event loop
    answers, so a worker that hangs does not.
    """

    async def heartbeat_of(_request: web.Request) -> web.Response:
        status, body = render_heartbeat(await heartbeat.health())
        return web.json_response(body, status=status)

    async def metrics(_request: web.Request) -> web.Response:
        body = await asyncio.to_thread(exposition)
        return web.Response(body=body, headers={"Content-Type": METRICS_TYPE})

    async def lbheartbeat(_request: web.Request) -> web.Response:
        return web.Response()

    async def version_of(_request: web.Request) -> web.Response:
        return web.json_response(dict(version))

    app = web.Application(middlewares=[_log_crashes])
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/__heartbeat__", heartbeat_of)
    app.router.add_get("/__lbheartbeat__", lbheartbeat)
    app.router.add_get("/__version__", version_of)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_LOG,
        shutdown_timeout=1,
        keepalive_timeout=IDLE_S,
        lingering_time=LINGERING_S,
    )
    await runner.setup()
    with accept_errors_logged_rarely():
        server = None
        try:
            address, server = await _bind_first(runner, addresses, required=required)
            yield address
        finally:
            if server:
                server.close()
            await runner.cleanup()


async def _bind_first(
    runner: web.AppRunner, addresses: Sequence[str], *, required: bool
) -> tuple[str, asyncio.Server | None]:
    failure: OSError | UnicodeError | None = None
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            server = await listen(_protocol_of(runner), host.strip("[]"), int(port))
        except (OSError, UnicodeError) as exc:
            failure = exc
        else:
            return address, server
    if failure and required:
        raise CannotListen(_why(failure)) from failure
    return "", None


def _protocol_of(runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
    if runner.server is None:
        raise RuntimeError("the runner is not set up")
    return runner.server


@web.middleware
async def _log_crashes(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Log a handler's exception as web processes do. aiohttp answers 500 and logs nothing."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception:
        log.exception("request.crashed", route=request.path)
        raise


def _why(exc: OSError | UnicodeError) -> str:
    """Return why an address cannot be bound. Error numbers of the resolver are not the system's."""
    if isinstance(exc, (socket.gaierror, UnicodeError)) or not exc.errno:
        return "no such host"
    return os.strerror(exc.errno)
