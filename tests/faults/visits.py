"""A client that wants one archive: it asks, waits and downloads, whatever breaks meanwhile."""

import hashlib
import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from tests.faults.fleet import Fleet
from tests.faults.orders import announcement, batch, task
from tests.system.client import Answer, fetch

ANSWER_S = 5.0
"""How long a client waits for an answer, or for the rest of a held request beyond that."""

HOLD_S = 8
PAUSE_S = 0.15
AWAY = (OSError, http.client.HTTPException)
BUSY = frozenset({429, 500, 502, 503, 504})

PREWARMED = frozenset({"announce", "batch"})
ENDED = frozenset({"SUCCESS", "FAILURE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A presigned URL that a client got, and what it must lead to."""

    url: str
    sha256: str
    size: int


How: TypeAlias = Literal["poll", "wait", "file", "announce", "batch"]
"""How a client gets an archive. With the last two, it has it built first, without urgency: as a
host that announces a push, or as one of a batch."""


@dataclass(slots=True, kw_only=True)
class Visit:
    """What one client wants of one archive, and what became of it.

    ``expected`` is the SHA-256 that the archive must have, if it is known beforehand; an empty one
    allows no success. ``statuses`` are the paths of the tasks that were accepted, with the last
    result that the client saw. ``problem`` is the code of a final refusal.
    """

    path: str
    address: str
    how: How = "poll"
    method: str = "GET"
    token: str = ""
    expected: str | None = None
    name: str = ""
    label: str = ""
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    problem: str = ""
    final_status: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    began: float = 0.0
    accepted: float = 0.0
    ended: float = 0.0

    @property
    def was_accepted(self) -> bool:
        return self.accepted > 0

    @property
    def is_lost(self) -> bool:
        """Whether a task was accepted of which the client never saw an end."""
        return self.was_accepted and not self.ended

    @property
    def outcome(self) -> str:
        if self.links:
            return "SUCCESS"
        states = [result.get("state") for result in self.statuses.values()]
        return "FAILURE" if "FAILURE" in states or self.problem else "none"


class Visitor:
    """Makes a visit. It gives up when *over* is set, which is long after the faults are undone."""

    def __init__(self, fleet: Fleet, visit: Visit, over: threading.Event, seed: str) -> None:
        self._fleet = fleet
        self._visit = visit
        self._over = over
        self._random = random.Random(seed)  # noqa: S311

    def run(self) -> None:
        visit = self._visit
        visit.began = time.monotonic()
        path = visit.path
        if visit.how == "wait":
            path += f"{'&' if '?' in path else '?'}wait={HOLD_S}"
        if visit.how in PREWARMED:
            self._prewarm()
        while path and not self._over.is_set():
            answer = self._ask(path, visit.method)
            if answer is None:
                self._over.wait(PAUSE_S)
            else:
                path = self._react(answer, path)

    def _prewarm(self) -> None:
        """Have the archive built, and poll its task until it has ended."""
        visit, secret = self._visit, self._fleet.token
        announces = visit.how == "announce"
        order = announcement(visit.path, secret=secret) if announces else batch(visit.path)
        while not self._over.is_set():
            answer = self._ask(order.path, "POST", order.headers, order.body)
            if answer and (name := task(answer)):
                self._accept()
                self._poll(f"/archiver/status/{name}")
                return
            self._over.wait(PAUSE_S)

    def _react(self, answer: Answer, path: str) -> str:
        """Return the path to ask for next; empty at the end of the visit."""
        visit = self._visit
        if answer.status == http.HTTPStatus.ACCEPTED:
            self._accept()
            result = self._poll(urlsplit(answer.location).path)
            if result and result["state"] == "FAILURE":
                return self._end(200, str(result["error"]["code"]))
            return path
        if answer.status == http.HTTPStatus.FOUND and answer.headers["Archiver-SHA256"]:
            size = int(answer.headers["Archiver-Size"])
            sha256 = answer.headers["Archiver-SHA256"]
            visit.links.append(Link(url=answer.location, sha256=sha256, size=size))
            return self._end(answer.status, "")
        if answer.status == http.HTTPStatus.FOUND:
            self._accept()
            url = urlsplit(answer.location)
            return f"{url.path}?{url.query}"
        code = _code(answer)
        if answer.status in BUSY and not self._is_final(code):
            visit.refusals[code] += 1
            if code == "not_ready_yet":
                self._accept()
            self._over.wait(PAUSE_S)
            return visit.path if "hop=" in path else path
        return self._end(answer.status, code)

    def _is_final(self, code: str) -> bool:
        """Return whether *code* is the end of a task that this client has waited for."""
        own = code.startswith(
            ("engine", "storage", "not_ready", "too_many", "limit", "source_paused")
        )
        return self._visit.was_accepted and not own

    def _accept(self) -> None:
        if not self._visit.accepted:
            self._visit.accepted = time.monotonic()
            self._fleet.moments.reach("acceptance")

    def _end(self, status: int, problem: str) -> str:
        self._visit.final_status, self._visit.problem = status, problem
        self._visit.ended = time.monotonic()
        return ""

    def _poll(self, status: str) -> dict[str, Any] | None:
        """Poll the task until it has ended, and return its last result."""
        while not self._over.is_set():
            answer = self._ask(status, "GET")
            if answer is not None and answer.status == http.HTTPStatus.OK:
                result: dict[str, Any] = answer.json["result"]
                self._visit.statuses[status] = result
                if result["state"] in ENDED:
                    return result
            self._over.wait(PAUSE_S)
        return None

    def _ask(
        self,
        path: str,
        method: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer | None:
        """Return the answer of one of the web processes, or None if it sends none."""
        try:
            return fetch(
                f"{self._random.choice(self._fleet.bases)}{path}",
                method=method,
                headers={**self._headers(), **(headers or {})},
                body=body,
                timeout_s=ANSWER_S + (HOLD_S if "wait=" in path else 0),
            )
        except AWAY:
            self._visit.refusals["no answer"] += 1
            return None

    def _headers(self) -> Mapping[str, str]:
        headers = {"X-Forwarded-For": self._visit.address}
        if self._visit.token:
            headers["Authorization"] = f"Bearer {self._visit.token}"
        return headers


def _code(answer: Answer) -> str:
    try:
        return str(answer.json["code"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status}"


def download(link: Link) -> str:
    """Return what is wrong with the bytes that a link leads to; empty if they are right."""
    answer = fetch(link.url, timeout_s=30)
    if answer.status != http.HTTPStatus.OK:
        return f"status {answer.status}"
    if hashlib.sha256(answer.body).hexdigest() != link.sha256:
        return f"{len(answer.body)} bytes with another SHA-256"
    return ""
