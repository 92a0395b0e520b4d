"""A resolver for the processes of the campaign, which knows the names in the file ``FAULTS_HOSTS``.

Python imports this module when it starts, because the fleet puts its folder on ``PYTHONPATH``. The
file is read for each name, so a campaign can break the resolver while processes run. Only names
that end in ``.test`` are looked up here (RFC 6761 reserves them).
"""
# ruff: noqa: INP001 - Python requires this module to be outside of a package

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import uvloop


def _address(host: object) -> object:
    if not isinstance(host, str) or not host.endswith(".test"):
        return host
    for line in Path(os.environ["FAULTS_HOSTS"]).read_text().splitlines():
        name, _, address = line.partition(" ")
        if name == host:
            return address
    raise socket.gaierror(socket.EAI_AGAIN, "the resolver of the campaign is down")


_of_python = cast("Callable[..., Any]", socket.getaddrinfo)
_of_uvloop = cast("Callable[..., Awaitable[Any]]", uvloop.Loop.getaddrinfo)


def _resolve(host: object, *arguments: object, **options: object) -> object:
    return _of_python(_address(host), *arguments, **options)


async def _resolve_in_uvloop(
    loop: uvloop.Loop, host: object, *arguments: object, **options: object
) -> object:
    return await _of_uvloop(loop, _address(host), *arguments, **options)


setattr(socket, "getaddrinfo", _resolve)  # noqa: B010 - the types differ
setattr(uvloop.Loop, "getaddrinfo", _resolve_in_uvloop)  # noqa: B010
