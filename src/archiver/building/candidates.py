"""Tries the formats in which a host may send an archive."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from archiver.errors import InternalError, NotPackable, SuffixRefused
from archiver.model import Archive
from archiver.telemetry import log

T = TypeVar("T")


async def first_packable(
    candidates: Sequence[Archive], fetch: Callable[[Archive], Awaitable[T]]
) -> T:
    """Return the result of *fetch* for the first of *candidates* that the host can pack.

    Raises:
        NotPackable: The host can pack none of them. This is the error of the first.
        ArchiverError: Any other error of *fetch*.
    """
    failure: NotPackable | None = None
    for candidate in candidates:
        try:
            return await fetch(candidate)
        except NotPackable as exc:
            log.warning("format.failed", key=candidate.key, code=exc.code, reason=exc.message)
            failure = failure or exc
        except SuffixRefused:
            if failure is None:
                raise
    raise failure or InternalError("there are no candidates to fetch")
