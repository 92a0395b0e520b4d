"""TCP ports of this machine: which are free."""

import socket
import time
from collections.abc import Collection

LOOPBACK = "127.0.0.1"

RELEASE_S = 2.0
"""How long a killed run may keep its lock and its ports until its servers have stopped too."""

POLL_S = 0.05


def is_port_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError:
            return False
    return True


def wait_until_port_free(host: str, port: int, *, timeout_s: float = RELEASE_S) -> bool:
    """Return whether a server can listen there now or before the timeout."""
    deadline = time.monotonic() + timeout_s
    while not is_port_free(host, port):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def find_free_port(*, exclude: Collection[object] = ()) -> int:
    """Return a loopback port that is free and not in *exclude*."""
    while True:
        with socket.socket() as attempt:
            attempt.bind((LOOPBACK, 0))
            port: int = attempt.getsockname()[1]
        if port not in exclude:
            return port
