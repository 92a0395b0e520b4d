"""Puts a web process together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from archiver import __version__
from archiver.runtime.tasks import in_background
from archiver.service import Archiver
from archiver.settings import (
    Settings,
    client_networks,
    cloud_ranges_files,
    load,
)
from archiver.telemetry import set_up_logging
from archiver.web.app import Site, create_app
from archiver.web.clients import Clients
from archiver.web.ranges import Ranges
from archiver.web.seats import Holding
from archiver.web.server import on_stop
from archiver.wiring.parts import open_parts


def web_app() -> Any:  # noqa: ANN401 - an ASGI application, to granian
    """Return the web application with the settings of the environment. granian loads it."""
    settings = load()
    set_up_logging(settings.log.format, level=settings.log.level, process="web")

    ranges = Ranges(files=cloud_ranges_files(settings))
    clients = Clients(
        networks=client_networks(settings),
        published=ranges.try_read(),  # `archiver web` has checked the files
        trusted_proxies=settings.server.trusted_proxies,
    )

    @asynccontextmanager
    async def open_archiver() -> AsyncIterator[Archiver]:
        async with (
            open_parts(settings, process="web") as parts,
            in_background(ranges.follow(clients)),
        ):
            yield parts.archiver

    site = Site(
        public_url=settings.server.url,
        retry_after_s=settings.server.retry_after_s,
        retry_after_max_s=settings.server.retry_after_max_s,
        clients=clients,
        hit_ttl=settings.server.hit_ttl,
        hits_told_every=timedelta(seconds=settings.log.hits_interval_s),
        holding=_holding(settings),
        version=settings.server.version(__version__),
    )
    return create_app(open_archiver=open_archiver, site=site, on_stop=on_stop)


def _holding(settings: Settings) -> Holding:
    server = settings.server
    return Holding(
        hold_s=server.hold_s,
        waiters=server.waiters,
        waiters_per_client=server.waiters_per_client,
        event_streams=server.event_streams,
        event_streams_per_client=server.event_streams_per_client,
    )
