"""The address of a client, behind trusted proxies, and the region near it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from starlette.types import Scope

from archiver.locality.networks import (
    Address,
    Networks,
    format_address,
    format_allotment,
    parse_address,
)
from archiver.model import Region

FORWARDED_FOR = b"x-forwarded-for"
"""The only header that is read. Proxies that write it pass on a client's own ``Forwarded``
(RFC 7239) unchanged, so a client could forge that one."""

HOPS_MAX = 20
"""Trusted proxies that are skipped at most. No real request passes that many."""

REMEMBERED_MAX = 20_000
"""Peers, and header values, that are remembered: at most 25 MB. Without them, a request takes
about 10 µs more."""

FORWARDED_MAX_BYTES = 256
"""Longest header value that is remembered."""

FORWARDED_READ_BYTES = 2048
"""Read from the end of the header, where proxies append: room for more than HOPS_MAX hops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """``address`` is the server's own text if it is not an IP address.

    Limits count requests per ``group``: an address, or an IPv6 network.
    """

    address: str
    group: str
    region: Region | None
    is_proxy: bool


UNKNOWN_CLIENT = Client(address="", group="", region=None, is_proxy=False)


class ClientResolver:
    """Finds the client of a request, and remembers recent ones.

    ``networks`` are the configured ones. They take precedence over ``published`` networks, where
    None is a place without a region of ours. ``X-Forwarded-For`` is believed only from
    ``trusted_proxies``.
    """

    def __init__(
        self,
        *,
        networks: Iterable[tuple[str, Region]] = (),
        published: Networks[Region | None] | None = None,
        trusted_proxies: Iterable[str] = (),
        remembered_max: int = REMEMBERED_MAX,
    ) -> None:
        self._networks = Networks(networks)
        self._published = published or Networks()
        self._proxies = Networks((network, True) for network in trusted_proxies)
        self._peer = lru_cache(remembered_max)(self._resolve_peer)
        self._behind = lru_cache(remembered_max)(self._last_untrusted)

    def replace_published(self, published: Networks[Region | None]) -> None:
        """Use *published* instead of the published networks known so far."""
        self._published = published
        self._peer.cache_clear()
        self._behind.cache_clear()

    def resolve(self, scope: Scope) -> Client:
        """Return the client of an ASGI request; about 1 µs if it is remembered.

        Of a header that is too long, only whole entries at its end are read.
        """
        peer = scope.get("client")
        if not peer:
            return UNKNOWN_CLIENT
        client = self._peer(peer[0])
        if not client.is_proxy:
            return client
        forwarded = b",".join([value for name, value in scope["headers"] if name == FORWARDED_FOR])
        if len(forwarded) <= FORWARDED_MAX_BYTES:
            return self._behind(peer[0], forwarded) if forwarded else client
        if len(forwarded) > FORWARDED_READ_BYTES:
            forwarded = forwarded[-FORWARDED_READ_BYTES:].partition(b",")[2]
        return self._last_untrusted(peer[0], forwarded)

    def peer(self, address: str) -> Client:
        """Return the client at the other end of a connection, which may be a proxy."""
        return self._peer(address)

    def is_trusted(self, scope: Scope) -> bool:
        """Return whether a trusted proxy sent an ASGI request."""
        peer = scope.get("client")
        return self._peer(peer[0]).is_proxy if peer else False

    def _resolve_peer(self, text: str) -> Client:
        address = parse_address(text)
        return self._at(address) if address else replace(UNKNOWN_CLIENT, address=text, group=text)

    def _at(self, address: Address) -> Client:
        return Client(
            address=format_address(address),
            group=format_allotment(address),
            region=self._networks.get(address) or self._published.get(address),
            is_proxy=self._proxies.get(address) is not None,
        )

    def _last_untrusted(self, peer: str, forwarded: bytes) -> Client:
        """Return the first client from the right that is no trusted proxy.

        Behind proxies alone, or up to a malformed entry, it is the last proxy.
        """
        client = self._peer(peer)
        for hop in reversed(forwarded.rsplit(b",", HOPS_MAX)[-HOPS_MAX:]):
            address = parse_address(_without_port(hop.decode("latin-1").strip()))
            if not address:
                return client
            client = self._at(address)
            if not client.is_proxy:
                return client
        return client


def _without_port(hop: str) -> str:
    """Return the address of ``1.2.3.4:80``, ``[::1]:80`` or ``[::1]``, as some proxies write it."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
