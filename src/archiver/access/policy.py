"""The rules of access, as the settings state them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from archiver.access.patterns import RepoFilter
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicy:
    """The rules of one source. Clients without credentials have the scope ``anonymous``."""

    anonymous: Scope = Scope.CREATE
    private: bool = False
    repos: RepoFilter = field(default_factory=RepoFilter)


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
