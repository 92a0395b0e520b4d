"""What a worker runs, and whether it is to end."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from archiver.model import Archive, TaskId


class Activity:
    """Shared by a worker and all that reports on it or ends it.

    ``draining`` is set once the worker claims nothing more. Once ``stopping`` is set, running
    attempts have the worker's grace period to end, and no more time once ``hurrying`` is set.
    """

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        self.stopping = asyncio.Event()
        self.hurrying = asyncio.Event()
        self._running: list[Archive] = []

    @property
    def running(self) -> tuple[TaskId, ...]:
        """The tasks that have an attempt here."""
        return tuple(archive.task_id for archive in self._running)

    @contextmanager
    def attempt(self, archive: Archive) -> Iterator[None]:
        """Count an attempt during the block."""
        self._running.append(archive)
        try:
            yield
        finally:
            self._running.remove(archive)

    def drain(self) -> None:
        """Have the worker finish what it has, however long that takes, and then exit."""
        self.draining.set()

    def stop(self) -> None:
        """Have the worker exit after its grace period; if this is repeated, at once."""
        if self.stopping.is_set():
            self.hurrying.set()
        self.draining.set()
        self.stopping.set()
