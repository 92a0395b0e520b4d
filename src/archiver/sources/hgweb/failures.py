"""The errors that hgweb's responses stand for."""

from http import HTTPStatus

from archiver.errors import (
    ArchiverError,
    NotAnArchive,
    SourceUnavailable,
    SuffixRefused,
    UnknownRepo,
    UnknownRev,
    UnknownSubdir,
    UnprovenArchive,
)
from archiver.model import Archive
from archiver.names import display_rev
from archiver.sources.response import HostResponse

_SUFFIX_REASONS = ("unsupported archive type", "archive type not allowed")


class AmbiguousRev(UnknownRev):
    """The given digits begin more than one node."""


class InexpressibleRev(UnknownRev):
    """The host crashes on this name, which is not ASCII."""


class Failures:
    """Builds the errors of the source *name*."""

    def __init__(self, name: str) -> None:
        self._name = name

    def of_archive(self, archive: Archive, response: HostResponse) -> ArchiverError | None:
        """Return the error for a response that is not an archive. The reason phrase has details."""
        match response.status:
            case HTTPStatus.OK if response.is_html:
                return NotAnArchive(f"{self._name} sent a page instead of an archive")
            case HTTPStatus.OK:
                return None
            case 403 | 404 if response.reason.lower().startswith(_SUFFIX_REASONS):
                return SuffixRefused(f"{self._name} does not serve {archive.suffix}")
            case HTTPStatus.NOT_FOUND if archive.subdir:
                return self.unknown_subdir(archive)
            case HTTPStatus.NOT_FOUND:
                return self.unknown_rev(archive.repo, archive.node)
            case _:
                return response.error

    def unknown_repo(self, repo: str) -> UnknownRepo:
        return UnknownRepo(f"{self._name} has no repository {repo}")

    def unknown_rev(self, repo: str, rev: str) -> UnknownRev:
        return UnknownRev(f"{self._name} has no revision {display_rev(rev)} in {repo}")

    def unknown_subdir(self, archive: Archive) -> UnknownSubdir:
        return UnknownSubdir(f"there is no {archive.subdir} in {archive.repo}")

    def ambiguous(self, repo: str, rev: str) -> AmbiguousRev:
        return AmbiguousRev(f"{self._name} has several revisions {display_rev(rev)} in {repo}")

    def inexpressible(self, rev: str) -> InexpressibleRev | None:
        """Return the error for a crash on *rev*; None if *rev* is ASCII.

        Mercurial 7 on Python 3.11 cannot parse a query beyond ASCII. On Python 3.13 it can.
        """
        if rev.isascii():
            return None
        return InexpressibleRev(
            f"{self._name} crashes on the name {display_rev(rev)}: "
            "request the changeset by its node"
        )

    def malformed(self) -> SourceUnavailable:
        return SourceUnavailable(f"{self._name} sent a response that hgweb would not send")

    def unproven(self, archive: Archive, fault: str = "does not list the files") -> UnprovenArchive:
        return UnprovenArchive(
            f"{self._name} {fault} of {archive.node} in {archive.repo}, "
            f"so completeness cannot be proven (sources.{self._name}.completeness)"
        )
