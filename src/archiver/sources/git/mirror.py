"""A mirror while it is used: which nodes it has, and packs that are added to it."""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from archiver.errors import (
    ArchiverError,
    ArchiveTooLarge,
    BadPack,
    MirrorFailed,
    NoRoom,
    NotPackable,
    UnsafeMember,
)
from archiver.model import Node, parse_node
from archiver.sources.config import Attributes
from archiver.sources.git.child import Child, GitFailed
from archiver.sources.git.locks import locked, try_lock
from archiver.sources.git.program import GitProgram
from archiver.sources.git.store import HAVES_MAX, Identity, Store, has_room, starved, storing
from archiver.telemetry import METRICS

STEP_BYTES = 64 << 20
"""Room is reserved in steps of this size, to avoid a look at the disk for every chunk."""

LOOSE_PACKS_MAX = 25
"""Every pack slows down each look-up, and a repack takes a fifth of a second."""

_REFUSED_PATH = "error: invalid path '"
"""Git reads the paths of the whole commit, also those outside of the subdir."""

_REFUSED_ENCODING = "true/false are no valid working-tree-encodings"

_DISK_FULL = ("no space left on device", "disk quota exceeded", "file too large")

_NO_ROOM = "the disk of worker.mirror_dir is full"


class MakeRoom(Protocol):
    """Makes room for *more_bytes* on the disk of the mirrors. Raises NoRoom."""

    async def __call__(self, more_bytes: int) -> None: ...


class Mirror:
    """A repository's objects on this machine, which stay until the end of the block of its user.

    ``received`` is whether a pack was added, and ``had_objects`` whether there were any before.
    ``suspect`` is whether git failed, for which a damaged mirror may be the reason.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        store: Store,
        git: GitProgram,
        use_lock: int,
        make_room: MakeRoom,
    ) -> None:
        self.identity = identity
        self.store = store
        self.received = False
        self._found = False
        self.suspect = False
        self.had_objects = store.first_size_bytes() > 0
        self._git = git
        self._locks: tuple[int, ...] = (use_lock,)
        self._make_room = make_room
        self._reserved_bytes = 0

    @property
    def git(self) -> GitProgram:
        """Git, bound to this mirror. It honours the attributes of commits."""
        return self.git_for(Attributes.HONOUR)

    def git_for(self, attributes: Attributes) -> GitProgram:
        """Return git, bound to this mirror. Its processes hold the locks as long as they run."""
        store = self.store
        git_dir = store.exact if attributes is Attributes.IGNORE else store.folder
        return self._git.bound_to(git_dir, object_dir=store.objects, inherits=self._locks)

    @property
    def scratch(self) -> Path:
        """The folder for temporary files. Those of killed processes are removed later."""
        return self.store.folder.parents[2] / "new"

    async def has(self, node: Node) -> bool:
        """Return whether the commit is there. Raises MirrorFailed."""
        self._found = node in await self._present([node])
        return self._found

    async def haves(self) -> tuple[Node, ...]:
        """Return up to 8 nodes for a fetch to offer to the host, the last archived one first.

        All of their objects were there when they were archived. Raises MirrorFailed.
        """
        with storing():
            nodes = self.store.nodes()[:HAVES_MAX]
        return await self._present(nodes) if nodes else ()

    async def _present(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        request = "".join(f"{node}\n" for node in nodes).encode()
        command = ("cat-file", "--batch-check=%(objecttype) %(objectname)")
        try:
            output = await self.git.run(*command, stdin=request)
        except GitFailed as exc:
            raise self.translate(exc) from exc
        lines = (line.split() for line in output.decode().splitlines())
        found = (parse_node(name) for kind, name in lines if kind == "commit")
        return tuple(node for node in found if node)

    def remember(self, node: Node) -> None:
        """Offer *node* to the host from now on. All of its objects must be there.

        Call it once an archive of its whole tree, or of a part, was complete and proven.
        """
        with storing():
            self.store.remember(node)

    @asynccontextmanager
    async def fetch_lock(self) -> AsyncIterator[None]:
        """Hold the right to add objects, once no other process of this machine has it.

        Look for a node again in the block: another process may just have fetched it. Raises
        MirrorFailed or NoRoom.
        """
        async with AsyncExitStack() as stack:
            with storing():
                lock = await stack.enter_async_context(locked(self.store.fetch_lock))
                self.store.remove_litter()
            stack.enter_context(self._passing_on(lock))
            try:
                yield
            finally:
                with suppress(OSError):
                    self.store.remove_litter()  # of processes that were killed in the block

    @contextmanager
    def _passing_on(self, lock: int) -> Iterator[None]:
        """Let git's processes hold *lock*: they may outlive a worker that is killed."""
        held = self._locks
        self._locks = (*held, lock)
        try:
            yield
        finally:
            self._locks = held

    async def reserve(self) -> None:
        """Make room for the beginning of a pack. Call it before the request. Raises NoRoom."""
        await self._make_room(STEP_BYTES)
        self._reserved_bytes = STEP_BYTES

    async def receive(self, chunks: AsyncIterator[bytes], *, max_bytes: int) -> int:
        """Add the objects of a pack, and return its size. Only for the holder of the fetch lock.

        The pack may be thin, but only on top of ``haves``. Its objects are visible all at once, or
        not at all. Git computes their ids, but does not check that any are missing.

        Raises:
            BadPack: Git rejects the pack.
            ArchiveTooLarge: It has more than *max_bytes*, or needs too much memory.
            NoRoom: The disk is full, or worker.mirror_max_bytes are in use.
            MirrorFailed: Git was killed, or the mirror is damaged.
            whatever *chunks* raise.
        """
        command = ("index-pack", "--stdin", "--fix-thin", f"--max-input-size={max_bytes}")
        try:
            async with self.git.feed(*command) as pack:
                size_bytes = await self._feed(pack, chunks, max_bytes)
                await pack.finish()
        except GitFailed as exc:
            raise self._pack_failure(exc) from exc
        self.received = True
        with storing():
            self._note_first_size()
        return size_bytes

    async def _feed(self, pack: Child, chunks: AsyncIterator[bytes], max_bytes: int) -> int:
        size_bytes, room_bytes = 0, self._reserved_bytes
        fetched = METRICS.mirror_fetched_bytes.labels(source=self.identity.source)
        async for chunk in chunks:
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise ArchiveTooLarge(f"the host sent more than {max_bytes} bytes")
            if size_bytes > room_bytes:
                await self._make_room(STEP_BYTES)
                room_bytes += STEP_BYTES
            await pack.write(chunk)
            fetched.inc(len(chunk))
        return size_bytes

    def _note_first_size(self) -> None:
        if not self.store.first_size_bytes():
            self.store.set_first_size(self.store.size().size_bytes)

    def _pack_failure(self, failure: GitFailed) -> ArchiverError:
        translated = self.translate(failure)
        may_be_the_hosts = isinstance(translated, MirrorFailed) and failure.ended_itself
        if may_be_the_hosts and self.store.is_whole():
            return BadPack("the host sent a pack that git rejects")
        return translated

    def translate(self, failure: GitFailed) -> ArchiverError:
        """Return the error of a failed run of git in this mirror.

        That is ArchiveTooLarge if git reached one of its limits, UnsafeMember for a path that it
        refuses, NotPackable for an attribute that it rejects, NoRoom, or MirrorFailed, which makes
        the mirror ``suspect``.
        """
        if translated := _limit_of(failure) or _refusal_of(failure) or self._disk_full(failure):
            return translated
        self.suspect = True
        return MirrorFailed("git failed on the worker's copy of the repository")

    def _disk_full(self, failure: GitFailed) -> NoRoom | None:
        with suppress(OSError):
            if not has_room(self.store.folder):
                return NoRoom(_NO_ROOM)
        full = any(sign in failure.stderr.lower() for sign in _DISK_FULL)
        return NoRoom(_NO_ROOM) if full else None

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Translate GitFailed in the block, and note whether the mirror may be to blame."""
        try:
            yield
        except GitFailed as exc:
            raise self.translate(exc) from exc
        except MirrorFailed:
            self.suspect = True
            raise

    @property
    def is_fresh(self) -> bool:
        """Whether all objects have arrived during this use."""
        return self.received and not self.had_objects

    @property
    def outcome(self) -> str:
        """The use's outcome for ``archiver_mirror_uses_total``."""
        if self.suspect:
            return "failed"
        if self.received:
            return "fetched" if self.had_objects else "cold"
        return "hit" if self._found else "missed"

    def outgrew(self, *, factor: int, at_least_bytes: int) -> bool:
        """Return whether it has more than *factor* times its first size. Raises OSError."""
        bound = max(factor * self.store.first_size_bytes(), at_least_bytes)
        return self.store.size().size_bytes > bound

    async def try_repack(self) -> bool:
        """Merge small packs if there are many, and no other process adds objects now.

        Objects stay, although nothing refers to them. Raises GitFailed or OSError.
        """
        lock = try_lock(self.store.fetch_lock, exclusive=True)
        if lock is None:
            return False
        try:
            self.store.remove_litter()
            if self.store.size().loose_packs < LOOSE_PACKS_MAX:
                return False
            with self._passing_on(lock):
                await self.git.run("repack", "--geometric=2", "-d", "-n", "-q", "--write-midx")
        finally:
            os.close(lock)
        return True


def _limit_of(failure: GitFailed) -> ArchiverError | None:
    """Return the error of a run that reached a limit: of git, or of this process."""
    if failure.reached_limit:
        return ArchiveTooLarge("the commit exceeds the limits of git's memory, time or output")
    return starved(failure.__cause__)


def _refusal_of(failure: GitFailed) -> ArchiverError | None:
    """Return the error of a run that refused something in the commit."""
    if _REFUSED_PATH in failure.stderr:
        return UnsafeMember("the commit has a path that git refuses to write")
    if _REFUSED_ENCODING in failure.stderr:
        return NotPackable("a .gitattributes has working-tree-encoding without an encoding")
    return None
