"""Authenticates clients, and decides what they may do.

A client that lacks a permission gets the same answer as for a source or a repo that does not exist.
To a client without credentials, the answer asks for some, even if the source does not exist.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NewType

from archiver.access.credentials import read_token
from archiver.access.policy import Policy
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant, hash_token, is_token
from archiver.errors import Forbidden, Unauthenticated, UnknownRepo, UnknownSource
from archiver.runtime.notifications import Subscribers

Principal = NewType("Principal", str)
"""Names a client: ``token:NAME``, ``user:NAME`` of a proxy, or ANONYMOUS."""

ANONYMOUS = Principal("")

_VOID = "the token is unknown or has expired"

_TOKEN, _USER = "token:", "user:"

_USER_NAME = re.compile(rb"[!-~]([ -~]{0,253}[!-~])?")


def _now() -> datetime:
    return datetime.now(UTC)


class Access:
    """Applies a policy, which may be replaced at any time; ``changes`` is called afterwards."""

    def __init__(self, policy: Policy, *, now: Callable[[], datetime] = _now) -> None:
        self._policy = policy
        self._hidden = _private_sources(policy)
        self._now = now
        self.changes: Subscribers[[]] = Subscribers()

    @staticmethod
    def of_token(name: str) -> Principal:
        """Return the bearer of the token *name*."""
        return Principal(_TOKEN + name)

    @property
    def policy(self) -> Policy:
        return self._policy

    def replace(self, policy: Policy) -> None:
        """Apply *policy* from now on, also to clients that were authenticated before."""
        self._policy = policy
        self._hidden |= _private_sources(policy)
        self.changes.notify()

    def authenticate(
        self, headers: Iterable[tuple[bytes, bytes]], *, from_proxy: bool
    ) -> Principal:
        """Return the client of a request, whose header names are in lower case.

        *from_proxy* says whether a trusted proxy sent it. Raises Unauthenticated.
        """
        if not self._policy.accepts_credentials:
            return ANONYMOUS
        sent = [value for name, value in headers if name == b"authorization"]
        if sent:
            return self._authenticate_token(sent)
        if from_proxy and self._policy.proxy_header:
            users = [value for name, value in headers if name == self._policy.proxy_header]
            return self._authenticate_user(users) if users else ANONYMOUS
        return ANONYMOUS

    def _authenticate_token(self, sent: list[bytes]) -> Principal:
        token = read_token(sent[0]) if len(sent) == 1 else None
        if token is None or not is_token(token):
            raise Unauthenticated(
                "the header Authorization has no token of Archiver: send one as a bearer token, or "
                "as the password of HTTP Basic",
                reason="malformed",
            )
        name = self._policy.names.get(hash_token(token))
        if name is None:
            raise Unauthenticated(_VOID, reason="unknown token")
        if not self._policy.grants[name].is_valid(self._now()):
            raise Unauthenticated(_VOID, reason=f"expired: {self.of_token(name)}")
        return self.of_token(name)

    def _authenticate_user(self, sent: list[bytes]) -> Principal:
        if len(sent) != 1 or not _USER_NAME.fullmatch(sent[0]):
            raise Unauthenticated(
                "the proxy sent no valid name of a user: use 1 to 255 printable ASCII characters",
                reason="malformed user",
            )
        return Principal(_USER + sent[0].decode("ascii"))

    def _grant(self, principal: Principal) -> Grant | None:
        """Return the grant of *principal* under the present policy, if it is still valid."""
        if principal.startswith(_TOKEN):
            grant = self._policy.grants.get(principal.removeprefix(_TOKEN))
        elif principal.startswith(_USER) and self._policy.proxy_header:
            grant = self._policy.proxy_grant
        else:
            return None
        return grant if grant and grant.is_valid(self._now()) else None

    def scope(self, principal: Principal, source: str, repo: str | None = None) -> Scope:
        """Return what *principal* may do with a repo; without *repo*, with any one of the source.

        NONE if the source or the repo does not exist for it.
        """
        rules = self._policy.sources.get(source)
        if rules is None or (repo is not None and not rules.repos.accepts(repo)):
            return Scope.NONE
        grant = self._grant(principal)
        if principal and grant is None:  # its token was removed, or has expired
            return Scope.NONE
        granted = grant.scope if grant and grant.covers(source, repo) else Scope.NONE
        return max(granted, rules.open_scope)

    def may_read(self, principal: Principal, source: str, repo: str) -> bool:
        return self.scope(principal, source, repo) >= Scope.READ

    def may_read_all(self, principal: Principal) -> bool:
        """Return whether *principal* may read all repos of all sources."""
        grant = self._grant(principal)
        if principal and grant is None:  # its token was removed, or has expired
            return False
        reads = grant is not None and grant.scope >= Scope.READ
        return all(
            rules.open_scope >= Scope.READ or (grant and reads and grant.covers_all(source))
            for source, rules in self._policy.sources.items()
        )

    def require_source(self, principal: Principal, source: str) -> None:
        """Return if *principal* may read a repo of *source*.

        Raises Unauthenticated, or UnknownSource.
        """
        if self.scope(principal, source) >= Scope.READ:
            return
        if not principal and self._policy.accepts_credentials:
            raise Unauthenticated(f"{source!r} is an unknown source, or requires a token")
        raise UnknownSource(f"unknown source {source!r}")

    def require_repo(self, principal: Principal, source: str, repo: str) -> None:
        """Return if *principal* may read *repo*. Raises UnknownRepo."""
        if not self.may_read(principal, source, repo):
            raise UnknownRepo(f"{source} has no repository {repo}")

    def may_create(self, principal: Principal, source: str, repo: str) -> bool:
        """Return whether *principal* may have missing archives of *repo* built."""
        return self.scope(principal, source, repo) >= Scope.CREATE

    def is_admin(self, principal: Principal, source: str, repo: str) -> bool:
        """Return whether *principal* operates *repo*, and so is not limited."""
        return self.scope(principal, source, repo) >= Scope.ADMIN

    def create_refusal(self, principal: Principal) -> Unauthenticated | Forbidden:
        """Return the error for a missing archive that *principal* may not have built."""
        if principal:
            return Forbidden(f"the archive does not exist, and {principal} may not have it built")
        return Unauthenticated(
            "the archive does not exist; to have it built, send a token with the scope 'create'"
        )

    def require_create(self, principal: Principal, source: str, repo: str) -> None:
        """Return if *principal* may have archives of *repo* built.

        Raises Unauthenticated, or Forbidden.
        """
        if not self.may_create(principal, source, repo):
            raise _lacks(principal, Scope.CREATE)

    def require_admin(self, principal: Principal, source: str, repo: str) -> None:
        """Return if *principal* may operate *repo*. Raises Unauthenticated, or Forbidden."""
        if self.scope(principal, source, repo) < Scope.ADMIN:
            raise _lacks(principal, Scope.ADMIN)

    def require_read_all(self, principal: Principal) -> None:
        """Return if *principal* may read all repos of all sources.

        Raises Unauthenticated, or Forbidden.
        """
        if not self.may_read_all(principal):
            raise _lacks(principal, Scope.READ, where="for all repos of all sources")

    def require_operator(self, principal: Principal, source: str | None) -> None:
        """Return if *principal* may operate all repos of *source*; without it, of every source.

        These include archives of repos and sources that are not served any more. Raises
        Unauthenticated, or Forbidden.
        """
        grant = self._grant(principal)
        if grant is None or grant.scope < Scope.ADMIN or not grant.covers_all(source):
            where = f"for all repos of {source}" if source else "for all repos of all sources"
            raise _lacks(principal, Scope.ADMIN, where=where)

    def require_scope(self, principal: Principal, scope: Scope) -> None:
        """Return if *principal* has *scope* for any source. Raises Unauthenticated, or Forbidden.

        It then has to be checked for the source and the repo.
        """
        if not any(self.scope(principal, source) >= scope for source in self._policy.sources):
            raise _lacks(principal, scope)

    def hides(self, source: str) -> bool:
        """Return whether public routes must not name *source*: it is private, or was."""
        return source in self._hidden or source not in self._policy.sources

    def require_metrics(self, principal: Principal) -> None:
        """Return if *principal* may read the metrics, whose labels name all sources.

        A source that was private stays hidden here until the process ends, as its labels stay.
        Raises Unauthenticated, or Forbidden.
        """
        grant = self._grant(principal)
        for source in self._hidden:
            if grant is None or grant.scope < Scope.ADMIN or not grant.covers(source):
                message = "metrics need a token with the scope 'admin' for every private source"
                raise Forbidden(message) if principal else Unauthenticated(message)


def _private_sources(policy: Policy) -> frozenset[str]:
    return frozenset(name for name, rules in policy.sources.items() if rules.private)


def _lacks(
    principal: Principal, scope: Scope, *, where: str = "here"
) -> Unauthenticated | Forbidden:
    if principal:
        return Forbidden(f"{principal} does not have the scope '{scope.label}' {where}")
    return Unauthenticated(f"send a token with the scope '{scope.label}'")
