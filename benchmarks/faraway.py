"""An S3 server that discards archives, to simulate a region on another machine.

``python -m benchmarks.faraway PORT``. The kernel discards the bytes of archives unread, so the
server costs almost no CPU. It stores sizes and small objects, because manifests are read again. It
implements the requests that Archiver sends, and checks no signatures.
"""

import itertools
import socket
import sys
from email.utils import formatdate
from functools import partial
from urllib.parse import parse_qs, urlsplit

from benchmarks.serving import QuietHandler, serve

KEPT_BYTES = 1 << 16
DISCARD_BYTES = 1 << 20

_NO_SUCH_KEY = b"<Error><Code>NoSuchKey</Code></Error>"
_EMPTY_LIST = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
_INITIATED = (
    "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>"
)
_COMPLETED = b'<CompleteMultipartUploadResult><ETag>"0"</ETag></CompleteMultipartUploadResult>'


class Region:
    """``sizes`` are of objects and unfinished uploads; ``kept`` has the small objects."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.kept: dict[str, bytes] = {}
        self.uploads: dict[str, dict[str, int]] = {}
        self.numbers = itertools.count(1)


class _Handler(QuietHandler):
    rbufsize = 0  # a body is not to be read ahead into a buffer

    def __init__(self, region: Region, *args: object) -> None:
        self._region = region
        self._scrap = bytearray(DISCARD_BYTES)
        super().__init__(*args)  # type: ignore[arg-type]

    def do_PUT(self) -> None:
        key, query = self._target()
        size_bytes = int(self.headers["Content-Length"])
        if "uploadId" in query:
            self._discard(size_bytes)
            self._region.uploads[query["uploadId"]][query["partNumber"]] = size_bytes
        else:
            self._keep(key, size_bytes)
        self._answer(200)

    def do_POST(self) -> None:
        key, query = self._target()
        self._discard(int(self.headers.get("Content-Length") or 0))
        if "uploads" in query:
            upload = str(next(self._region.numbers))
            self._region.uploads[upload] = {}
            self._answer(200, (_INITIATED % upload).encode())
        else:
            self._region.sizes[key] = sum(self._region.uploads.pop(query["uploadId"]).values())
            self._answer(200, _COMPLETED)

    def do_GET(self) -> None:
        key, query = self._target()
        if "list-type" in query:
            self._answer(200, _EMPTY_LIST)
        elif key in self._region.kept:
            self._answer(200, self._region.kept[key])
        else:
            self._answer(404, _NO_SUCH_KEY)

    def do_HEAD(self) -> None:
        key, _ = self._target()
        size_bytes = self._region.sizes.get(key)
        self._answer(200 if size_bytes is not None else 404, size_bytes=size_bytes)

    def do_DELETE(self) -> None:
        key, query = self._target()
        self._region.uploads.pop(query.get("uploadId", ""), None)
        self._region.sizes.pop(key, None)
        self._answer(204)

    def _target(self) -> tuple[str, dict[str, str]]:
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        return url.path, {name: values[0] for name, values in query.items()}

    def _keep(self, key: str, size_bytes: int) -> None:
        if size_bytes <= KEPT_BYTES:
            self._region.kept[key] = self._read(size_bytes)
        else:
            self._discard(size_bytes)
        self._region.sizes[key] = size_bytes

    def _read(self, size_bytes: int) -> bytes:
        body = b""
        while len(body) < size_bytes:
            body += self.connection.recv(size_bytes - len(body))
        return body

    def _discard(self, size_bytes: int) -> None:
        while size_bytes:
            most = min(size_bytes, DISCARD_BYTES)
            gone = self.connection.recv_into(self._scrap, most, socket.MSG_TRUNC)
            if not gone:
                raise ConnectionError("the client closed the connection")
            size_bytes -= gone

    def _answer(self, status: int, body: bytes = b"", *, size_bytes: int | None = None) -> None:
        self.send_response(status)
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", formatdate(usegmt=True))
        if status != 204:  # noqa: PLR2004 - which has no length
            self.send_header("Content-Length", str(len(body) if size_bytes is None else size_bytes))
        self.end_headers()
        self.wfile.write(body)


def main(port: str) -> None:
    serve(int(port), partial(_Handler, Region()))


if __name__ == "__main__":
    main(*sys.argv[1:])
