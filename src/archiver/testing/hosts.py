"""A version-control host in memory."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from archiver.errors import (
    EmptyTree,
    InvalidRequest,
    NotPackable,
    SourceError,
    SuffixRefused,
    UnknownRepo,
    UnknownRev,
    UnknownSubdir,
)
from archiver.model import Archive, Node
from archiver.ports.source import IdentityCheck, OnReceived, ServedFormats, Stream
from archiver.testing.formats import packed

CHUNK_BYTES = 64 * 1024

SERVED = ServedFormats(suffixes=("tar.gz",))


@dataclass(slots=True, kw_only=True)
class _Repo:
    names: dict[str, Node] = field(default_factory=dict)
    trees: dict[Node, Mapping[str, bytes]] = field(default_factory=dict)

    def lookup(self, rev: str) -> Node | None:
        """Resolve like Mercurial: names before nodes, prefixes only if unique."""
        if rev in self.names:
            return self.names[rev]
        matches = [node for node in self.trees if node.startswith(rev.lower())]
        return matches[0] if len(matches) == 1 else None


async def _chunks(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


class FakeSource:
    """A host that packs its changesets like hgweb.

    ``asked`` counts requests by method. Attributes cause faults:

    - ``outage`` is raised by every request.
    - ``cut_at`` ends streams after so many bytes, without an error, as hosts do.
    - ``dropped`` omits so many files from the end of a well-formed archive.
    - ``latest_tag`` changes the bytes of whole trees, as a later tag does.
    - A ``trusted`` host is not asked for last files; ``unlisted`` is raised for such requests.
    - Roots are built from ``web_name``, if set.
    - Archives with an ``unfit`` suffix cannot be packed.

    ``identities`` are the identity checks of archives. A host that ``completes`` takes requests for
    submodules and LFS files, and packs the same files for them.
    """

    def __init__(self, *, name: str = "hgmo", served: ServedFormats = SERVED) -> None:
        self.name = name
        self.served = served
        self.node_digits = frozenset({40})
        self.abbreviates = True
        self.completes = False
        self.lookup_concurrency = 2
        self.asked: Counter[str] = Counter()
        self.outage: SourceError | None = None
        self.cut_at: int | None = None
        self.latest_tag = "null"
        self.dropped = 0
        self.trusted = False
        self.unlisted: SourceError | None = None
        self.web_name: str | None = None
        self.unfit: set[str] = set()
        self.identities: dict[Archive, IdentityCheck] = {}
        self._repos: defaultdict[str, _Repo] = defaultdict(_Repo)

    def commit(self, repo: str, files: Mapping[str, bytes], *names: str) -> Node:
        """Add a changeset with *files*, move *names* and ``tip`` to it, and return its node."""
        history = self._repos[repo]
        parents = "".join(history.trees)
        content = repr((repo, parents, sorted(files.items()))).encode()
        node = Node(hashlib.sha1(content, usedforsecurity=False).hexdigest())
        history.trees[node] = dict(files)
        history.names.update(dict.fromkeys((*names, "tip"), node))
        return node

    def url(self, archive: Archive) -> str:
        return (
            f"https://{self.name}.example/{archive.repo}/archive/"
            f"{archive.node}.{archive.suffix}/{archive.subdir}"
        )

    def download_url(self, archive: Archive) -> str | None:
        return self.url(archive) if self.served.fetchable(archive) == archive else None

    def identity_check(self, archive: Archive) -> IdentityCheck | None:
        return self.identities.get(archive)

    def check_rev(self, rev: str) -> None:
        if ":" in rev or rev.startswith("-"):
            raise InvalidRequest("rev is ambiguous", parameter="rev", allowed="one changeset")

    async def resolve(self, repo: str, rev: str) -> Node:
        node = self._repo("resolve", repo).lookup(rev)
        if node is None:
            raise UnknownRev(f"{self.name} has no revision {rev} in {repo}")
        return node

    async def has_node(self, repo: str, node: Node) -> bool:
        return node in self._repo("known", repo).trees

    @asynccontextmanager
    async def open(
        self,
        archive: Archive,
        *,
        on_received: OnReceived | None = None,  # noqa: ARG002 - the stream is the host's own
    ) -> AsyncIterator[Stream]:
        repo = self._repo("open", archive.repo)
        if archive not in self.served.candidates(archive):
            raise SuffixRefused(f"{self.name} does not serve such archives")
        files = self._files(repo, archive)
        sent = dict(list(files.items())[: len(files) - self.dropped])
        client_root = f"{archive.basename}-{archive.node[:12]}"
        root = f"{self.web_name or archive.basename}-{archive.node[:12]}"
        data = _pack(archive, root, sent, self.latest_tag)[: self.cut_at]
        if archive.suffix in self.unfit:
            data = data[:10]
        yield Stream(
            url=self.url(archive),
            root=root,
            client_root=client_root,
            size_bytes=0,  # unknown, as in hgweb
            chunks=_chunks(data),
        )

    async def last_file(self, archive: Archive) -> bytes | None:
        if self.trusted:
            return None
        if self.unlisted:
            raise self.unlisted
        return [*self._files(self._repo("last_file", archive.repo), archive)][-1].encode()

    async def explain_unpackable(self, archive: Archive, *, after: bytes) -> NotPackable | None:  # noqa: ARG002 - the same for every file
        if archive.suffix in self.unfit:
            return NotPackable(f"{self.name} cannot pack it in {archive.suffix}")
        return None

    def _files(self, repo: _Repo, archive: Archive) -> dict[str, bytes]:
        if archive.node not in repo.trees:
            raise UnknownRev(f"{self.name} has no changeset {archive.node} in {archive.repo}")
        tree = repo.trees[archive.node]
        folder = f"{archive.subdir}/" if archive.subdir else ""
        files = {path: tree[path] for path in sorted(tree) if path.startswith(folder)}
        if not tree:
            raise EmptyTree(f"{archive.node} has no files")
        if not files:
            raise UnknownSubdir(f"there is no {archive.subdir} in {archive.repo}")
        return files

    def _repo(self, method: str, repo: str) -> _Repo:
        self.asked[method] += 1
        if self.outage:
            raise self.outage
        if repo not in self._repos:
            raise UnknownRepo(f"{self.name} has no repository {repo}")
        return self._repos[repo]


def _pack(archive: Archive, root: str, files: Mapping[str, bytes], latest_tag: str) -> bytes:
    """Return the files under *root*; at the top of a whole tree, with ``.hg_archival.txt``."""
    text = f"node: {archive.node}\nlatesttag: {latest_tag}\n"
    note = {} if archive.subdir else {".hg_archival.txt": text.encode()}
    members = {f"{root}/{path}": content for path, content in {**note, **files}.items()}
    return packed(members, archive.suffix)
