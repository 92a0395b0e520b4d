"""Who asks: the address of a client, behind proxies that are trusted, and the region near it."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from starlette.types import Scope

from archiver.locality.networks import (
    Address,
    Networks,
    format_address,
    format_allotment,
    parse_address,
)
from archiver.model import Region

K = TypeVar("K", bound=Hashable)

FORWARDED_FOR = b"x-forwarded-for"
"""The one header that is read. Proxies that write it hand on a ``Forwarded`` (RFC 7239) of the
client's own as it is, so that whoever read both would believe the client."""

HOPS_MAX = 20
"""How many proxies are looked past, which is more than any request has on its way."""

KNOWN_MAX = 20_000
"""Peers, and values of the header, that are remembered: 25 MB at the most. With none, a look takes
some 10 µs more."""

FORWARDED_MAX_BYTES = 256
"""Of a value that is remembered."""

FORWARDED_READ_BYTES = 2048
"""Read from the end of the header, which proxies append to: room for more than HOPS_MAX hops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """``address`` is as the server shows it if it is none of the internet's.

    ``group`` is what it is counted under, with whoever else has the same.
    """

    address: str
    group: str
    region: Region | None
    is_proxy: bool


NOBODY = Client(address="", group="", region=None, is_proxy=False)


class Clients:
    """Finds out who a client is, and remembers some.

    ``networks`` are those that the configuration places; they count more than ``published`` ones,
    in which None stands for a place that is none of ours. ``trusted_proxies`` are believed when
    they say whom they forward.
    """

    def __init__(
        self,
        *,
        networks: Iterable[tuple[str, Region]] = (),
        published: Networks[Region | None] | None = None,
        trusted_proxies: Iterable[str] = (),
        known_max: int = KNOWN_MAX,
    ) -> None:
        self._networks = Networks(networks)
        self._published = published or Networks()
        self._proxies = Networks((network, True) for network in trusted_proxies)
        self._known_max = known_max
        self._peers: dict[str, Client] = {}
        self._forwarded: dict[tuple[str, bytes], Client] = {}

    def publish(self, published: Networks[Region | None]) -> None:
        """Take *published* for what was published until now."""
        self._published = published
        self._peers.clear()
        self._forwarded.clear()

    def address(self, scope: Scope) -> str:
        """Return the client's address, for logs; empty if there is none."""
        return self.of(scope).address

    def region(self, scope: Scope) -> Region | None:
        """Return the region that is nearest to the client, if that is known."""
        return self.of(scope).region

    def of(self, scope: Scope) -> Client:
        """Return the client of an ASGI request. A matter of a microsecond if it was here lately."""
        peer = scope.get("client")
        if not peer:
            return NOBODY
        client = self._peers.get(peer[0]) or self._meet(peer[0])
        return self._behind(client, scope) if client.is_proxy else client

    def _meet(self, text: str) -> Client:
        address = parse_address(text)
        client = self._at(address) if address else replace(NOBODY, address=text, group=text)
        self._remember(self._peers, text, client)
        return client

    def _at(self, address: Address) -> Client:
        return Client(
            address=format_address(address),
            group=format_allotment(address),
            region=self._networks.get(address) or self._published.get(address),
            is_proxy=self._proxies.get(address) is not None,
        )

    def _behind(self, proxy: Client, scope: Scope) -> Client:
        """Return whom *proxy* forwards; itself if it does not say, or not in a way to be read."""
        value = b",".join(value for name, value in scope["headers"] if name == FORWARDED_FOR)
        if len(value) > FORWARDED_READ_BYTES:
            value = value[-FORWARDED_READ_BYTES:].partition(b",")[2]
        if not value:
            return proxy
        key = (proxy.address, value)
        if known := self._forwarded.get(key):
            return known
        client = self._outermost(value, proxy)
        if len(value) <= FORWARDED_MAX_BYTES:
            self._remember(self._forwarded, key, client)
        return client

    def _outermost(self, forwarded: bytes, proxy: Client) -> Client:
        """Return who stands behind *proxy*, from right to left, past all that are trusted."""
        client = proxy
        for hop in reversed(forwarded.rsplit(b",", HOPS_MAX)[-HOPS_MAX:]):
            address = parse_address(_without_port(hop.decode("latin-1").strip()))
            if not address:
                return client
            client = self._at(address)
            if not client.is_proxy:
                return client
        return client

    def _remember(self, known: dict[K, Client], key: K, client: Client) -> None:
        """Add to *known*; if full, begin anew, which is cheaper than to know who came last."""
        if len(known) >= self._known_max:
            known.clear()
        known[key] = client


def _without_port(hop: str) -> str:
    """Return the address of ``1.2.3.4:80``, ``[::1]:80`` or ``[::1]``, as some proxies write it."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
