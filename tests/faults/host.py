"""The version-control host of the campaign: serves fresh archives, and counts their fetches."""

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.faults.moments import Moments
from tests.parts.fault_cases import (
    LISTINGS,
    SIZE_BYTES,
    Case,
    Response,
    Subject,
    body,
    listing,
    lookup,
)
from tests.parts.faulty_host import FaultyHost, Pause, Request, serving

SILENCE_S = 60.0
STEP_S = 0.05
SOUND = "sound"

_SOURCE = "of-"


@dataclass(slots=True, kw_only=True)
class Fetch:
    """A request for an archive. ``pid`` is the process that sent it, 0 if unknown.

    ``is_faulty`` means that the host may answer with a fault. ``others`` are the processes whose
    fetches for the same source were open when this one began. ``overlap_s`` is how long an earlier
    fetch of the archive went on beside this one, while its process ran.
    """

    name: str
    source: str
    pid: int
    began: float
    is_faulty: bool
    connection: socket.socket = field(repr=False)
    others: tuple[int, ...] = ()
    overlap_s: float = 0.0
    ended: float = float("inf")

    @property
    def is_open(self) -> bool:
        """Whether the client still waits for the answer, or for the rest of it."""
        if self.ended < float("inf"):
            return False
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An archive that clients may request, and the host's responses, of which the last repeats."""

    case: Case
    subject: Subject
    responses: Sequence[Response]
    pace_s: float = 0.0


class CampaignHost(FaultyHost):
    """Serves every archive that was offered, like hgweb.

    While ``is_down`` it closes each connection, and while ``is_silent`` it never answers.
    """

    def __init__(
        self,
        *,
        elsewhere: str,
        moments: Moments,
        sender: Callable[[int], int],
        runs: Callable[[int], bool],
    ) -> None:
        super().__init__()
        self.fetches: list[Fetch] = []
        self.is_down = False
        self.is_silent = threading.Event()
        self._elsewhere = elsewhere
        self._moments = moments
        self._sender = sender
        self._runs = runs
        self._offers: dict[str, Offer] = {}
        self._here = threading.local()
        self._changing = threading.Lock()
        self._connections: set[socket.socket] = set()

    def offer(self, case: Case, name: str, *, pace_s: float = 0.0) -> Offer:
        """Serve a fresh archive called *name* with the responses of *case*."""
        subject = Subject(name=name, suffix=case.suffix, home=self.url, elsewhere=self._elsewhere)
        responses = [make(subject) for make in case.responses]
        offer = Offer(case=case, subject=subject, responses=responses, pace_s=pace_s)
        self._offers[f"/{subject.repo}"] = offer
        return offer

    def of(self, name: str) -> list[Fetch]:
        """Return the fetches of one archive in their order."""
        return [each for each in tuple(self.fetches) if each.name == name]

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of the archive called *name*, as it must be stored."""
        offer = self._offers[f"/faults/{name}"]
        return hashlib.sha256(offer.case.stored(offer.subject)).hexdigest()

    def steps(self, request: Request) -> Response:
        url = urlsplit(request.target)
        path, source = _without_source(url.path)
        place, _, folder = path.partition(LISTINGS)
        repo, _, archive = place.partition("/archive/")
        offer = self._offers.get(repo)
        if offer is None:
            return super().steps(request)
        if self.is_silent.is_set():
            return (Pause(SILENCE_S),)
        if LISTINGS in path:
            return (listing(offer.case, offer.subject.name, folder.partition("/")[2]),)
        if archive:
            return self._archive(offer, source)
        return lookup(offer.case, offer.subject.name, parse_qs(url.query))

    def _archive(self, offer: Offer, source: str) -> Response:
        peer: int = self._here.peer
        with self._changing:
            earlier = self.of(offer.subject.name)
            fetch = Fetch(
                name=offer.subject.name,
                source=source,
                pid=self._sender(peer),
                began=time.monotonic(),
                is_faulty=offer.case.name != SOUND,
                connection=self._here.connection,
                others=tuple(
                    each.pid for each in self.fetches if each.source == source and each.is_open
                ),
            )
            self.fetches.append(fetch)
        self._here.fetch = fetch
        if earlier and earlier[-1].is_open:
            self._start(self._measure_overlap, earlier[-1], fetch)
        self._moments.reach("fetch", peer)
        self._start(self._reach_middle, offer.pace_s / 2, peer)
        response = offer.responses[min(len(earlier), len(offer.responses) - 1)]
        return _paced(response, offer.pace_s)

    def _start(self, act: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=act, args=arguments, daemon=True).start()

    def _reach_middle(self, after_s: float, peer: int) -> None:
        if not self.closing.wait(after_s):
            self._moments.reach("stream", peer)

    def _measure_overlap(self, earlier: Fetch, later: Fetch) -> None:
        while earlier.is_open and later.is_open and not self.closing.wait(STEP_S):
            later.overlap_s += STEP_S * self._runs(earlier.pid)

    def verify_request(self, *_arguments: object) -> bool:
        return not self.is_down

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the library's
        self._here.peer, self._here.fetch = client_address[1], None
        self._here.connection = request
        self._connections.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            self._connections.discard(request)
            if self._here.fetch:
                self._here.fetch.ended = time.monotonic()

    def handle_error(self, *_arguments: object) -> None:
        """Print nothing: broken connections are expected."""

    def cut(self) -> None:
        """Close all open connections."""
        for each in tuple(self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def template_for(template: str, source: str) -> str:
    """Return the template of a source whose requests the host can tell from those of others."""
    return template.replace("{repo}", f"{_SOURCE}{source}/{{repo}}")


def _without_source(path: str) -> tuple[str, str]:
    """Return the path of the first source, and the name of the source that *path* is of."""
    if not path.startswith(f"/{_SOURCE}"):
        return path, ""
    source, _, rest = path.removeprefix(f"/{_SOURCE}").partition("/")
    return f"/{rest}", source


def _paced(response: Response, pace_s: float) -> Response:
    """Return a response that pauses in the middle of its bytes."""
    if len(response) != 1 or not isinstance(response[0], bytes) or not pace_s:
        return response
    whole = response[0]
    return whole[: len(whole) // 2], Pause(pace_s), whole[len(whole) // 2 :]


def sound_case(suffix: str = "tar.gz", size_bytes: int | None = None) -> Case:
    """Return a case without a fault."""

    def packed(subject: Subject) -> bytes:
        return subject.packed(size_bytes=SIZE_BYTES if size_bytes is None else size_bytes)

    return Case(name=SOUND, responses=[body(packed)], suffix=suffix, stored=packed)


@contextlib.contextmanager
def campaign_host(
    *,
    elsewhere: str,
    moments: Moments,
    sender: Callable[[int], int],
    runs: Callable[[int], bool],
) -> Iterator[CampaignHost]:
    """Yield a host on a free loopback port.

    *sender* returns the process that has a local port, and *runs* whether a process does so now.
    """
    host = CampaignHost(elsewhere=elsewhere, moments=moments, sender=sender, runs=runs)
    with host, serving(host):
        yield host
