"""Writes the members of an untrusted archive below a new folder, and never outside of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from archiver.client.failures import CommandFailed

NAME_MAX_BYTES, TARGET_MAX_BYTES = 255, 4095
"""As of the usual file systems."""
OWNER_READS_AND_WRITES, OWNER_EXECUTES, ALL_EXECUTE = 0o600, 0o100, 0o111
NOT_WRITABLE_FOR_OTHERS = 0o755


class Unsafe(CommandFailed):
    """A member would be written outside of the folder, or is no file, folder or link."""

    exit_code = 5
    code = "unsafe"
    hint = "Nothing was extracted. Do not extract this archive with another tool, either."


class TreeWriter:
    """Writes below *folder*, which is new and belongs to this process alone.

    A member keeps its path without the first *strip* components, if that path or one of its folders
    matches one of *patterns*; without patterns, all members do. Nothing is written through a link,
    so only the links themselves can lead outside; ``check_links`` finds those.
    """

    def __init__(self, folder: Path, *, strip: int = 0, patterns: Sequence[str] = ()) -> None:
        self._folder = str(folder)
        self._strip = strip
        self._patterns = patterns
        self._folders = {""}
        self._others: set[str] = set()
        self._links: list[str] = []
        self.count = 0

    def place(self, name: str) -> str:
        """Return the path of a member below the folder; empty if it is left out. Raises Unsafe."""
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if ".." in parts or "\0" in name:
            raise Unsafe(f"the archive has a member outside of it: {name}")
        if any(len(os.fsencode(part)) > NAME_MAX_BYTES for part in parts):
            raise Unsafe(f"the archive has a member whose name is too long: {name}")
        kept = parts[self._strip :]
        path = "/".join(kept)
        if not self._patterns or not path:
            return path
        above = ("/".join(kept[: end + 1]) for end in range(len(kept)))
        return path if any(_matches(each, self._patterns) for each in above) else ""

    def add_folder(self, path: str) -> None:
        if path in self._folders:
            return
        parent = path.rpartition("/")[0]
        self.add_folder(parent)
        if path in self._others:
            raise Unsafe(f"the archive has a file or a link that is also a folder: {path}")
        os.mkdir(self._absolute(path))  # noqa: PTH102 - strings are faster than paths
        self._folders.add(path)

    def add_file(self, path: str, chunks: Iterable[bytes], *, mode: int, mtime: float) -> None:
        self._make_room(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._absolute(path), flags, _safe_mode(mode))
        try:
            for chunk in chunks:
                left = memoryview(chunk)
                while left:
                    left = left[os.write(descriptor, left) :]
            with suppress(OverflowError, OSError):  # a time that the file system does not have
                os.utime(descriptor, (mtime, mtime))
        finally:
            os.close(descriptor)
        self.count += 1

    def add_link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        if not 0 < len(os.fsencode(target)) <= TARGET_MAX_BYTES:
            raise Unsafe(f"the archive has a link whose target is empty or too long: {path}")
        self._make_room(path)
        os.symlink(target, self._absolute(path))  # noqa: PTH211
        self._links.append(path)
        self.count += 1

    def add_hard_link(self, path: str, target: str) -> None:
        """Add another name of the file *target*, which is a path as ``place`` returns it."""
        if target not in self._others or target in self._links:
            raise Unsafe(f"the archive has a hard link to what it does not contain: {path}")
        if target != path:
            self._make_room(path)
            os.link(self._absolute(target), self._absolute(path), follow_symlinks=False)
            self.count += 1

    def check_links(self) -> None:
        """Raise Unsafe if a symbolic link leads outside, by itself or through other links."""
        root = os.path.realpath(self._folder)
        for path in self._links:
            link = self._absolute(path)
            if not os.path.islink(link):  # noqa: PTH114 - a later member replaced it
                continue
            found = os.path.realpath(link)
            if found != root and not found.startswith(root + os.sep):
                raise Unsafe(f"the archive has a link that leads outside of it: {path}")

    def _make_room(self, path: str) -> None:
        """Create the folders above *path*, and remove an earlier member of this name."""
        self.add_folder(path.rpartition("/")[0])
        if path in self._folders:
            raise Unsafe(f"the archive has a folder that is also something else: {path}")
        if path in self._others:
            os.unlink(self._absolute(path))  # noqa: PTH108
        self._others.add(path)

    def _absolute(self, path: str) -> str:
        return f"{self._folder}/{path}"


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern.strip("/")) for pattern in patterns)


def _safe_mode(mode: int) -> int:
    """Return the permissions as the filter ``data`` of Python's tarfile sets them (PEP 706)."""
    mode &= NOT_WRITABLE_FOR_OTHERS
    if not mode & OWNER_EXECUTES:
        mode &= ~ALL_EXECUTE
    return mode | OWNER_READS_AND_WRITES
