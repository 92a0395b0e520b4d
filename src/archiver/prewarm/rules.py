"""Rules: which archives to build of which branches and tags."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product

from archiver.access.patterns import matches_any
from archiver.model import Archive, ArchiveRequest
from archiver.prewarm.push import Push, RefKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PrewarmRule:
    """The archives of each push to the *branches* and *tags* of the *repos* of a source.

    These three are patterns. There is an archive for each of *subdirs* and *suffixes*. With *poll*,
    the host is also asked at this interval; then *repos* and *branches* are plain names.
    """

    name: str
    source: str
    repos: Sequence[str]
    branches: Sequence[str]
    tags: Sequence[str] = ()
    subdirs: Sequence[str] = ("",)
    suffixes: Sequence[str] = ("tar.gz",)
    submodules: bool = False
    lfs: bool = False
    poll: timedelta | None = None

    def archives(self, source: str, push: Push) -> Iterator[Archive]:
        """Yield what to build after a push to *source*. Raises InvalidRequest for hostile names."""
        patterns = self.tags if push.kind is RefKind.TAG else self.branches
        applies = source == self.source and matches_any(push.repo, self.repos)
        if applies and matches_any(push.name, patterns):
            for request in self._requests(push.repo, push.node):
                yield request.archive_at(push.node)

    def polled(self) -> Iterator[ArchiveRequest]:
        """Yield the requests for what its branches name now."""
        for repo, branch in product(self.repos, self.branches):
            yield from self._requests(repo, branch)

    def _requests(self, repo: str, rev: str) -> Iterator[ArchiveRequest]:
        for subdir, suffix in product(self.subdirs, self.suffixes):
            yield ArchiveRequest(
                source=self.source,
                repo=repo,
                rev=rev,
                subdir=subdir,
                suffix=suffix,
                submodules=self.submodules,
                lfs=self.lfs,
            )


def archives_after(rules: Sequence[PrewarmRule], source: str, push: Push) -> tuple[Archive, ...]:
    """Return what all *rules* together build after a push, each archive once."""
    return tuple(dict.fromkeys(a for rule in rules for a in rule.archives(source, push)))
