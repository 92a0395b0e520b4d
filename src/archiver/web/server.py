"""The HTTP server: granian, which drops those who send their headers too slowly."""

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from starlette.types import ASGIApp

from archiver.telemetry import forget_dead_processes
from archiver.web.fleet import Fleet, OtherFleet, marked

HEADER_TIMEOUT_MS = 10_000
"""Also how long a connection may stay idle between two requests."""

BUFFER_BYTES = 64 * 1024
"""Of one connection: no request has a body, and a target of more than this is no address."""

BACKLOG = 16_384
"""Connections that wait to be accepted, as far as the system lets (``somaxconn``). Those of a crowd
that find no place there try again after a second."""

CONNECTIONS_MAX = 16_384
"""Open at a time, of one process: those who wait, and room for everyone else beside them.

granian's own default is the backlog, past which it would not even accept a health check.
"""

GRACE_S = 4
"""After SIGTERM, for requests that are under way."""

PARENT_CHECK_S = 0.5

COLLECT_AFTER_OBJECTS = 50_000


class CannotListen(Exception):
    """The system does not give us the address. The text says why."""


def serve(target: str, *, listen: str, fleet: Fleet, processes: int = 1) -> None:
    """Serve the application that *target* (``module:factory``) makes, until SIGTERM or SIGINT.

    *listen* is ``host:port``. The application runs in so many child *processes*, each of which
    takes connections from the system; one of several that dies is replaced. granian's own log stays
    silent, because what it says of a crash is an exception's text: the application logs whatever
    there is to tell.

    Raises:
        CannotListen: Nothing can listen there, or another *fleet* does.
        SystemExit: The application did not start, or its only process ended by itself.
    """
    host, _, port = listen.rpartition(":")
    ip = _require_free(host.strip("[]"), int(port))
    server = Granian(
        target,
        address=host.strip("[]"),
        port=int(port),
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        workers=processes,
        respawn_failed_workers=processes > 1,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEADER_TIMEOUT_MS, max_buffer_size=BUFFER_BYTES
        ),
        websockets=False,
        backlog=BACKLOG,
        backpressure=CONNECTIONS_MAX,
        workers_kill_timeout=GRACE_S,
        log_level=LogLevels.critical,
        log_access=False,
    )
    multiprocessing.set_start_method("spawn")  # a fork would have the parent's idea of metrics
    try:
        with marked(ip, int(port), fleet), _common_metrics():
            server.serve(target_loader=partial(_make, target, os.getpid()), wrap_loader=False)
    except OtherFleet as exc:
        raise CannotListen(str(exc)) from None


def _require_free(host: str, port: int) -> str:
    """Return the IP address of *host* if granian will get it.

    granian's own words for an address that is taken are pages of backtraces.

    As granian, this shares it with others that share it: so one Archiver can relieve another.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            attempt.bind((host, port))
        except OSError as exc:
            raise CannotListen(exc.strerror) from exc
        ip: str = attempt.getsockname()[0]
        return ip


@contextmanager
def _common_metrics() -> Iterator[None]:
    """Have the processes add up their metrics, whichever of them is asked."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="archiver-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def _make(target: str, parent: int) -> ASGIApp:
    """Make the application, in the process that will run it."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    forget_dead_processes(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))  # this may replace one
    module, _, factory = target.partition(":")
    app: ASGIApp = getattr(import_module(module), factory)()
    _collect_seldom()
    return app


def _collect_seldom() -> None:
    """Have the collector look at what a request made when it is long over, and at nothing older.

    Of a crowd each request holds some hundred objects, which it would go through again and again:
    that took a third of the time of a look-up, and half a second of those who came meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 100)


def on_stop(act: Callable[[], None]) -> None:
    """Call *act* when this process is told to end, while requests are still under way.

    granian waits for those before it ends the application's lifespan, and takes SIGINT as it takes
    SIGTERM, whose handler this replaces.
    """
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _stop, act)


def _stop(act: Callable[[], None]) -> None:
    act()
    os.kill(os.getpid(), signal.SIGINT)


def _end_with(parent: int) -> None:
    """End this process if *parent* is killed: an orphan would go on serving, with old settings."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os.kill(os.getpid(), signal.SIGTERM)
