"""Refuses zips in which two members have one place for some readers.

unzip leaves control characters out of names, and a version such as ``;12`` at their end. Python
reads names that are not said to be UTF-8 in DOS's code page. Repositories may have such names, so
they are accepted as long as nothing else lies where they would be put.
"""

import re

from archiver.errors import ArchiveTooLarge, UnsafeMember
from archiver.formats.archive_tree import shown
from archiver.formats.zip.records import UTF_8

HELD_MAX_BYTES = 64 << 20
"""Memory for the folders and the odd names of one archive: some 400,000 of them."""

HELD_PER_NAME_BYTES = 100
"""What Python needs for a name in a set, besides the name."""

_ODD = re.compile(rb"[\x00-\x1f\x7f-\xff]|;[0-9]*\Z")
_LEFT_OUT = re.compile(rb"[\x00-\x1f\x7f\xff]")
_VERSION = re.compile(rb";[0-9]*\Z")


class Places:
    """The places of one archive's folders and odd names. Takes HELD_MAX_BYTES at most."""

    def __init__(self) -> None:
        self._folders: set[bytes] = set()
        self._others: set[bytes] = set()
        self._held_bytes = 0

    def enter(self, name: bytes, flags: int) -> None:
        """Take note of the next member.

        Raises:
            UnsafeMember: Some reader puts it where it puts an earlier one.
            ArchiveTooLarge: There are too many folders or odd names.
        """
        if name.endswith(b"/"):
            self._hold_folders(name[:-1])
        elif _ODD.search(name):
            for place in _other_places(name, flags):
                if place in self._others:
                    raise _collision(name)
                self._hold(self._others, place)
                self._hold_folders(place[: max(0, place.rfind(b"/"))])

    def check(self, name: bytes) -> None:
        """Return if no other member has the place of *name*. All must have been entered before."""
        if name in self._others or name in self._folders:
            raise _collision(name)

    def _hold_folders(self, path: bytes) -> None:
        """Hold *path* and the folders above it. Those above one that is held are held too."""
        while path and path not in self._folders:
            self._hold(self._folders, path)
            path = path[: max(0, path.rfind(b"/"))]

    def _hold(self, names: set[bytes], name: bytes) -> None:
        self._held_bytes += len(name) + HELD_PER_NAME_BYTES
        if self._held_bytes > HELD_MAX_BYTES:
            raise ArchiveTooLarge("the zip has more folders and odd names than can be checked")
        names.add(name)


def _other_places(name: bytes, flags: int) -> set[bytes]:
    """Return where readers put a member, besides the place that its name says."""
    places = {_VERSION.sub(b"", _LEFT_OUT.sub(b"", name))}
    if not flags & UTF_8:
        places.add(name.decode("cp437").encode())
    return places - {name}


def _collision(name: bytes) -> UnsafeMember:
    return UnsafeMember(f"the member {shown(name)} has the place of another one for some readers")
