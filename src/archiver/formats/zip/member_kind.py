"""Recognizes links in a zip, and rejects members on whose kind readers disagree.

A zip states the kind of a member up to three times: in the Unix mode, in the DOS attributes, and by
a trailing slash of the name. unzip and Python use the slash, bsdtar the mode or the DOS attributes.
"""

import stat

from archiver.errors import CorruptArchive, UnsafeMember
from archiver.formats.archive_tree import SPECIAL_BITS, shown, special_bits_error
from archiver.formats.zip.records import MACOS, UNIX

_DEVICES = frozenset({stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO})
_SYSTEMS_WITH_LINKS = frozenset({UNIX, MACOS})

_FOLDER_TYPES = frozenset({0, stat.S_IFDIR})
_OTHER_TYPES = frozenset({0, stat.S_IFREG, stat.S_IFLNK})
"""Accepted file types in the mode. 0 is that of systems without modes."""

_DOS_FOLDER = 0x10
_DOS_ATTRIBUTES = 0x27
"""Read-only, hidden, system and archive. unzip skips a member with the volume label bit (0x08)."""


def is_symlink(name: bytes, system: int, attributes: int) -> bool:
    """Return whether a member with these external *attributes* is a symbolic link.

    Raises:
        UnsafeMember: It is a device, or has a special bit.
        CorruptArchive: Readers disagree on whether it is a file.
    """
    mode = attributes >> 16
    kind = stat.S_IFMT(mode)
    if kind in _DEVICES:
        raise UnsafeMember(f"the member {shown(name)} is a device")
    if mode & SPECIAL_BITS:
        raise special_bits_error(name)
    is_folder = name.endswith(b"/")
    allowed = _DOS_ATTRIBUTES | (_DOS_FOLDER if is_folder else 0)
    if kind not in (_FOLDER_TYPES if is_folder else _OTHER_TYPES) or attributes & 0xFF & ~allowed:
        raise CorruptArchive(f"the member {shown(name)} is a file to some readers only")
    if kind == stat.S_IFLNK and system not in _SYSTEMS_WITH_LINKS:
        raise CorruptArchive(
            "the zip has a link from a system without links, which is a file to some readers"
        )
    return kind == stat.S_IFLNK
