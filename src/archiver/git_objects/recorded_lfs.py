"""The Git LFS files of a repository, as the record in an archive lists them."""

from collections.abc import Iterable, Mapping, Sequence

from archiver.errors import LfsRefused, WrongTree
from archiver.git_objects.ids import object_id
from archiver.git_objects.lfs_pointer import Pointer, parse_pointer
from archiver.names import display_path


class RecordedLfs:
    """Implements ``LfsCheck``. *gaps* and *pointers* are those of a ``RepositoryRecord``.

    ``count`` is the number of LFS files so far.
    """

    def __init__(self, gaps: Sequence[int], *, pointers: Mapping[int, bytes], digits: int) -> None:
        self._indexes: dict[int, int] = {}
        number = -1
        for index, gap in enumerate(gaps):
            number += gap + 1
            self._indexes[number] = index
        self._pointers = pointers
        self._digits = digits
        self._number = -1
        self.count = 0

    def replaces(self, path: bytes) -> bool:  # noqa: ARG002 - files are numbered
        self._number += 1
        return self._number in self._indexes

    def pointer_id(self, path: bytes, sha256: str, size_bytes: int) -> str:
        pointer = Pointer(sha256, size_bytes)
        text = self._pointers.get(self._indexes[self._number], pointer.text)
        if text != pointer.text and _parse(text) != pointer:
            raise WrongTree(f"{display_path(path)} is not the file that its pointer names")
        self.count += 1
        return object_id("blob", text, digits=self._digits)


def _parse(text: bytes) -> Pointer | None:
    try:
        return parse_pointer(text)
    except LfsRefused:
        return None


def gaps_between(are_lfs: Iterable[bool]) -> tuple[int, ...]:
    """Return the ``lfs`` of a record for all files of a repository, in the archive's order."""
    gaps, gap = [], 0
    for is_lfs in are_lfs:
        if is_lfs:
            gaps.append(gap)
            gap = 0
        else:
            gap += 1
    return tuple(gaps)
