"""A host as fast, or as slow, as it is told to be; answers what Archiver asks of an hgweb.

A process of its own: ``python -m benchmarks.host PORT RATE NAME=PIECE[:PIECE…] …``. A repository
``ANYTHING/NAME/linux`` has the archive NAME. RATE is in bytes a second, 0 is as fast as it goes.
``GET /ANYTHING/NAME/linux?ended`` waits a while for an archive's end, and answers when its last
byte left, on the clock that all processes share (CLOCK_MONOTONIC); with nothing, if none has.
``GET /ANYTHING/NAME/linux?fetched`` answers how often that archive was asked for.
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
"""How much a host that had to wait may send at once: about what lies in sockets, and no more. One
that compresses while it sends does not make up for the time in which nobody listens."""

WAIT_S = 10.0

LISTING = json.dumps(
    {"node": NODE, "abspath": "/", "directories": [], "files": [{"basename": LAST_FILE}]}
)
"""What is in each tree, as far as Archiver asks: what its archive ends with."""


class Bucket:
    """Tokens, *rate* of them a second; a rate of 0 is no limit."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._paid_until = time.monotonic()

    def take(self, size_bytes: int) -> None:
        """Return when so many bytes may be sent."""
        if not self._rate:
            return
        now = time.monotonic()
        earliest = now - BURST_BYTES / self._rate
        self._paid_until = max(self._paid_until, earliest) + size_bytes / self._rate
        if self._paid_until > now:
            time.sleep(self._paid_until - now)


class Host:
    """What is served, how often each archive was asked for, and when it had left."""

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
