"""The proof that a bucket takes writes: a write that it took, some seconds ago at most."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from archiver.errors import StorageUnavailable
from archiver.runtime.single_flight import SingleFlight

PROVEN_FOR = timedelta(seconds=10)
"""How long a write is believed. An archive that is fetched from its host in this time is wasted if
the bucket has just begun to refuse."""


class Proof:
    """Remembers whether the last write succeeded; asks for a *probe* where none is known.

    A bucket that answers questions may refuse writes: it is over its quota, or its keys only read.
    """

    def __init__(
        self, *, probe: Callable[[], Awaitable[None]], good_for: timedelta = PROVEN_FOR
    ) -> None:
        self._probe = probe
        self._good_for_s = good_for.total_seconds()
        self._probing: SingleFlight[None, None] = SingleFlight()
        self._good_until = 0.0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Take the block for a write: its end proves something, its failure disproves it."""
        try:
            yield
        except StorageUnavailable:
            self._good_until = 0.0
            raise
        self._good_until = time.monotonic() + self._good_for_s

    async def require(self) -> None:
        """Return if the bucket takes writes. One probe answers all who ask at a time.

        Raises:
            StorageUnavailable: It does not.
        """
        if time.monotonic() >= self._good_until:
            await self._probing.run(None, self._probe)
