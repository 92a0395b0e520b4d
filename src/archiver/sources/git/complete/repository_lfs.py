"""The LFS files of one repository in a complete archive."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from archiver.errors import WrongTree
from archiver.git_objects import EXECUTABLE, FILE
from archiver.git_objects.recorded_lfs import gaps_between
from archiver.names import display_path
from archiver.runtime.threads import run_in_thread
from archiver.sources.git.attributes import MAY_BE_OMITTED
from archiver.sources.git.lfs.cache import LfsCache
from archiver.sources.git.lfs.client import LfsClient
from archiver.sources.git.lfs.files import LfsFiles
from archiver.sources.git.lfs.lfs_config import read_lfs_url
from archiver.sources.git.lfs.pointer_search import LfsEntry, find_pointers
from archiver.sources.git.snapshot import Snapshot

_FILES = frozenset({FILE, EXECUTABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryLfs:
    """The pointers by their paths, and the ``files`` that replace them.

    ``gaps`` are those of a ``RepositoryRecord``. Attributes leave ``omitted`` pointers out of the
    archive, so their files are not fetched.
    """

    pointers: Mapping[bytes, LfsEntry]
    files: LfsFiles
    gaps: Sequence[int]
    omitted: frozenset[bytes]

    @property
    def size_bytes(self) -> int:
        return sum(entry.pointer.size_bytes for entry in self.pointers.values())

    @property
    def unusual(self) -> Sequence[tuple[int, bytes]]:
        """The pointers that do not have the usual form, by their index."""
        entries = enumerate(self.pointers.values())
        return [(index, each.text) for index, each in entries if each.text != each.pointer.text]

    # The methods of ``git_objects.LfsCheck``:

    def replaces(self, path: bytes) -> bool:
        if path in self.omitted:
            raise WrongTree(f"{display_path(path)} is there, although attributes leave it out")
        return path in self.pointers

    def pointer_id(self, path: bytes, sha256: str, size_bytes: int) -> str:
        entry = self.pointers[path]
        if (sha256, size_bytes) != (entry.pointer.sha256, entry.pointer.size_bytes):
            raise WrongTree(f"{display_path(path)} is not the file that its pointer names")
        return entry.object_id


async def find_lfs(snapshot: Snapshot, client: LfsClient, cache: LfsCache) -> RepositoryLfs | None:
    """Return the LFS files of *snapshot*, which are not fetched yet; None if it has none.

    Raises as ``find_pointers``.
    """
    archive, mirror = snapshot.archive, snapshot.mirror
    if not snapshot.listing.attributes_files and not archive.subdir:
        return None  # most submodules: saves two processes for each
    found = await find_pointers(mirror, archive, snapshot.listing)
    if not found:
        return None
    pointers = {entry.path: entry for entry in found}
    kept, gaps = await run_in_thread(_look_through, snapshot, pointers)
    entries = list(kept.values())
    files = LfsFiles(
        client,
        cache,
        archive.repo,
        entries,
        client.limits,
        lfs_url=await read_lfs_url(mirror, archive.node),
    )
    omitted = frozenset(pointers.keys() - kept.keys())
    return RepositoryLfs(pointers=kept, files=files, gaps=gaps, omitted=omitted)


def _look_through(
    snapshot: Snapshot, pointers: Mapping[bytes, LfsEntry]
) -> tuple[dict[bytes, LfsEntry], Sequence[int]]:
    """Return those of *pointers* that no attribute leaves out, and the gaps between them."""
    kept: dict[bytes, LfsEntry] = {}

    def are_lfs() -> Iterator[bool]:
        for entry, effect in zip(snapshot.listing, snapshot.effects, strict=False):
            if entry.mode not in _FILES or effect == MAY_BE_OMITTED:
                continue
            if pointer := pointers.get(entry.path):
                kept[entry.path] = pointer
            yield pointer is not None

    return kept, gaps_between(are_lfs())
