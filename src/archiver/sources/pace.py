"""How quickly a host sends, so that one that drips does not hold a worker."""

from datetime import timedelta

RATE_WINDOW = timedelta(seconds=60)
"""Unless the settings say otherwise: hgweb pauses for seconds while it reads a large manifest."""


class Pace:
    """Whether a host sends at least so many bytes a second, while it is waited for.

    Our own time does not count: a host that is not asked for more cannot send it.
    """

    def __init__(self, *, min_rate_bytes_s: int, window: timedelta) -> None:
        self._min_rate_bytes_s = min_rate_bytes_s
        self._window_s = window.total_seconds()
        self._waited_s = 0.0
        self._size_bytes = 0

    def keeps(self, size_bytes: int, *, waited_s: float) -> bool:
        """Count what came, and how long it was waited for; judge at the end of each window."""
        self._waited_s += waited_s
        self._size_bytes += size_bytes
        if self._waited_s < self._window_s:
            return True
        kept = self._size_bytes >= self._min_rate_bytes_s * self._waited_s
        self._waited_s, self._size_bytes = 0.0, 0
        return kept
