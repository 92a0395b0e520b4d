"""The addresses to which requests of a source may go (law 7)."""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from yarl import URL

from archiver.errors import ForbiddenAddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNICAST = ipaddress.IPv6Network("2000::/3")
"""Contains all public IPv6 addresses (https://www.iana.org/assignments/ipv6-address-space)."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Embeds IPv4 addresses (RFC 6052). Python recognizes mapped addresses, 6to4 and Teredo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Perimeter:
    """The host and port of ``home``, and the hosts to which it may redirect.

    A redirect host is ``name`` or ``name:port``; the default port is that of the scheme. Names must
    resolve to public addresses, unless private ones are allowed or the settings contain the address
    itself. ``setting`` is the name of the setting that has the redirect hosts.
    """

    home: URL
    redirect_hosts: tuple[str, ...] = ()
    allow_private_addresses: bool = False
    setting: str = "redirect_hosts"

    def check_redirect(self, origin: URL, target: URL) -> None:
        """Raise ForbiddenAddress if *origin* may not redirect to *target*."""
        downgrade = origin.scheme == "https" and target.scheme != "https"
        if target.scheme not in {"http", "https"} or downgrade or target.user or target.password:
            raise ForbiddenAddress(f"{self.home.host} redirects to an unsafe address")
        if _host_and_port(target) not in map(_host_and_port, self._allowed_urls()):
            raise ForbiddenAddress(
                f"{self.home.host} redirects to a host that is not in {self.setting}"
            )

    def admits(self, address: str, port: int) -> bool:
        """Return whether a connection to the IP *address* may be opened."""
        ip = ipaddress.ip_address(address)
        return (
            self.allow_private_addresses
            or _is_public(ip)
            or any(_spells(url, ip, port) for url in self._allowed_urls())
        )

    def _allowed_urls(self) -> Iterator[URL]:
        yield self.home
        for host in self.redirect_hosts:
            yield URL(f"http://{host}")
            yield URL(f"https://{host}")


def _host_and_port(url: URL) -> tuple[str | None, int | None]:
    """None is the scheme's default port: http may redirect to https."""
    return url.raw_host, None if url.is_default_port() else url.port


def _spells(url: URL, ip: IPAddress, port: int) -> bool:
    """Return whether *url* contains this address, or localhost, and this port."""
    if url.port != port:
        return False
    return url.host == str(ip) or (url.host == "localhost" and ip.is_loopback)


def _is_public(ip: IPAddress) -> bool:
    if embedded := list(_embedded_ipv4(ip)):
        return all(map(_is_public, embedded))
    if ip.version == 6 and ip not in _UNICAST:  # noqa: PLR2004
        return False
    return ip.is_global and not ip.is_multicast


def _embedded_ipv4(ip: IPAddress) -> Iterable[ipaddress.IPv4Address]:
    if isinstance(ip, ipaddress.IPv4Address):
        return ()
    if ip in _NAT64:
        return (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF),)
    if ip.teredo:
        return ip.teredo
    return filter(None, (ip.ipv4_mapped, ip.sixtofour))
