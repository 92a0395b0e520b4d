"""Whether an archive may carry the record of its commit, found out without what proves it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from archiver.client.decompression import decompressed
from archiver.client.failures import CommandFailed

ZIP_END_BYTES = 64 * 1024
HEADER_BYTES, TYPE_OFFSET = 512, 156
EXTENDED = (b"g", b"x")
"""The types of tar headers with comments (POSIX pax). Only the first member has a record."""

_ZIP_COMMENT = re.compile(
    rb"PK\x05\x06.{16}(?:\x28\x00[0-9a-f]{40}|\x40\x00[0-9a-f]{64})\Z", re.DOTALL
)
"""The end of a zip whose comment is the id of a commit."""


def may_carry_record(path: Path) -> bool:
    """Return False only if there is no record. Raises OSError."""
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            file.seek(max(0, os.fstat(file.fileno()).st_size - ZIP_END_BYTES))
            return _ZIP_COMMENT.search(file.read()) is not None
        file.seek(0)
        header = b""
        try:
            plain = decompressed(file)
            while len(header) < HEADER_BYTES and (more := plain.read(HEADER_BYTES)):
                header += more
        except (CommandFailed, EOFError):
            return True
        return header[TYPE_OFFSET : TYPE_OFFSET + 1] in EXTENDED
