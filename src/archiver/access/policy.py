"""The rules of access, as the settings state them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from archiver.access.patterns import RepoFilter
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicy:
    """The rules of one source. Clients without credentials have the scope ``anonymous``."""

    anonymous: Scope = Scope.CREATE
    private: bool = False
    repos: RepoFilter = field(default_factory=RepoFilter)

    @property
    def open_scope(self) -> Scope:
        """The scope of clients without credentials."""
        return Scope.NONE if self.private else self.anonymous

    def narrowed_to(self, new: "SourcePolicy") -> "SourcePolicy":
        """Return rules that allow nothing that these refuse, and are *new* if those do."""
        return SourcePolicy(
            anonymous=min(new.anonymous, self.anonymous),
            private=new.private or self.private,
            repos=self.repos.narrowed_to(new.repos),
        )


CLOSED = SourcePolicy(anonymous=Scope.NONE, private=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All rules. A source that is not in ``sources`` does not exist.

    ``grants`` has the grant of each token by the token's name, ``names`` the name by the hash. With
    ``proxy_header``, which is in lower case, a trusted proxy names its users, who share one grant.
    """

    sources: Mapping[str, SourcePolicy]
    grants: Mapping[str, Grant] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    proxy_header: bytes = b""
    proxy_grant: Grant = field(default_factory=lambda: Grant(scope=Scope.NONE))

    @property
    def accepts_credentials(self) -> bool:
        """Whether a client may be anything but anonymous."""
        return bool(self.names or self.proxy_header)

    def narrowed_to(self, new: "Policy") -> "Policy":
        """Return *new* without what it opens to clients that have no token.

        Half of a file is often a valid file, which says less: that a source is private, say. Tokens
        are as in *new*, but those of this policy get no more rights.
        """
        return replace(
            new,
            sources={
                name: rules.narrowed_to(new.sources.get(name, CLOSED))
                for name, rules in self.sources.items()
            },
            grants={name: self._narrow(name, grant, new) for name, grant in new.grants.items()},
            proxy_header=new.proxy_header if new.proxy_header == self.proxy_header else b"",
            proxy_grant=self.proxy_grant.narrowed_to(new.proxy_grant),
        )

    def _narrow(self, name: str, grant: Grant, new: "Policy") -> Grant:
        """Return the grant of a token in *new*, which is no wider if it is a token of this one."""
        same = {hash_ for hash_, owner in self.names.items() if owner == name} & new.names.keys()
        return self.grants[name].narrowed_to(grant) if same else grant
