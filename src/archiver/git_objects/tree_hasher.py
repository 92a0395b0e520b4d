"""Computes git's tree id of the files of an archive, in one pass."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Protocol

from archiver.errors import ArchiveTooLarge, WrongTree
from archiver.git_objects.ids import SHA256_DIGITS
from archiver.git_objects.trees import EXECUTABLE, FILE, FOLDER, LINK, SUBMODULE, sort_key
from archiver.names import display_path

HELD_MAX_BYTES = 64 << 20
"""Memory for the entries of the open folders: more than a million of them."""

OnEntry = Callable[[bytes, int, str], None]
"""Called with the path, git's mode and the id of each file, link and submodule."""


class LfsCheck(Protocol):
    """Says which files of a repository are Git LFS files, which replace their pointers."""

    def replaces(self, path: bytes) -> bool:
        """Return whether the next file, at *path*, replaces a pointer. Called for each file."""

    def pointer_id(self, path: bytes, sha256: str, size_bytes: int) -> str:
        """Return the id of the pointer that such a file, with this content, replaces.

        Raises WrongTree if the pointer names other content.
        """


class _OpenFolder:
    """A folder whose entries still arrive. ``prefix`` is its path and a slash."""

    __slots__ = ("last_key", "prefix", "raw")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.raw = bytearray()
        self.last_key = b""


class TreeHasher:
    """Takes the members of an archive, with paths in the repository, in the order of git's trees.

    That is the order of every archive that git writes. It shows a repeated path, and a folder that
    goes on after it was left, without a memory of all paths: only the open folders are held.
    *submodules* maps the paths of empty folders to the ids of their commits. Other empty folders
    are empty trees: git packs one where attributes leave out all files of a folder. A member that
    breaks these rules is a WrongTree. Raises ArchiveTooLarge if the entries of the open folders
    exceed HELD_MAX_BYTES. With *lfs*, some files stand in the tree with the ids of their pointers.

    ``subdir_tree`` is the content of the tree of *subdir*, once ``finish`` has returned.
    """

    def __init__(
        self,
        *,
        digits: int,
        subdir: bytes,
        submodules: Mapping[bytes, str],
        on_entry: OnEntry,
        lfs: LfsCheck | None = None,
    ) -> None:
        self._id = re.compile(rf"[0-9a-f]{{{digits}}}")
        algorithm = hashlib.sha256 if digits == SHA256_DIGITS else hashlib.sha1
        self._empty = algorithm(usedforsecurity=False)
        self._subdir = subdir
        self._submodules = submodules
        self._on_entry = on_entry
        self._lfs = lfs
        self._lfs_size_bytes: int | None = None
        self._folders = [_OpenFolder(b"")]
        self._any_members = False
        self._held_bytes = 0
        self._result: str | None = None
        self.subdir_tree = b""

    def new_file(self, path: bytes, size_bytes: int) -> "hashlib._Hash":
        """Return the hash of the next file's content, to be updated with it."""
        self._lfs_size_bytes = None
        if self._lfs and self._lfs.replaces(path):
            self._lfs_size_bytes = size_bytes
            return hashlib.sha256(usedforsecurity=False)
        return self._new_object(b"blob", size_bytes)

    def add_file(self, path: bytes, *, executable: bool, digest: bytes) -> None:
        """Add the file; *digest* is that of its ``new_file`` with its content."""
        if self._lfs and self._lfs_size_bytes is not None:
            pointer = self._lfs.pointer_id(path, digest.hex(), self._lfs_size_bytes)
            digest = self._digest(path, pointer)
        self._add(path, EXECUTABLE if executable else FILE, digest)

    def add_link(self, path: bytes, target: bytes) -> None:
        blob = self._new_object(b"blob", len(target))
        blob.update(target)
        self._add(path, LINK, blob.digest())

    def add_folder(self, path: bytes) -> None:
        """Add a folder, before its entries. *path* is empty for the root."""
        prefix = path + b"/" if path else b""
        self._close_folders(around=prefix)
        repeated = self._folders[-1].prefix == prefix and (path or self._any_members)
        self._any_members = True
        if repeated:
            raise WrongTree(f"the folder {display_path(path)} comes twice")
        self._open_folders(prefix)

    def finish(self) -> str:
        """Return the id at the subdir: that of a tree, or of a single file."""
        while self._folders:
            self._close_folder()
        if self._result is None:
            raise WrongTree("the archive has nothing at its directory")
        return self._result

    def _add(self, path: bytes, mode: int, digest: bytes) -> None:
        self._any_members = True
        cut = path.rfind(b"/") + 1
        if self._folders[-1].prefix != path[:cut]:
            self._close_folders(around=path[:cut])
            self._open_folders(path[:cut])
        self._append(self._folders[-1], path[cut:], mode, digest)
        object_id = digest.hex()
        if path == self._subdir:
            self._conclude(object_id)
        self._on_entry(path, mode, object_id)

    def _append(self, folder: _OpenFolder, name: bytes, mode: int, digest: bytes) -> None:
        key = sort_key(name, mode)
        if key <= folder.last_key:
            raise WrongTree(
                f"the member {display_path(folder.prefix + name)} is not in the order of git"
            )
        folder.last_key = key
        entry = b"%o %s\0%s" % (mode, name, digest)
        folder.raw += entry
        self._held_bytes += len(entry)
        if self._held_bytes > HELD_MAX_BYTES:
            raise ArchiveTooLarge("the archive has a folder with too many entries to compare")

    def _close_folders(self, *, around: bytes) -> None:
        while not around.startswith(self._folders[-1].prefix):
            self._close_folder()

    def _open_folders(self, prefix: bytes) -> None:
        start = len(self._folders[-1].prefix)
        while start < len(prefix):
            start = prefix.index(b"/", start) + 1
            self._folders.append(_OpenFolder(prefix[:start]))

    def _close_folder(self) -> None:
        folder = self._folders.pop()
        self._held_bytes -= len(folder.raw)
        path = folder.prefix[:-1]
        submodule = self._submodules.get(path) if path and not folder.raw else None
        if submodule is not None:
            self._add(path, SUBMODULE, self._digest(path, submodule))
        elif folder.raw or not path or not self._subdir.startswith(folder.prefix):
            self._end_tree(folder, path)

    def _digest(self, path: bytes, object_id: str) -> bytes:
        """Return the digest in an id. A longer one could hide that the next entries are missing."""
        if not self._id.fullmatch(object_id):
            raise WrongTree(f"the entry {display_path(path)} has no valid id")
        return bytes.fromhex(object_id)

    def _end_tree(self, folder: _OpenFolder, path: bytes) -> None:
        tree = self._new_object(b"tree", len(folder.raw))
        tree.update(folder.raw)
        if path == self._subdir:
            self.subdir_tree = bytes(folder.raw)
            self._conclude(tree.hexdigest())
        if path:
            parent = self._folders[-1]
            self._append(parent, path[len(parent.prefix) :], FOLDER, tree.digest())

    def _new_object(self, kind: bytes, size_bytes: int) -> "hashlib._Hash":
        new = self._empty.copy()  # takes a fifth of the time of a new one
        new.update(b"%s %d\0" % (kind, size_bytes))
        return new

    def _conclude(self, object_id: str) -> None:
        if self._result is not None:
            raise WrongTree("the archive has two members at its directory")
        self._result = object_id
