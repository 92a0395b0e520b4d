"""A difference between manifests, objects and the index, as ``archiver fsck`` reports it."""

from dataclasses import dataclass
from enum import StrEnum

from archiver.model import Archive, Region


class DefectKind(StrEnum):
    MISSING = "missing"  # a manifest whose object is gone
    DAMAGED = "damaged"  # an object that has not the size or the sha256 of its manifest
    UNCOPIED = "uncopied"  # an archive of another region
    DIFFERING = "differing"  # a manifest that is not the one that counts
    UNREADABLE = "unreadable"  # a manifest that is not valid
    PURGING = "purging"  # the mark of a purge that has not ended
    ORPHAN = "orphan"  # an object that no manifest names
    UNFINISHED = "unfinished"  # a multipart upload that was never completed
    FOREIGN = "foreign"  # an object that Archiver does not write
    UNINDEXED = "unindexed"  # an archive that the index lacks
    MISINDEXED = "misindexed"  # an entry of the index that differs from the buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One defect. ``region`` is None for the index; ``size_bytes`` is None if it is unknown.

    ``key`` is that of an object or, without one, of an archive. ``repaired`` is true as well if
    the repair is left to the fleet.
    """

    kind: DefectKind
    key: str
    region: Region | None = None
    size_bytes: int | None = None
    archive: Archive | None = None
    repaired: bool = False
