"""Settings of prewarming: rules for pushes, and the webhooks that announce them."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from archiver.errors import InvalidRequest
from archiver.names import is_name, require_rev
from archiver.prewarm.rules import PrewarmRule
from archiver.prewarm.signatures import KEY_MIN_BYTES, STANDARD_SECRET, has_key
from archiver.settings.section import Pattern, Section, SettingsError
from archiver.settings.source import Suffix

ARCHIVES_MAX = 100
"""Of one push by one rule: each is a task."""

POLLS_MAX = 100
"""Lookups of one poll."""

POLL_MIN_S = 60.0

SECRET_MIN_CHARS = 16
SECRET_FILE_MAX_BYTES = 8 << 10

SECRETS_MAX = 2
"""Of a hook: the old one and the new one, while the secret is replaced."""

_SIGNED_BY_STANDARD = frozenset({"gitlab", "standard"})
"""Kinds of hooks for which a secret may be in the form of Standard Webhooks."""

_WILDCARD = re.compile(r"[*?\[\]]")
_SECRET = re.compile(rf"[!-~]{{{SECRET_MIN_CHARS},1024}}")


class PrewarmSettings(Section):
    """A rule: archives to build after each push to a branch, before clients request them."""

    source: str
    """Name of a source."""
    repos: tuple[Pattern, ...] = Field(min_length=1)
    """Patterns of repos; `*` includes slashes. With `poll_s`, names."""
    branches: tuple[Pattern, ...] = ()
    """Patterns of branches and bookmarks; `*` includes slashes. With `poll_s`, names, and no tags.
    """
    tags: tuple[Pattern, ...] = ()
    """Patterns of tags."""
    subdirs: tuple[str, ...] = Field(default=("",), min_length=1)
    """Parts of the tree, each of which gets archives; an empty one is the whole tree."""
    suffixes: tuple[Suffix, ...] = Field(default=("tar.gz",), min_length=1)
    """Formats of the archives."""
    submodules: bool = False
    """Whether the archives have the files of submodules."""
    lfs: bool = False
    """Whether the archives have the files of Git LFS."""
    poll_s: float | None = Field(default=None, ge=POLL_MIN_S, le=604_800)
    """Seconds between lookups of the branches at the host, for hosts without webhooks, and up to a
    tenth more. At least 60. If not set, the host is not asked.
    """

    @model_validator(mode="after")
    def _require_refs(self) -> Self:
        if not (self.branches or self.tags):
            raise ValueError("branches: needs a pattern, or tags one")
        if len(self.subdirs) * len(self.suffixes) > ARCHIVES_MAX:
            raise ValueError(f"subdirs: there may be {ARCHIVES_MAX} archives of a push")
        for subdir in filter(None, self.subdirs):
            if not is_name(subdir):
                raise ValueError(f"subdirs: {subdir!r} is not a path without dots and empty parts")
        return self

    @model_validator(mode="after")
    def _require_names_to_poll(self) -> Self:
        if self.poll_s is None:
            return self
        if self.tags or not self.branches:
            raise ValueError("poll_s: needs branches, and cannot find tags")
        for kind, names in (("repos", self.repos), ("branches", self.branches)):
            if found := [name for name in names if _WILDCARD.search(name)]:
                raise ValueError(f"{kind}: must be names, because of poll_s, not {found[0]}")
        if len(self.repos) * len(self.branches) > POLLS_MAX:
            raise ValueError(f"poll_s: is possible for {POLLS_MAX} branches")
        for branch in self.branches:
            try:
                require_rev(branch)
            except InvalidRequest as exc:
                raise ValueError(f"branches: {exc.message}") from None
        return self

    def rule(self, name: str) -> PrewarmRule:
        return PrewarmRule(
            name=name,
            source=self.source,
            repos=self.repos,
            branches=self.branches,
            tags=self.tags,
            subdirs=self.subdirs,
            suffixes=self.suffixes,
            submodules=self.submodules,
            lfs=self.lfs,
            poll=None if self.poll_s is None else timedelta(seconds=self.poll_s),
        )


class HookSettings(Section):
    """A webhook, `POST /hooks/NAME`, that a host calls after each push."""

    kind: Literal["github", "gitlab", "gitea", "standard"]
    """`github`, `gitlab`, `gitea` (also for Forgejo), or `standard`: Archiver's own form, signed as
    in Standard Webhooks.
    """
    source: str
    """Name of the source to whose repos the pushes belong."""
    secret: SecretStr | None = None
    """Secret that the sender knows: at least 16 printable ASCII characters without spaces. One of
    `gitlab` or `standard` that begins with `whsec_` goes on with at least 16 bytes in Base64.
    """
    secret_file: Path | None = None
    """File with the secret, read when a process starts. It may have two lines, while the secret is
    replaced.
    """

    @model_validator(mode="after")
    def _require_secret(self) -> Self:
        if self.secret is None and self.secret_file is None:
            raise ValueError("secret: this or secret_file is required")
        if self.secret is not None and self.secret_file is not None:
            raise ValueError("secret: must not be set together with secret_file")
        if self.secret is not None and (problem := self._problem(self.secret.get_secret_value())):
            raise ValueError(f"secret: {problem}")
        return self

    def _problem(self, secret: str) -> str:
        """Return what is wrong with a secret, without its text; empty if it is valid."""
        if not _SECRET.fullmatch(secret):
            return f"must be {_SECRET_ALLOWED}"
        if self.kind in _SIGNED_BY_STANDARD and not has_key(secret):
            return f"must have {KEY_MIN_BYTES} bytes or more in Base64 after {STANDARD_SECRET}"
        return ""

    def read_secrets(self, name: str) -> tuple[str, ...]:
        """Return the secrets of the hook *name*. Raises SettingsError, without any of the text."""
        if self.secret:
            return (self.secret.get_secret_value(),)
        try:
            with (self.secret_file or Path()).open("rb") as file:
                content = file.read(SECRET_FILE_MAX_BYTES + 1)
        except OSError as exc:
            raise SettingsError(
                f"hooks.{name}.secret_file: cannot be read: {exc.strerror}"
            ) from None
        secrets = tuple(line.strip() for line in content.decode("latin-1").split("\n"))
        secrets = tuple(filter(None, secrets))
        if len(secrets) > SECRETS_MAX:
            raise SettingsError(f"hooks.{name}.secret_file: has more than {SECRETS_MAX} secrets")
        if not secrets or len(content) > SECRET_FILE_MAX_BYTES:
            raise SettingsError(f"hooks.{name}.secret_file: each line must be {_SECRET_ALLOWED}")
        for problem in filter(None, map(self._problem, secrets)):
            raise SettingsError(f"hooks.{name}.secret_file: each line {problem}")
        return secrets


_SECRET_ALLOWED = (
    f"{SECRET_MIN_CHARS} to 1024 printable ASCII characters without spaces, as from "
    "`openssl rand -hex 32`"
)
