"""How tasks, copies and revs are written in NATS: JSON, one flat object each."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

from archiver.jetstream.kv_buckets import ENTRY_MAX_BYTES
from archiver.model import Archive, Copies, Manifest, Node, Region, parse_key, parse_node
from archiver.ports.index import Resolved
from archiver.tasks import Failure, Phase, Priority, Task, TaskState

R = TypeVar("R")

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""No count comes near this limit. Python writes no number of more than 4300 digits."""

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with a zone: Python does not compare it with one that has none."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(2200, 1, 1, tzinfo=UTC)
"""Between these, adding a wait to a time, or changing its zone, never overflows."""

DUE_MAX = timedelta(days=30)
"""How far ahead a repair may be due. Its entry keeps out any other one for the archive."""

RECORD_MAX_BYTES = 4 * ENTRY_MAX_BYTES
"""A longer value is not decoded. No bucket takes one; the queue and the feed might bring one."""

AHEAD_MAX = timedelta(hours=1)
"""How far the clocks of a fleet may differ."""

DURATION_MAX_S = 30 * 86400.0
WAIT_MAX_S = 3600.0


def _require_sane(*moments: datetime | None) -> None:
    """Raise ValueError if a time is so far away that nothing can be reckoned with it."""
    if not all(BEGINNING <= moment <= END for moment in moments if moment):
        raise ValueError("it is of another age")


def _require_past(moment: datetime) -> None:
    """Raise ValueError if a value claims to be of the future: it would never grow old."""
    _require_sane(moment)
    if moment > datetime.now(UTC) + AHEAD_MAX:
        raise ValueError("it is of the future")


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A task's state, and who may write it.

    ``owner`` is the attempt that holds the lease; ``sequence`` the message in the work queue that
    is being worked on; ``delivery`` how often that message was handed out when the owner took it;
    ``vanished`` how many owners fell silent. ``outage_since`` tells for how long an outage of ours
    has kept the task waiting, ``spoiled`` how many attempts it broke off that had begun to fetch.
    """

    key: str
    owner: str
    sequence: Count
    delivery: Count
    vanished: Count
    state: TaskState
    phase: Phase
    bytes_done: Count
    attempt: Count
    failures: Count
    error: Failure | None
    created_at: Moment | None
    started_at: Moment | None
    updated_at: Moment | None
    outage_since: Moment | None = None
    spoiled: Count = 0

    def __post_init__(self) -> None:
        _require_sane(self.created_at, self.started_at, self.updated_at, self.outage_since)

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
    created_at: Moment

    def __post_init__(self) -> None:
        _require_sane(self.created_at)

    def archive(self, subject: str) -> Archive | None:
        """Return what to build, or None if no message on *subject* may ask for it."""
        archive = parse_key(self.key)
        lane = (archive.source, archive.key_hash) if archive else None
        return archive if lane == tuple(subject.split(".")[-2:]) else None


NEVER = BEGINNING


class CopiesRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the index. ``checked_at`` is when the copies were last seen in the buckets.

    ``places`` are those buckets, as ``ports.Storage`` has them: a region's name may lead to another
    one by now, or in another process.
    """

    manifest: Manifest
    regions: tuple[Region, ...]
    checked_at: Moment = NEVER
    places: Mapping[Region, str] = {}

    def __post_init__(self) -> None:
        _require_past(self.checked_at)

    @classmethod
    def of(
        cls, copies: Copies, checked_at: datetime, places: Mapping[Region, str]
    ) -> "CopiesRecord":
        return cls(
            manifest=copies.manifest,
            regions=copies.regions,
            checked_at=checked_at,
            places={region: place for region, place in places.items() if region in copies.regions},
        )

    def moved(self, places: Mapping[Region, str]) -> frozenset[Region]:
        """Return the regions that are not where they were, to who has these *places*."""
        return frozenset(r for r, place in self.places.items() if places.get(r, place) != place)


class RevRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The node that a rev named at a certain moment."""

    node: str
    at: Moment

    def __post_init__(self) -> None:
        _require_past(self.at)
        if parse_node(self.node) != self.node:
            raise ValueError("it is no node")

    @classmethod
    def of(cls, resolved: Resolved) -> "RevRecord":
        return cls(node=resolved.node, at=resolved.at)

    def resolved(self) -> Resolved:
        return Resolved(node=Node(self.node), at=self.at)


class RepairRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Regions that lack a copy, and when to try next; ``tries`` counts tasks made for it."""

    key: str
    missing: Sequence[Region]
    due_at: Moment
    tries: Count = 0

    def __post_init__(self) -> None:
        _require_sane(self.due_at)
        if self.due_at > datetime.now(UTC) + DUE_MAX:
            raise ValueError("it would never be due")


class FinishedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the feed tells of an archive that was made."""

    source: str
    duration_s: Annotated[float, msgspec.Meta(ge=0, le=DURATION_MAX_S)]


class WaitingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """News that a task can be claimed again, in ``after_s`` seconds."""

    source: str
    priority: Priority
    after_s: Annotated[float, msgspec.Meta(ge=0, le=WAIT_MAX_S)] = 0.0


def _decoder(kind: type[R]) -> Callable[[bytes], R | None]:
    """Return a function that reads a record, and returns None for any other bytes.

    The limit on a record's length is a limit on each of its strings and lists.
    """
    decode = msgspec.json.Decoder(kind).decode

    def read(value: bytes) -> R | None:
        if len(value) > RECORD_MAX_BYTES:
            return None
        try:
            return decode(value)
        except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError):
            return None

    return read


encode = msgspec.json.encode
decode_task = _decoder(TaskRecord)
decode_order = _decoder(Order)
decode_copies = _decoder(CopiesRecord)
decode_repair = _decoder(RepairRecord)
decode_rev = _decoder(RevRecord)
decode_finished = _decoder(FinishedRecord)
decode_waiting = _decoder(WaitingRecord)
decode_failure = _decoder(Failure)
