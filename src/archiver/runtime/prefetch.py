"""A stream whose next items are produced while the consumer works on the current one."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from archiver.runtime.tasks import cancel_and_wait

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _End:
    """What comes after the last item of a stream: nothing, or what it broke off with."""

    failure: Exception | None


@asynccontextmanager
async def prefetch(
    items: AsyncGenerator[V, None], depth: int
) -> AsyncIterator[AsyncGenerator[V, None]]:
    """Yield *items*, made by a task that is up to *depth* of them ahead; close them at the end."""
    queue: asyncio.Queue[V | _End] = asyncio.Queue(depth)

    async def make() -> None:
        failure = None
        try:
            async with aclosing(items):
                async for item in items:
                    await queue.put(item)
        except Exception as exc:  # noqa: BLE001 - it is raised where the items are taken
            failure = exc
        await queue.put(_End(failure))

    async def made() -> AsyncGenerator[V, None]:
        while not isinstance(item := await queue.get(), _End):
            yield item
        if item.failure:
            raise item.failure

    making = asyncio.create_task(make())
    try:
        async with aclosing(made()) as stream:
            yield stream
    finally:
        await cancel_and_wait(making)
