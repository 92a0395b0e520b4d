"""Patterns of the names of sources and repos, as in a shell: ``mozilla/*``, ``*-private``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

EVERYTHING = ("*",)


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Return whether *name* matches one of *patterns*, where ``*`` includes slashes."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def narrower(new: Sequence[str], old: Sequence[str]) -> Sequence[str]:
    """Return *new* if each of its patterns is one of *old*, or *old* is everything; else *old*."""
    return new if set(new) <= set(old) or "*" in old else old


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFilter:
    """The repos that a source serves: *allowed* ones that are not *denied*."""

    allowed: Sequence[str] = EVERYTHING
    denied: Sequence[str] = ()

    def accepts(self, repo: str) -> bool:
        return matches_any(repo, self.allowed) and not self._denies(repo)

    def narrowed_to(self, new: "RepoFilter") -> "RepoFilter":
        """Return a filter that accepts no repo that this one refuses, and is *new* if that does."""
        return RepoFilter(
            allowed=narrower(new.allowed, self.allowed),
            denied=new.denied if set(new.denied) >= set(self.denied) else self.denied,
        )

    def _denies(self, repo: str) -> bool:
        """Compare other spellings too: for many hosts, ``A/b.git`` and ``a/b/.git`` are ``a/b``."""
        patterns = [pattern.casefold() for pattern in self.denied]
        return bool(patterns) and any(matches_any(name, patterns) for name in _spellings(repo))


def _spellings(repo: str) -> Iterator[str]:
    """Yield *repo* and the folders that it is in, with and without ``.git``."""
    segments = repo.casefold().split("/")
    for count in range(1, len(segments) + 1):
        name = "/".join(segments[:count])
        yield name
        yield name.removesuffix(".git")
        yield f"{name}.git"
