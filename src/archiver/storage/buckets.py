"""The buckets of all regions, asked at once; what their answers come to."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from archiver.errors import ArchiverError, StorageUnavailable, UnreadableManifest
from archiver.model import Archive, Copies, Manifest, Region
from archiver.ports.storage import Found
from archiver.storage.bucket import Bare, Bucket
from archiver.storage.questions import Answers, Questions, outcome
from archiver.telemetry import log

T = TypeVar("T")


class Buckets:
    """One bucket per region, in the configured order."""

    def __init__(self, *, buckets: Sequence[Bucket]) -> None:
        self._buckets = {bucket.region: bucket for bucket in buckets}
        self._questions = Questions()
        self.regions = tuple(self._buckets)

    def bucket(self, region: Region) -> Bucket:
        try:
            return self._buckets[region]
        except KeyError:
            raise StorageUnavailable(f"there is no region {region} here") from None

    async def find(self, archive: Archive) -> Found:
        answers = await self._questions.ask(
            {region: bucket.copy(archive) for region, bucket in self._buckets.items()}
        )
        _require_said(answers)
        copies = copies_of(archive, answers)
        return Found(
            copies=copies,
            unreachable=tuple(region for region, told in answers.items() if _is_open(told)),
            promised=None if copies else next(_manifests(answers), None),
        )

    async def writable(self) -> dict[Region, StorageUnavailable | None]:
        answers = await self._questions.ask(
            {region: bucket.require_writable() for region, bucket in self._buckets.items()}
        )
        return {
            region: answer if isinstance(answer, StorageUnavailable) else None
            for region, answer in answers.items()
        }

    async def each(
        self, regions: Iterable[Region], ask: Callable[[Bucket], Coroutine[Any, Any, T]]
    ) -> Answers[T]:
        """Ask all *regions* at once, and wait for all; return what each answered, or why not."""
        regions = tuple(regions)
        answers = await asyncio.gather(*(outcome(ask(self._buckets[r])) for r in regions))
        return dict(zip(regions, answers, strict=True))

    async def delete(self, object_key: str, regions: Iterable[Region]) -> None:
        """Delete what no manifest names. What a region keeps all the same costs but its space."""
        await self.each(regions, lambda bucket: bucket.delete(object_key))


def _require_said(answers: Answers[Manifest | Bare | None]) -> None:
    """Return if *answers* say whether there is an archive.

    A damaged manifest is one all the same, whatever the regions say that have none.

    Raises:
        UnreadableManifest: There is a manifest, and none that can be read.
        StorageUnavailable: No region answers.
    """
    failures = [answer for answer in answers.values() if isinstance(answer, ArchiverError)]
    damaged = [failure for failure in failures if isinstance(failure, UnreadableManifest)]
    if damaged and not any(_manifests(answers)):
        raise UnreadableManifest("the manifest of the archive cannot be read") from damaged[0]
    if failures and len(failures) == len(answers):
        raise StorageUnavailable("no region says whether it has the archive") from failures[0]


def copies_of(
    archive: Archive, answers: Mapping[Region, Manifest | Bare | ArchiverError | None]
) -> Copies | None:
    """Return the manifest that is right and all regions that hold the very same one and its bytes.

    The first manifest is right. If every region has lost its bytes, so is another one whose bytes
    are there, and which breaks no promise of the first.
    """
    first = next(_manifests(answers), None)
    if first is None:
        return None
    whole = {region: told for region, told in answers.items() if isinstance(told, Manifest)}
    for region, manifest in whole.items():
        if manifest != first:
            log.warning(
                "copy.differs",
                region=region,
                key=archive.key,
                sha256=manifest.sha256,
                expected_sha256=first.sha256,
            )
    if first not in whole.values():
        lost = not any(_is_open(told) for told in answers.values())
        first = next((m for m in whole.values() if _keeps_promise(m, first, lost=lost)), first)
    regions = tuple(region for region, manifest in whole.items() if manifest == first)
    return Copies(manifest=first, regions=regions) if regions else None


def _keeps_promise(manifest: Manifest, first: Manifest, *, lost: bool) -> bool:
    """Tell whether clients of *first* may get the bytes of *manifest*: see decision 6.

    These are the same bytes, or they were promised earlier and those of *first* are *lost*.
    """
    return manifest.sha256 == first.sha256 or (lost and manifest.created_at < first.created_at)


def _is_open(told: Manifest | Bare | ArchiverError | None) -> bool:
    """Tell whether a region left open if it has a copy."""
    return isinstance(told, ArchiverError) or (isinstance(told, Bare) and told.unsure)


def _manifests(
    answers: Mapping[Region, Manifest | Bare | ArchiverError | None],
) -> Iterator[Manifest]:
    """Yield all manifests, be they bare or not: each of them is a promise."""
    for answer in answers.values():
        match answer:
            case Manifest():
                yield answer
            case Bare(manifest=manifest):
                yield manifest
            case _:
                pass
