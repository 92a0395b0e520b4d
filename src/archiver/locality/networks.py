"""Internet addresses, and values assigned to networks."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Generic, NewType, TypeVar

V = TypeVar("V")

Address = NewType("Address", bytes)
"""An IPv4 address as 4 bytes, an IPv6 address as 16; never an IPv4 address as 16."""

_V4_BYTES = 4
_V6_NETWORK_BYTES = 8
_MAPPED = bytes(10) + b"\xff\xff"
"""Prefix of IPv4 addresses on a dual-stack socket (RFC 4291, 2.5.5.2)."""
_MAPPED_BITS = len(_MAPPED) * 8


def parse_address(text: str) -> Address | None:
    """Return *text* as an address without zone (``%eth0``); None if it is not an address."""
    try:
        if ":" not in text:
            return Address(socket.inet_pton(socket.AF_INET, text))
        packed = socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return None
    return Address(packed.removeprefix(_MAPPED))


def format_address(address: Address) -> str:
    family = socket.AF_INET if len(address) == _V4_BYTES else socket.AF_INET6
    return socket.inet_ntop(family, address)


def format_allotment(address: Address) -> str:
    """Return the network that the owner of *address* has at least: a /64 for IPv6 (RFC 6177).

    Limits per address would be ineffective against clients with 2**64 addresses.
    """
    if len(address) == _V4_BYTES:
        return format_address(address)
    host_bytes = len(address) - _V6_NETWORK_BYTES
    return f"{format_address(Address(address[:_V6_NETWORK_BYTES] + bytes(host_bytes)))}/64"


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Return *text* as a network. IPv4 networks in IPv6 notation become IPv4.

    Raises ValueError if it is not a network, or has host bits set.
    """
    network = ip_network(text)
    if isinstance(network, IPv4Network) or network.prefixlen < _MAPPED_BITS:
        return network
    mapped = network.network_address.ipv4_mapped
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS)) if mapped else network


class Networks(Generic[V]):
    """Maps an address to the value of the smallest network that contains it.

    If a network has several values, the first is used. A lookup takes one table access per prefix
    length, however many networks there are.
    """

    def __init__(self, values: Iterable[tuple[str, V]] = ()) -> None:
        """Raises ValueError for an invalid network."""
        tables: dict[tuple[int, int], dict[int, V]] = {}
        for text, value in values:
            network = parse_network(text)
            host_bits = network.max_prefixlen - network.prefixlen
            table = tables.setdefault((network.max_prefixlen // 8, host_bits), {})
            table.setdefault(int(network.network_address) >> host_bits, value)
        self._tables = {
            size: [(bits, tables[of, bits]) for of, bits in sorted(tables) if of == size]
            for size in {of for of, _ in tables}
        }

    def __len__(self) -> int:
        return sum(len(table) for tables in self._tables.values() for _, table in tables)

    def get(self, address: Address) -> V | None:
        number = int.from_bytes(address)
        for host_bits, table in self._tables.get(len(address), ()):
            prefix = number >> host_bits
            if prefix in table:
                return table[prefix]
        return None
