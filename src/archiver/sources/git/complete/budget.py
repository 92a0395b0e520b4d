"""What all repositories of a complete archive may have together."""

from archiver.errors import ArchiveTooLarge
from archiver.model import Archive
from archiver.runtime.file_limit import file_limit
from archiver.sources.config import SourceConfig
from archiver.sources.git.listing import Listing

FILES_PER_SUBMODULE = 4
"""Open files that a submodule takes until the archive is made: a lock, its listing, the effects of
its attributes, and its share of all others."""


class Budget:
    """Counts against the limits in *config*, the source of the superproject of *archive*.

    Raises ArchiveTooLarge, which names the setting.
    """

    def __init__(self, archive: Archive, config: SourceConfig) -> None:
        self._archive = archive
        self._config = config
        self._submodules = 0
        self._members = 0
        self._unpacked_bytes = 0

    def add_submodules(self, number: int, *, depth: int) -> None:
        """Count submodules that are so deep inside each other."""
        git, setting = self._config.git, f"sources.{self._config.name}"
        self._submodules += number
        if self._submodules > git.max_submodules:
            raise self._too_large(
                f"more than {git.max_submodules:,} submodules ({setting}.max_submodules)"
            )
        if depth > git.max_submodule_depth:
            raise self._too_large(
                f"submodules more than {git.max_submodule_depth:,} deep inside each other "
                f"({setting}.max_submodule_depth)"
            )
        files = self._submodules * FILES_PER_SUBMODULE
        if files > (most := file_limit()):
            raise self._too_large(
                f"{self._submodules:,} submodules, which need {files:,} open files, and the worker "
                f"may have {most:,} (ulimit -n)"
            )

    def add_files(self, listing: Listing) -> None:
        """Count the files and folders of a repository."""
        self._members += listing.members
        if self._members > (most := self._config.limits.members):
            raise self._too_large(f"more than {most:,} files and folders")
        self.add_bytes(listing.unpacked_bytes)

    def add_bytes(self, size_bytes: int) -> None:
        self._unpacked_bytes += size_bytes
        if self._unpacked_bytes > (most := self._config.limits.unpacked_bytes):
            raise self._too_large(f"more than {most:,} bytes")

    def _too_large(self, what: str) -> ArchiveTooLarge:
        archive = self._archive
        return ArchiveTooLarge(f"{archive.node} in {archive.repo} has, all in all, {what}")
