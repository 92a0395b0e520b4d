"""Starts and ends of child processes."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import Awaitable
from contextlib import suppress

from archiver.runtime.tasks import complete_despite_cancellation


async def started(starting: Awaitable[Process]) -> Process:
    """Return the process that *starting* starts. If the caller is cancelled, it has ended.

    asyncio kills the process of a cancelled start, but leaves it behind if the caller is cancelled
    once more.
    """
    start = asyncio.ensure_future(starting)
    try:
        return await complete_despite_cancellation(start)
    except asyncio.CancelledError:
        if not start.cancelled() and not start.exception():
            await complete_despite_cancellation(_end(start.result()))
        raise
    finally:
        del start, starting  # they would be in the traceback of an exception that they hold


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.communicate()  # unread output keeps the pipes open
    release(process)


def release(process: Process) -> None:
    """Close what asyncio keeps of a process that has ended.

    It does so by itself when all pipes have ended, some steps of the loop later. If the loop ends
    before, the rest is closed when it is collected as garbage, with a warning.
    """
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way
