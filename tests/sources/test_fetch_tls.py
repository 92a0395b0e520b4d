"""A host with a certificate of an authority that only the settings trust."""

import http.server
import ssl
import threading
from collections.abc import Iterator

import pytest

from archiver.errors import SourceUnavailable
from tests.parts.secured_nats import Certificates
from tests.sources.fetching import BODY, get


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_args: object) -> None: ...


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_args: object) -> None:
        """Ignore clients that disconnect."""


@pytest.fixture
def url(certificates: Certificates) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_only_the_configured_authority_is_trusted(url: str, certificates: Certificates) -> None:
    assert get(url, ca_file=certificates.authority) == BODY
    for ca_file in (None, certificates.stranger):
        with pytest.raises(SourceUnavailable):
            get(url, ca_file=ca_file)
