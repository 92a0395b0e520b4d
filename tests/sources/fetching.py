"""The guarded GET, opened for the host of one address."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp.abc import AbstractResolver

from archiver.ports.source import ServedFormats
from archiver.sources.config import SourceConfig
from archiver.sources.fetch import Fetch, open_fetch

DEADLINE = timedelta(seconds=10)
BODY = bytes(range(256)) * 200


@asynccontextmanager
async def fetching(
    home: str,
    *redirect_hosts: str,
    read_timeout_s: float = 5,
    min_rate_bytes_s: int = 0,
    allow_private_addresses: bool = False,
    resolver: AbstractResolver | None = None,
    ca_file: Path | None = None,
    authorization: str = "",
) -> AsyncIterator[Fetch]:
    config = SourceConfig(
        kind="hgweb",
        name="hgmo",
        url_template=home,
        served=ServedFormats(suffixes=("tar.gz",)),
        lookup_concurrency=1,
        read_timeout=timedelta(seconds=read_timeout_s),
        deadline=DEADLINE,
        user_agent="Archiver/test",
        min_rate_bytes_s=min_rate_bytes_s,
        min_rate_window=timedelta(seconds=0.5),
        redirect_hosts=redirect_hosts,
        allow_private_addresses=allow_private_addresses,
        ca_file=ca_file,
        authorization=authorization,
    )
    async with open_fetch(config, resolver=resolver) as fetch:
        yield fetch


def get(
    url: str,
    *redirect_hosts: str,
    deadline: timedelta = DEADLINE,
    headers: Mapping[str, str] | None = None,
    **how: Any,  # noqa: ANN401 - see fetching
) -> bytes:
    """Return the body at *url*, whose host is the configured one."""

    async def play() -> bytes:
        async with (
            fetching(url, *redirect_hosts, **how) as fetch,
            fetch.get(url, deadline=deadline, headers=headers) as response,
        ):
            if response.status != 200:
                raise response.error
            return b"".join([chunk async for chunk in response.chunks()])

    return asyncio.run(play())
