"""Opens a source with the adapter for its kind of host."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from yarl import URL

from archiver.ports.source import Source
from archiver.sources.config import SourceConfig
from archiver.sources.fetch import Fetch, open_fetch
from archiver.sources.hgweb.source import HgwebSource
from archiver.sources.perimeter import Perimeter
from archiver.telemetry import METRICS

ADAPTERS: Mapping[str, Callable[[SourceConfig, Fetch], Source]] = {"hgweb": HgwebSource}
"""The adapter for each ``kind`` of source in the settings."""


@asynccontextmanager
async def open_source(config: SourceConfig) -> AsyncIterator[Source]:
    """Yield the source, with its own connections inside its own perimeter."""
    perimeter = Perimeter(
        home=URL(config.url_template.partition("{")[0]),
        redirect_hosts=config.redirect_hosts,
        allow_private_addresses=config.allow_private_addresses,
    )

    def count_bytes(size: int) -> None:
        METRICS.source_bytes.labels(source=config.name).inc(size)

    async with open_fetch(
        perimeter=perimeter,
        read_timeout=config.read_timeout,
        user_agent=config.user_agent,
        min_rate_bytes_s=config.min_rate_bytes_s,
        min_rate_window=config.min_rate_window,
        ca_file=config.ca_file,
        count_bytes=count_bytes,
    ) as fetch:
        yield ADAPTERS[config.kind](config, fetch)
