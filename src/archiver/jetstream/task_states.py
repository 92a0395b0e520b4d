"""The state of a task in its bucket: read by clients, and written by one attempt at a time."""

from archiver.errors import EngineUnavailable, LeaseLost
from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import Entry
from archiver.jetstream.feed import PROGRESS
from archiver.jetstream.kv_buckets import STATES
from archiver.jetstream.records import TaskRecord, decode_task, encode
from archiver.jetstream.translation import WrongRevision
from archiver.model import Archive

WRITES_MAX = 3
"""A lost reply costs one. The others allow for refusals without a foreign record."""


def read_state(connection: Connection, archive: Archive, entry: Entry | None) -> TaskRecord | None:
    """Return the record in *entry*, or None if it is empty or unreadable.

    An unreadable entry is not removed, since a newer worker may have written it. The next attempt
    at the task overwrites it.
    """
    if entry is None or not entry.value:
        return None
    record = decode_task(entry.value)
    if record is None or record.key != archive.key:
        connection.unreadable.note(STATES, archive.key_hash, entry.revision)
        return None
    return record


class TaskStateWriter:
    """Writes the records of one attempt.

    The fence: every write names the revision that it replaces. If a write fails because a foreign
    record is there, the lease is lost. Any other failed write proves nothing.
    """

    def __init__(self, *, connection: Connection, archive: Archive, owner: str) -> None:
        self._connection = connection
        self._archive = archive
        self._owner = owner
        self._revision = 0

    async def read(self) -> TaskRecord | None:
        """Return the present record, which the next write replaces. Raises EngineUnavailable."""
        entry = await self._connection.kv.get_or_marker(STATES, self._archive.key_hash)
        self._revision = entry.revision if entry else 0
        return read_state(self._connection, self._archive, entry)

    async def write(self, record: TaskRecord) -> None:
        """Write *record* over the revision that was written or read last; notify the fleet.

        Raises:
            LeaseLost: A foreign record is there.
            EngineUnavailable: The record is not known to be written.
        """
        kv, key_hash = self._connection.kv, self._archive.key_hash
        for _ in range(WRITES_MAX):
            try:
                self._revision = await kv.update(
                    STATES, key_hash, encode(record), revision=self._revision
                )
            except WrongRevision:
                await self._refresh_revision(record)
            else:
                return await self._connection.feed.publish(PROGRESS, key_hash)
        raise EngineUnavailable("the engine does not accept the state of a task")

    async def _refresh_revision(self, ours: TaskRecord) -> None:
        """Read the revision to replace: our own if a reply was lost, 0 after a wipe."""
        entry = await self._connection.kv.get_or_marker(STATES, self._archive.key_hash)
        current = read_state(self._connection, self._archive, entry)
        if current is None and entry and entry.value:
            raise LeaseLost("the record of this attempt was replaced by an unreadable one")
        if current and current.owner != self._owner:
            earlier = current.sequence == ours.sequence and current.delivery < ours.delivery
            if not earlier:  # delivery of the same message
                raise LeaseLost("another worker has claimed this task")
        self._revision = entry.revision if entry else 0
