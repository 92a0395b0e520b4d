"""Advisory locks of all processes of a machine, which end with their last holder."""

import asyncio
import fcntl
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

POLL_S = 0.02
POLL_MAX_S = 0.25


def try_lock(path: Path, *, exclusive: bool, create: bool = False) -> int | None:
    """Return a descriptor that holds the lock of the file at *path*; None if it is held.

    The lock ends when the descriptor and its copies in child processes are closed. Raises
    FileNotFoundError, also if the file has been replaced.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        # A file that was removed before it was locked protects nothing.
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    raise FileNotFoundError(path)


@asynccontextmanager
async def locked(path: Path, *, create: bool = False) -> AsyncIterator[int]:
    """Wait for the exclusive lock of the file at *path*, and yield its descriptor.

    Processes do not wait in a queue, so they ask at intervals, which grow and vary. Raises
    FileNotFoundError, as ``try_lock``.
    """
    pause_s = POLL_S
    while (descriptor := try_lock(path, exclusive=True, create=create)) is None:
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - not a secret
        pause_s = min(2 * pause_s, POLL_MAX_S)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
