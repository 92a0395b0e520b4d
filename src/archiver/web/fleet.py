"""Keeps an address to one fleet: each server leaves a mark there that the others can read.

Servers of one user may share an address (``SO_REUSEPORT``), so that one relieves another. The
system gives each of them a part of the connections, whatever fleets they belong to.

A mark is the name of an abstract Unix socket (``unix(7)``). It ends with its process, and it is
visible wherever the address is: also in other containers on the same network. Only Linux has such
sockets; elsewhere nothing is checked.
"""

import hashlib
import ipaddress
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

MARK = "archiver-web"

NATS_PORT = 4222

TURN_S = 5.0
"""How long to wait for another server that is leaving its mark, which takes milliseconds."""

_NAMES = Path("/proc/net/unix")
_DIGITS = 16
_OWN_BYTES = 4


class OtherFleet(Exception):
    """Another fleet serves at the address. The text says where, and how to tell it apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What the processes of a fleet have in common, each as a digest."""

    engine: str
    regions: str


def fleet_of(servers: Sequence[str], regions: Mapping[str, tuple[str, str | None]]) -> Fleet:
    """Return the fleet of the engine's *servers* and of the bucket and endpoint of each region.

    Credentials, schemes and the order do not count.
    """
    urls = [urlsplit(server if "://" in server else f"nats://{server}") for server in servers]
    return Fleet(
        engine=_digest(sorted(f"{url.hostname}:{url.port or NATS_PORT}" for url in urls)),
        regions=_digest(sorted(regions.items())),
    )


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:_DIGITS]


@contextmanager
def marked(ip: str, port: int, fleet: Fleet) -> Iterator[None]:
    """Leave the mark of *fleet* at an address for as long as the block runs.

    Raises:
        OtherFleet: The mark of another one is there, or at an address that covers this one.
    """
    if sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX) as mark:
        with _turn(port):
            _require_no_other(ip, port, fleet)
            _take(mark, f"{port}/{ip}/{fleet.engine}/{fleet.regions}/{_own_name()}")
        yield


def _own_name() -> str:
    """Return what no other mark has. Containers on one network may give the same process id."""
    return secrets.token_hex(_OWN_BYTES)


@contextmanager
def _turn(port: int) -> Iterator[None]:
    """Wait for other servers that read and leave marks at *port* just now."""
    with socket.socket(socket.AF_UNIX) as turn:
        deadline = time.monotonic() + TURN_S
        while not _take(turn, str(port)) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield


def _take(holder: socket.socket, name: str) -> bool:
    try:
        holder.bind(f"\0{MARK}/{name}")
    except OSError:
        return False
    return True


def _require_no_other(ip: str, port: int, fleet: Fleet) -> None:
    for other_ip, other in _marks(port):
        if other == fleet or not _overlap(ip, other_ip):
            continue
        setting = "engine.url" if other.engine != fleet.engine else "regions"
        raise OtherFleet(
            f"another fleet serves at {other_ip}, port {port}, with other settings of `{setting}`; "
            "stop it first, or use another address"
        )


def _marks(port: int) -> Iterator[tuple[str, Fleet]]:
    """Yield address and fleet of each server that has left its mark at *port*."""
    try:
        lines = _NAMES.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        match line.rpartition(" ")[2].split("/"):
            case [name, other_port, ip, engine, regions, _] if (name, other_port) == (
                f"@{MARK}",
                str(port),
            ):
                yield ip, Fleet(engine=engine, regions=regions)


def _overlap(one: str, other: str) -> bool:
    """Tell whether some connection could go to either of two addresses."""
    a, b = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return a == b or _covers(a, b) or _covers(b, a)


def _covers(
    every: ipaddress.IPv4Address | ipaddress.IPv6Address,
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> bool:
    """Tell whether *every* is all addresses of a family that *address* is in; IPv6 takes both."""
    return every.is_unspecified and every.version >= address.version
