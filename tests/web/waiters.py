"""Waiting clients, and the worker that they wait for."""

import asyncio

from tests.web.client import DEFAULT, Client, ClientResponse

PATIENT = f"{DEFAULT}?wait=5"


async def settled() -> None:
    """Let all tasks of the loop run until they wait."""
    for _ in range(50):
        await asyncio.sleep(0)


async def built(web: Client) -> None:
    await web.world.work()


def crowd(web: Client, targets: list[str]) -> list[ClientResponse]:
    """Return the responses to *targets*, which wait until a worker has run the tasks."""

    async def play() -> list[ClientResponse]:
        async with asyncio.TaskGroup() as group:
            requests = [group.create_task(web.request_async(target)) for target in targets]
            await settled()
            assert not any(task.done() for task in requests)
            await built(web)
        return [task.result() for task in requests]

    return web.run(play())
