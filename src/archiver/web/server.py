"""The HTTP server: granian, which drops clients that send their headers too slowly."""

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from starlette.types import ASGIApp

from archiver.runtime.file_limit import raise_file_limit
from archiver.telemetry import forget_dead_processes, log
from archiver.web.address_claim import CannotListen, FleetIdentity, claimed_address
from archiver.web.file_limit import CONNECTIONS_MAX, connections_max
from archiver.web.metrics_listener import METRICS_FOLDER, shared_metrics

HEADER_TIMEOUT_MS = 10_000
"""Also how long a connection may stay idle between two requests."""

BUFFER_BYTES = 64 * 1024
"""Of one connection. Requests have no body, and a longer target is no address."""

BACKLOG = 16_384
"""Connections that wait to be accepted, up to the system's limit (``somaxconn``). Clients that find
no room there try again after a second."""

GRACE_S = 4
"""How long running requests may take after SIGTERM."""

PARENT_CHECK_S = 0.5

COLLECT_AFTER_OBJECTS = 50_000


def serve(target: str, *, listen: str, fleet: FleetIdentity, processes: int = 1) -> None:
    """Serve the application that *target* (``module:factory``) makes, until SIGTERM or SIGINT.

    *listen* is ``host:port``. The application runs in *processes* child processes, which share the
    address. If one of several dies, it is replaced. granian's own log is silent, because it would
    write the texts of exceptions; the application logs its crashes itself.

    Raises CannotListen; and SystemExit if the application did not start, or its only process died.
    """
    host, _, port = listen.rpartition(":")
    ip = _require_free(host.strip("[]"), int(port))
    raise_file_limit()
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
        backpressure=connections_max(),
        workers_kill_timeout=GRACE_S,
        log_level=LogLevels.critical,
        log_access=False,
    )
    multiprocessing.set_start_method("spawn")  # a fork would inherit the parent's metrics
    with claimed_address(ip, int(port), fleet), shared_metrics():
        server.serve(target_loader=partial(_create, target, os.getpid()), wrap_loader=False)


def _require_free(host: str, port: int) -> str:
    """Return the IP address of *host* if granian will be able to listen there.

    Otherwise granian would print pages of backtraces. The test shares the address as granian does,
    so that a successor can start before its predecessor ends.
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


def _create(target: str, parent: int) -> ASGIApp:
    """Create the application, in the process that will run it."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # This process may replace a dead one.
    forget_dead_processes(Path(os.environ[METRICS_FOLDER]))
    module, _, factory = target.partition(":")
    app: ASGIApp = getattr(import_module(module), factory)()
    if connections_max() < CONNECTIONS_MAX:
        log.warning("web.few_files", connections=connections_max())
    _collect_rarely()
    return app


def _collect_rarely() -> None:
    """Have the garbage collector run rarely, and never visit the objects of the start.

    Each request of a crowd holds about a hundred objects, which the collector would visit again and
    again. That took a third of the time of a look-up, and blocked other requests for half a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 100)


def on_stop(act: Callable[[], None]) -> None:
    """Call *act* when this process is to end, while requests are still running.

    granian ends the application's lifespan only after those requests. This replaces its handler of
    SIGTERM, and passes the signal on as SIGINT, which granian treats the same.
    """

    def stop() -> None:
        act()
        os.kill(os.getpid(), signal.SIGINT)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)


def _end_with(parent: int) -> None:
    """End this process if *parent* is killed. An orphan would serve on with old settings."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os.kill(os.getpid(), signal.SIGTERM)
