"""The paused sources of which a worker requests no tasks, so that these hold no seats."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

from archiver.breaker import BreakerState
from archiver.jetstream.consumers import SourceConsumer
from archiver.tasks import Priority

StateOf: TypeAlias = Callable[[str], BreakerState]
"""Returns the state of a source's breaker: see ``Guard.source_state``."""

TRY_EVERY = timedelta(seconds=1)
"""After a pause, each worker requests a task so often until one of the fleet has had an answer of
the host. The others are refused by its breaker, and go back to the queue."""


class Pauses:
    """Decides whether to request a task of a lane. Those of low priority need no host."""

    def __init__(self, *, state_of: StateOf) -> None:
        self._state_of = state_of
        self._next_try: dict[str, float] = {}

    def is_paused(self, lane: SourceConsumer) -> bool:
        return self._state(lane) is BreakerState.OPEN

    def admits(self, lane: SourceConsumer) -> bool:
        if self._state(lane) is BreakerState.HALF_OPEN:
            return time.monotonic() >= self._next_try.get(lane.source, 0.0)
        return not self.is_paused(lane)

    def note_request(self, lane: SourceConsumer) -> None:
        """Note that a task is requested, which may become the probe of its source."""
        if self._state(lane) is BreakerState.HALF_OPEN:
            self._next_try[lane.source] = time.monotonic() + TRY_EVERY.total_seconds()

    def _state(self, lane: SourceConsumer) -> BreakerState:
        needs_host = lane.priority is not Priority.LOW
        return self._state_of(lane.source) if needs_host else BreakerState.CLOSED
