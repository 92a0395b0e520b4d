"""Bounds how often each key does something."""

from datetime import timedelta

from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache


class Allowance:
    """Grants each key at most *most* uses within any span of *within*, in this process.

    With more keys than a megabyte holds, some 500 to 2000, the oldest uses are forgotten.
    """

    def __init__(self, *, most: int, within: timedelta) -> None:
        self._most = most
        self._uses: BoundedCache[tuple[str, int], None] = BoundedCache(
            ttl=within, max_bytes=MEGABYTE
        )

    def take(self, key: str, *, besides: int = 0) -> bool:
        """Return whether *key* may have another use, and count it. *besides* count like uses."""
        free = [number for number in range(self._most) if (key, number) not in self._uses]
        if len(free) <= besides:
            return False
        self._uses.put((key, free[0]), None)
        return True
