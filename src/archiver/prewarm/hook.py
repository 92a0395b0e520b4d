"""A webhook that a host calls after each push."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from archiver.prewarm.payloads import FindRepo, read_forge, read_gitlab, read_plain
from archiver.prewarm.push import Push
from archiver.prewarm.signatures import (
    Headers,
    Refusal,
    verify_gitea,
    verify_github,
    verify_gitlab,
    verify_standard,
)

BODY_MAX_BYTES = 4 << 20
"""A push of 2000 commits has some 3 MB on GitHub, which sends no more commits than that."""

GITLAB_EVENTS = frozenset({"Push Hook", "Tag Push Hook"})


class HookKind(StrEnum):
    """Who sends, and so how it signs and what it writes."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    STANDARD = "standard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Verifies and reads the deliveries for one *source*.

    Its sender has one of *secrets*. *find_repo* finds the repos of the source.
    """

    name: str
    kind: HookKind
    source: str
    secrets: Sequence[str] = field(repr=False)
    find_repo: FindRepo
    now: Callable[[], float] = time.time

    def refusal(self, headers: Headers, body: bytes) -> Refusal | None:
        """Return why a delivery is not accepted, or None if its sender has the secret."""
        match self.kind:
            case HookKind.GITHUB:
                return verify_github(headers, body, self.secrets)
            case HookKind.GITEA:
                return verify_gitea(headers, body, self.secrets)
            case HookKind.GITLAB:
                return verify_gitlab(headers, body, self.secrets, now=self.now())
            case HookKind.STANDARD:
                return verify_standard(headers, body, self.secrets, now=self.now())
            case _:
                assert_never(self.kind)

    def read(self, headers: Headers, body: bytes) -> Push | None:
        """Return the push in a verified delivery; None if it is another event, or has no commit.

        Raises InvalidRequest if the body is malformed.
        """
        match self.kind:
            case HookKind.GITHUB:
                is_push = headers.get("x-github-event") == "push"
                return read_forge(body, self.find_repo) if is_push else None
            case HookKind.GITEA:
                event = headers.get("x-forgejo-event") or headers.get("x-gitea-event")
                return read_forge(body, self.find_repo) if event == "push" else None
            case HookKind.GITLAB:
                is_push = headers.get("x-gitlab-event") in GITLAB_EVENTS
                return read_gitlab(body, self.find_repo) if is_push else None
            case HookKind.STANDARD:
                return read_plain(body)
            case _:
                assert_never(self.kind)
