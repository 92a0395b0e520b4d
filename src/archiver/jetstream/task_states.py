"""The state of a task, as its bucket has it."""

from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import Entry
from archiver.jetstream.kv_buckets import STATES
from archiver.jetstream.records import TaskRecord, decode_task
from archiver.model import Archive


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
