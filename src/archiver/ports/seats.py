"""Seats of a host: how many fetches the whole fleet may send to it beside its tasks."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Seats(Protocol):
    """A fetch beside a task, such as that of a submodule, holds a seat of the host's source.

    The whole fleet has ``sources.NAME.submodule_concurrency`` seats of each source. A fetch that
    holds one must not wait for a second one, or fetches could wait for each other forever.
    """

    def take(self, source: str) -> AbstractAsyncContextManager[None]:
        """Wait until a seat of *source* is free, and hold it for the block.

        The wait has no bound: the caller has a deadline. Within a process, the first to come is the
        first to get a seat; between processes, chance decides. The seat of a process that dies
        becomes free when its lease has ended.

        A seat is renewed while the block runs. If that fails until the lease ends, another process
        may get the seat, so the block is cancelled and EngineUnavailable is raised in its place:
        no fetch goes on without a seat for long, even where only this process has lost the engine.
        The error is an outage of ours, which counts as no failure of the task.

        Raises:
            EngineUnavailable: The engine does not answer while the seat is taken, or the seat was
                lost.
        """
