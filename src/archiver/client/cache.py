"""A folder of archives by their SHA-256, which processes share."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from archiver.client.failures import CommandFailed

PART_AGE_S = 7 * 86400.0
"""Unfinished downloads that nobody has continued for so long are removed."""


class Cache:
    """Keeps at most *max_bytes* of the archives that were used last.

    A process that reads an archive while another one removes it reads to the end.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def path(self, sha256: str) -> Path:
        """Return where the archive is, or is to be stored. Raises CommandFailed."""
        path = self.folder / sha256[:2] / sha256
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise CommandFailed(f"{path.parent}: {exc.strerror}") from exc
        return path

    def keep(self, path: Path) -> None:
        """Note that *path* was used now, and remove what no longer fits."""
        with suppress(OSError):
            os.utime(path)
        files = sorted(self._files(), key=lambda file: file[1].st_mtime, reverse=True)
        size_bytes = 0
        for file, stat in files:
            is_old_part = file.suffix and time.time() - stat.st_mtime > PART_AGE_S
            size_bytes += 0 if is_old_part else stat.st_size
            if is_old_part or (size_bytes > self.max_bytes and file != path and not file.suffix):
                with suppress(OSError):
                    file.unlink()

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the archives, and the parts, whose names have a suffix."""
        for file in self.folder.glob("??/*"):
            with suppress(OSError):
                yield file, file.stat()
