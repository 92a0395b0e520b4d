"""How large an archive turns out to be, against what its source may send."""

from archiver.errors import ArchiveTooLarge
from archiver.model import Limits

RATIO_FROM_BYTES = 256 << 20
"""Unpacked. A small archive may well consist of zeros; only a large one is a bomb."""


class Meter:
    """Counts while an archive is read. Raises ArchiveTooLarge as soon as it is over a limit."""

    def __init__(self, *, limits: Limits) -> None:
        self._limits = limits
        self._members = 0
        self._unpacked_bytes = 0
        self.packed_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Count bytes as they come from the host."""
        self.packed_bytes += size_bytes
        if self.packed_bytes > self._limits.packed_bytes:
            raise ArchiveTooLarge(f"the archive has more than {self._limits.packed_bytes:,} bytes")

    def unpack(self, size_bytes: int) -> None:
        """Count bytes as they are once they are unpacked."""
        limits = self._limits
        self._unpacked_bytes += size_bytes
        if self._unpacked_bytes > limits.unpacked_bytes:
            raise ArchiveTooLarge(
                f"the archive has more than {limits.unpacked_bytes:,} bytes when it is unpacked"
            )
        if self._unpacked_bytes > max(RATIO_FROM_BYTES, limits.ratio * self.packed_bytes):
            raise ArchiveTooLarge(f"the archive becomes more than {limits.ratio} times as large")

    def member(self) -> None:
        self._members += 1
        if self._members > self._limits.members:
            raise ArchiveTooLarge(f"the archive has more than {self._limits.members:,} members")
