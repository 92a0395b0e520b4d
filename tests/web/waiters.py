"""Clients that wait for an archive, and the worker that they wait for."""

import asyncio

from tests.web.client import Answer, Client
from tests.world import ASH

DEFAULT = f"/archiver/hgmo/{ASH}/default"
PATIENT = f"{DEFAULT}?wait=5"


async def settled() -> None:
    """Let everyone come as far as they can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def built(web: Client) -> None:
    await web.world.engine.work(web.world.archiver)


def crowd(web: Client, targets: list[str]) -> list[Answer]:
    """Have all of *targets* waited for while a worker does its work."""

    async def play() -> list[Answer]:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(web.asking(target)) for target in targets]
            await settled()
            assert not any(task.done() for task in asking)
            await built(web)
        return [task.result() for task in asking]

    return web.run(play())
