"""Names of the directory at the top of an archive."""

import re

from archiver.model import Archive
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
