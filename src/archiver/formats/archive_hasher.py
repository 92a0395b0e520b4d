"""Hashes the files of an archive that has the files of several repositories, one in another."""

from typing import Protocol

from archiver.errors import WrongTree
from archiver.git_objects import TreeHasher
from archiver.git_objects.attribute_words import NAME as ATTRIBUTES
from archiver.names import display_path
from archiver.ports.source import TreeCheck

ATTRIBUTES_MAX_BYTES = 1 << 20
"""Of a ``.gitattributes`` whose content is passed on. Real ones have some 100 bytes."""


class FileHash(Protocol):
    """The hash of a file's content."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class _CopyingHash:
    """Implements ``FileHash``, and keeps the content."""

    def __init__(self, hashed: FileHash) -> None:
        self._hashed = hashed
        self.content = bytearray()
        self.digest = hashed.digest

    def update(self, data: bytes | memoryview, /) -> None:
        self._hashed.update(data)
        self.content += data


class FileHasher(Protocol):
    """Takes the members of an archive in their order, as ``git_objects.TreeHasher`` does."""

    def new_file(self, path: bytes, size_bytes: int) -> FileHash: ...

    def add_file(self, path: bytes, *, executable: bool, digest: bytes) -> None: ...

    def add_link(self, path: bytes, target: bytes) -> None: ...

    def add_folder(self, path: bytes) -> None: ...


class _Repository:
    """A repository whose members arrive. ``prefix`` is its path in the archive and a slash."""

    __slots__ = ("check", "hasher", "prefix")

    def __init__(self, check: TreeCheck) -> None:
        self.check = check
        self.prefix = check.path + b"/" if check.path else b""
        self.hasher = TreeHasher(
            digits=check.digits,
            subdir=check.subdir,
            submodules=check.submodules,
            on_entry=check.add_entry,
            lfs=check.lfs,
        )


class ArchiveHasher:
    """Implements ``FileHasher`` for the archive that *check* compares with its commit.

    Each repository has a hasher of its own. The outer one sees an empty folder in place of a
    submodule, and so the id of its commit. When the members of a submodule end, its check concludes
    whether they are those of that commit. Raises WrongTree.
    """

    def __init__(self, check: TreeCheck) -> None:
        self._outermost = _Repository(check)
        self._open = [self._outermost]
        self._attributes: _CopyingHash | None = None

    @property
    def subdir_tree(self) -> bytes:
        return self._outermost.hasher.subdir_tree

    def new_file(self, path: bytes, size_bytes: int) -> FileHash:
        hasher, inner = self._route(path)
        hashed = hasher.new_file(inner, size_bytes)
        self._attributes = None
        if not inner.endswith(ATTRIBUTES) or inner.rpartition(b"/")[2] != ATTRIBUTES:
            return hashed
        if size_bytes > ATTRIBUTES_MAX_BYTES:
            self._open[-1].check.add_attributes(None)
            return hashed
        self._attributes = _CopyingHash(hashed)
        return self._attributes

    def add_file(self, path: bytes, *, executable: bool, digest: bytes) -> None:
        repository = self._open[-1]  # that of ``new_file``
        if self._attributes:
            repository.check.add_attributes(bytes(self._attributes.content))
        inner = path[len(repository.prefix) :]
        repository.hasher.add_file(inner, executable=executable, digest=digest)

    def add_link(self, path: bytes, target: bytes) -> None:
        hasher, inner = self._route(path)
        hasher.add_link(inner, target)

    def add_folder(self, path: bytes) -> None:
        """Add a folder, before its entries. That of a submodule begins its members."""
        self._leave_until(path + b"/")
        repository = self._open[-1]
        inner = path[len(repository.prefix) :]
        repository.hasher.add_folder(inner)
        if inner and (part := repository.check.parts.get(inner)):
            self._open.append(_Repository(part))
            self._open[-1].hasher.add_folder(b"")

    def finish(self) -> str:
        """Return the id at the subdir of the outermost repository."""
        while len(self._open) > 1:
            self._leave()
        return self._outermost.hasher.finish()

    def _route(self, path: bytes) -> tuple[TreeHasher, bytes]:
        self._leave_until(path)
        repository = self._open[-1]
        return repository.hasher, path[len(repository.prefix) :]

    def _leave_until(self, path: bytes) -> None:
        while not path.startswith(self._open[-1].prefix):
            if len(self._open) == 1:
                raise WrongTree(f"the archive has {display_path(path)} outside of its repository")
            self._leave()

    def _leave(self) -> None:
        repository = self._open.pop()
        repository.check.conclude(repository.hasher.finish())
