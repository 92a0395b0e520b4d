#!/app/venv/bin/python -IS
"""Exits with 0 if the container's web process or worker answers ``/__lbheartbeat__``, else with 1.

Other commands have no address and count as healthy. An argument, ``web`` or ``worker``, names the
role of a container whose first process does not.
"""

import http.client
import os
import signal
import sys
from pathlib import Path

LISTENS = {"web": "ARCHIVER_SERVER__LISTEN", "worker": "ARCHIVER_WORKER__METRICS_LISTEN"}
TIMEOUT_S = 4


def role() -> str | None:
    """Return which role the first process of the container has, if it has one."""
    command = sys.argv[1:] or _command(Path("/proc/1/cmdline").read_bytes().decode().split("\0"))
    first = next((word for word in command if not word.startswith("-")), "")
    return first if first in LISTENS else None


def _command(words: list[str]) -> list[str]:
    """Return what follows the program in *words*: its options and its command."""
    for place, word in enumerate(words):
        if Path(word).name == "archiver":
            return words[place + 1 :]
    return []


def answers(address: str) -> bool:
    """Return whether a process answers at *address*, or at the port of it if that is any."""
    host, _, port = address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/__lbheartbeat__")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))  # TIMEOUT_S is also that of each read
    signal.alarm(TIMEOUT_S)
    found = role()
    sys.exit(0 if found is None or answers(os.environ[LISTENS[found]]) else 1)
