"""What the fleet tells of its changes, and how it becomes this process's news."""

from archiver.jetstream.connection import Connection
from archiver.runtime.notifications import Notifications

FEED = "feed"

COPIES = "copies"
"""Where an archive is has changed."""

FAILED = "failed"
"""A task failed for good. The payload says why."""

MOVED = "moved"
"""A rev names another node than before."""

FINISHED = "finished"
"""An archive was made that a client may have waited for. The payload says how long it took."""

WAITING = "waiting"
"""A task was given back to the queue. The payload says in which lane it waits, and for how long."""

PROGRESS = "progress"
"""A task's state was written."""


def relay(connection: Connection, news: Notifications) -> None:
    """Make *news* of whatever the feed tells.

    Call this when all who remember things listen already: whom news wakes looks again, and must not
    find what was remembered before.
    """

    def tell(digest: str, _payload: bytes) -> None:
        news.publish(digest)

    for event in (COPIES, FAILED, MOVED, PROGRESS):
        connection.watch(event, tell)
    connection.on_gap(news.publish_all)
