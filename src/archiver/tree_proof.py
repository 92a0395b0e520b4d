"""The proof that an archive has the files of its git commit, as its manifest records it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from archiver.errors import PartOrigin
from archiver.record_versions import is_word

COMMIT_MAX_BYTES = 32 << 10
"""Maximum size of a commit in a manifest, some fifty times the usual one."""

PART_COMMITS_MAX_BYTES = 256 << 10
"""Maximum size of the commits of all submodules in a manifest."""

LFS_LISTED_MAX = 1000
"""Maximum number of LFS files that a manifest lists."""

LISTED_PATH_MAX_CHARS = 4 << 10
LFS_PATHS_MAX_CHARS = 256 << 10
"""Maximum size of all their paths. Usual ones have 60 characters."""

MayRead: TypeAlias = Callable[[str, str], bool]
"""Returns whether a client may read a source's repo, by their names."""


class TreeMatch(StrEnum):
    """How the files of an archive compare with the tree of its commit."""

    EXACT = "exact"
    """Their tree has the id that the commit names."""

    ATTRIBUTES = "attributes"
    """They differ only where the commit's ``.gitattributes`` ask for a change."""

    LISTED = "listed"
    """Each file has the id and the path that git lists, but early software wrote the modes in the
    commit's trees in another way than git, so their ids cannot be computed from the files."""

    OTHER = "other"
    """A later release has compared them in another way. No release writes this."""

    @classmethod
    def _missing_(cls, value: object) -> "TreeMatch | None":
        return cls.OTHER if is_word(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A submodule whose files are in an archive, and the proof of its files.

    The tree of the repository around it names ``node``. ``commit``, ``tree`` and ``match`` are as
    in ``TreeProof``.
    """

    origin: PartOrigin
    node: str
    commit: bytes = field(compare=False)
    tree: str
    match: TreeMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class LfsFile:
    """A file in place of its pointer. ``path`` is that in the archive, escaped for display."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeProof:
    """The proof that an archive was made from its git commit.

    ``commit`` is the content of the commit object, whose id is the archive's node. It is empty
    where it would take too much space; the node determines it, so comparisons ignore it. ``tree``
    is git's id of the archive's files, computed from them: of the whole tree, or of the file or
    directory at its subdir. In it, a submodule is the id of its commit, and an LFS file the id of
    its pointer. ``parts`` are the submodules whose files are in the archive, the outer ones
    first; ``match`` is that of all of them together. ``lfs_files`` is the number of LFS
    files, and ``lfs`` lists them, unless they take too much space.
    """

    commit: bytes = field(compare=False)
    tree: str
    match: TreeMatch
    parts: tuple[Part, ...] = ()
    lfs_files: int = 0
    lfs: tuple[LfsFile, ...] = field(default=(), compare=False)

    def without_commit(self) -> "TreeProof":
        """Return the proof without what the node determines."""
        return replace(self, commit=b"", parts=self._bare_parts(), lfs=())

    def storable(self) -> "TreeProof":
        """Return the proof without what is too long for a manifest."""
        proof = self if len(self.commit) <= COMMIT_MAX_BYTES else replace(self, commit=b"")
        if sum(len(part.commit) for part in self.parts) > PART_COMMITS_MAX_BYTES:
            proof = replace(proof, parts=self._bare_parts())
        path_chars = sum(len(file.path) for file in self.lfs)
        is_short = len(self.lfs) <= LFS_LISTED_MAX and path_chars <= LFS_PATHS_MAX_CHARS
        return proof if is_short else replace(proof, lfs=())

    def _bare_parts(self) -> tuple[Part, ...]:
        return tuple(replace(part, commit=b"") for part in self.parts)

    def first_hidden(self, may_read: MayRead) -> PartOrigin | None:
        """Return the first part whose source and repo a client may not read, if any."""
        return first_hidden((part.origin for part in self.parts), may_read)


def first_hidden(origins: Iterable[PartOrigin], may_read: MayRead) -> PartOrigin | None:
    """Return the first of *origins* that a client may not read: outer ones come first."""
    return next((each for each in origins if not may_read(each.source, each.repo)), None)


def everything(_source: str, _repo: str) -> bool:
    """Let Archiver itself read all repos: a ``MayRead``."""
    return True
