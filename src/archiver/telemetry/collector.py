"""The connection to a collector, which the process does not trust.

The library would read an answer of any size, wait for as long as a byte arrives now and then, and
take a redirect for success.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from typing import Any

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

ANSWER_BYTES = 64 * 1024
"""More of an answer is not read. Answers have a few bytes, and nothing needs them."""

CUT_INTERVAL_S = 0.2


class CollectorAdapter(HTTPAdapter):
    """Sends one request at a time. Each ends within its timeout, with all that belongs to it.

    ``status`` is that of the answer to the last request; None if there was no answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.status: int | None = None
        self._connection: Any = None
        self._answer: Response | None = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        if not isinstance(pool.ConnectionCls, partial):
            kind = partial(self._create_connection, pool.ConnectionCls)
            pool.ConnectionCls = kind  # type: ignore[assignment]
        return pool

    def _create_connection(self, kind: type[Any], **kwargs: Any) -> Any:  # noqa: ANN401
        self._connection = kind(**kwargs)
        return self._connection

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: ARG002, FBT001, FBT002 - the library's
        timeout: Any = None,  # noqa: ANN401
        verify: Any = True,  # noqa: ANN401, FBT002
        cert: Any = None,  # noqa: ANN401
        proxies: Any = None,  # noqa: ANN401
    ) -> Response:
        self.status, self._answer = None, None
        with self._deadline(timeout):
            answer = super().send(request, True, timeout, verify, cert, proxies)  # noqa: FBT003
            self.status, self._answer = answer.status_code, answer
            with answer, suppress(HTTPError, OSError):  # the status says all
                answer.raw.read(ANSWER_BYTES, decode_content=False)
        answer.raw = BytesIO()
        answer.headers.pop("Location", None)
        return answer

    @contextmanager
    def _deadline(self, timeout_s: float) -> Iterator[None]:
        """Cut the connection if the block takes longer. Timeouts of sockets are for each read."""
        done = threading.Event()
        watching = threading.Thread(target=self._watch, args=(done, timeout_s), daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()

    def _watch(self, done: threading.Event, timeout_s: float) -> None:
        wait_s = timeout_s
        while not done.wait(wait_s):  # again, because a connection may begin after the deadline
            self._cut()
            wait_s = CUT_INTERVAL_S

    def _cut(self) -> None:
        """Wake the thread that waits for the collector. To close a socket would not wake it."""
        connected = getattr(self._connection, "sock", None)
        plain = getattr(connected, "socket", connected)  # TLS within TLS has another inside
        with suppress(OSError):
            if isinstance(plain, socket.socket):
                socket.socket.shutdown(plain, socket.SHUT_RDWR)  # TLS would forget its state
        with suppress(OSError, ValueError, RuntimeError):
            if self._answer is not None:  # a last answer takes the socket from the connection
                self._answer.raw.shutdown()


class CollectorSession(Session):
    """A session whose requests ``CollectorAdapter`` sends."""

    def __init__(self) -> None:
        super().__init__()
        self._adapter = CollectorAdapter()
        for scheme in ("http://", "https://"):
            self.mount(scheme, self._adapter)

    @property
    def status(self) -> int | None:
        return self._adapter.status

    def merge_environment_settings(
        self,
        url: Any,  # noqa: ANN401 - the library's
        proxies: Any,  # noqa: ANN401
        stream: Any,  # noqa: ANN401
        verify: Any,  # noqa: ANN401
        cert: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        # Otherwise, REQUESTS_CA_BUNDLE would replace the certificate that is for the collector.
        chosen = self.verify if isinstance(self.verify, str) else verify
        return super().merge_environment_settings(url, proxies, stream, chosen, cert)
