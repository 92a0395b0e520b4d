"""An archive that a user names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ArchiveRequest:
    """An archive that a user names. Without ``sha256``, it may have any bytes.

    ``rev`` is a node, or any name that the host resolves. ``suffix`` is a format such as ``zip``.
    """

    source: str
    repo: str
    rev: str
    subdir: str = ""
    suffix: str = "tar.gz"
    sha256: str = ""
    region: str = ""

    @property
    def query(self) -> Mapping[str, str | None]:
        """The parameters of a request, of which the empty ones are left out."""
        return {
            "subdir": self.subdir,
            "suffix": self.suffix,
            "preferred_region": self.region,
            "sha256": self.sha256,
        }
