"""What hgweb packs: the root, the note of the changeset, and trees that it cannot pack."""

import re

from archiver.errors import NotPackable, WrongNode
from archiver.model import Archive, Node
from archiver.names import display_path
from archiver.sources.hgweb.files import ListedFile
from archiver.sources.response import HostResponse

_ARCHIVE_NAME = re.compile(r"[A-Za-z0-9_-]*-([0-9a-f]{12})")


def announced_root(archive: Archive, response: HostResponse) -> str | None:
    """Return the root in the suggested file name; None if hgweb would not choose such a name."""
    name = _ARCHIVE_NAME.fullmatch(response.file_name.removesuffix(f".{archive.suffix}"))
    return name[0] if name and name[1] == archive.node[:12] else None


def expected_root(archive: Archive) -> str:
    """Return the root that clients expect.

    hgweb builds it from the bytes of the repository's name and the rev. The name is that of the
    URL, unless the host configures another (``web.name``).
    """
    stem = re.sub(rb"\W+", b"-", archive.basename.encode()).decode("ascii")
    return f"{stem}-{archive.node[:12]}"


_NODE_LINE = re.compile(rb"^node: ([0-9a-f]{40})$", re.MULTILINE)


class HgArchivalCheck:
    """Implements ``IdentityCheck`` with ``.hg_archival.txt``.

    Mercurial writes this file first into an archive of a whole tree, unless its configuration
    (``ui.archivemeta``) says otherwise. The node is in its second line.
    """

    member = b".hg_archival.txt"

    def __init__(self, node: Node) -> None:
        self._node = node

    def check_content(self, content: bytes) -> None:
        line = _NODE_LINE.search(content)
        if not line or line[1].decode() != self._node:
            raise WrongNode("the archive is of another changeset than the requested one")


PACKABLE_DATES = {"tar.gz": range(1 << 32), "zip": range(-(1 << 63), 1 << 31)}
"""Dates, in seconds since 1970, that hgweb can write. Other formats hold every date.
hgweb writes dates before 1980 to a zip as 1980."""


def find_unpackable(archive: Archive, file: ListedFile, *, is_first: bool) -> NotPackable | None:
    """Return why hgweb always stops before *file*, or None.

    hgweb writes the changeset's date first, so the date matters only if the file *is_first*.
    """
    dates = PACKABLE_DATES[archive.suffix]
    if is_first and file.date is not None and int(file.date) not in dates:
        date = int(file.date)
        return NotPackable(f"hgweb cannot write the changeset's date, {date}, to {archive.suffix}")
    if archive.suffix == "zip":
        try:
            file.path.decode()
        except UnicodeDecodeError:
            name = display_path(file.path)
            return NotPackable(f"hgweb cannot write the file name {name} to zip: it is not UTF-8")
    return None
