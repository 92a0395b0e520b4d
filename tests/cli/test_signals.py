"""A signal ends a command after it has given back what it holds."""

import asyncio
import os
import signal
import threading

import pytest

from archiver.cli.cancellation import cancelled_by_signals
from archiver.cli.signals import interruptible


@pytest.mark.parametrize(("number", "code"), ((signal.SIGINT, 130), (signal.SIGTERM, 143)))
def test_a_signal_lets_the_task_clean_up_with_its_connections(number: int, code: int) -> None:
    given_back = []

    async def serve(requests: asyncio.Queue[asyncio.Event]) -> None:
        while True:
            (await requests.get()).set()

    async def command() -> None:
        requests: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        connection = asyncio.create_task(serve(requests))
        with cancelled_by_signals():
            try:
                os.kill(os.getpid(), number)
                await asyncio.Event().wait()
            finally:
                answered = asyncio.Event()
                requests.put_nowait(answered)
                await answered.wait()
                given_back.append(True)
        connection.cancel()

    with pytest.raises(SystemExit) as ended:
        asyncio.run(command())
    assert (ended.value.code, given_back) == (code, [True])


class Finalized:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_signal_that_arrives_in_a_finalizer_ends_the_command() -> None:
    """Python ignores every exception in a finalizer."""
    survived = []
    with pytest.raises(SystemExit) as ended, interruptible():  # noqa: PT012
        unused = Finalized()
        del unused
        survived.append(True)
        threading.Event().wait(60)
    assert (ended.value.code, survived) == (130, [True])


def test_another_cancellation_is_no_signal() -> None:
    async def command() -> None:
        with cancelled_by_signals():
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(command())
