"""When an operation must have ended, and what it raises then."""

from __future__ import annotations

import time

from archiver.client.failures import CommandFailed

STEP_MAX_S = 86_400.0
"""No wait takes longer: those of the system have bounds. A caller that needs more waits again."""


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
        """The seconds until the end, but at most STEP_MAX_S. Raises the failure after it."""
        outer_s = self._outer.left_s if self._outer else STEP_MAX_S
        left_s = self._ends_at - time.monotonic()
        if not left_s > 0:  # so does one that is no number
            raise self.failure
        return min(left_s, outer_s)

    def cancel(self) -> None:
        """End it now. Other threads notice at their next step."""
        self._ends_at = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for *seconds*. Raises the failure at the end."""
        time.sleep(min(seconds, self.left_s))
        _ = self.left_s
