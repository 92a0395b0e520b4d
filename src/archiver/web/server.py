"""The HTTP server: granian, which drops those who send their headers too slowly."""

import os
import signal
import threading
import time
from functools import partial
from importlib import import_module

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from starlette.types import ASGIApp

HEADER_TIMEOUT_MS = 10_000
"""Also how long a connection may stay idle between two requests."""

BUFFER_BYTES = 64 * 1024
"""Of one connection: no request has a body, and a target of more than this is no address."""

BACKLOG = 2048

GRACE_S = 4
"""After SIGTERM, for requests that are under way."""

PARENT_CHECK_S = 0.5


def serve(target: str, *, listen: str) -> None:
    """Serve the application that *target* (``module:factory``) makes, until SIGTERM or SIGINT.

    *listen* is ``host:port``. The application runs in one child process; a fleet runs as many
    servers as it likes. granian's own log stays silent, because what it says of a crash is an
    exception's text: the application logs whatever there is to tell.

    Raises:
        SystemExit: The application did not start, or its process ended by itself.
    """
    host, _, port = listen.rpartition(":")
    server = Granian(
        target,
        address=host.strip("[]"),
        port=int(port),
        interface=Interfaces.ASGI,
        workers=1,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEADER_TIMEOUT_MS, max_buffer_size=BUFFER_BYTES
        ),
        websockets=False,
        backlog=BACKLOG,
        workers_kill_timeout=GRACE_S,
        log_level=LogLevels.critical,
        log_access=False,
    )
    server.serve(target_loader=partial(_make, target, os.getpid()), wrap_loader=False)


def _make(target: str, parent: int) -> ASGIApp:
    """Make the application, in the process that will run it."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    module, _, factory = target.partition(":")
    app: ASGIApp = getattr(import_module(module), factory)()
    return app


def _end_with(parent: int) -> None:
    """End this process if *parent* is killed: an orphan would go on serving, with old settings."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os.kill(os.getpid(), signal.SIGTERM)
