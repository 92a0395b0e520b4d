"""The finding of an audit."""

from dataclasses import dataclass, replace
from enum import StrEnum

from archiver.drift import Drift
from archiver.errors import ArchiverError, CorruptArchive, NotFound, SubmoduleRefused, UnknownSource
from archiver.model import Archive, Conversion, Manifest, Region
from archiver.tasks import Failure


class Outcome(StrEnum):
    """The result of the audit of one archive."""

    SAME = "same"  # the host sent the bytes of the manifest again
    REPACKED = "repacked"  # other bytes, same members: another compressor, or another header
    DIFFERS = "differs"  # other or different members
    INCOMPLETE = "incomplete"  # valid but ends early: the host broke it off when it was fetched
    GONE = "gone"  # the host no longer has it
    CORRUPT = "corrupt"  # the bytes in a region differ from its manifest
    LOST = "lost"  # a manifest exists, but no region has the bytes, whatever the host sends
    UNCHECKED = "unchecked"  # a dependency failed, so there is no verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The bytes that the host sent, or their conversion by the current converter."""

    sha256: str
    size_bytes: int
    source_url: str
    conversion: Conversion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The finding of an audit.

    ``fetched`` is set if the host sent a whole archive, ``drift`` if members were compared,
    ``region`` if its copy is corrupt, and ``failure`` if the audit could not be completed.
    """

    archive: Archive
    outcome: Outcome = Outcome.UNCHECKED
    manifest: Manifest | None = None
    fetched: Fetched | None = None
    drift: Drift | None = None
    region: Region | None = None
    failure: Failure | None = None


class CorruptCopy(CorruptArchive):
    def __init__(self, region: Region) -> None:
        super().__init__(f"the copy in {region} differs from its manifest")
        self.region = region


def with_failure(finding: Finding, exc: ArchiverError) -> Finding:
    """Return *finding* for an audit that *exc* ended.

    A lost archive stays lost whatever fails. Fetched bytes that differ, and that no retry can
    compare by members, are reported as different.
    """
    finding = replace(finding, failure=Failure.of(exc))
    match exc:
        case _ if finding.outcome is Outcome.LOST:
            return finding
        case CorruptCopy():
            return replace(finding, outcome=Outcome.CORRUPT, region=exc.region)
        case NotFound() | SubmoduleRefused() if not isinstance(exc, UnknownSource):
            return replace(finding, outcome=Outcome.GONE)
        case _ if finding.fetched and not exc.retryable:
            return replace(finding, outcome=Outcome.DIFFERS)
        case _:
            return finding
