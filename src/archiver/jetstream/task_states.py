"""How far a task is, as the bucket of states has it."""

from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import Entry
from archiver.jetstream.kv_buckets import STATES
from archiver.jetstream.records import TaskRecord, decode_task
from archiver.model import Archive


def read_state(connection: Connection, archive: Archive, entry: Entry | None) -> TaskRecord | None:
    """Return what *entry* says of *archive*: nothing, if it is empty or cannot be read.

    One that cannot be read stays where it is, since a newer worker may have written it; the next
    attempt at the task writes over it.
    """
    if entry is None or not entry.value:
        return None
    record = decode_task(entry.value)
    if record is None or record.key != archive.key:
        connection.unreadable.note(STATES, archive.key_hash, entry.revision)
        return None
    return record
