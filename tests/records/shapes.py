"""The shapes of all records, as JSON Schema, in a file that tests compare with the code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from archiver.client.lock_file import Entry
from archiver.jetstream.records import (
    BreakerEvent,
    BreakerRecord,
    CopiesRecord,
    DueRecord,
    FinishedRecord,
    Order,
    RepairRecord,
    RevRecord,
    SeatsRecord,
    StockRecord,
    TaskRecord,
    WaitingRecord,
)
from archiver.model import Manifest, Pin, Tombstone
from archiver.ports.queue import WorkerReport
from archiver.record_versions import VERSIONS
from archiver.sources.git.lfs.cache_folder import LfsOwner
from archiver.sources.git.store import Identity
from archiver.storage.bucket import PurgeMark
from archiver.tasks import Failure

SHAPES = Path(__file__).with_name("shapes.json")

TYPES: Mapping[str, type] = {
    "manifest": Manifest,
    "tombstone": Tombstone,
    "pin": Pin,
    "purge_mark": PurgeMark,
    "order": Order,
    "task": TaskRecord,
    "due": DueRecord,
    "seats": SeatsRecord,
    "stock": StockRecord,
    "breaker": BreakerRecord,
    "breaker_event": BreakerEvent,
    "copies": CopiesRecord,
    "rev": RevRecord,
    "repair": RepairRecord,
    "failure": Failure,
    "finished": FinishedRecord,
    "waiting": WaitingRecord,
    "worker_report": WorkerReport,
    "mirror": Identity,
    "lfs_owner": LfsOwner,
    "lock_file": Entry,
}
TEXTS = {"sha256": "the key of an archive", "use": "a day, as 2026-11-27"}
"""Records that are no JSON."""


def shape_of(record: str) -> Any:  # noqa: ANN401
    """Return the schema of a record without the descriptions, and its version."""
    schema = _bare(msgspec.json.schema(TYPES[record])) if record in TYPES else TEXTS[record]
    return {"version": VERSIONS[record], "shape": schema}


def current() -> dict[str, Any]:
    shapes: dict[str, Any] = json.loads(json.dumps({each: shape_of(each) for each in VERSIONS}))
    return shapes


def text() -> str:
    return json.dumps(current(), indent=1, sort_keys=True) + "\n"


def _bare(schema: Any) -> Any:  # noqa: ANN401
    if isinstance(schema, dict):
        kept = {k: v for k, v in schema.items() if k not in {"title", "description"}}
        if "properties" in schema:
            kept["properties"] = dict(schema["properties"])
        return {name: _bare(value) for name, value in kept.items()}
    return list(map(_bare, schema)) if isinstance(schema, list) else schema


def differences(old: Any, new: Any, where: str = "") -> list[str]:  # noqa: ANN401
    """Return what a reader of the shape *old* cannot read of *new*, or the other way round.

    A new member that may be missing is no difference, and neither is a new value of an enumeration.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        found = [f"{where}: {name} is gone" for name in old if name not in new]
        for name in (name for name in old if name in new):
            found += differences(old[name], new[name], f"{where}.{name}")
        return found
    if where.endswith(".required"):
        old, new = sorted(old), sorted(new)
    if where.endswith(".enum"):
        return [f"{where}: {value} is gone" for value in old if value not in new]
    return [] if old == new else [f"{where}: {old} became {new}"]
