"""Translates errors of nats-py into Archiver's."""

import nats.errors
import nats.js.errors

from archiver.errors import EngineUnavailable
from archiver.runtime.tasks import reraise_cancellation

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""The revision in the expected-sequence header is not the last one. 10164 means that a cluster is
storing another message at this moment. Neither proves that a message is there: the server also
sends 10071 if it could not read, and a cluster may lose what it is storing. 10077 does not belong
here: the server sends it at every limit of a stream."""

FAILURES = (nats.errors.Error, TimeoutError, OSError)


class WrongRevision(Exception):
    """A key seems to have changed since it was read.

    This proves nothing: read the key again to learn its value.
    """


class translated(reraise_cancellation):  # noqa: N801 - like its base
    """Turns errors of nats-py in its block into WrongRevision or EngineUnavailable."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        super().__exit__(kind, exc, traceback)
        if isinstance(exc, nats.js.errors.APIError) and exc.err_code in WRONG_LAST_SEQUENCE:
            raise WrongRevision from exc
        if isinstance(exc, FAILURES):
            raise EngineUnavailable(f"the engine could not {self._action}") from exc
