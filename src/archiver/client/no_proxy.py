"""Which hosts ``no_proxy`` excludes, as curl reads it."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from typing import Union

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

_SEPARATORS = re.compile(r"[,\s]+")


def is_excluded(host: str, no_proxy: str) -> bool:
    """Return whether a host is excluded.

    ``*`` alone excludes all hosts. A name excludes itself and the names that end with it after a
    dot. An address excludes itself; with ``/BITS``, it excludes a network.
    """
    if no_proxy == "*":
        return True
    words = [word for word in _SEPARATORS.split(no_proxy) if word]
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        return any(_has_address(word, address) for word in words)
    return any(_has_name(word.lower(), host.lower()) for word in words)


def _has_address(word: str, address: Address) -> bool:
    try:
        return address in ipaddress.ip_network(word, strict=False)
    except ValueError:
        return False


def _has_name(word: str, host: str) -> bool:
    name = word.removesuffix(".").removeprefix(".")
    return bool(name) and f".{host.rstrip('.')}".endswith(f".{name}")
