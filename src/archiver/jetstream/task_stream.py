"""The stream of the work queue: its messages and its consumers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import nats.js.errors
from nats.js.api import ConsumerConfig, ConsumerInfo

from archiver.jetstream.direct_get import Entry
from archiver.jetstream.fleet_streams import FleetStreams
from archiver.jetstream.link import Link
from archiver.jetstream.messages import Messages
from archiver.jetstream.stale_consumers import withheld_message
from archiver.jetstream.translation import translated

LIST_TIMEOUT = timedelta(seconds=6)
"""The server waits 4 s for consumers whose own server is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPage:
    """Consumers of the stream, and the names of consumers without a responding server."""

    consumers: Sequence[ConsumerInfo]
    missing: Sequence[str]


class TaskStream:
    """Messages by subject, and consumers by name.

    Every method raises EngineUnavailable if its effect or its answer is not certain.
    """

    def __init__(self, *, link: Link, streams: FleetStreams, messages: Messages) -> None:
        self.name = streams.tasks_stream
        self._link = link
        self._streams = streams
        self._messages = messages

    def subject(self, priority: str, source: str, key_hash: str) -> str:
        """Return the subject of a task. Each token may be ``*``."""
        return self._streams.task_subject(priority, source, key_hash)

    async def publish_new(self, subject: str, payload: bytes, *, unique: str) -> None:
        """Store a message unless one is stored whose subject matches *unique*.

        Raises:
            WrongRevision: There may be one.
        """
        headers = {
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Nats-Expected-Last-Subject-Sequence-Subject": unique,
        }
        await self._messages.publish(subject, payload, headers)

    async def last(self, subject: str) -> Entry | None:
        return await self._messages.last(self.name, subject)

    async def remove(self, subject: str, *, revision: int) -> None:
        await self._messages.remove(self.name, subject, revision=revision)

    async def count(self) -> int:
        with translated("count messages"):
            try:
                return (await self._link.js.stream_info(self.name)).state.messages
            except nats.js.errors.NotFoundError:
                return 0

    async def subjects(self, *, most: int) -> Sequence[str] | None:
        """Return the subjects of all messages, or None if there are more than *most*."""
        count = await self.count()
        if not 0 < count <= most:
            return None if count else ()
        with translated("list subjects"):
            info = await self._link.js.stream_info(self.name, ">")
        return tuple(info.state.subjects or ())

    async def ensure_consumer(self, config: ConsumerConfig) -> ConsumerInfo:
        """Create a consumer unless it exists; return its state."""
        with translated("create a consumer"):
            try:
                return await self._link.js.add_consumer(self.name, config)
            except nats.js.errors.NotFoundError:
                await self._streams.ensure()
                return await self._link.js.add_consumer(self.name, config)

    async def delete_consumer(self, name: str) -> None:
        with translated("delete a consumer"):
            await self._link.js.delete_consumer(self.name, name)

    async def withheld_message(self, consumer: ConsumerInfo) -> int | None:
        """Return what ``stale_consumers.withheld_message`` does."""
        with translated("read a consumer"):
            return await withheld_message(self._link.js, consumer)

    async def consumer(self, name: str) -> ConsumerInfo | None:
        with translated("read a consumer"):
            try:
                info: ConsumerInfo = await self._link.js.consumer_info(self.name, name)
            except nats.js.errors.NotFoundError:
                return None
        return info

    async def consumers(self, *, offset: int) -> ConsumerPage:
        """Return a page of the consumers.

        nats-py's own method drops the names of consumers whose server does not answer.
        """
        request = json.dumps({"offset": offset}).encode()
        with translated("list consumers"):
            client, subject = self._link.client, f"$JS.API.CONSUMER.LIST.{self.name}"
            response = await client.request(subject, request, timeout=LIST_TIMEOUT.total_seconds())
            page = json.loads(response.data)
            if "error" in page:
                raise nats.js.errors.APIError.from_error(page["error"])
        found = [ConsumerInfo.from_response(one) for one in page.get("consumers") or ()]
        return ConsumerPage(consumers=found, missing=tuple(page.get("missing") or ()))

    async def send_pull_request(self, consumer: str, request: bytes, reply: str) -> None:
        """Request messages of *consumer*, to be sent to *reply*."""
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.name}.{consumer}"
        with translated("take a request"):
            await self._link.client.publish(subject, request, reply)
