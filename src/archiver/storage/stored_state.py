"""Which manifest counts, and which regions have copies, according to all regions' answers."""

from collections.abc import Iterator, Mapping

from archiver.errors import (
    ArchiverError,
    PurgeUnfinished,
    StorageUnavailable,
    UnreadableManifest,
)
from archiver.model import Archive, Copies, Manifest, Region
from archiver.ports.storage import StoredState
from archiver.storage.bucket import DanglingManifest
from archiver.telemetry import log

Answer = Manifest | DanglingManifest | ArchiverError | None
Answers = Mapping[Region, Answer]
"""Each region's copy of one archive, or its error. In the configured order of regions."""


def evaluate(archive: Archive, answers: Answers) -> StoredState:
    """Return the state of *archive* according to *answers*. Raises as ``ports.Storage.find``."""
    _require_conclusive(answers)
    copies = copies_of(archive, answers)
    return StoredState(
        copies=copies,
        unreachable=tuple(region for region, answer in answers.items() if _is_unknown(answer)),
        dangling_manifest=None if copies else next(_iter_manifests(answers), None),
    )


def copies_of(archive: Archive, answers: Answers) -> Copies | None:
    """Return the authoritative manifest, and all regions with the same manifest and its object.

    The first manifest is authoritative. If its bytes are gone everywhere, a later region's
    manifest stands in, provided that clients of the first one may get its bytes.
    """
    first = next(_iter_manifests(answers), None)
    if first is None:
        return None
    complete = {
        region: answer for region, answer in answers.items() if isinstance(answer, Manifest)
    }
    _log_differing(archive, first, complete)
    if first not in complete.values():
        lost = not any(_is_unknown(answer) for answer in answers.values())
        stand_ins = (m for m in complete.values() if _may_stand_in(m, first, lost=lost))
        first = next(stand_ins, first)
    regions = tuple(region for region, manifest in complete.items() if manifest == first)
    return Copies(manifest=first, regions=regions) if regions else None


def _require_conclusive(answers: Answers) -> None:
    """Return if *answers* show whether the archive exists.

    A damaged manifest counts as a manifest, even if other regions return 404.
    """
    failures = [answer for answer in answers.values() if isinstance(answer, ArchiverError)]
    for failure in failures:
        if isinstance(failure, PurgeUnfinished):  # whatever the other regions still have
            raise failure
    damaged = [failure for failure in failures if isinstance(failure, UnreadableManifest)]
    if damaged and not any(_iter_manifests(answers)):
        raise UnreadableManifest("the archive's manifest cannot be read") from damaged[0]
    if failures and len(failures) == len(answers):
        raise StorageUnavailable("no region answered whether it has the archive") from failures[0]


def _log_differing(archive: Archive, first: Manifest, manifests: Mapping[Region, Manifest]) -> None:
    for region, manifest in manifests.items():
        if manifest != first:
            log.warning(
                "copy.differs",
                region=region,
                key=archive.key,
                sha256=manifest.sha256,
                expected_sha256=first.sha256,
            )


def _may_stand_in(manifest: Manifest, first: Manifest, *, lost: bool) -> bool:
    """Return whether clients of *first* may get the bytes of *manifest* (decision 6).

    They may if the bytes are the same, or if *manifest* is older and the bytes of *first* are
    *lost*.
    """
    return manifest.sha256 == first.sha256 or (lost and manifest.created_at < first.created_at)


def _is_unknown(answer: Answer) -> bool:
    return isinstance(answer, ArchiverError) or (
        isinstance(answer, DanglingManifest) and answer.uncertain
    )


def _iter_manifests(answers: Answers) -> Iterator[Manifest]:
    """Yield all manifests, dangling ones included: each of them is a promise."""
    for answer in answers.values():
        if isinstance(answer, DanglingManifest):
            yield answer.manifest
        elif isinstance(answer, Manifest):
            yield answer
