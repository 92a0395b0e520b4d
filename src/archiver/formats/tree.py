"""What the members of an archive have to be like, whatever the format."""

import re
from dataclasses import dataclass, field

from archiver.errors import WrongNode, WrongRoot
from archiver.model import Archive

NOTE_MAX_BYTES = 64 * 1024
"""How much of hg's note is looked at. Its node is in the second line."""

_NODE_LINE = re.compile(rb"^node: ([0-9a-f]{40})$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The part of a repository that *archive* means, packed below the directory ``root``.

    ``note`` is the member that hg puts into whole trees, unless its host is told not to.
    """

    archive: Archive
    root: str
    note: bytes = field(init=False)
    _top: bytes = field(init=False)

    def __post_init__(self) -> None:
        subdir = f"/{self.archive.subdir}" if self.archive.subdir else ""
        object.__setattr__(self, "note", f"{self.root}/.hg_archival.txt".encode())
        object.__setattr__(self, "_top", f"{self.root}{subdir}".encode())

    def check_name(self, name: bytes) -> None:
        """Return if a member may have this name: that of the root or subdir, or one below it.

        Raises:
            WrongRoot: It lies elsewhere, or would when extracted.
        """
        below = name == self._top or name.startswith(self._top + b"/")
        if not below or b".." in name.split(b"/"):
            raise WrongRoot(f"a member of the archive lies outside {self._top.decode()}")

    def check_note(self, content: bytes) -> None:
        """Return if hg's note, or its first NOTE_MAX_BYTES, tells of the right node.

        Raises:
            WrongNode: It names another one, or none.
        """
        line = _NODE_LINE.search(content)
        if not line or line[1].decode() != self.archive.node:
            raise WrongNode("the archive is of another changeset than the one asked for")
