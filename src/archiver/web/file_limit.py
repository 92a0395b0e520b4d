"""How many connections a process may have open, within the system's limit of open files."""

from archiver.runtime.file_limit import file_limit

CONNECTIONS_MAX = 16_384
"""Open connections of one process: those of waiting clients, and room for all others beside them.

granian's default is the backlog. At that limit it would not even accept a health check.
"""

OTHER_FILES = 96
"""Files that a process needs beside its clients' connections: those to NATS, S3 and hosts."""

CONNECTIONS_MIN = 16


def connections_max() -> int:
    """Return how many connections this process may accept.

    A connection beyond that number waits until another one ends. Beyond the limit of open files,
    requests would fail instead.
    """
    return min(CONNECTIONS_MAX, max(CONNECTIONS_MIN, file_limit() - OTHER_FILES))
