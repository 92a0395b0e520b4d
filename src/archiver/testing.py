"""The four ports in memory: quick, without a network, and as strict as the real ones.

For tests of what uses them. ``tests/contracts`` holds them to what ``ports.py`` promises. Each has
switches to make it fail in the ways that the real part does.
"""

import bz2
import gzip
import hashlib
import hmac
import io
import lzma
import secrets
import tarfile
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import zstandard

from archiver.errors import (
    ArchiverError,
    BytesChanged,
    CorruptArchive,
    EngineUnavailable,
    InvalidRequest,
    LeaseLost,
    SourceError,
    StorageUnavailable,
    SuffixRefused,
    TruncatedArchive,
    UnknownRepo,
    UnknownRev,
    UnknownSubdir,
)
from archiver.memory import Memory
from archiver.model import (
    Archive,
    Backlog,
    Conversion,
    Copies,
    Failure,
    Joined,
    Manifest,
    Node,
    Phase,
    PresignedUrl,
    Priority,
    Region,
    Served,
    Task,
    TaskState,
    Verified,
    parse_key,
    rev_digest,
)
from archiver.news import News
from archiver.ports import Found, Hold, Resolved, Storage, Upload
from archiver.sealing import seal
from archiver.service import Archiver

CHUNK_BYTES = 64 * 1024

SERVED = Served(suffixes=("tar.gz",))


@dataclass(slots=True, kw_only=True)
class _Repo:
    names: dict[str, Node] = field(default_factory=dict)
    trees: dict[Node, Mapping[str, bytes]] = field(default_factory=dict)

    def lookup(self, rev: str) -> Node | None:
        """Return what Mercurial would: a name before a node, a prefix only if it is unique."""
        if rev in self.names:
            return self.names[rev]
        spelled = [node for node in self.trees if node.startswith(rev.lower())]
        return spelled[0] if len(spelled) == 1 else None


@dataclass(slots=True, kw_only=True)
class _Stream:
    url: str
    root: str
    data: bytes = field(repr=False)
    size_bytes: int = 0  # hgweb begins to send before it knows

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(self.data), CHUNK_BYTES):
            yield self.data[start : start + CHUNK_BYTES]


class FakeSource:
    """A host that packs its changesets as hgweb does.

    ``asked`` counts what it was asked, by method. ``outage`` is raised by each of them;
    ``cut_at`` ends a stream after so many bytes, in silence, as hosts do. ``latest_tag`` changes
    the bytes of whole trees, as a tag that comes later does.
    """

    def __init__(self, *, name: str = "hgmo", served: Served = SERVED) -> None:
        self.name = name
        self.fetchable = served.nearest
        self.wants_verbatim = served.wants_verbatim
        self.asked: Counter[str] = Counter()
        self.outage: SourceError | None = None
        self.cut_at: int | None = None
        self.latest_tag = "null"
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

    def check_rev(self, rev: str) -> None:
        if ":" in rev or rev.startswith("-"):
            raise InvalidRequest("rev means several", parameter="rev", allowed="one changeset")

    async def resolve(self, repo: str, rev: str) -> Node:
        node = self._repo("resolve", repo).lookup(rev)
        if node is None:
            raise UnknownRev(f"{self.name} has no revision {rev} in {repo}")
        return node

    async def known(self, repo: str, node: Node) -> bool:
        return node in self._repo("known", repo).trees

    @asynccontextmanager
    async def open(self, archive: Archive) -> AsyncIterator[_Stream]:
        repo = self._repo("open", archive.repo)
        if self.fetchable(archive) != archive:
            raise SuffixRefused(f"{self.name} does not serve such archives")
        if archive.node not in repo.trees:
            raise UnknownRev(f"{self.name} has no changeset {archive.node} in {archive.repo}")
        folder = f"{archive.subdir}/" if archive.subdir else ""
        files = {
            path: content
            for path, content in repo.trees[archive.node].items()
            if path.startswith(folder)
        }
        if not files:
            raise UnknownSubdir(f"there is no {archive.subdir} in {archive.repo}")
        root = f"{archive.basename}-{archive.node[:12]}"
        data = _pack(archive, root, files, self.latest_tag)[: self.cut_at]
        yield _Stream(url=self.url(archive), root=root, data=data)

    def _repo(self, method: str, repo: str) -> _Repo:
        self.asked[method] += 1
        if self.outage:
            raise self.outage
        if repo not in self._repos:
            raise UnknownRepo(f"{self.name} has no repository {repo}")
        return self._repos[repo]


def _pack(archive: Archive, root: str, files: Mapping[str, bytes], latest_tag: str) -> bytes:
    """Return the files under *root*, and at the top of a whole tree the note that hg leaves."""
    text = f"node: {archive.node}\nlatesttag: {latest_tag}\n"
    note = {} if archive.subdir else {".hg_archival.txt": text.encode()}
    members = {f"{root}/{path}": content for path, content in {**note, **files}.items()}
    return _packed(members, archive.suffix)


_COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": partial(gzip.compress, mtime=0),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.compress,
}


def _packed(members: Mapping[str, bytes], suffix: str) -> bytes:
    return _zip(members) if suffix == "zip" else _COMPRESS[suffix](_tar(members))


def _unpacked(data: bytes, suffix: str) -> dict[str, bytes]:
    """Return the files of an archive."""
    if suffix == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(fileobj=io.BytesIO(_DECOMPRESS[suffix](data))) as tar:
        extracted = ((member.name, tar.extractfile(member)) for member in tar)
        return {name: file.read() for name, file in extracted if file}


_DECOMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.decompress,
    "tar.bz2": bz2.decompress,
    "tar.xz": lzma.decompress,
    "tar.zst": zstandard.decompress,
}


class FakeConverter:
    """Converts files, by the standard library and all at once. Of modes and links it knows nothing.

    ``conversions`` counts what was done.
    """

    def __init__(self) -> None:
        self.conversions = 0

    def version(self, suffix: str) -> str:
        return f"fake {suffix}"

    @asynccontextmanager
    async def convert(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        given: Archive,
        wanted: Archive,
        root: str,
        size_bytes: int = 0,  # noqa: ARG002 - it has all the room in the world
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async def converted() -> AsyncGenerator[bytes, None]:
            async with aclosing(chunks):
                members = _unpacked(b"".join([chunk async for chunk in chunks]), given.suffix)
            top = f"{root}/{wanted.subdir}".rstrip("/")
            if given.subdir != wanted.subdir:
                members = {
                    name: content
                    for name, content in members.items()
                    if name == top or name.startswith(f"{top}/")
                }
            if not members:
                raise UnknownSubdir(f"there is no {wanted.subdir} in {wanted.repo}")
            self.conversions += 1
            yield _packed(members, wanted.suffix)

        async with aclosing(converted()) as pieces:
            yield pieces


def _tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in members.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in members.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return buffer.getvalue()


class GzipVerifier:
    """Sees whether a gzip stream came to its end. Of other formats it believes everything."""

    def __init__(self, archive: Archive, *, root: str) -> None:
        self._root = root
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        self._gzip = zlib.decompressobj(zlib.MAX_WBITS | 16) if archive.suffix == "tar.gz" else None

    async def update(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        self._size_bytes += len(chunk)
        if self._gzip:
            try:
                self._gzip.decompress(chunk)
            except zlib.error as exc:
                raise CorruptArchive("the gzip stream is damaged") from exc

    async def finish(self) -> Verified:
        if self._gzip and not self._gzip.eof:
            raise TruncatedArchive("the gzip stream has no end")
        if self._gzip and self._gzip.unused_data:
            raise CorruptArchive("something follows the gzip stream")
        return seal(sha256=self._sha256.hexdigest(), size_bytes=self._size_bytes, root=self._root)


class MemoryStorage:
    """Buckets in memory. ``down`` are the regions that do not answer.

    ``objects`` and ``manifests`` lie open, so that a test can count, damage or remove them.
    """

    def __init__(self, *, regions: Sequence[str] = ("us-east-1", "us-west-2")) -> None:
        self.regions = tuple(Region(region) for region in regions)
        self.down: set[Region] = set()
        self.objects: dict[Region, dict[str, bytes]] = {region: {} for region in self.regions}
        self.manifests: dict[Region, dict[str, Manifest]] = {region: {} for region in self.regions}
        self._secret = secrets.token_bytes()

    async def find(self, archive: Archive) -> Found:
        copies = self._copies(archive)
        return Found(
            copies=copies,
            unreachable=tuple(region for region in self.regions if region in self.down),
            promised=None if copies else self._manifest(archive),
        )

    async def archives(
        self, source: str | None = None, *, region: Region | None = None
    ) -> AsyncGenerator[Archive, None]:
        up = self._up([region] if region else self.regions)
        if not up:
            raise StorageUnavailable("no region answers")
        for archive in map(parse_key, sorted(self.manifests[up[0]])):
            if archive and source in {None, archive.source}:
                yield archive

    async def upload(
        self,
        archive: Archive,
        chunks: AsyncGenerator[bytes, None],
        *,
        attempt: str,
        avoid: Collection[Region] = (),
        promised: Manifest | None = None,
    ) -> Upload:
        data = b"".join([chunk async for chunk in chunks])
        if promised and hashlib.sha256(data).hexdigest() != promised.sha256:
            raise BytesChanged("these are not the bytes that were promised")
        tried = tuple(region for region in self.regions if region not in avoid) or self.regions
        regions = self._up(tried)
        if not regions:
            raise StorageUnavailable("no region took the archive")
        object_key = f"archives/{archive.key}/{attempt}/{archive.file_name}"
        if promised:
            object_key = promised.object_key
        for region in regions:
            self.objects[region][object_key] = data
        return Upload(
            object_key=object_key,
            regions=regions,
            failures={
                region: StorageUnavailable(f"{region} does not answer")
                for region in tried
                if region not in regions
            },
            promised=promised is not None,
        )

    async def commit(
        self,
        archive: Archive,
        upload: Upload,
        verified: Verified,
        *,
        hold: Hold,
        source_url: str,
        conversion: Conversion | None = None,
    ) -> Copies:
        try:
            await hold()
        except LeaseLost:
            await self.discard(upload)
            raise
        if first := self._copies(archive):
            if first.manifest.object_key != upload.object_key:
                await self.discard(upload)
            return first
        if self._manifest(archive):
            await self.discard(upload)
            raise StorageUnavailable("other bytes were promised")
        manifest = Manifest(
            key=archive.key,
            node=archive.node,
            sha256=verified.sha256,
            size_bytes=verified.size_bytes,
            object_key=upload.object_key,
            root=verified.root,
            source_url=source_url,
            created_at=datetime.now(UTC),
            conversion=conversion,
        )
        for region in self._up(upload.regions):
            self.manifests[region][archive.key] = manifest
        committed = self._copies(archive)
        if not committed:
            raise StorageUnavailable("no region took the manifest")
        return committed

    async def discard(self, upload: Upload) -> None:
        for region in self._up(() if upload.promised else upload.regions):
            self.objects[region].pop(upload.object_key, None)

    async def read(self, copies: Copies, region: Region) -> AsyncGenerator[bytes, None]:
        manifest = copies.manifest
        body = self.objects[region].get(manifest.object_key)
        if body is None or region in self.down:
            raise StorageUnavailable(f"{region} does not give the archive")
        yield body
        if hashlib.sha256(body).hexdigest() != manifest.sha256:
            raise CorruptArchive(f"{region} has other bytes than its manifest says")

    async def copy(self, archive: Archive, copies: Copies, region: Region) -> None:
        manifest = copies.manifest
        bodies = [
            self.objects[source][manifest.object_key]
            for source in self._up(copies.regions)
            if manifest.object_key in self.objects[source]
        ]
        if not bodies or region in self.down:
            raise StorageUnavailable(f"the archive cannot be copied to {region}")
        for body in bodies:
            if hashlib.sha256(body).hexdigest() == manifest.sha256:
                self.objects[region][manifest.object_key] = body
                self.manifests[region].setdefault(archive.key, manifest)
                return
        raise CorruptArchive("no region has the bytes that the manifest promises")

    def presign(self, copies: Copies, region: Region, *, method: str) -> PresignedUrl:
        address = f"https://{region}.s3.example/{copies.manifest.object_key}"
        return PresignedUrl(f"{address}?X-Amz-Signature={self._sign(method, address)}")

    async def check(self) -> Mapping[Region, ArchiverError | None]:
        return {
            region: StorageUnavailable(f"{region} does not answer") if region in self.down else None
            for region in self.regions
        }

    def download(self, url: str) -> bytes:
        """Return what a client gets who sends GET to a presigned *url*.

        Raises:
            PermissionError: It was not signed here, or not for GET.
        """
        address, _, signature = url.partition("?X-Amz-Signature=")
        if not hmac.compare_digest(signature, self._sign("GET", address)):
            raise PermissionError("the signature does not fit")
        host, object_key = address.removeprefix("https://").split("/", 1)
        return self.objects[Region(host.removesuffix(".s3.example"))][object_key]

    def _sign(self, method: str, address: str) -> str:
        return hmac.digest(self._secret, f"{method} {address}".encode(), "sha256").hex()

    def _up(self, regions: Sequence[Region]) -> tuple[Region, ...]:
        return tuple(region for region in regions if region not in self.down)

    def _copies(self, archive: Archive) -> Copies | None:
        manifest = self._manifest(archive)
        regions = tuple(
            region for region in self._up(self.regions) if manifest and self._has(manifest, region)
        )
        return Copies(manifest=manifest, regions=regions) if manifest and regions else None

    def _manifest(self, archive: Archive) -> Manifest | None:
        manifests = (self.manifests[region].get(archive.key) for region in self._up(self.regions))
        return next(filter(None, manifests), None)

    def _has(self, manifest: Manifest, region: Region) -> bool:
        body = self.objects[region].get(manifest.object_key)
        stands = self.manifests[region].get(manifest.key) == manifest
        return stands and body is not None and len(body) == manifest.size_bytes


class MemoryIndex:
    """An index of one process. With *storage*, it asks the buckets about what it does not know.

    ``digests`` lie open, for a test to make them wrong; ``outage`` is why they cannot be asked.
    """

    def __init__(self, *, storage: Storage | None = None, news: News | None = None) -> None:
        self._storage = storage
        self._news = news or News()
        self._copies: dict[str, Copies] = {}
        self.digests: dict[str, Archive] = {}
        self.outage: ArchiverError | None = None
        self._nodes: dict[tuple[str, str, str], Resolved] = {}

    async def copies(self, archive: Archive) -> Copies | None:
        if archive.key not in self._copies and self._storage:
            found = await self._storage.find(archive)
            if found.copies:
                await self.record(archive, found.copies)
        return self._copies.get(archive.key)

    async def record(self, archive: Archive, copies: Copies) -> None:
        self._copies[archive.key] = copies
        self.digests[copies.manifest.sha256] = archive
        self._news.tell(archive.digest)

    async def forget(self, archive: Archive) -> None:
        self._copies.pop(archive.key, None)
        self._news.tell(archive.digest)

    async def by_digest(self, sha256: str) -> Archive | None:
        if self.outage:
            raise self.outage
        return self.digests.get(sha256)

    async def node(self, source: str, repo: str, rev: str) -> Resolved | None:
        return self._nodes.get((source, repo, rev))

    async def remember(self, source: str, repo: str, rev: str, resolved: Resolved) -> None:
        self._nodes[source, repo, rev] = resolved
        self._news.tell(rev_digest(source, repo, rev))


class FakeAttempt:
    """A hold on a task that lasts until ``lost`` is set. ``reports`` keeps what it said."""

    def __init__(
        self, *, archive: Archive, on_report: Callable[[Phase, int], None] | None = None
    ) -> None:
        self.id = secrets.token_hex(8)
        self.archive = archive
        self.lost = False
        self.reports: list[tuple[Phase, int]] = []
        self._on_report = on_report

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        self.reports.append((phase, bytes_done))
        if self._on_report:
            self._on_report(phase, bytes_done)

    async def hold(self) -> None:
        if self.lost:
            raise LeaseLost("another worker has the task")


class MemoryEngine:
    """A queue of one process. ``down`` makes it unavailable.

    A worker is whoever calls ``claim`` and then ``succeed``, ``retry`` or ``fail``; or ``work``,
    which does all of it for whatever is queued. ``asked`` counts the questions about tasks;
    ``mean`` is how long the last one took.
    """

    def __init__(self, *, failure_ttl: timedelta = timedelta(seconds=10)) -> None:
        self.down = False
        self.asked = 0
        self.mean: timedelta | None = None
        self.news = News()
        self.tasks: dict[str, Task] = {}
        self.repairs: dict[str, tuple[Region, ...]] = {}
        self._queues: dict[Priority, list[str]] = {priority: [] for priority in Priority}
        self._failures: Memory[str, Failure] = Memory(ttl=failure_ttl)

    async def enqueue(self, archive: Archive, *, priority: Priority = Priority.HIGH) -> Joined:
        self._raise_if_down()
        known = self.tasks.get(archive.key)
        if known and not known.state.terminal:
            return Joined.JOINED
        now = datetime.now(UTC)
        self.tasks[archive.key] = Task(
            archive=archive,
            state=TaskState.PENDING,
            phase=Phase.QUEUED,
            created_at=now,
            updated_at=now,
        )
        self._queues[priority].append(archive.key)
        return Joined.MISS

    async def task(self, archive: Archive) -> Task | None:
        self.asked += 1
        self._raise_if_down()
        return self.tasks.get(archive.key)

    async def backlog(self, source: str) -> Backlog | None:
        states = [task.state for task in self.tasks.values() if task.archive.source == source]
        waiting = states.count(TaskState.PENDING) + states.count(TaskState.RETRY)
        running = states.count(TaskState.STARTED)
        return None if self.down else Backlog(waiting=waiting, running=running, mean=self.mean)

    def recent_failure(self, archive: Archive) -> Failure | None:
        return self._failures.get(archive.key)

    async def repair_later(self, archive: Archive, missing: Sequence[Region]) -> None:
        self._raise_if_down()
        self.repairs[archive.key] = tuple(missing)

    async def repaired(self, archive: Archive) -> None:
        self._raise_if_down()
        self.repairs.pop(archive.key, None)

    async def check(self) -> ArchiverError | None:
        return EngineUnavailable("the engine does not answer") if self.down else None

    def claim(self) -> FakeAttempt | None:
        """Return a hold on the next task, of high priority first; None when there is none."""
        for queue in self._queues.values():
            if queue:
                task = self.tasks[queue.pop(0)]
                self._change(
                    task.archive,
                    state=TaskState.STARTED,
                    phase=Phase.CONNECTING,
                    attempt=task.attempt + 1,
                    started_at=datetime.now(UTC),
                )
                return FakeAttempt(archive=task.archive, on_report=self._reporter(task.archive))
        return None

    def _reporter(self, archive: Archive) -> Callable[[Phase, int], None]:
        return lambda phase, bytes_done: self._change(archive, phase=phase, bytes_done=bytes_done)

    def succeed(self, attempt: FakeAttempt) -> None:
        self._change(attempt.archive, state=TaskState.SUCCESS, phase=Phase.DONE, error=None)
        task = self.tasks[attempt.archive.key]
        if task.started_at and task.updated_at:
            self.mean = task.updated_at - task.started_at

    def retry(self, attempt: FakeAttempt, exc: ArchiverError) -> None:
        self._failed(attempt, exc, state=TaskState.RETRY, phase=Phase.WAITING)
        self._queues[Priority.HIGH].append(attempt.archive.key)

    def fail(self, attempt: FakeAttempt, exc: ArchiverError) -> None:
        self._failed(attempt, exc, state=TaskState.FAILURE, phase=Phase.DONE)
        if not exc.retryable:
            self._failures.put(attempt.archive.key, Failure(code=exc.code, message=exc.message))
            self.news.tell(attempt.archive.digest)

    async def work(self, archiver: Archiver, *, max_failures: int = 5) -> None:
        """Build what is queued, and what comes to be queued meanwhile, until nothing is."""
        while attempt := self.claim():
            try:
                await archiver.build(attempt.archive, attempt)
            except ArchiverError as exc:
                failures = self.tasks[attempt.archive.key].failures + 1
                again = exc.retryable and failures < max_failures
                (self.retry if again else self.fail)(attempt, exc)
            else:
                self.succeed(attempt)

    def _failed(
        self, attempt: FakeAttempt, exc: ArchiverError, *, state: TaskState, phase: Phase
    ) -> None:
        self._change(
            attempt.archive,
            state=state,
            phase=phase,
            failures=self.tasks[attempt.archive.key].failures + 1,
            error=Failure(code=exc.code, message=exc.message),
        )

    def _change(self, archive: Archive, **changes: object) -> None:
        task = self.tasks[archive.key]
        self.tasks[archive.key] = replace(task, **changes, updated_at=datetime.now(UTC))  # type: ignore[arg-type]
        self.news.tell(archive.digest)

    def _raise_if_down(self) -> None:
        if self.down:
            raise EngineUnavailable("the engine does not answer")
