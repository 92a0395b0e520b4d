"""An archive that a user names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SET = "1"
"""The value of a parameter that is a flag. Absence means no."""


@dataclass(frozen=True)
class ArchiveRequest:
    """An archive that a user names. Without ``sha256``, it may have any bytes.

    ``rev`` is a node, or any name that the host resolves. ``suffix`` is a format such as ``zip``.
    With ``submodules``, the archive has the files of submodules; with ``lfs``, those of Git LFS.
    """

    source: str
    repo: str
    rev: str
    subdir: str = ""
    suffix: str = "tar.gz"
    sha256: str = ""
    region: str = ""
    submodules: bool = False
    lfs: bool = False

    @property
    def query(self) -> Mapping[str, str | None]:
        """The parameters of a request, of which the empty ones are left out."""
        return {
            "subdir": self.subdir,
            "suffix": self.suffix,
            "submodules": SET if self.submodules else "",
            "lfs": SET if self.lfs else "",
            "preferred_region": self.region,
            "sha256": self.sha256,
        }
