"""Internet addresses, and what belongs to the networks that they are in."""

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
"""What IPv4 addresses begin with where a socket of both families shows them (RFC 4291, 2.5.5.2)."""

_MAPPED_BITS = len(_MAPPED) * 8
_MAPPED_NETWORK = IPv6Network((_MAPPED + bytes(_V4_BYTES), _MAPPED_BITS))


def parse_address(text: str) -> Address | None:
    """Return the address that *text* is, without a zone (``%eth0``), or None if it is none."""
    try:
        if ":" not in text:
            return Address(socket.inet_pton(socket.AF_INET, text))
        packed = socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return None
    return Address(packed.removeprefix(_MAPPED))


def write_address(address: Address) -> str:
    family = socket.AF_INET if len(address) == _V4_BYTES else socket.AF_INET6
    return socket.inet_ntop(family, address)


def write_allotment(address: Address) -> str:
    """Return what one who has *address* has at the least: of IPv6, a network of 64 bits (RFC 6177).

    Who is counted by address would be counted never if any of 2**64 would do.
    """
    if len(address) == _V4_BYTES:
        return write_address(address)
    host_bytes = len(address) - _V6_NETWORK_BYTES
    return f"{write_address(Address(address[:_V6_NETWORK_BYTES] + bytes(host_bytes)))}/64"


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Return the network, of which IPv4 addresses written as IPv6 ones are made IPv4 again.

    Raises:
        ValueError: It is none, or has bits of a host.
    """
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED_NETWORK):
        packed = network.network_address.packed.removeprefix(_MAPPED)
        return IPv4Network((packed, network.prefixlen - _MAPPED_BITS))
    return network


class Networks(Generic[V]):
    """What belongs to an address: the value of the smallest network that it is in.

    Of several values of one network, the first counts. A look takes one probe of a table for each
    length of prefix that there is, however many networks there are.
    """

    def __init__(self, values: Iterable[tuple[str, V]] = ()) -> None:
        """Raises ValueError if a network is none."""
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
