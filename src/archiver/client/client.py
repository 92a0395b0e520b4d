"""The client of Archiver for programs, which waits for each result."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType

from archiver.client.api_response import Located, TaskStatus
from archiver.client.archive_get import MAX_BYTES, RETRIES, ArchiveGet, Got
from archiver.client.archive_request import ArchiveRequest
from archiver.client.cache import Cache
from archiver.client.deadline import Deadline
from archiver.client.events import Events, Silent
from archiver.client.extraction import Unpacking
from archiver.client.failures import InvalidUsage, TimedOut
from archiver.client.prewarm import Prewarmed
from archiver.client.prewarm_batches import prewarm
from archiver.client.servers import open_servers


class Client:
    """Gets archives from the first of *servers* that responds. Threads may share it.

    The token in ``ARCHIVER_TOKEN``, or the password in netrc, goes to the servers alone. Requests
    use the proxies in the environment.

    timeout_s: Seconds for one call. None means that it may take as long as it wants.
    wait_s: Seconds to wait while an archive is built. None means as long as the call may take.
    retries: Failed downloads in a row that are tried again.
    max_bytes: Larger archives are refused.
    cache: Where archives are kept that other calls and processes may need as well.

    Every method raises CommandFailed, or a kind of it that says what to do.
    """

    def __init__(
        self,
        *servers: str,
        timeout_s: float | None = 900.0,
        wait_s: float | None = None,
        retries: int = RETRIES,
        max_bytes: int = MAX_BYTES,
        cache: Cache | None = None,
        events: Events | None = None,
    ) -> None:
        if not servers:
            raise InvalidUsage("a client needs the URL of a server")
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._wait_s = wait_s
        self._retries = retries
        self._max_bytes = max_bytes
        self._cache = cache
        self._events = events or Silent()
        self._opened = ExitStack()
        try:
            self._servers = self._opened.enter_context(open_servers(servers))
        except BaseException:
            self._opened.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._opened.close()

    def locate(self, request: ArchiveRequest, *, deadline: Deadline | None = None) -> Located:
        """Return where the archive is, once it is built."""
        return self._get(deadline).locate(request)

    def get(
        self,
        request: ArchiveRequest,
        output: str | os.PathLike[str] | None = None,
        *,
        force: bool = False,
        unpacking: Unpacking | None = None,
        deadline: Deadline | None = None,
    ) -> Got:
        """Download the archive to *output*, verify it, and return where it is.

        With *unpacking*, extract it, and store it only if there is an *output*.

        Without *output*, the file gets the archive's own name, and replaces another one only with
        *force*. A download that fails leaves ``OUTPUT.SHA256.part``, which the next call resumes.
        """
        path = None if output is None else os.fspath(output)
        return self._get(deadline).get(request, path, force=force, unpacking=unpacking)

    def prewarm(
        self, requests: Iterable[ArchiveRequest], *, deadline: Deadline | None = None
    ) -> Iterator[Prewarmed]:
        """Have archives built before they are requested; yield the result of each request.

        Requests that a limit does not allow yet are sent again until the call's time is over.
        """
        return prewarm(self._servers, requests, self._events, deadline or self.deadline())

    def status(self, task: str, *, deadline: Deadline | None = None) -> TaskStatus:
        """Return the status of a task, of which *task* is the id or the status URL."""
        first = self._servers.first
        return first.fetch_status(first.status_url(task), deadline or self.deadline())

    def deadline(self) -> Deadline:
        """Return the deadline of a call that begins now."""
        return Deadline(self._timeout_s, TimedOut(f"not finished after {self._timeout_s:g} s"))

    def _get(self, deadline: Deadline | None) -> ArchiveGet:
        return ArchiveGet(
            servers=self._servers,
            events=self._events,
            deadline=deadline or self.deadline(),
            wait_s=self._wait_s,
            retries=self._retries,
            max_bytes=self._max_bytes,
            cache=self._cache,
        )
