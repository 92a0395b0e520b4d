"""When periodic work of the fleet is due, as entries among the states of tasks."""

from datetime import UTC, datetime

from archiver.jetstream.connection import Connection
from archiver.jetstream.records import DueRecord, decode_due, encode
from archiver.jetstream.streams import STATES
from archiver.jetstream.translation import WrongRevision
from archiver.ports.schedule import Turn
from archiver.record_versions import is_newer


class JetStreamSchedule:
    """Implements ``ports.schedule.Schedule``. A lost entry only makes its work due early.

    Work with an entry of a later release is left to that release. The other keys of the bucket are
    SHA-256s.
    """

    def __init__(self, *, connection: Connection) -> None:
        self._kv = connection.kv

    async def next_due(self, work: str) -> datetime | None:
        entry = await self._kv.get_or_marker(STATES, work)
        if not entry or not entry.value or is_newer("due", entry.value):
            return None
        record = decode_due(entry.value)
        return record.due_at if record else None

    async def begin(self, work: str, *, until: datetime) -> Turn | None:
        entry = await self._kv.get_or_marker(STATES, work)
        value = entry.value if entry else b""
        record = decode_due(value) if value else None
        if is_newer("due", value):
            return None
        if record and record.due_at > datetime.now(UTC):
            return None
        turn = Turn(work=work, revision=entry.revision if entry else 0)
        return await self.postpone(turn, until=until)

    async def postpone(self, turn: Turn, *, until: datetime) -> Turn | None:
        value = encode(DueRecord(due_at=until))
        try:
            revision = await self._kv.update(STATES, turn.work, value, revision=turn.revision)
        except WrongRevision:
            return None
        return Turn(work=turn.work, revision=revision)
