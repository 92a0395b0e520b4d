"""Bearer tokens: 256 random bits, of which only the SHA-256 is stored.

A slow hash such as argon2 protects passwords that people choose. Against a search of 256 random
bits, a fast hash is as safe, and checking a wrong token costs a microsecond.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from archiver.access.patterns import EVERYTHING, matches_any, narrower
from archiver.access.scopes import Scope

PREFIX = "archiver_"
"""Lets scanners for secrets recognise a token."""

RANDOM_BYTES = 32

HASH_PREFIX = "sha256:"

_TOKEN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")

_LIKE_TOKEN = re.compile(rf"{PREFIX}[A-Za-z0-9_%-]{{20,}}")

_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def create_token() -> str:
    """Return a new token."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def hash_token(token: str) -> str:
    """Return the hash of *token*, as the settings store it."""
    return HASH_PREFIX + hashlib.sha256(token.encode()).hexdigest()


def is_token(text: str) -> bool:
    """Return whether *text* may be a token: nothing that a person could choose or guess."""
    return _TOKEN.fullmatch(text) is not None


def hide_tokens(text: str) -> str:
    """Return *text* with ``***`` in the place of whatever may be a token, or most of one."""
    return _LIKE_TOKEN.sub(f"{PREFIX}***", text)


def is_token_hash(text: str) -> bool:
    return _HASH.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The permissions of one token, or of the users of a proxy, for some sources and repos.

    It is void after ``expires``, which has a time zone.
    """

    scope: Scope
    sources: Sequence[str] = EVERYTHING
    repos: Sequence[str] = EVERYTHING
    expires: datetime | None = None

    def narrowed_to(self, new: "Grant") -> "Grant":
        """Return a grant that allows nothing that this one refuses, and is *new* if that does."""
        return Grant(
            scope=min(new.scope, self.scope),
            sources=narrower(new.sources, self.sources),
            repos=narrower(new.repos, self.repos),
            expires=min(filter(None, (new.expires, self.expires)), default=None),
        )

    def is_valid(self, now: datetime) -> bool:
        return self.expires is None or now < self.expires

    def covers(self, source: str, repo: str | None = None) -> bool:
        """Return whether this repo is covered; without one, whether any of *source* may be."""
        return matches_any(source, self.sources) and (repo is None or matches_any(repo, self.repos))

    def covers_all(self, source: str | None) -> bool:
        """Return whether all repos of *source* are covered; without it, those of every source."""
        everything = set(EVERYTHING)
        of_sources = everything <= set(self.sources) if source is None else self.covers(source)
        return of_sources and everything <= set(self.repos)
