"""The streams of a fleet: created if missing, updated if outdated; their messages by subject."""

import time
from collections.abc import Sequence
from datetime import timedelta

import nats.errors
import nats.js.errors
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from archiver.errors import EngineFull
from archiver.jetstream.capacity import Bounds, Capacity, Share
from archiver.jetstream.direct_get import KvEntry
from archiver.jetstream.link import Link
from archiver.jetstream.stream_setup import ensure_stream, subjects_of_both
from archiver.jetstream.task_subject import TaskSubject
from archiver.jetstream.translation import WRONG_LAST_SEQUENCE, translated
from archiver.telemetry import log

STATES, INDEX, REVS, REPAIRS = "states", "index", "revs", "repairs"

TASKS = "tasks"
"""The work queue. It is no bucket, but its messages may be unreadable as well."""

DIGESTS = "digests"
"""Keys of two tokens: a SHA-256, and the hash of an archive that has it."""

USES = "uses"

STATE_MAX_BYTES = 64 * 1024
"""A state usually has less than 1 kB. The error of a task in nested submodules names all of them,
with up to 4 kB for each."""

COPIES_MAX_BYTES = 256 * 1024
"""An entry of the index has about 4 kB with the longest names, and about 12 kB if the host sent the
archive from a URL of 8 kB. It has some 300 bytes more for each submodule, and 500 bytes with long
names. A longer entry is not stored: each process then reads the manifest in the buckets. Servers
accept messages of 1 MB."""

BUCKETS = {
    STATES: Share(1, 1024, timedelta(days=7), STATE_MAX_BYTES),
    INDEX: Share(1, 1536, timedelta(days=90), COPIES_MAX_BYTES),
    REVS: Share(1, 256, timedelta(days=90)),
    REPAIRS: Share(0.1, 512, timedelta(days=30)),
    DIGESTS: Share(2, 512, None),
    USES: Share(2, 256, None),
}
"""With usual sizes of entries. docs/architecture.md explains why the loss of an entry does no harm,
for each bucket."""

STORE_FAILED = 10077
"""The server sends it at every limit of a stream."""

NO_RESOURCES = frozenset({10002, 10023, 10047})
"""The limits of the server, and of the account."""

FULL_LOGGED_S = 60.0


class Streams:
    """The streams of *namespace*, with room for *capacity*. New ones get so many *replicas*.

    Every async method raises EngineUnavailable if its effect or its answer is not certain.
    """

    def __init__(self, *, link: Link, namespace: str, replicas: int, capacity: Capacity) -> None:
        self._link = link
        self._capacity = capacity
        self.replicas = replicas
        self.namespace = namespace
        self._task_prefix = f"{namespace}.tasks."
        self.all_tasks = f"{self._task_prefix}>"
        self.tasks_stream = f"{namespace}_tasks"
        self.buckets = tuple(self.bucket_stream(bucket) for bucket in BUCKETS)
        self.names = (self.tasks_stream, *self.buckets)
        self._existing: dict[str, StreamConfig] = {}
        self._full_logged_at: dict[str, float] = {}

    def bucket_stream(self, bucket: str) -> str:
        return f"KV_{self.namespace}_{bucket}"

    def key_subject(self, bucket: str, key: str) -> str:
        return f"$KV.{self.namespace}_{bucket}.{key}"

    def reads_directly(self, stream: str) -> bool:
        """Return whether a stream is known to have no followers, whose answers may be old."""
        existing = self._existing.get(stream)
        return existing is not None and existing.allow_direct is True

    def forget(self, stream: str) -> None:
        """Read a stream through its leader until ``ensure`` has seen it again."""
        self._existing.pop(stream, None)

    def task_subject(self, priority: str, source: str, client: str, key_hash: str) -> str:
        """Return the subject of a task. Each token may be ``*``, and the last ones together ``>``.

        *client* is a token of ``client_token``.
        """
        return f"{self._task_prefix}{priority}.{source}.{client}.{key_hash}"

    def task_subjects(self, key_hash: str) -> tuple[str, str]:
        """Return the subjects on which a task may be, with and without a client."""
        return self.task_subject("*", "*", "*", key_hash), f"{self._task_prefix}*.*.{key_hash}"

    def lane_subject(self, priority: str, source: str) -> str:
        """Return the subject of all tasks of one source and priority."""
        return f"{self._task_prefix}{priority}.{source}.>"

    def parse_task_subject(self, subject: str) -> TaskSubject:
        """Raises ValueError."""
        return TaskSubject.parse(subject, prefix=self._task_prefix)

    async def ensure(self) -> None:
        """Create what is missing of the work queue and the buckets."""
        wanted = self.wanted()
        with translated("create its streams"):
            for config in wanted:
                self._existing[str(config.name)] = await ensure_stream(self._link.js, config)
        self._log_differing_replicas()
        self._log_differing_limits(wanted)

    def wanted(self) -> Sequence[StreamConfig]:
        """Return the configuration of each stream as this process would create it."""
        buckets = [
            self.bucket_config(bucket, self._capacity.bounds(share))
            for bucket, share in BUCKETS.items()
        ]
        return [self._tasks_config(), *buckets]

    def _tasks_config(self) -> StreamConfig:
        """At most one message per subject. A second one is refused, and replaces nothing."""
        return StreamConfig(
            name=self.tasks_stream,
            subjects=[*self.task_subjects("*")],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=self._capacity.queue_max_bytes(BUCKETS[REPAIRS]),
            max_msgs_per_subject=1,
            discard_new_per_subject=True,
            num_replicas=self.replicas,
        )

    def bucket_config(self, bucket: str, bounds: Bounds) -> StreamConfig:
        """A key-value bucket (ADR-8 of NATS) that keeps one value of each key.

        Reads go to the leader, because a follower may return a value that has just been replaced.
        A bucket on one server has no followers, so it allows direct gets.
        """
        return StreamConfig(
            name=self.bucket_stream(bucket),
            subjects=[self.key_subject(bucket, ">")],
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_msgs_per_subject=1,
            max_msgs=bounds.max_entries,
            max_bytes=bounds.max_bytes,
            max_msg_size=bounds.longest_bytes,
            max_age=bounds.max_age.total_seconds() if bounds.max_age else 0,
            allow_rollup_hdrs=True,
            allow_direct=self.replicas == 1,
            deny_delete=True,
            num_replicas=self.replicas,
        )

    def _log_differing_replicas(self) -> None:
        actual = {name: config.num_replicas or 1 for name, config in self._existing.items()}
        different = sorted(name for name in actual if actual[name] != self.replicas)
        if different:
            log.warning(
                "engine.replicas_differ",
                setting=self.replicas,
                actual=sorted({actual[name] for name in different}),
                streams=different,
            )

    def _log_differing_limits(self, wanted: Sequence[StreamConfig]) -> None:
        different = [
            str(config.name)
            for config in wanted
            if self._existing[str(config.name)].max_bytes != config.max_bytes
        ]
        if different:
            wanted_bytes = sum(config.max_bytes or 0 for config in wanted)
            log.warning("engine.limits_differ", streams=different, wanted_bytes=wanted_bytes)

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        """Store a message in the stream of its subject; return its revision.

        A missing stream, as after a wipe of the server's folder, is created first. A task may be
        stored by a second try, so its headers must name the revision they expect.

        Raises:
            WrongRevision: The revision in the headers is not the last one.
            EngineFull: The stream or the server is at its limit.
        """
        with translated("store a message"):
            try:
                return await self._publish(subject, payload, headers)
            except nats.js.errors.NoStreamResponseError:
                await self.ensure()
            except nats.errors.TimeoutError:
                if not subject.startswith(self._task_prefix):
                    raise
                await self._ensure_queue()
            return await self._publish(subject, payload, headers)

    async def _ensure_queue(self) -> None:
        """Create the queue if it is missing, or if an earlier version has narrowed its subjects.

        The server does not report the missing stream while workers listen on the subject, because
        they receive the message. One of them may have created the queue by now.
        """
        try:
            subjects = (await self._link.js.stream_info(self.tasks_stream)).config.subjects
        except nats.js.errors.NotFoundError:
            subjects = None
        wanted = self.task_subjects("*")
        if subjects is None or subjects != subjects_of_both(subjects, wanted):
            await self.ensure()

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        try:
            return (await self._link.js.publish(subject, payload, headers=headers)).seq
        except nats.js.errors.APIError as exc:
            if _is_full(exc):
                self._report_full(subject, exc)
                raise EngineFull("the engine is full; it stores nothing new at the moment") from exc
            if exc.err_code not in WRONG_LAST_SEQUENCE:
                log.warning("jetstream.refused", subject=subject, err_code=exc.err_code)
            raise

    def _report_full(self, subject: str, exc: nats.js.errors.APIError) -> None:
        """Log a refusal, once a minute for each stream."""
        is_task = subject.startswith(self._task_prefix)
        stream = self.tasks_stream if is_task else f"KV_{subject.split('.')[1]}"
        if time.monotonic() >= self._full_logged_at.get(stream, 0.0) + FULL_LOGGED_S:
            self._full_logged_at[stream] = time.monotonic()
            log.warning("engine.full", stream=stream, err_code=exc.err_code)

    async def last(self, stream: str, subject: str) -> KvEntry | None:
        """Return the newest message of a subject, which may have wildcards."""
        with translated("read a message"):
            try:
                message = await self._link.js.get_last_msg(stream, subject)
            except nats.js.errors.NotFoundError:
                return None
        return KvEntry(value=message.data or b"", revision=message.seq or 0)

    async def remove(self, stream: str, subject: str, *, revision: int) -> None:
        """Remove the messages of a subject up to *revision*."""
        with translated("remove a message"):
            await self._link.js.purge_stream(stream, seq=revision + 1, subject=subject)


def _is_full(exc: nats.js.errors.APIError) -> bool:
    """Return whether a stream or the server has no room. A second task of a subject is no sign."""
    at_limit = exc.err_code == STORE_FAILED and "per subject" not in (exc.description or "")
    return at_limit or exc.err_code in NO_RESOURCES
