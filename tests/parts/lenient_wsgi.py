"""A WSGI server that ends failed responses as if they were complete, like Apache's mod_wsgi.

``python -m tests.parts.lenient_wsgi PORT CONFIG`` serves Mercurial's hgweb. If the application
fails in the middle of a response, its objects are garbage-collected before the body ends. Python's
``ZipFile`` then still writes the directory of a zip that lacks members. Other servers, including
those in Python's and Mercurial's libraries, append something or close the connection.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from tests.parts.hgweb import HG_ENV, Hgweb, Mercurial, configured
from tests.parts.process import accepts, free_port, running

Application = Callable[
    [dict[str, object], Callable[..., Callable[[bytes], object]]], Iterable[bytes]
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    application: Application

    def do_GET(self) -> None:
        self._head: tuple[str, list[tuple[str, str]]] = ("500 Internal Server Error", [])
        self._begun = False
        self._respond()
        gc.collect()
        self._write(b"")
        self.wfile.write(b"0\r\n\r\n")

    def _respond(self) -> None:
        """Run the application. Its objects are unreferenced when this returns."""
        with contextlib.suppress(Exception):
            for piece in self.application(self._environ(), self._start):
                self._write(piece)

    def _start(
        self, status: str, headers: list[tuple[str, str]], *_: object
    ) -> Callable[[bytes], object]:
        self._head = (status, headers)
        return self._write

    def _write(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            status, headers = self._head
            code, _, reason = status.partition(" ")
            self.send_response(int(code), reason)
            for name, value in headers:
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _environ(self) -> dict[str, object]:
        path, _, query = self.path.partition("?")
        return {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": self.request_version,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": self.rfile,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as in the library
        pass


@pytest.fixture(scope="session")
def lenient(tmp_path_factory: pytest.TempPathFactory, mercurial: Mercurial) -> Iterator[Hgweb]:
    """An hgweb whose failed responses look complete."""
    folder = tmp_path_factory.mktemp("lenient")
    repositories, config = configured(folder)
    port = free_port()
    command = [sys.executable, "-m", "tests.parts.lenient_wsgi", str(port), str(config)]
    with running(command, log=folder / "log", ready=lambda: accepts(port), env=HG_ENV):
        yield Hgweb(port=port, folder=repositories, mercurial=mercurial)


def main(port: str, config: str) -> None:
    from mercurial.hgweb import hgweb  # type: ignore[import-untyped]  # noqa: PLC0415

    _Handler.application = staticmethod(hgweb(os.fsencode(config)))
    ThreadingHTTPServer(("127.0.0.1", int(port)), _Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
