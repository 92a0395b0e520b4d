"""The records in NATS of tasks, copies, revs and repairs, one JSON object each; unreadable ones."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

from archiver.breaker import NAMED_PAUSE_MAX, Breaker
from archiver.errors import URL_SHOWN_MAX_CHARS, PartOrigin
from archiver.jetstream.streams import COPIES_MAX_BYTES, STATE_MAX_BYTES
from archiver.model import Archive, Copies, Manifest, Region, parse_key, parse_node
from archiver.names import NAME_MAX_BYTES
from archiver.record_versions import VERSIONS
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.tasks import ORIGINS_MAX, Failure, Phase, Task, TaskState
from archiver.telemetry import METRICS, log

R = TypeVar("R")

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""No count comes near this limit. Python cannot write a number of more than 4300 digits."""

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with a zone. Python cannot compare times with and without a zone."""

BREAKER_COUNT_MAX = 1_000_000

BreakerCount = Annotated[int, msgspec.Meta(ge=0, le=BREAKER_COUNT_MAX)]

ErrorCode = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.]{0,64}$")]
"""Shown to operators: a code of Archiver or of S3."""

PAUSE_SLACK = timedelta(minutes=1)
"""How far the clocks of a fleet may differ before its pauses are ignored."""

HolderName = Annotated[str, msgspec.Meta(max_length=64)]

Lane = Annotated[str, msgspec.Meta(max_length=64)]
"""A ``Priority``, or one of a later release."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(2200, 1, 1, tzinfo=UTC)
"""Between these, adding a delay to a time or changing its zone never overflows."""

DUE_MAX = timedelta(days=30)
"""How far ahead a repair or periodic work may be due. Until then, there is no other one."""

RECORD_MAX_BYTES = STATE_MAX_BYTES
"""Longer values, but for copies, are not decoded. No bucket accepts one, but the queue or the feed
might."""

AHEAD_MAX = timedelta(hours=1)
"""How far the clocks of a fleet may differ."""

NOTED_TTL = timedelta(days=1)
NOTED_MAX_BYTES = 4 * MEGABYTE
"""For the names of unreadable values. A forgotten one is logged once more."""

DURATION_MAX_S = 30 * 86400.0
WAIT_MAX_S = 3600.0


def _require_sane(*moments: datetime | None) -> None:
    """Raise ValueError if calculations with one of the times might overflow."""
    if not all(BEGINNING <= moment <= END for moment in moments if moment):
        raise ValueError("time out of range")


def _require_past(moment: datetime) -> None:
    """Raise ValueError if *moment* is in the future: the record would never grow old."""
    _require_sane(moment)
    if moment > datetime.now(UTC) + AHEAD_MAX:
        raise ValueError("time in the future")


def _require_bounded(failure: Failure | None) -> None:
    """Raise ValueError if an origin cannot be one, or if there are too many."""
    origins = failure.origins if failure else ()
    if len(origins) > ORIGINS_MAX or not all(map(_is_origin, origins)):
        raise ValueError("not the origins of an error")


def _is_origin(origin: PartOrigin) -> bool:
    names = (origin.path, origin.source, origin.repo)
    short = all(len(name) <= NAME_MAX_BYTES for name in names)
    shown = all(text.isprintable() for text in (*names, origin.url))
    return short and shown and len(origin.url) <= URL_SHOWN_MAX_CHARS


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What all records have. Those of version 1 do not say so."""

    version: Count | msgspec.UnsetType = msgspec.UNSET


class TaskRecord(Record, frozen=True, kw_only=True):
    """A task's state, and who may write it.

    ``owner`` is the attempt that holds the lease, ``sequence`` the number of its message in the
    work queue, ``delivery`` how often that message had been delivered when the owner received it,
    and ``vanished`` how many owners' leases ran out. ``outage_since`` and ``spoiled`` are those of
    ``OutageHistory``. ``client`` is that of the order.
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
    client: str = ""

    def __post_init__(self) -> None:
        _require_sane(self.created_at, self.started_at, self.updated_at, self.outage_since)
        _require_bounded(self.error)

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


class Order(Record, frozen=True, kw_only=True):
    """A message of the work queue: build this archive.

    ``client`` names the client that caused it, for operators. It is empty for Archiver's own tasks.
    An ``announced`` archive is of a changeset that its host has pushed to Archiver.
    """

    key: str
    created_at: Moment
    client: str = ""
    announced: bool = False

    def __post_init__(self) -> None:
        _require_sane(self.created_at)

    def archive(self, *, source: str, key_hash: str) -> Archive | None:
        """Return the archive to build, or None if a message with these tokens may not name it."""
        archive = parse_key(self.key)
        tokens = (archive.source, archive.key_hash) if archive else None
        return archive if tokens == (source, key_hash) else None


NEVER = BEGINNING


class CopiesRecord(Record, frozen=True, kw_only=True):
    """An entry of the index. ``checked_at`` is when the copies were last seen in the buckets.

    ``places`` identify these buckets, as in ``ports.storage.Storage``. A region's name may stand
    for another bucket by now, or in another process. The commit of a proof is only in the buckets.
    """

    manifest: Manifest
    regions: tuple[Region, ...]
    checked_at: Moment = NEVER
    places: Mapping[Region, str] = {}

    def __post_init__(self) -> None:
        _require_past(self.checked_at)
        names = (*self.regions, *self.places, *self.places.values())
        if any(len(name) > NAME_MAX_BYTES for name in names):
            raise ValueError("not the name of a region")

    @classmethod
    def of(
        cls, copies: Copies, checked_at: datetime, places: Mapping[Region, str]
    ) -> "CopiesRecord":
        return cls(
            manifest=copies.manifest.without_commit(),
            regions=copies.regions,
            checked_at=checked_at,
            places={region: place for region, place in places.items() if region in copies.regions},
        )

    def moved(self, places: Mapping[Region, str]) -> frozenset[Region]:
        """Return the regions whose buckets are others than in *places*."""
        return frozenset(r for r, place in self.places.items() if places.get(r, place) != place)


class RevRecord(Record, frozen=True, kw_only=True):
    """The node that a rev named at a certain moment."""

    node: str
    at: Moment

    def __post_init__(self) -> None:
        _require_past(self.at)
        if parse_node(self.node) != self.node:
            raise ValueError("not a node")


class RepairRecord(Record, frozen=True, kw_only=True):
    """Regions that lack a copy, and when to try next. ``tries`` counts the tasks created so far."""

    key: str
    missing: Sequence[Region]
    due_at: Moment
    tries: Count = 0

    def __post_init__(self) -> None:
        _require_sane(self.due_at)
        if self.due_at > datetime.now(UTC) + DUE_MAX:
            raise ValueError("due too far in the future")


class DueRecord(Record, frozen=True, kw_only=True):
    """When a piece of periodic work is due."""

    due_at: Moment

    def __post_init__(self) -> None:
        _require_sane(self.due_at)
        if self.due_at > datetime.now(UTC) + DUE_MAX:
            raise ValueError("due too far in the future")


class RegionStockRecord(msgspec.Struct, frozen=True, kw_only=True):
    """See ``ports.stock.RegionStock``."""

    region: Region
    archives: Count
    size_bytes: Count


class StockRecord(Record, frozen=True, kw_only=True):
    """See ``ports.stock.Stock``."""

    counted_at: Moment
    regions: tuple[RegionStockRecord, ...]

    def __post_init__(self) -> None:
        _require_past(self.counted_at)


class SeatsRecord(Record, frozen=True, kw_only=True):
    """The holders of a source's seats, with the ends of their leases."""

    holders: Mapping[HolderName, Moment]

    def __post_init__(self) -> None:
        for until in self.holders.values():
            _require_past(until)  # but for the length of a lease


class BreakerRecord(Record, frozen=True, kw_only=True):
    """A breaker: see ``breaker.Breaker``, whose fields these are."""

    failures: BreakerCount = 0
    openings: BreakerCount = 0
    code: ErrorCode = ""
    until: Moment | None = None
    probe: HolderName = ""
    probe_until: Moment | None = None

    def __post_init__(self) -> None:
        _require_sane(self.until, self.probe_until)
        latest = datetime.now(UTC) + NAMED_PAUSE_MAX + PAUSE_SLACK
        if any(moment > latest for moment in (self.until, self.probe_until) if moment):
            raise ValueError("a pause of an impossible length")

    @classmethod
    def of(cls, breaker: Breaker) -> "BreakerRecord":
        return cls(
            failures=min(breaker.failures, BREAKER_COUNT_MAX),
            openings=min(breaker.openings, BREAKER_COUNT_MAX),
            code=breaker.code,
            until=breaker.until,
            probe=breaker.probe,
            probe_until=breaker.probe_until,
        )

    @property
    def breaker(self) -> Breaker:
        return Breaker(
            failures=self.failures,
            openings=self.openings,
            code=self.code,
            until=self.until,
            probe=self.probe,
            probe_until=self.probe_until,
        )


class BreakerEvent(Record, frozen=True, kw_only=True):
    """An event of the feed: the breaker with this key has changed, and has this revision now."""

    key: Annotated[str, msgspec.Meta(max_length=128)]
    record: BreakerRecord
    revision: Count


class FinishedRecord(Record, frozen=True, kw_only=True):
    """An event of the feed: an archive was built."""

    source: str
    duration_s: Annotated[float, msgspec.Meta(ge=0, le=DURATION_MAX_S)]


class WaitingRecord(Record, frozen=True, kw_only=True):
    """An event of the feed: a task can be claimed again in ``after_s`` seconds."""

    source: str
    priority: Lane
    after_s: Annotated[float, msgspec.Meta(ge=0, le=WAIT_MAX_S)] = 0.0


def _decoder(
    kind: type[R], record: str, *, max_bytes: int = RECORD_MAX_BYTES
) -> Callable[[bytes], R | None]:
    """Return a decoder of values of *kind*, whose version is that of *record*, or an earlier one.

    It ignores members that it does not know, and returns None for any other value.
    """
    decode, latest = msgspec.json.Decoder(kind).decode, VERSIONS[record]

    def decode_or_none(value: bytes) -> R | None:
        if len(value) > max_bytes:  # limits each string and list, too
            return None
        try:
            decoded = decode(value)
        except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError):
            return None
        version = getattr(decoded, "version", msgspec.UNSET) or 1
        return decoded if version <= latest else None

    return decode_or_none


encode = msgspec.json.encode
decode_task = _decoder(TaskRecord, "task")
decode_order = _decoder(Order, "order")
decode_copies = _decoder(CopiesRecord, "copies", max_bytes=4 * COPIES_MAX_BYTES)
decode_repair = _decoder(RepairRecord, "repair")
decode_due = _decoder(DueRecord, "due")
decode_rev = _decoder(RevRecord, "rev")
decode_seats = _decoder(SeatsRecord, "seats")
decode_stock = _decoder(StockRecord, "stock")
decode_breaker = _decoder(BreakerRecord, "breaker")
decode_breaker_event = _decoder(BreakerEvent, "breaker_event")
decode_finished = _decoder(FinishedRecord, "finished")
decode_waiting = _decoder(WaitingRecord, "waiting")


def decode_failure(value: bytes) -> Failure | None:
    failure = _decode_any_failure(value)
    try:
        _require_bounded(failure)
    except ValueError:
        return None
    return failure


_decode_any_failure = _decoder(Failure, "failure")


class UnreadableValues:
    """Logs and counts each unreadable value once a day."""

    def __init__(self) -> None:
        self._noted: BoundedCache[tuple[str, str, int], None] = BoundedCache(
            ttl=NOTED_TTL, max_bytes=NOTED_MAX_BYTES
        )

    def note(self, place: str, key: str, revision: int = 0, *, newer: bool = False) -> None:
        """Note the value at *key* of a bucket, the queue or the feed. *newer*: it stays there."""
        if (place, key, revision) in self._noted:
            return
        self._noted.put((place, key, revision), None)
        METRICS.unreadable.labels(place=place).inc()
        if newer:
            log.warning("value.newer", place=place, key=key, revision=revision)
        else:
            log.warning("value.unreadable", place=place, key=key, revision=revision)
