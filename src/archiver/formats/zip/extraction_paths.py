"""Rejects zips in which some reader would extract two members to the same path.

unzip removes control characters from names, and versions such as ``;12`` from their end. Python
decodes names that are not marked as UTF-8 with the DOS code page. Repositories may contain such
names, so they are accepted as long as no other member has the resulting path.
"""

import re

from archiver.errors import ArchiveTooLarge, UnsafeMember
from archiver.formats.archive_tree import shown
from archiver.formats.zip.records import UTF_8

HELD_MAX_BYTES = 64 << 20
"""Memory for the folders and the ambiguous names of one archive: about 400,000 of them."""

HELD_PER_NAME_BYTES = 100
"""Python's overhead for a name in a set."""

_AMBIGUOUS = re.compile(rb"[\x00-\x1f\x7f-\xff]|;[0-9]*\Z")
_REMOVED = re.compile(rb"[\x00-\x1f\x7f\xff]")
_VERSION = re.compile(rb";[0-9]*\Z")


class ExtractionPaths:
    """The paths of one archive's folders and of its ambiguous names.

    Raises ArchiveTooLarge if they take more than HELD_MAX_BYTES of memory.
    """

    def __init__(self) -> None:
        self._folders: set[bytes] = set()
        self._others: set[bytes] = set()
        self._held_bytes = 0

    def add_member(self, name: bytes, flags: int) -> None:
        """Add the next member.

        Raises UnsafeMember if some reader extracts it to the path of an earlier one.
        """
        if name.endswith(b"/"):
            self._add_folders(name[:-1])
        elif _AMBIGUOUS.search(name):
            for path in _alternative_paths(name, flags):
                if path in self._others:
                    raise _collision(name)
                self._add(self._others, path)
                self._add_folders(path[: max(0, path.rfind(b"/"))])

    def require_unique(self, name: bytes) -> None:
        """Return if no other member has the path *name*. All members must have been added."""
        if name in self._others or name in self._folders:
            raise _collision(name)

    def _add_folders(self, path: bytes) -> None:
        """Add *path* and its parents. The parents of a known folder are known, too."""
        while path and path not in self._folders:
            self._add(self._folders, path)
            path = path[: max(0, path.rfind(b"/"))]

    def _add(self, names: set[bytes], name: bytes) -> None:
        self._held_bytes += len(name) + HELD_PER_NAME_BYTES
        if self._held_bytes > HELD_MAX_BYTES:
            raise ArchiveTooLarge("the zip has more folders and unusual names than are allowed")
        names.add(name)


def _alternative_paths(name: bytes, flags: int) -> set[bytes]:
    """Return the paths to which readers extract a member, other than *name* itself."""
    paths = {_VERSION.sub(b"", _REMOVED.sub(b"", name))}
    if not flags & UTF_8:
        paths.add(name.decode("cp437").encode())
    return paths - {name}


def _collision(name: bytes) -> UnsafeMember:
    return UnsafeMember(f"the member {shown(name)} has the path of another one for some readers")
