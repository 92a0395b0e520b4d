"""Limits on the size and the number of members of an archive, as its source configures them."""

from archiver.errors import ArchiveTooLarge
from archiver.model import Limits

RATIO_FROM_BYTES = 256 << 20
"""Unpacked size from which on the ratio is limited. A small archive may well consist of zeros."""


class LimitCounter:
    """Counts while an archive is read. Raises ArchiveTooLarge as soon as a limit is exceeded."""

    def __init__(self, *, limits: Limits) -> None:
        self._limits = limits
        self._members = 0
        self._unpacked_bytes = 0
        self.packed_bytes = 0

    def count_packed(self, size_bytes: int) -> None:
        """Count bytes as received from the host."""
        self.packed_bytes += size_bytes
        if self.packed_bytes > self._limits.packed_bytes:
            raise ArchiveTooLarge(f"the archive has more than {self._limits.packed_bytes:,} bytes")

    def count_unpacked(self, size_bytes: int) -> None:
        """Count bytes after decompression."""
        limits = self._limits
        self._unpacked_bytes += size_bytes
        if self._unpacked_bytes > limits.unpacked_bytes:
            raise ArchiveTooLarge(
                f"the unpacked archive has more than {limits.unpacked_bytes:,} bytes"
            )
        if self._unpacked_bytes > max(RATIO_FROM_BYTES, limits.ratio * self.packed_bytes):
            raise ArchiveTooLarge(f"the unpacked archive is more than {limits.ratio} times larger")

    def count_member(self) -> None:
        self._members += 1
        if self._members > self._limits.members:
            raise ArchiveTooLarge(f"the archive has more than {self._limits.members:,} members")
