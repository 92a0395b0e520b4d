"""The streams of a fleet: their names and subjects, created if missing, updated if outdated."""

from collections.abc import Iterator
from dataclasses import fields

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from archiver.jetstream.kv_buckets import BUCKETS, ENTRY_MAX_BYTES, Bounds
from archiver.jetstream.link import Link
from archiver.jetstream.translation import translated
from archiver.telemetry import log

STREAM_NAME_IN_USE = 10058


class FleetStreams:
    """The streams of *namespace*. New ones get so many *replicas*."""

    def __init__(self, *, link: Link, namespace: str, replicas: int) -> None:
        self._link = link
        self.replicas = replicas
        self._namespace = namespace
        self.tasks_stream = f"{namespace}_tasks"
        self.buckets = tuple(self.bucket_stream(bucket) for bucket in BUCKETS)
        self.names = (self.tasks_stream, *self.buckets)
        self._existing: dict[str, StreamConfig] = {}

    def bucket_stream(self, bucket: str) -> str:
        """Return the name of a bucket's stream."""
        return f"KV_{self._namespace}_{bucket}"

    def key_subject(self, bucket: str, key: str) -> str:
        """Return the subject of a key in a bucket."""
        return f"$KV.{self._namespace}_{bucket}.{key}"

    def reads_directly(self, stream: str) -> bool:
        """Return whether a stream is known to have no followers, whose answers may be old."""
        existing = self._existing.get(stream)
        return existing is not None and existing.allow_direct is True

    def forget(self, stream: str) -> None:
        """Read a stream through its leader until ``ensure`` has seen it again."""
        self._existing.pop(stream, None)

    def task_subject(self, priority: str, source: str, key_hash: str) -> str:
        """Return the subject of a task. Each token may be ``*``."""
        return f"{self._namespace}.tasks.{priority}.{source}.{key_hash}"

    def is_task_subject(self, subject: str) -> bool:
        return subject.startswith(f"{self._namespace}.tasks.")

    async def ensure(self) -> None:
        """Create what is missing of the work queue and the buckets. Raises EngineUnavailable."""
        with translated("create its streams"):
            for config in self._configs():
                self._existing[str(config.name)] = (await _ensure(self._link.js, config)).config
            self._compare_replicas()

    def _configs(self) -> Iterator[StreamConfig]:
        yield self._tasks_config()
        for bucket, bounds in BUCKETS.items():
            yield self.bucket_config(bucket, bounds)

    def _tasks_config(self) -> StreamConfig:
        """At most one message per subject. A second one is refused, and replaces nothing."""
        return StreamConfig(
            name=self.tasks_stream,
            subjects=[self.task_subject("*", "*", "*")],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
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
            max_msg_size=ENTRY_MAX_BYTES,
            max_age=bounds.max_age.total_seconds() if bounds.max_age else 0,
            allow_rollup_hdrs=True,
            allow_direct=self.replicas == 1,
            deny_delete=True,
            num_replicas=self.replicas,
        )

    def _compare_replicas(self) -> None:
        """Log if streams have other replicas than this process's setting, and leave them."""
        actual = {name: config.num_replicas or 1 for name, config in self._existing.items()}
        different = sorted(name for name in actual if actual[name] != self.replicas)
        if different:
            log.warning(
                "engine.replicas_differ",
                setting=self.replicas,
                actual=sorted({actual[name] for name in different}),
                streams=different,
            )


async def _ensure(js: JetStreamContext, config: StreamConfig) -> StreamInfo:
    try:
        return await _adapt(js, config)
    except nats.js.errors.NotFoundError:
        return await _create(js, config)


async def _create(js: JetStreamContext, config: StreamConfig) -> StreamInfo:
    try:
        return await js.add_stream(config)
    except nats.js.errors.APIError as exc:
        if exc.err_code != STREAM_NAME_IN_USE:  # by a process with another setting
            raise
        return await _adapt(js, config)


async def _adapt(js: JetStreamContext, wanted: StreamConfig) -> StreamInfo:
    """Update an existing stream where Archiver depends on it, but never its replicas."""
    existing = await js.stream_info(str(wanted.name))
    adapted = adapt(existing.config, wanted)
    if adapted == existing.config:
        return existing
    return await js.update_stream(adapted)


def adapt(existing: StreamConfig, wanted: StreamConfig) -> StreamConfig:
    """Return *existing* with the settings of *wanted*, except for replicas and their consequences.

    Settings of the operator, such as limits or placement, stay.
    """
    changes = {
        field.name: value
        for field in fields(wanted)
        if (value := getattr(wanted, field.name)) not in (None, field.default)
    }
    changes["discard"] = wanted.discard  # one of the two is the default
    del changes["num_replicas"]
    if wanted.allow_direct is not None:
        changes["allow_direct"] = existing.num_replicas == 1
    return existing.evolve(**changes)
