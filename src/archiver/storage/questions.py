"""Questions to all regions at once, in which a silent region does not hold up the others."""

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

from archiver.errors import ArchiverError, StorageUnavailable
from archiver.model import Region
from archiver.storage.s3_errors import TIMEOUT

T = TypeVar("T")

Answers: TypeAlias = dict[Region, T | ArchiverError]

PATIENCE = timedelta(seconds=1.5)
"""How long a region may be silent when another one has answered. The other side of the earth, with
a new TLS connection, takes a second."""

SUSPECT_FOR = timedelta(seconds=10)
"""How long a region that was silent is hardly waited for. A build asks several questions."""

SUSPECT_PATIENCE = timedelta(seconds=0.2)


class Questions:
    """Remembers which regions were silent lately. One that answers is trusted again at once."""

    def __init__(self) -> None:
        self._suspect_until: dict[Region, float] = {}

    async def ask(self, questions: Mapping[Region, Coroutine[Any, Any, T]]) -> Answers[T]:
        """Return what each region answers, or why it did not.

        Without any answer there is nothing to go on with, so each region has all its time.
        """
        asked = {
            region: asyncio.create_task(outcome(question)) for region, question in questions.items()
        }
        try:
            await self._wait(asked)
            return {
                region: self._answer(region, task) if task.done() else self._silence(region)
                for region, task in asked.items()
            }
        finally:
            for task in asked.values():
                task.cancel()

    async def _wait(self, asked: Mapping[Region, asyncio.Task[T | ArchiverError]]) -> None:
        await _first_answer(asked.values())
        trusted = [task for region, task in asked.items() if not self._is_suspect(region)]
        for tasks, patience in ((trusted, PATIENCE), (asked.values(), SUSPECT_PATIENCE)):
            if silent := [task for task in tasks if not task.done()]:
                await asyncio.wait(silent, timeout=patience.total_seconds())

    def _is_suspect(self, region: Region) -> bool:
        return time.monotonic() < self._suspect_until.get(region, 0.0)

    def _answer(self, region: Region, task: asyncio.Task[T | ArchiverError]) -> T | ArchiverError:
        answer = task.result()
        if not isinstance(answer, ArchiverError):
            self._suspect_until.pop(region, None)
        return answer

    def _silence(self, region: Region) -> StorageUnavailable:
        """Suspect the region, not for longer if it is so already: else it would be for ever."""
        if not self._is_suspect(region):
            self._suspect_until[region] = time.monotonic() + SUSPECT_FOR.total_seconds()
        return StorageUnavailable(f"{region} is silent, and others have answered", s3_code=TIMEOUT)


async def _first_answer(tasks: Iterable[asyncio.Task[T | ArchiverError]]) -> None:
    """Return when one of *tasks* has more than a failure, or when all are done."""
    waiting = set(tasks)
    answered = False
    while waiting and not answered:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        answered = not all(isinstance(task.result(), ArchiverError) for task in done)


async def outcome(work: Awaitable[T]) -> T | ArchiverError:
    """Return what *work* returns, or the error of ours that it raises."""
    try:
        return await work
    except ArchiverError as exc:
        return exc
