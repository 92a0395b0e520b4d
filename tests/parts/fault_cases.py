"""An hgweb-like host with one repository per case, each of which goes wrong in a way of its own."""

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
"""After so many, a task is to end."""

SIZE_BYTES = 40_000
"""Of the one file in an archive that weighs something. It cannot be compressed."""

_LISTINGS = "/json-manifest/"

Answer = tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The changeset of a case. ``target`` is its archive's, ``elsewhere`` a host it has no part in.

    What is sound of it can be told by nobody but the one who made it: each has bytes of its own.
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
        """Return the sound archive; with another *seed*, a sound one of other bytes."""
        members = self.members(node=node, seed=seed, size_bytes=size_bytes)
        if (suffix or self.suffix) == "zip":
            return zipped(members.items())
        tar = tar_members(members) + TAR_END
        if (suffix or self.suffix) == "tar.bz2":
            return bz2.compress(tar)
        return gzip.compress(tar, compresslevel=0 if size_bytes > SIZE_BYTES else 1, mtime=0)


Make = Callable[[Subject], Answer]
Body = Callable[[Subject], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a host does, and how the task has to end.

    ``answers`` are those to the first, the second, … request for the archive; the last one is given
    again and again. Without a ``code`` the end is SUCCESS, and ``stored`` is in the buckets. The
    tree ends with the file ``last``, if that is another one than usual.
    """

    name: str
    answers: Sequence[Make]
    suffix: str = "tar.gz"
    code: str | None = None
    failures: int = 0
    requests: int = 1
    stored: Body = Subject.packed
    lookup: Answer | None = None
    last: str | None = None


def sound(
    name: str,
    answer: Make,
    *,
    suffix: str = "tar.gz",
    stored: Body = Subject.packed,
    last: str | None = None,
) -> Case:
    """Return what is odd, and no more than that."""
    return Case(name=name, answers=[answer], suffix=suffix, stored=stored, last=last)


def refused(
    name: str, code: str, answer: Make, *, suffix: str = "tar.gz", requests: int = 1
) -> Case:
    """Return what no second attempt can mend."""
    return Case(
        name=name, answers=[answer], suffix=suffix, code=code, failures=1, requests=requests
    )


def retried(name: str, code: str, answer: Make, *, suffix: str = "tar.gz") -> Iterator[Case]:
    """Yield what a second attempt may mend: when it does not, and when it does."""
    yield Case(
        name=name,
        answers=[answer],
        suffix=suffix,
        code=code,
        failures=MAX_FAILURES,
        requests=MAX_FAILURES,
    )
    answers = [answer, body(Subject.packed)]
    yield Case(name=f"{name}-once", answers=answers, suffix=suffix, failures=1, requests=2)


def script(*pieces: Step | Body) -> Make:
    """Return how to answer with these steps, of which some are made for the subject."""
    return lambda subject: tuple(piece(subject) if callable(piece) else piece for piece in pieces)


def body(content: Body, headers: Mapping[str, str] = NONE, *, status: str = "200 OK") -> Make:
    """Return how to answer with *content*, in an honest frame."""
    return script(lambda subject: sized(content(subject), status, headers))


class FaultCaseHost(FaultyHost):
    """Answers questions about each case's repository as hgweb does, and about its archive as told.

    ``moments`` are those at which each case's archive was asked for, by name.
    """

    def __init__(self, cases: Sequence[Case], *, elsewhere: str) -> None:
        super().__init__()
        self.moments: defaultdict[str, list[float]] = defaultdict(list)
        self._elsewhere = elsewhere
        self._cases = {f"/faults/{case.name}": case for case in cases}
        self._answers = {  # made beforehand, so that nobody has to wait for them
            case.name: [answer(self.subject(case)) for answer in case.answers] for case in cases
        }
        self._noting = threading.Lock()

    def subject(self, case: Case) -> Subject:
        return Subject(name=case.name, suffix=case.suffix, home=self.url, elsewhere=self._elsewhere)

    def steps(self, request: Request) -> Answer:
        url = urlsplit(request.target)
        place, _, folder = url.path.partition(_LISTINGS)
        repo, _, archive = place.partition("/archive/")
        if repo not in self._cases:
            return super().steps(request)
        case = self._cases[repo]
        if _LISTINGS in url.path:
            return (_listing(case, folder.partition("/")[2]),)
        return self._archive(case, request) if archive else self._answer(case, parse_qs(url.query))

    def _archive(self, case: Case, request: Request) -> Answer:
        with self._noting:
            moments = self.moments[case.name]
            moments.append(request.at)
            number = len(moments)
        answers = self._answers[case.name]
        return answers[min(number, len(answers)) - 1]

    def _answer(self, case: Case, question: Mapping[str, list[str]]) -> Answer:
        if question["cmd"] == ["known"]:
            return (sized(b"1", headers=HGWEB),)
        return case.lookup or (sized(b"1 %s\n" % node_of(case.name).encode(), headers=HGWEB),)


def _listing(case: Case, folder: str) -> bytes:
    """Return what hgweb says is in *folder* of a tree such as ``Subject.members`` has."""
    top = ["README", case.last] if case.last else ["README"]
    folders, files = {"": (["src"], top), "src": ([], ["noise"])}[folder]
    page = {
        "node": node_of(case.name),
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
    """Yield a host that plays *cases*, and another one that nobody ought to contact."""
    with (
        faulty_host() as elsewhere,
        FaultCaseHost(cases, elsewhere=elsewhere.url) as host,
        serving(host),
    ):
        yield host, elsewhere
