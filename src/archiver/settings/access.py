"""Settings of access: clients without credentials, the users of a proxy, and tokens."""

import re
from datetime import UTC, date, datetime, time
from typing import Literal, Self

from pydantic import Field, model_validator

from archiver.access.patterns import EVERYTHING
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant, is_token_hash
from archiver.settings.section import Pattern, Section

ScopeName = Literal["read", "create", "admin"]
AnonymousScope = Literal["none", "read", "create"]

_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_NOT_AN_IDENTITY = frozenset(
    {
        *("accept", "authorization", "connection", "cookie", "forwarded", "host", "referer"),
        *("user-agent", "via", "x-forwarded-for", "x-request-id"),
    }
)


class AccessSettings(Section):
    """The permissions of clients without a token."""

    anonymous: AnonymousScope | None = None
    """Permission of clients without credentials, for sources that do not set it themselves: `none`,
    to `read` stored archives, or also to `create` missing ones. Default: `create`.
    """
    proxy_header: str | None = None
    """Header in which a reverse proxy with single sign-on sends the name of its user, such as
    `X-Auth-Request-User`. It is read only from proxies in `server.trusted_proxies`, which must
    remove it from the requests of clients.
    """
    proxy_scopes: tuple[ScopeName, ...] = Field(default=("read", "create"), min_length=1)
    """Scopes of the users of the proxy."""
    proxy_sources: tuple[Pattern, ...] = EVERYTHING
    """Patterns of the sources, private ones included, that users of the proxy may use."""
    proxy_repos: tuple[Pattern, ...] = EVERYTHING
    """Patterns of the repos that users of the proxy may use."""

    @model_validator(mode="after")
    def _require_header(self) -> Self:
        header = self.proxy_header
        if header is not None and (
            not _HEADER.fullmatch(header) or header.lower() in _NOT_AN_IDENTITY
        ):
            raise ValueError("proxy_header: must be the name of a header of its own")
        return self

    @property
    def proxy_grant(self) -> Grant:
        return Grant(
            scope=max(map(Scope.parse, self.proxy_scopes)),
            sources=self.proxy_sources,
            repos=self.proxy_repos,
        )


class TokenSettings(Section):
    """A token, and what its bearers may do."""

    hash: str
    """`sha256:` and the SHA-256 of the token, as `archiver token create` prints it."""
    scopes: tuple[ScopeName, ...] = Field(default=("read", "create"), min_length=1)
    """Scopes of the bearers: `read` stored archives, `create` missing ones, `admin` to operate
    Archiver. Each includes those before it.
    """
    sources: tuple[Pattern, ...] = EVERYTHING
    """Patterns of the sources, private ones included, that the token covers."""
    repos: tuple[Pattern, ...] = EVERYTHING
    """Patterns of the repos that the token covers. `*` includes slashes."""
    expires: datetime | date | None = None
    """Time from which the token is void, such as `2027-06-30` or `2027-06-30T12:00:00Z`. A date
    begins at midnight UTC.
    """

    @model_validator(mode="after")
    def _require_hash(self) -> Self:
        if not is_token_hash(self.hash):
            raise ValueError("hash: must be sha256: and 64 hexadecimal digits in lower case")
        return self

    @property
    def grant(self) -> Grant:
        return Grant(
            scope=max(map(Scope.parse, self.scopes)),
            sources=self.sources,
            repos=self.repos,
            expires=self.expires_at,
        )

    @property
    def expires_at(self) -> datetime | None:
        """The time from which the token is void, with a time zone."""
        expires = self.expires
        if expires is None:
            return None
        if not isinstance(expires, datetime):
            expires = datetime.combine(expires, time())
        return expires if expires.tzinfo else expires.replace(tzinfo=UTC)
