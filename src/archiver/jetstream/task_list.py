"""All tasks in NATS: the messages of the work queue, and the states of claimed tasks."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import datetime

from archiver.jetstream.connection import Connection
from archiver.jetstream.records import decode_order, decode_task
from archiver.jetstream.streams import STATES
from archiver.jetstream.task_stream import StoredMessage
from archiver.model import parse_key
from archiver.ports.task_list import ListedTask, Queued
from archiver.tasks import Phase, Task, TaskState


class JetStreamTaskList:
    """Implements ``ports.task_list.TaskList``.

    Unreadable values are left out and stay, because a newer version may have written them.
    """

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._tasks = connection.tasks

    async def queued(self, source: str | None = None) -> AsyncGenerator[Queued, None]:
        async with aclosing(self._tasks.iter_subjects(self._pattern(source))) as subjects:
            async for subject in subjects:
                with suppress(ValueError):  # of a later release
                    _, of, holder, key_hash = self._tasks.parse(subject)
                    yield Queued(source=of, holder=holder, key_hash=key_hash)

    def _pattern(self, source: str | None) -> str:
        return self._tasks.lane("*", source) if source else self._tasks.all

    async def oldest(self, source: str | None = None) -> AsyncGenerator[ListedTask, None]:
        after = 0
        while message := await self._tasks.next(self._pattern(source), after=after):
            after = message.revision
            with suppress(ValueError):  # of a later release
                if listed := self._waiting(message):
                    yield listed

    def _waiting(self, message: StoredMessage) -> ListedTask | None:
        subject, order = self._tasks.parse(message.subject), decode_order(message.value)
        source, key_hash = subject.source, subject.key_hash
        archive = order.archive(source=source, key_hash=key_hash) if order else None
        if order is None or archive is None:
            return None
        task = Task(
            archive=archive,
            state=TaskState.PENDING,
            phase=Phase.QUEUED,
            created_at=order.created_at,
        )
        return ListedTask(task=task, client=order.client)

    async def client(self, holder: str) -> str:
        message = await self._tasks.last(self._tasks.subject("*", "*", holder, "*"))
        order = decode_order(message.value) if message else None
        return order.client if order else ""

    async def window(self, *, at_most: int) -> datetime | None:
        return await self._connection.kv.window(STATES, at_most=at_most)

    async def recorded(
        self, source: str | None = None, *, since: datetime | None = None
    ) -> AsyncGenerator[ListedTask, None]:
        async with aclosing(self._connection.kv.entries(STATES, since=since)) as entries:
            async for key_hash, entry in entries:
                record = decode_task(entry.value) if entry.value else None
                archive = parse_key(record.key) if record else None
                if record is None or archive is None or archive.key_hash != key_hash:
                    continue
                if source in {None, archive.source}:
                    yield ListedTask(task=record.task(archive), client=record.client)
