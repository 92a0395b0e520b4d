"""Cases of host faults, and an hgweb-like host with one repository per case."""

import bz2
import contextlib
import gzip
import hashlib
import json
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from tests.parts.faulty_host import NONE, FaultyHost, Request, Step, faulty_host, serving, sized
from tests.parts.packing import TAR_END, tar_members, zipped

MAX_FAILURES = 2
"""The setting with which the cases must run."""

SIZE_BYTES = 40_000
"""Size of the largest file in an archive. It cannot be compressed."""

LISTINGS = "/json-manifest/"

Response = tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The changeset of a case. Its archives have unique bytes, so cases cannot be confused.

    ``target`` is the request target of its archive. ``elsewhere`` is the URL of a host that must
    not be contacted.
    """

    name: str
    suffix: str
    home: str
    elsewhere: str

    @property
    def repo(self) -> str:
        return f"faults/{self.name}"

    @property
    def node(self) -> str:
        return node_of(self.name)

    @property
    def root(self) -> str:
        return f"{self.name}-{self.node[:12]}"

    @property
    def target(self) -> str:
        return f"/{self.repo}/archive/{self.node[:12]}.{self.suffix}"

    def note(self, node: str = "") -> dict[str, bytes]:
        text = f"repo: {'f' * 40}\nnode: {node or self.node}\nbranch: default\n"
        return {f"{self.root}/.hg_archival.txt": text.encode()}

    def members(
        self, *, node: str = "", seed: str = "", size_bytes: int = SIZE_BYTES
    ) -> dict[str, bytes]:
        noise = random.Random(f"{self.name} {seed}").randbytes(size_bytes)  # noqa: S311
        return {
            **self.note(node),
            f"{self.root}/README": b"read me\n",
            f"{self.root}/src/noise": noise,
        }

    def tar(self, more: bytes = b"") -> bytes:
        return tar_members(self.members()) + more + TAR_END

    def packed(
        self, *, suffix: str = "", node: str = "", seed: str = "", size_bytes: int = SIZE_BYTES
    ) -> bytes:
        """Return a valid archive. Another *seed* gives a valid archive with other bytes."""
        members = self.members(node=node, seed=seed, size_bytes=size_bytes)
        if (suffix or self.suffix) == "zip":
            return zipped(members.items())
        tar = tar_members(members) + TAR_END
        if (suffix or self.suffix) == "tar.bz2":
            return bz2.compress(tar)
        return gzip.compress(tar, compresslevel=0 if size_bytes > SIZE_BYTES else 1, mtime=0)


MakeResponse = Callable[[Subject], Response]
Body = Callable[[Subject], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The responses of a host, and the expected end of the task.

    ``responses`` are for the first, second, … request for the archive; the last one is repeated.
    Without a ``code`` the task succeeds and the buckets contain ``stored``. ``last`` is the last
    file of the tree, if that is not ``src/noise``.
    """

    name: str
    responses: Sequence[MakeResponse]
    suffix: str = "tar.gz"
    code: str | None = None
    failures: int = 0
    requests: int = 1
    stored: Body = Subject.packed
    lookup: Response | None = None
    last: str | None = None


def sound(
    name: str,
    response: MakeResponse,
    *,
    suffix: str = "tar.gz",
    stored: Body = Subject.packed,
    last: str | None = None,
) -> Case:
    """Return a case with an unusual but valid response: the task succeeds at once."""
    return Case(name=name, responses=[response], suffix=suffix, stored=stored, last=last)


def refused(
    name: str, code: str, response: MakeResponse, *, suffix: str = "tar.gz", requests: int = 1
) -> Case:
    """Return a case with a permanent fault: the task fails without a retry."""
    return Case(
        name=name, responses=[response], suffix=suffix, code=code, failures=1, requests=requests
    )


def retried(
    name: str, code: str, response: MakeResponse, *, suffix: str = "tar.gz"
) -> Iterator[Case]:
    """Yield two cases of a retryable fault: one that persists, and one that occurs once."""
    yield Case(
        name=name,
        responses=[response],
        suffix=suffix,
        code=code,
        failures=MAX_FAILURES,
        requests=MAX_FAILURES,
    )
    responses = [response, body(Subject.packed)]
    yield Case(name=f"{name}-once", responses=responses, suffix=suffix, failures=1, requests=2)


def script(*pieces: Step | Body) -> MakeResponse:
    """Return a response of these steps. Callable steps are called with the subject."""
    return lambda subject: tuple(piece(subject) if callable(piece) else piece for piece in pieces)


def body(
    content: Body, headers: Mapping[str, str] = NONE, *, status: str = "200 OK"
) -> MakeResponse:
    """Return a response with *content* and its correct Content-Length."""
    return script(lambda subject: sized(content(subject), status, headers))


class FaultCaseHost(FaultyHost):
    """Serves listings and lookups of each case's repository like hgweb, and the case's archives.

    ``moments`` are the times of the archive requests, by the name of the case.
    """

    def __init__(self, cases: Sequence[Case], *, elsewhere: str) -> None:
        super().__init__()
        self.moments: defaultdict[str, list[float]] = defaultdict(list)
        self._elsewhere = elsewhere
        self._cases = {f"/faults/{case.name}": case for case in cases}
        self._responses = {  # built in advance, so that requests do not wait
            case.name: [make(self.subject(case)) for make in case.responses] for case in cases
        }
        self._lock = threading.Lock()

    def subject(self, case: Case) -> Subject:
        return Subject(name=case.name, suffix=case.suffix, home=self.url, elsewhere=self._elsewhere)

    def steps(self, request: Request) -> Response:
        url = urlsplit(request.target)
        place, _, folder = url.path.partition(LISTINGS)
        repo, _, archive = place.partition("/archive/")
        if repo not in self._cases:
            return super().steps(request)
        case = self._cases[repo]
        if LISTINGS in url.path:
            return (listing(case, case.name, folder.partition("/")[2]),)
        if archive:
            return self._archive(case, request)
        return lookup(case, case.name, parse_qs(url.query))

    def _archive(self, case: Case, request: Request) -> Response:
        with self._lock:
            moments = self.moments[case.name]
            moments.append(request.at)
            number = len(moments)
        responses = self._responses[case.name]
        return responses[min(number, len(responses)) - 1]


def lookup(case: Case, name: str, query: Mapping[str, list[str]]) -> Response:
    """Return hgweb's answer to a lookup in the repository of the subject *name*."""
    if query["cmd"] == ["known"]:
        return (sized(b"1", headers=HGWEB),)
    return case.lookup or (sized(b"1 %s\n" % node_of(name).encode(), headers=HGWEB),)


def listing(case: Case, name: str, folder: str) -> bytes:
    """Return hgweb's listing of *folder* in the tree of ``Subject.members`` of *name*."""
    top = ["README", case.last] if case.last else ["README"]
    folders, files = {"": (["src"], top), "src": ([], ["noise"])}[folder]
    page = {
        "node": node_of(name),
        "abspath": f"/{folder}",
        "directories": [{"basename": name} for name in folders],
        "files": [{"basename": name} for name in files],
    }
    return sized(json.dumps(page).encode(), headers={"Content-Type": "application/json"})


HGWEB = {"Content-Type": "application/mercurial-0.1"}


def node_of(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def fault_case_host(cases: Sequence[Case]) -> Iterator[tuple[FaultCaseHost, FaultyHost]]:
    """Yield a host that plays *cases*, and a second host that must not be contacted."""
    with (
        faulty_host() as elsewhere,
        FaultCaseHost(cases, elsewhere=elsewhere.url) as host,
        serving(host),
    ):
        yield host, elsewhere
