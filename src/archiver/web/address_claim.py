"""Keeps servers of different fleets from sharing an address.

Servers of one user may share an address (``SO_REUSEPORT``), so that a successor can start before
its predecessor ends. The system distributes connections among them, whichever fleet they serve.
Each server therefore claims its address with a mark that other servers can read.

A mark is the name of an abstract Unix socket (``unix(7)``). It disappears with its process, and is
visible wherever the address is, also in other containers on the same network. Only Linux has such
sockets; on other systems nothing is checked.
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

LOCK_TIMEOUT_S = 5.0
"""How long to wait for another server that is claiming the port, which takes milliseconds."""

_NAMES = Path("/proc/net/unix")
_HASH_DIGITS = 16


class CannotListen(Exception):
    """The server cannot listen on the address. The text says why."""


class ClaimedByOtherFleet(CannotListen):
    """Another fleet serves at the address. The text names it and the setting that differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetIdentity:
    """Identifies a fleet by hashes of its engine and of its regions."""

    engine: str
    regions: str


def fleet_identity(
    servers: Sequence[str], regions: Mapping[str, tuple[str, str | None]]
) -> FleetIdentity:
    """Return the identity of the engine's *servers* and each region's bucket and endpoint.

    Credentials, schemes and the order do not count.
    """
    urls = [urlsplit(server if "://" in server else f"nats://{server}") for server in servers]
    return FleetIdentity(
        engine=_hash(sorted(f"{url.hostname}:{url.port or NATS_PORT}" for url in urls)),
        regions=_hash(sorted(regions.items())),
    )


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:_HASH_DIGITS]


@contextmanager
def claimed_address(ip: str, port: int, fleet: FleetIdentity) -> Iterator[None]:
    """Claim an address for *fleet* while the block runs.

    Raises ClaimedByOtherFleet if another fleet claims this address or one that overlaps it.
    """
    if sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX) as mark:
        with _lock(port):
            _require_no_other_fleet(ip, port, fleet)
            unique = secrets.token_hex(4)  # containers on one network may share a process id
            _bind_name(mark, f"{port}/{ip}/{fleet.engine}/{fleet.regions}/{unique}")
        yield


@contextmanager
def _lock(port: int) -> Iterator[None]:
    """Wait for other servers that are claiming *port*."""
    with socket.socket(socket.AF_UNIX) as lock:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while not _bind_name(lock, str(port)) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield


def _bind_name(sock: socket.socket, name: str) -> bool:
    try:
        sock.bind(f"\0{MARK}/{name}")
    except OSError:
        return False
    return True


def _require_no_other_fleet(ip: str, port: int, fleet: FleetIdentity) -> None:
    for other_ip, other in _claims(port):
        if other == fleet or not _overlap(ip, other_ip):
            continue
        setting = "engine.url" if other.engine != fleet.engine else "regions"
        raise ClaimedByOtherFleet(
            f"another fleet serves at {other_ip}, port {port}, with other settings of `{setting}`; "
            "stop it first, or use another address"
        )


def _claims(port: int) -> Iterator[tuple[str, FleetIdentity]]:
    """Yield address and fleet of each claim of *port*."""
    try:
        lines = _NAMES.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        match line.rpartition(" ")[2].split("/"):
            case [name, of, ip, engine, regions, _] if f"{name}/{of}" == f"@{MARK}/{port}":
                yield ip, FleetIdentity(engine=engine, regions=regions)


def _overlap(one: str, other: str) -> bool:
    """Return whether some connection could reach either of two addresses.

    A wildcard means all addresses of its family; IPv6's includes IPv4.
    """
    a, b = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return a == b or any(
        wildcard.is_unspecified and wildcard.version >= address.version
        for wildcard, address in ((a, b), (b, a))
    )
