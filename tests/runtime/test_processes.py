"""Starts of child processes that are cancelled."""

import asyncio
import gc
import os
import signal
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

import pytest

from archiver.runtime.processes import release, started


@pytest.mark.parametrize("cancellations", (1, 2, 3))
def test_a_cancelled_start_goes_on_until_its_process_has_ended(cancellations: int) -> None:
    """A start of asyncio that is cancelled twice leaves its process behind."""

    async def play() -> Process:
        begun, may_start = asyncio.Event(), asyncio.Event()
        processes: list[Process] = []

        async def start() -> Process:
            begun.set()
            await may_start.wait()
            processes.append(await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE))
            return processes[0]

        caller = asyncio.create_task(started(start()))
        await begun.wait()
        for _ in range(cancellations):
            caller.cancel()
            await asyncio.sleep(0)
        may_start.set()
        with suppress(asyncio.CancelledError):
            await caller
        assert caller.cancelled()
        return processes[0]

    assert asyncio.run(play()).returncode == -9


def test_a_start_that_fails_is_reported_as_it_is() -> None:
    async def play() -> None:
        with pytest.raises(FileNotFoundError):
            await started(asyncio.create_subprocess_exec("no-such-program"))

    asyncio.run(play())


def test_a_process_that_is_released_leaves_nothing_to_a_loop_that_ends() -> None:
    """The tests fail with the warning of a transport that is collected without a close."""

    async def play() -> int:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", "sleep 60 & exec cat"),  # its child keeps the pipes open
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"ready\n")
        assert await process.stdout.readline() == b"ready\n"
        process.kill()
        while process.returncode is None:
            await asyncio.sleep(0.01)
        release(process)
        return process.pid

    group = asyncio.run(play())
    os.killpg(group, signal.SIGKILL)
    gc.collect()
