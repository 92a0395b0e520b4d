"""The key-value buckets: read, written over a known revision, scanned and purged."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from archiver.errors import EngineUnavailable
from archiver.jetstream.direct_get import DirectGet, KvEntry
from archiver.jetstream.link import REQUEST_TIMEOUT, Link
from archiver.jetstream.newer_records import is_of_later_release
from archiver.jetstream.records import UnreadableValues
from archiver.jetstream.streams import Streams
from archiver.jetstream.translation import FAILURES, translated

PORTION = 500
"""Entries of a bucket per request of a scan: less than 1 MB."""

WINDOWS = tuple(timedelta(minutes=minutes) for minutes in (7 * 1440, 1440, 360, 60, 10))
"""Periods that a scan may be limited to, the longest first."""


class KeyValue:
    """Entries by bucket and key.

    Every method raises EngineUnavailable if its effect or its answer is not certain.
    """

    def __init__(self, *, link: Link, streams: Streams, unreadable: UnreadableValues) -> None:
        self._link = link
        self._streams = streams
        self._unreadable = unreadable
        self.direct_get = DirectGet(timeout=REQUEST_TIMEOUT)
        link.subscriptions.add(*self.direct_get.answers)

    async def get(self, bucket: str, key: str) -> KvEntry | None:
        entry = await self.get_or_marker(bucket, key)
        return entry if entry and entry.value else None

    async def get_or_marker(self, bucket: str, key: str) -> KvEntry | None:
        """Return the entry, or the marker of a deleted one, whose revision an update must name."""
        stream = self._streams.bucket_stream(bucket)
        subject = self._streams.key_subject(bucket, key)
        if not self._streams.reads_directly(stream):
            return await self._streams.last(stream, subject)
        try:
            return await self.direct_get.get(self._link.client, stream, subject)
        except nats.errors.NoRespondersError:  # the stream is gone, or has followers by now
            self._streams.forget(stream)
            return await self._streams.last(stream, subject)
        except FAILURES as exc:
            raise EngineUnavailable("the engine could not read a key") from exc

    async def put(self, bucket: str, key: str, value: bytes) -> None:
        """Write *value*, whatever is there."""
        await self._streams.publish(self._streams.key_subject(bucket, key), value, {})

    async def update(self, bucket: str, key: str, value: bytes, *, revision: int) -> int:
        """Write *value* over *revision* (0: there is no entry); return the new revision.

        Raises:
            WrongRevision: Another revision is there.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        subject = self._streams.key_subject(bucket, key)
        return await self._streams.publish(subject, value, headers)

    async def purge(self, bucket: str, key: str, *, revision: int) -> None:
        """Remove the entry without a marker, unless it is newer than *revision*."""
        stream = self._streams.bucket_stream(bucket)
        subject = self._streams.key_subject(bucket, key)
        await self._streams.remove(stream, subject, revision=revision)

    async def remove_unreadable(self, bucket: str, key: str, entry: KvEntry) -> None:
        """Log an unreadable entry, and remove it from a bucket whose entries can be rebuilt.

        One of a later release stays: its readers need it.
        """
        newer = is_of_later_release(bucket, key, entry.value)
        self._unreadable.note(bucket, key, entry.revision, newer=newer)
        if newer:
            return
        with suppress(EngineUnavailable):  # the next reader skips it, and tries to remove it
            await self.purge(bucket, key, revision=entry.revision)

    async def keys(self, bucket: str, pattern: str) -> Sequence[str]:
        """Return the keys that match *pattern*, which may have wildcards; deleted ones too."""
        prefix = self._streams.key_subject(bucket, "")
        with translated("list keys"):
            try:
                stream = self._streams.bucket_stream(bucket)
                info = await self._link.js.stream_info(stream, f"{prefix}{pattern}")
            except nats.js.errors.NotFoundError:
                return ()
        return [subject.removeprefix(prefix) for subject in info.state.subjects or ()]

    async def window(self, bucket: str, *, at_most: int) -> datetime | None:
        """Return the time since which *at_most* so many entries were written; None for all.

        Not earlier than the shortest window, in which there may be more.
        """
        stream, now = self._streams.bucket_stream(bucket), datetime.now(UTC)
        with translated("count entries"):
            if (await self._link.js.stream_info(stream)).state.messages <= at_most:
                return None
            for window in WINDOWS:
                consumer = await self._link.js.add_consumer(stream, _scanning(now - window))
                await self._link.js.delete_consumer(stream, consumer.name)
                if (consumer.num_pending or 0) <= at_most:
                    return now - window
        return now - WINDOWS[-1]

    async def entries(
        self, bucket: str, *, since: datetime | None = None
    ) -> AsyncGenerator[tuple[str, KvEntry], None]:
        """Yield each key of a bucket with its entry, or with the marker of a deleted one.

        They come in the order of their last writes, with *since* only those written since then. An
        entry that is written during the scan may come twice, or not at all.
        """
        prefix = self._streams.key_subject(bucket, "")
        config = _scanning(since)
        with translated("list a bucket"):
            subscription = await self._link.js.pull_subscribe(
                f"{prefix}>", stream=self._streams.bucket_stream(bucket), config=config
            )
            async with aclosing(scan(subscription, timeout=REQUEST_TIMEOUT)) as messages:
                async for message in messages:
                    revision = message.metadata.sequence.stream
                    entry = KvEntry(value=message.data, revision=revision)
                    yield message.subject.removeprefix(prefix), entry


def _scanning(since: datetime | None) -> ConsumerConfig:
    return ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        mem_storage=True,
        inactive_threshold=10 * REQUEST_TIMEOUT.total_seconds(),
        deliver_policy=DeliverPolicy.BY_START_TIME if since else DeliverPolicy.ALL,
        opt_start_time=since,
    )


async def scan(
    subscription: JetStreamContext.PullSubscription,
    *,
    timeout: timedelta,  # noqa: ASYNC109
) -> AsyncGenerator[Msg, None]:
    """Yield all messages of *subscription*, which has no other reader, and end it.

    The remaining messages may have been removed since they were counted. If none arrives within
    *timeout*, they are counted once more.

    Raises:
        nats.errors.Error: Not all messages arrived.
    """
    received, silent = 0, False
    try:
        while remaining := await _unreceived(subscription, received):
            messages: list[Msg] = []
            with suppress(TimeoutError):
                size = min(remaining, PORTION)
                messages = await subscription.fetch(size, timeout.total_seconds())
            if silent and not messages:
                raise nats.errors.TimeoutError
            silent = not messages
            received += len(messages)
            for message in messages:
                yield message
    finally:
        with suppress(nats.errors.Error):  # the connection is lost, and with it the subscription
            await subscription.unsubscribe()


async def _unreceived(subscription: JetStreamContext.PullSubscription, received: int) -> int:
    """Return how many messages have not arrived, including messages that were sent and lost."""
    info = await subscription.consumer_info()
    sent = info.delivered.consumer_seq if info.delivered else 0
    return sent + (info.num_pending or 0) - received
