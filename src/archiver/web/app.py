"""The web application: its route table, and how its parts are put together."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

from archiver.access.access import Access
from archiver.health import Heartbeat
from archiver.runtime.tasks import in_background
from archiver.service import Archiver
from archiver.telemetry import log
from archiver.upkeep.operations import Operations
from archiver.web.access_log import AccessLog
from archiver.web.api import fixed_routes
from archiver.web.api.archives import get_archive, get_by_sha256, get_checksum, get_file
from archiver.web.api.events import get_events
from archiver.web.api.hooks import post_hook
from archiver.web.api.operations import get_archives, get_tasks
from archiver.web.api.pins import delete_pin, put_pin
from archiver.web.api.prewarm import post_tasks
from archiver.web.api.purge import delete_archive
from archiver.web.api.status import get_status
from archiver.web.application import Application
from archiver.web.request_context import WebConfig, WebState
from archiver.web.response_cache import ResponseCache
from archiver.web.router import Permission, Route
from archiver.web.waiting.waiters import open_waiters

PUBLIC, READ, CREATE = Permission.PUBLIC, Permission.READ, Permission.CREATE
ADMIN, METRICS = Permission.ADMIN, Permission.METRICS

ROUTES = (
    Route("/archiver/{address:path}", get_archive, name="archive", permission=READ, cacheable=True),
    Route(
        "/archiver/{address:path}",
        delete_archive,
        name="purge",
        permission=ADMIN,
        methods=("DELETE",),
    ),
    Route("/archiver/archives", get_archives, name="archives", permission=ADMIN),
    Route("/archiver/tasks", get_tasks, name="tasks", permission=ADMIN),
    Route("/archiver/tasks", post_tasks, name="prewarm", permission=CREATE, methods=("POST",)),
    Route("/archiver/status/{task_id}", get_status, name="status", permission=READ),
    Route(
        "/archiver/status/{task_id}/pin",
        put_pin,
        name="pin",
        permission=ADMIN,
        methods=("PUT",),
    ),
    Route(
        "/archiver/status/{task_id}/pin",
        delete_pin,
        name="unpin",
        permission=ADMIN,
        methods=("DELETE",),
    ),
    Route("/archiver/status/{task_id}/events", get_events, name="events", permission=READ),
    Route(
        "/get/{file:path}.sha256", get_checksum, name="checksum", permission=READ, cacheable=True
    ),
    Route("/get/{file:path}", get_file, name="file", permission=READ, cacheable=True),
    Route("/sha256/{digest}", get_by_sha256, name="digest", permission=READ, cacheable=True),
    Route("/hooks/{hook}", post_hook, name="hook", permission=PUBLIC, methods=("POST",)),
    Route("/__version__", fixed_routes.version, name="version", permission=PUBLIC),
    Route("/__heartbeat__", fixed_routes.heartbeat, name="heartbeat", permission=PUBLIC),
    Route("/__lbheartbeat__", fixed_routes.lbheartbeat, name="lbheartbeat", permission=PUBLIC),
    Route("/metrics", fixed_routes.metrics, name="metrics", permission=METRICS),
    Route("/openapi.json", fixed_routes.openapi, name="openapi", permission=PUBLIC),
    Route("/robots.txt", fixed_routes.robots, name="robots", permission=PUBLIC),
)


Services: TypeAlias = tuple[Archiver, Operations]
"""What clients use, and what operators look up."""


def create_app(
    *,
    open_services: Callable[[], AbstractAsyncContextManager[Services]],
    config: WebConfig,
    access: Access,
    on_stop: Callable[[Callable[[], None]], None] = lambda _: None,
) -> Application:
    """Return the application. It opens its services at startup and closes them at shutdown.

    At startup it passes *on_stop* a function to call as soon as the process is to end.
    """
    cache = ResponseCache(ttl=config.hit_ttl)
    access.changes.add(lambda: cache.invalidate(None))
    access_log = AccessLog(interval=config.hits_log_interval)

    @asynccontextmanager
    async def open_state() -> AsyncIterator[WebState]:
        try:
            async with (
                open_services() as (archiver, operations),
                open_waiters(archiver, config.wait_limits) as waiters,
                in_background(
                    cache.keep_fresh(archiver.notifications), access_log.flush_regularly()
                ),
            ):
                on_stop(waiters.close)
                log.info("web.started", public_url=config.public_url, pid=os.getpid())
                yield WebState(
                    access=access,
                    archiver=archiver,
                    config=config,
                    heartbeat=Heartbeat(
                        check=archiver.check_health, breakers=archiver.breaker_health
                    ),
                    operations=operations,
                    waiters=waiters,
                )
        except Exception:
            log.exception("web.failed", pid=os.getpid())
            raise
        log.info("web.stopped", pid=os.getpid())

    return Application(
        routes=ROUTES,
        open_state=open_state,
        clients=config.clients,
        cache=cache,
        access_log=access_log,
    )
