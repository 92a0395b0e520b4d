"""How soon after the host's last byte is an archive available? Until a client's first 302."""

import http.client
import time
from contextlib import ExitStack, closing
from functools import partial
from urllib.parse import urlsplit

from benchmarks.inputs import Input
from benchmarks.lab import TIMEOUT_S, Host, Installation, Lab, new_repo
from benchmarks.race import Contestant, Row, Table, race
from benchmarks.topics.pace import RATE
from tests.system.client import fetch

POLL_S = 0.002
SIZES = ("10MB", "1GB")
PACES = {"at 30 MB/s": RATE, "without a pause": 0}
GOAL_MS = 100


def measure(lab: Lab) -> list[Table]:
    archives = [lab.inputs.get(size) for size in SIZES]
    contestants: dict[str, Contestant] = {}
    with ExitStack() as stack:
        installations = []
        for pace, rate in PACES.items():
            host = stack.enter_context(lab.host(*archives, rate=rate))
            archiver = stack.enter_context(lab.installation(host))
            installations.append(archiver)
            for archive in archives:
                what = f"{archive.name} archive, {pace}"
                contestants[what] = partial(_wait, host, archiver, archive)

        def tidy() -> None:
            for archiver in installations:
                archiver.empty()

        taken = race(contestants, rounds=lab.rounds, tidy=tidy)
    rows = [
        Row(what=what, samples=[1000 * s for s in samples], goal=f"< {GOAL_MS}")
        for what, samples in taken.items()
    ]
    return [Table(unit="ms", rows=rows, digits=0)]


def _wait(host: Host, archiver: Installation, archive: Input) -> float:
    """Return the seconds between the host's last byte and the first 302.

    The client sends one request to start the build, and one every POLL_S after the last byte.
    """
    repo = new_repo(archive)
    url = urlsplit(archiver.url(repo))
    fetch(archiver.url(repo))
    ended_at = host.ended_at(repo)
    with closing(http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_S)) as client:
        while _status(client, url.path) != http.HTTPStatus.FOUND:
            time.sleep(POLL_S)
            if time.monotonic() - ended_at > TIMEOUT_S:
                raise TimeoutError(f"{repo} did not become available")
    return time.monotonic() - ended_at


def _status(client: http.client.HTTPConnection, path: str) -> int:
    client.request("GET", path)
    answer = client.getresponse()
    answer.read()
    return answer.status
