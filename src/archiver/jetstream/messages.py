"""Messages of streams: stored, read and removed by subject."""

import nats.errors
import nats.js.errors

from archiver.jetstream.direct_get import Entry
from archiver.jetstream.fleet_streams import FleetStreams
from archiver.jetstream.link import Link
from archiver.jetstream.translation import WRONG_LAST_SEQUENCE, translated
from archiver.telemetry import log


class Messages:
    """Streams that are missing, as after a wipe of the server's folder, are created on a write."""

    def __init__(self, *, link: Link, streams: FleetStreams) -> None:
        self._link = link
        self._streams = streams

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        """Store a message in the stream of its subject; return its revision.

        A task may be stored by a second try, so its headers must name the revision they expect.

        Raises:
            WrongRevision: The revision in the headers is not the last one.
            EngineUnavailable: The message is not known to be stored.
        """
        with translated("store a message"):
            try:
                return await self._publish(subject, payload, headers)
            except nats.js.errors.NoStreamResponseError:
                await self._streams.ensure()
            except nats.errors.TimeoutError:
                if not self._streams.is_task_subject(subject):
                    raise
                await self._ensure_queue()
            return await self._publish(subject, payload, headers)

    async def _ensure_queue(self) -> None:
        """Create the queue if it is missing.

        The server does not report the missing stream while workers listen on the subject, because
        they receive the message. One of them may have created the queue by now.
        """
        try:
            await self._link.js.stream_info(self._streams.tasks_stream)
        except nats.js.errors.NotFoundError:
            await self._streams.ensure()

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        try:
            return (await self._link.js.publish(subject, payload, headers=headers)).seq
        except nats.js.errors.APIError as exc:
            if exc.err_code not in WRONG_LAST_SEQUENCE:
                log.warning("jetstream.refused", subject=subject, err_code=exc.err_code)
            raise

    async def last(self, stream: str, subject: str) -> Entry | None:
        """Return the newest message of a subject, which may have wildcards.

        Raises:
            EngineUnavailable: It cannot be read.
        """
        with translated("read a message"):
            try:
                message = await self._link.js.get_last_msg(stream, subject)
            except nats.js.errors.NotFoundError:
                return None
        return Entry(value=message.data or b"", revision=message.seq or 0)

    async def remove(self, stream: str, subject: str, *, revision: int) -> None:
        """Remove the messages of a subject up to *revision*.

        Raises:
            EngineUnavailable: They are not known to be removed.
        """
        with translated("remove a message"):
            await self._link.js.purge_stream(stream, seq=revision + 1, subject=subject)
