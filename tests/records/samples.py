"""A value of each record in NATS, as this release encodes it, and its decoder."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from archiver.errors import PartOrigin
from archiver.jetstream import records
from archiver.jetstream.records import encode
from archiver.model import Completeness, Copies, Region
from archiver.tasks import Failure, Phase, TaskState
from archiver.tree_proof import LfsFile, Part, TreeMatch, TreeProof
from tests.parts.fleet import an_archive, copies_of, proven_copies

NOW = datetime.now(UTC)
ORIGIN = PartOrigin(path="lib", url="https://host.example/lib", source="hgmo", repo="lib")
FAILURE = Failure(code="c", message="m", origins=(ORIGIN,))
ARCHIVE = an_archive()
BREAKER = records.BreakerRecord(
    failures=1, openings=1, code="source_busy", until=NOW, probe="p", probe_until=NOW
)


class Sample(NamedTuple):
    """``document`` is the decoded JSON of the encoded record."""

    document: dict[str, Any]
    decode: Callable[[bytes], object | None]


def full_copies() -> Copies:
    """Return copies whose manifest has every field."""
    part = Part(
        origin=ORIGIN, node="a" * 40, commit=b"c", tree="b" * 40, match=TreeMatch.ATTRIBUTES
    )
    file = LfsFile(path="a", sha256="0" * 64, size_bytes=1)
    proof = TreeProof(
        commit=b"x",
        tree="c" * 40,
        match=TreeMatch.LISTED,
        parts=(part,),
        lfs_files=1,
        lfs=(file,),
    )
    return proven_copies(ARCHIVE, proof, "one", "two")


def a_task() -> records.TaskRecord:
    return records.TaskRecord(
        key=ARCHIVE.key,
        owner="x",
        sequence=1,
        delivery=1,
        vanished=0,
        state=TaskState.STARTED,
        phase=Phase.FETCHING,
        bytes_done=1,
        attempt=1,
        failures=0,
        error=FAILURE,
        created_at=NOW,
        started_at=NOW,
        updated_at=NOW,
        outage_since=NOW,
        client="c",
    )


def _sample(record: object, decode: Callable[[bytes], object | None]) -> Sample:
    return Sample(json.loads(encode(record)), decode)


SAMPLES: Mapping[str, Sample] = {
    "order": _sample(
        records.Order(key=ARCHIVE.key, created_at=NOW, client="c"), records.decode_order
    ),
    "task": _sample(a_task(), records.decode_task),
    "due": _sample(records.DueRecord(due_at=NOW), records.decode_due),
    "seats": _sample(records.SeatsRecord(holders={"a": NOW}), records.decode_seats),
    "stock": _sample(
        records.StockRecord(
            counted_at=NOW,
            regions=(records.RegionStockRecord(region=Region("one"), archives=1, size_bytes=1),),
        ),
        records.decode_stock,
    ),
    "breaker": _sample(BREAKER, records.decode_breaker),
    "breaker_event": _sample(
        records.BreakerEvent(key="breaker.source.hgmo", record=BREAKER, revision=1),
        records.decode_breaker_event,
    ),
    "copies": _sample(
        records.CopiesRecord(
            manifest=full_copies().manifest,
            regions=(Region("one"),),
            checked_at=NOW - timedelta(minutes=1),
            places={Region("one"): "p"},
        ),
        records.decode_copies,
    ),
    "rev": _sample(records.RevRecord(node="a" * 40, at=NOW), records.decode_rev),
    "repair": _sample(
        records.RepairRecord(key=ARCHIVE.key, missing=[Region("two")], due_at=NOW),
        records.decode_repair,
    ),
    "failure": _sample(FAILURE, records.decode_failure),
    "finished": _sample(
        records.FinishedRecord(source="hgmo", duration_s=1.0), records.decode_finished
    ),
    "waiting": _sample(
        records.WaitingRecord(source="hgmo", priority="hi", after_s=1.0), records.decode_waiting
    ),
}

ENUMERATIONS = (
    *(each.value for each in (*Phase, *TreeMatch, *Completeness)),
    *("hi", "mid", "lo", "c"),
)
"""Values that a later release may replace by others of its own."""

__all__ = ("ARCHIVE", "ENUMERATIONS", "NOW", "SAMPLES", "Sample", "copies_of")
