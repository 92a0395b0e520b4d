"""Where the requests of a source may go: law 7, as far as it can be told from addresses."""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from yarl import URL

from archiver.errors import ForbiddenAddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is public of IPv6, and more (https://www.iana.org/assignments/ipv6-address-space)."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 in disguise (RFC 6052); so are mapped addresses, 6to4 and Teredo, which Python knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Perimeter:
    """The host of ``home``, its port, and the hosts to which it may redirect.

    A redirect host is ``name`` or ``name:port``; without a port it is the scheme's own.
    A host's name may resolve to public addresses only, unless private ones are allowed, or the
    address itself is what the settings name.
    """

    home: URL
    redirect_hosts: tuple[str, ...] = ()
    allow_private_addresses: bool = False

    def check_redirect(self, origin: URL, target: URL) -> None:
        """Return if *origin* may send us to *target*.

        Raises:
            ForbiddenAddress: The settings name no such host, or it is less safe.
        """
        downgrade = origin.scheme == "https" and target.scheme != "https"
        if target.scheme not in {"http", "https"} or downgrade or target.user or target.password:
            raise ForbiddenAddress(f"{self.home.host} redirects to an address that is not safe")
        if _place(target) not in map(_place, self._named()):
            raise ForbiddenAddress(f"{self.home.host} redirects to a host that no setting names")

    def admits(self, address: str, port: int) -> bool:
        """Tell whether a connection may be opened to the IP *address*, whoever led us there."""
        ip = ipaddress.ip_address(address)
        return (
            self.allow_private_addresses
            or _is_public(ip)
            or any(_stands_in(url, ip, port) for url in self._named())
        )

    def _named(self) -> Iterator[URL]:
        yield self.home
        for host in self.redirect_hosts:
            yield URL(f"http://{host}")
            yield URL(f"https://{host}")


def _place(url: URL) -> tuple[str | None, int | None]:
    """Return host and port; None is the scheme's own port, so that http may lead to https."""
    return url.raw_host, None if url.is_default_port() else url.port


def _stands_in(url: URL, ip: IPAddress, port: int) -> bool:
    """Tell whether *url* spells this address and port out, or calls it localhost."""
    if url.port != port:
        return False
    return url.host == str(ip) or (url.host == "localhost" and ip.is_loopback)


def _is_public(ip: IPAddress) -> bool:
    hidden = list(_disguised(ip))
    if hidden:
        return all(map(_is_public, hidden))
    if ip.version == 6 and ip not in _UNICAST:  # noqa: PLR2004
        return False
    return ip.is_global and not ip.is_multicast


def _disguised(ip: IPAddress) -> Iterable[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address stands for, if it does."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ()
    if ip in _NAT64:
        return (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF),)
    if ip.teredo:
        return ip.teredo
    return filter(None, (ip.ipv4_mapped, ip.sixtofour))
