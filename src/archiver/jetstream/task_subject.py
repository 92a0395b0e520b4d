"""The subjects of tasks, which name source, client and archive without the message itself."""

import hashlib
from typing import NamedTuple

BACKGROUND = "-"
"""In the place of a client: no client caused this task."""

PARKED = "parked"
"""In the place of a priority: the task waits for the turn of its client, and no worker gets it."""

DEFERRED = "deferred"
"""In the place of a priority: the task waits until its source has room for it, and no worker gets
it."""

CLIENT_DIGITS = 16
"""Enough that no two clients of a fleet share a token."""


class TaskSubject(NamedTuple):
    """The tokens of a subject. Before decision 27, subjects had no ``client``."""

    priority: str
    source: str
    client: str
    key_hash: str

    @classmethod
    def parse(cls, subject: str, *, prefix: str) -> "TaskSubject":
        """Return the tokens behind *prefix*. Raises ValueError."""
        match subject.removeprefix(prefix).split("."):
            case [priority, source, client, key_hash]:
                return cls(priority, source, client, key_hash)
            case [priority, source, key_hash]:
                return cls(priority, source, BACKGROUND, key_hash)
            case _:
                raise ValueError("not the subject of a task")


def client_token(client: str) -> str:
    """Return the token for *client*, which may have any characters; BACKGROUND if it is empty."""
    if not client:
        return BACKGROUND
    return hashlib.sha256(client.encode()).hexdigest()[:CLIENT_DIGITS]
