"""The pointer that git stores in place of a file of Git LFS.

Format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
"""

import re
from typing import NamedTuple


class Pointer(NamedTuple):
    """What a pointer names: the SHA-256 of the file, in hex, and its size."""

    sha256: str
    size_bytes: int

    @property
    def text(self) -> bytes:
        """The pointer as Git LFS writes it."""
        return (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {self.size_bytes}\n"
        ).encode()


_CANONICAL = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n"
    rb"oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n"
)


def parse_pointer(text: bytes) -> Pointer | None:
    """Return the pointer with this *text*, or None for any other file."""
    match = _CANONICAL.fullmatch(text)
    return Pointer(match[1].decode(), int(match[2])) if match else None
