"""The minimum rate at which a host must send, so that a trickling one does not block a worker."""

from datetime import timedelta

RATE_WINDOW = timedelta(seconds=60)
"""Default window. hgweb pauses for seconds while it reads a large manifest."""


class Pace:
    """Measures the rate of a transfer over windows of waiting time.

    Only time spent waiting for the host counts. Time during which the consumer reads nothing does
    not: the host cannot send then.
    """

    def __init__(self, *, min_rate_bytes_s: int, window: timedelta) -> None:
        self._min_rate_bytes_s = min_rate_bytes_s
        self._window_s = window.total_seconds()
        self._waited_s = 0.0
        self._size_bytes = 0

    def is_kept(self, size_bytes: int, *, waited_s: float) -> bool:
        """Add a chunk and the wait for it. Return False if a window that ends here was too slow."""
        self._waited_s += waited_s
        self._size_bytes += size_bytes
        if self._waited_s < self._window_s:
            return True
        kept = self._size_bytes >= self._min_rate_bytes_s * self._waited_s
        self._waited_s, self._size_bytes = 0.0, 0
        return kept
