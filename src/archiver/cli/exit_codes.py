"""Which exit code a command of operators has after an error of Archiver."""

from collections.abc import Iterator
from contextlib import contextmanager

from archiver.client.failures import RetryLater
from archiver.errors import ArchiverError, EngineUnavailable

ENGINE_HINT = "`archiver doctor` says what is wrong with the engine. Then run the command again."


@contextmanager
def retry_later() -> Iterator[None]:
    """Raise RetryLater for an ArchiverError in the block."""
    try:
        yield
    except ArchiverError as exc:
        hint = ENGINE_HINT if isinstance(exc, EngineUnavailable) else ""
        raise RetryLater(f"{exc.code}: {exc.message}", code=exc.code, hint=hint) from exc
