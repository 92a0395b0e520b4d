"""A stand-in for hgweb that sends archives at a given rate.

``python -m benchmarks.host PORT RATE NAME=PIECE[:PIECE…] …``. A repository ``ANYTHING/NAME/linux``
has the archive NAME. RATE is in bytes per second; 0 is unlimited.
``GET /ANYTHING/NAME/linux?ended`` waits for the end of an archive, and returns the time of its last
byte on CLOCK_MONOTONIC, which all processes share, or an empty body after a timeout.
``GET /ANYTHING/NAME/linux?fetched`` returns how often the archive was fetched.
"""

import json
import sys
import threading
import time
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.inputs import LAST_FILE, NODE
from benchmarks.serving import QuietHandler, serve

FRAME_BYTES = 1 << 16
BURST_BYTES = 1 << 20
"""How much the host may send at once after a pause of its client: about the size of the socket
buffers. A host that compresses while it sends cannot make up for the time of the pause."""

WAIT_S = 10.0

LISTING = json.dumps(
    {"node": NODE, "abspath": "/", "directories": [], "files": [{"basename": LAST_FILE}]}
)
"""The listing of each tree: the last file of its archive."""


class Bucket:
    """A token bucket with *rate* tokens per second; a rate of 0 is unlimited."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._paid_until = time.monotonic()

    def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may be sent."""
        if not self._rate:
            return
        now = time.monotonic()
        earliest = now - BURST_BYTES / self._rate
        self._paid_until = max(self._paid_until, earliest) + size_bytes / self._rate
        if self._paid_until > now:
            time.sleep(self._paid_until - now)


class Host:
    """The archives, how often each was fetched, and when its last byte was sent."""

    def __init__(self, archives: dict[str, list[Path]], *, rate: float) -> None:
        self.archives = archives
        self.rate = rate
        self.fetched: Counter[str] = Counter()
        self.ended_at: dict[str, float] = {}
        self.ended: dict[str, threading.Event] = defaultdict(threading.Event)


class _Handler(QuietHandler):
    def __init__(self, host: Host, *args: object) -> None:
        self._host = host
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if "/json-manifest/" in url.path:
            self._say(LISTING, "application/json")
            return
        repo, _, _archive = url.path.partition("/archive/")
        match url.query.partition("&")[0]:
            case "cmd=lookup":
                self._say(f"1 {NODE}\n")
            case "cmd=known":
                self._say("1")
            case "ended":
                self._host.ended[repo].wait(WAIT_S)
                self._say(str(self._host.ended_at.get(repo, "")))
            case "fetched":
                self._say(str(self._host.fetched[repo]))
            case _:
                self._host.fetched[repo] += 1
                self._send(self._host.archives[repo.split("/")[-2]])
                self._host.ended_at[repo] = time.monotonic()
                self._host.ended[repo].set()

    def _say(self, text: str, kind: str = "application/mercurial-0.1") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def _send(self, pieces: list[Path]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-gzip")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        bucket = Bucket(self._host.rate)
        for piece in pieces:
            with piece.open("rb") as file:
                while data := file.read(FRAME_BYTES):
                    bucket.take(len(data))
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")


def main(port: str, rate: str, *named: str) -> None:
    archives = {}
    for text in named:
        name, _, pieces = text.partition("=")
        archives[name] = [Path(piece) for piece in pieces.split(":")]
    host = Host(archives, rate=float(rate))
    serve(int(port), partial(_Handler, host))


if __name__ == "__main__":
    main(*sys.argv[1:])
