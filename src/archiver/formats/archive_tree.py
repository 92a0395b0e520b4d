"""What the members of an archive have to be like, whatever the format."""

import re
from dataclasses import dataclass, field

from archiver import names
from archiver.errors import UnsafeMember, WrongNode, WrongRoot
from archiver.model import Archive

NOTE_MAX_BYTES = 64 * 1024
"""How much of hg's note is looked at. Its node is in the second line."""

NAME_MAX_BYTES = 4095
"""Of a member, from the root on: Linux's PATH_MAX without the NUL at its end."""

SPECIAL_BITS = 0o7000
"""Of a mode: set-uid, set-gid and sticky, which neither Mercurial nor git tracks."""
_NODE_LINE = re.compile(rb"^node: ([0-9a-f]{40})$", re.MULTILINE)


@dataclass(slots=True, kw_only=True)
class Tree:
    """The part of a repository that *archive* means, packed below the directory ``root``.

    ``note`` is the member that hg puts into whole trees, unless its host is told not to. It comes
    first: a later member of that name is a file of the repository.
    """

    archive: Archive
    root: str
    note: bytes = field(init=False)
    _top: bytes = field(init=False)
    _below: bytes = field(init=False)
    _last: bytes | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        subdir = f"/{self.archive.subdir}" if self.archive.subdir else ""
        self.note = f"{self.root}/.hg_archival.txt".encode()
        self._top = f"{self.root}{subdir}".encode()
        self._below = self._top + b"/"

    @property
    def last_file(self) -> bytes:
        """The path, below the root, of the last file that was entered; empty if there is none."""
        return (self._last or b"").removeprefix(self.root.encode() + b"/")

    def enter(self, name: bytes) -> bool:
        """Remember that a file of this name comes next; return whether it is hg's note."""
        if self._last is None and name == self.note:
            self._last = b""
            return True
        self._last = name
        return False

    def check_name(self, name: bytes) -> None:
        """Return if a member may have this name: that of the root or subdir, or one below it.

        Raises:
            WrongRoot: It lies elsewhere.
            UnsafeMember: It would, when extracted, or no file can have this name; or it is not the
                shortest one of its place, so that one could not tell what else lies there.
        """
        if len(name) > NAME_MAX_BYTES:
            raise UnsafeMember(f"the member {shown(name)} has a longer name than a file can have")
        if name.startswith(self._below) and b".." not in name and b"\0" not in name:
            if b"//" not in name and b"/." not in name:
                return  # as nearly all are
            if not _is_odd(name):
                return
        if name.startswith(b"/") or b".." in _segments(name) or b"\0" in name:
            raise UnsafeMember(f"the member {shown(name)} leads out of the archive")
        if name != self._top and not name.startswith(self._below):
            raise WrongRoot(f"the member {shown(name)} lies outside {self._top.decode()}")
        if _is_odd(name):
            raise UnsafeMember(f"the member {shown(name)} could have a shorter name")

    def check_note(self, content: bytes) -> None:
        """Return if hg's note, or its first NOTE_MAX_BYTES, tells of the right node.

        Raises:
            WrongNode: It names another one, or none.
        """
        line = _NODE_LINE.search(content)
        if not line or line[1].decode() != self.archive.node:
            raise WrongNode("the archive is of another changeset than the one asked for")


def _segments(name: bytes) -> list[bytes]:
    r"""Return the segments of *name* as Windows has them, where ``\`` divides as well."""
    return name.replace(b"\\", b"/").split(b"/")


def _is_odd(name: bytes) -> bool:
    """Tell whether no file has this name, or one has it that goes by another one."""
    return b"\0" in name or b"//" in name or b"/./" in name or name.endswith(b"/.")


shown = names.shown_path


def special(name: bytes) -> UnsafeMember:
    return UnsafeMember(f"the member {shown(name)} has the set-uid, set-gid or sticky bit")
