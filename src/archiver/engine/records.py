"""How tasks, copies and revs are written in NATS: JSON, one flat object each."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from archiver.model import Archive, Copies, Manifest, Region
from archiver.ports import Resolved
from archiver.tasks import Failure, Phase, Task, TaskState


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A task's state, and who may write it.

    ``owner`` is the attempt that holds the lease; ``sequence`` the message in the work queue that
    is being worked on; ``delivery`` how often that message was handed out when the owner took it;
    ``vanished`` how many owners fell silent.
    """

    key: str
    owner: str
    sequence: int
    delivery: int
    vanished: int
    state: TaskState
    phase: Phase
    bytes_done: int
    attempt: int
    failures: int
    error: Failure | None
    created_at: datetime | None
    started_at: datetime | None
    updated_at: datetime | None

    def task(self, archive: Archive) -> Task:
        return Task(
            archive=archive,
            state=self.state,
            phase=self.phase,
            bytes_done=self.bytes_done,
            attempt=self.attempt,
            failures=self.failures,
            error=self.error,
            created_at=self.created_at,
            started_at=self.started_at,
            updated_at=self.updated_at,
        )


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the work queue: build this archive."""

    key: str
    created_at: datetime


NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class CopiesRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the index. ``checked_at`` is when the copies were last seen in the buckets."""

    manifest: Manifest
    regions: tuple[Region, ...]
    checked_at: datetime = NEVER

    @classmethod
    def of(cls, copies: Copies, checked_at: datetime) -> "CopiesRecord":
        return cls(manifest=copies.manifest, regions=copies.regions, checked_at=checked_at)


class RepairRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Regions that lack a copy, and when to try next; ``tries`` counts tasks made for it."""

    key: str
    missing: Sequence[Region]
    due_at: datetime
    tries: int = 0


class FinishedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the feed tells of an archive that was made."""

    source: str
    duration_s: float


encode = msgspec.json.encode
decode_task = msgspec.json.Decoder(TaskRecord).decode
decode_order = msgspec.json.Decoder(Order).decode
decode_copies = msgspec.json.Decoder(CopiesRecord).decode
decode_repair = msgspec.json.Decoder(RepairRecord).decode
decode_resolved = msgspec.json.Decoder(Resolved).decode
decode_finished = msgspec.json.Decoder(FinishedRecord).decode
decode_failure = msgspec.json.Decoder(Failure).decode

DecodeError = msgspec.DecodeError
