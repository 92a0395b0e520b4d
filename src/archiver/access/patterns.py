"""Patterns of the names of sources and repos, as in a shell: ``mozilla/*``, ``*-private``."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

EVERYTHING = ("*",)


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Return whether *name* matches one of *patterns*, where ``*`` includes slashes."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFilter:
    """The repos that a source serves: *allowed* ones that are not *denied*."""

    allowed: Sequence[str] = EVERYTHING
    denied: Sequence[str] = ()

    def accepts(self, repo: str) -> bool:
        return matches_any(repo, self.allowed) and not self._denies(repo)

    def _denies(self, repo: str) -> bool:
        """Compare other spellings too: for many hosts, ``A/b.git`` is the repo ``a/b``."""
        if not self.denied:
            return False
        folded = repo.casefold()
        spellings = {folded, folded.removesuffix(".git"), f"{folded}.git"}
        patterns = [pattern.casefold() for pattern in self.denied]
        return any(matches_any(spelling, patterns) for spelling in spellings)
