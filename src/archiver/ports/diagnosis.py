"""The regions, the engine and the hosts, as a diagnosis examines them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal, Protocol, TypeAlias

from archiver.ports.queue import WorkerReport


class UploadRule(StrEnum):
    """Whether a bucket's lifecycle rules abort unfinished uploads."""

    SET = "set"
    MISSING = "missing"
    HIDDEN = "hidden"
    """The keys may not read the rules."""
    UNSUPPORTED = "unsupported"
    """The server has no lifecycle rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """The rules of a bucket. With ``expires``, one of them deletes objects by their age."""

    uploads: UploadRule
    expires: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAnswer:
    """The answer to a request for a presigned URL. ``code`` is S3's, if it is an error."""

    status: int
    body: bytes
    size_bytes: int | None
    code: str | None = None


class TrialBucket(Protocol):
    """A region's bucket, with a trial object of its own that no archive has.

    Every method raises StorageUnavailable, with ``s3_code``.
    """

    async def list_objects(self) -> None:
        """Return if the bucket exists and can be listed."""

    async def clock_lead(self) -> timedelta | None:
        """Return how far the server's clock is ahead of ours; None if it sends no time."""

    async def create(self, body: bytes) -> bool:
        """Write the trial object create-only; False if the server refuses, because it exists."""

    async def read(self) -> bytes:
        """Return the trial object."""

    async def follow_link(
        self, method: Literal["GET", "HEAD"], *, first_bytes: int | None = None
    ) -> LinkAnswer:
        """Request the trial object as clients do: its presigned URL at the public endpoint."""

    async def list_uploads(self) -> None:
        """Return if the bucket lists its unfinished uploads."""

    async def lifecycle(self) -> Lifecycle:
        """Return what the bucket's lifecycle rules do."""

    async def delete(self) -> None:
        """Delete the trial object, if it exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFault:
    """Why the engine cannot be used: a stable ``reason``, and what an operator should ``check``."""

    reason: str
    check: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The NATS server.

    ``cluster_size`` is the most servers that its cluster may have, itself included; None if that is
    unknown.
    """

    version: tuple[int, int, int]
    cluster_size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """A stream that exists. ``fullness`` is the used part of its room; -1 bytes are no limit.

    ``leaderless`` names the stream and the consumers of it that no server leads.
    """

    name: str
    replicas: int
    current: int
    leaderless: tuple[str, ...]
    fullness: float
    max_bytes: int
    wanted_max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFacts:
    """JetStream's account, its streams, and the ``missing`` ones.

    A ``max_bytes`` of -1 is no limit. ``missing_bytes`` is what the missing streams would reserve.
    """

    used_bytes: int
    max_bytes: int
    streams: Sequence[StreamFacts]
    missing: Sequence[str]
    missing_bytes: int


class InspectedEngine(Protocol):
    """The engine, of which nothing is created or changed."""

    def server(self) -> ServerFacts | EngineFault:
        """Return the server that is connected, or why none is."""

    async def storage(self) -> StorageFacts | EngineFault:
        """Return what JetStream holds."""

    async def workers(self) -> Sequence[WorkerReport]:
        """Return the report of each worker that answers. Raises EngineUnavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """Why a host gives no answer, as a clause, and what an operator should ``check``."""

    found: str
    check: str


Reach: TypeAlias = Callable[[], Awaitable[int | Unreachable]]
"""Sends one small request to a host, and returns the status of its answer."""
