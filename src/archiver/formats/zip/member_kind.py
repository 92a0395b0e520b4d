"""Tells links from other members of a zip, and refuses kinds on which readers differ.

A zip states the kind of a member up to three times: in the mode, in DOS's attributes, and by a
slash at the end of the name. unzip and Python go by the slash, bsdtar by the mode or by DOS's bits.
"""

import stat

from archiver.errors import CorruptArchive, UnsafeMember
from archiver.formats.archive_tree import SPECIAL_BITS, shown, special
from archiver.formats.zip.records import MACOS, UNIX

_DEVICES = frozenset({stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO})
_WITH_LINKS = frozenset({UNIX, MACOS})

_OF_FOLDERS = frozenset({0, stat.S_IFDIR})
_OF_OTHERS = frozenset({0, stat.S_IFREG, stat.S_IFLNK})
"""The types in the mode that are accepted. 0 is that of systems without modes."""

_FOLDER_OF_DOS = 0x10
_ATTRIBUTES_OF_DOS = 0x27
"""Read-only, hidden, system and archive. unzip skips a member that is a volume label (0x08)."""


def is_link(name: bytes, system: int, attributes: int) -> bool:
    """Return whether a member with these external *attributes* is a symbolic link.

    Raises:
        UnsafeMember: It is a device, or has a special bit.
        CorruptArchive: Some readers would take it for a file, others for something else.
    """
    mode = attributes >> 16
    kind = stat.S_IFMT(mode)
    if kind in _DEVICES:
        raise UnsafeMember(f"the member {shown(name)} is a device")
    if mode & SPECIAL_BITS:
        raise special(name)
    is_folder = name.endswith(b"/")
    allowed = _ATTRIBUTES_OF_DOS | (_FOLDER_OF_DOS if is_folder else 0)
    if kind not in (_OF_FOLDERS if is_folder else _OF_OTHERS) or attributes & 0xFF & ~allowed:
        raise CorruptArchive(f"the member {shown(name)} is a file to some readers only")
    if kind == stat.S_IFLNK and system not in _WITH_LINKS:
        raise CorruptArchive("the zip has a link of a system without links, a file to some readers")
    return kind == stat.S_IFLNK
