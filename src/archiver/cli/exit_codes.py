"""Which exit code a command of operators has after an error of Archiver."""

from collections.abc import Iterator
from contextlib import contextmanager

from archiver.client.failures import RetryLater
from archiver.errors import ArchiverError


@contextmanager
def retry_later() -> Iterator[None]:
    """Raise RetryLater for an ArchiverError in the block."""
    try:
        yield
    except ArchiverError as exc:
        raise RetryLater(f"{exc.code}: {exc.message}", code=exc.code) from exc
