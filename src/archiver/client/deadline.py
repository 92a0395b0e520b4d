"""When an operation must have ended, and what it raises then."""

from __future__ import annotations

import math
import time

from archiver.client.failures import CommandFailed


class Deadline:
    """Ends after *seconds*, or earlier with the one that it is *within*. ``failure`` is raised."""

    def __init__(
        self, seconds: float, failure: CommandFailed, *, within: Deadline | None = None
    ) -> None:
        self.failure = failure
        self._ends_at = time.monotonic() + seconds
        self._outer = within

    @property
    def left_s(self) -> float:
        """The seconds until the end. Raises the failure after it."""
        outer_s = self._outer.left_s if self._outer else math.inf
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise self.failure
        return min(left_s, outer_s)

    def cancel(self) -> None:
        """End it now. Other threads notice at their next step."""
        self._ends_at = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for *seconds*. Raises the failure at the end."""
        time.sleep(min(seconds, self.left_s))
        _ = self.left_s
