"""A webhook that a host calls after each push."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from archiver.prewarm.payloads import FindRepo, read_forge, read_gitlab, read_plain, refuse_form
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

FORGE_EVENTS = frozenset({"push"})
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

    def other_event(self, headers: Headers) -> str | None:
        """Return what the header of a delivery names, if that is not a push."""
        match self.kind:
            case HookKind.GITHUB:
                event, pushes = headers.get("x-github-event", ""), FORGE_EVENTS
            case HookKind.GITEA:
                event = headers.get("x-forgejo-event") or headers.get("x-gitea-event", "")
                pushes = FORGE_EVENTS
            case HookKind.GITLAB:
                event, pushes = headers.get("x-gitlab-event", ""), GITLAB_EVENTS
            case HookKind.STANDARD:
                return None
            case _:
                assert_never(self.kind)
        return None if event in pushes else event

    def read(self, headers: Headers, body: bytes) -> Push | None:
        """Return the push in a verified delivery; None if it is another event, or has no commit.

        Raises InvalidRequest if the body is malformed.
        """
        refuse_form(body)
        if self.other_event(headers) is not None:
            return None
        match self.kind:
            case HookKind.GITHUB | HookKind.GITEA:
                return read_forge(body, self.find_repo)
            case HookKind.GITLAB:
                return read_gitlab(body, self.find_repo)
            case HookKind.STANDARD:
                return read_plain(body)
            case _:
                assert_never(self.kind)
