"""Puts a web process together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from archiver import __version__
from archiver.access.access import Access
from archiver.jetstream.task_list import JetStreamTaskList
from archiver.locality.cloud_ranges import CloudRanges
from archiver.runtime.tasks import in_background
from archiver.settings import (
    Settings,
    access_policy,
    client_networks,
    cloud_ranges_files,
    find_config,
    load,
    policy_file,
)
from archiver.telemetry import begin_web_at_zero, set_up_logging
from archiver.telemetry.tracing_setup import sending_traces
from archiver.upkeep.background import record_uses
from archiver.upkeep.operations import Operations
from archiver.web.app import Services, create_app
from archiver.web.client_address import ClientResolver
from archiver.web.connection_guard import ConnectionGuard, connection_share
from archiver.web.request_context import WebConfig
from archiver.web.server import on_stop
from archiver.web.waiting.waiters import WaitLimits
from archiver.wiring.parts import open_parts
from archiver.wiring.prewarm import create_hooks, prewarm_rules


def web_app() -> Any:  # noqa: ANN401 - an ASGI application, to granian
    """Return the application that granian loads, with the settings of the environment."""
    settings = load()
    server = settings.server
    begin_web_at_zero(settings.sources)
    set_up_logging(settings.log.format, level=settings.log.level, process="web")

    ranges = CloudRanges(files=cloud_ranges_files(settings))
    clients = ClientResolver(
        networks=client_networks(settings),
        published=ranges.try_read_networks(),  # the command checks them; a replacement must serve
        trusted_proxies=server.trusted_proxies,
    )
    guard = ConnectionGuard(
        port=server.port,
        limit=connection_share(server.connections_per_client),
        clients=clients,
    )

    access = Access(access_policy(settings))
    config_file = find_config()
    policies = policy_file(config_file) if config_file else None

    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        async with (
            sending_traces(process="web", version=__version__),
            open_parts(settings, process="web") as parts,
            record_uses(parts.archiver.hits, parts.uses),
            in_background(
                ranges.follow(clients.replace_published),
                parts.archiver.pins.follow(),
                *([guard.watch()] if server.connections_per_client else []),
                *([policies.follow(access)] if policies else []),
            ),
        ):
            operations = Operations(
                storage=parts.storage,
                contents=parts.storage.contents,
                tasks=JetStreamTaskList(connection=parts.connection),
                uses=parts.uses,
            )
            yield parts.archiver, operations

    return create_app(
        open_services=open_services,
        config=_web_config(settings, clients),
        access=access,
        on_stop=on_stop,
    )


def _web_config(settings: Settings, clients: ClientResolver) -> WebConfig:
    server = settings.server
    return WebConfig(
        public_url=server.url,
        retry_after_s=server.retry_after_s,
        retry_after_max_s=server.retry_after_max_s,
        serves_metrics=server.metrics_listen is None,
        clients=clients,
        hit_ttl=server.hit_ttl,
        hits_log_interval=timedelta(seconds=settings.log.hits_interval_s),
        wait_limits=WaitLimits(
            hold_s=server.hold_s,
            waiters=server.waiters,
            waiters_per_client=server.waiters_per_client,
            event_streams=server.event_streams,
            event_streams_per_client=server.event_streams_per_client,
        ),
        version=server.version(__version__),
        hooks=create_hooks(settings),
        prewarm_rules=prewarm_rules(settings),
    )
